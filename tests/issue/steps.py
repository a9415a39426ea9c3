"""Interleavings made by hand: every actor stops before each command to Redis, and before and after Amazon acts; the
test says which one continues. Nothing depends on which socket is faster."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from receiver.amazon.account import Account
from receiver.amazon.throttle import Bucket, Call
from receiver.errors import ReceiverError, TransportError
from receiver.exchange import Request, Response
from receiver.issue.issuer import Issuer
from receiver.ledger.charge_book import Guard
from receiver.ledger.money import Money
from receiver.ledger.refund import Observation, Source
from receiver.ledger.refund_request import PreparedRefund, RefundRequestRecord
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.store.redis.base import Connection
from receiver.store.redis.keys import Keys
from receiver.store.redis.pipeline import Pipeline
from receiver.store.redis.scripts import Command, Script
from receiver.store.refunds.findings import Findings
from receiver.store.refunds.refunds import Refunds
from receiver.store.requests.known_charges import KnownCharges
from receiver.store.requests.open_requests import OpenRequestStore
from receiver.store.requests.requests import Attempt, CaseClosed, Disputed, NotReserved
from receiver.track.amazon_client import AmazonClient
from receiver.track.record import Recorder
from tests.kit.accounts import make_account
from tests.kit.clock import T0, ManualClock

CHARGE = "S01-5105180-3221187-C056351"
CAPTURED, CEILING = 10_000, 11_500
"""Cents: the capture, and what may be refunded of it in all."""
FATES = (
    "answer",
    "lost",
    "never",
    "not sent",
    "error",
    "error after all",
    "refuse",
    "refuse us",
    "throttle",
    "garbage",
)
"""What becomes of a call of Create Refund; see `Amazon`."""


@dataclass(eq=False)
class Actor:
    """A worker that proceeds step by step. `fates` are the outcomes of its calls to Amazon; after the last one, every
    call succeeds."""

    work: Callable[[], Awaitable[object]]
    fates: Iterator[str]
    result: object = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _here: asyncio.Event = field(default_factory=asyncio.Event)
    _go: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        ACTOR.set(self)
        async with self.gate():
            pass
        try:
            self.result = await self.work()
        except ReceiverError as error:
            self.result = error

    @contextlib.asynccontextmanager
    async def gate(self) -> Any:
        """Stop; what is done inside is one step."""
        async with self._turn:
            self._here.set()
            await self._go.wait()
            self._go.clear()
            yield

    async def step(self) -> None:
        """Let it continue to its next gate, or to its end."""
        await self._stopped()
        if self.task.done():
            return
        self._here.clear()
        self._go.set()
        await self._stopped()

    async def _stopped(self) -> None:
        here = asyncio.ensure_future(self._here.wait())
        async with asyncio.timeout(30):
            await asyncio.wait({self.task, here}, return_when=asyncio.FIRST_COMPLETED)
        here.cancel()
        if self.task.done():
            self.task.result()

    async def kill(self) -> None:
        """The process dies where it stands."""
        while not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task}, timeout=0.1)


ACTOR: ContextVar[Actor | None] = ContextVar("ACTOR", default=None)


class Gated(Pipeline):
    """Commands, each of them a step of the actor that sends it."""

    async def call(self, command: Command, script: Script | None = None, *, repeatable: bool = True) -> Any:
        actor = ACTOR.get()
        if actor is None:
            return await super().call(command, script, repeatable=repeatable)
        async with actor.gate():
            return await super().call(command, script, repeatable=repeatable)


class SteppedRequests(OpenRequestStore):
    """Requests whose every new reservation is checked against the charge's book."""

    def __init__(self, connection: Connection, keys: Keys, refunds: Refunds, findings: Findings) -> None:
        super().__init__(connection, keys, refunds, findings)
        self.admitted = 0

    async def reserve(
        self, order: PreparedRefund, *, owner: str, guard: Guard, lease: int
    ) -> Attempt | NotReserved | Disputed | CaseClosed | RefundRequestRecord:
        found = await super().reserve(order, owner=owner, guard=guard, lease=lease)
        if isinstance(found, Attempt):
            assert guard.most == (CAPTURED if order.full else CEILING)
            assert await self.book() <= guard.most, "admitted over the allowance"
            self.admitted += 1
        return found

    async def book(self) -> int:
        """The sum of the charge's book in cents, without declined refunds."""
        entries: Any = await self.connection.client.hvals(f"refunds:{{us}}:charge:{CHARGE}")
        pairs = (entry.decode().split(" ")[:2] for entry in entries)
        return sum(int(minor) for minor, state in pairs if state != "Declined")


class Stepped(Store):
    """A store whose commands are steps, and whose reservations are checked."""

    def __init__(self, client: Redis, clock: ManualClock) -> None:
        super().__init__(client, clock=clock)
        self.connection.reads, self.connection.writes = Gated(client), Gated(client)
        us = self.of("us")
        us.requests = self.reservations = SteppedRequests(us.connection, us.keys, us.refunds, us.findings)
        us.charges = KnownCharges(us.connection, us.keys, us.requests, us.disputes)


@dataclass
class Made:
    """A refund that Amazon has made."""

    refund_id: str
    cents: int
    state: str = "RefundInitiated"
    updated_at: int = 0


@dataclass
class Amazon:
    """The truth. It ignores the allowance, and reports that nothing was refunded on any charge: only the service keeps
    to the limit. The outcomes of a call:

    answer · lost (done, no answer) · never (not done, no answer) · not sent · error (not done, 500) · error after all
    (done, 500) · refuse (not done, 422: also where an earlier call was) · refuse us (not done, 403) · throttle ·
    garbage (done, unreadable 201)
    """

    made: dict[str, Made] = field(default_factory=dict)
    """By idempotency key."""

    async def send(self, request: Request, *, timeout: float) -> Response:
        actor = ACTOR.get()
        if actor is None:
            return self._charge() if request.method == "GET" else self._refund(request, "answer")
        if request.method == "GET":
            async with actor.gate():
                return self._charge()
        async with actor.gate():
            fate = next(actor.fates, "answer")
            answer = self._refund(request, fate)
        async with actor.gate():
            if fate in ("lost", "never", "not sent"):
                raise TransportError(fate, reason="connect_failed" if fate == "not sent" else "timeout")
            return answer

    def _charge(self) -> Response:
        return _json(
            200,
            chargeId=CHARGE,
            statusDetails={"state": "Captured"},
            captureAmount={"amount": "100.00", "currencyCode": "USD"},
            refundedAmount={"amount": "0.00", "currencyCode": "USD"},
        )

    def _refund(self, request: Request, fate: str) -> Response:
        if fate in ("answer", "lost", "error after all", "garbage"):
            wanted = json.loads(request.body)["refundAmount"]["amount"]
            key = request.headers["x-amz-pay-idempotency-key"]
            made = self.made.setdefault(key, Made(f"S01-R{len(self.made):06d}", int(wanted.replace(".", ""))))
            if fate == "answer":
                # As Amazon does: what it said the first time, whatever has become of the refund since.
                return _json(201, **_refund_json(made, "RefundInitiated", T0))
        statuses = {"refuse": 422, "refuse us": 403, "throttle": 429, "garbage": 201}
        whole = b"" if fate == "garbage" else b"}"
        return Response(statuses.get(fate, 500), {}, b'{"reasonCode":"TransactionCountExceeded"' + whole)

    def seen(self, made: Made) -> Observation:
        """What Get Refund says."""
        return Observation(
            refund_id=made.refund_id,
            state=made.state,
            updated_at=T0 + made.updated_at,
            charge_id=CHARGE,
            amount=Money.of_minor(made.cents, "USD"),
            created_at=T0,
            reason_code="ProcessingFailure" if made.state == "Declined" else "",
        )

    @property
    def given(self) -> int:
        """What buyers have got or will get, in cents."""
        return sum(each.cents for each in self.made.values() if each.state != "Declined")


def _json(status: int, **fields: object) -> Response:
    return Response(status, {}, json.dumps(fields).encode())


def _refund_json(made: Made, state: str, at: int) -> dict[str, object]:
    return {
        "refundId": made.refund_id,
        "chargeId": CHARGE,
        "refundAmount": {"amount": f"{made.cents / 100:.2f}", "currencyCode": "USD"},
        "statusDetails": {"state": state, "lastUpdatedTimestamp": "20251009T085320Z"},
        "creationTimestamp": "20251009T085320Z",
    }


@dataclass
class Scene:
    """All actors, on one charge."""

    store: Stepped
    clock: ManualClock
    amazon: Amazon = field(default_factory=Amazon)
    actors: list[Actor] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    account: Account = field(default_factory=lambda: make_account(throttle=dict.fromkeys(Call, Bucket(10_000, 10_000))))

    def issuer(self) -> Issuer:
        """That of another process."""
        metrics = Metrics()
        return Issuer(
            amazon_client=AmazonClient(self.account, self.store.of("us"), self.amazon.send, metrics, lambda: T0),
            recorder=Recorder(self.store, lambda: 0.0),
            metrics=metrics,
            random=lambda: 0.0,
            new_owner=lambda: str(next(self.numbers)),
        )

    def begin(self, work: Callable[[], Awaitable[object]], *fates: str) -> None:
        self.actors.append(Actor(work, iter(fates)))

    async def work(self) -> None:
        """What a worker does with one request that is due."""
        worker = self.issuer().worker()
        for attempt in (await self.store.of("us").requests.claim(lease=30_000, limit=1)).items:
            await worker.rounds.work_on(attempt)

    async def tell(self, made: Made) -> None:
        """Record what Amazon answers after a notification."""
        seen = self.amazon.seen(made)
        await self.issuer().recorder.record(self.account, seen, source=Source.NOTIFICATION)

    async def step(self, number: int) -> None:
        """Let one of the active actors take a step."""
        actor = self.actors[number % len(self.actors)]
        await actor.step()
        if actor.task.done():
            self.actors.remove(actor)

    async def kill(self, number: int) -> None:
        actor = self.actors.pop(number % len(self.actors))
        await actor.kill()

    async def drain(self) -> None:
        """Every actor ends, and workers finish what is left."""
        while self.actors:
            await self.step(0)
        for _ in range(12):
            self.clock.tick(1_000_000)
            await self.work()

    async def close(self) -> None:
        for actor in self.actors:
            await actor.kill()
        await self.store.close()
