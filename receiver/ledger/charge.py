"""Pure. A charge, and how much may still be refunded on it.

Amazon's refund page: the merchant may refund more than was captured, by the lesser of 15 % and 75 USD, GBP or EUR, or
8,400 JPY. That this is meant for the sum of all refunds of a charge is how we read it. For other currencies no figure
is published: nothing over, unless it is configured. Amazon stays the judge; this keeps us from asking for what it would
decline.
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
"""Currency → most that may be refunded over the captured amount, in minor units."""
OVER_PERCENT = 15
CAPTURED = "Captured"
"""The only state of a charge in which it can be refunded."""


LARGEST = MappingProxyType({"USD": 15_000_000, "GBP": 15_000_000, "EUR": 15_000_000, "JPY": 10_000_000})
"""Currency → the largest single refund, minor units (Amazon's refund page)."""


def check_amount(money: Money) -> None:
    """Raise `BadRequest` for what cannot be refunded: nothing, a fraction of a cent, more than Amazon takes."""
    decimals = -int(money.amount.normalize().as_tuple().exponent)
    if decimals > money.exponent:
        raise BadRequest(
            f"{money.currency_code} has {money.exponent} decimals; the amount has {decimals}.", reason="bad_amount"
        )
    if money.minor_units <= 0:
        raise BadRequest("The amount must be more than zero.", reason="bad_amount")
    if money.minor_units > LARGEST.get(money.currency_code, 10**12):
        raise BadRequest("The amount is more than Amazon takes in one refund.", reason="bad_amount")


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What Amazon said a charge is, as far as its refunds need it. Refundable only in the state `Captured`."""

    charge_id: str
    state: str
    charge_permission_id: str = ""
    captured: Money | None = None
    """`captureAmount`; None until there is one."""
    refunded: Money | None = None
    """`refundedAmount`: the sum of its refunds. It may lag behind refunds that have just begun."""
    merchant_reference_id: str = ""
    """`merchantMetadata.merchantReferenceId`: the merchant's own order number."""
    environment: str = ""
    unread: tuple[Unread, ...] = ()
    """The fields of the answer that could not be read."""
    read_at: int = 0
    """When Amazon said it, ms."""

    def has_unread(self, *names: str) -> bool:
        """Whether one of these fields was there and could not be read."""
        return any(each.field in names for each in self.unread)


def refundable_total(captured: Money, over: Mapping[str, int] = OVER) -> int:
    """The most that may be refunded on a charge in all, in minor units, rounded down."""
    amount = captured.minor_units
    return amount + min(amount * OVER_PERCENT // 100, over.get(captured.currency_code, 0))


def spent(refunded: Money | None, entries: Iterable[Entry], ceiling: int) -> int:
    """What is used up of the charge, in minor units: the greater of what Amazon says was refunded and what we know of.

    Amazon's figure may lag behind refunds that have just begun; ours may lack refunds that others began. Adding the two
    up would count most refunds twice. A refund of an unknown amount uses up all that may be refunded: `ceiling`.
    """
    ours = sum(ceiling if entry.minor_units is None else entry.minor_units for entry in entries if entry.counts)
    return max(refunded.minor_units if refunded else 0, ours)


def paid_unseen(charge: Charge, entries: Iterable[Entry], amount: Money) -> bool:
    """Whether Amazon says that just this amount more was refunded on the charge than is known here.

    Then it may have been paid another way, by a refund of which no notification has come yet. Whether Amazon's figure
    holds what is pending is not known: both are compared.
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
    """Whether its charge is still to be read: for the order number, and of a decline whether it can be retried."""
    if not refund.charge_id or refund.refund_type == FPS:
        return False
    return not refund.charge_read or (refund.state == State.DECLINED and not refund.retryable)
