"""Pure. A dispute about a payment: a chargeback at the buyer's bank, or an A-to-z claim.

A dispute is first known from a notification, which says neither its state nor its end. Get Dispute says both, if the
key may use it. Fields and values are those of Amazon's pages "Dispute" (`amazon-pay-api-v2/dispute`) and "Manage
disputes". `Resolved` and `Closed` are ends; `resolution` says whose. Amazon does not explain `NoFault`.

A dispute guards its charge: while the buyer has the money from it, or may get it, a refund could pay twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from receiver.ledger.money import Money
from receiver.ledger.refund import REFUND_ID, Unread
from receiver.ledger.schema import AmazonTime, Json, MoneyJson, Rfc3339, amazon_time, money_json, tidy
from receiver.ledger.timestamps import format_rfc3339

CHARGE_PERMISSION_ID = re.compile(r"[A-Z][0-9]{2}-[0-9]{7}-[0-9]{7}")
CHARGE_ID = re.compile(rf"{CHARGE_PERMISSION_ID.pattern}-C[0-9A-Z]{{1,16}}")
ACTION_REQUIRED = "ActionRequired"
ENDED = frozenset({"Resolved", "Closed"})
MERCHANT_WON, BUYER_WON, NO_FAULT = "MerchantWon", "BuyerWon", "NoFault"
HARMLESS = frozenset({MERCHANT_WON, NO_FAULT})
"""The resolutions after which the buyer has no money from the dispute."""
DEADLINE = "merchantResponseDeadline"
UNNAMED = "unnamed-"
MOST_KEPT = 50
"""Changes and reminders kept of one dispute; real ones have fewer than ten."""


class Reminder(StrEnum):
    """The two reminders of a deadline, each sent at most once."""

    KNOWN = "known"
    """The deadline became known."""
    DAY_BEFORE = "day_before"
    """The deadline is a day away, or less. Not sent if the deadline became known only then."""


class DisputeChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change that Get Dispute showed. `at` is when we learned of it, ms."""

    at: int
    state: str
    resolution: str = ""
    reason_code: str = ""
    deadline: int = 0


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
    """`statusDetails.state` of Get Dispute; empty until Amazon has answered."""
    resolution: str = ""
    reason_code: str = ""
    """`statusDetails.reasonCode`, such as MerchantResponseRequired."""
    deadline: int = 0
    """`merchantResponseDeadline`, ms."""
    updated_at: int = 0
    """`statusDetails.lastUpdatedTimestamp`, ms."""
    created_at: int = 0
    """Amazon's `creationTimestamp`, ms."""
    first_told_at: int = 0
    """When Amazon signed the first notification about it, ms."""
    told_at: int = 0
    """When Amazon signed the latest one, ms."""
    asked_at: int = 0
    """When Amazon last answered Get Dispute, ms."""
    failure: str = ""
    """Why the last Get Dispute brought nothing, such as `amazon_refuses_us`; empty if it brought an answer."""
    failures: int = 0
    """Unanswered questions in a row."""
    reminded: tuple[str, ...] = ()
    """The reminders sent, `<reminder>@<deadline>`."""
    changes: tuple[DisputeChange, ...] = ()
    """What Get Dispute showed, oldest first."""

    @property
    def is_open(self) -> bool:
        """Whether Amazon has not reported its end. One known only from notifications is open."""
        return self.state not in ENDED

    @property
    def is_outdated(self) -> bool:
        """Whether a notification came after Amazon's last answer: the dispute may have been opened again.

        The two times are of two clocks. If ours is behind, a follow-up of the notification corrects it.
        """
        return self.told_at > self.asked_at

    @property
    def guards(self) -> bool:
        """Whether the buyer may have the money: it is open or may be, the buyer won, or Amazon does not say how it
        ended."""
        return self.is_open or self.is_outdated or self.resolution not in HARMLESS

    @property
    def is_undecided(self) -> bool:
        """Whether Amazon may still report who won."""
        return self.is_open or self.resolution not in {*HARMLESS, BUYER_WON}

    @property
    def wants_answer(self) -> bool:
        """Whether Amazon waits for the merchant's answer until a known deadline."""
        return self.state == ACTION_REQUIRED and self.deadline > 0

    def has_been(self, reminder: Reminder) -> bool:
        """Whether this reminder of the current deadline was sent, or is no longer needed."""
        return f"{reminder}@{self.deadline}" in self.reminded

    @property
    def can_be_asked(self) -> bool:
        """Whether Amazon can be asked about it: the notification gave it an id that is safe in a path."""
        return not self.dispute_id.startswith(UNNAMED) and REFUND_ID.fullmatch(self.dispute_id) is not None

    def concerns(self, charge_id: str) -> bool:
        """Whether it is, or may be, about this charge of its charge permission."""
        return self.charge_id in ("", charge_id)


class DisputeObservation(msgspec.Struct, frozen=True, kw_only=True):
    """A dispute as Get Dispute just described it."""

    dispute_id: str
    state: str
    resolution: str = ""
    reason_code: str = ""
    charge_id: str = ""
    amount: Money | None = None
    reason: str = ""
    """`filingReason`."""
    deadline: int = 0
    created_at: int = 0
    updated_at: int = 0
    environment: str = ""
    unread: tuple[Unread, ...] = ()
    """The fields of the answer that could not be read."""


class DisputeJson(Json, kw_only=True):
    """A dispute about a charge. A field that Amazon did not report is null."""

    dispute_id: str
    kind: Annotated[str, Meta(description="chargeback, A-to-z claim or dispute.")]
    charge_permission_id: str
    charge_id: Annotated[str | None, Meta(description="Null: any charge of the charge permission may be disputed.")] = (
        None
    )
    open: Annotated[bool, Meta(description="False once Amazon reports its end.")]
    blocks_refunds: Annotated[
        bool, Meta(description="False if it ended with MerchantWon or NoFault, and has not been reported since.")
    ]
    amount: MoneyJson | None = None
    reason: Annotated[str | None, Meta(description="Why the buyer filed it, in Amazon's words.")] = None
    state: Annotated[str | None, Meta(description="In Amazon's words, such as RECEIVED or UnderReview.")] = None
    resolution: Annotated[
        str | None, Meta(description="BuyerWon, MerchantWon or NoFault, if Amazon has reported it.")
    ] = None
    reason_code: Annotated[str | None, Meta(description="Of the state, such as MerchantResponseRequired.")] = None
    merchant_response_deadline: AmazonTime | None = None
    last_updated_timestamp: AmazonTime | None = None
    creation_timestamp: AmazonTime | None = None
    first_told_at: Annotated[Rfc3339 | None, Meta(description="When Amazon signed the first notification of it.")] = (
        None
    )
    told_at: Annotated[Rfc3339 | None, Meta(description="When Amazon signed the last notification of it.")] = None
    asked_at: Annotated[
        Rfc3339 | None, Meta(description="When Amazon last answered Get Dispute. Null: known from notifications alone.")
    ] = None
    failure: Annotated[
        str | None,
        Meta(description="Why the last Get Dispute brought nothing, such as amazon_refuses_us: the key has no right."),
    ] = None


def permission_of(object_id: str) -> str:
    """The charge permission of a charge, refund or dispute id: the first three parts, such as `S01-5105180-3221187`."""
    return "-".join(object_id.split("-")[:3])


def signed(dispute: Dispute, message_id: str, at: int) -> Dispute:
    """The dispute with its signing time (ms) and an id. If the notification names no id, the message id is used."""
    named = dispute.dispute_id or f"{UNNAMED}{message_id}"
    return msgspec.structs.replace(dispute, dispute_id=named, first_told_at=at, told_at=at)


def joined(known: Dispute, told: Dispute) -> Dispute:
    """Merge a further notification. For each field the newest value wins; a missing value erases nothing."""
    older, newer = sorted((known, told), key=lambda each: each.told_at)
    facts = {name: value for name in Dispute.__struct_fields__ if (value := getattr(newer, name))}
    facts["first_told_at"] = min(known.first_told_at, told.first_told_at)
    return msgspec.structs.replace(older, **facts)


def learned(known: Dispute, seen: DisputeObservation, now: int) -> Dispute:
    """The dispute after an answer of Get Dispute at `now` (ms).

    The state comes from the answer with the later `lastUpdatedTimestamp`; among equals, from the latest answer. A new
    state replaces all fields of the old one, even with empty values; only a deadline that could not be read leaves the
    known one. The other fields are filled, never emptied. A charge of another charge permission is ignored.
    """
    fixed = {
        "charge_id": seen.charge_id if permission_of(seen.charge_id) == known.charge_permission_id else "",
        "amount": seen.amount,
        "reason": seen.reason,
        "created_at": seen.created_at,
    }
    facts: dict[str, Any] = {name: value for name, value in fixed.items() if value}
    if seen.updated_at >= known.updated_at or not seen.updated_at:
        unreadable = any(each.field == DEADLINE for each in seen.unread)
        facts |= {
            "state": seen.state,
            "resolution": seen.resolution,
            "reason_code": seen.reason_code,
            "deadline": known.deadline if unreadable else seen.deadline,
            "updated_at": seen.updated_at or known.updated_at,
        }
    dispute = msgspec.structs.replace(known, **facts, asked_at=now, failure="", failures=0)
    before, after = (
        DisputeChange(now, each.state, each.resolution, each.reason_code, each.deadline) for each in (known, dispute)
    )
    changes = known.changes if before == after else (*known.changes, after)[-MOST_KEPT:]
    return msgspec.structs.replace(dispute, changes=changes)


def guarding(charge_id: str, disputes: Iterable[Dispute]) -> list[Dispute]:
    """The disputes that guard this charge, oldest first."""
    found = [each for each in disputes if each.guards and each.concerns(charge_id)]
    return sorted(found, key=lambda each: (each.first_told_at, each.dispute_id))


def may_be_paid(disputes: Iterable[Dispute]) -> str:
    """The warning about guarding disputes, in two sentences."""
    named = ", ".join(_named(each) for each in disputes)
    return (
        f"Amazon reported {named or 'a dispute'} that has not ended in your favour: the buyer may have the money from "
        "it. Check the dispute in Seller Central, and do not refund the buyer as well."
    )


def standing(dispute: Dispute) -> str:
    """The status of the dispute, for people: `open`, `open, answer by 2026-12-09 10:00 UTC`, `won by the buyer`, …"""
    if dispute.is_open:
        answer = f", answer by {minute(dispute.deadline)}" if dispute.wants_answer else ""
        return f"open{answer}"
    ends = {MERCHANT_WON: "won by the merchant", BUYER_WON: "won by the buyer", NO_FAULT: "ended without a fault"}
    end = ends.get(dispute.resolution, "ended, outcome unknown")
    return f"{end}, but reported again" if dispute.is_outdated else end


def minute(ms: int) -> str:
    """`2026-12-09 10:00 UTC`."""
    return f"{format_rfc3339(ms)[:16].replace('T', ' ')} UTC"


def _named(dispute: Dispute) -> str:
    facts = [dispute.dispute_id, str(dispute.amount or ""), dispute.reason, day(dispute.first_told_at)]
    facts += [standing(dispute)] if dispute.state else []
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
        blocks_refunds=dispute.guards,
        amount=money_json(dispute.amount),
        reason=tidy(dispute.reason) or None,
        state=tidy(dispute.state or dispute.told_state) or None,
        resolution=tidy(dispute.resolution) or None,
        reason_code=tidy(dispute.reason_code) or None,
        merchant_response_deadline=amazon_time(dispute.deadline) if dispute.deadline else None,
        last_updated_timestamp=amazon_time(dispute.updated_at) if dispute.updated_at else None,
        creation_timestamp=amazon_time(dispute.created_at) if dispute.created_at else None,
        first_told_at=format_rfc3339(dispute.first_told_at) if dispute.first_told_at else None,
        told_at=format_rfc3339(dispute.told_at) if dispute.told_at else None,
        asked_at=format_rfc3339(dispute.asked_at) if dispute.asked_at else None,
        failure=dispute.failure or None,
    )
