"""Edge: asyncio. Steps of many requests, run one after the other.

A notification passes through code that is larger than a processor's first caches. When the same step of all
notifications of a turn runs back to back, its code is loaded once. Verifying sixteen at a time takes a fifth less
time than verifying each when it arrives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Generic, TypeVar

from receiver.runtime.loop import running_loop

T = TypeVar("T")


class Batch(Generic[T]):
    """Runs what was submitted in one turn of the event loop together, in the next."""

    def __init__(self) -> None:
        self._waiting = deque[tuple[asyncio.Future[T], Context, Callable[[], T]]]()

    def run(self, step: Callable[[], T]) -> asyncio.Future[T]:
        """Its result, or its exception. It runs in the caller's context, whose values its log lines have. A caller that
        is cancelled before then cancels the step."""
        loop = running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((result := loop.create_future(), copy_context(), step))
        return result

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        while waiting:
            result, context, step = waiting.popleft()
            if result.done():
                continue
            try:
                result.set_result(context.run(step))
            except Exception as error:
                result.set_exception(error)
            # The error's traceback has this frame. If the frame kept the result, they would refer to each other, and
            # all that the step read would wait for the garbage collector.
            del result, context, step
