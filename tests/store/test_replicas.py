"""What `wait_replicas` promises: what is acknowledged is on so many replicas, whoever wrote it."""

from __future__ import annotations

import pytest

from receiver.errors import StoreUnavailable
from receiver.ledger.hint import Noted
from receiver.store import Store
from receiver.store.connection import connect
from tests.clock import ManualClock
from tests.fleet import fleet
from tests.store.makers import hint


async def test_a_repetition_is_acknowledged_only_if_the_first_is_on_a_replica() -> None:
    """The first time the replica did not confirm, so Amazon was told 503. Its repetition finds the hint written, and
    writes nothing: `WAIT` alone, on another connection, would then have nothing to wait for."""
    async with fleet() as found:
        master, [replica] = await found.replicated(1)
        stores = [Store(connect(master.url), clock=ManualClock(), wait_replicas=1, wait_timeout=0.2) for _ in range(2)]
        try:
            replica.freeze()
            for store in stores:
                with pytest.raises(StoreUnavailable) as caught:
                    await store.hint("us", hint(1))
                assert caught.value.reason == "store_replicas_missing"
            replica.thaw()
            assert await stores[1].hint("us", hint(1)) is Noted.REPEATED
            assert await replica.client.zcard("refunds:{us}:hinted") == 1
        finally:
            for store in stores:
                await store.close()
