"""The queue of fetches: a client with few requests is served at once, whatever others request; everything is
bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from receiver.receive import fetch_queue
from receiver.receive.fetch_queue import (
    AT_ONCE,
    AT_ONCE_OF_ONE,
    MOST_SOURCES,
    QUEUED_OF_ONE,
    FetchQueue,
    QueueFull,
    Stopping,
)

PATIENCE = 8.0


class Host:
    """What is fetched from. Names that begin with `hang` are never answered; `gate` holds back all others."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.busy: dict[str, int] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    def fetching(self, name: str) -> Callable[[], Coroutine[object, object, str]]:
        async def fetch() -> str:
            self.asked.append(name)
            source = name.split(":")[0]
            self.busy[source] = self.busy.get(source, 0) + 1
            try:
                await (asyncio.Event() if "hang" in name else self.gate).wait()
            finally:
                self.busy[source] -= 1
            return name.upper()

        return fetch


class Street:
    """A queue, a host, and those who ask."""

    def __init__(self, timer: Callable[[], float] | None = None) -> None:
        self.queue, self.host = FetchQueue[str, str](timer), Host()
        self.tasks: list[asyncio.Task[str]] = []

    def ask(self, source: str, name: str, patience: float = PATIENCE) -> asyncio.Task[str]:
        task = asyncio.ensure_future(self.queue.get(source, name, self.host.fetching(name), patience))
        self.tasks.append(task)
        return task

    async def flood(self, sources: int, names: int, kind: str = "") -> None:
        for number in range(names):
            for source in range(sources):
                self.ask(f"stranger-{source}", f"stranger-{source}:{kind}{number}")
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@pytest.fixture
async def street() -> Any:
    found = Street()
    yield found
    await found.queue.close()
    await asyncio.gather(*found.tasks, return_exceptions=True)


async def test_one_source_that_asks_for_much_delays_no_other(street: Street) -> None:
    """It has used the fetcher; the other one has not, and its name comes next."""
    await street.flood(1, QUEUED_OF_ONE)
    assert await street.ask("amazon", "new") == "NEW"
    for _ in range(20):
        await street.flood(1, QUEUED_OF_ONE, "more")
    before = len(street.host.asked)
    assert await street.ask("amazon", "newer") == "NEWER"
    assert street.host.asked.index("newer") <= before + 1


async def test_a_hundred_sources_whose_names_hang_delay_no_other(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All places are taken. The next one is made free after the guaranteed time, for who asked last and least."""
    monkeypatch.setattr(fetch_queue, "GUARANTEED", 0.2)
    monkeypatch.setattr(fetch_queue, "BURST", 1e9)
    await street.flood(100, QUEUED_OF_ONE // 2, "hang")
    assert sum(street.host.busy.values()) == AT_ONCE
    began = asyncio.get_running_loop().time()
    assert await street.ask("amazon", "new") == "NEW"
    assert asyncio.get_running_loop().time() - began < 1.0
    assert len(street.host.asked) <= AT_ONCE * 3


async def test_one_source_takes_no_more_than_its_places(street: Street) -> None:
    """Others find room at once, also before anything has had its time."""
    await street.flood(1, AT_ONCE_OF_ONE + QUEUED_OF_ONE, "hang")
    assert street.host.busy["stranger-0"] == AT_ONCE_OF_ONE
    began = asyncio.get_running_loop().time()
    assert await street.ask("amazon", "new") == "NEW"
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_within_one_source_names_that_hang_make_room(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy that is not trusted all have one address."""
    monkeypatch.setattr(fetch_queue, "GUARANTEED", 0.1)
    await street.flood(1, AT_ONCE_OF_ONE, "hang")
    assert await street.ask("stranger-0", "new") == "NEW"


async def test_a_slow_fetch_is_not_ended_for_those_who_have_used_more(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers have kept the fetcher busy for long; a slow fetch now continues."""
    monkeypatch.setattr(fetch_queue, "GUARANTEED", 0.1)
    monkeypatch.setattr(fetch_queue, "BURST", 1e9)
    for number in range(100):
        street.queue._charge(f"stranger-{number}", 30.0)
    street.host.gate.clear()
    slow = street.ask("amazon", "slow")
    await asyncio.sleep(0)
    await street.flood(100, 1, "hang")
    await asyncio.sleep(0.5)
    assert not slow.done()
    street.host.gate.set()
    assert await slow == "SLOW"


async def test_one_that_waits_too_much_is_refused(street: Street) -> None:
    """At once, with Retry-After. Its earlier fetches continue, and it may join them."""
    await street.flood(1, AT_ONCE_OF_ONE + QUEUED_OF_ONE, "hang")
    with pytest.raises(QueueFull) as caught:
        await street.ask("stranger-0", "stranger-0:one more")
    assert (caught.value.status, caught.value.reason, caught.value.retry_after) == (503, "certificate_too_many", 10)
    joined = street.ask("stranger-0", f"stranger-0:hang{AT_ONCE_OF_ONE + 1}")
    await asyncio.sleep(0)
    assert not joined.done()


async def test_who_waits_gives_way_to_who_does_not(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    """All seats are taken: the source with the most gives one up, and the one that has none gets it."""
    street.queue._seats._most = 20
    for _ in range(20):
        street.ask("stranger", "stranger:hang")
    await asyncio.sleep(0)
    genuine = street.ask("amazon", "new")
    assert await genuine == "NEW"
    with pytest.raises(QueueFull):
        await street.tasks[0]
    assert street.queue.waiting == 19
    street.ask("stranger", "stranger:hang")
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await street.ask("stranger", "stranger:hang")


async def test_fetches_in_a_second_are_bounded(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any files and any number of clients."""
    monkeypatch.setattr(fetch_queue, "BURST", 10.0)
    monkeypatch.setattr(fetch_queue, "PER_SECOND", 20.0)
    began = asyncio.get_running_loop().time()
    await street.flood(200, 2)
    await asyncio.sleep(0.5)
    passed = asyncio.get_running_loop().time() - began
    assert 10 < len(street.host.asked) <= 10 + 20 * passed + 1


async def test_one_fetch_serves_all_who_ask_for_the_same(street: Street) -> None:
    """Also those of other sources. It begins when the turn of the first of them comes."""
    await street.flood(1, AT_ONCE_OF_ONE, "hang")
    street.host.gate.clear()
    waits = street.ask("stranger-0", "shared")
    await asyncio.sleep(0)
    assert "shared" not in street.host.asked
    joins = street.ask("amazon", "shared")
    await asyncio.sleep(0)
    street.host.gate.set()
    assert await joins == await waits == "SHARED"
    assert street.host.asked.count("shared") == 1


async def test_what_nobody_waits_for_any_more_is_not_fetched(street: Street) -> None:
    """The waiters have given up before its turn came; its place in the queue is free."""
    await street.flood(1, AT_ONCE_OF_ONE, "hang")
    late = [street.ask("stranger-0", f"late-{number}", 0.01) for number in range(QUEUED_OF_ONE)]
    for each in late:
        with pytest.raises(TimeoutError):
            await each
    assert not street.queue._queues
    assert len(street.queue._jobs) == AT_ONCE_OF_ONE
    assert not [name for name in street.host.asked if name.startswith("late")]


async def test_use_is_forgotten_and_so_are_sources() -> None:
    """After some minutes a source is as good as new; the table does not grow."""
    now = 0.0
    queue = FetchQueue[str, str](lambda: now)
    queue._charge("busy", 30.0)
    assert queue._use_of("busy") == 30.0
    now = 600.0
    assert queue._use_of("busy") < 0.01
    for number in range(MOST_SOURCES + 10):
        queue._charge(str(number), 1.0)
    assert len(queue._used) == MOST_SOURCES
    assert queue._use_of("busy") == 0.0


async def test_closing_ends_everything() -> None:
    """A waiting client gets the error that it took too long."""
    street = Street()
    await street.flood(10, 10, "hang")
    await street.queue.close()
    found = await asyncio.gather(*street.tasks, return_exceptions=True)
    assert {type(each) for each in found} <= {TimeoutError, QueueFull}
    assert not sum(street.host.busy.values())


async def test_before_a_stop_all_who_wait_are_refused() -> None:
    """Also those who ask afterwards. None of what they asked for is begun."""
    street = Street()
    await street.flood(1, AT_ONCE_OF_ONE + QUEUED_OF_ONE, "hang")
    assert len(street.host.asked) == AT_ONCE_OF_ONE
    street.queue.refuse()
    late = street.ask("amazon", "late")
    found = await asyncio.gather(*street.tasks, return_exceptions=True)
    assert [type(each) for each in found] == [Stopping] * len(street.tasks)
    assert isinstance(late.exception(), Stopping)
    assert (found[0].status, found[0].reason, found[0].retry_after) == (503, "stopping", 5)  # type: ignore[union-attr]
    assert street.queue.waiting == 0
    assert len(street.host.asked) == AT_ONCE_OF_ONE
    await street.queue.close()
