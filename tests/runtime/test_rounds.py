"""The loop of every worker: bounded, woken, and not held up by one item."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from math import inf

import pytest
from structlog.testing import capture_logs

from receiver.errors import StoreUnavailable
from receiver.runtime import rounds as module
from receiver.runtime.rounds import ChangeSignal, Claim, Rounds
from tests.kit.processes import until


@dataclass
class Work:
    """Items that are due, and what is made of them."""

    due: list[str] = field(default_factory=list)
    wait: int | None = None
    begun: list[str] = field(default_factory=list)
    rooms: list[int] = field(default_factory=list)
    go: dict[str, asyncio.Event] = field(default_factory=dict)
    fails: dict[str, Exception] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def claim(self, room: int) -> Claim[str]:
        self.rooms.append(room)
        if error := self.fails.pop("claim", None):
            raise error
        items, self.due = self.due[:room], self.due[room:]
        return Claim(items, self.wait)

    async def work(self, item: str) -> None:
        self.begun.append(item)
        self.changed.set()
        if item in self.go:
            await self.go[item].wait()
        if item in self.fails:
            raise self.fails[item]

    async def until_begun(self, *items: str) -> None:
        async with asyncio.timeout(30):
            while not set(items) <= set(self.begun):
                self.changed.clear()
                await self.changed.wait()


def rounds(work: Work, concurrency: int = 2, **more: object) -> Rounds[str]:
    return Rounds("test", "us", work.claim, work.work, lambda item: {"item": item}, concurrency, **more)  # type: ignore[arg-type]


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("wait", "seconds"), [(None, inf), (0, 0.0), (1_500, 1.5)])
async def test_a_round_begins_what_was_claimed_and_says_when_there_is_more(wait: int | None, seconds: float) -> None:
    work = Work(["a", "b"], wait)
    loop = rounds(work)
    assert await loop.once() == seconds
    assert sorted(loop.under_way.values()) == ["a", "b"]
    await asyncio.gather(*loop.under_way)
    assert (work.begun, work.rooms, loop.under_way) == (["a", "b"], [2], {})


async def test_no_more_are_claimed_than_there_is_room_for() -> None:
    work = Work(["a", "b", "c"], go={"a": asyncio.Event()})
    loop = rounds(work)
    await loop.once()
    assert await loop.once() == inf, "there is no room"
    await work.until_begun("a", "b")
    await until(lambda: [*loop.under_way.values()] == ["a"], "the other item is done")
    await loop.once()
    await work.until_begun("c")
    assert work.rooms == [2, 1]
    await until(lambda: [*loop.under_way.values()] == ["a"], "the other item is done")
    work.go["a"].set()
    await asyncio.gather(*loop.under_way)


async def test_an_item_that_has_released_its_place_lets_another_begin_and_ends_with_the_worker() -> None:
    work = Work(["a", "b"], go={"a": asyncio.Event()})
    loop = rounds(work, concurrency=1)
    begin, tasks = work.work, list[asyncio.Task[None] | None]()

    async def release_first(item: str) -> None:
        tasks.append(asyncio.current_task())
        loop.release()
        await begin(item)

    loop.work = release_first
    task = asyncio.create_task(loop.run(nullcontext(ChangeSignal())))
    await work.until_begun("a", "b")
    assert work.rooms[:2] == [1, 1]
    await stop(task)
    assert [each.cancelled() for each in tasks if each] == [True, False]
    assert not loop.under_way


@pytest.mark.parametrize(
    ("error", "event"), [(StoreUnavailable(), "test.not_settled"), (RuntimeError("odd"), "test.failed")]
)
async def test_an_item_that_fails_is_named_in_the_log_and_stops_nothing_else(error: Exception, event: str) -> None:
    work = Work(["bad", "good"], fails={"bad": error})
    loop = rounds(work)
    with capture_logs() as logs:
        await loop.once()
        await asyncio.gather(*loop.under_way)
    assert work.begun == ["bad", "good"]
    assert [(each["event"], each["item"]) for each in logs] == [(event, "bad")]


async def test_a_claim_that_fails_is_logged_and_repeated() -> None:
    work = Work(["a"], fails={"claim": StoreUnavailable()})
    loop = rounds(work)
    with capture_logs() as logs:
        assert await loop.once() == inf
    assert [(each["event"], each["account"]) for each in logs] == [("test.store_unavailable", "us")]
    await loop.once()
    await asyncio.gather(*loop.under_way)
    assert work.begun == ["a"]


async def test_any_other_failure_of_a_claim_ends_the_worker() -> None:
    with pytest.raises(RuntimeError, match="odd"):
        await rounds(Work(fails={"claim": RuntimeError("odd")})).run(nullcontext(ChangeSignal()))


async def test_a_full_worker_goes_on_as_soon_as_one_item_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a round that nothing asked for comes in an hour."""
    monkeypatch.setattr(module, "IDLE", 3600.0)
    work = Work(["a", "b", "c"], go={"a": asyncio.Event(), "b": asyncio.Event()})
    task = asyncio.create_task(rounds(work).run(nullcontext(ChangeSignal())))
    await work.until_begun("a", "b")
    assert work.begun == ["a", "b"]
    work.go["a"].set()
    await work.until_begun("c")
    await stop(task)


async def test_an_item_may_unblock_others_although_there_was_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", 3600.0)
    work = Work(["key"], go={"key": asyncio.Event()})
    task = asyncio.create_task(rounds(work, 4, unblocks=lambda item: item == "key").run(nullcontext(ChangeSignal())))
    await work.until_begun("key")
    work.due = ["locked"]
    work.go["key"].set()
    await work.until_begun("locked")
    await stop(task)


async def test_a_change_during_a_round_is_not_slept_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", 3600.0)
    work, signal = Work(), ChangeSignal()
    real = work.claim

    async def claim(room: int) -> Claim[str]:
        found = await real(room)
        if not work.begun and not work.due:
            work.due = ["late"]
            signal.set()
        return found

    monkeypatch.setattr(work, "claim", claim)
    task = asyncio.create_task(rounds(work).run(nullcontext(signal)))
    await work.until_begun("late")
    await stop(task)


async def test_a_worker_that_stops_leaves_nothing_under_way() -> None:
    work = Work(["a", "b"], go={"a": asyncio.Event(), "b": asyncio.Event()})
    loop = rounds(work)
    task = asyncio.create_task(loop.run(nullcontext(ChangeSignal())))
    await work.until_begun("a", "b")
    under_way = list(loop.under_way)
    await stop(task)
    assert all(each.cancelled() for each in under_way)
    assert not loop.under_way
