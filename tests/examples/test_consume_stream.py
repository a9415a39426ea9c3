"""`deploy/examples/consume_stream.py`, unchanged, as processes on a real Valkey."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import How, Resolution, RetryRefused
from receiver.outbox.events.event import to_fields
from receiver.store import Store
from tests.commands.kit import _Lines
from tests.http.feed_kit import happened, refund_id
from tests.kit.processes import PROJECT, until
from tests.outbox.examples import an_event

STREAM, GROUP = "refunds:{us}:events", "books"


class Copy:
    """One consumer at work."""

    def __init__(self, url: str, claim_after_ms: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROJECT / "deploy" / "examples" / "consume_stream.py"), "us", GROUP],
            env={**os.environ, "REDIS_URL": url, "CLAIM_AFTER_MS": str(claim_after_ms)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out, self.err = _Lines(self.process.stdout), _Lines(self.process.stderr)

    def handled(self, count: int) -> list[str]:
        """So many events: the refunds that they are about."""
        return [(self.out.next() or "ended").split()[2] for _ in range(count)]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.out.close()
        self.err.close()


@pytest.fixture
def start(valkey_url: str) -> Iterator[Callable[..., Copy]]:
    """Start a consumer; it is ended with the test."""
    started: list[Copy] = []

    def start(claim_after_ms: int = 60_000) -> Copy:
        started.append(Copy(valkey_url, claim_after_ms))
        return started[-1]

    yield start
    for each in started:
        each.end()


async def pending(redis: Redis) -> int:
    told: Any = await redis.xpending(STREAM, GROUP)
    return int(told["pending"])


async def test_every_event_once_acknowledged_and_after_the_store_was_emptied(
    store: Store, redis: Redis, start: Callable[..., Copy]
) -> None:
    """Events from before the first start, later ones, and those of a new store, in which the group is created again."""
    await happened(store, redis, 1, 2)
    consumer = start()
    assert consumer.handled(2) == [refund_id(1), refund_id(2)]
    await happened(store, redis, 3)
    assert consumer.handled(1) == [refund_id(3)]

    async def acknowledged() -> bool:
        return await pending(redis) == 0

    await until(acknowledged, "all is acknowledged")
    await redis.flushall()
    await happened(store, redis, 4)
    assert consumer.handled(1) == [refund_id(4)]


async def test_what_a_dead_consumer_took_is_taken_over(store: Store, redis: Redis, start: Callable[..., Copy]) -> None:
    """It is handled by another, which acknowledges it."""
    await happened(store, redis, 1, 2)
    await redis.xgroup_create(STREAM, GROUP, id="0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=1)
    assert await pending(redis) == 1
    consumer = start(claim_after_ms=1)
    assert sorted(consumer.handled(2)) == [refund_id(1), refund_id(2)]

    async def acknowledged() -> bool:
        return await pending(redis) == 0

    await until(acknowledged, "all is acknowledged")


async def test_what_was_trimmed_in_a_dead_consumers_hands_is_said(
    store: Store, redis: Redis, start: Callable[..., Copy]
) -> None:
    await happened(store, redis, 1, 2)
    await redis.xgroup_create(STREAM, GROUP, id="0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=1)
    await redis.xtrim(STREAM, maxlen=1, approximate=False)
    consumer = start(claim_after_ms=1)
    assert "was trimmed before it was handled" in consumer.err.until("trimmed")
    assert consumer.handled(1) == [refund_id(2)]


def test_the_document_has_every_field_of_the_stream() -> None:
    """And no other."""
    text = (Path(PROJECT) / "deploy" / "events.md").read_text()
    table = text[text.index("| field |") :].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    told = set(chain.from_iterable((name.strip(" `") for name in row.split(",")) for row in rows))
    names = (
        "order_reference",
        "refund_type",
        "retryable",
        "retry_of",
        "retry_root",
        "retried_by",
        "issued_by",
        "issued_by_user",
    )
    full = an_event(
        EventType.DECLINED,
        **dict.fromkeys(names, "x"),
        retry_refused=RetryRefused(1, 1),
        resolution=Resolution(at=1, how=How.COMPENSATED, by="x", user="x", note="x", refund_id="x"),
        unread=("refundAmount",),
    )
    told_before = {"conflict": True, "backfill": True, "region": "eu", "emitted": (EventType.STUCK.value,)}
    contradicted = an_event(EventType.DECLINED, **told_before)
    assert told == {*to_fields(msgspec.structs.replace(full, traceparent="x", alarm="x")), *to_fields(contradicted)}
