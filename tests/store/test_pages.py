"""Lists, on a real Valkey."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.amazon.account import Account
from receiver.errors import BadRequest
from receiver.ledger.query import Query
from receiver.ledger.refund import Source
from receiver.store import Store
from receiver.track.record import Recorder
from tests.kit.clock import T0, ManualClock
from tests.store.makers import refund_id, seen

WORDS = [
    ("RefundInitiated", ""),
    ("Refunded", ""),
    ("Declined", "AmazonRejected"),
    ("Declined", "ProcessingFailure"),
    ("Odd", ""),
]


async def everything(store: Store, query: Query, limit: int) -> list[str]:
    found: list[str] = []
    cursor = ""
    for _ in range(200):
        page = await store.of("us").refunds.page(query, cursor, limit)
        assert len(page.refunds) <= limit
        found += [refund.refund_id for refund in page.refunds]
        cursor = page.next_cursor
        if not cursor:
            return found
    raise AssertionError("the list does not end")


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_pages_together_hold_everything_once_newest_first(
    store: Store, account: Account, clock: ManualClock, limit: int
) -> None:
    recorder = Recorder(store, lambda: 0.0)
    for number in range(23):
        clock.tick(number % 3)  # some share a millisecond
        state, reason = WORDS[number % len(WORDS)]
        await recorder.record(account, seen(state, number, reason), source=Source.POLL)
    found = await everything(store, Query(), limit)
    assert sorted(found) == sorted(refund_id(number) for number in range(23))
    changed = [(await store.of("us").refunds.get(each)).changed_at for each in found]  # type: ignore[union-attr]
    assert changed == sorted(changed, reverse=True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_filters_are_the_filters_of_the_plain_list(store: Store, account: Account, data: st.DataObject) -> None:
    recorder = Recorder(store, lambda: 0.0)
    numbers = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True))
    for number in numbers:
        store.now.ms += data.draw(st.integers(0, 2))  # type: ignore[attr-defined]
        state, reason = data.draw(st.sampled_from(WORDS))
        facts = {"order_reference": data.draw(st.sampled_from(["", "A 1", "{b}:*"]))}
        await recorder.record(account, seen(state, number, reason), source=Source.POLL, details=facts)
    query = Query(
        state=data.draw(st.sampled_from(["", "Declined", "Refunded", "Odd"])),
        reason=data.draw(st.sampled_from(["", "AmazonRejected"])),
        charge=data.draw(st.sampled_from(["", "S01-5105180-3221187-C056351", "S01-0000000-0000000-C000000"])),
        order=data.draw(st.sampled_from(["", "A 1", "{b}:*", "none"])),
        since=data.draw(st.sampled_from([0, T0, T0 + 5])),
    )
    everyone = [await store.of("us").refunds.get(refund_id(number)) for number in range(31)]
    expected = [refund for refund in everyone if refund is not None and query.matches(refund)]
    expected.sort(key=lambda refund: (refund.changed_at, refund.refund_id), reverse=True)
    assert await everything(store, query, data.draw(st.integers(1, 5))) == [refund.refund_id for refund in expected]


@pytest.mark.parametrize("cursor", ["x", "12x_R", "-1_R", "9" * 20 + "_R", "١_R"])
async def test_a_cursor_that_no_page_gave_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        await store.of("us").refunds.page(Query(), cursor)


async def test_an_account_without_refunds_has_an_empty_page(store: Store) -> None:
    page = await store.of("nobody").refunds.page(Query())
    assert (page.refunds, page.next_cursor) == ((), "")
