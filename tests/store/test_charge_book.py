"""The reserving script and `ledger/charge_book.py` read the same book alike, and admit the same."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.ledger.charge_book import Entry, Guard, in_the_way, read_entry, reservation
from receiver.ledger.money import Money
from receiver.ledger.refund_request import PreparedRefund
from receiver.store import Store
from receiver.store.redis.pipeline import connect
from receiver.store.requests.requests import Attempt, NotReserved
from tests.kit.clock import ManualClock

CHARGE = "S01-5105180-3221187-C056351"
MONEY = Money(Decimal("20.00"), "USD")
ORDER = PreparedRefund(id="a" * 64, digest="d", amazon_key="k", body=b"{}", charge_id=CHARGE, money=MONEY)
REFUNDS = [f"S01-{number}" for number in range(5)]
REQUESTS = [f"{number:064x}" for number in range(4)]
MEMBERS = [*REFUNDS, *map(reservation, REQUESTS)]
TIMES = st.sampled_from([None, 0, 999, 1_000, 1_001, 5_000])
ENTRIES = st.builds(
    Entry,
    st.sampled_from([None, 0, 1_999, 2_000, 2_001]),
    st.sampled_from(["Refunded", "Declined", "RefundInitiated", "Reserved", "On the moon", "12"]),
    st.sampled_from([0, 999, 1_000, 1_001, 5_000]),
    st.sampled_from(["", "USD", "JPY"]),
    st.booleans(),
)
LINES = ENTRIES.map(Entry.line) | st.sampled_from(
    ["2000 Refunded", "2000 Declined", "1999 Reserved", "2000 On the moon"]
)
GUARDS = st.builds(
    Guard,
    most=st.just(10**9),
    refunded=st.just(0),
    since=TIMES,
    reserved_since=TIMES,
    besides=st.lists(st.sampled_from([*REFUNDS, *REQUESTS, "unknown"]), max_size=4),
)


@given(ENTRIES)
def test_a_line_is_read_back_as_what_was_written(entry: Entry) -> None:
    found = read_entry(entry.line())
    assert (found.minor_units, found.began, found.currency, found.conflict) == (
        entry.minor_units,
        entry.began,
        entry.currency,
        entry.conflict,
    )
    assert found.counts == entry.counts
    assert len(entry.line()) <= 64


def test_the_script_and_the_ledger_find_the_same_in_the_way(valkey_url: str) -> None:
    """For any book, of this version and of older ones, and for any refunds that the caller names."""
    with asyncio.Runner() as runner:
        client: Any = connect(valkey_url)
        store = Store(client, clock=ManualClock())
        book, taken = f"refunds:{{us}}:charge:{CHARGE}", f"refunds:{{us}}:taken:{CHARGE}"

        async def reserve(lines: dict[str, str], of: dict[str, str], guard: Guard) -> object:
            await client.flushall()
            if lines:
                await client.hset(book, mapping=lines)
            if of:
                await client.hset(taken, mapping=of)
            return await store.of("us").requests.reserve(ORDER, owner="o", guard=guard, lease=30_000)

        @settings(
            max_examples=400,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        @given(
            st.dictionaries(st.sampled_from(MEMBERS), LINES, max_size=9),
            st.dictionaries(st.sampled_from(REFUNDS), st.sampled_from(REQUESTS), max_size=3),
            GUARDS,
        )
        def check(lines: dict[str, str], of: dict[str, str], guard: Guard) -> None:
            entries = {name: read_entry(line) for name, line in lines.items()}
            expected = in_the_way(entries, of, MONEY, guard)
            conflicts = {name: entry for name, entry in expected.items() if entry.conflict}
            found = runner.run(reserve(lines, of, guard))
            if isinstance(found, NotReserved) and found.reason == "allowance_exceeded":
                assert expected == {}
                assert any(each.minor_units is None for each in entries.values())
                return
            if not expected:
                assert isinstance(found, Attempt)
                return
            assert isinstance(found, NotReserved)
            assert found.reason == ("charge_in_conflict" if conflicts else "same_amount_refunded")
            assert found.entries == (conflicts or expected)

        check()
        runner.run(store.close())
