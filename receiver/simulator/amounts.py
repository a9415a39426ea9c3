"""Pure. Amounts in whole minor units, never floats; and the rule for refunding more than the captured amount.

Deliberately separate from the service's own arithmetic: two implementations that agree prove more than one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from receiver.simulator.faults import invalid_value

DECIMALS = {"JPY": 0} | dict.fromkeys(("USD", "GBP", "EUR", "AUD", "DKK", "HKD", "NZD", "NOK", "ZAR", "SEK", "CHF"), 2)
"""The currencies of Amazon Pay (including multi-currency) with their ISO 4217 minor units."""

MOST = {"USD": 15_000_000, "GBP": 15_000_000, "EUR": 15_000_000, "JPY": 10_000_000}
"""The largest refund, minor units: 150,000 USD, GBP, EUR; 10,000,000 JPY (Amazon's Create Refund page)."""

EXTRA = {"USD": 7_500, "GBP": 7_500, "EUR": 7_500, "JPY": 8_400}
"""The most that may be refunded beyond the captured amount: 75 USD, GBP, EUR; 8,400 JPY (Amazon's refund page)."""

MOST_REFUNDS = 10
"""Refunds of one charge. The number is from the XML generation; the newer pages only name the error."""

_PLAIN = re.compile(r"[0-9]{1,12}(?:\.([0-9]+))?")


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount in minor units (cents, or yen) of a currency."""

    minor: int
    currency: str

    @classmethod
    def read(cls, amount: object, currency: object, name: str = "refundAmount") -> Amount:
        """Read `{amount, currencyCode}`; numbers have been parsed as int or Decimal. Raises `Fault` 400."""
        if not isinstance(currency, str) or currency not in DECIMALS:
            raise invalid_value(f"{name}.currencyCode", "it is not a currency of Amazon Pay")
        if isinstance(amount, bool) or not isinstance(amount, str | int | Decimal):
            raise invalid_value(f"{name}.amount", "it is not a number")
        text = f"{amount:f}" if isinstance(amount, Decimal) else str(amount)
        plain = _PLAIN.fullmatch(text)
        if plain is None:
            raise invalid_value(f"{name}.amount", "it is not a plain decimal such as 14.00")
        if len(plain[1] or "") > DECIMALS[currency]:
            raise invalid_value(f"{name}.amount", f"{currency} has {DECIMALS[currency]} decimals")
        found = cls(int(Decimal(text).scaleb(DECIMALS[currency])), currency)
        if not 0 < found.minor <= MOST.get(currency, 15_000_000):
            raise invalid_value(f"{name}.amount", "it is zero, or more than Amazon Pay refunds at once")
        return found

    @property
    def text(self) -> str:
        """The amount in major units with all its decimals: `14.00`; no decimals in JPY."""
        places = DECIMALS[self.currency]
        return f"{Decimal(self.minor).scaleb(-places):.{places}f}"

    def json(self) -> dict[str, str]:
        """Amazon's `{amount, currencyCode}`."""
        return {"amount": self.text, "currencyCode": self.currency}


def most_refundable(captured: Amount) -> int:
    """The most that all refunds of a charge may add up to, in minor units.

    The captured amount plus the lesser of 15 % (rounded down) and 75 USD, GBP, EUR or 8,400 JPY. For other currencies
    no limit is published: nothing beyond the captured amount.
    """
    return captured.minor + min(captured.minor * 15 // 100, EXTRA.get(captured.currency, 0))
