"""The audit trail: an act is written with what it records, once; it can be filtered, and only its age removes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from receiver.amazon.account import Account
from receiver.amazon.fps.calls import FpsRefundRequest
from receiver.amazon.fps.orders import FpsOrder
from receiver.ledger.audit import THE_SERVICE, Action, Actor, AuditEntry, AuditQuery
from receiver.ledger.charge_book import Guard
from receiver.ledger.money import Money
from receiver.ledger.notification import Hint
from receiver.ledger.refund import Source
from receiver.ledger.refund_request import PreparedRefund
from receiver.outbox.subscribers.subscriber import pause
from receiver.store import Store
from receiver.store.account import AccountStore
from receiver.store.audit import KEPT_FOR
from receiver.store.redis.damage import WrongType
from receiver.store.redis.pipeline import Pipeline
from receiver.store.redis.scripts import Command, Script
from receiver.store.requests.requests import Attempt
from receiver.track.record import Recorder
from tests.kit.clock import T0
from tests.store.makers import refund_id, seen, subscriber

TRAIL = "refunds:{us}:audit"
ANN = Actor("dashboard", "ann@shop.example", "req-1")
CHARGE = "S01-5105180-3221187-C056351"
ANYONE = AuditQuery()


class Twice(Pipeline):
    """Runs every script that may be sent again twice, as after a broken connection."""

    async def call(self, command: Command, script: Script | None = None, *, repeatable: bool = True) -> Any:
        answer = await super().call(command, script, repeatable=repeatable)
        if script is not None and repeatable:
            await super().call(command, script, repeatable=repeatable)
        return answer


class Watched(Pipeline):
    """Knows whether each command that was refused for the type of a key has changed anything."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.redis, self.changed = client, list[bool]()

    async def call(self, command: Command, script: Script | None = None, *, repeatable: bool = True) -> Any:
        before = await self._all()
        try:
            return await super().call(command, script, repeatable=repeatable)
        except WrongType:
            self.changed.append(await self._all() != before)
            raise

    async def _all(self) -> dict[bytes, bytes]:
        return {key: await self.redis.dump(key) for key in await self.redis.keys("*")}


@pytest.fixture
def us(store: Store) -> AccountStore:
    return store.of("us")


def an_order(request: str, by: Actor = THE_SERVICE) -> PreparedRefund:
    money = Money(Decimal("1.00"), "USD")
    order = PreparedRefund(id=request, digest="d", amazon_key="k", body=b"{}", charge_id=CHARGE, money=money)
    return msgspec.structs.replace(
        order, issued_by=by.token, issued_by_user=by.user, http_request_id=by.http_request_id
    )


def entry(action: Action, **more: Any) -> AuditEntry:
    return AuditEntry(action=action, actor=ANN, **more)


async def entries(us: AccountStore, query: AuditQuery = ANYONE, *ids: str) -> list[AuditEntry]:
    page = await us.audit.page(query, frozenset(ids), None, 1000, 1000)
    assert page.end is None
    return [each.entry for each in page.entries if each.entry is not None]


async def unclear(us: AccountStore) -> PreparedRefund:
    """A request whose first attempt had no answer, and whose second Amazon refused."""
    order = an_order("r9")
    await us.requests.reserve(order, owner="o", guard=Guard(10_000, 0, None, None), lease=1000)
    attempt = Attempt(order.id, us.now() + 1000)
    await us.requests.begin(attempt, order)
    await us.requests.retry(attempt, order, us.now() + 1000, unknown=True, fields={})
    await us.requests.refuse(attempt, order, {"reason_code": "x"})
    return order


async def reserve(us: AccountStore) -> None:
    guard = Guard(10_000, 0, None, None)
    await us.requests.reserve(an_order("r1", ANN), owner="o1", guard=guard, lease=1000)


async def reopen(us: AccountStore) -> None:
    await us.requests.reopen(await unclear(us), lease=1000, audit=entry(Action.REQUEST_REPEAT))


async def resolve(us: AccountStore) -> None:
    await us.requests.resolve(await unclear(us), {}, audit=entry(Action.REQUEST_SETTLE))


async def order_fps(us: AccountStore) -> None:
    order = FpsOrder(values=FpsRefundRequest("14G", "ref-1", None, "", ""), version="2010-08-28")
    await us.fps.reserve(order, owner="o1", lease=1000, audit=entry(Action.REFUND_CREATE))


async def refresh(us: AccountStore) -> None:
    await us.schedule.hint(Hint(refund_id=refund_id(), at=T0, source=Source.REFRESH, by=ANN))


async def add(us: AccountStore) -> None:
    await us.subscribers.add(subscriber(), audit=entry(Action.SUBSCRIBER_ADD))


async def stop(us: AccountStore) -> None:
    await us.subscribers.put(subscriber())
    await us.subscribers.update(
        "finance", lambda found, _: pause(found, "operator", T0), audit=entry(Action.SUBSCRIBER_PAUSE)
    )


async def remove(us: AccountStore) -> None:
    await us.subscribers.put(subscriber())
    await us.subscribers.remove("finance", entry(Action.SUBSCRIBER_REMOVE))


async def try_out(us: AccountStore) -> None:
    await us.subscribers.put(subscriber())
    await us.deliveries.enqueue_test("finance", "1-1", {"id": "evt_1"}, entry(Action.SUBSCRIBER_TEST))


async def redrive(us: AccountStore) -> None:
    ids = [str(await us._write("XADD", "refunds:{us}:events", f"{number}-1", "id", "x"), "ascii") for number in (1, 2)]
    await us.subscribers.put(subscriber())
    await us.deliveries.redrive("finance", ids, entry(Action.SUBSCRIBER_REDRIVE, count=2))


ACTS: dict[Callable[[AccountStore], Awaitable[None]], Action] = {
    reserve: Action.REFUND_CREATE,
    reopen: Action.REQUEST_REPEAT,
    resolve: Action.REQUEST_SETTLE,
    order_fps: Action.REFUND_CREATE,
    refresh: Action.REFUND_REFRESH,
    add: Action.SUBSCRIBER_ADD,
    stop: Action.SUBSCRIBER_PAUSE,
    remove: Action.SUBSCRIBER_REMOVE,
    try_out: Action.SUBSCRIBER_TEST,
    redrive: Action.SUBSCRIBER_REDRIVE,
}


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_an_act_is_written_once_although_its_script_runs_twice(
    us: AccountStore, act: Callable[[AccountStore], Awaitable[None]]
) -> None:
    """A broken connection does not tell whether the script ran."""
    us.connection.writes = Twice(us.connection.client)
    await act(us)
    (found,) = await entries(us)
    assert (found.action, found.actor) == (ACTS[act], ANN)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_what_cannot_be_written_down_is_not_done(
    us: AccountStore, redis: Any, act: Callable[[AccountStore], Awaitable[None]]
) -> None:
    """Where the trail's key holds something else, an act of a person is refused, and writes nothing."""
    await redis.set(TRAIL, "foreign")
    us.connection.writes = watched = Watched(us.connection.client)
    with pytest.raises(WrongType, match="audit"):
        await act(us)
    assert watched.changed == [False]


async def test_what_the_service_does_itself_needs_no_trail(
    us: AccountStore, store: Store, redis: Any, account: Account
) -> None:
    """Notifications, Amazon's answers, configured subscribers and pauses after a 410 go on; none is an act."""
    await redis.set(TRAIL, "foreign")
    await us.subscribers.put(subscriber())
    await us.subscribers.update("finance", lambda found, _: pause(found, "gone", T0))
    await us.schedule.hint(Hint(refund_id=refund_id(), at=T0, source=Source.NOTIFICATION, message_id="m", digest="d"))
    recorder = Recorder(store, lambda: 0.0)
    await recorder.record(account, seen("Declined", 1, "AmazonRejected"), source=Source.NOTIFICATION)
    await us.subscribers.remove("finance")
    await redis.delete(TRAIL)
    assert await entries(us) == []


async def test_an_act_that_changes_nothing_is_not_written(us: AccountStore) -> None:
    """A subscriber that is paused already, one that is not there, an event that waits already."""
    for _ in range(2):
        await stop(us)
        await redrive_known(us)
    await us.subscribers.remove("nobody", entry(Action.SUBSCRIBER_REMOVE))
    assert not await us.deliveries.enqueue_test("nobody", "1-1", {}, entry(Action.SUBSCRIBER_TEST))
    actions = [each.action for each in await entries(us)]
    assert actions.count(Action.SUBSCRIBER_REDRIVE) == 1
    assert set(actions) == {Action.SUBSCRIBER_REDRIVE, Action.SUBSCRIBER_PAUSE}


async def redrive_known(us: AccountStore) -> None:
    if not await us._read("EXISTS", "refunds:{us}:events"):
        await us._write("XADD", "refunds:{us}:events", "1-1", "id", "x")
    await us.deliveries.redrive("finance", ["1-1"], entry(Action.SUBSCRIBER_REDRIVE))


async def test_a_redrive_of_many_batches_is_one_act(us: AccountStore, redis: Any) -> None:
    """It is written with the first batch that has an event to send."""
    await us.subscribers.put(subscriber())
    async with redis.pipeline() as pipe:
        for number in range(1, 501):
            pipe.xadd("refunds:{us}:events", {"id": "x"}, id=f"{number}-1")
        await pipe.execute()
    ids = [f"{number}-1" for number in range(1, 501)]
    await us.deliveries.redrive("finance", ids[:200])
    counts = await us.deliveries.redrive("finance", ids, entry(Action.SUBSCRIBER_REDRIVE, count=500))
    assert (counts.again, counts.waiting) == (300, 200)
    (found,) = await entries(us)
    assert found.count == 500


async def test_two_equal_acts_are_two_entries(us: AccountStore) -> None:
    """Two refreshes in one ms, with one X-Request-Id, are two."""
    for _ in range(2):
        await refresh(us)
    first, second = await entries(us)
    assert msgspec.structs.replace(first, act="") == msgspec.structs.replace(second, act="")


async def test_filters(us: AccountStore, redis: Any) -> None:
    """By token or person, by refund or request, and by time: from `since`, before `until`."""
    acts = [
        AuditEntry(action="a", actor=Actor("t1", "ann"), refund_id="R1"),
        AuditEntry(action="b", actor=Actor("t1", "bob"), refund_request_id="q1"),
        AuditEntry(action="c", actor=Actor("t2", "ann"), refund_id="R2", refund_request_id="q1"),
        AuditEntry(action="d", actor=Actor("ann"), subscriber="R1"),
    ]
    for number, each in enumerate(acts, 1):
        await redis.xadd(TRAIL, {"entry": msgspec.json.encode(each)}, id=f"{number * 10}-0")

    async def listed(query: AuditQuery, *ids: str) -> str:
        return "".join(each.action for each in await entries(us, query, *ids))

    assert await listed(ANYONE) == "dcba"
    assert await listed(AuditQuery(actor="ann")) == "dca"
    assert await listed(AuditQuery(actor="t1")) == "ba"
    assert await listed(ANYONE, "R1") == "a"
    assert await listed(ANYONE, "R1", "q1") == "cba"
    assert await listed(AuditQuery(actor="bob"), "R1") == ""
    assert await listed(AuditQuery(since=20, until=40)) == "cb"
    assert await listed(AuditQuery(since=21, until=30)) == ""


async def test_a_damaged_entry_hides_no_other(us: AccountStore, redis: Any) -> None:
    """It is reported by its id, and the entries before and after it are returned."""
    await refresh(us)
    for fields in ({"entry": "{"}, {"other": "1"}, {"entry": "[]", "more": "1"}, {"entry": b"\xff"}):
        await redis.xadd(TRAIL, fields)
    await refresh(us)
    page = await us.audit.page(ANYONE, frozenset(), None, 100, 100)
    assert [each.entry is None for each in page.entries] == [False, True, True, True, True, False]
    await us.audit.check()
    assert us.damage.records


async def test_only_old_entries_are_removed(us: AccountStore, redis: Any) -> None:
    """Those before a time, however many; a dry run counts them."""
    now = KEPT_FOR * 2
    for number in range(1200):
        await redis.xadd(TRAIL, {"entry": "{}"}, id=f"{now - KEPT_FOR - 1200 + number}-0")
    await redis.xadd(TRAIL, {"entry": "{}"}, id=f"{now - KEPT_FOR}-0")
    assert await us.audit.count_before(now - KEPT_FOR) == 1200
    assert await us.audit.trim(now - KEPT_FOR) == 1200
    assert await redis.xlen(TRAIL) == 1
    assert await us.audit.trim(now - KEPT_FOR) == 0
