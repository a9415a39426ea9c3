"""The guarantee of `wait_replicas`: what is acknowledged is on that many replicas, whichever process wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from receiver.errors import StoreUnavailable
from receiver.ledger.notification import HintResult
from receiver.store import Store
from receiver.store.redis.pipeline import Pipeline, connect
from tests.kit.clock import ManualClock
from tests.kit.fleet import HOST, fleet
from tests.store.makers import claim, hint, refund_id

PATIENCE = 4_000
"""Milliseconds in which a replica that is there has confirmed."""
NOBODY = 1
"""A port without a listener: a replica of this address keeps its data and gets nothing more."""


def store_at(url: str, *, clock: ManualClock | None = None) -> Store:
    """A store that waits for one replica."""
    return Store(connect(url), clock=clock or ManualClock(), wait_replicas=1, wait_timeout=PATIENCE / 1000)


@contextmanager
def impatient(*stores: Store) -> Iterator[None]:
    """They wait briefly for a replica that does not confirm."""
    writes = [each._writes for each in stores if isinstance(each._writes, Pipeline)]
    for each in writes:
        each.wait_ms = 100
    yield
    for each in writes:
        each.wait_ms = PATIENCE


async def test_a_repetition_is_acknowledged_only_if_the_first_is_on_a_replica() -> None:
    """The first time the replica did not confirm, so Amazon got 503. Its repetition finds the hint written, and
    writes nothing: `WAIT` alone, on another connection, would then have nothing to wait for."""
    async with fleet() as found:
        master, [replica] = await found.replicated(1)
        stores = [store_at(master.url) for _ in range(2)]
        try:
            replica.freeze()
            for store in stores:
                with impatient(store), pytest.raises(StoreUnavailable) as caught:
                    await store.of("us").schedule.hint(hint(1))
                assert caught.value.reason == "store_replicas_missing"
            replica.thaw()
            assert await stores[1].of("us").schedule.hint(hint(1)) is HintResult.REPEATED
            assert await replica.client.zcard("refunds:{us}:hinted") == 1
        finally:
            for store in stores:
                await store.close()


async def test_while_replicas_are_missing_nothing_is_claimed_by_nobody() -> None:
    """A claim whose answer is discarded still takes the lease, so due work would wait until the lease expires, at every
    try."""
    async with fleet() as found:
        master, [replica] = await found.replicated(1)
        store = store_at(master.url)
        try:
            for number in range(2):
                await store.of("us").schedule.hint(hint(number, message=f"m{number}"))
            replica.freeze()
            for _ in range(3):
                with impatient(store), pytest.raises(StoreUnavailable):
                    await claim(store, limit=1)
            assert await master.client.zcard("refunds:{us}:due") == 1
            replica.thaw()
            assert len((await claim(store)).items) == 1
        finally:
            await store.close()


async def test_what_no_replica_has_received_a_failover_loses_and_nothing_else() -> None:
    """With `wait_replicas = 0` that was acknowledged. With 1 it was not, and comes again."""
    async with fleet() as found:
        master, [replica] = await found.replicated(1)
        clock = ManualClock()
        careless = Store(connect(master.url), clock=clock)
        careful = store_at(master.url, clock=clock)
        promoted = Store(connect(replica.url), clock=clock)
        try:
            assert await careless.of("us").schedule.hint(hint(0, message="m0")) is HintResult.NEW
            assert await careful.of("us").schedule.hint(hint(1, message="m1")) is HintResult.NEW
            await replica.client.replicaof(HOST, NOBODY)
            for number in (2, 3):
                assert await careless.of("us").schedule.hint(hint(number, message=f"m{number}")) is HintResult.NEW
            with impatient(careful), pytest.raises(StoreUnavailable) as caught:
                await careful.of("us").schedule.hint(hint(4, message="m4"))
            assert caught.value.reason == "store_replicas_missing"
            master.kill()
            await replica.client.replicaof("NO", "ONE")
            kept = await replica.client.zrange("refunds:{us}:hinted", 0, -1)
            assert {each.decode() for each in kept} == {refund_id(0), refund_id(1)}
            answers = [await promoted.of("us").schedule.hint(hint(number, message=f"m{number}")) for number in range(5)]
            assert answers == [HintResult.REPEATED] * 2 + [HintResult.NEW] * 3
        finally:
            for store in (careless, careful, promoted):
                await store.close()
