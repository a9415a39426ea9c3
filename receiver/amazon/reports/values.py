"""Pure. Amounts and times as Amazon, Seller Central and spreadsheets write them."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from receiver.errors import Malformed
from receiver.ledger.money import CURRENCY, Money
from receiver.ledger.timestamps import parse_any_time

NEGATIVE = "-−–△▲"
"""Signs of a negative amount; Japanese bookkeeping writes a triangle."""
SIGNS = {"¥": "JPY", "円": "JPY", "$": "", "€": "EUR", "£": "GBP"}
"""Currency sign → currency; empty for the dollar sign, which several countries use."""
GROUPED = re.compile(r"[0-9]{1,3}(?:([.,' ])[0-9]{3})(?:\1[0-9]{3})*(?:(?!\1)[.,]([0-9]{1,4}))?")
"""1,234.50 · 1.234,50 · 1 234,50 · 1'234.50 · 1,234,567"""
PLAIN = re.compile(r"([0-9]{1,12})(?:[.,]([0-9]{1,4}))?")
"""1234.50 · 1234,50 · 1234"""
DATE = re.compile(r"[0-9]{4}[-/]?[0-9]{2}[-/]?[0-9]{2}(?:[T ].*)?")


def parse_amount(text: str, currency: str) -> Money:
    """An amount without its sign, in this currency; or in that of the text, if `currency` is empty.

    Reads Japanese and European notation: `1,234.50`, `1.234,50`, `-500`, `(500)`, `△1,234`, `¥1,234`, wide digits.
    Three digits after a single separator are thousands, unless the currency has three decimals. Raises `Malformed`.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    currency = unicodedata.normalize("NFKC", currency).strip().upper()
    for word in re.findall(r"[A-Za-z]{3}", text):
        currency = currency or word.upper()
        text = text.replace(word, "")
    for sign, meant in SIGNS.items():
        if sign in text:
            currency, text = currency or meant, text.replace(sign, "")
    text = re.sub(r"\s", " ", text.strip(f"{NEGATIVE}+() "))
    if not CURRENCY.fullmatch(currency):
        raise Malformed("The currency is missing or unreadable.", reason="bad_currency")
    decimals = Money(Decimal(), currency).exponent
    if decimals != 3 and (found := GROUPED.fullmatch(text)):
        whole, fraction = text, found[2] or ""
        if fraction:
            whole = text[: -len(fraction) - 1]
    elif found := PLAIN.fullmatch(text):
        whole, fraction = found[1], found[2] or ""
    else:
        raise Malformed("The amount is missing or unreadable.", reason="bad_amount")
    return Money.parse(re.sub(r"[^0-9]", "", whole) + (f".{fraction}" if fraction else ""), currency)


def is_credit(text: str) -> bool:
    """Whether an amount has no negative sign."""
    return not any(sign in unicodedata.normalize("NFKC", text) for sign in f"{NEGATIVE}(")


def parse_when(text: str) -> int:
    """A time in ms; 0 if there is none, or if it does not name its zone. Raises `Malformed`.

    Settlement reports have `2015-05-18T15:48:50-0000`.
    """
    text = text.strip()
    if not text:
        return 0
    try:
        return parse_any_time(re.sub(r" ?(UTC|GMT|Z)$", "Z", text).replace("/", "-"))
    except Malformed:
        if DATE.fullmatch(text):
            return 0
        raise
