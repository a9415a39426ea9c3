"""Pure. How much may still be refunded on a charge.

Amazon's refund page: the merchant may refund more than was captured, by the lesser of 15 % and 75 USD, GBP or EUR, or
8,400 JPY. That this is meant for the sum of all refunds of a charge is how we read it. For other currencies no figure
is published: nothing over, unless it is configured. Amazon stays the judge; this keeps us from asking for what it would
decline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from receiver.errors import BadRequest
from receiver.ledger.refund import Money, State

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


@dataclass(frozen=True, slots=True)
class Entry:
    """One refund, or one reservation for a refund that is being issued, on a charge."""

    minor_units: int
    state: str

    @property
    def counts(self) -> bool:
        """Whether it uses up the charge: everything but what was declined, also what is only reserved."""
        return self.state != State.DECLINED


def most(captured: Money, over: Mapping[str, int] = OVER) -> int:
    """The most that may be refunded on a charge in all, in minor units, rounded down."""
    amount = captured.minor_units
    return amount + min(amount * OVER_PERCENT // 100, over.get(captured.currency_code, 0))


def spent(refunded: Money | None, entries: Iterable[Entry]) -> int:
    """What is used up of it, in minor units: the greater of what Amazon says was refunded and what we know of.

    Amazon's figure may lag behind refunds that have just begun; ours may lack refunds that others began. Adding the two
    up would count most refunds twice.
    """
    return max(refunded.minor_units if refunded else 0, sum(entry.minor_units for entry in entries if entry.counts))
