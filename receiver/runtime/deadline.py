"""Edge: asyncio. A deadline that is cheap to set and to move. `asyncio.timeout` takes several times as long, and every
notification needs one."""

from __future__ import annotations

import asyncio
from types import TracebackType

AGAIN = 0.5
"""Seconds between repeated cancellations while the task continues."""


class Deadline:
    """Cancels the task that enters it after this many seconds, and then raises `TimeoutError`; used with a plain
    `with`.

    A cancellation from elsewhere stays a cancellation, as with `asyncio.timeout`. A task that continues is cancelled
    again every `AGAIN` seconds. This is needed because `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows
    a cancellation that comes in the turn in which it completes, and because all timers expire in one turn after the
    machine has been suspended.
    """

    __slots__ = ("_cancelling", "_end", "_expired", "_loop", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("A deadline needs a task.")
        self._task, self._loop, self._expired = task, asyncio.get_running_loop(), 0
        self._cancelling = task.cancelling()
        self._end = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._end, self._ring)

    def __enter__(self) -> Deadline:
        return self

    def move(self, end: float) -> None:
        """Move the deadline to `end`, by the loop's clock."""
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
