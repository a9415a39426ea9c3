"""Verb. Why a refund is not issued: what blocks it on its charge, as an error for the caller."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from receiver.errors import AmazonRefused, Conflict, OtherRefunds, StoreUnavailable
from receiver.ledger.charge import Balance, Charge, paid_unseen
from receiver.ledger.charge_book import MOST_REFUNDS, RESERVATION, Entry
from receiver.ledger.dispute import Dispute, dispute_json, guarding, may_be_paid, permission_of
from receiver.ledger.money import Money
from receiver.ledger.refund import Resolution
from receiver.ledger.refund_request import PreparedRefund, RefundRequestRecord
from receiver.ledger.request_shape import other_refunds_json
from receiver.ledger.resolution import not_reissued, resolution_of
from receiver.ledger.retryability import BUYER_MAY_BE_PAID, NAMEABLE
from receiver.store.account import AccountStore
from receiver.store.requests.requests import CaseClosed, NotReserved, Obstacle

NAMED = 4
"""Maximum number of refunds named in an error's text. The error's list has all of them."""
NAME_THEM = (
    "If the buyer is owed this refund as well, repeat the call and name them: `besides` in the body, `--besides`, or "
    "the box on the dashboard."
)


STOPPED = frozenset({BUYER_MAY_BE_PAID, *NAMEABLE})
"""The reasons with which a waiting request can be stopped."""


async def hindrance(store: AccountStore, prepared: PreparedRefund, found: Obstacle, most: int = 0) -> Conflict:
    """The error for what the store found to block a request. `most` is the refundable total of the charge.

    Raises `StoreUnavailable`.
    """
    if isinstance(found, NotReserved):
        return not_reserved(found, prepared, most)
    if isinstance(found, CaseClosed):
        return not_reissued(await case_of(store, prepared.retry_root))
    disputes = await store.disputes.of_permission(permission_of(prepared.charge_id))
    guards = guarding(prepared.charge_id, disputes)
    with contextlib.suppress(StoreUnavailable):
        await store.disputes.ask_again(guards)
    return buyer_may_be_paid(guards)


async def case_of(store: AccountStore, refund_id: str) -> Resolution | None:
    """The case that is stored with this refund: the first one of a chain of retries. Raises `StoreUnavailable`."""
    root = await store.refunds.get(refund_id)
    return resolution_of(root, store.now(), store.connection.tracked_for) if root else None


def not_reserved(refused: NotReserved, prepared: PreparedRefund, most: int) -> OtherRefunds:
    """The error for other refunds of the charge."""
    named = _named(refused.entries)
    match refused.reason:
        case "too_many_refunds":
            text = (
                f"The charge has {len(refused.entries)} refunds, including those in progress. Amazon accepts "
                f"{MOST_REFUNDS} for one charge. Pay the buyer another way."
            )
        case "charge_in_conflict":
            text = (
                f"Amazon reported both Refunded and Declined for {named}: the buyer may have this money. Check Seller "
                f"Central. {NAME_THEM}"
            )
        case "same_amount_refunded":
            since = "since the declined one started" if prepared.retry_of else "recently"
            text = f"The charge has another refund of {prepared.money} that started {since}: {named}. {NAME_THEM}"
        case _:
            text = _exceeded(prepared.money, most, refused)
    return OtherRefunds(text, reason=refused.reason, refunds=other_refunds_json(refused.entries))


def all_left(balance: Balance) -> tuple[Money, int]:
    """What is left of the captured amount, and how much of it was refunded elsewhere, in minor units.

    Raises `Conflict` (`nothing_left`, `not_enough_known`).
    """
    left, elsewhere = balance.money(balance.refundable), balance.elsewhere
    captured, reported, known = (balance.money(each) for each in (balance.captured, balance.reported, balance.known))
    sums = f"Amazon reports {reported} as refunded; here, {known} is refunded, pending, requested or in conflict"
    if left and left.minor_units and elsewhere:
        return left, elsewhere[0]
    if left:
        raise Conflict(
            f"Nothing is left of the {captured} captured: {sums}. To refund more, within Amazon's allowance, give an "
            "amount.",
            reason="nothing_left",
        )
    if balance.left:
        least, most = (balance.money(each) for each in balance.left)
        raise Conflict(
            f"It is not certain how much of the {captured} captured is left. {sums}. Amazon's number may or may not "
            f"include what is pending. From {least} to {most} is left. Refresh the pending refunds and wait until they "
            "are final, or check Seller Central and give the amount.",
            reason="not_enough_known",
        )
    raise Conflict(
        "It is not known how much is left of the charge: the amount of a refund, or the total that Amazon reports, is "
        "missing or could not be read. Check Seller Central, and give the amount.",
        reason="not_enough_known",
    )


async def check_unseen(store: AccountStore, charge: Charge, prepared: PreparedRefund) -> None:
    """Raise `OtherRefunds` if the amount may have been paid by a refund that is not known here.

    A caller who names such a refund of this order has already checked. Raises `StoreUnavailable`.
    """
    entries = await store.requests.charge_entries(prepared.charge_id)
    if not paid_unseen(charge, entries.values(), prepared.money):
        return
    for name in prepared.besides:
        is_of_order = permission_of(name) == permission_of(prepared.charge_id)
        if is_of_order and name not in entries and await store.refunds.get(name) is None:
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
    return record.refusal
