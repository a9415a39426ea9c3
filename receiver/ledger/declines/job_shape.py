"""Pure. The JSON of a job, and of what a job would do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated

from msgspec import Meta

from receiver.ledger.declines.job import FIRST, LEFT_OUT, Item, Job, JobState, LeftOut, Plan
from receiver.ledger.money import Money, sums
from receiver.ledger.schema import Account, Json, MoneyJson, Rfc3339, money_json
from receiver.ledger.timestamps import format_rfc3339

NAMED = 20
"""The most refunds that a plan names for one reason."""
Count = Annotated[int, Meta(extra_json_schema={"minimum": 0})]


class LeftOutJson(Json, kw_only=True):
    """Declined refunds that are not reissued, for one reason."""

    reason: Annotated[str, Meta(description="A stable, machine-readable code; the set is open.")]
    detail: Annotated[str, Meta(description="The reason, for people.")]
    count: Count
    sums: list[MoneyJson]
    refund_ids: Annotated[list[str], Meta(description=f"The first {NAMED} of them.")]


class PlanJson(Json, kw_only=True):
    """What a job would do now."""

    account: Account
    count: Annotated[int, Meta(description="How many refunds would be reissued.", extra_json_schema={"minimum": 0})]
    sums: Annotated[list[MoneyJson], Meta(description="Their sum in each currency.")]
    refund_ids: Annotated[list[str], Meta(description=f"The first {NAMED} of them, the oldest decline first.")]
    left_out: list[LeftOutJson]
    unfinished_job: Annotated[
        str | None, Meta(description="The id of the account's unfinished job. A new one can begin when it has ended.")
    ] = None


class JobRefundJson(Json, kw_only=True):
    """The outcome of one refund of a job."""

    refund_id: Annotated[str, Meta(description="The declined refund.")]
    refund_amount: MoneyJson | None = None
    outcome: Annotated[
        str, Meta(description="reissued: Amazon accepted the reissue. Otherwise the reason of `POST …/retry`.")
    ]
    retried_by: Annotated[str | None, Meta(description="The refund that reissues it.")] = None
    detail: str | None = None


class JobJson(Json, kw_only=True):
    """A job that reissues declined refunds."""

    id: str
    account: Account
    state: Annotated[
        str,
        Meta(
            description="paused: see `reason`; a person resumes or cancels it.",
            extra_json_schema={"enum": [*JobState]},
        ),
    ]
    reason: Annotated[
        str | None,
        Meta(
            description="declined_again: Amazon declined all of the first reissues again. restored: the store was "
            "restored from a backup."
        ),
    ] = None
    detail: Annotated[str, Meta(description="Its progress, for people.")]
    total: Count
    sums: list[MoneyJson]
    reissued: Annotated[int, Meta(description="Amazon accepted the reissue.", extra_json_schema={"minimum": 0})]
    failed: Annotated[int, Meta(description="Not reissued: see each outcome.", extra_json_schema={"minimum": 0})]
    waiting: Annotated[int, Meta(description="Without an outcome yet.", extra_json_schema={"minimum": 0})]
    requested_by: Annotated[str | None, Meta(description="The name of the token.")] = None
    requested_by_user: Annotated[str | None, Meta(description="The person, if a signing-in proxy named one.")] = None
    created_at: Rfc3339
    changed_at: Rfc3339
    refunds: Annotated[list[JobRefundJson], Meta(description="Outcomes from number `after` on, in their order.")]
    after: Annotated[int, Meta(description="Send it as `after` to get the next outcomes.")]


class JobListJson(Json, kw_only=True):
    """Jobs, newest first."""

    jobs: Annotated[list[JobJson], Meta(description="Without outcomes: GET /v1/jobs/{job_id} has them.")]
    unreadable: Annotated[list[str], Meta(description="Ids of jobs whose records are damaged.")]
    next_cursor: Annotated[str | None, Meta(description="Cursor of the next page; null on the last one.")] = None


def plan_json(account: str, found: Plan, unfinished: str = "") -> PlanJson:
    """A plan as JSON."""
    by_reason: dict[str, list[LeftOut]] = defaultdict(list)
    for each in found.left_out:
        by_reason[each.reason].append(each)
    return PlanJson(
        account=account,
        count=len(found.items),
        sums=_sums_json(sums(item.amount for item in found.items)),
        refund_ids=[item.refund_id for item in found.items[:NAMED]],
        left_out=[
            LeftOutJson(
                reason=reason,
                detail=LEFT_OUT.get(reason, reason),
                count=len(those),
                sums=_sums_json(sums(each.amount for each in those)),
                refund_ids=[each.refund_id for each in those[:NAMED]],
            )
            for reason, those in sorted(by_reason.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        ],
        unfinished_job=unfinished or None,
    )


def job_json(job: Job, outcomes: Sequence[Item], after: int) -> JobJson:
    """A job as JSON, with its outcomes from number `after` on."""
    return JobJson(
        id=job.id,
        account=job.account,
        state=job.state,
        reason=job.reason or None,
        detail=describe(job),
        total=job.total,
        sums=_sums_json(job.sums),
        reissued=job.reissued,
        failed=job.failed,
        waiting=max(job.total - job.finished, 0),
        requested_by=job.actor.token or None,
        requested_by_user=job.actor.user or None,
        created_at=format_rfc3339(job.created_at),
        changed_at=format_rfc3339(job.changed_at),
        refunds=[
            JobRefundJson(
                refund_id=item.refund_id,
                refund_amount=money_json(item.amount),
                outcome=item.outcome,
                retried_by=item.reissue or None,
                detail=item.detail or None,
            )
            for item in outcomes
        ],
        after=after + len(outcomes),
    )


def describe(job: Job) -> str:
    """The progress of the job, in one or two sentences."""
    so_far = f"{job.reissued} of {job.total} refunds reissued" + (f", {job.failed} not" if job.failed else "")
    if job.state is JobState.PAUSED:
        return f"Paused: {job.why_paused} {so_far}."
    if job.state is JobState.RUNNING and job.first_at:
        return f"{so_far}. The first {FIRST} go alone: the others follow once Amazon has refunded one of them."
    return f"{so_far}."


def _sums_json(found: Iterable[Money]) -> list[MoneyJson]:
    return [shown for money in found if (shown := money_json(money))]
