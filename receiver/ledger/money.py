"""Pure. An amount of money: a decimal with a currency."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

import msgspec

from receiver.errors import Malformed

EXPONENTS = {"JPY": 0, "KRW": 0, "CLP": 0, "VND": 0, "BHD": 3, "KWD": 3, "JOD": 3, "OMR": 3, "TND": 3}
"""ISO 4217 minor units of currencies that do not have 2."""


AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,4})?")
CURRENCY = re.compile(r"[A-Z]{3}")
WRITTEN_CURRENCY = re.compile(r"[A-Za-z]{3}")
"""As people write it: in any letter case."""
GROUPED = re.compile(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]{1,4})?")
"""An amount with commas between thousands. `5,00` does not match: it could mean 5 or 500."""


class Money(msgspec.Struct, frozen=True):
    """An amount in major units with its ISO 4217 currency."""

    amount: Decimal
    currency_code: str

    @classmethod
    def parse(cls, amount: object, currency_code: object) -> Money:
        """Read Amazon's `{amount, currencyCode}`; the amount is a text or an integer, never a float.

        Raises `Malformed` if it is not a plain non-negative decimal with a three-letter currency.
        """
        text = str(amount) if isinstance(amount, str | int | Decimal) and not isinstance(amount, bool) else ""
        if not AMOUNT.fullmatch(text):
            raise Malformed("An amount is a plain decimal such as 14.00.", reason="bad_amount")
        if not isinstance(currency_code, str) or not CURRENCY.fullmatch(currency_code):
            raise Malformed("A currency is three letters such as USD (ISO 4217).", reason="bad_currency")
        try:
            return cls(Decimal(text), currency_code)
        except InvalidOperation as error:  # pragma: no cover - the pattern admits only decimals
            raise Malformed("An amount is a plain decimal such as 14.00.", reason="bad_amount") from error

    @classmethod
    def written(cls, amount: object, currency_code: object) -> Money:
        """Read an amount that a person or a program of ours wrote: the currency may be in any letter case.

        Raises `Malformed` like `parse`.
        """
        is_text = isinstance(currency_code, str) and currency_code.isascii()
        return cls.parse(amount, str(currency_code).upper() if is_text else currency_code)

    @classmethod
    def of_minor(cls, minor_units: int, currency_code: str) -> Money:
        """The amount from minor units: cents, or yen for JPY."""
        return cls(Decimal(minor_units).scaleb(-EXPONENTS.get(currency_code, 2)), currency_code)

    @property
    def exponent(self) -> int:
        """The number of decimals of the currency."""
        return EXPONENTS.get(self.currency_code, 2)

    @property
    def minor_units(self) -> int:
        """The amount in the smallest unit (cents; yen for JPY), rounded down."""
        return int(self.amount.scaleb(self.exponent))

    def __str__(self) -> str:
        return f"{self.text} {self.currency_code}"

    @property
    def text(self) -> str:
        """The amount with the currency's decimals, as Amazon requires; JPY has none."""
        places = max(self.exponent, -int(self.amount.normalize().as_tuple().exponent))
        return f"{self.amount:.{places}f}"


def parse_amount(text: object) -> Money:
    """Read an amount with its currency as a person writes it: `100.00 USD`, `1,000 usd`.

    Raises `Malformed` (`bad_amount`, `bad_currency`).
    """
    words = text.split() if isinstance(text, str) else []
    if len(words) != 2:
        raise Malformed("An amount is a number and a currency, such as 100.00 USD.", reason="bad_amount")
    number = words[0].replace(",", "") if GROUPED.fullmatch(words[0]) else words[0]
    return Money.written(number, words[1])


def sums(amounts: Iterable[Money | None]) -> tuple[Money, ...]:
    """The sum in each currency, by currency. Unknown amounts are left out."""
    return sums_of_minor((each.minor_units, each.currency_code) for each in amounts if each is not None)


def sums_of_minor(amounts: Iterable[tuple[int | None, str]]) -> tuple[Money, ...]:
    """The same as `sums`, from pairs (minor units or None, currency). It makes no decimals, so it suits many
    amounts."""
    found: dict[str, int] = defaultdict(int)
    for minor_units, currency_code in amounts:
        if minor_units is not None:
            found[currency_code] += minor_units
    return tuple(Money.of_minor(minor, currency) for currency, minor in sorted(found.items()))
