"""Verb. A job reissues many declined refunds, each by `Issuer.retry`, so that no refund is issued twice.

A worker claims the job, works on a few refunds at once at Amazon's pace, and records each outcome. If its process dies,
another one resumes the job when the lease ends: a retry that has begun is found by its request and not begun again. A
refund that cannot be reissued gets its reason as its outcome, and the others go on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec
import structlog

from receiver.errors import (
    AmazonError,
    AmazonRefused,
    Conflict,
    NotFound,
    ReceiverError,
    StoreUnavailable,
    Unavailable,
)
from receiver.issue.candidates import Candidates
from receiver.issue.issuer import Issuer
from receiver.ledger.audit import Action, Actor, AuditEntry
from receiver.ledger.declines.job import (
    DECLINED_AGAIN,
    FIRST,
    REISSUED,
    STILL_OPEN,
    Item,
    Job,
    JobState,
    Plan,
    Selection,
    again,
    first_ones,
    plan,
)
from receiver.ledger.money import sums
from receiver.ledger.refund import Refund
from receiver.ledger.refund_request import Asked
from receiver.ledger.schema import DESCRIPTION_LIMIT, tidy
from receiver.runtime.rounds import Claim, Rounds
from receiver.store.account import AccountStore
from receiver.store.redis.wakeups import News
from receiver.store.requests.requests import Attempt

log = structlog.get_logger()

CHUNK = 50
"""Chains of refunds to read at once."""
LOOK_EVERY = 1_000
"""ms between two checks of the first reissues."""
FIX_PAUSED = "check the balance of the merchant account in Seller Central; then resume the job, or cancel it"
ENDED = {JobState.DONE: "It is done.", JobState.CANCELLED: "It was cancelled."}


class JobRunning(Conflict):
    """The account has an unfinished job."""

    reason = "job_running"


@dataclass(slots=True)
class Jobs:
    """The jobs of one account. `concurrency` is the number of refunds in parallel."""

    issuer: Issuer
    concurrency: int = 4
    rounds: Rounds[Attempt] = field(init=False)

    def __post_init__(self) -> None:
        account = self.store.account
        self.rounds = Rounds(
            name="job",
            account=account,
            claim=self._claim,
            work=self._work,
            about=lambda attempt: {"account": account, "job": attempt.id},
            concurrency=1,
        )

    @property
    def store(self) -> AccountStore:
        return self.issuer.store

    @property
    def _lease(self) -> int:
        """ms. Renewed with every outcome. If a step takes longer, another worker repeats it, and nothing is issued
        twice."""
        return int(self.issuer.lease * 1000)

    async def run(self) -> None:
        """Work on jobs. Runs until cancelled."""
        await self.rounds.run(self.store.change_signal(News.JOB))

    async def plan(self, selection: Selection) -> Plan:
        """What a job with this selection would do now. Nothing is written.

        Raises `BadRequest` (`too_many`) and `StoreUnavailable`.
        """
        return plan(selection, await Candidates(self.store).of(selection))

    async def start(self, selection: Selection, actor: Actor) -> Job:
        """Start a job. Raises like `plan`, and `Conflict`: `nothing_to_reissue`, or `job_running`."""
        found, now = await self.plan(selection), self.store.now()
        if not found.items:
            if unfinished := await self.store.jobs.current():
                raise _job_running(unfinished)
            raise Conflict(
                "No declined refund of this selection can be reissued. Send the request with `dryRun` to see which are "
                "left out, and why.",
                reason="nothing_to_reissue",
            )
        job = Job(
            id=self.issuer.new_owner(),
            account=self.store.account,
            state=JobState.RUNNING,
            selection=selection,
            actor=actor,
            created_at=now,
            changed_at=now,
            total=len(found.items),
            sums=sums(item.amount for item in found.items),
        )
        if unfinished := await self.store.jobs.create(job, found.items):
            raise _job_running(unfinished)
        log.warning("job.started", account=job.account, job=job.id, refunds=job.total, sums=[*map(str, job.sums)])
        return job

    async def resume(self, job_id: str, by: Actor) -> Job:
        """Continue a paused job, at a person's request. A running one stays as it is. Raises `NotFound`, `Conflict`
        (`job_ended`) and `StoreUnavailable`."""
        job = await self._job(job_id)
        if job.state is JobState.PAUSED:
            fields: dict[str, str | int] = {"after": job.reissued, "first_at": 0, "reason": ""}
            act = AuditEntry(action=Action.JOB_RESUME, actor=by, job=job_id)
            await self.store.jobs.move(
                job_id, JobState.RUNNING, of=[JobState.PAUSED], at=self.store.now(), fields=fields, audit=act
            )
            log.warning("job.resumed", account=job.account, job=job_id)
            job = await self._job(job_id)
        if job.state in ENDED:
            raise Conflict(f"The job cannot be resumed. {ENDED[job.state]}", reason="job_ended")
        return job

    async def cancel(self, job_id: str, by: Actor) -> Job:
        """End a job, at a person's request. Refunds that are being reissued at this moment are not stopped. Safe to
        repeat.

        Raises `NotFound`, `Conflict` (`job_ended` if it is done) and `StoreUnavailable`.
        """
        act = AuditEntry(action=Action.JOB_CANCEL, actor=by, job=job_id)
        await self.store.jobs.move(job_id, JobState.CANCELLED, of=[JobState.RUNNING, JobState.PAUSED], audit=act)
        job = await self._job(job_id)
        if job.state is not JobState.CANCELLED:
            raise Conflict("The job cannot be cancelled. It is done.", reason="job_ended")
        return job

    async def _job(self, job_id: str) -> Job:
        job = await self.store.jobs.get(job_id)
        if job is None:
            raise NotFound("There is no such job. Jobs are kept for 30 days.", reason="no_such_job")
        return job

    async def _claim(self, room: int) -> Claim[Attempt]:
        return await self.store.jobs.claim(lease=self._lease, limit=room)

    async def _work(self, claimed: Attempt) -> None:
        """Work on a claimed job until it ends, waits, or is no longer ours."""
        attempt: Attempt | None = claimed
        todo = await self.store.jobs.todo(claimed.id)
        while attempt is not None:
            job = await self.store.jobs.get(attempt.id)
            if job is None or job.state is not JobState.RUNNING:
                return
            if not todo:
                await self._move(attempt, JobState.DONE)
                log.info("job.done", account=job.account, job=job.id, reissued=job.reissued, failed=job.failed)
                return
            room = await self._room(job, attempt)
            ready = [item for item in todo if item.next_at <= self.store.now()][:room]
            if not room:
                return
            if not ready:
                await self._move(attempt, JobState.RUNNING, at=min(item.next_at for item in todo))
                return
            tried = await asyncio.gather(*(self._reissue(job, item) for item in ready))
            attempt = await self.store.jobs.record(attempt, tried, lease=self._lease)
            after = {item.root: item for item in tried}
            left = [after.get(item.root, item) for item in todo]
            todo = [item for item in left if not item.outcome]

    async def _room(self, job: Job, attempt: Attempt) -> int:
        """How many refunds may be reissued now. 0: the job waits for the first ones, or was paused."""
        left = job.after + FIRST - job.reissued
        if left > 0:
            return min(left, self.concurrency)
        if not job.first_at:
            job = msgspec.structs.replace(job, first_at=self.store.now())
        match first_ones(job, await self._first_states(job), self.store.now()):
            case JobState.PAUSED:
                fields: dict[str, str | int] = {"reason": DECLINED_AGAIN, "first_at": job.first_at}
                await self._move(attempt, JobState.PAUSED, fields=fields)
                log.error(
                    "job.paused",
                    account=job.account,
                    job=job.id,
                    reason=DECLINED_AGAIN,
                    fix=FIX_PAUSED,
                )
                return 0
            case None:
                await self._move(
                    attempt, JobState.RUNNING, at=self.store.now() + LOOK_EVERY, fields={"first_at": job.first_at}
                )
                return 0
        return self.concurrency

    async def _first_states(self, job: Job) -> list[str]:
        """The states of the first reissues, as far as they are known."""
        outcomes = await self.store.jobs.outcomes(job.id, limit=job.after + FIRST + job.failed)
        names = [item.reissue for item in outcomes if item.outcome == REISSUED][job.after : job.after + FIRST]
        refunds = await asyncio.gather(*map(self.store.refunds.get_or_id, names))
        return [each.state if isinstance(each, Refund) else "" for each in refunds]

    async def _move(
        self, attempt: Attempt, state: JobState, *, at: int | None = None, fields: dict[str, str | int] | None = None
    ) -> None:
        await self.store.jobs.move(attempt.id, state, of=[JobState.RUNNING], at=at, token=attempt.token, fields=fields)

    async def _reissue(self, job: Job, item: Item) -> Item:
        """Reissue one refund. Returns it with its outcome, or with the time of its next try."""
        now = self.store.now()
        try:
            issued = await self.issuer.retry(item.refund_id, Asked(job.actor))
        except StoreUnavailable:
            raise
        except (AmazonError, Unavailable) as error:
            if not isinstance(error, AmazonRefused):
                return again(item, now, error.reason, error.detail)
            return _failed(item, error)
        except ReceiverError as error:
            return _failed(item, error)
        if issued.refund is None:
            return again(
                item, now, STILL_OPEN, "Amazon has not answered yet. The request is saved and will be retried."
            )
        return msgspec.structs.replace(item, outcome=REISSUED, reissue=issued.refund.refund_id)


def _failed(item: Item, error: ReceiverError) -> Item:
    return msgspec.structs.replace(item, outcome=error.reason, detail=tidy(error.detail, DESCRIPTION_LIMIT))


def _job_running(job_id: str) -> JobRunning:
    error = JobRunning(f"The account has an unfinished job: {job_id}. Wait for its end, resume it or cancel it.")
    error.more = {"job": job_id}
    return error
