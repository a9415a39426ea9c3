"""Verb. Why a refund is not issued: what blocks it on its charge, as an error for the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from receiver.errors import AmazonRefused, Conflict, OtherRefunds
from receiver.ledger.charge import Charge, paid_unseen
from receiver.ledger.charge_book import MOST_REFUNDS, RESERVATION, Entry
from receiver.ledger.dispute import Dispute, dispute_json, guarding, may_be_paid, permission_of
from receiver.ledger.money import Money
from receiver.ledger.refund_request import PreparedRefund, RefundRequestRecord
from receiver.ledger.request_shape import other_refunds_json
from receiver.ledger.retryability import BUYER_MAY_BE_PAID, NAMEABLE
from receiver.store import Store
from receiver.store.requests.requests import Disputed, NotReserved

NAMED = 4
"""Maximum number of refunds named in an error's text. The list beside it has all of them."""
NAME_THEM = (
    "If the buyer is owed this refund as well, repeat the call and name them: `besides` in the body, `--besides`, or "
    "the box on the dashboard."
)


STOPPED = frozenset({BUYER_MAY_BE_PAID, *NAMEABLE})
"""The reasons with which a waiting request can be stopped."""


async def hindrance(
    store: Store, account: str, prepared: PreparedRefund, found: NotReserved | Disputed, most: int = 0
) -> Conflict:
    """The error for what the store found to block a request. `most` is the refundable total of the charge.

    Raises `StoreUnavailable`.
    """
    if isinstance(found, NotReserved):
        return not_reserved(found, prepared, most)
    disputes = await store.disputes.of_permission(account, permission_of(prepared.charge_id))
    return buyer_may_be_paid(guarding(prepared.charge_id, disputes))


def not_reserved(refused: NotReserved, prepared: PreparedRefund, most: int) -> OtherRefunds:
    """The error for other refunds of the charge."""
    named, refunds = _named(refused.entries), other_refunds_json(refused.entries)
    match refused.reason:
        case "too_many_refunds":
            return OtherRefunds(
                f"The charge has {len(refused.entries)} refunds, including those in progress. Amazon accepts "
                f"{MOST_REFUNDS} for one charge. Pay the buyer another way.",
                reason="too_many_refunds",
                refunds=refunds,
            )
        case "charge_in_conflict":
            return OtherRefunds(
                f"Amazon reported both Refunded and Declined for {named}: the buyer may have this money. Check Seller "
                f"Central. {NAME_THEM}",
                reason="charge_in_conflict",
                refunds=refunds,
            )
        case "same_amount_refunded":
            since = "since the declined one started" if prepared.retry_of else "recently"
            return OtherRefunds(
                f"The charge has another refund of {prepared.money} that started {since}: {named}. {NAME_THEM}",
                reason="same_amount_refunded",
                refunds=refunds,
            )
    text = _exceeded(prepared.money, most, refused)
    return OtherRefunds(text, reason="allowance_exceeded", refunds=refunds)


async def check_unseen(store: Store, account: str, charge: Charge, prepared: PreparedRefund) -> None:
    """Raise `OtherRefunds` if the amount may have been paid by a refund that is not known here.

    A caller who names such a refund of this order has already checked. Raises `StoreUnavailable`.
    """
    entries = await store.requests.charge_entries(account, prepared.charge_id)
    if not paid_unseen(charge, entries.values(), prepared.money):
        return
    for name in prepared.besides:
        is_of_order = permission_of(name) == permission_of(prepared.charge_id)
        if is_of_order and name not in entries and await store.refunds.get(account, name) is None:
            return
    raise OtherRefunds(
        f"Amazon says that {prepared.money} more was refunded on the charge than is known here. It may be this refund, "
        f"paid another way. Check Seller Central. {NAME_THEM}",
        reason="same_amount_refunded",
        refunds=[],
    )


def buyer_may_be_paid(disputes: Sequence[Dispute]) -> Conflict:
    """The error for disputes that guard the charge."""
    error = Conflict(f"Nothing was issued. {may_be_paid(disputes)}", reason=BUYER_MAY_BE_PAID)
    error.more = {"disputes": [dispute_json(each) for each in disputes]}
    return error


def _exceeded(money: Money, ceiling: int, refused: NotReserved) -> str:
    left = Money.of_minor(max(ceiling - refused.spent, 0), money.currency_code)
    text = f"{money} is more than can still be refunded on this charge: {left}. Refunds in progress count too."
    unknown = {name: entry for name, entry in refused.entries.items() if entry.minor_units is None}
    if not unknown:
        return text
    return (
        f"{text} Amazon has not reported the amount of {_named(unknown)}, which counts as the whole charge. {NAME_THEM}"
    )


def _named(entries: Mapping[str, Entry]) -> str:
    names = [f"{name.removeprefix(RESERVATION)} ({entry.state})" for name, entry in entries.items()]
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join(names[:NAMED] + more)


def refusal(record: RefundRequestRecord) -> AmazonRefused | Conflict:
    """The error for a request that ended without a refund: refused by Amazon, stopped, or resolved so by a person."""
    if record.settled_by:
        return Conflict(
            "A person settled this request as not issued, and it is never retried. Use a new key for another refund.",
            reason="settled_as_not_issued",
        )
    if record.last_error in STOPPED:
        return Conflict(
            f"This request was stopped while it waited for Amazon. Nothing was refunded. "
            f"Use a new key for another refund. {record.detail}",
            reason=record.last_error,
        )
    return AmazonRefused(
        record.detail,
        reason_code=record.reason_code,
        amazon_status=record.amazon_status or None,
        request_id=record.request_id or None,
    )
