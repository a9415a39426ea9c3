"""The store against a small model of it: any order of hints, claims, answers, subscribers and deliveries, by several
workers whose clocks differ a little, some of them slower than their lease.

A look stops before its write (`Gated`), so that whatever a slow worker has read can be out of date when it writes.
The model knows who holds what; it knows nothing of scores, tokens, revisions or scripts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis
from structlog.testing import capture_logs

from receiver.errors import Conflict
from receiver.ledger.hint import Hint, Noted
from receiver.ledger.refund import Observation, Source
from receiver.ledger.schedule import next_look
from receiver.outbox.delivery import Attempts
from receiver.outbox.subscriber import Subscriber
from receiver.settle import Settler
from receiver.store import Store
from receiver.store.connection import connect
from receiver.store.lanes import DeadEvent, Parcel
from receiver.store.looks import Claimed, Echo, Look
from receiver.store.refunds import Commit, Committed
from tests.accounts import make_account
from tests.clock import T0, ManualClock
from tests.store.makers import refund_id, seen, subscriber
from tests.store.model import (
    DAY,
    KEY,
    NAMES,
    REFUNDS,
    TYPE,
    Happening,
    Inside,
    Known,
    Model,
    Owed,
    join,
    look_into,
    told,
    watched,
)

T = TypeVar("T")

LEASE, PAUSE = 30_000, 5_000
SKEWS = (0, 3, -3)
"""How far each worker's clock is ahead, ms."""
SETTINGS = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

NUMBERS = st.sampled_from((1, 1, 1, 2))
SELDOM = st.integers(0, 7).map(lambda it: it == 7)
WORKERS = st.sampled_from(range(len(SKEWS)))
SUBSCRIBERS = st.builds(
    subscriber,
    name=st.sampled_from(NAMES),
    types=st.sampled_from([("*",), (f"{TYPE}declined",), (f"{TYPE}refunded", f"{TYPE}initiated", f"{TYPE}conflict")]),
    reasons=st.sampled_from([(), ("AmazonRejected",)]),
    paused=st.booleans(),
)
STATES = st.sampled_from(
    [
        ("RefundInitiated", ""),
        ("RefundInitiated", ""),
        ("OnTheMoon", ""),
        ("Refunded", ""),
        ("Declined", "AmazonRejected"),
        ("Declined", "ProcessingFailure"),
    ]
)
OBSERVED = st.tuples(STATES, st.integers(0, 6))
ANSWERS = st.one_of(OBSERVED, OBSERVED, st.just("not found"), st.sampled_from(["throttled", "failed"]))
Answer = tuple[tuple[str, str], int] | str


def observation(answer: Answer, number: int) -> Observation | None:
    """What Amazon says; None where the answer says nothing about the refund."""
    if isinstance(answer, str):
        return None
    (state, reason), second = answer
    return seen(state, number, reason, T0 + 1000 * second)


# The real thing, made to stop before it writes


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


ACCOUNT = make_account()
GATE: ContextVar[Gate | None] = ContextVar("GATE", default=None)


class Gated(Store):
    """A store in which whoever has a gate waits at it before the write that settles a look."""

    async def commit(self, commit: Commit) -> Committed:
        if gate := GATE.get():
            await gate.passed("commit")
        return await super().commit(commit)

    async def reschedule(
        self, look: Look, at: int | None, echo: Echo | None = None, *, revision: int | None = None
    ) -> bool:
        if gate := GATE.get():
            await gate.passed("reschedule")
        return await super().reschedule(look, at, echo, revision=revision)


class Skewed(ManualClock):
    """A worker's clock: the one of the test, and a little beside it."""

    def __init__(self, base: ManualClock, ahead: int) -> None:
        super().__init__()
        self.base, self.ahead = base, ahead

    def __call__(self) -> int:
        return self.base() + self.ahead


class Worker:
    """One process: a store with its own clock, and what a worker does with a claim and Amazon's answer."""

    def __init__(self, client: Redis, clock: ManualClock, ahead: int) -> None:
        self.store = Gated(client, clock=Skewed(clock, ahead))
        self.now = self.store.now
        self.settler = Settler(self.store, lambda: 0.1)

    async def look(self, look: Look, answer: Answer, hope: int) -> None:
        """Settle the claim. After a hint that brought nothing new ask `hope` times more."""
        seen, refund = observation(answer, int(look.refund_id[-6:])), None
        if answer == "throttled":
            await self.store.block("us", "get_refund", self.now() + PAUSE)
        if answer in ("throttled", "failed"):
            await self.store.reschedule(look, self.now() + PAUSE, look.echo)
            return
        if seen:
            settled = await self.settler.settle(ACCOUNT, seen, source=look.source, token=look.token)
            if not settled.change.is_nothing:
                return
            refund = settled.change.refund
        else:
            refund = await self.store.refund("us", look.refund_id)
        echo = one_more(look.echo, hope)
        own = next_look(refund, self.now(), ACCOUNT.poll, 0.1) if refund else None
        times = [at for at in (own, self.now() + PAUSE if echo else None) if at is not None]
        await self.store.reschedule(look, min(times, default=None), echo, revision=refund.revision if refund else 0)


def one_more(echo: Echo | None, hope: int) -> Echo | None:
    """What is remembered of a hint that brought nothing new; None: it was asked often enough."""
    if echo is None or echo.step >= hope:
        return None
    return msgspec.structs.replace(echo, step=echo.step + 1)


@dataclass
class Held:
    """A claimed look, and the claim's number."""

    claim: int
    worker: Worker
    number: int
    look: Look


@dataclass
class Waiting:
    """A look before its write: what it made of what it had read, and when."""

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
        """Whether nothing was learned, so that what is done does not depend on what is known."""
        return self.answer in ("throttled", "failed")

    @property
    def is_looked_at_again(self) -> bool:
        """Pending refunds always; after a hint that brought nothing, a few times; after trouble always."""
        if self.change:
            return watched(self.change[0], self.now)
        return self.is_trouble or one_more(self.held.look.echo, self.hope) is not None or watched(self.known, self.now)


class Machine(RuleBasedStateMachine):
    """Rules do the same to the store and to the model, and compare what was answered; the rest is compared after every
    rule."""

    loop: Callable[[Coroutine[Any, Any, Any]], Any]
    client: Any

    def __init__(self) -> None:
        super().__init__()
        self.run(self.client.flushall())
        self.clock = ManualClock()
        self.workers = [Worker(self.client, self.clock, ahead) for ahead in SKEWS]
        self.model = Model()
        self.claims = 0
        self.sent = 0
        self.hope = 0
        self.unfinished: list[Waiting] = []
        self.stream_ids: list[str] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        found: T = type(self).loop(work)
        return found

    def _look_next(self, number: int, again: bool) -> None:
        """The schedule of a refund was written: is it there, if it should be? When exactly is not the model's."""
        at = self.run(self.client.zscore(f"{KEY}:due", refund_id(number)))
        assert (at is not None) == again, (number, at)
        self.model.due.pop(number, None)
        if at is not None:
            self.model.due[number] = int(at)

    @rule(number=st.sampled_from(REFUNDS), observed=OBSERVED, worker=WORKERS)
    def create(self, number: int, observed: Answer, worker: int) -> None:
        """What Amazon says to somebody who holds no claim, as the answer to Create Refund."""
        it, model = self.workers[worker], self.model
        found = observation(observed, number)
        assert found is not None
        settled = self.run(it.settler.settle(ACCOUNT, found, source=Source.CREATE))
        change = join(model.known.get(number), found, it.now(), number)
        assert settled.change.is_nothing == (change is None)
        if change:
            model.write(number, *change)
            if number not in model.due:
                self._look_next(number, watched(change[0], it.now()))

    # What passes by

    @rule(ms=st.sampled_from([1, 4, PAUSE, LEASE - 1, LEASE, LEASE, LEASE, 600_000, DAY + 1]), forgetful=SELDOM)
    def tick(self, ms: int, forgetful: bool) -> None:
        """Time passes, and sometimes Redis has forgotten its scripts."""
        self.clock.tick(ms)
        if forgetful:
            self.run(self.client.script_flush())

    # What must hold after every step

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        redis = self.run(look_into(self.client))
        self._schedule_is_right(redis)
        self._refunds_are_the_join(redis)
        self._events_are_told_once(redis)
        self._lanes_hold_what_is_owed(redis)

    def _schedule_is_right(self, redis: Inside) -> None:
        """Untouched by whoever was late; and whatever is pending is going to be asked about."""
        assert redis.due == self.model.due
        assert redis.hinted == set(self.model.hinted)
        pending = {number for number, known in self.model.known.items() if known.pending}
        assert pending <= redis.due.keys() | redis.hinted

    def _refunds_are_the_join(self, redis: Inside) -> None:
        assert redis.refunds.keys() == self.model.known.keys()
        for number, known in self.model.known.items():
            refund, lines = redis.refunds[number], redis.histories[number]
            assert (refund.state, refund.updated_at, refund.reason_code) == (known.state, known.updated, known.reason)
            assert (refund.revision, refund.conflict) == (known.revision, known.conflict)
            assert (refund.first_seen_at, refund.changed_at) == (known.first_seen, known.changed)
            assert {each.rpartition(".")[2] for each in refund.emitted} == known.told
            assert [line.revision for line in lines] == list(range(1, known.revision + 1))
            assert (lines[-1].state, lines[-1].at) == (known.state, known.changed)

    def _events_are_told_once(self, redis: Inside) -> None:
        assert [told(fields) for _, fields in redis.events] == self.model.events
        ids = [fields["id"] for _, fields in redis.events]
        assert ids == [each.id for each in self.model.events]
        assert len(set(ids)) == len(ids)

    def _lanes_hold_what_is_owed(self, redis: Inside) -> None:
        ids = self.stream_ids = [stream_id for stream_id, _ in redis.events]
        for name, (lane, owed, attempts, dead) in redis.lanes.items():
            expected = self.model.lanes.get(name, {})
            assert lane == {ids[index]: each.at for index, each in expected.items()}
            assert owed == sorted(f"{ms:0>15}-{seq:0>20}" for ms, seq in (each.split("-") for each in lane))
            assert attempts == {ids[index] for index, each in expected.items() if each.attempts}
            assert dead == {ids[index] for index in self.model.dead.get(name, set())}

    def teardown(self) -> None:
        """Every hint leads to a claim in the end."""
        try:
            self.clock.ms = max(self.clock.ms, self.model.blocked + 3)
            waiting = set(self.model.hinted)
            looks = self.run(claim_all_of(self.workers[0].store))
            assert waiting <= {int(look.refund_id[-6:]) for look in looks}
        finally:
            for each in self.unfinished:
                self.run(finish(each))


class Looking(Machine):
    """Hints, claims, and what Amazon says."""

    looks: Bundle[Held] = Bundle("looks")
    waiting: Bundle[Waiting] = Bundle("waiting")
    messages: Bundle[Hint] = Bundle("messages")

    @initialize(times=st.integers(0, 1))
    def hope_for_news(self, times: int) -> None:
        """How often to ask again after a hint that brought nothing: seldom, so that refunds are soon dropped."""
        self.hope = times

    # What comes in

    @rule(target=messages, number=NUMBERS, worker=WORKERS)
    def hint(self, number: int, worker: int) -> Hint:
        self.sent += 1
        return self._hint(worker, number, f"m{self.sent}", "d", Noted.NEW)

    @rule(target=messages, message=messages, altered=st.booleans(), number=NUMBERS, worker=WORKERS)
    def hint_again(self, message: Hint, altered: bool, number: int, worker: int) -> Hint:
        """The same MessageId once more, with the same signed text or with another."""
        if altered:
            self.sent += 1
            return self._hint(worker, number, message.message_id, f"d{self.sent}", Noted.ALTERED)
        same = self.model.digests[message.message_id] == message.digest
        noted = Noted.REPEATED if same else Noted.ALTERED
        return self._hint(worker, int(message.refund_id[-6:]), message.message_id, message.digest, noted)

    @rule(number=NUMBERS, worker=WORKERS)
    def refresh(self, number: int, worker: int) -> None:
        self._hint(worker, number, "", "", Noted.NEW)

    def _hint(self, worker: int, number: int, message: str, digest: str, expected: Noted) -> Hint:
        now = self.workers[worker].now()
        source = Source.NOTIFICATION if message else Source.REFRESH
        hint = Hint(refund_id=refund_id(number), at=now, source=source, message_id=message, digest=digest)
        assert self.run(self.workers[worker].store.hint("us", hint)) is expected
        if expected is not Noted.REPEATED:
            self.model.hinted[number] = hint
            self.model.digests[message] = digest
        return hint

    # Who asks Amazon

    @rule(target=looks, worker=WORKERS)
    def claim_one(self, worker: int) -> Any:
        return self._claim(worker, 1)

    @rule(target=looks, worker=WORKERS)
    def claim_all(self, worker: int) -> Any:
        return self._claim(worker, 9)

    @rule(target=looks, held=looks, worker=WORKERS)
    def overtake(self, held: Held, worker: int) -> Any:
        """A hint and another claim, while the first is still busy."""
        self._hint(worker, held.number, "", "", Noted.NEW)
        return self._claim(worker, 9)

    @rule(held=looks, answer=ANSWERS, worker=WORKERS)
    def overtake_and_settle(self, held: Held, answer: Answer, worker: int) -> None:
        """The other is even done with it before the first has asked."""
        self._overtake(held, answer, worker)

    @rule(waiting=waiting, answer=ANSWERS, worker=WORKERS)
    def overtake_the_write(self, waiting: Waiting, answer: Answer, worker: int) -> None:
        """The other is done with it when the first is about to write what it has decided."""
        self._overtake(waiting.held, answer, worker)

    def _overtake(self, held: Held, answer: Answer, worker: int) -> None:
        self._hint(worker, held.number, "", "", Noted.NEW)
        for other in self._claim(worker, 9).values:
            self._settle(self._ask(other, answer))

    def _claim(self, worker: int, limit: int) -> Any:
        it, model = self.workers[worker], self.model
        now = it.now()
        taken = self.run(it.store.claim("us", "get_refund", lease=LEASE, burst=1e6, per_second=1e3, limit=limit))
        ready = {*model.hinted, *(number for number, at in model.due.items() if at <= now)}
        numbers = [int(look.refund_id[-6:]) for look in taken.looks]
        assert len(numbers) == len(set(numbers)) == (0 if now < model.blocked else min(limit, len(ready)))
        assert set(numbers) <= ready
        held = [self._taken(it, number, look, now) for number, look in zip(numbers, taken.looks, strict=True)]
        self._check_wait(taken, now)
        return multiple(*held)

    def _taken(self, it: Worker, number: int, look: Look, now: int) -> Held:
        model = self.model
        assert look.token >= now + LEASE
        if hint := model.hinted.pop(number, None):
            assert look.echo == Echo(hint.source, hint.at)
        self.claims += 1
        model.due[number], model.holder[number] = look.token, self.claims
        return Held(self.claims, it, number, look)

    def _check_wait(self, claimed: Claimed, now: int) -> None:
        model = self.model
        if model.hinted or any(at <= now for at in model.due.values()):
            assert claimed.wait == max(model.blocked - now, 0)
        else:
            assert claimed.wait == (min(model.due.values()) - now if model.due else None)

    @rule(target=waiting, held=consumes(looks), answer=ANSWERS)
    def ask(self, held: Held, answer: Answer) -> Waiting:
        """Ask Amazon, read what is known, decide; the write is still to come."""
        return self._ask(held, answer)

    def _ask(self, held: Held, answer: Answer) -> Waiting:
        gate = Gate()
        waiting = Waiting(held, answer, gate, self.run(self._begin(held, answer, gate)), self.hope)
        self._decide(waiting)
        assert gate.before == ("commit" if waiting.change else "reschedule")
        if answer == "throttled":
            self.model.blocked = max(self.model.blocked, waiting.now + PAUSE)
        self.unfinished.append(waiting)
        return waiting

    async def _begin(self, held: Held, answer: Answer, gate: Gate) -> asyncio.Task[None]:
        token = GATE.set(gate)
        task = asyncio.get_running_loop().create_task(held.worker.look(held.look, answer, self.hope))
        GATE.reset(token)
        reached = asyncio.get_running_loop().create_task(gate.reached.wait())
        async with asyncio.timeout(10):
            await asyncio.wait({task, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        return task

    @rule(waiting=consumes(waiting))
    def settle(self, waiting: Waiting) -> None:
        """The write of a look, by a holder that is in time or late."""
        self._settle(waiting)

    @rule(held=consumes(looks), answer=ANSWERS)
    def ask_and_settle(self, held: Held, answer: Answer) -> None:
        """The same without a pause in between."""
        self._settle(self._ask(held, answer))

    def _settle(self, waiting: Waiting) -> None:
        self.unfinished.remove(waiting)
        held, model = waiting.held, self.model
        number = held.number
        self.run(finish(waiting))
        if waiting.change and (waiting.known, waiting.version) != (model.known.get(number), model.version):
            self._decide(waiting)
        if waiting.change:
            model.write(number, *waiting.change)
        overtaken = not waiting.change and waiting.known != model.known.get(number) and not waiting.is_trouble
        if model.holder.get(number) == held.claim:
            model.holder[number] = 0
            if not overtaken:
                self._look_next(number, waiting.is_looked_at_again)
        elif waiting.change and number not in model.due:
            self._look_next(number, waiting.is_looked_at_again)

    def _decide(self, waiting: Waiting) -> None:
        """What the look makes of what is known now."""
        held, model = waiting.held, self.model
        waiting.now, waiting.version = held.worker.now(), model.version
        waiting.known = model.known.get(held.number)
        it = observation(waiting.answer, held.number)
        waiting.change = join(waiting.known, it, waiting.now, held.number) if it else None


class Telling(Machine):
    """Subscribers, and what is owed to them."""

    parcels: Bundle[tuple[int, Worker, int, Parcel]] = Bundle("parcels")

    @initialize()
    def the_first(self) -> None:
        """Somebody who wants to know everything."""
        self._put(subscriber(NAMES[0]), self.workers[0].store)

    @rule(it=SUBSCRIBERS, guess=SUBSCRIBERS, how=st.sampled_from(["put", "add", "change", "remove"]), worker=WORKERS)
    def resubscribe(self, it: Subscriber, guess: Subscriber, how: str, worker: int) -> None:
        store = self.workers[worker].store
        match how:
            case "put":
                self._put(it, store)
            case "add":
                self._add(it, store)
            case "change":
                self._change(it, guess, store)
            case _:
                self._remove(it.name, store)

    def _put(self, it: Subscriber, store: Store) -> None:
        self.run(store.put_subscriber("us", it))
        self._subscribed(it)

    def _add(self, it: Subscriber, store: Store) -> None:
        if self.model.subscribers.get(it.name) not in (None, it):
            with pytest.raises(Conflict):
                self.run(store.add_subscriber("us", it))
            return
        assert self.run(store.add_subscriber("us", it)) == ["0-0", *self.stream_ids][-1]
        self._subscribed(it)

    def _change(self, it: Subscriber, guess: Subscriber, store: Store) -> None:
        before = self.model.subscribers.get(it.name)
        claimed = before if before and not guess.paused else guess
        changed = self.run(store.change_subscriber("us", claimed, it))
        assert changed == (before is not None and before in (claimed, it))
        if changed:
            self._subscribed(it)

    def _remove(self, name: str, store: Store) -> None:
        model = self.model
        assert self.run(store.remove_subscriber("us", name)) == (name in model.subscribers)
        model.version += name in model.subscribers
        model.subscribers.pop(name, None)
        model.lanes.pop(name, None)
        model.dead.pop(name, None)

    def _subscribed(self, it: Subscriber) -> None:
        model = self.model
        model.version += model.subscribers.get(it.name) != it
        model.subscribers[it.name] = it
        model.lanes.setdefault(it.name, {})
        model.dead.setdefault(it.name, set())

    @rule(target=parcels, name=st.sampled_from(NAMES), limit=st.sampled_from([1, 9]), worker=WORKERS)
    def claim_lane(self, name: str, limit: int, worker: int) -> Any:
        return self._claim_lane(name, limit, worker)

    @rule(target=parcels, parcel=parcels, worker=WORKERS)
    def overtake_sender(self, parcel: tuple[int, Worker, int, Parcel], worker: int) -> Any:
        """The lease ends while the first is still sending, and another takes what is there."""
        self.clock.tick(LEASE + 6)
        return self._claim_lane(parcel[3].subscriber, 9, worker)

    def _claim_lane(self, name: str, limit: int, worker: int) -> Any:
        it, model = self.workers[worker], self.model
        now, lane = it.now(), model.lanes.get(name, {})
        ready = {index for index, owed in lane.items() if owed.at <= now}
        ids = self.stream_ids
        found = []
        for parcel in self.run(it.store.claim_lane("us", name, lease=LEASE, limit=limit)):
            index = ids.index(parcel.stream_id)
            ready.remove(index)
            self.claims += 1
            assert parcel.token >= now + LEASE
            assert parcel.attempts.count == lane[index].attempts
            assert told(parcel.fields) == model.events[index]
            lane[index].at, lane[index].holder = parcel.token, self.claims
            found.append((self.claims, it, index, parcel))
        assert len(found) == limit or not ready
        return multiple(*found)

    @rule(parcel=consumes(parcels), outcome=st.sampled_from(["delivered", "dead"]))
    def end(self, parcel: tuple[int, Worker, int, Parcel], outcome: str) -> None:
        _, it, index, what = parcel
        owed = self._owed(parcel)
        entry = DeadEvent(what.stream_id, "evt", "t", "r", "exhausted", T0, 12, "HTTP 500", "{}")
        held = self.run(it.store.delivered(what) if outcome == "delivered" else it.store.dead(what, entry))
        assert held == (owed is not None)
        if owed:
            del self.model.lanes[what.subscriber][index]
            if outcome == "dead":
                self.model.dead[what.subscriber].add(index)

    @rule(parcel=consumes(parcels), wait=st.sampled_from([1, PAUSE, LEASE]))
    def retry(self, parcel: tuple[int, Worker, int, Parcel], wait: int) -> None:
        _, it, _, what = parcel
        owed, at = self._owed(parcel), it.now() + wait
        held = self.run(it.store.retry(what, at, Attempts(count=what.attempts.count + 1)))
        assert held == (owed is not None)
        if owed:
            owed.at, owed.attempts, owed.holder = at, owed.attempts + 1, 0

    def _owed(self, parcel: tuple[int, Worker, int, Parcel]) -> Owed | None:
        """The event, if this claim still holds it."""
        claim, _, index, what = parcel
        owed = self.model.lanes.get(what.subscriber, {}).get(index)
        return owed if owed and owed.holder == claim else None


class Everything(Looking, Telling):
    """Both, so that subscribers come and go while something is about to be written."""


async def finish(waiting: Waiting) -> None:
    """Let it write."""
    waiting.gate.opened.set()
    async with asyncio.timeout(10):
        await waiting.task


async def claim_all_of(store: Store) -> list[Look]:
    claimed = await store.claim("us", "get_refund", lease=LEASE, burst=1e6, per_second=1e3, limit=99)
    return list(claimed.looks)


@pytest.fixture(scope="module")
def loop(valkey_url: str) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs the machines' work on one loop, with a client that belongs to it."""
    with asyncio.Runner() as runner, capture_logs():
        Machine.loop, Machine.client = staticmethod(runner.run), connect(valkey_url)
        yield runner.run
        runner.run(Machine.client.aclose())


@pytest.mark.parametrize("kind", [Looking, Telling, Everything])
@pytest.mark.usefixtures("loop")
def test_the_store_does_what_the_model_says(kind: type[Machine]) -> None:
    """Whatever happens in whatever order: nothing hinted, pending or owed is lost; nothing is told twice."""
    run_state_machine_as_test(kind, settings=SETTINGS)  # type: ignore[no-untyped-call]


PENDING, REFUNDED, DECLINED = (("RefundInitiated", ""), 0), (("Refunded", ""), 1), (("Declined", "AmazonRejected"), 2)


@pytest.fixture
def walk(loop: object) -> Iterator[Looking]:
    """The machine, to be led by hand on paths that chance seldom finds. At the end everything is compared."""
    machine = Looking()
    yield machine
    machine.everything_is_as_the_model_says()
    machine.teardown()


def claimed(walk: Looking) -> Held:
    walk.refresh(1, 0)
    (held,) = walk.claim_all(0).values
    return held  # type: ignore[no-any-return]


def test_a_late_first_sight_of_a_refund_that_others_gave_up_is_followed_up(walk: Looking) -> None:
    """The schedule is another's to change, but a pending refund must be in it."""
    slow = claimed(walk)
    walk.overtake_and_settle(slow, "not found", 1)
    assert walk.model.due == {}
    walk.ask_and_settle(slow, PENDING)
    assert 1 in walk.model.due


def test_a_refund_is_not_given_up_if_it_was_written_meanwhile(walk: Looking) -> None:
    """Who has read that nobody knows it, and finds it written when he gives it up, leaves it to the lease's end."""
    about_to_give_up = walk.ask(claimed(walk), "not found")
    walk.create(1, PENDING, 1)
    walk.settle(about_to_give_up)
    assert walk.model.due == {1: about_to_give_up.held.look.token}


def test_a_contradiction_is_watched_whoever_was_about_to_be_content(walk: Looking) -> None:
    """The same with a refund that was final, and turned out otherwise."""
    walk.create(1, REFUNDED, 1)
    content = walk.ask(claimed(walk), REFUNDED)
    walk.create(1, DECLINED, 1)
    walk.settle(content)
    assert 1 in walk.model.due


def test_two_who_have_read_the_same_write_one_after_the_other(walk: Looking) -> None:
    """The second finds the revision gone, and decides again."""
    first = walk.ask(claimed(walk), PENDING)
    walk.overtake_the_write(first, DECLINED, 1)
    walk.settle(first)
    assert [event.type for event in walk.model.events] == ["declined"]
