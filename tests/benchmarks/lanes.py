"""Twenty subscribers, four of them bad in different ways: do the healthy ones notice?

There are four kinds of events, equally frequent, and five subscribers to each kind, one of which is bad. So a hundred
events a second are five hundred deliveries.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter

import uvloop

from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Source
from receiver.outbox.events.event import event_id
from receiver.store import Store
from receiver.store.redis.pipeline import connect
from receiver.track.record import Recorder
from tests.benchmarks import mail
from tests.benchmarks.load import END, LENGTH
from tests.benchmarks.machine import configuration, cores, free_port, receiver, started, valkey
from tests.benchmarks.outgoing import DELIVERY, FACTS, subscriber
from tests.kit.accounts import make_account
from tests.kit.processes import until

LANES = 20
BAD = {"lane-00": "tarpit", "lane-01": "flood", "lane-02": "reset", "lane-03": "throttle"}
KINDS = (
    (
        "Declined",
        "AmazonRejected",
        EventType.DECLINED,
        'types = ["amazonpay.refund.declined"]\nreasons = ["AmazonRejected"]',
    ),
    (
        "Declined",
        "ProcessingFailure",
        EventType.DECLINED,
        'types = ["amazonpay.refund.declined"]\nreasons = ["ProcessingFailure"]',
    ),
    ("Refunded", "", EventType.REFUNDED, 'types = ["amazonpay.refund.refunded"]'),
    ("RefundInitiated", "", EventType.INITIATED, 'types = ["amazonpay.refund.initiated"]'),
)
"""State, reason, the resulting event, and the filter of a subscriber that wants it."""
OK = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Town:
    """All subscribers. `bad` says which of them misbehave just now."""

    bad: dict[str, str] = field(default_factory=dict)
    arrived: dict[tuple[str, str], float] = field(default_factory=dict)
    times: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the deliverer."""
        try:
            while head := await reader.readuntil(END):
                found = LENGTH.search(head)
                await reader.readexactly(int(found[1]) if found else 0)
                queue = head.split(b" ", 2)[1].decode().strip("/")
                event = next(each[12:].decode() for each in head.split(b"\r\n") if each.startswith(b"webhook-id: "))
                if trick := self.bad.get(queue):
                    await self._misbehave(trick, writer)
                    return
                self.arrived.setdefault((queue, event), perf_counter())
                self.times[queue, event] += 1
                writer.write(OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _misbehave(self, trick: str, writer: asyncio.StreamWriter) -> None:
        if trick == "reset":
            writer.transport.abort()
            return
        if trick == "throttle":
            writer.write(b"HTTP/1.1 429 Later\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n")
            return
        size = 10_000_000
        writer.write(f"HTTP/1.1 500 No\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size):
            writer.write(b"x" * 65_536 if trick == "flood" else b"x")
            await writer.drain()
            await asyncio.sleep(0 if trick == "flood" else 1)


@asynccontextmanager
async def town() -> AsyncIterator[tuple[Town, int]]:
    """The subscribers, listening on one port."""
    found = Town()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, limit=2**20)
    try:
        yield found, server.sockets[0].getsockname()[1]
    finally:
        server.close()


def isolation(seconds: float, rounds: int, rate: float = 100.0) -> None:
    """p99 from commit to arrival in the healthy lanes, without bad ones and with them; then everything arrives once."""
    uvloop.run(_isolation(seconds, rounds, rate))


async def _isolation(seconds: float, rounds: int, rate: float) -> None:
    measured, rest = cores()
    with ExitStack() as stack:
        url, folder = stack.enter_context(valkey(rest))
        async with town() as (people, port):
            queues = [f"lane-{number:02}" for number in range(LANES)]
            tables = [f"{subscriber(name, port)}\n{KINDS[number % 4][3]}" for number, name in enumerate(queues)]
            web = free_port()
            config = configuration(folder, url, web, mail.signer(mail.now()), *tables, DELIVERY)
            run = receiver("serve", "--config", str(config))
            stack.enter_context(started(run, web, folder / "service.log", measured))
            os.sched_setaffinity(0, rest)
            store = Store(connect(url))
            await store.start()

            async def declared() -> bool:
                return len((await store.of("us").subscribers.read()).subscribers) == LANES

            await until(declared, "the subscribers are written")
            ratios, number = [], 0
            for turn in range(rounds):
                found = []
                for bad in ({}, dict(BAD)):
                    people.bad = bad
                    began = await _commit(store, number, int(seconds * rate), rate)
                    await asyncio.sleep(1.0)
                    number += len(began)
                    found.append(_p99(people, began, [queue for queue in queues if queue not in BAD]))
                    people.bad = {}
                ratios.append(found[1] / found[0])
                without, among = found
                print(f"round {turn + 1}: p99 {without:.1f} ms alone, {among:.1f} ms among bad ones = {ratios[-1]:.2f}")
            print(
                f"healthy lanes with four bad ones: {sorted(ratios)[len(ratios) // 2]:.2f} × the p99 without (median)"
            )
            await _healed(people, queues, number)
            await store.close()


async def _commit(store: Store, first: int, count: int, rate: float) -> dict[str, tuple[int, float]]:
    """Write this many refunds at this rate. Returns event id → its kind and the time of its commit."""
    recorder, account, start = Recorder(store, lambda: 0.0), make_account(), perf_counter()
    began: dict[str, tuple[int, float]] = {}
    for number in range(first, first + count):
        await asyncio.sleep(max(start + (number - first) / rate - perf_counter(), 0))
        state, reason, kind, _ = KINDS[number % 4]
        await recorder.record(account, mail.found(state, number, reason), source=Source.POLL, details=FACTS)
        began[event_id("us", mail.refund_id(number), kind)] = (number % 4, perf_counter())
    return began


def _p99(people: Town, began: dict[str, tuple[int, float]], queues: list[str]) -> float:
    pairs = [(queue, event) for queue in queues for event, (kind, _) in began.items() if int(queue[-2:]) % 4 == kind]
    took = sorted(people.arrived[pair] - began[pair[1]][1] for pair in pairs if pair in people.arrived)
    if len(took) < len(pairs):
        raise SystemExit(f"Only {len(took)} of {len(pairs)} have arrived: that is more than one core sends.")
    return took[int(0.99 * len(took))] * 1000


async def _healed(people: Town, queues: list[str], events: int) -> None:
    """The events that the bad subscribers refused arrive, on their retry schedule."""
    began = perf_counter()
    owed = len(queues) * events // 4
    await until(lambda: len(people.arrived) >= owed, "everything has arrived", 900)
    again = sum(count - 1 for count in people.times.values())
    print(
        f"after healing: {len(people.arrived)} of {owed} have arrived within "
        f"{perf_counter() - began:.0f} s, {again} of them twice"
    )
