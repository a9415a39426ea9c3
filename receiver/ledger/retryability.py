"""Pure. What a charge still allows, from everything known about it at one moment: whether a declined refund can be
issued again, and what prevents a refund of all that is left.

Advice, lists, events and the check before a retry all use `judge`, so they always agree. The script that reserves the
amount (`store/requests/reserve.lua`) decides on the same facts, in one step with the reservation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from receiver.errors import Conflict
from receiver.ledger.charge import CAPTURED, OVER, Balance, Charge, balance_of, paid_unseen, refundable_total, spent
from receiver.ledger.charge_book import MOST_REFUNDS, RESERVATION, Entry, in_the_way, retry_guard
from receiver.ledger.dispute import Dispute, guarding, may_be_paid
from receiver.ledger.money import Money
from receiver.ledger.refund import FPS, Refund, Retryability, State, is_theirs

NOT_MERCHANTS_REFUND = "not_merchants_refund"
BUYER_MAY_BE_PAID = "buyer_may_be_paid"
IN_CONFLICT = "in_conflict"
NOTHING_LEFT = "nothing_left"
NOT_ENOUGH_KNOWN = "not_enough_known"
NAMEABLE = frozenset({"same_amount_refunded", "charge_in_conflict"})
"""Reasons that a caller can overrule by naming the other refunds (`besides`)."""
CLOCK_SKEW = 60_000
"""ms by which a reading of the charge can predate a decline and still count as later. Amazon's clock can be ahead
of ours. If it is ahead by more, the time at which the decline was recorded here counts."""
SAYS = MappingProxyType(
    {
        "already_retried": "It has already been reissued.",
        IN_CONFLICT: "Amazon reported two different final states for this refund: the buyer may have the money.",
        NOT_ENOUGH_KNOWN: "Amazon has not reported its amount and charge.",
        "too_many_refunds": f"The charge has {MOST_REFUNDS} refunds, the most that Amazon accepts.",
        "charge_in_conflict": "Another refund of the charge has two final states: the buyer may have the money.",
        "same_amount_refunded": "The charge has a later refund of this amount, made or in progress.",
        "charge_not_captured": "The charge is no longer Captured.",
        "allowance_exceeded": "The charge does not allow another refund of this amount.",
        "charge_does_not_admit": "The charge does not allow another attempt.",
        "charge_unreadable": "The stored record of the charge is damaged.",
        "closed": "Its case is closed.",
        NOT_MERCHANTS_REFUND: "It is not your refund: Amazon or a bank started it.",
    }
)
"""Reason → text for people. The text for `buyer_may_be_paid` comes from the disputes."""


@dataclass(frozen=True, slots=True)
class KnownCharge:
    """Everything known about a charge: its book, its disputes, and Amazon's last description of it."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)
    """Refund → the request that issued it."""
    disputes: tuple[Dispute, ...] = ()
    charge: Charge | None = None
    over: Mapping[str, int] = field(default_factory=lambda: OVER)
    readable: bool = True
    """Whether all of it could be read."""


def balance_at(known: KnownCharge) -> Balance:
    return balance_of(known.charge, known.entries.values() if known.readable else None)


def obstacles(charge_id: str, known: KnownCharge) -> tuple[str, ...]:
    """The reasons with which a refund of all that is left of the charge would be refused, as far as they are known.

    A recent refund of the same amount is not among them: see `charge_book.in_the_way`.
    """
    balance, counted = balance_at(known), [each for each in known.entries.values() if each.counts]
    is_closed = known.charge is not None and known.charge.state != CAPTURED
    found = {
        "charge_not_captured": is_closed,
        "charge_unreadable": not known.readable,
        BUYER_MAY_BE_PAID: bool(guarding(charge_id, known.disputes)),
        "charge_in_conflict": any(each.conflict for each in counted),
        "too_many_refunds": len(counted) >= MOST_REFUNDS,
        NOT_ENOUGH_KNOWN: balance.refundable is None and known.readable and not is_closed,
        NOTHING_LEFT: balance.refundable == 0 and not is_closed,
    }
    return tuple(reason for reason, is_so in found.items() if is_so)


def is_merchants(refund: Refund) -> bool:
    """Whether the merchant started it, as far as is known."""
    return not (is_theirs(refund.refund_type) or is_theirs(refund.reason_code))


def judge(refund: Refund, known: KnownCharge, now: int) -> Retryability | None:
    """Whether the refund can be issued again as known at `now` (ms); None if it is not declined."""
    if refund.state != State.DECLINED or refund.refund_type == FPS:
        return None
    value, reasons = _verdict(refund, known, now)
    disputes = guarding(refund.charge_id, known.disputes) if BUYER_MAY_BE_PAID in reasons else ()
    says = [may_be_paid(disputes) if reason == BUYER_MAY_BE_PAID else SAYS[reason] for reason in reasons]
    # Rounded to seconds, so that all answers within one second are the same.
    read_at = known.charge.read_at if known.charge else 0
    return Retryability(value, reasons, now // 1000 * 1000, read_at, " ".join(says))


def _verdict(refund: Refund, known: KnownCharge, now: int) -> tuple[bool | None, tuple[str, ...]]:
    own = known.entries.get(refund.refund_id)
    if refund.conflict or (own and own.conflict):
        return None, (IN_CONFLICT,)
    if refund.retried_by:
        return False, ("already_retried",)
    if refund.resolution is not None and not refund.resolution.is_open:
        return False, ("closed",)
    reasons = [] if is_merchants(refund) else [NOT_MERCHANTS_REFUND]
    if guarding(refund.charge_id, known.disputes):
        reasons.append(BUYER_MAY_BE_PAID)
    if refund.amount is None or not refund.charge_id:
        return (False, tuple(reasons)) if reasons else (None, ("not_enough_known",))
    if not known.readable:
        return (False, tuple(reasons)) if reasons else (None, ("charge_unreadable",))
    mine = _may_be_its_own(refund, known)
    others = {name: each for name, each in known.entries.items() if name != refund.refund_id and name not in mine}
    reasons += _of_others(refund, refund.amount, others, known, now)
    admits, reason = _admits(refund, refund.amount, others, known)
    reasons += [reason] if reason and reason not in reasons else []
    if reasons:
        return False, tuple(reasons)
    return (_said(refund) if mine else admits), ()


def _may_be_its_own(refund: Refund, known: KnownCharge) -> set[str]:
    """Reservations that may belong to this very refund, because the request has no answer yet."""
    if refund.amount is None or refund.refund_id in known.taken:
        return set()
    return {
        name
        for name, entry in known.entries.items()
        if name.startswith(RESERVATION)
        and entry.minor_units in (None, refund.amount.minor_units)
        and (entry.began is None or entry.began <= refund.first_seen_at)
    }


def _of_others(refund: Refund, amount: Money, others: Mapping[str, Entry], known: KnownCharge, now: int) -> list[str]:
    """Reasons against a retry that come from other refunds of the charge."""
    found = []
    if sum(each.counts for each in others.values()) >= MOST_REFUNDS:
        found.append("too_many_refunds")
    in_way = in_the_way(others, known.taken, amount, retry_guard(refund, now))
    if any(each.conflict for each in in_way.values()):
        found.append("charge_in_conflict")
    if any(not each.conflict for each in in_way.values()):
        found.append("same_amount_refunded")
    return found


def _admits(refund: Refund, amount: Money, others: Mapping[str, Entry], known: KnownCharge) -> tuple[bool | None, str]:
    """Whether the charge allows the amount, and the reason if not. A reading from before the decline is ignored; older
    versions stored only its result."""
    charge = known.charge
    declined_at = min(refund.updated_at, refund.changed_at)
    if charge is None or charge.read_at + CLOCK_SKEW < declined_at or not charge.read_at:
        return _said(refund), "charge_does_not_admit" if _said(refund) is False else ""
    if charge.state != CAPTURED:
        return False, "charge_not_captured"
    if charge.captured is None or charge.has_unread("captureAmount", "refundedAmount"):
        return None, ""
    if charge.captured.currency_code != amount.currency_code:
        return False, "charge_does_not_admit"
    if paid_unseen(charge, others.values(), amount):
        return False, "same_amount_refunded"
    ceiling = refundable_total(charge.captured, known.over)
    fits = amount.minor_units <= ceiling - spent(charge.refunded, others.values(), ceiling)
    return fits, "" if fits else "allowance_exceeded"


def _said(refund: Refund) -> bool | None:
    return {"yes": True, "no": False}.get(refund.retryable)


def check_itself(found: Retryability | None) -> None:
    """Raise `Conflict` if the declined refund itself prevents a retry, whatever the charge allows."""
    if found and IN_CONFLICT in found.reasons:
        raise in_conflict("An Amazon report lists it as paid.")
    if found and NOT_MERCHANTS_REFUND in found.reasons:
        raise Conflict(
            "Amazon or a bank started this refund, for a claim or a chargeback. Amazon collects the money from you: "
            "repay the balance of the merchant account in Seller Central, and do not refund the buyer again.",
            reason="not_merchants_refund",
        )


def in_conflict(why: str = "") -> Conflict:
    """The error for a retry of a refund that has two final states."""
    return Conflict(f"{SAYS[IN_CONFLICT]} {why}".rstrip(), reason="in_conflict")


def as_text(found: Retryability | None) -> str:
    """The stored form: `yes`, `no`, or empty if unknown."""
    return "" if found is None or found.value is None else "yes" if found.value else "no"


def judged(refund: Refund, known: KnownCharge, now: int) -> Refund:
    return msgspec.structs.replace(refund, judged=judge(refund, known, now))
