"""Many declines with one cause are reissued by one job: each once, whatever crashes, and one failure stops no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from receiver.errors import BadRequest, Conflict
from receiver.issue.cases import Closing
from receiver.issue.jobs import Jobs
from receiver.ledger.audit import Actor, AuditQuery
from receiver.ledger.declines import job as jobs_module
from receiver.ledger.declines.job import FIRST, WAIT_FOR_FIRST, Item, Job, JobState, Selection
from receiver.ledger.declines.job_shape import describe
from receiver.ledger.money import Money
from receiver.ledger.refund import How, Refund, Source
from receiver.ledger.refund_request import Asked
from receiver.store import Store
from tests.issue.kit import Desk, Killed, desk, dying
from tests.kit.clock import ManualClock
from tests.service.kit import one_round
from tests.store.makers import seen

ANN = Actor("desk", "ann@example.com")
REJECTED = Selection(reason="AmazonRejected")


@pytest.fixture
async def shop(store: Store, clock: ManualClock) -> AsyncIterator[Desk]:
    async with desk(store, clock) as made:
        yield made


async def declined(shop: Desk, amount: str = "14.00", reason: str = "AmazonRejected") -> str:
    """A refund that Amazon has declined, known to the ledger."""
    shop.clock.tick(1)
    charge = shop.charge()
    issued = await shop.issuer.create(shop.wish(charge, amount), f"first-{charge}")
    assert issued.refund is not None
    await becomes(shop, issued.refund, "Declined", reason)
    return issued.refund.refund_id


async def becomes(shop: Desk, known: Refund, state: str, reason: str = "AmazonRejected") -> None:
    told = seen(state, reason=reason if state == "Declined" else "", updated_at=known.updated_at + 1000)
    await shop.issuer.recorder.record(
        shop.account,
        msgspec.structs.replace(told, refund_id=known.refund_id, charge_id=known.charge_id, amount=known.amount),
        source=Source.POLL,
    )


async def refund(shop: Desk, refund_id: str) -> Refund:
    found = await shop.store.of("us").refunds.get(refund_id)
    assert found is not None
    return found


def jobs_of(shop: Desk) -> Jobs:
    """The jobs of a process that was started after all others."""
    return Jobs(shop.another())


async def turn(shop: Desk, jobs: Jobs | None = None) -> None:
    """One round of a worker, to its end."""
    await one_round((jobs or jobs_of(shop)).rounds)


async def known(shop: Desk, job_id: str) -> Job:
    found = await shop.store.of("us").jobs.get(job_id)
    assert found is not None
    return found


async def outcomes(shop: Desk, job_id: str) -> list[Item]:
    return await shop.store.of("us").jobs.outcomes(job_id)


async def left_out(shop: Desk, selection: Selection = REJECTED) -> dict[str, str]:
    return {each.refund_id: each.reason for each in (await jobs_of(shop).plan(selection)).left_out}


async def test_each_decline_of_the_selection_is_reissued_once(shop: Desk) -> None:
    mine = [await declined(shop) for _ in range(3)]
    other = await declined(shop, reason="ProcessingFailure")
    job = await jobs_of(shop).start(REJECTED, ANN)
    assert (job.total, [*map(str, job.sums)]) == (3, ["42.00 USD"])
    await turn(shop)
    after = await known(shop, job.id)
    assert (after.state, after.reissued, after.failed) == (JobState.DONE, 3, 0)
    assert [each.refund_id for each in await outcomes(shop, job.id)] == mine
    for each in mine:
        first = await refund(shop, each)
        assert shop.issued(first.charge_id) == [each, first.retried_by]
        assert (await refund(shop, first.retried_by)).issued_by == "desk"
    assert (await refund(shop, other)).retried_by == ""


async def test_the_plan_says_what_is_left_out_and_why(shop: Desk) -> None:
    plain, closed, again, paid = [await declined(shop) for _ in range(4)]
    await shop.issuer.cases.close(closed, Closing(How.COMPENSATED, ANN, note="gift card"))
    await shop.issuer.retry(again)
    charge = (await refund(shop, paid)).charge_id
    await shop.issuer.create(shop.wish(charge), "by-hand", Asked(besides=(paid,)))
    plan = await jobs_of(shop).plan(Selection(reason="AmazonRejected", since=1))
    assert [item.refund_id for item in plan.items] == [plain]
    reasons = {each.refund_id: each.reason for each in plan.left_out}
    assert reasons == {closed: "closed", again: "being_reissued", paid: "same_amount_refunded"}
    named = await left_out(shop, Selection(refund_ids=(plain, closed, again, "S01-0-0-R0")))
    assert named == {closed: "closed", again: "being_reissued", "S01-0-0-R0": "no_such_refund"}


async def test_the_last_declined_refund_of_a_chain_is_reissued(shop: Desk) -> None:
    first = await declined(shop)
    issued = await shop.issuer.retry(first)
    assert issued.refund is not None
    await becomes(shop, issued.refund, "Declined")
    plan = await jobs_of(shop).plan(REJECTED)
    assert [(item.root, item.refund_id) for item in plan.items] == [(first, issued.refund.refund_id)]


async def test_a_maximum_total_is_kept(shop: Desk) -> None:
    first, second, third = [await declined(shop, amount) for amount in ("14.00", "20.00", "6.00")]
    selection = Selection(reason="AmazonRejected", max_total=Money(Decimal("20.00"), "USD"))
    plan = await jobs_of(shop).plan(selection)
    assert [item.refund_id for item in plan.items] == [first, third]
    assert [(each.refund_id, each.reason) for each in plan.left_out] == [(second, "over_max_total")]
    euros = Selection(reason="AmazonRejected", max_total=Money(Decimal("20.00"), "EUR"))
    assert set((await left_out(shop, euros)).values()) == {"other_currency"}


async def test_too_many_refunds_are_refused_with_their_number(shop: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        await declined(shop)
    monkeypatch.setattr(jobs_module, "MOST_REFUNDS", 2)
    with pytest.raises(BadRequest, match="3 refunds") as caught:
        await jobs_of(shop).start(REJECTED, ANN)
    assert caught.value.reason == "too_many"


async def test_one_failure_does_not_stop_the_rest(shop: Desk) -> None:
    mine = [await declined(shop) for _ in range(3)]
    job = await jobs_of(shop).start(REJECTED, ANN)
    await shop.issuer.cases.close(mine[1], Closing(How.COMPENSATED, ANN, note="gift card"))
    await turn(shop)
    found = {each.refund_id: each.outcome for each in await outcomes(shop, job.id)}
    assert found == {mine[0]: "reissued", mine[1]: "closed", mine[2]: "reissued"}
    after = await known(shop, job.id)
    assert (after.state, after.reissued, after.failed) == (JobState.DONE, 2, 1)


async def test_while_amazon_does_not_answer_the_job_goes_on_later(shop: Desk, clock: ManualClock) -> None:
    first = await declined(shop)
    shop.simulator.fault_injection.add("error", place="get_charge", times=1)
    job = await jobs_of(shop).start(REJECTED, ANN)
    await turn(shop)
    assert (await known(shop, job.id)).state is JobState.RUNNING
    assert (await shop.store.of("us").jobs.todo(job.id))[0].tries == 1
    clock.tick(60_000)
    await turn(shop)
    assert (await known(shop, job.id)).state is JobState.DONE
    assert (await refund(shop, first)).retried_by


async def test_an_account_has_one_unfinished_job(shop: Desk) -> None:
    """Of many that start at once, one wins; the others are given its id."""
    for _ in range(2):
        await declined(shop)
    acts = [jobs_of(shop).start(REJECTED, ANN) for _ in range(5)]
    started = await asyncio.gather(*acts, return_exceptions=True)
    (job,) = [each for each in started if isinstance(each, Job)]
    refused = [each for each in started if isinstance(each, Conflict)]
    assert {each.reason for each in refused} == {"job_running"}
    assert {each.more["job"] for each in refused} == {job.id}
    await turn(shop)
    with pytest.raises(Conflict) as caught:
        await jobs_of(shop).start(REJECTED, ANN)
    assert caught.value.reason == "nothing_to_reissue"


async def decide_first(shop: Desk, job_id: str, *states: str) -> None:
    """Amazon decides about the first reissues."""
    made = [each.reissue for each in await outcomes(shop, job_id)][-FIRST:]
    for name, state in zip(made, states or ("Declined",) * FIRST, strict=False):
        await becomes(shop, await refund(shop, name), state)


async def test_the_others_follow_once_one_of_the_first_is_refunded(shop: Desk, clock: ManualClock) -> None:
    for _ in range(FIRST + 3):
        await declined(shop)
    job = await jobs_of(shop).start(REJECTED, ANN)
    for _ in range(2):
        await turn(shop)
        clock.tick(2_000)
    assert (await known(shop, job.id)).reissued == FIRST
    await decide_first(shop, job.id, "Declined", "Refunded")
    await turn(shop)
    assert (await known(shop, job.id)).state is JobState.DONE
    assert (await known(shop, job.id)).reissued == FIRST + 3


async def test_without_a_decision_the_job_goes_on_after_a_while(shop: Desk, clock: ManualClock) -> None:
    for _ in range(FIRST + 1):
        await declined(shop)
    job = await jobs_of(shop).start(REJECTED, ANN)
    await turn(shop)
    clock.tick(WAIT_FOR_FIRST)
    await turn(shop)
    assert (await known(shop, job.id)).state is JobState.DONE


async def test_if_the_first_are_declined_again_the_job_pauses(shop: Desk, clock: ManualClock) -> None:
    """A person resumes it, and the next ones go alone again; or cancels it."""
    for _ in range(2 * FIRST + 1):
        await declined(shop)
    job = await jobs_of(shop).start(REJECTED, ANN)
    await turn(shop)
    await decide_first(shop, job.id)
    clock.tick(2_000)
    await turn(shop)
    paused = await known(shop, job.id)
    assert (paused.state, paused.reason, paused.reissued) == (JobState.PAUSED, "declined_again", FIRST)
    assert (await shop.store.of("us").gauges.measure())["job_paused"] == 1
    clock.tick(WAIT_FOR_FIRST)
    await turn(shop)
    assert (await known(shop, job.id)).reissued == FIRST
    await jobs_of(shop).resume(job.id, ANN)
    await turn(shop)
    assert (await known(shop, job.id)).reissued == 2 * FIRST
    await decide_first(shop, job.id)
    clock.tick(2_000)
    await turn(shop)
    assert (await known(shop, job.id)).state is JobState.PAUSED
    assert (await shop.store.of("us").gauges.measure())["job_paused"] == 1
    for _ in range(2):
        assert (await jobs_of(shop).cancel(job.id, ANN)).state is JobState.CANCELLED
    assert (await shop.store.of("us").gauges.measure())["job_paused"] == 0
    with pytest.raises(Conflict) as caught:
        await jobs_of(shop).resume(job.id, ANN)
    assert caught.value.reason == "job_ended"
    trail = await shop.store.of("us").audit.page(AuditQuery(actor=ANN.user), frozenset(), None, 1000, 1000)
    acts = [each.entry for each in trail.entries if each.entry is not None]
    assert [(each.action, each.job) for each in acts if each.job] == [
        ("refund_job.cancel", job.id),
        ("refund_job.resume", job.id),
        ("refund_job.start", job.id),
    ]
    assert [each.action for each in acts if not each.job] == ["refund.retry"] * 2 * FIRST


async def test_after_a_restore_a_job_waits_for_a_person(shop: Desk, redis: Any) -> None:
    """People may have cancelled it, or paid the buyers another way, after the backup."""
    for _ in range(2):
        await declined(shop)
    job = await jobs_of(shop).start(REJECTED, ANN)
    shop.store.connection.accounts = ["us"]
    await shop.store.format.mark_restored()
    await shop.store.format.ensure()
    await turn(shop)
    paused = await known(shop, job.id)
    assert (paused.state, paused.reason, paused.reissued) == (JobState.PAUSED, "restored", 0)
    assert "restored from a backup" in describe(paused)
    await jobs_of(shop).resume(job.id, ANN)
    await shop.store.format.ensure()
    await turn(shop)
    assert (await known(shop, job.id)).reissued == 2


async def test_who_started_and_cancelled_it_is_in_the_audit_trail(shop: Desk) -> None:
    await declined(shop)
    job = await jobs_of(shop).start(REJECTED, ANN)
    for _ in range(2):
        await jobs_of(shop).cancel(job.id, ANN)
    page = await shop.store.of("us").audit.page(AuditQuery(), frozenset(), None, 10, 100)
    found = [(each.entry.action, each.entry.actor, each.entry.count) for each in page.entries if each.entry]
    assert found == [("refund_job.cancel", ANN, 0), ("refund_job.start", ANN, 1)]


async def test_an_ended_job_is_kept_for_thirty_days(shop: Desk, redis: Any) -> None:
    await declined(shop)
    job = await jobs_of(shop).start(REJECTED, ANN)
    assert await redis.pttl(f"refunds:{{us}}:job:{job.id}") == -1
    await turn(shop)
    for kind in ("job", "job_outcomes"):
        assert 0 < await redis.pttl(f"refunds:{{us}}:{kind}:{job.id}") <= 30 * 86_400_000


@pytest.mark.parametrize("after", range(0, 120, 7))
async def test_a_job_survives_the_death_of_its_process(shop: Desk, clock: ManualClock, after: int) -> None:
    """Wherever it dies, and whichever process resumes it: each refund is reissued once, and each has one outcome."""
    mine = [await declined(shop) for _ in range(3)]
    job = await jobs_of(shop).start(REJECTED, ANN)
    first = jobs_of(shop)
    claimed = await first.store.jobs.claim(lease=60_000, limit=1)
    with contextlib.suppress(Killed):
        await dying(first._work(claimed.items[0]), after)
    for _ in range(8):
        clock.tick(100_000)
        await turn(shop)
        await shop.round()
    assert (await known(shop, job.id)).state is JobState.DONE
    assert sorted(each.refund_id for each in await outcomes(shop, job.id)) == sorted(mine)
    for each in mine:
        found = await refund(shop, each)
        assert shop.issued(found.charge_id) == [each, found.retried_by]
    assert (await known(shop, job.id)).reissued == 3
