"""A load generator: as little as possible between the measured server and the numbers."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
END = b"\r\n\r\n"


def request(path: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    """A whole HTTP/1.1 request; `headers` are lines."""
    lines = [f"{method} {path} HTTP/1.1", "Host: benchmark", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + END + body


@dataclass(slots=True)
class Result:
    """What one run came to. Times are seconds."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return len(self.times) / self.seconds

    def quantile(self, part: float) -> float:
        """The time within which that part of the answers came, ms."""
        ordered = sorted(self.times)
        return ordered[min(int(part * len(ordered)), len(ordered) - 1)] * 1000


class Line(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, done: Callable[[Line, int], None]) -> None:
        self._done = done
        self._held = b""
        self._transport: asyncio.Transport | None = None
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = cast(asyncio.Transport, transport)

    def send(self, whole: bytes, began: float) -> None:
        """Ask; `began` is when it was due."""
        if self._transport is None:
            raise RuntimeError("There is no connection.")
        self.began = began
        self._transport.write(whole)

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        self._held += data
        head = self._held.find(END)
        if head < 0:
            return
        found = LENGTH.search(self._held, 0, head)
        if len(self._held) >= head + 4 + (int(found[1]) if found else 0):
            status, self._held = int(self._held[9:12]), b""
            self._done(self, status)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


async def _lines(port: int, count: int, done: Callable[[Line, int], None]) -> list[Line]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: Line(done), "127.0.0.1", port))[1] for _ in range(count)]


async def closed(port: int, requests: Iterator[bytes], seconds: float, lines: int = 64) -> Result:
    """As fast as it goes: each connection asks again as soon as it has its answer."""
    result, over = Result(), asyncio.Event()
    began = perf_counter()
    end = began + seconds

    def done(line: Line, status: int) -> None:
        now = perf_counter()
        result.statuses[status] += 1
        result.times.append(now - line.began)
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


async def opened(port: int, requests: Iterator[bytes], seconds: float, rate: float, lines: int = 64) -> Result:
    """At a fixed rate, whatever the answers take: a time runs from when the request was due."""
    result = Result()
    free: deque[Line] = deque()
    waiting: deque[float] = deque()
    total, over = int(seconds * rate), asyncio.Event()

    def done(line: Line, status: int) -> None:
        result.statuses[status] += 1
        result.times.append(perf_counter() - line.began)
        if len(result.times) == total:
            over.set()
        if waiting:
            line.send(next(requests), waiting.popleft())
        else:
            free.append(line)

    found = await _lines(port, lines, done)
    free.extend(found)
    began = perf_counter()
    asked = 0
    while asked < total:
        due = min(int((perf_counter() - began) * rate) + 1, total)
        while asked < due:
            at = began + asked / rate
            asked += 1
            if free:
                free.popleft().send(next(requests), at)
            else:
                waiting.append(at)
        await asyncio.sleep(max(began + asked / rate - perf_counter(), 0))
    await asyncio.wait_for(over.wait(), 30)
    result.seconds = perf_counter() - began
    for line in found:
        line.close()
    return result
