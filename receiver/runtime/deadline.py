"""Edge: asyncio. A deadline for what is under way. `asyncio.timeout` takes several times as long to set and
to move one, which every notification needs.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

AGAIN = 0.5
"""Seconds from one ring to the next, while the task goes on."""


class Deadline:
    """Cancels the task that enters it after so many seconds, and raises `TimeoutError` then; a plain `with`.

    A cancellation from elsewhere stays one, as with `asyncio.timeout`. A task that goes on is cancelled again every
    `AGAIN` seconds: `asyncio.wait_for` of Python 3.11, by which redis-py sends, swallows a cancellation that comes in
    the turn in which it is done, and all timers are due in one turn where the machine stood still for a while.
    """

    __slots__ = ("_cancelling", "_end", "_expired", "_loop", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("A deadline is for a task.")
        self._task, self._loop, self._expired = task, asyncio.get_running_loop(), 0
        self._cancelling = task.cancelling()
        self._end = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._end, self._ring)

    def __enter__(self) -> Deadline:
        return self

    def move(self, end: float) -> None:
        """The deadline is at `end` instead, by the loop's clock."""
        if end < self._end:
            self._timer.cancel()
            self._timer = self._loop.call_at(end, self._ring)
        self._end = end

    def _ring(self) -> None:
        if self._end > self._loop.time():
            self._timer = self._loop.call_at(self._end, self._ring)
            return
        self._expired += 1
        self._task.cancel()
        self._timer = self._loop.call_later(AGAIN, self._ring)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._expired:
            for _ in range(self._expired):
                self._task.uncancel()
            if self._task.cancelling() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error
