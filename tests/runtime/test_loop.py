"""The running loop is found without asking the kernel."""

from __future__ import annotations

import asyncio
import os
from threading import Thread

import pytest

from receiver.runtime.loop import running_loop


async def test_it_is_the_loop_that_runs() -> None:
    assert running_loop() is running_loop() is asyncio.get_running_loop()


def test_without_a_loop_it_says_so() -> None:
    with pytest.raises(RuntimeError):
        running_loop()


def test_each_loop_of_a_thread_is_found_and_one_that_has_ended_is_not() -> None:
    async def found() -> asyncio.AbstractEventLoop:
        return running_loop()

    first, second = asyncio.run(found()), asyncio.run(found())
    assert first is not second
    with pytest.raises(RuntimeError):
        running_loop()


async def test_a_thread_has_not_the_loop_of_another() -> None:
    found = list[object]()

    async def inner() -> None:
        found.append(running_loop())

    def outer() -> None:
        with pytest.raises(RuntimeError):
            running_loop()
        asyncio.run(inner())

    running_loop()
    thread = Thread(target=outer)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert len(found) == 1
    assert found[0] is not running_loop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
async def test_a_child_does_not_run_the_loop_of_its_parent() -> None:
    running_loop()
    if (child := os.fork()) == 0:
        try:
            running_loop()
        except RuntimeError:
            os._exit(7)
        finally:
            os._exit(8)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
