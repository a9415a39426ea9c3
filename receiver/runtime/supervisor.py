"""Verb. The workers of one process: run until the process stops; one that fails is started again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from receiver.errors import Unavailable

log = structlog.get_logger()

RESTART_FIRST, RESTART_MOST = 0.5, 30.0
"""Seconds before a worker that failed is started again."""


class Workers:
    """All workers, by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failing: set[str] = set()

    def keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run it from now on."""
        self._tasks[name] = asyncio.get_running_loop().create_task(self._kept(name, work), name=name)

    async def _kept(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a worker, and start it again if it fails: a dead worker would go unnoticed."""
        clock, wait = asyncio.get_running_loop().time, RESTART_FIRST
        while True:
            began = clock()
            try:
                await work()
                return
            except Exception:
                if clock() - began > RESTART_MOST:
                    wait = RESTART_FIRST
                log.exception("worker.failed", worker=name, again_in_seconds=wait)
                self._failing.add(name)
                await asyncio.sleep(wait)
                self._failing.discard(name)
                wait = min(wait * 2, RESTART_MOST)

    async def stop(self) -> None:
        """End all of them. redis-py can swallow a cancellation on Python 3.11, so each is cancelled until it ends."""
        tasks = set(self._tasks.values())
        while tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=1.0)

    async def check(self) -> None:
        """Raise `Unavailable` (`workers_failing`) where one has failed and waits to be started again."""
        if self._failing:
            raise Unavailable(f"Failing: {', '.join(sorted(self._failing))}.", reason="workers_failing")

    def states(self) -> dict[str, str]:
        """Name → running, failing, or ended."""
        alive = {name: "ended" if task.done() else "running" for name, task in self._tasks.items()}
        return {**alive, **dict.fromkeys(self._failing, "failing")}
