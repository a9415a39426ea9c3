"""A key of a foreign type, for every key of the catalogue: it is named, nothing is half written, and others go on."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from receiver.amazon.account import Account
from receiver.amazon.throttle import Bucket
from receiver.deliver.retention import Retention
from receiver.errors import StoreUnavailable
from receiver.ledger.audit import Actor
from receiver.ledger.charge_book import Guard
from receiver.ledger.declines.job import REISSUED, Item, Job, JobState, Selection
from receiver.ledger.dispute import Dispute, permission_of
from receiver.ledger.money import Money
from receiver.ledger.next_look import DisputeLook
from receiver.ledger.notification import UnrecognizedNotification
from receiver.ledger.query import Query
from receiver.ledger.reconciliation.rows import Period, RefundRow, SettlementRow
from receiver.ledger.reconciliation.run import Batch
from receiver.ledger.refund import Source
from receiver.ledger.refund_request import PreparedRefund
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.events.operator_event import OperatorType, operator_event
from receiver.outbox.retries import DeliveryAttempts
from receiver.runtime.metrics import Metrics
from receiver.service import system_clock
from receiver.store import Store
from receiver.store.deliveries.queues import AttemptEffects
from receiver.store.redis.base import RedisRepository
from receiver.store.redis.damage import WrongType
from receiver.store.redis.keys import (
    CATALOGUE,
    FORMAT,
    RESTORED,
    STORE_KEYS,
    SUBSCRIBER_KINDS,
    Keys,
    KeyScope,
    read_kind,
    read_name,
    type_of,
)
from receiver.store.redis.pipeline import connect
from receiver.store.redis.scripts import script, texts
from receiver.store.requests.requests import Attempt
from receiver.track.reconcile import Reconciler
from receiver.track.record import Recorder
from tests.kit.clock import ManualClock
from tests.store.makers import hint, refund_id, seen, subscriber

CHARGE = "S01-5105180-3221187-C056351"
DAY = 86_400_000
Work = Callable[[], Awaitable[Any]]
ANSWERING = {"probe", "doctor", "aside", "replaced", "pulse"}
"""Kinds of keys that no operation reads: those of probes, samples, and recorded damage."""


@pytest.fixture
def clock() -> ManualClock:
    """At the machine's time, as stream ids are."""
    return ManualClock(system_clock())


@pytest.fixture
async def store(redis: Any, valkey_url: str, clock: ManualClock) -> AsyncIterator[Store]:
    """A store of two accounts."""
    store = Store(connect(valkey_url), clock=clock)
    store.connection.accounts = ["us", "eu"]
    yield store
    await store.close()


async def dump(redis: Any) -> dict[bytes, bytes]:
    return {name: await redis.dump(name) for name in await redis.keys("*")}


def an_order(request: str) -> PreparedRefund:
    return PreparedRefund(
        id=request, digest="d", amazon_key="k", body=b"{}", charge_id=CHARGE, money=Money(Decimal("1.00"), "USD")
    )


class Shop:
    """Everything that the store does for one account, piece by piece; each can be done again."""

    def __init__(self, store: Store, account: Account) -> None:
        self.store, self.account, self.name = store, account, account.name
        self.recorder = Recorder(store, lambda: 0.0)
        self.count = 100

    def works(self) -> dict[str, Work]:
        return {
            "track": self.track,
            "subscribe": self.subscribe,
            "deliver": self.deliver,
            "issue": self.issue,
            "dispute": self.dispute,
            "fps": self.fps,
            "reconcile": self.reconcile,
            "jobs": self.jobs,
            "watch": self.watch,
            "tidy": self.tidy,
        }

    def _next(self) -> int:
        self.count += 1
        return self.count

    async def subscribe(self) -> None:
        """Two subscribers, and operators."""
        for name in ("finance", "other"):
            await self.store.of(self.name).subscribers.put(subscriber(name, types=("*", "receiver.*")), 0)
        event = operator_event(OperatorType.PAUSED, self.name, "x", "gone", "Gone.", self._next())
        before = subscriber("ops", created_at=self.count)
        await self.store.of(self.name).subscribers.put(before)
        await self.store.of(self.name).subscribers.change(
            before, subscriber("ops", created_at=self._next()), operator_events=[event]
        )

    async def track(self) -> None:
        """A notification, its look, and what becomes of it."""
        number = self._next()
        await self.store.of(self.name).schedule.hint(hint(number, at=self.store.now(), message=f"m{number}"))
        claimed = await claim_of(self.store, self.name)
        for look in claimed.items:
            told = seen("Declined", int(look.refund_id[-6:]), "AmazonRejected", self.store.now())
            await self.recorder.record(self.account, told, source=look.source, token=look.token, details=FACTS)
            await self.store.of(self.name).refunds.history(look.refund_id)
            await self.store.of(self.name).timelines.read(look.refund_id)
        await self.store.of(self.name).requests.take_token("get_charge", 10, 10)
        await self.store.of(self.name).requests.kept_charge(CHARGE)

    async def deliver(self) -> None:
        """Of each lane one is delivered, one dies, one is tried again, and a test is sent."""
        for name in ("finance", "other"):
            with contextlib.suppress(WrongType):
                await self._deliver(name)

    async def _deliver(self, name: str) -> None:
        store = self.store
        await store.of(self.name).deliveries.enqueue_test(name, f"{store.now()}-{self._next()}", {"id": "t"})
        deliveries = list((await store.of(self.name).deliveries.claim(name, lease=30_000, limit=8)).items)
        if deliveries:
            await store.of("us").deliveries.tested(deliveries.pop(0), b"{}", AttemptEffects())
        for delivery, what in zip(deliveries, ("delivered", "dead", "retry"), strict=False):
            if what == "delivered":
                await store.of(delivery.account).deliveries.delivered(delivery)
            elif what == "retry":
                await store.of(delivery.account).deliveries.retry(delivery, store.now() + 1, DeliveryAttempts(count=1))
            else:
                dead = DeadEvent(delivery.stream_id, "e", "t", "r", "exhausted", 1, 1, "no")
                await store.of(delivery.account).deliveries.dead(
                    delivery, dead, AttemptEffects(failed=True, error="no")
                )
                await store.of(self.name).deliveries.redrive(name, [delivery.stream_id])

    async def issue(self) -> None:
        """A refund is issued, and another one refused after an unclear try."""
        store, order = self.store, an_order(f"r{self._next()}")
        reserved = await store.of(self.name).requests.reserve(
            order, owner=order.id, guard=Guard(10**9, 0), lease=30_000
        )
        assert isinstance(reserved, Attempt)
        attempt = Attempt(order.id, reserved.token)
        await store.of(self.name).requests.begin(attempt, order)
        await store.of(self.name).requests.done(attempt, order, refund_id(self._next()), "Refunded")
        await store.of(self.name).requests.claim(lease=1, limit=1)
        await store.of(self.name).requests.request_sizes()
        await store.of(self.name).requests.refund_owner(CHARGE)

    async def dispute(self) -> None:
        """A dispute that the merchant has won is notified, asked about, and made due again."""
        disputes, now, permission = self.store.of(self.name).disputes, self.store.now(), permission_of(CHARGE)
        told = Dispute(
            dispute_id=f"{permission}-B000001", charge_permission_id=permission,
            state="Closed", resolution="MerchantWon", told_at=now, asked_at=now,
        )  # fmt: skip
        await disputes.record(told, message_id=f"d{self._next()}", digest="d")
        for due in (await disputes.claim(Bucket(10, 10), lease=30_000, limit=1)).items:
            stored = await disputes.stored(due)
            assert stored is not None
            await disputes.finish(due, stored, DisputeLook(stored.dispute, now), None, 0)
        await disputes.ask_again([told])

    async def fps(self) -> None:
        await self.store.of(self.name).fps.claim(lease=1, limit=1)
        await self.store.of(self.name).fps.get("ref")

    async def jobs(self) -> None:
        """A job reissues a refund, and ends."""
        jobs, now = self.store.of(self.name).jobs, self.store.now()
        money = Money(Decimal("1.00"), "USD")
        job = Job(
            id="j",
            account=self.name,
            state=JobState.RUNNING,
            selection=Selection(),
            actor=Actor(),
            created_at=now,
            changed_at=now,
            total=1,
            sums=(money,),
        )
        item = Item(number=0, refund_id="r", root="r", amount=money)
        await jobs.create(job, [item])
        for attempt in (await jobs.claim(lease=30_000, limit=1)).items:
            await jobs.todo(attempt.id)
            await jobs.record(attempt, [msgspec.structs.replace(item, outcome=REISSUED)], lease=30_000)
            await jobs.outcomes(attempt.id)
            await jobs.move(attempt.id, JobState.DONE, of=[JobState.RUNNING])

    async def reconcile(self) -> None:
        """A report has an unknown refund, and later it is explained."""
        findings, now = self.store.of(self.name).findings, self.store.now()
        reconciler = Reconciler(self.account, self.store.of(self.name), Metrics())
        name, money = refund_id(900_000 + self._next()), Money(Decimal("1.00"), "USD")
        rows = (RefundRow(refund_id=name, state="Refunded"), SettlementRow(refund_id=name, amount=money))
        await reconciler.compare(Batch(rows=rows))
        period = Period(report="refunds", start=now - DAY, end=now)
        await reconciler.compare(Batch(is_last=True, periods=(period,)))
        for stored in (await findings.stored([f"unknown_here {name}"])).values():
            await findings.close(stored)
        await findings.closed()

    async def watch(self) -> None:
        """Lists, the feed, notifications that are kept."""
        for query in (Query(), Query(order="o"), Query(reason="AmazonRejected")):
            await self.store.of(self.name).refunds.page(query)
        await self.store.of(self.name).feed.events_after("beginning", 10)
        kept = UnrecognizedNotification("d" * 64, f"k{self._next()}", "t", 1, self.store.now(), "p", ("us",), (), 0, 1)
        await self.store.of(self.name).notifications.keep(kept, "message")
        await self.store.of(self.name).notifications.get(kept.message_id)
        await self.store.of(self.name).gauges.measure()

    async def tidy(self) -> None:
        await Retention(self.store.of(self.name), Metrics(), 30 * DAY, 60 * DAY).round()
        await self.store.format._catch_up()
        await self.store.format.ensure()


FACTS: Any = {"charge_read": True, "order_reference": "o", "retryable": "no"}


async def claim_of(store: Store, account: str) -> Any:
    return await store.of(account).schedule.claim("get_refund", lease=30_000, burst=100, per_second=100, limit=8)


async def attempt(work: Work) -> StoreUnavailable | None:
    try:
        await work()
    except StoreUnavailable as error:
        return error
    return None


def names_of(shop: Shop) -> dict[str, str]:
    """A key of each kind, as the shop will use it next."""
    keys, number = Keys(shop.name), shop.count + 1
    refund = refund_id(number)
    of = {
        KeyScope.SUBSCRIBER: "finance",
        KeyScope.REFUND: refund,
        KeyScope.CHARGE: CHARGE,
        KeyScope.CHARGE_PERMISSION: permission_of(CHARGE),
        KeyScope.CALL: "get_refund",
        KeyScope.MESSAGE: f"m{number}",
        KeyScope.TEST: "x",
        KeyScope.JOB: "j",
    }
    found = {
        kind: keys(kind, of[entry.scope]) if entry.scope in of else keys(kind)
        for kind, entry in CATALOGUE.items()
        if kind not in ANSWERING and entry.scope not in (KeyScope.INDEX, KeyScope.REQUEST)
    }
    found |= {"state": keys.state("Declined"), "reason": keys("reason", "AmazonRejected"), "order": keys("order", "o")}
    found |= {"findings": keys("findings", "unknown_here")}
    found |= {"requests": keys("requests", f"r{number}"), "fps": keys("fps", "ref")}
    return found


KINDS = sorted(set(CATALOGUE) - ANSWERING - {"tested", "requests"})


async def first_day(shops: list[Shop]) -> None:
    for shop in shops:
        for work in (
            shop.subscribe,
            shop.track,
            shop.track,
            shop.track,
            shop.issue,
            shop.deliver,
            shop.jobs,
            shop.watch,
            shop.tidy,
        ):
            await work()


@pytest.fixture
async def shops(store: Store, account: Account, redis: Any) -> list[Shop]:
    found = [Shop(store, account), Shop(store, replace(account, name="eu"))]
    await redis.set(RESTORED, "a restore")
    await first_day(found)
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_a_foreign_key_is_named_and_nothing_is_half_written(
    kind: str, shops: list[Shop], store: Store, redis: Any, clock: ManualClock
) -> None:
    us, eu = shops
    key = names_of(us)[kind]
    foreign_type = "set"
    if await redis.exists(key):
        await redis.rename(key, "kept")
    await redis.sadd(key, "not ours")
    whole = await redis.dump(key)
    with capture_logs() as logs:
        for work in us.works().values():
            error = await attempt(work)
            if isinstance(error, WrongType):
                assert error.key == key
                assert f"{key} holds a {foreign_type}, and should be a {type_of(key)}" in str(error) or not error.part
            assert error is None or isinstance(error, WrongType), error
            assert await redis.dump(key) == whole, "what is not ours stays as it is"
        for work in eu.works().values():
            assert await attempt(work) is None, "the other merchant"
        foreign = await store.inspection.check_keys()
    told = [line for line in logs if line["event"] == "store.wrong_type"]
    assert {line["key"] for line in told} == {key}
    assert (told[0]["should_be"], told[0]["log_level"]) == (type_of(key), "error")
    assert [each.key for each in foreign] == [key]
    await redis.delete(key)
    if await redis.exists("kept"):
        await redis.rename("kept", key)
    assert await store.inspection.check_keys() == []
    clock.tick(DAY)
    for work in us.works().values():
        assert await attempt(work) is None, "it is well again"


def test_scripts_name_keys_of_the_catalogue_and_as_many_as_they_use() -> None:
    for name in texts().keys() - {"prelude", "helpers"}:
        lua, of = script(name), defaultdict[str, str](lambda: "x")
        named = lua.names(Keys("us"), of)
        assert {read_kind(key) for key in named} >= set(lua.optional), name
        assert "" not in map(read_kind, named), name
        body = texts()[name].decode()
        used = [int(number) for number in re.findall(r"KEYS\[([0-9]+)\]", body)]
        assert not named or max(used, default=0) <= len(named) or "then" in body, name


async def test_no_script_writes_anything_while_a_key_is_foreign(
    shops: list[Shop], store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of a script in a whole day, with each of its keys foreign in turn: the whole of Redis is compared."""
    real, tried = RedisRepository._run, set[tuple[str, str]]()

    async def run(repository: RedisRepository, name: str, keys: list[str], args: Any, **how: Any) -> Any:
        for key in dict.fromkeys(keys):
            mark = (name, read_kind(key))
            if mark in tried or mark[1] in how.get("without", ()):
                continue
            tried.add(mark)
            there = await redis.exists(key)
            if there:
                await redis.rename(key, "kept")
            await redis.sadd(key, "not ours")
            before = await dump(redis)
            with pytest.raises(WrongType) as caught:
                await real(repository, name, keys, args, **how)
            assert caught.value.key == key
            assert await dump(redis) == before
            await redis.delete(key)
            if there:
                await redis.rename("kept", key)
        return await real(repository, name, keys, args, **how)

    monkeypatch.setattr(RedisRepository, "_run", run)
    us = shops[0]
    for _ in range(2):
        for work in us.works().values():
            await work()
    assert len({name for name, _ in tried}) >= 14


async def test_the_others_are_told_while_one_subscribers_lane_is_foreign_and_it_is_told_afterwards(
    shops: list[Shop], store: Store, redis: Any
) -> None:
    us = shops[0]
    for kind in ("lane", "owed"):
        key = Keys("us")(kind, "finance")
        for delivery in (await store.of("us").deliveries.claim("other", lease=1, limit=100)).items:
            await store.of(delivery.account).deliveries.delivered(delivery)
        await redis.delete(key)
        await redis.set(key, "not ours")
        us.count = number = us.count + 1
        told = seen("Declined", number, "AmazonRejected", store.now())
        await us.recorder.record(us.account, told, source=Source.POLL, details=FACTS)
        await Retention(store.of("us"), Metrics(), 30 * DAY, 60 * DAY).round()
        others = (await store.of("us").deliveries.claim("other", lease=1, limit=100)).items
        assert refund_id(number) in [
            delivery.fields["refundId"] for delivery in others if "refundId" in delivery.fields
        ]
        with pytest.raises(WrongType):
            await store.of("us").deliveries.claim("finance", lease=1, limit=100)
        await redis.delete(key)
        await Retention(store.of("us"), Metrics(), 30 * DAY, 60 * DAY).round()
        mine = (await store.of("us").deliveries.claim("finance", lease=1, limit=100)).items
        assert [delivery.fields.get("refundId") for delivery in mine].count(refund_id(number)) == 1


async def test_a_new_subscriber_does_not_begin_on_a_foreign_key(store: Store, redis: Any) -> None:
    for kind in SUBSCRIBER_KINDS:
        key = Keys("us")(kind, "new")
        await redis.set(key, "not ours")
        before = await dump(redis)
        with pytest.raises(WrongType, match=key):
            await store.of("us").subscribers.add(subscriber("new"))
        assert await dump(redis) == before
        await redis.delete(key)


async def test_every_key_of_a_whole_day_is_in_the_catalogue(shops: list[Shop], store: Store, redis: Any) -> None:
    keys = [key.decode() for key in await redis.keys("*")]
    assert [key for key in keys if read_name(key) is None] == []
    for key in keys:
        assert (await redis.type(key)).decode() == type_of(key)
    assert await store.inspection.inspect() == []
    assert (store.damage.foreign, store.damage.records) == ([], {})


def test_a_key_that_is_not_in_the_catalogue_cannot_be_made() -> None:
    with pytest.raises(KeyError):
        Keys("us")("forgotten")
    with pytest.raises(KeyError):
        type_of("refunds:{us}:forgotten")


def test_every_kind_has_an_account_of_itself() -> None:
    for kind, entry in {**CATALOGUE, **STORE_KEYS}.items():
        assert all((entry.holds, entry.removed_with)), kind
        assert re.fullmatch(r"[a-z_]+(:[a-z]+)?", kind)
    assert STORE_KEYS[FORMAT.removeprefix("refunds:")].type == "string"
