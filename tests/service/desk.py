"""A tracker by itself, and an Amazon that answers as the test says."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from receiver.amazon.account import Account
from receiver.amazon.calls import Endpoint, Region
from receiver.amazon.throttle import Bucket, Call
from receiver.ledger.next_look import DueRefund, FollowUp
from receiver.ledger.polling import PollPlan
from receiver.runtime.metrics import Metrics
from receiver.service import system_clock
from receiver.store import Store
from receiver.track.amazon_client import AmazonClient
from receiver.track.record import Recorder
from receiver.track.tracker import Tracker
from receiver.transport.client import Transport
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.webserver import WebServer, serving
from tests.service.kit import LEASE, trust
from tests.store.makers import claim, refund_id

SELDOM = PollPlan.parse(["every 7d"])
"""A poll plan that stays out of the way."""


def http(status: int, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """A whole answer; `length` is what Content-Length says where that is not the truth."""
    said = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {said}", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def refund(
    state: str = "RefundInitiated", number: int = 1, reason: str | None = None, seconds: int = 0, **more: object
) -> bytes:
    """Amazon's answer about a refund; its state has lasted since `seconds` (to 39) after `T0`."""
    fields = {
        "refundId": refund_id(number),
        "chargeId": "S01-5105180-3221187-C056351",
        "creationTimestamp": "20251009T085320Z",
        "refundAmount": {"amount": "14.00", "currencyCode": "USD"},
        "statusDetails": {
            "state": state,
            "reasonCode": reason,
            "lastUpdatedTimestamp": f"20251009T0853{20 + seconds:02d}Z",
        },
        "releaseEnvironment": "Sandbox",
    }
    return http(200, json.dumps({**fields, **more}).encode())


def charge(state: str = "Captured", refunded: str = "0.00", order: str = "") -> bytes:
    """Amazon's answer about the charge of all refunds here."""
    fields = {
        "chargeId": "S01-5105180-3221187-C056351",
        "statusDetails": {"state": state},
        "captureAmount": {"amount": "14.00", "currencyCode": "USD"},
        "refundedAmount": {"amount": refunded, "currencyCode": "USD"},
        "merchantMetadata": {"merchantReferenceId": order or None},
        "releaseEnvironment": "Sandbox",
    }
    return http(200, json.dumps(fields).encode())


def over_bounds(status: int, body: bytes) -> dict[str, bytes]:
    """Answers with this JSON object, which would be believed, that are over one bound each."""
    packed, long = gzip.compress(body), b" " * 70_000
    many = [f"X-{number}: 1" for number in range(2_000)]
    first = next(iter(json.loads(body)))
    return {
        "long": http(status, body + long),
        "endless": http(status, body + long * 10, length=10**12),
        "deep": http(status, body[:-1] + b',"x":' + b"[" * 17 + b"]" * 17 + b"}"),
        "very deep": http(status, body[:-1] + b',"x":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001),
        "the first key twice": http(status, body[:-1] + b',"%s":1}' % first.encode()),
        "20,000 keys": http(status, b"{" + b'"":0,' * 13_000 + body[1:-1] + b',"%s":1}' % first.encode()),
        "gzip": http(status, packed, "Content-Encoding: gzip"),
        "a bomb": http(status, gzip.compress(body + b" " * 20_000_000), "Content-Encoding: gzip"),
        "UTF-16": http(status, body.decode().encode("utf-16"), "Content-Type: application/json; charset=utf-16"),
        "UTF-32": http(status, body.decode().encode("utf-32-le")),
        "a long field": http(status, body, "X: " + "x" * 200_000),
        "many fields": http(status, body, *many),
        "two lengths": http(status, body, "Content-Length: 1"),
        "half": http(status, body, length=len(body) + 1),
    }


@dataclass(frozen=True, slots=True)
class Held:
    """An answer that is given only when `go` is set; where there is no `go`, never."""

    answer: bytes = b""
    go: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Bytes after which the connection ends."""

    answer: bytes = b""


@dataclass(frozen=True, slots=True)
class Drip:
    """Bytes that come one by one, so many seconds apart."""

    answer: bytes
    pause: float = 0.02


Answer = bytes | Held | Cut | Drip


@dataclass
class Desk:
    """Amazon's desk on a real socket: each question about a refund takes the next of `answers`; after the last one
    `then` is said. About a charge it says `charge`."""

    server: WebServer = field(default_factory=WebServer)
    answers: list[Answer] = field(default_factory=list)
    then: Answer = field(default_factory=lambda: http(404))
    charge: Answer = field(default_factory=charge)

    @property
    def asked(self) -> list[str]:
        """The refund ids asked about, in order."""
        return [
            found for each in self.server.requests for found in re.findall(r"^GET /v2/refunds/(\S+) ", each.decode())
        ]

    @property
    def charges_asked(self) -> int:
        """How often the charge was asked about."""
        return sum(each.startswith(b"GET /v2/charges/") for each in self.server.requests)

    async def says(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        if self.server.requests[-1].startswith(b"GET /v2/charges/"):
            answer = self.charge
        else:
            answer = self.answers.pop(0) if self.answers else self.then
        if isinstance(answer, Held):
            await (answer.go or asyncio.Event()).wait()
        said = answer if isinstance(answer, bytes) else answer.answer
        for piece in (said[at : at + 1] for at in range(len(said))) if isinstance(answer, Drip) else (said,):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(answer.pause if isinstance(answer, Drip) else 0)
        if isinstance(answer, Cut):
            raise ConnectionResetError


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    """An open desk."""
    found = Desk()
    async with serving(found.says) as found.server:
        yield found


def account_at(desk: Desk, **more: Any) -> Account:
    """The sandbox account "us" whose Amazon is this desk."""
    settings = {
        "endpoint": Endpoint(Region.NA, "sandbox", "SANDBOX-TESTKEY", desk.server.url),
        "throttle": dict.fromkeys(Call, Bucket(1000, 1000)),
        "poll": SELDOM,
    }
    return make_account(**{**settings, **more})


@dataclass
class Bench:
    """A tracker that a test drives look by look, on a store whose clock the test moves."""

    store: Store
    redis: Any
    clock: ManualClock
    desk: Desk
    tracker: Tracker
    metrics: Metrics

    async def look(self, number: int = 1) -> DueRefund:
        """Claim what is due, which must be this refund alone, ask about it, and settle."""
        (look,) = (await claim(self.store)).items
        assert look.refund_id == refund_id(number)
        await self.tracker.look(look)
        return look

    async def due(self, number: int = 1) -> int | None:
        """When the refund is to be asked about, in ms from now."""
        score = await self.redis.zscore("refunds:{us}:due", refund_id(number))
        return None if score is None else int(score) - self.clock()

    async def wait(self, number: int = 1) -> int:
        """Let the time pass until the refund is due. Returns how long that was."""
        due = await self.due(number)
        assert due is not None
        self.clock.tick(due)
        return due

    async def follow_up(self, number: int = 1) -> FollowUp | None:
        """What is remembered of its hint."""
        stored = await self.redis.hget("refunds:{us}:hints", refund_id(number))
        return msgspec.json.decode(stored, type=FollowUp) if stored else None

    def counted(self, name: str, **labels: str) -> float:
        """The value of a counter."""
        return self.metrics.registry.get_sample_value(f"receiver_{name}_total", labels) or 0.0


def make_tracker(account: Account, store: Store, transport: Transport, metrics: Metrics, **more: Any) -> Tracker:
    """A tracker without jitter."""
    random = more.pop("random", lambda: 0.0)
    amazon_client = AmazonClient(
        account, store.of(account.name), transport.send, metrics, system_clock, more.pop("request_timeout", 10.0)
    )
    recorder = Recorder(store, random)
    return Tracker(
        amazon_client=amazon_client, recorder=recorder, metrics=metrics, random=random, lease=LEASE / 1000, **more
    )


@asynccontextmanager
async def bench(store: Store, redis: Any, clock: ManualClock, **more: Any) -> AsyncIterator[Bench]:
    """Everything that a tracker needs. `poll` and `throttle` go to the account, the rest to the tracker."""
    parts = {key: more.pop(key) for key in ("poll", "throttle") if key in more}
    transport, metrics = Transport(tls=trust()), Metrics()
    try:
        async with desk() as found:
            tracker = make_tracker(account_at(found, **parts), store, transport, metrics, **more)
            yield Bench(store, redis, clock, found, tracker, metrics)
    finally:
        await transport.close()
