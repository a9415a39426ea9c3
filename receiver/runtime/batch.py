"""Edge: asyncio. Runs the same step of many requests back to back, and combines the calls of many into one.

A notification passes through code that is larger than a processor's first caches. When the same step of all
notifications of a turn runs back to back, its code is loaded once. Verifying sixteen at a time takes a fifth less
time than verifying each when it arrives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from typing import Generic, TypeVar

from receiver.runtime.loop import running_loop

T = TypeVar("T")
Item = TypeVar("Item")


class Batch(Generic[T]):
    """Runs all steps that were submitted in one turn of the event loop back to back, in the next turn."""

    def __init__(self) -> None:
        self._waiting = deque[tuple[asyncio.Future[T], Context, Callable[[], T]]]()

    def run(self, step: Callable[[], T]) -> asyncio.Future[T]:
        """The future result of the step, or its exception. The step runs in the caller's context, so its log lines have
        the caller's values. If the caller is cancelled before then, so is the step."""
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
            # The error's traceback refers to this frame. If the frame kept the result, they would form a cycle, and
            # everything that the step has read would stay in memory until a garbage collection.
            del result, context, step


class SharedCall(Generic[Item, T]):
    """One call for all items of one turn of the event loop. It runs in an empty context, because it belongs to no
    single item."""

    def __init__(self, call: Callable[[Sequence[Item]], Awaitable[Sequence[T]]]) -> None:
        self._call = call
        self._waiting: list[tuple[Item, asyncio.Future[T]]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    def run(self, item: Item) -> asyncio.Future[T]:
        """The item's part of the result, or the exception of the call."""
        loop = running_loop()
        if not self._waiting:
            task = loop.create_task(self._flush(), context=Context())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        self._waiting.append((item, result := loop.create_future()))
        return result

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            results = await self._call([item for item, _ in waiting])
            answers = [*zip(waiting, results, strict=True)]
        except Exception as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            del waiting, future  # The error's traceback has this frame, as in `Batch`.
        else:
            for (_, future), result in answers:
                if not future.done():
                    future.set_result(result)
