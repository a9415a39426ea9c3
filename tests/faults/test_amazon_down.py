"""Amazon is down for an hour: it answers with errors, not at all, or cuts the connection."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.ledger.next_look import RETRY_MOST
from receiver.store import Store
from tests.kit.clock import T0, ManualClock
from tests.service.desk import Answer, Cut, Held, bench, http, refund
from tests.store.makers import hint, refund_id

HOUR = 3_600_000
MOST = 25
"""Questions in that hour: 2.5 s after the first, then ever further apart, up to 5 minutes (10 with jitter)."""


@pytest.mark.parametrize(
    "says", [http(500), http(503), http(200, b"<html>"), Cut(), Held()], ids=["500", "503", "garbage", "cut", "silence"]
)
async def test_an_hour_without_amazon(store: Store, redis: Any, clock: ManualClock, says: Answer) -> None:
    """The refund stays scheduled, is asked about ever more seldom, and is known within ten minutes of Amazon's return,
    with one event."""
    async with bench(store, redis, clock, request_timeout=0.05 if isinstance(says, Held) else 10.0) as at:
        at.desk.then = says
        await store.of("us").schedule.hint(hint())
        waits = []
        while clock() < T0 + HOUR:
            await at.look()
            waits.append(await at.wait())
        assert waits == sorted(waits)
        assert max(waits) <= RETRY_MOST
        assert len(waits) <= MOST
        assert len(at.desk.asked) <= 2 * len(waits), "a GET whose pooled connection was cut is sent again"
        at.desk.then = refund("Declined", reason="AmazonRejected")
        at.tracker.amazon_client.timeout = 10.0
        await at.look()
        known = await store.of("us").refunds.get(refund_id())
        assert known is not None
        assert (known.state, known.reason_code) == ("Declined", "AmazonRejected")
        events = await redis.xrange("refunds:{us}:events")
        assert [fields[b"type"] for _, fields in events] == [b"amazonpay.refund.declined"]
        assert clock() <= T0 + HOUR + RETRY_MOST
