"""A store that was emptied, or damaged, under a running service: no subscriber may be forgotten silently."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.amazon.account import Account
from receiver.errors import StoreUnavailable
from receiver.ledger.refund import Source
from receiver.store import Store
from receiver.track.record import Recorder
from tests.store.makers import seen, subscriber


async def test_what_is_owed_to_nobody_because_the_list_is_gone_is_not_committed(
    store: Store, redis: Any, account: Account
) -> None:
    """With a list that must have been written, its absence is our trouble: the refund stays due."""
    recorder = Recorder(store, lambda: 0.0, declared=True)
    with pytest.raises(StoreUnavailable) as caught:
        await recorder.record(account, seen("Declined"), source=Source.POLL)
    assert caught.value.reason == "store_emptied"
    assert await redis.keys("*") == []
    assert await store.of("us").subscribers.open()
    assert not await store.of("us").subscribers.open()
    settled = await recorder.record(account, seen("Declined"), source=Source.POLL)
    assert len(settled.events) == 1


async def test_a_subscriber_whose_record_is_damaged_is_owed_everything(
    store: Store, redis: Any, account: Account
) -> None:
    await store.of("us").subscribers.put(subscriber("audit", types=("amazonpay.refund.refunded",)))
    await redis.hset("refunds:{us}:subscribers", "broken", "{")
    await Recorder(store, lambda: 0.0).record(account, seen("Declined"), source=Source.POLL)
    assert await redis.zcard("refunds:{us}:lane:broken") == 1
    assert await redis.zcard("refunds:{us}:lane:audit") == 0
