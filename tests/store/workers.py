"""Workers for the store's model: each has its own clock, and can be stopped before it writes, so that its data is
outdated by then."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field

import msgspec
from redis.asyncio import Redis

from receiver.ledger.lifecycle import Details
from receiver.ledger.next_look import DueRefund, FollowUp, NextLook
from receiver.ledger.polling import next_look
from receiver.ledger.refund import Observation
from receiver.store import Store
from receiver.store.redis.client import Client
from receiver.store.redis.clock import Clock
from receiver.store.refunds.refunds import Commit, Committed, Refunds
from receiver.store.refunds.schedule import RefundSchedule
from receiver.track.record import Recorder
from tests.kit.accounts import make_account
from tests.kit.clock import T0, ManualClock
from tests.store.makers import seen
from tests.store.model import Happening, Known, watched

Answer = tuple[tuple[str, str], int] | str

LEASE, PAUSE = 30_000, 5_000
CHARGE_TOLD: Details = {"charge_read": True, "retryable": "no"}


def observation(answer: Answer, number: int) -> Observation | None:
    """What Amazon says; None where the answer says nothing about the refund."""
    if isinstance(answer, str):
        return None
    (state, reason), second = answer
    return seen(state, number, reason, T0 + 1000 * second)


@dataclass
class Gate:
    """Where a look waits before its write."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    before: str = ""

    async def passed(self, what: str) -> None:
        self.before = self.before or what
        self.reached.set()
        await self.opened.wait()


ACCOUNT = make_account(second_looks=())
GATE: ContextVar[Gate | None] = ContextVar("GATE", default=None)


class GatedRefunds(Refunds):
    """A worker with a gate waits at it before the commit."""

    async def commit(self, commit: Commit) -> Committed:
        if gate := GATE.get():
            await gate.passed("commit")
        return await super().commit(commit)


class GatedSchedule(RefundSchedule):
    """A worker with a gate waits at it before the write that reschedules a refund."""

    async def reschedule(self, due: DueRefund, next_look: NextLook) -> bool:
        if gate := GATE.get():
            await gate.passed("reschedule")
        return await super().reschedule(due, next_look)


class Gated(Store):
    """A store in which a worker with a gate waits at it before the write that ends a claim."""

    def __init__(self, client: Client, *, clock: Clock) -> None:
        super().__init__(client, clock=clock)
        us = self.of("us")
        us.refunds, us.schedule = GatedRefunds(us.connection, us.keys), GatedSchedule(us.connection, us.keys)


class Skewed(ManualClock):
    """A worker's clock: the test's clock with a small offset."""

    def __init__(self, base: ManualClock, ahead: int) -> None:
        super().__init__()
        self.base, self.ahead = base, ahead

    def __call__(self) -> int:
        return self.base() + self.ahead


class Worker:
    """One process: a store with its own clock, and a worker's actions for a claim and Amazon's answer."""

    def __init__(self, client: Redis, clock: ManualClock, ahead: int) -> None:
        self.store = Gated(client, clock=Skewed(clock, ahead))
        self.now = self.store.now
        self.recorder = Recorder(self.store, lambda: 0.1)

    async def look(self, look: DueRefund, answer: Answer, hope: int) -> None:
        """Settle the claim. After a hint that brought nothing new ask `hope` times more."""
        seen, refund = observation(answer, int(look.refund_id[-6:])), None
        if answer == "throttled":
            await self.store.of("us").schedule.block("get_refund", self.now() + PAUSE)
        if answer in ("throttled", "failed"):
            await self.store.of(look.account).schedule.reschedule(look, NextLook(self.now() + PAUSE, look.follow_up))
            return
        if seen:
            settled = await self.recorder.record(
                ACCOUNT, seen, source=look.source, token=look.token, details=CHARGE_TOLD
            )
            if not settled.change.is_nothing:
                return
            refund = settled.change.refund
        else:
            refund = await self.store.of("us").refunds.get(look.refund_id)
        follow_up = one_more(look.follow_up, hope)
        own = next_look(refund, self.now(), ACCOUNT.poll, 0.1) if refund else None
        times = [at for at in (own, self.now() + PAUSE if follow_up else None) if at is not None]
        await self.store.of(look.account).schedule.reschedule(
            look, NextLook(min(times, default=None), follow_up, revision=refund.revision if refund else 0)
        )


def one_more(follow_up: FollowUp | None, hope: int) -> FollowUp | None:
    """What is remembered of a hint that brought nothing new; None: it was asked often enough."""
    if follow_up is None or follow_up.step >= hope:
        return None
    return msgspec.structs.replace(follow_up, step=follow_up.step + 1)


@dataclass
class Held:
    """A claimed look, and the claim's number."""

    claim: int
    worker: Worker
    number: int
    look: DueRefund


@dataclass
class Waiting:
    """A poll before its write: its decision from the data that it has read, and the time."""

    held: Held
    answer: Answer
    gate: Gate
    task: asyncio.Task[None]
    hope: int
    now: int = 0
    known: Known | None = None
    version: int = 0
    change: tuple[Known, list[Happening]] | None = None

    @property
    def is_trouble(self) -> bool:
        """Whether the answer says nothing about the refund, so that the action does not depend on what is known."""
        return self.answer in ("throttled", "failed")

    @property
    def is_looked_at_again(self) -> bool:
        """Pending refunds always; after a hint that brought nothing, a few times; after trouble always."""
        if self.change:
            return watched(self.change[0], self.now)
        return (
            self.is_trouble
            or one_more(self.held.look.follow_up, self.hope) is not None
            or watched(self.known, self.now)
        )


async def finish(waiting: Waiting) -> None:
    """Let it write."""
    waiting.gate.opened.set()
    async with asyncio.timeout(30):
        await waiting.task
