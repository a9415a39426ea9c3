"""The store and its model, as state machines: every rule does the same to both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from receiver.errors import Conflict
from receiver.ledger.next_look import DueRefund, FollowUp
from receiver.ledger.notification import Hint, HintResult
from receiver.ledger.refund import Source
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.runtime.rounds import Claim
from receiver.store import Store
from tests.kit.clock import T0, ManualClock
from tests.store.makers import refund_id, subscriber
from tests.store.model import (
    DAY,
    KEY,
    NAMES,
    REFUNDS,
    TYPE,
    DiagnosticsSource,
    Model,
    Owed,
    join,
    look_into,
    told,
    watched,
)
from tests.store.workers import (
    ACCOUNT,
    CHARGE_TOLD,
    GATE,
    LEASE,
    PAUSE,
    Answer,
    Gate,
    Held,
    Waiting,
    Worker,
    finish,
    observation,
)

T = TypeVar("T")

SKEWS = (0, 3, -3)
"""How far each worker's clock is ahead, ms."""

NUMBERS = st.sampled_from((1, 1, 1, 2))
SELDOM = st.integers(0, 7).map(lambda it: it == 7)
WORKERS = st.sampled_from(range(len(SKEWS)))
SUBSCRIBERS = st.builds(
    subscriber,
    name=st.sampled_from(NAMES),
    types=st.sampled_from([("*",), (f"{TYPE}declined",), (f"{TYPE}refunded", f"{TYPE}initiated", f"{TYPE}conflict")]),
    reasons=st.sampled_from([(), ("BuyerAccountClosed",)]),
    paused=st.booleans(),
)
STATES = st.sampled_from(
    [
        ("RefundInitiated", ""),
        ("RefundInitiated", ""),
        ("OnTheMoon", ""),
        ("Refunded", ""),
        ("Declined", "BuyerAccountClosed"),
        ("Declined", "ProcessingFailure"),
    ]
)
OBSERVED = st.tuples(STATES, st.integers(0, 6))
ANSWERS = st.one_of(OBSERVED, OBSERVED, st.just("not found"), st.sampled_from(["throttled", "failed"]))


class Machine(RuleBasedStateMachine):
    """Each rule does the same to the store and to the model, and compares the answers. Everything else is compared
    after every rule."""

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
        """What Amazon says to a caller without a claim, as the answer to Create Refund."""
        it, model = self.workers[worker], self.model
        found = observation(observed, number)
        assert found is not None
        settled = self.run(it.recorder.record(ACCOUNT, found, source=Source.CREATE, details=CHARGE_TOLD))
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

    def _schedule_is_right(self, redis: DiagnosticsSource) -> None:
        """Late workers do not change it, and every pending refund will be polled."""
        assert redis.due == self.model.due
        assert redis.hinted == self.model.told
        assert redis.refreshed == set(self.model.refreshed)
        pending = {number for number, known in self.model.known.items() if known.pending}
        assert pending <= redis.due.keys() | redis.hinted | redis.refreshed

    def _refunds_are_the_join(self, redis: DiagnosticsSource) -> None:
        assert redis.refunds.keys() == self.model.known.keys()
        for number, known in self.model.known.items():
            refund, lines = redis.refunds[number], redis.histories[number]
            assert (refund.state, refund.updated_at, refund.reason_code) == (known.state, known.updated, known.reason)
            assert (refund.revision, refund.conflict) == (known.revision, known.conflict)
            assert (refund.first_seen_at, refund.changed_at) == (known.first_seen, known.changed)
            assert {each.rpartition(".")[2] for each in refund.emitted} == known.told
            assert [line.revision for line in lines] == list(range(1, known.revision + 1))
            assert (lines[-1].state, lines[-1].at) == (known.state, known.changed)

    def _events_are_told_once(self, redis: DiagnosticsSource) -> None:
        assert [told(fields) for _, fields in redis.events] == self.model.events
        ids = [fields["id"] for _, fields in redis.events]
        assert ids == [each.id for each in self.model.events]
        assert len(set(ids)) == len(ids)

    def _lanes_hold_what_is_owed(self, redis: DiagnosticsSource) -> None:
        ids = self.stream_ids = [stream_id for stream_id, _ in redis.events]
        for name, (queue, owed, attempts, dead) in redis.queues.items():
            expected = self.model.queues.get(name, {})
            assert queue == {ids[index]: each.at for index, each in expected.items()}
            assert owed == sorted(f"{ms:0>15}-{seq:0>20}" for ms, seq in (each.split("-") for each in queue))
            assert attempts == {ids[index] for index, each in expected.items() if each.attempts}
            assert dead == {ids[index] for index in self.model.dead.get(name, set())}

    def teardown(self) -> None:
        """Every hint leads to a claim in the end."""
        try:
            asked = max(self.model.refreshed.values(), default=0)
            self.clock.ms = max(self.clock.ms, self.model.blocked + 3, asked + 10)
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
        return self._hint(worker, number, f"m{self.sent}", "d", HintResult.NEW)

    @rule(target=messages, message=messages, altered=st.booleans(), number=NUMBERS, worker=WORKERS)
    def hint_again(self, message: Hint, altered: bool, number: int, worker: int) -> Hint:
        """The same MessageId once more, with the same signed text or with another."""
        if altered:
            self.sent += 1
            return self._hint(worker, number, message.message_id, f"d{self.sent}", HintResult.ALTERED)
        same = self.model.digests[message.message_id] == message.digest
        noted = HintResult.REPEATED if same else HintResult.ALTERED
        return self._hint(worker, int(message.refund_id[-6:]), message.message_id, message.digest, noted)

    @rule(number=NUMBERS, worker=WORKERS)
    def refresh(self, number: int, worker: int) -> None:
        self._hint(worker, number, "", "", HintResult.NEW)

    def _hint(self, worker: int, number: int, message: str, digest: str, expected: HintResult) -> Hint:
        now = self.workers[worker].now()
        source = Source.NOTIFICATION if message else Source.REFRESH
        hint = Hint(refund_id=refund_id(number), at=now, source=source, message_id=message, digest=digest)
        assert self.run(self.workers[worker].store.of("us").schedule.hint(hint)) is expected
        if expected is not HintResult.REPEATED:
            self.model.hinted[number] = hint
            if source is Source.REFRESH:
                self.model.refreshed.setdefault(number, now)
            else:
                self.model.told.add(number)
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
        self._hint(worker, held.number, "", "", HintResult.NEW)
        return self._claim(worker, 9)

    @rule(held=looks, answer=ANSWERS, worker=WORKERS)
    def overtake_and_settle(self, held: Held, answer: Answer, worker: int) -> None:
        """The other is even done with it before the first has asked."""
        self._overtake(held, answer, worker)

    @rule(waiting=waiting, answer=ANSWERS, worker=WORKERS)
    def overtake_the_write(self, waiting: Waiting, answer: Answer, worker: int) -> None:
        """Another worker finishes before the first one writes its decision."""
        self._overtake(waiting.held, answer, worker)

    def _overtake(self, held: Held, answer: Answer, worker: int) -> None:
        self._hint(worker, held.number, "", "", HintResult.NEW)
        for other in self._claim(worker, 9).values:
            self._finish(self._ask(other, answer))

    def _claim(self, worker: int, limit: int) -> Any:
        it, model = self.workers[worker], self.model
        now = it.now()
        taken = self.run(
            it.store.of("us").schedule.claim("get_refund", lease=LEASE, burst=1e6, per_second=1e9, limit=limit)
        )
        scheduled = [*model.due.items(), *model.refreshed.items()]
        ready = {*model.told, *(number for number, at in scheduled if at <= now)}
        numbers = [int(look.refund_id[-6:]) for look in taken.items]
        assert len(numbers) == len(set(numbers)) == (0 if now < model.blocked else min(limit, len(ready)))
        assert set(numbers) <= ready
        held = [self._taken(it, number, look, now) for number, look in zip(numbers, taken.items, strict=True)]
        self._check_wait(taken, now)
        return multiple(*held)

    def _taken(self, it: Worker, number: int, look: DueRefund, now: int) -> Held:
        model = self.model
        assert look.token >= now + LEASE
        model.told.discard(number)
        model.refreshed.pop(number, None)
        if hint := model.hinted.pop(number, None):
            # A refresh leaves the memory of a notification alone while the refund is not known.
            kept = hint.source is Source.REFRESH and look.source is Source.NOTIFICATION
            assert kept or look.follow_up == FollowUp(hint.source, hint.at)
        self.claims += 1
        model.due[number], model.holder[number] = look.token, self.claims
        return Held(self.claims, it, number, look)

    def _check_wait(self, claimed: Claim[DueRefund], now: int) -> None:
        model = self.model
        times = [*model.due.values(), *model.refreshed.values()]
        if model.told or any(at <= now for at in times):
            assert claimed.wait == max(model.blocked - now, 0)
        else:
            assert claimed.wait == (min(times) - now if times else None)

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
        async with asyncio.timeout(30):
            await asyncio.wait({task, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        return task

    @rule(waiting=consumes(waiting))
    def settle(self, waiting: Waiting) -> None:
        """The write of a look, by a holder that is in time or late."""
        self._finish(waiting)

    @rule(held=consumes(looks), answer=ANSWERS)
    def ask_and_settle(self, held: Held, answer: Answer) -> None:
        """The same without a pause in between."""
        self._finish(self._ask(held, answer))

    def _finish(self, waiting: Waiting) -> None:
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
        """Decide by what is known now."""
        held, model = waiting.held, self.model
        waiting.now, waiting.version = held.worker.now(), model.version
        waiting.known = model.known.get(held.number)
        it = observation(waiting.answer, held.number)
        waiting.change = join(waiting.known, it, waiting.now, held.number) if it else None


class Telling(Machine):
    """Subscribers, and what is owed to them."""

    deliveries: Bundle[tuple[int, Worker, int, ClaimedDelivery]] = Bundle("parcels")

    @initialize()
    def the_first(self) -> None:
        """A subscriber to everything."""
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
        self.run(store.of("us").subscribers.put(it))
        self._subscribed(it)

    def _add(self, it: Subscriber, store: Store) -> None:
        if self.model.subscribers.get(it.name) not in (None, it):
            with pytest.raises(Conflict):
                self.run(store.of("us").subscribers.add(it))
            return
        assert self.run(store.of("us").subscribers.add(it)) == ["0-0", *self.stream_ids][-1]
        self._subscribed(it)

    def _change(self, it: Subscriber, guess: Subscriber, store: Store) -> None:
        before = self.model.subscribers.get(it.name)
        claimed = before if before and not guess.paused else guess
        changed = self.run(store.of("us").subscribers.change(claimed, it))
        assert changed == (before is not None and before in (claimed, it))
        if changed:
            self._subscribed(it)

    def _remove(self, name: str, store: Store) -> None:
        model = self.model
        assert self.run(store.of("us").subscribers.remove(name)) == (name in model.subscribers)
        model.version += name in model.subscribers
        model.subscribers.pop(name, None)
        model.queues.pop(name, None)
        model.dead.pop(name, None)

    def _subscribed(self, it: Subscriber) -> None:
        model = self.model
        model.version += model.subscribers.get(it.name) != it
        model.subscribers[it.name] = it
        model.queues.setdefault(it.name, {})
        model.dead.setdefault(it.name, set())

    @rule(target=deliveries, name=st.sampled_from(NAMES), limit=st.sampled_from([1, 9]), worker=WORKERS)
    def claim_deliveries(self, name: str, limit: int, worker: int) -> Any:
        return self._claim_deliveries(name, limit, worker)

    @rule(target=deliveries, delivery=deliveries, worker=WORKERS)
    def overtake_sender(self, delivery: tuple[int, Worker, int, ClaimedDelivery], worker: int) -> Any:
        """The lease expires while the first one is still sending, and another claims the deliveries."""
        self.clock.tick(LEASE + 6)
        return self._claim_deliveries(delivery[3].subscriber, 9, worker)

    def _claim_deliveries(self, name: str, limit: int, worker: int) -> Any:
        it, model = self.workers[worker], self.model
        now, queue = it.now(), model.queues.get(name, {})
        ready = {index for index, owed in queue.items() if owed.at <= now}
        ids = self.stream_ids
        found = []
        for delivery in self.run(it.store.of("us").deliveries.claim(name, lease=LEASE, limit=limit)).items:
            index = ids.index(delivery.stream_id)
            ready.remove(index)
            self.claims += 1
            assert delivery.token >= now + LEASE
            assert delivery.attempts.count == queue[index].attempts
            assert told(delivery.fields) == model.events[index]
            queue[index].at, queue[index].holder = delivery.token, self.claims
            found.append((self.claims, it, index, delivery))
        assert len(found) == limit or not ready
        return multiple(*found)

    @rule(delivery=consumes(deliveries), outcome=st.sampled_from(["delivered", "dead"]))
    def end(self, delivery: tuple[int, Worker, int, ClaimedDelivery], outcome: str) -> None:
        _, it, index, what = delivery
        owed = self._owed(delivery)
        entry = DeadEvent(what.stream_id, "evt", "t", "r", "exhausted", T0, 12, "HTTP 500")
        held = self.run(
            it.store.of(what.account).deliveries.delivered(what)
            if outcome == "delivered"
            else it.store.of(what.account).deliveries.dead(what, entry)
        )
        assert held == (owed is not None)
        if owed:
            del self.model.queues[what.subscriber][index]
            if outcome == "dead":
                self.model.dead[what.subscriber].add(index)

    @rule(delivery=consumes(deliveries), wait=st.sampled_from([1, PAUSE, LEASE]))
    def retry(self, delivery: tuple[int, Worker, int, ClaimedDelivery], wait: int) -> None:
        _, it, _, what = delivery
        owed, at = self._owed(delivery), it.now() + wait
        held = self.run(
            it.store.of(what.account).deliveries.retry(what, at, DeliveryAttempts(count=what.attempts.count + 1))
        )
        assert held == (owed is not None)
        if owed:
            owed.at, owed.attempts, owed.holder = at, owed.attempts + 1, 0

    def _owed(self, delivery: tuple[int, Worker, int, ClaimedDelivery]) -> Owed | None:
        """The event, if this claim still holds it."""
        claim, _, index, what = delivery
        owed = self.model.queues.get(what.subscriber, {}).get(index)
        return owed if owed and owed.holder == claim else None


class Everything(Looking, Telling):
    """Both, so that subscribers come and go while something is about to be written."""


async def claim_all_of(store: Store) -> list[DueRefund]:
    claimed = await store.of("us").schedule.claim("get_refund", lease=LEASE, burst=1e6, per_second=1e9, limit=99)
    return list(claimed.items)
