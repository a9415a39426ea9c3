"""Edge: asyncio. Steps of many requests, run one after the other.

A notification passes through code that is larger than a processor's first caches. When the same step of all
notifications of a turn runs back to back, its code is loaded once. Verifying sixteen at a time takes a fifth less
time than verifying each when it arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Generic, TypeVar

T = TypeVar("T")


class Batch(Generic[T]):
    """Runs all steps that were submitted in one turn of the event loop back to back, in the next turn."""

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Future[T], Context, Callable[[], T]]] = []

    def run(self, step: Callable[[], T]) -> asyncio.Future[T]:
        """The future result of the step, or its exception. The step runs in the caller's context, so its log lines have
        the caller's values. If the caller is cancelled before then, so is the step."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((result := loop.create_future(), copy_context(), step))
        return result

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for result, context, step in waiting:
            if result.done():
                continue
            try:
                result.set_result(context.run(step))
            except Exception as error:
                result.set_exception(error)
