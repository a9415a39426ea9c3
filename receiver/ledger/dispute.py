"""Pure. A dispute about a payment: a chargeback at the buyer's bank, or an A-to-z claim.

While a dispute is open, the buyer may already have the money or may still get it, so a refund could pay twice. The
values of `state` (UnderReview, ActionRequired, Resolved, Closed) and `resolution` (BuyerWon, MerchantWon, NoFault) are
those of Amazon's Get Dispute. Notifications carry neither, so a dispute known only from a notification is open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from receiver.ledger.money import Money
from receiver.ledger.schema import AmazonTime, Json, MoneyJson, Rfc3339, amazon_time, money_json, tidy
from receiver.ledger.timestamps import format_rfc3339

CHARGE_PERMISSION_ID = re.compile(r"[A-Z][0-9]{2}-[0-9]{7}-[0-9]{7}")
CHARGE_ID = re.compile(rf"{CHARGE_PERMISSION_ID.pattern}-C[0-9A-Z]{{1,16}}")
ENDED = frozenset({"Resolved", "Closed"})
MERCHANT_WON = "MerchantWon"


class Dispute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What Amazon reported about one dispute. A missing or unreadable text is empty, a missing time is 0."""

    dispute_id: str
    charge_permission_id: str
    charge_id: str = ""
    """If empty, any charge of the charge permission may be the disputed one."""
    kind: str = "chargeback"
    """`chargeback`, `A-to-z claim` or `dispute`."""
    amount: Money | None = None
    reason: str = ""
    """Why the buyer filed it, in Amazon's words."""
    told_state: str = ""
    """`ChargebackState` of an XML notification, such as RECEIVED. It does not say who won."""
    state: str = ""
    resolution: str = ""
    created_at: int = 0
    """Amazon's `CreationTimestamp`, ms."""
    first_told_at: int = 0
    """When Amazon signed the first notification about it, ms."""
    told_at: int = 0
    """When Amazon signed the latest one, ms."""

    @property
    def is_open(self) -> bool:
        """Whether the buyer may have the money. A dispute that the buyer won therefore stays open."""
        return self.state not in ENDED or self.resolution != MERCHANT_WON

    def concerns(self, charge_id: str) -> bool:
        """Whether it is, or may be, about this charge of its charge permission."""
        return self.charge_id in ("", charge_id)


class DisputeJson(Json, kw_only=True):
    """A dispute about a charge. A field that Amazon did not report is null."""

    dispute_id: str
    kind: Annotated[str, Meta(description="chargeback, A-to-z claim or dispute.")]
    charge_permission_id: str
    charge_id: Annotated[str | None, Meta(description="Null: any charge of the charge permission may be disputed.")] = (
        None
    )
    open: Annotated[
        bool, Meta(description="True until Amazon reports that the merchant won. An open dispute blocks refunds.")
    ]
    amount: MoneyJson | None = None
    reason: Annotated[str | None, Meta(description="Why the buyer filed it, in Amazon's words.")] = None
    state: Annotated[str | None, Meta(description="In Amazon's words, such as RECEIVED or UnderReview.")] = None
    resolution: Annotated[
        str | None, Meta(description="BuyerWon, MerchantWon or NoFault, if Amazon has reported it.")
    ] = None
    creation_timestamp: AmazonTime | None = None
    first_told_at: Annotated[Rfc3339 | None, Meta(description="When Amazon signed the first notification of it.")] = (
        None
    )
    told_at: Annotated[Rfc3339 | None, Meta(description="When Amazon signed the last notification of it.")] = None


def permission_of(object_id: str) -> str:
    """The charge permission of a charge, refund or dispute id: the first three parts, such as `S01-5105180-3221187`."""
    return "-".join(object_id.split("-")[:3])


def signed(dispute: Dispute, message_id: str, at: int) -> Dispute:
    """The dispute with its signing time (ms) and an id. If the notification names no id, the message id is used."""
    named = dispute.dispute_id or f"unnamed-{message_id}"
    return msgspec.structs.replace(dispute, dispute_id=named, first_told_at=at, told_at=at)


def joined(known: Dispute, told: Dispute) -> Dispute:
    """Merge a further notification. For each field the newest value wins; a missing value erases nothing."""
    older, newer = sorted((known, told), key=lambda each: each.told_at)
    facts = {name: value for name in Dispute.__struct_fields__ if (value := getattr(newer, name))}
    facts["first_told_at"] = min(known.first_told_at, told.first_told_at)
    return msgspec.structs.replace(older, **facts)


def open_on(charge_id: str, disputes: Iterable[Dispute]) -> list[Dispute]:
    """The open disputes about this charge, oldest first."""
    found = [each for each in disputes if each.is_open and each.concerns(charge_id)]
    return sorted(found, key=lambda each: (each.first_told_at, each.dispute_id))


def may_be_paid(disputes: Iterable[Dispute]) -> str:
    """The warning about open disputes, in two sentences."""
    named = ", ".join(_named(each) for each in disputes)
    return (
        f"Amazon reported {named or 'a dispute'} that has not ended in your favour: the buyer may have the money from "
        "it. Check the dispute in Seller Central, and do not refund the buyer as well."
    )


def _named(dispute: Dispute) -> str:
    facts = [dispute.dispute_id, str(dispute.amount or ""), dispute.reason, day(dispute.first_told_at)]
    return f"{'an' if dispute.kind.startswith('A') else 'a'} {dispute.kind} ({', '.join(filter(None, facts))})"


def day(ms: int) -> str:
    """`2026-11-29`; empty if there is no time."""
    return format_rfc3339(ms)[:10] if ms > 0 else ""


def dispute_json(dispute: Dispute) -> DisputeJson:
    """The JSON of a dispute, with keys in the order of `DisputeJson`."""
    return DisputeJson(
        dispute_id=tidy(dispute.dispute_id),
        kind=dispute.kind,
        charge_permission_id=tidy(dispute.charge_permission_id),
        charge_id=tidy(dispute.charge_id) or None,
        open=dispute.is_open,
        amount=money_json(dispute.amount),
        reason=tidy(dispute.reason) or None,
        state=tidy(dispute.state or dispute.told_state) or None,
        resolution=tidy(dispute.resolution) or None,
        creation_timestamp=amazon_time(dispute.created_at) if dispute.created_at else None,
        first_told_at=format_rfc3339(dispute.first_told_at) if dispute.first_told_at else None,
        told_at=format_rfc3339(dispute.told_at) if dispute.told_at else None,
    )
