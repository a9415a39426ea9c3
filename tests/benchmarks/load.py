"""A load generator: as little as possible between the measured server and the numbers."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from time import perf_counter
from typing import cast

RETRY = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
END = b"\r\n\r\n"


def request(path: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    """A whole HTTP/1.1 request; `headers` are lines."""
    lines = [f"{method} {path} HTTP/1.1", "Host: benchmark", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + END + body


@dataclass(slots=True)
class Result:
    """The result of one run. Times are seconds."""

    seconds: float = 0.0
    took: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Status → the time of each such answer."""

    @property
    def statuses(self) -> Counter[int]:
        """How many answers of each status."""
        return Counter({status: len(times) for status, times in self.took.items()})

    @property
    def times(self) -> list[float]:
        """Of all answers."""
        return [each for times in self.took.values() for each in times]

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return len(self.times) / self.seconds

    def quantile(self, part: float, status: int | None = None) -> float:
        """The time within which that part of the answers came, ms; of all answers, or of those of one status."""
        ordered = sorted(self.times if status is None else self.took[status])
        return ordered[min(int(part * len(ordered)), len(ordered) - 1)] * 1000


class Line(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, done: Callable[[Line, int], None], lost: Callable[[Line], None]) -> None:
        self._done, self._lost = done, lost
        self._held = b""
        self._transport: asyncio.Transport | None = None
        self.began = 0.0
        self._asked = False
        self.unanswered = b""
        self.rest = 0.0
        """Seconds for which the last answer asked to be left alone."""

    @property
    def gone(self) -> bool:
        """Whether it is closed."""
        return self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = cast(asyncio.Transport, transport)

    def send(self, whole: bytes, began: float) -> None:
        """Ask; `began` is when it was due."""
        if self._transport is None:
            raise RuntimeError("There is no connection.")
        self.began, self._asked, self.unanswered = began, True, whole
        self._transport.write(whole)

    def data_received(self, data: bytes) -> None:
        """A piece of the answer. A connection over the limit gets its answer before it sends a request, and is
        closed: no request was answered."""
        if not self._asked:
            return
        self._held += data
        head = self._held.find(END)
        if head < 0:
            return
        found = LENGTH.search(self._held, 0, head)
        if len(self._held) >= head + 4 + (int(found[1]) if found else 0):
            status = int(self._held[9:12])
            later = RETRY.search(self._held, 0, head + 2) if status == 503 else None
            self.rest = float(later[1]) if later else 0.0
            self._held, self._asked, self.unanswered = b"", False, b""
            self._done(self, status)

    def connection_lost(self, exc: Exception | None) -> None:
        """Either side closed it."""
        self._transport = None
        self._lost(self)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


async def _lines(
    port: int, count: int, done: Callable[[Line, int], None], lost: Callable[[Line], None] = lambda _: None
) -> list[Line]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: Line(done, lost), "127.0.0.1", port))[1] for _ in range(count)]


async def closed(port: int, requests: Iterator[bytes], seconds: float, lines: int = 64) -> Result:
    """As fast as possible: each connection sends its next request as soon as it has an answer."""
    result, over = Result(), asyncio.Event()
    began = perf_counter()
    end = began + seconds

    def done(line: Line, status: int) -> None:
        now = perf_counter()
        result.took[status].append(now - line.began)
        whole = next(requests, None) if now < end else None
        if whole is None:
            result.seconds = result.seconds or now - began
            over.set()
        else:
            line.send(whole, now)

    found = await _lines(port, lines, done)
    began = perf_counter()
    end = began + seconds
    for line in found:
        line.send(next(requests), began)
    await asyncio.wait_for(over.wait(), seconds + 30)
    for line in found:
        line.close()
    return result


class Crowd:
    """The connections of an open loop. A closed one is opened again and its request is repeated, as every client does,
    since a server may close a connection at any moment.

    `heed`: after a 503, a connection is not used until its `Retry-After` has passed.
    """

    def __init__(self, port: int, requests: Iterator[bytes], result: Result, *, heed: bool) -> None:
        self._port, self._requests, self._result, self._heed = port, requests, result, heed
        self._lines: set[Line] = set()
        self._free: deque[Line] = deque()
        self._waiting: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False
        self._answered, self._awaited, self._all = 0, -1, asyncio.Event()

    async def open(self, count: int) -> None:
        """Open this many more."""
        for line in await _lines(self._port, count, self._done, self._lost):
            self._lines.add(line)
            self._give_back(line)

    def ask(self, due: float) -> None:
        """Send the next request, as soon as a connection is free."""
        while self._free:
            line = self._free.popleft()
            if not line.gone:
                line.send(next(self._requests), due)
                return
        self._waiting.append(due)

    async def all_answered(self, count: int) -> None:
        """Wait for this many answers."""
        if self._answered < count:
            self._awaited = count
            await self._all.wait()

    async def close(self) -> None:
        """Hang up."""
        self._over = True
        await asyncio.gather(*self._tasks)
        for line in list(self._lines):
            line.close()

    def _done(self, line: Line, status: int) -> None:
        self._result.took[status].append(perf_counter() - line.began)
        self._answered += 1
        if self._answered == self._awaited:
            self._all.set()
        if self._heed and line.rest:
            asyncio.get_running_loop().call_later(line.rest, self._give_back, line)
        else:
            self._give_back(line)

    def _give_back(self, line: Line) -> None:
        if line.gone:
            return
        if self._waiting:
            line.send(next(self._requests), self._waiting.popleft())
        else:
            self._free.append(line)

    def _lost(self, line: Line) -> None:
        self._lines.discard(line)
        if line.unanswered and not self._over:
            self._requests = chain([line.unanswered], self._requests)
            self._waiting.appendleft(line.began)
        if not self._over:
            task = asyncio.get_running_loop().create_task(self.open(1))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def opened(
    port: int, requests: Iterator[bytes], seconds: float, rate: float, lines: int = 64, *, heed: bool = False
) -> Result:
    """At a fixed rate, however long the answers take. The time of a request counts from when it was due. `heed`: see
    `Crowd`.

    Raises `TimeoutError` where an answer is not there 30 s after the last request was due.
    """
    result, total, asked = Result(), int(seconds * rate), 0
    crowd = Crowd(port, requests, result, heed=heed)
    await crowd.open(lines)
    began = perf_counter()
    while asked < total:
        due = min(int((perf_counter() - began) * rate) + 1, total)
        while asked < due:
            crowd.ask(began + asked / rate)
            asked += 1
        await asyncio.sleep(max(began + asked / rate - perf_counter(), 0))
    async with asyncio.timeout(30):
        await crowd.all_answered(total)
    result.seconds = perf_counter() - began
    await crowd.close()
    return result
