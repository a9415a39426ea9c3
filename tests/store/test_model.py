"""The store against a small model of it: any order of hints, claims, answers, subscribers and deliveries, by several
workers whose clocks differ a little, some of them slower than their lease.

A look stops before its write (`Gated`), so that whatever a slow worker has read can be out of date when it writes.
The model knows who holds what; it knows nothing of scores, tokens, revisions or scripts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

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

from receiver.errors import AmazonError, AmazonNotFound, AmazonRefused, AmazonThrottled, AmazonUnknown, Conflict
from receiver.exchange import Request, Response
from receiver.ledger import schedule
from receiver.ledger.hint import Hint, Noted
from receiver.ledger.refund import Observation, Source
from receiver.metrics import Metrics
from receiver.outbox.delivery import Attempts
from receiver.outbox.subscriber import Subscriber
from receiver.settle import Settler
from receiver.store import Store
from receiver.store.connection import connect
from receiver.store.lanes import DeadEvent, Parcel
from receiver.store.looks import Claimed, Echo, Look
from receiver.store.refunds import Commit, Committed
from receiver.track import Tracker
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

LEASE = 30_000
SKEWS = (0, 3, -3)
"""How far each worker's clock is ahead, ms."""
SETTINGS = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

NUMBERS = st.sampled_from((1, 1, 1, *REFUNDS))
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
OBSERVED = st.tuples(STATES, st.integers(0, 1))
TROUBLE = st.sampled_from([AmazonThrottled, AmazonUnknown, AmazonRefused])
ANSWERS = st.one_of(OBSERVED, OBSERVED, st.just(AmazonNotFound), TROUBLE)
Answer = tuple[tuple[str, str], int] | type[AmazonError]


def observation(answer: Answer, number: int) -> Observation | None:
    """What Amazon says; None where the answer says nothing about the refund."""
    if isinstance(answer, type):
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


ACCOUNT, METRICS = make_account(), Metrics()
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


class Asker(Tracker):
    """The verb itself, with an Amazon that says what it is told to say."""

    answer: Answer = AmazonUnknown

    async def ask(self, asked: str) -> Observation:
        found = observation(self.answer, int(asked[-6:]))
        if found is None and isinstance(self.answer, type):
            raise self.answer()
        if found is None:
            raise TypeError
        return found


class Skewed(ManualClock):
    """A worker's clock: the one of the test, and a little beside it."""

    def __init__(self, base: ManualClock, ahead: int) -> None:
        super().__init__()
        self.base, self.ahead = base, ahead

    def __call__(self) -> int:
        return self.base() + self.ahead


class Worker:
    """One process: a store with its own clock, and the verb on it."""

    def __init__(self, client: Redis, clock: ManualClock, ahead: int) -> None:
        self.store = Gated(client, clock=Skewed(clock, ahead))
        self.now = self.store.now
        self.account = ACCOUNT
        self.settler = Settler(self.store, chance)
        self.tracker = Asker(
            self.account, self.store, self.settler, no_web, METRICS, self.now, chance, lease=LEASE / 1000
        )


def chance() -> float:
    """Odd, so that no wait is as long as a lease: a time in the schedule must not look like a claim's token."""
    return 0.123


async def no_web(request: Request, *, timeout: float) -> Response:
    raise AssertionError("nothing here is sent")


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
    now: int = 0
    known: Known | None = None
    version: int = 0
    change: tuple[Known, list[Happening]] | None = None

    @property
    def is_trouble(self) -> bool:
        """Whether nothing was learned, so that the answer does not depend on what is known."""
        return isinstance(self.answer, type) and self.answer is not AmazonNotFound

    @property
    def is_looked_at_again(self) -> bool:
        """Pending refunds always; after a hint that brought nothing once more; after trouble always."""
        if self.change:
            return watched(self.change[0], self.now)
        echo = self.held.look.echo
        hopeful = echo is not None and echo.source is not Source.POLL
        if hopeful and echo and (echo.step < len(schedule.ECHO) or self.now < echo.due):
            return True
        return self.is_trouble or watched(self.known, self.now)


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

    @rule(number=NUMBERS, observed=OBSERVED, worker=WORKERS)
    def create(self, number: int, observed: Answer, worker: int) -> None:
        """What Amazon says to somebody who holds no claim, as the answer to Create Refund."""
        it, model = self.workers[worker], self.model
        found = observation(observed, number)
        assert found is not None
        settled = self.run(it.settler.settle(it.account, found, source=Source.CREATE))
        change = join(model.known.get(number), found, it.now(), number)
        assert settled.change.is_nothing == (change is None)
        if change:
            model.write(number, *change)
            if number not in model.due:
                self._look_next(number, watched(change[0], it.now()))

    # What passes by

    @rule(ms=st.sampled_from([1, 4, 5_000, LEASE - 1, LEASE, LEASE, LEASE, 600_000, DAY + 1]))
    def tick(self, ms: int) -> None:
        self.clock.tick(ms)

    @rule()
    def redis_forgets_its_scripts(self) -> None:
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

    @initialize(echo=st.sampled_from([(), (5_000,)]))
    def hope(self, echo: tuple[int, ...]) -> None:
        """How often to ask again after a hint that brought nothing new: seldom, so that refunds are soon dropped."""
        schedule.ECHO = echo  # type: ignore[assignment]

    # What comes in

    @rule(target=messages, number=NUMBERS, worker=WORKERS)
    def hint(self, number: int, worker: int) -> Hint:
        self.sent += 1
        return self._hint(worker, number, f"m{self.sent}", "d", Noted.NEW)

    @rule(message=messages, worker=WORKERS)
    def hint_again(self, message: Hint, worker: int) -> None:
        same = self.model.digests[message.message_id] == message.digest
        self._hint(
            worker,
            int(message.refund_id[-6:]),
            message.message_id,
            message.digest,
            Noted.REPEATED if same else Noted.ALTERED,
        )

    @rule(target=messages, message=messages, number=NUMBERS, worker=WORKERS)
    def hint_altered(self, message: Hint, number: int, worker: int) -> Hint:
        self.sent += 1
        return self._hint(worker, number, message.message_id, f"d{self.sent}", Noted.ALTERED)

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

    def _claim(self, worker: int, limit: int) -> Any:
        it, model = self.workers[worker], self.model
        now = it.now()
        claimed = self.run(it.store.claim("us", "get_refund", lease=LEASE, burst=1e6, per_second=1e3, limit=limit))
        ready = {*model.hinted, *(number for number, at in model.due.items() if at <= now)}
        numbers = [int(look.refund_id[-6:]) for look in claimed.looks]
        assert len(numbers) == len(set(numbers)) == (0 if now < model.blocked else min(limit, len(ready)))
        assert set(numbers) <= ready
        held = [self._taken(it, number, look, now) for number, look in zip(numbers, claimed.looks, strict=True)]
        self._check_wait(claimed, now)
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
        waiting = Waiting(held, answer, gate, self.run(self._begin(held, answer, gate)))
        self._decide(waiting)
        assert gate.before == ("commit" if waiting.change else "reschedule")
        if answer is AmazonThrottled:
            self.model.blocked = max(self.model.blocked, waiting.now + 5_000)
        self.unfinished.append(waiting)
        return waiting

    async def _begin(self, held: Held, answer: Answer, gate: Gate) -> asyncio.Task[None]:
        held.worker.tracker.answer = answer
        token = GATE.set(gate)
        task = asyncio.get_running_loop().create_task(held.worker.tracker.look(held.look))
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
        self.put_subscriber(subscriber(NAMES[0]), 0)

    @rule(it=SUBSCRIBERS, worker=WORKERS)
    def put_subscriber(self, it: Subscriber, worker: int) -> None:
        self.run(self.workers[worker].store.put_subscriber("us", it))
        self._subscribed(it)

    @rule(it=SUBSCRIBERS, worker=WORKERS)
    def add_subscriber(self, it: Subscriber, worker: int) -> None:
        store, before = self.workers[worker].store, self.model.subscribers.get(it.name)
        if before not in (None, it):
            with pytest.raises(Conflict):
                self.run(store.add_subscriber("us", it))
            return
        assert self.run(store.add_subscriber("us", it)) == ["0-0", *self.stream_ids][-1]
        self._subscribed(it)

    @rule(it=SUBSCRIBERS, guess=SUBSCRIBERS, right=st.booleans(), worker=WORKERS)
    def change_subscriber(self, it: Subscriber, guess: Subscriber, right: bool, worker: int) -> None:
        before = self.model.subscribers.get(it.name)
        claimed = before if right and before else guess
        changed = self.run(self.workers[worker].store.change_subscriber("us", claimed, it))
        assert changed == (before is not None and before in (claimed, it))
        if changed:
            self._subscribed(it)

    @rule(name=st.sampled_from(NAMES), worker=WORKERS)
    def remove_subscriber(self, name: str, worker: int) -> None:
        model = self.model
        assert self.run(self.workers[worker].store.remove_subscriber("us", name)) == (name in model.subscribers)
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

    @rule(target=parcels, name=st.sampled_from((NAMES[0], *NAMES)), limit=st.sampled_from([1, 9]), worker=WORKERS)
    def claim_lane(self, name: str, limit: int, worker: int) -> Any:
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
    def delivered_or_dead(self, parcel: tuple[int, Worker, int, Parcel], outcome: str) -> None:
        _, it, index, what = parcel
        owed = self._owed(parcel)
        entry = DeadEvent(what.stream_id, "evt", "t", "r", "exhausted", T0, 12, "HTTP 500", "{}")
        held = self.run(it.store.delivered(what) if outcome == "delivered" else it.store.dead(what, entry))
        assert held == (owed is not None)
        if owed:
            del self.model.lanes[what.subscriber][index]
            if outcome == "dead":
                self.model.dead[what.subscriber].add(index)

    @rule(parcel=consumes(parcels), wait=st.sampled_from([1, 5_000, LEASE]))
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


@pytest.mark.parametrize("kind", [Looking, Telling, Everything])
def test_the_store_does_what_the_model_says(
    kind: type[Machine], valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens in whatever order: nothing hinted, pending or owed is lost; nothing is told twice."""
    monkeypatch.setattr(schedule, "ECHO", schedule.ECHO)  # put back at the end what `hope` sets
    with asyncio.Runner() as runner, capture_logs():
        client = connect(valkey_url)
        machine = type(kind.__name__, (kind,), {"loop": staticmethod(runner.run), "client": client})
        try:
            run_state_machine_as_test(machine, settings=SETTINGS)
        finally:
            runner.run(client.aclose())
