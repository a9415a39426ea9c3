"""Edge: asyncio. A fair queue for fetches that strangers can trigger: no source can delay another.

The source that has used the fetcher least goes first; among equals, the one that asked last. So a source that asks once
is served at once, however many requests others have made. Everything is bounded: parallel fetches and fetches per
second, in total and per source, and the number of waiters. A fetch can run on while its place is not needed; otherwise
it is guaranteed `GUARANTEED` seconds.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar, cast

from receiver.errors import CertificateUnavailable
from receiver.runtime.shares import Shares

AT_ONCE, AT_ONCE_OF_ONE = 40, 8
"""Parallel fetches: in total, and for one source."""
PER_SECOND, BURST = 25.0, 25.0
QUEUED_OF_ONE = 8
"""Fetches that one source can have queued. Further ones are refused."""
MOST_WAITING = 512
"""Messages that wait for a fetch. For a further one, the source with the most waiting messages loses one."""
GUARANTEED = 1.5
LOOK_EVERY = 0.05
"""Seconds between two checks whether a fetch must yield its place."""
LEAST_COST = 0.05
"""Minimum seconds of use counted for one fetch."""
FORGET = 60.0
"""Seconds after which past use has decayed to 1/e."""
MOST_SOURCES = 4096
"""Sources whose use is remembered. The least recently used is forgotten first."""

K = TypeVar("K")
V = TypeVar("V")


class QueueFull(CertificateUnavailable):
    """Too many certificate files that have never been seen before."""

    reason = "certificate_too_many"
    retry_after = 10


class Stopping(CertificateUnavailable):
    """The service is stopping and fetches no more certificates."""

    reason = "stopping"
    retry_after = 5


class _Job(Generic[V]):
    """One fetch, shared by all who want the same file. `sources` are those that have queued it."""

    def __init__(self, key: object, fetch: Callable[[], Coroutine[object, object, V]]) -> None:
        self.key, self.fetch = key, fetch
        self.outcome: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self.sources: set[str] = set()
        self.waiting = 0
        self.task: asyncio.Task[V] | None = None
        self.payer, self.began = "", 0.0


class FetchQueue(Generic[K, V]):
    """Fetches by key. `timer` is a monotonic clock in seconds."""

    def __init__(self, timer: Callable[[], float] | None = None) -> None:
        self._timer = timer or (lambda: asyncio.get_running_loop().time())
        self._jobs: dict[K, _Job[V]] = {}
        self._queues: dict[str, deque[_Job[V]]] = {}
        self._running: dict[_Job[V], None] = {}
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Source → seconds of use, and the time of that value."""
        self._seats = Shares[asyncio.Future[None]](MOST_WAITING)
        self._tokens, self._at = BURST, -math.inf
        self._next: asyncio.TimerHandle | None = None
        self._refusing = False

    @property
    def waiting(self) -> int:
        return self._seats.total

    async def get(self, source: str, key: K, fetch: Callable[[], Coroutine[object, object, V]], patience: float) -> V:
        """The result of `fetch`, which must not raise. Concurrent callers with the same key share one fetch.

        Raises `QueueFull`, `Stopping` after `refuse`, or `TimeoutError` after `patience` seconds or if the fetch was
        cancelled in favour of others.
        """
        if self._refusing:
            raise Stopping
        seat = self._sit(source)
        job = None
        try:
            job = self._join(source, key, fetch)
            job.waiting += 1
            self._advance()
            # `wait` does not cancel the fetch when this waiter is cancelled.
            await asyncio.wait((job.outcome, seat), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if job.outcome.done() and not job.outcome.cancelled():
                return job.outcome.result()
            if self._refusing:
                raise Stopping
            raise QueueFull if seat.done() else TimeoutError
        finally:
            self._seats.remove(source, seat)
            if job is not None:
                job.waiting -= 1
                self._drop_unwanted(key, job)

    def refuse(self) -> None:
        """Refuse all who wait, now or later. Fetches in progress continue until `close`."""
        self._refusing = True
        for seat in self._seats.holders():
            if not seat.done():
                seat.set_result(None)

    async def close(self) -> None:
        """Cancel all fetches."""
        tasks = [job.task for job in self._running if job.task is not None]
        if self._next is not None:
            self._next.cancel()
        self._queues.clear()
        for job in self._jobs.values():
            job.outcome.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _sit(self, source: str) -> asyncio.Future[None]:
        seat: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._seats.fits(1):
            found = self._seats.greediest(source)
            if found is None:
                raise QueueFull
            self._seats.remove(*found)
            found[1].set_result(None)
        self._seats.add(source, seat)
        return seat

    def _join(self, source: str, key: K, fetch: Callable[[], Coroutine[object, object, V]]) -> _Job[V]:
        job = self._jobs.get(key)
        if job is not None and job.task is not None:
            return job
        queue = self._queues.pop(source, None) or deque()
        try:
            if job is None or source not in job.sources:
                if len(queue) >= QUEUED_OF_ONE:
                    raise QueueFull
                job = self._jobs.setdefault(key, job or _Job(key, fetch))
                job.sources.add(source)
                queue.append(job)
        finally:
            # The source that asked last is at the end, so it goes first among its equals.
            self._queues[source] = queue
        return job

    def _drop_unwanted(self, key: K, job: _Job[V]) -> None:
        """Drop a fetch that has no waiters left, unless it is running."""
        if job.waiting or job.task is not None or self._jobs.get(key) is not job:
            return
        del self._jobs[key]
        for source in job.sources:
            self._unqueue(source, job)

    def _unqueue(self, source: str, job: _Job[V]) -> None:
        queue = self._queues.get(source)
        if queue is not None and job in queue:
            queue.remove(job)
            if not queue:
                del self._queues[source]

    def _advance(self) -> None:
        """Start the fetches that may start, and schedule a call for when more may."""
        while self._queues:
            if (wait := self._wait_for_token()) > 0:
                self._come_back(wait)
                return
            source = self._first()
            if source is None:
                self._come_back(LOOK_EVERY)
                return
            self._tokens -= 1
            self._begin(source, self._queues[source][0])

    def _come_back(self, seconds: float) -> None:
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._next = None
        if self._queues and self._first() is None:
            self._end_longest()
        self._advance()

    def _first(self) -> str | None:
        """The source whose turn it is; None if there is no free place."""
        if len(self._running) >= AT_ONCE:
            return None
        of_one: dict[str, int] = {}
        for job in self._running:
            of_one[job.payer] = of_one.get(job.payer, 0) + 1
        free = [source for source in reversed(self._queues) if of_one.get(source, 0) < AT_ONCE_OF_ONE]
        return min(free, key=self._use_of, default=None)

    def _begin(self, source: str, job: _Job[V]) -> None:
        for each in job.sources:
            self._unqueue(each, job)
        job.payer, job.began = source, self._timer()
        job.task = asyncio.get_running_loop().create_task(job.fetch())
        self._running[job] = None
        job.task.add_done_callback(lambda task: self._ended(job, task))

    def _ended(self, job: _Job[V], task: asyncio.Task[V]) -> None:
        self._running.pop(job, None)
        if self._jobs.get(key := cast(K, job.key)) is job:
            del self._jobs[key]
        self._charge(job.payer, max(LEAST_COST, self._timer() - job.began))
        if not job.outcome.done():
            if task.cancelled():
                job.outcome.cancel()
            else:
                job.outcome.set_result(task.result())
        self._advance()

    def _end_longest(self) -> None:
        """Cancel a fetch past its guaranteed time, of the source with the most use, for a source with less use.

        If places are free, but not for the waiting sources, cancel a fetch of one of these sources.
        """
        now, full = self._timer(), len(self._running) >= AT_ONCE
        blocking = [job for job in self._running if full or job.payer in self._queues]
        past = [job for job in blocking if now - job.began >= GUARANTEED]
        worst = max(past, key=lambda job: self._use_of(job.payer) + now - job.began, default=None)
        if worst is None or worst.task is None:
            return
        if self._use_of(worst.payer) + now - worst.began >= min(self._use_of(source) for source in self._queues):
            worst.task.cancel()

    def _wait_for_token(self) -> float:
        now = self._timer()
        self._tokens = min(BURST, self._tokens + max(0.0, now - self._at) * PER_SECOND)
        self._at = now
        return (1 - self._tokens) / PER_SECOND

    def _use_of(self, source: str) -> float:
        used, at = self._used.get(source, (0.0, 0.0))
        return used * math.exp((at - self._timer()) / FORGET) if used else 0.0

    def _charge(self, source: str, seconds: float) -> None:
        self._used[source] = (self._use_of(source) + seconds, self._timer())
        self._used.move_to_end(source)
        while len(self._used) > MOST_SOURCES:
            self._used.popitem(last=False)
