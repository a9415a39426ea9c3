"""Pure. A charge, and how much can still be refunded on it.

Amazon's refund page lets the merchant refund more than was captured, by the lesser of 15 % and 75 USD, GBP or EUR, or
8,400 JPY. We read this as a limit on the sum of all refunds of a charge. Amazon publishes no figure for other
currencies, so their default overage is zero. Amazon decides; this check only avoids requests that it would decline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from receiver.errors import BadRequest
from receiver.ledger.charge_book import RESERVED, Entry
from receiver.ledger.money import Money
from receiver.ledger.refund import FPS, Refund, State, Unread

OVER: Mapping[str, int] = MappingProxyType({"USD": 7_500, "GBP": 7_500, "EUR": 7_500, "JPY": 8_400})
"""Currency → maximum overage above the captured amount, in minor units."""
OVER_PERCENT = 15
CAPTURED = "Captured"
"""The only charge state that allows a refund."""


LARGEST = MappingProxyType({"USD": 15_000_000, "GBP": 15_000_000, "EUR": 15_000_000, "JPY": 10_000_000})
"""Currency → the largest single refund, in minor units (Amazon's refund page)."""


def check_amount(money: Money) -> None:
    """Raise `BadRequest` if the amount is zero, has too many decimals, or exceeds Amazon's maximum."""
    decimals = -int(money.amount.normalize().as_tuple().exponent)
    if decimals > money.exponent:
        raise BadRequest(
            f"{money.currency_code} has {money.exponent} decimals; the amount has {decimals}.", reason="bad_amount"
        )
    if money.minor_units <= 0:
        raise BadRequest("The amount must be more than zero.", reason="bad_amount")
    if money.minor_units > LARGEST.get(money.currency_code, 10**12):
        raise BadRequest("The amount is more than Amazon accepts in one refund.", reason="bad_amount")


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of Amazon's charge that matter for refunds. It can be refunded only in the state `Captured`."""

    charge_id: str
    state: str
    charge_permission_id: str = ""
    captured: Money | None = None
    """`captureAmount`; None before the capture."""
    refunded: Money | None = None
    """`refundedAmount`: the sum of its refunds. It can lag behind refunds that have just started."""
    merchant_reference_id: str = ""
    """`merchantMetadata.merchantReferenceId`: the merchant's own order number."""
    environment: str = ""
    unread: tuple[Unread, ...] = ()
    """The fields of the answer that could not be read."""
    read_at: int = 0
    """When Amazon answered, ms."""

    def has_unread(self, *names: str) -> bool:
        """Whether any of these fields was present but unreadable."""
        return any(each.field in names for each in self.unread)


def refundable_total(captured: Money, over: Mapping[str, int] = OVER) -> int:
    """The most that can be refunded on a charge in total, in minor units, rounded down."""
    amount = captured.minor_units
    return amount + min(amount * OVER_PERCENT // 100, over.get(captured.currency_code, 0))


def spent(refunded: Money | None, entries: Iterable[Entry], ceiling: int) -> int:
    """How much of the charge is used up, in minor units: the greater of Amazon's total and the sum of known refunds.

    Amazon's total can lag behind refunds that have just started. Ours can lack refunds issued elsewhere. Adding the two
    would count most refunds twice. A refund of unknown amount uses up the whole `ceiling`.
    """
    ours = sum(ceiling if entry.minor_units is None else entry.minor_units for entry in entries if entry.counts)
    return max(refunded.minor_units if refunded else 0, ours)


def paid_unseen(charge: Charge, entries: Iterable[Entry], amount: Money) -> bool:
    """Whether Amazon's refunded total exceeds the refunds known here by exactly this amount.

    If so, the amount may have been refunded by another route that no notification has reported yet. It is not
    documented whether Amazon's total includes pending refunds, so it is compared both ways.
    """
    counted = [each for each in entries if each.counts and each.state != RESERVED]
    pending = sum(each.minor_units or 0 for each in counted if each.state != State.REFUNDED and not each.conflict)
    if charge.refunded is None or charge.refunded.currency_code != amount.currency_code:
        return False
    if any(each.minor_units is None for each in counted):
        return False
    more = charge.refunded.minor_units - sum(each.minor_units or 0 for each in counted)
    return amount.minor_units in (more, more + pending)


def has_more_to_tell(refund: Refund) -> bool:
    """Whether the charge still has to be read: for the order number, or for the retryability of a declined refund."""
    if not refund.charge_id or refund.refund_type == FPS:
        return False
    return not refund.charge_read or (refund.state == State.DECLINED and not refund.retryable)
