"""Edge: asyncio. Deadlines that are cheap to set and to move. `asyncio.timeout` takes several times as long, and every
notification needs one.

All deadlines of a loop share one timer, which fires every `TICK` seconds. So a task may be cancelled that much late.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol

from receiver.runtime.loop import running_loop

AGAIN = 0.5
"""Seconds between repeated cancellations while the task continues."""
TICK = 0.25
"""Seconds between two checks of all deadlines."""


class Ticks(Protocol):
    """An object that waits for a time."""

    def tick(self, now: float) -> None:
        """Act if the time has come; `now` is by the loop's clock."""


class Ticker:
    """The timer of one loop. It stops while nothing waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: dict[Ticks, None] = {}
        self._rings = False

    def add(self, one: Ticks) -> None:
        """Call its `tick` every `TICK` seconds from now on."""
        self._waiting[one] = None
        if not self._rings:
            self._rings = True
            self.loop.call_later(TICK, self._ring)

    def remove(self, one: Ticks) -> None:
        """Stop calling it."""
        self._waiting.pop(one, None)

    def _ring(self) -> None:
        self._rings = bool(self._waiting)
        if self._rings:
            self.loop.call_later(TICK, self._ring)
            now = self.loop.time()
            for each in list(self._waiting):
                each.tick(now)


_latest: list[Ticker] = []


def ticker() -> Ticker:
    """The ticker of the running loop."""
    loop = running_loop()
    if not _latest or _latest[0].loop is not loop:
        _latest[:] = [Ticker(loop)]
    return _latest[0]


class Deadline:
    """Cancels the task that enters it after this many seconds, and then raises `TimeoutError`; used with a plain
    `with`.

    A cancellation from elsewhere stays a cancellation, as with `asyncio.timeout`. A task that continues is cancelled
    again every `AGAIN` seconds. This is needed because `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows
    a cancellation that comes in the turn in which it completes, and because all deadlines pass at once after the
    machine has been suspended.
    """

    __slots__ = ("_cancelling", "_end", "_expired", "_task", "_ticker")

    def __init__(self, seconds: float) -> None:
        self._ticker, self._expired = ticker(), 0
        task = asyncio.current_task(self._ticker.loop)
        if task is None:
            raise RuntimeError("A deadline needs a task.")
        self._task = task
        self._cancelling = task.cancelling()
        self._end = self._ticker.loop.time() + seconds

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop whose clock counts."""
        return self._ticker.loop

    def __enter__(self) -> Deadline:
        self._ticker.add(self)
        return self

    def move(self, end: float) -> None:
        """Move the deadline to `end`, by the loop's clock. A time in the past cancels the task at once."""
        self._end = end
        self.tick(self._ticker.loop.time())

    def tick(self, now: float) -> None:
        """Cancel the task if the deadline has passed."""
        if now >= self._end:
            self._expired += 1
            self._task.cancel()
            self._end = now + AGAIN

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ticker.remove(self)
        if self._expired:
            for _ in range(self._expired):
                self._task.uncancel()
            if self._task.cancelling() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error
