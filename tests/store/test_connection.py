"""The pipelines: grouping, lost scripts, broken connections, and what Redis's errors are called."""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.ledger.notification import HintResult
from receiver.store import Store
from receiver.store.redis.clock import Clock
from receiver.store.redis.damage import WrongType
from receiver.store.redis.pipeline import connect
from receiver.store.redis.wakeups import News
from tests.kit.clock import ManualClock
from tests.kit.proxy import proxied
from tests.kit.valkey import start_valkey
from tests.store.makers import claim, hint, subscriber


@pytest.fixture
async def lonely(tmp_path: Path) -> AsyncIterator[tuple[Store, Path]]:
    """A store on a Valkey of this test's own, to be mistreated."""
    directory = Path(tempfile.mkdtemp(prefix="rv-"))
    process, url = start_valkey(directory)
    store = Store(connect(url, timeout=1.0, connect_timeout=0.5), clock=ManualClock())
    store.process = process  # type: ignore[attr-defined]
    yield store, directory
    await store.close()
    process.kill()
    process.wait()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory with a name short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="rv-") as directory:
        yield Path(directory)


async def test_commands_of_one_turn_share_one_pipeline(store: Store, redis: Any) -> None:
    # Redis reads 16 KB at a time: a script that it does not have yet would count by its length.
    await store.of("us").schedule.hint(hint(99, message="m99"))
    before = (await redis.info("stats"))["total_reads_processed"]
    await asyncio.gather(*(store.of("us").schedule.hint(hint(number, message=f"m{number}")) for number in range(50)))
    reads = (await redis.info("stats"))["total_reads_processed"] - before
    assert reads < 12


async def test_a_script_that_redis_has_forgotten_is_sent_again(store: Store, redis: Any) -> None:
    await store.of("us").schedule.hint(hint(1))
    await redis.script_flush()
    assert await store.of("us").schedule.hint(hint(2, message="m2")) is HintResult.NEW
    assert len((await claim(store)).items) == 2


async def test_a_connection_that_died_unseen_costs_nothing(store: Store, redis: Any) -> None:
    await store.of("us").schedule.hint(hint(1))
    await redis.client_kill_filter(_type="normal", skipme=True)
    assert await store.of("us").schedule.hint(hint(2, message="m2")) is HintResult.NEW


async def test_a_claim_whose_answer_is_lost_is_not_sent_again(store: Store, valkey_url: str, socket_dir: Path) -> None:
    async with proxied(valkey_url, socket_dir) as (proxy, url):
        cut_off = Store(connect(url), clock=ManualClock())
        await store.of("us").schedule.hint(hint(1))
        await store.of("us").schedule.hint(hint(2, message="m2"))
        await claim(cut_off, limit=0)
        proxy.lose = 1
        try:
            with pytest.raises(StoreUnavailable):
                await claim(cut_off, limit=1)
            assert len((await claim(store)).items) == 1
        finally:
            await cut_off.close()


async def test_a_write_whose_answer_is_lost_is_sent_again_and_counts_once(
    store: Store, valkey_url: str, socket_dir: Path
) -> None:
    async with proxied(valkey_url, socket_dir) as (proxy, url):
        cut_off = Store(connect(url), clock=ManualClock())
        await store.of("us").schedule.hint(hint(0, message="m0"))
        await claim(store)  # now Redis knows the scripts
        await cut_off.ping()  # now there is a connection
        proxy.lose = 1
        assert await cut_off.of("us").schedule.hint(hint(1)) is HintResult.REPEATED
        proxy.lose = 2
        with pytest.raises(StoreUnavailable):
            await cut_off.of("us").schedule.hint(hint(2, message="m2"))
        assert [look.refund_id for look in (await claim(store)).items] == [hint(1).refund_id, hint(2).refund_id]
        await cut_off.close()


async def test_redis_that_is_gone_is_our_trouble_not_the_senders(lonely: tuple[Store, Path]) -> None:
    store, _ = lonely
    store.process.kill()  # type: ignore[attr-defined]
    store.process.wait()  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable) as caught:
        await store.of("us").schedule.hint(hint())
    assert (caught.value.status, caught.value.reason, caught.value.retry_after) == (503, "store_unreachable", 5)


async def test_redis_that_hangs_is_given_up_in_time(lonely: tuple[Store, Path]) -> None:
    store, _ = lonely
    await store.ping()
    await store.connection.client.client_pause(20_000)
    async with asyncio.timeout(4):
        with pytest.raises(StoreUnavailable) as caught:
            await store.of("us").schedule.hint(hint())
    assert caught.value.reason == "store_timeout"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("CONFIG SET maxmemory 1", "store_full"),
        ("REPLICAOF 127.0.0.1 1", "store_read_only"),
    ],
)
async def test_redis_that_cannot_write_says_why(lonely: tuple[Store, Path], command: str, reason: str) -> None:
    store, _ = lonely
    await store.connection.client.execute_command(*command.split())
    with pytest.raises(StoreUnavailable) as caught:
        await store.of("us").schedule.hint(hint())
    assert caught.value.reason == reason


async def test_too_few_replicas_are_a_failure_of_the_write(lonely: tuple[Store, Path]) -> None:
    _, directory = lonely
    careful = Store(connect(f"unix://{directory / 'valkey.sock'}"), clock=ManualClock(), wait_replicas=1)
    with pytest.raises(StoreUnavailable) as caught:
        await careful.of("us").schedule.hint(hint())
    assert caught.value.reason == "store_replicas_missing"
    await careful.close()


async def test_an_error_names_the_key_of_a_foreign_type_and_no_value(store: Store, redis: Any) -> None:
    await redis.set("refunds:{us}:hinted", "what it holds")
    with pytest.raises(WrongType) as caught:
        await store.of("us").schedule.hint(hint())
    assert caught.value.reason == "store_wrong_type"
    assert "key refunds:{us}:hinted holds a string, and should be a zset" in str(caught.value)
    assert "what it holds" not in str(caught.value)


async def test_the_clock_goes_by_redis_and_not_by_the_machine(valkey_url: str, redis: Any) -> None:
    store = Store(connect(valkey_url), clock=Clock(system_clock=lambda: 0.0))
    assert store.now() < 60_000
    await store.correct_clock()
    seconds, _ = await redis.time()
    assert abs(store.now() - seconds * 1000) < 2_000
    await store.close()


async def test_a_write_wakes_those_who_wait_in_this_process_and_in_others(store: Store, valkey_url: str) -> None:
    other = Store(connect(valkey_url))
    await other.start()
    async with asyncio.timeout(30):
        while (await store.connection.client.pubsub_numsub("refunds:wake"))[0][1] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with store.of("us").change_signal(News.DUE) as here, other.of("us").change_signal(News.DUE) as there:
            await store.of("us").schedule.hint(hint())
            await asyncio.gather(here.rest(30), there.rest(30))
        here_changed = asyncio.create_task(store.of("us").changed(30))
        there_changed = asyncio.create_task(other.of("us").changed(30))
        await asyncio.sleep(0)
        await store.of("us").subscribers.add(subscriber("finance"))
        await asyncio.gather(here_changed, there_changed)
    await other.close()


async def test_waiting_ends_by_itself(store: Store) -> None:
    await store.of("us").changed(0.01)
    assert not store.connection.change_notifier._waiting


async def test_a_command_that_fails_leaves_nothing_to_the_garbage_collector(store: Store, redis: Any) -> None:
    """While Redis is away, every notification fails."""
    await redis.set("refunds:{us}:due", "no sorted set")
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(3):
            with suppress(StoreUnavailable):
                await store._reads.call(("ZCARD", "refunds:{us}:due"))
        gc.collect()
        assert [each for each in gc.garbage if isinstance(each, StoreUnavailable)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
