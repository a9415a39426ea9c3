"""Command. The signals that end a command in order: SIGINT (Ctrl-C), SIGTERM, and SIGHUP (the terminal was closed).

`serve` and `work` read their settings again at SIGHUP, as daemons do, unless their terminal was closed.

A shell starts background jobs with SIGINT ignored, and `nohup` starts its command with SIGHUP ignored. What runs until
it is stopped (`serve`, `work`, `simulate`, `demo --keep`) listens to SIGINT all the same, as a supervisor may send it.
An ignored SIGHUP stays ignored: that is what `nohup` is for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Terminated(Exception):
    """SIGTERM or SIGHUP ended the command. `exit_code` is what shells report for such a command."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def at_signal(hung_up: Callable[[], None] | None = None) -> asyncio.Event:
    """Set at the first signal. A second one of the same number ends the process at once.

    With `hung_up`, SIGHUP calls it instead, each time, while the terminal that the command was started at is there.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    had_terminal = _has_terminal()

    def stop(number: int) -> None:
        if number == signal.SIGHUP and hung_up is not None and _has_terminal() == had_terminal:
            hung_up()
            return
        loop.remove_signal_handler(number)
        stopped.set()

    for number in (signal.SIGINT, *_terminating()):
        loop.add_signal_handler(number, stop, number)
    return stopped


def _has_terminal() -> bool:
    """Whether there is a controlling terminal: `/dev/tty` can be opened. Not after it was closed (`tty(4)`)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def in_order(work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which SIGTERM and SIGHUP cancel as Ctrl-C does: what it started is stopped.

    Raises `Terminated` then.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def terminate(number: int) -> None:
        received.append(number)
        task.cancel()

    numbers = _terminating()
    for number in numbers:
        loop.add_signal_handler(number, terminate, number)
    try:
        return await task
    except asyncio.CancelledError:
        if received:
            raise Terminated(received[0]) from None
        raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _terminating() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP unless it is ignored; none in a thread, where no handler can be set."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [signal.SIGTERM, *([] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP])]
