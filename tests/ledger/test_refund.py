"""Money and Amazon's timestamps."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import Malformed
from receiver.ledger.money import Money
from receiver.ledger.timestamps import format_basic, format_rfc3339, parse_time


@pytest.mark.parametrize(
    ("amount", "currency", "text", "minor"),
    [
        ("14.00", "USD", "14.00", 1400),
        ("14", "USD", "14.00", 1400),
        (Decimal("12.99"), "EUR", "12.99", 1299),
        ("8400", "JPY", "8400", 8400),
        ("8400.00", "JPY", "8400", 8400),
        (1500, "JPY", "1500", 1500),
        ("0.125", "USD", "0.125", 12),
        ("1.234", "KWD", "1.234", 1234),
    ],
)
def test_amounts_are_written_as_the_currency_is(amount: object, currency: str, text: str, minor: int) -> None:
    money = Money.parse(amount, currency)
    assert (money.text, money.minor_units) == (text, minor)


@pytest.mark.parametrize(
    "amount", [14.0, True, None, "", "-1", "1e3", "NaN", "1,00", "1.", ".5", "١", "9" * 13, [], "1.00 "]
)
def test_floats_and_odd_amounts_are_not_money(amount: object) -> None:
    with pytest.raises(Malformed, match="amount"):
        Money.parse(amount, "USD")


@pytest.mark.parametrize("currency", ["usd", "US", "", None, 840, "USDT", "ÜSD"])
def test_a_currency_is_three_capital_letters(currency: object) -> None:
    with pytest.raises(Malformed, match="currency"):
        Money.parse("1.00", currency)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("20190714T155300Z", 1_563_119_580_000),
        ("2019-07-14T15:53:00Z", 1_563_119_580_000),
        ("2017-06-28T18:14:34.752Z", 1_498_673_674_752),
        ("2017-06-28T18:14:34.7Z", 1_498_673_674_700),
    ],
)
def test_amazons_timestamps_are_read_in_both_spellings(text: str, ms: int) -> None:
    assert parse_time(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        1563119580,
        "20190714T155300",
        "20190231T000000Z",
        "20190714T256100Z",
        "0000-00-00T00:00:00Z",
        "20190714T155300Z\n",
    ],
)
def test_other_timestamps_are_unreadable(text: object) -> None:
    with pytest.raises(Malformed):
        parse_time(text)


@given(st.text())
def test_any_text_is_a_time_or_unreadable(text: str) -> None:
    with contextlib.suppress(Malformed):
        assert isinstance(parse_time(text), int)


@given(st.integers(-62_135_596_800_000, 4_000_000_000_000))
def test_written_times_read_back(ms: int) -> None:
    assert parse_time(format_basic(ms)) == ms // 1000 * 1000
    assert parse_time(format_rfc3339(ms)) == ms
