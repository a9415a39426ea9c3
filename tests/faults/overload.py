"""Ten times as many requests as the machine can process, in an open loop: what is shed and how fast, what is still
done, and what it costs.

`python -m tests.faults overload --seconds 30`. The service is pinned to one core, the load and Redis to the other.
After a 503, a notification is sent again later, as by SNS; one that gets no connection waits.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from time import perf_counter
from typing import cast

import uvloop

from receiver.http.protocol import REST_SECONDS
from tests.benchmarks import load, mail
from tests.benchmarks.machine import configuration, cores, free_port, receiver, resident_mib, started, valkey

MOST_LINES = 1200
"""Connections of the senders; the service takes 1000."""
FACTOR = 10
LEAST_GOODPUT, MOST_SHED_MS, MOST_GROWTH, MOST_RECOVERY = 0.7, 50.0, 30.0, 2.0
"""What is good: the share of the most that is still done, the p99 of a refusal, MiB that memory may grow by, and
seconds until a new connection is served again."""
POSTS = 5_000
"""Distinct notifications. They are sent in turn, as often as the time allows."""
AFTER = 2.0
"""Seconds of modest load right after the flood."""


class Sender(asyncio.Protocol):
    """One connection of a sender, with at most one request under way."""

    def __init__(self, flood: Flood) -> None:
        self.flood = flood
        self.transport: asyncio.Transport | None = None
        self.held = b""
        self.whole = b""
        self.began = 0.0
        self.read_from = float("inf")
        """When the service reads from it again; it is not known when it accepts a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request for which it was opened."""
        self.transport = cast(asyncio.Transport, transport)
        self.send(self.whole)

    def send(self, whole: bytes) -> None:
        """Ask."""
        if self.transport is None or self.transport.is_closing():
            self.flood.waiting.append(whole)
        else:
            self.whole, self.began = whole, perf_counter()
            self.transport.write(whole)

    def data_received(self, data: bytes) -> None:
        """An answer has no body."""
        self.held += data
        if self.held.endswith(load.END):
            head, self.held = self.held, b""
            self.flood.answered(self, head)

    def connection_lost(self, exc: Exception | None) -> None:
        """The service has closed it."""
        self.transport = None
        self.flood.lost(self)


@dataclass
class Flood:
    """Requests due at a fixed rate, over at most so many connections."""

    port: int
    fresh: Iterator[bytes]
    rate: float
    seconds: float
    most: int
    lines: int = 0
    waiting: deque[bytes] = field(default_factory=deque)
    """Requests to send again."""
    free: list[Sender] = field(default_factory=list)
    senders: set[Sender] = field(default_factory=set)
    good: int = 0
    shed: list[float] = field(default_factory=list)
    """Seconds from sending to 503 on an accepted connection; of one that rests, from the end of its rest."""
    refused: int = 0
    closed: int = 0
    """Connections over the limit, closed with 503."""
    cut: int = 0
    """Requests whose connection ended without an answer."""
    others: Counter[int] = field(default_factory=Counter)
    without_time: int = 0
    """503 without Retry-After."""
    due: int = 0
    over: bool = False

    async def run(self) -> None:
        """Until the time is over."""
        loop, began, tasks = asyncio.get_running_loop(), perf_counter(), set[asyncio.Task[None]]()
        while (now := perf_counter() - began) < self.seconds:
            behind = int(now * self.rate) - self.due
            self.due += behind
            for _ in range(min(behind, self.most)):
                if self.free:
                    self.free.pop().send(self._next())
                elif self.lines < self.most:
                    self.lines += 1
                    task = loop.create_task(self._open(self._next()))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                else:
                    break
            await asyncio.sleep(0.001)
        self.over = True
        await asyncio.gather(*tasks)

    def _next(self) -> bytes:
        return self.waiting.popleft() if self.waiting else next(self.fresh)

    async def _open(self, whole: bytes) -> None:
        sender = Sender(self)
        sender.whole = whole
        self.senders.add(sender)
        try:
            await asyncio.get_running_loop().create_connection(lambda: sender, "127.0.0.1", self.port)
        except OSError:
            self.lost(sender)

    async def hang_up(self) -> None:
        """All at once."""
        for sender in list(self.senders):
            if sender.transport:
                sender.transport.abort()
        while self.senders:  # noqa: ASYNC110 - each goes when its loop comes round to it
            await asyncio.sleep(0.01)

    def answered(self, sender: Sender, head: bytes) -> None:
        """Count, and give the connection back."""
        if self.over:
            return
        status, lower = int(head[9:12]), head.lower()
        if status == 503:
            self.without_time += b"retry-after: " not in lower
            if b"connection: close" in lower:
                self.closed += 1
                self.waiting.append(sender.whole)
                sender.whole = b""
                return
            now = perf_counter()
            if sender.read_from < now:
                self.shed.append(now - max(sender.began, sender.read_from))
            self.refused += 1
            sender.read_from = now + REST_SECONDS
            self.waiting.append(sender.whole)
        elif status == 200:
            self.good += 1
            sender.read_from = 0.0
        else:
            self.others[status] += 1
        sender.whole = b""
        self.free.append(sender)

    def lost(self, sender: Sender) -> None:
        """What it carried is to be sent again."""
        self.lines -= 1
        self.senders.discard(sender)
        if sender in self.free:
            self.free.remove(sender)
        elif not self.over and sender.whole:
            self.cut += 1
            self.waiting.append(sender.whole)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a flood. Rates are per second, times ms."""

    most: float
    rate: float
    goodput: float
    shed: int
    shed_p50: float
    shed_p99: float
    """As a sender sees it, from when its connection is read."""
    closed: int
    cut: int
    others: dict[int, int]
    without_time: int
    memory: tuple[float, float, float]
    """MiB before, at the end, and after."""
    after: load.Result
    recovered: float
    """Seconds from the end of the flood until `/readyz` answers 200 on a new connection."""

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        kept = self.goodput >= LEAST_GOODPUT * self.most and self.shed_p99 <= MOST_SHED_MS
        right = (
            not self.others
            and not self.without_time
            and set(self.after.statuses) == {200}
            and self.recovered <= MOST_RECOVERY
        )
        return kept and right and self.memory[2] - self.memory[0] < MOST_GROWTH

    def __str__(self) -> str:
        before, under, after = self.memory
        return (
            f"at most {self.most:.0f}/s; offered {self.rate:.0f}/s\n"
            f"goodput {self.goodput:.0f}/s = {self.goodput / self.most:.0%} of the most\n"
            f"shed {self.shed}, answered within {self.shed_p50:.1f} ms (p50), {self.shed_p99:.1f} ms (p99); "
            f"503 without Retry-After: {self.without_time}; other answers: {self.others}\n"
            f"connections over the limit closed with 503: {self.closed}; cut without an answer: {self.cut}\n"
            f"resident memory, MiB: {before:.0f} before, {under:.0f} under load, {after:.0f} after\n"
            f"right after: {dict(self.after.statuses)}, p99 {self.after.quantile(0.99):.1f} ms; "
            f"/readyz 200 after {self.recovered:.2f} s"
        )


def run(seconds: float, lines: int = MOST_LINES, warm: float = 3.0, *, limits: str = "", calm: int = 64) -> Outcome:
    """Measure how many requests the machine can process, offer ten times as many, and observe the effects.

    `lines`: connections of the senders; `calm`: those over which the most is measured. `limits`: more of the settings.
    """
    measured, rest = cores()
    at = mail.now()
    sns = mail.signer(at)
    mine = os.sched_getaffinity(0)
    with ExitStack() as stack:
        url, folder = stack.enter_context(valkey(rest))
        port = free_port()
        config = configuration(folder, url, port, sns)
        config.write_text(config.read_text().replace(f"port = {port}", f"port = {port}\n{limits}"))
        command = receiver("serve", "--config", str(config), "--no-worker")
        process = stack.enter_context(started(command, port, folder / "service.log", measured))
        posts = cycle(mail.sign_many(at, 0, POSTS))
        stack.callback(os.sched_setaffinity, 0, mine)
        os.sched_setaffinity(0, rest)
        return uvloop.run(_run(port, process.pid, posts, seconds, warm, lines, calm))


async def _run(
    port: int, pid: int, posts: Iterator[bytes], seconds: float, warm: float, lines: int, calm: int
) -> Outcome:
    await load.closed(port, posts, warm / 3, calm)
    before, most = resident_mib(pid), (await load.closed(port, posts, warm * 2 / 3, calm)).per_second
    flood = Flood(port, posts, most * FACTOR, seconds, lines)
    await flood.run()
    under = resident_mib(pid)
    await flood.hang_up()
    recovered = await recovery(port)
    rest = await load.opened(port, posts, AFTER, most * 0.3, calm)
    shed = sorted(flood.shed)
    return Outcome(
        most=most,
        rate=most * FACTOR,
        goodput=flood.good / seconds,
        shed=flood.refused,
        shed_p50=part(shed, 0.5) * 1000,
        shed_p99=part(shed, 0.99) * 1000,
        closed=flood.closed,
        cut=flood.cut,
        others=dict(flood.others),
        without_time=flood.without_time,
        memory=(before, under, resident_mib(pid)),
        after=rest,
        recovered=recovered,
    )


async def recovery(port: int) -> float:
    """Seconds until the service is ready for a stranger; raises `TimeoutError` after 30."""
    began = perf_counter()
    async with asyncio.timeout(30):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(load.request("/readyz", method="GET"))
                if (await reader.read(12)).endswith(b" 200"):
                    return perf_counter() - began
            except ConnectionError:
                pass
            finally:
                writer.close()
            await asyncio.sleep(0.01)


def part(ordered: list[float], share: float) -> float:
    """The value that so large a share does not exceed; 0 of nothing."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
