"""Pure. Checks of a subscriber's numbers: minimum amounts, rate and concurrency."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.errors import Malformed
from receiver.ledger.money import Money, parse_amount

MOST_AMOUNTS = 32
SLOWEST, FASTEST = 0.1, 1000.0
MOST_AT_ONCE = 256
AMOUNT_FORM = 'write it as "100.00 USD", or several in a list, one for each currency'


def read_amounts(given: object) -> tuple[Money, ...]:
    """Reads `"100.00 USD"`, or a list of such texts. Raises `Malformed`; `amount_problems` gives better messages."""
    return tuple(parse_amount(text) for text in _listed(given))


def amount_problems(given: object) -> list[str]:
    """All problems of the amounts, one sentence each."""
    if given is None:
        return []
    texts = _listed(given)
    if not 1 <= len(texts) <= MOST_AMOUNTS:
        return [f"is not an amount; {AMOUNT_FORM}"]
    problems, currencies = [], set()
    for text in texts:
        try:
            amount = parse_amount(text)
        except Malformed as error:
            shown = ascii(text)[:50] if isinstance(text, str) else f"a {type(text).__name__}"
            problems.append(f"{shown} is not an amount ({error.detail}); {AMOUNT_FORM}")
            continue
        if amount.currency_code in currencies:
            problems.append(f"names {amount.currency_code} twice; keep one")
        currencies.add(amount.currency_code)
    return problems


def large_enough(amount: Money | None, thresholds: Sequence[Money]) -> bool:
    """Whether the amount reaches the threshold of its currency. No amount, or a currency without a threshold,
    passes."""
    if amount is None:
        return True
    return all(amount.amount >= least.amount for least in thresholds if least.currency_code == amount.currency_code)


def rate_problems(given: object) -> list[str]:
    """Problems of `rate`, the number of messages a second."""
    right = isinstance(given, int | float) and not isinstance(given, bool) and SLOWEST <= given <= FASTEST
    return [] if given is None or right else [f"is not a number of messages a second from {SLOWEST:g} to {FASTEST:g}"]


def concurrency_problems(given: object) -> list[str]:
    right = isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MOST_AT_ONCE
    return [] if given is None or right else [f"is not a whole number of messages at once from 1 to {MOST_AT_ONCE}"]


def backfill_problems(given: object) -> list[str]:
    return [] if given is None or isinstance(given, bool) else ["is neither true nor false"]


def _listed(given: object) -> Sequence[object]:
    return given if isinstance(given, list | tuple) else [given]
