"""While Redis is unavailable, the log says so at once with its address, then once a minute, and again when it is
back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.errors import StoreUnavailable
from receiver.store import Store
from receiver.store.redis import outage
from receiver.store.redis.outage import Outage
from receiver.store.redis.pipeline import connect
from tests.kit.processes import until

ADDRESS = "redis://cache.example:6379/0"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute takes a fiftieth of a second."""
    monkeypatch.setattr(outage, "EVERY", 0.02)
    monkeypatch.setattr(outage, "LOOK_EVERY", 0.001)


async def test_one_warning_then_one_a_minute_and_one_at_the_end() -> None:
    """No matter how many commands fail meanwhile, or who sends them."""
    logs: list[Any]

    async def probe() -> None:
        if len(logs) < 3:
            raise StoreUnavailable

    with capture_logs() as logs:
        found = Outage(ADDRESS, probe)
        for _ in range(50):
            found.failed("unreachable")
        found.failed("loading")
        await until(lambda: logs[-1:] and logs[-1]["event"] == "store.back", "it is back")
        found.failed("full")
        await until(lambda: logs[-1]["event"] == "store.back" and len(logs) == 6, "it is back again")
        await found.stop()
    assert [each["event"] for each in logs] == [*["store.away"] * 3, "store.back", "store.away", "store.back"]
    assert [each["reason"] for each in logs if "reason" in each] == ["store_loading"] * 3 + ["store_full"]
    assert {each["address"] for each in logs} == {ADDRESS}


async def test_errors_of_one_command_are_no_outage() -> None:
    """And a command on the store that names no address logs nothing."""
    with capture_logs() as logs:
        found = Outage(ADDRESS, asyncio.Event().wait)  # type: ignore[arg-type]
        found.failed("wrong_type")
        Outage("", asyncio.Event().wait).failed("unreachable")  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await found.stop()
    assert logs == []


async def test_a_store_without_redis_says_where_it_looks() -> None:
    """Once for all the work that waits."""
    with capture_logs() as logs:
        store = Store(connect("redis://127.0.0.1:1"), address="redis://127.0.0.1:1/0")
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.ping()
        await until(lambda: [each["event"] for each in logs] >= ["store.away"], "it is said")
        await store.close()
    assert (logs[0]["address"], logs[0]["reason"]) == ("redis://127.0.0.1:1/0", "store_unreachable")
