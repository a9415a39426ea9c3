"""A store that was restored from a backup: states that are not final may be outdated, so they are polled at once."""

from __future__ import annotations

from typing import Any

from receiver.amazon.account import Account
from receiver.ledger.next_look import DueRefund, NextLook
from receiver.ledger.refund import Source
from receiver.store import Store
from receiver.store.maintenance.restored import GAP
from receiver.store.redis.keys import RESTORED
from receiver.track.record import Recorder
from tests.kit.clock import ManualClock
from tests.store.makers import claim, refund_id, seen

DUE = "refunds:{us}:due"


async def filled(store: Store, account: Account) -> None:
    """Pending, pending in an unknown word, declined with an open case, and Refunded."""
    for number, state in enumerate(("RefundInitiated", "Held", "Declined", "Refunded"), 1):
        await Recorder(store, lambda: 0.0).record(account, seen(state, number), source=Source.POLL)
    store.connection.accounts = ["us"]


async def due_times(redis: Any) -> dict[str, int]:
    """Refund → when it is due."""
    return {member.decode(): int(score) for member, score in await redis.zrange(DUE, 0, -1, withscores=True)}


async def revisions(store: Store) -> list[int]:
    """Of the four refunds."""
    found = [await store.of("us").refunds.get(refund_id(number)) for number in range(1, 5)]
    return [refund.revision for refund in found if refund]


async def test_what_is_not_final_is_due_at_once_and_counts_on_from_a_higher_revision(
    store: Store, redis: Any, account: Account, clock: ManualClock
) -> None:
    """Once for each restore, whichever process sees it first."""
    await filled(store, account)
    before = await due_times(redis)
    await store.format.ensure()
    assert await due_times(redis) == before
    assert min(before.values()) > clock()

    clock.tick(10)
    await redis.set(RESTORED, "one")
    await store.format.ensure()
    at_once = {refund_id(1): clock(), refund_id(2): clock(), refund_id(3): clock()}
    after = {**before, **at_once}
    assert await due_times(redis) == after
    assert await revisions(store) == [1 + GAP, 1 + GAP, 1 + GAP, 1]

    clock.tick(10)
    await store.format.ensure()
    assert await due_times(redis) == after
    await redis.set(RESTORED, "two")
    await store.format.ensure()
    assert await revisions(store) == [1 + 2 * GAP, 1 + 2 * GAP, 1 + 2 * GAP, 1]
    assert await due_times(redis) == after


async def test_a_decline_after_a_restore_is_no_older_news(
    store: Store, redis: Any, account: Account, clock: ManualClock
) -> None:
    """A subscriber got revisions 2 and 3, which the backup does not have, and drops events with a smaller one."""
    await filled(store, account)
    await redis.set(RESTORED, "one")
    await store.format.ensure()
    settled = await Recorder(store, lambda: 0.0).record(account, seen("Declined"), source=Source.POLL)
    assert [event.refund.revision for event in settled.events] == [2 + GAP]
    history = await store.of("us").refunds.history(refund_id(1))
    assert [revision.revision for revision in history] == [1, 2 + GAP]


async def test_many_in_batches_while_one_is_claimed(store: Store, redis: Any, account: Account) -> None:
    """The claim's own end changes nothing any more: the refund stays due."""
    recorder = Recorder(store, lambda: 0.0)
    for number in range(1, 251):
        await recorder.record(account, seen(number=number), source=Source.POLL)
    await redis.zadd(DUE, {refund_id(7): store.now() - 1})
    look: DueRefund = (await claim(store, limit=1)).items[0]
    assert look.refund_id == refund_id(7)
    store.connection.accounts = ["us"]
    await redis.set(RESTORED, "one")
    await store.format.ensure()
    assert set((await due_times(redis)).values()) == {store.now()}
    assert not await store.of(look.account).schedule.reschedule(look, NextLook(store.now() + 1_000, revision=1))
    assert (await due_times(redis))[refund_id(7)] == store.now()


async def test_the_script_run_twice_raises_a_revision_once(store: Store, redis: Any, account: Account) -> None:
    """As after a connection that broke while the answer was on its way. A refund that is gone is not made again."""
    await filled(store, account)
    keys = [DUE, f"refunds:{{us}}:refund:{refund_id(1)}", "refunds:{us}:refund:gone"]
    arguments: list[str | int | bytes] = [store.now(), GAP, refund_id(1), "1", "gone", "1"]
    assert [await store._run("mark_due_now", keys, arguments) for _ in range(2)] == [1, 0]
    assert (await revisions(store))[0] == 1 + GAP
    assert not await redis.exists("refunds:{us}:refund:gone")
    assert "gone" not in await due_times(redis)
