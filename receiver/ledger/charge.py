"""Pure. A charge, and how much can still be refunded on it.

Amazon's refund page lets the merchant refund more than was captured, by the lesser of 15 % and 75 USD, GBP or EUR, or
8,400 JPY. We read this as a limit on the sum of all refunds of a charge. Amazon publishes no figure for other
currencies, so their default overage is zero. Amazon decides; this check only avoids requests that it would decline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Balance:
    """What is used up of a charge, in minor units of `currency` (empty: unknown). None: unknown.

    `refunded` to `in_conflict` are sums over the known refunds and reservations. A refund that was declined and never
    Refunded is in none of them.
    """

    currency: str = ""
    captured: int | None = None
    reported: int | None = None
    """The total that Amazon reports as refunded."""
    refunded: int | None = None
    pending: int | None = None
    reserved: int | None = None
    in_conflict: int | None = None
    """Amazon reported both Refunded and Declined: the buyer may have it."""

    def money(self, minor_units: int | None) -> Money | None:
        """One of these amounts; None if it is unknown."""
        return Money.of_minor(minor_units, self.currency) if minor_units is not None and self.currency else None

    @property
    def known(self) -> int | None:
        """The sum of all known refunds and reservations that are not declined."""
        sums = (self.refunded, self.pending, self.reserved, self.in_conflict)
        return None if None in sums else sum(each or 0 for each in sums)

    @property
    def elsewhere(self) -> tuple[int, int] | None:
        """The least and the most that was refunded by other routes and is not known here; None if that is unknown.

        It is not documented whether Amazon's total includes refunds in progress. While there are some, what exceeds the
        known Refunded ones can be these, or refunds made elsewhere.
        """
        if self.reported is None or self.refunded is None or self.known is None:
            return None
        return max(self.reported - self.known, 0), max(self.reported - self.refunded, 0)

    @property
    def left(self) -> tuple[int, int] | None:
        """The least and the most that can be left of the captured amount; None if that is unknown."""
        if self.captured is None or self.known is None or self.elsewhere is None:
            return None
        least, most = (max(self.captured - self.known - each, 0) for each in reversed(self.elsewhere))
        return least, most

    @property
    def refundable(self) -> int | None:
        """What is left of the captured amount; None unless it is certain."""
        return self.left[0] if self.left and self.left[0] == self.left[1] else None

    def with_allowance(self, over: Mapping[str, int] = OVER) -> int | None:
        """The most that one more refund may have here (`store/requests/reserve.lua`); None if an amount is unknown."""
        if self.captured is None or self.reported is None or self.known is None:
            return None
        total = refundable_total(Money.of_minor(self.captured, self.currency), over)
        return max(total - max(self.reported, self.known), 0)


def balance_of(charge: Charge | None, entries: Iterable[Entry] | None) -> Balance:
    """The balance of a charge as Amazon described it (None: never) with the entries of its book (None: unreadable)."""
    captured, reported = (charge.captured, charge.refunded) if charge else (None, None)
    counted = None if entries is None else [each for each in entries if each.counts]
    stated = captured or reported
    currencies = {stated.currency_code} if stated else {each.currency for each in counted or () if each.currency}
    currency = "".join(currencies) if len(currencies) == 1 else ""
    # While nothing was refunded, Amazon may leave the amount out.
    is_zero = charge is not None and captured is not None and not charge.has_unread("refundedAmount")
    return Balance(
        currency,
        captured.minor_units if captured else None,
        reported.minor_units if reported else 0 if is_zero else None,
        *(_sum_of(name, counted, currency) for name in ("refunded", "pending", "reserved", "in_conflict")),
    )


def _sum_of(name: str, entries: Iterable[Entry] | None, currency: str) -> int | None:
    """One sum of a `Balance`; None if the amount of one of its entries is unknown."""
    if entries is None:
        return None
    sums = {RESERVED: "reserved", State.REFUNDED: "refunded"}
    found = [each for each in entries if ("in_conflict" if each.conflict else sums.get(each.state, "pending")) == name]
    if any(each.minor_units is None or each.currency not in ("", currency) for each in found):
        return None
    return sum(each.minor_units or 0 for each in found)


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
