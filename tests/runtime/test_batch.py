"""Steps that are submitted in one turn of the loop run together."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from weakref import ref

import pytest

from receiver.errors import Malformed
from receiver.runtime.batch import Batch, SharedCall


async def test_steps_of_one_turn_run_one_after_the_other_in_the_next() -> None:
    batch, order = Batch[int](), list[str]()

    def step(number: int) -> int:
        order.append(f"step {number}")
        return number

    async def one(number: int) -> int:
        found = await batch.run(lambda: step(number))
        order.append(f"end {number}")
        return found

    assert [*await asyncio.gather(one(1), one(2), one(3))] == [1, 2, 3]
    assert order == ["step 1", "step 2", "step 3", "end 1", "end 2", "end 3"]


async def test_a_step_runs_in_the_context_of_its_caller() -> None:
    batch, name = Batch[str](), ContextVar[str]("name")

    async def one(mine: str) -> str:
        name.set(mine)
        return await batch.run(name.get)

    assert [*await asyncio.gather(one("first"), one("second"))] == ["first", "second"]


async def test_an_error_is_that_of_its_own_caller() -> None:
    batch = Batch[int]()

    def broken() -> int:
        raise Malformed("No.", reason="bad_type")

    good, bad, last = batch.run(lambda: 1), batch.run(broken), batch.run(lambda: 3)
    assert (await good, await last) == (1, 3)
    with pytest.raises(Malformed) as caught:
        await bad
    assert caught.value.reason == "bad_type"


async def test_a_step_whose_caller_is_gone_does_not_run() -> None:
    batch, ran = Batch[None](), list[int]()
    tasks = [batch.run(partial(ran.append, number)) for number in range(3)]
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ran == [0, 2]


async def test_a_step_that_is_submitted_by_a_step_runs_in_the_turn_after_it() -> None:
    batch, order = Batch[None](), list[str]()

    def first() -> None:
        batch.run(lambda: order.append("later"))
        order.append("first")

    await asyncio.gather(batch.run(first), batch.run(lambda: order.append("second")))
    await asyncio.sleep(0)
    assert order == ["first", "second", "later"]


async def test_what_a_failed_step_read_is_freed_at_once() -> None:
    class Body:
        """What a step reads."""

    def broken(read: Body) -> None:
        raise Malformed(f"Not {read}.", reason="bad_type")

    async def one(read: Body) -> None:
        with suppress(Malformed):
            await batch.run(partial(broken, read))

    batch, bodies = Batch[None](), [Body(), Body()]
    freed = [ref(body) for body in bodies]
    gc.disable()
    try:
        tasks = [asyncio.ensure_future(one(bodies.pop())) for _ in range(2)]
        await asyncio.wait(tasks)
        tasks.clear()
        assert [each() for each in freed] == [None, None]
    finally:
        gc.enable()


WORD = ContextVar("WORD", default="none")


async def test_items_of_one_turn_share_one_call_in_an_empty_context() -> None:
    """What comes while it is under way is in the next one."""
    calls, go = list[tuple[list[int], str]](), asyncio.Event()

    async def call(items: Sequence[int]) -> list[int]:
        calls.append(([*items], WORD.get()))
        await go.wait()
        return [10 * each for each in items]

    WORD.set("caller")
    shared = SharedCall(call)
    first = [shared.run(1), shared.run(2)]
    await asyncio.sleep(0)
    later = shared.run(3)
    await asyncio.sleep(0)
    assert calls == [([1, 2], "none"), ([3], "none")]
    go.set()
    assert await asyncio.gather(*first, later) == [10, 20, 30]


async def test_a_caller_that_is_gone_takes_no_result_from_another() -> None:
    async def call(items: Sequence[int]) -> list[int]:
        await asyncio.sleep(0)
        return [10 * each for each in items]

    shared = SharedCall(call)
    gone, before_the_end, stays = shared.run(1), shared.run(2), shared.run(3)
    gone.cancel()
    await asyncio.sleep(0)
    before_the_end.cancel()
    assert await stays == 30


@pytest.mark.parametrize("results", [None, [], [1], [1, 2, 3]])
async def test_every_caller_gets_the_error_of_a_call_that_fails_or_misses_an_answer(
    results: list[int] | None,
) -> None:
    async def call(_: Sequence[int]) -> list[int]:
        if results is None:
            raise ValueError
        return results

    shared = SharedCall(call)
    callers = [shared.run(1), shared.run(2)]
    found = await asyncio.wait_for(asyncio.gather(*callers, return_exceptions=True), 5)
    assert [type(each) for each in found] == [ValueError, ValueError]


async def test_what_a_failed_shared_call_was_given_is_freed_at_once() -> None:
    class Outcome:
        """What is written by the call."""

    async def fails(items: Sequence[Outcome]) -> Sequence[None]:
        raise Malformed(f"Not {len(items)}.", reason="bad_type")

    async def one(outcome: Outcome) -> None:
        with suppress(Malformed):
            await shared.run(outcome)

    shared, outcomes = SharedCall[Outcome, None](fails), [Outcome(), Outcome()]
    freed = [ref(outcome) for outcome in outcomes]
    gc.disable()
    try:
        tasks = [asyncio.ensure_future(one(outcomes.pop())) for _ in range(2)]
        await asyncio.wait(tasks)
        tasks.clear()
        await asyncio.sleep(0)
        assert [each() for each in freed] == [None, None]
    finally:
        gc.enable()
