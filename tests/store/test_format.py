"""The version of the data format, on a real Valkey: a newer one is refused, an older one is migrated once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from receiver.errors import ConfigurationError, StoreUnavailable
from receiver.store import Store
from receiver.store.maintenance.data_version import VERSION
from receiver.store.redis.base import RedisRepository
from receiver.store.redis.keys import FORMAT
from receiver.store.redis.pipeline import connect
from tests.commands.test_cli import account
from tests.kit.processes import desk
from tests.store.makers import hint


async def test_a_first_start_writes_the_version(store: Store, redis: Any) -> None:
    await store.format.ensure()
    assert await redis.get(FORMAT) == str(VERSION).encode()
    await store.format.ensure()
    assert await store.format.version() == VERSION


async def test_data_without_a_version_is_version_one(store: Store, redis: Any) -> None:
    """It is migrated from version one, without a look at the data."""
    ran: list[int] = []

    async def step(_: RedisRepository) -> None:
        ran.append(1)

    await redis.set("refunds:{us}:anything", "1")
    await store.format.ensure(2, {1: step})
    assert (ran, await redis.get(FORMAT)) == ([1], b"2")


async def test_a_newer_version_is_refused_and_nothing_is_written(store: Store, redis: Any) -> None:
    await redis.set(FORMAT, VERSION + 1)
    store.format.hold_writes()
    with pytest.raises(ConfigurationError, match=f"format {VERSION + 1}, and this version"):
        await store.format.ensure()
    with pytest.raises(StoreUnavailable) as refused:
        await store.of("us").schedule.hint(hint())
    assert refused.value.reason == "store_format_unknown"
    assert await redis.keys() == [FORMAT.encode()]


async def test_what_is_no_number_is_refused(store: Store, redis: Any) -> None:
    for text in ("", "one", "1.5", "-1", "9" * 20):
        await redis.set(FORMAT, text)
        with pytest.raises(ConfigurationError, match="is not a number"):
            await store.format.ensure()


async def test_two_processes_that_start_at_once_end_at_the_same_version(valkey_url: str, redis: Any) -> None:
    """Both may run a step; the version increases once, and only a step may write meanwhile."""
    stores = [Store(connect(valkey_url)) for _ in range(2)]
    both = asyncio.Barrier(2)

    async def first(part: RedisRepository) -> None:
        await both.wait()
        assert isinstance(part, Store)
        await part._writes.call(("SADD", "refunds:{us}:migrated", "first"))

    async def second(part: RedisRepository) -> None:
        assert isinstance(part, Store)
        await part._writes.call(("SADD", "refunds:{us}:migrated", "second"))

    try:
        for each in stores:
            each.format.hold_writes()
        await asyncio.gather(*(each.format.ensure(3, {1: first, 2: second}) for each in stores))
        assert await redis.get(FORMAT) == b"3"
        assert await redis.smembers("refunds:{us}:migrated") == {b"first", b"second"}
        for each in stores:
            await each.of("us").schedule.hint(hint())
    finally:
        for each in stores:
            await each.close()


async def test_a_step_that_fails_leaves_the_version_for_the_next_start(store: Store, redis: Any) -> None:
    async def fails(_: RedisRepository) -> None:
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        await store.format.ensure(2, {1: fails})
    assert await redis.get(FORMAT) == b"1"


async def test_serve_refuses_newer_data_with_exit_code_2(valkey_url: str, redis: Any) -> None:
    """One sentence with what to do, and no traceback; `doctor` says the same."""
    await redis.set(FORMAT, VERSION + 6)
    environment = {**account(), "RECEIVER_REDIS__URL": valkey_url}
    async with desk() as place:
        served, looked = await asyncio.gather(
            place.run("serve", env=environment), place.run("doctor", "--offline", "--json", env=environment)
        )
        assert served.process.returncode == 2
        told = [line for line in served.complaint.splitlines() if line.startswith("receiver: ")]
        assert len(told) == 1
        assert f"format {VERSION + 6}" in told[0]
        assert "Start the newer version again" in told[0]
        assert "Traceback" not in served.complaint
        findings = {each["check"]: each["reason"] for each in json.loads(looked.said)["findings"] if each.get("reason")}
        assert findings["store.format"] == "format_newer"
    assert await redis.keys() == [FORMAT.encode()]
