"""`GET /v1/summary`: what needs a person, in numbers, from a real service."""

from __future__ import annotations

from typing import Any

from receiver.http.summary import open_declines
from receiver.ledger.money import Money
from receiver.store.refunds.cases import OpenCase
from tests.kit.wire import as_json


def case(number: int, amount: str | None, currency: str = "USD", reason: str = "AmazonRejected") -> OpenCase:
    minor_units = Money.parse(amount, currency).minor_units if amount else None
    return OpenCase(f"R{number}", 1_760_000_000_000 + number, minor_units, currency, reason)


def test_open_cases_are_counted_and_added_up_by_reason_and_currency() -> None:
    """Exactly: in minor units, with the decimals of each currency. An unknown amount is counted, never guessed."""
    cases = [
        case(3, "0.10"),
        case(1, "0.20"),
        case(2, "705", "JPY"),
        case(4, None),
        case(5, "9.99", reason="ProcessingFailure"),
        case(6, "1.00", reason=""),
    ]
    found: Any = as_json(open_declines(cases))
    assert found["count"] == 6
    assert found["amounts"] == [
        {"amount": "705", "currencyCode": "JPY"},
        {"amount": "11.29", "currencyCode": "USD"},
    ]
    assert found["unknownAmounts"] == 1
    assert found["oldestAt"] == "2025-10-09T08:53:20.001Z"
    assert [(each["reasonCode"], each["count"]) for each in found["reasons"]] == [
        ("AmazonRejected", 4),
        (None, 1),
        ("ProcessingFailure", 1),
    ]
    assert found["reasons"][0]["amounts"][1] == {"amount": "0.30", "currencyCode": "USD"}


def test_without_open_cases_there_is_nothing_to_add_up() -> None:
    found: Any = as_json(open_declines([]))
    assert (found["count"], found["amounts"], found["oldestAt"], found["reasons"]) == (0, [], None, [])
