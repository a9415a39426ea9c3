"""A deadline ends what takes too long, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from receiver.runtime.deadline import Deadline

SOON = 0.02
BOUND = 5.0
LONG = 3600.0


async def overrun(first: float, then: float | None = None) -> None:
    """Wait for what never comes; `then` is seconds from now, to which the deadline is moved."""
    async with asyncio.timeout(BOUND):
        with Deadline(first) as deadline:
            if then is not None:
                deadline.move(asyncio.get_running_loop().time() + then)
            await asyncio.Event().wait()


async def test_what_takes_too_long_is_cancelled() -> None:
    """It ends as `TimeoutError`, and the task goes on as if it had not been cancelled."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await overrun(SOON)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert asyncio.get_running_loop().time() - began < BOUND


@pytest.mark.parametrize(("first", "then"), [(SOON, SOON * 4), (LONG, SOON)])
async def test_a_deadline_is_moved(first: float, then: float) -> None:
    """Later, past the time that its timer was set to; or earlier."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await overrun(first, then)
    assert then <= loop.time() - began < BOUND


async def test_who_is_in_time_is_left_alone() -> None:
    """Also when the time comes after the end."""
    with Deadline(SOON):
        await asyncio.sleep(0)
    await asyncio.sleep(SOON * 2)


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    """Before the deadline, and after it."""
    begun = asyncio.Event()

    async def work() -> None:
        with Deadline(LONG):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_in_time_is_not_touched() -> None:
    """Whatever it is."""
    with pytest.raises(ValueError, match="own"), Deadline(LONG):
        raise ValueError("own")


async def test_both_at_once_is_a_cancellation() -> None:
    """Who was cancelled by others while the deadline passed is cancelled."""
    task: asyncio.Task[None]

    async def work() -> None:
        with Deadline(SOON) as deadline:
            task.cancel()
            deadline._expired = 1
            task.cancel()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_that_is_swallowed_is_said_again() -> None:
    """The task has as many cancellations afterwards as before."""

    async def goes_on() -> None:
        with Deadline(SOON):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.Event().wait()

    async with asyncio.timeout(BOUND):
        with pytest.raises(TimeoutError):
            await goes_on()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_machine_that_stood_still_costs_no_deadline() -> None:
    """What `asyncio.wait_for` waited for is done in the turn in which the deadline is over."""
    loop = asyncio.get_running_loop()

    async def send() -> None:
        pass

    async def exchange() -> None:
        with Deadline(SOON):
            loop.call_soon(time.sleep, SOON * 2)
            await asyncio.wait_for(send(), LONG)
            await asyncio.Event().wait()

    async with asyncio.timeout(BOUND):
        with pytest.raises(TimeoutError):
            await exchange()


def test_it_is_for_a_task() -> None:
    """Outside of one there is nothing to cancel."""
    with pytest.raises(RuntimeError):
        Deadline(SOON)
