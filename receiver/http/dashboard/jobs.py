"""HTTP. `/jobs…`: reissue many declined refunds at once. Shows what a job would do, starts it, and follows it.

A job belongs to one account. Nothing starts before a person has seen count and sums; if they have changed since, the
person is asked again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from receiver.errors import BadRequest, Conflict
from receiver.http.api.jobs import JOB, JobApi
from receiver.http.api.lookup import find_job
from receiver.http.api.refunds import REASON
from receiver.http.dashboard.guard import PageFrame, Visit, see_other
from receiver.issue.issuer import Issuer
from receiver.issue.jobs import Jobs
from receiver.ledger.declines.job import LEFT_OUT, REISSUED, UNFINISHED, JobState, LeftOut, Plan, Selection
from receiver.ledger.declines.job_shape import describe
from receiver.ledger.money import Money, sums
from receiver.ledger.refund import REFUND_ID
from receiver.store import Store

MOST_NAMED: Final = 100
"""Refunds that one form can name: a page of the list has fewer."""
SHOWN = 50
"""Refunds of a plan, and outcomes of a job, that a page shows."""
CHANGED = "What can be reissued has changed since you looked. Check the numbers again."


@dataclass(frozen=True, slots=True)
class LeftOutGroup:
    """Refunds that are left out for one reason."""

    says: str
    refunds: Sequence[LeftOut]

    @property
    def sums(self) -> Sequence[Money]:
        """Their sum in each currency."""
        return sums(each.amount for each in self.refunds)


class JobPages:
    """The handlers; `issuers` by account."""

    def __init__(self, frame: PageFrame, store: Store, issuers: Mapping[str, Issuer]) -> None:
        self._frame, self._store, self._issuers = frame, store, issuers
        self._api = JobApi(store, issuers)

    async def ask(self, visit: Visit) -> Response:
        """`GET /jobs/new?account=&id=&id=…`, or `&all=1&reason=`: what a job would do, and a form that starts it."""
        account = self._account(visit)
        query = visit.request.query_params
        ids = tuple(each.strip() for each in query.getlist("id") if each.strip())
        selection = read_selection(ids, everything=query.get("all") == "1", reason=query.get("reason", ""))
        return await self._plan(visit, account, selection)

    async def start(self, visit: Visit) -> Response:
        """`POST /jobs?account=`: starts the job if it would do what the person has seen."""
        account, given = self._account(visit), visit.form
        ids = tuple(given.get("ids", "").split())
        selection = read_selection(ids, everything=given.get("all") == "1", reason=given.get("reason", ""))
        jobs = Jobs(self._issuers[account])
        if given.get("seen") != digest(await jobs.plan(selection)):
            return await self._plan(visit, account, selection, CHANGED)
        job = await jobs.start(selection, visit.actor)
        return see_other(job_path(job.id, account))

    async def one(self, visit: Visit) -> Response:
        """`GET /jobs/{job_id}?account=`: its progress, and the latest outcomes."""
        job = await find_job(self._store, visit.accounts, visit[JOB])
        after = max(job.finished - SHOWN, 0)
        outcomes = await self._store.of(job.account).jobs.outcomes(job.id, after, SHOWN)
        values = {
            "job": job,
            "says": describe(job),
            "outcomes": outcomes[::-1],
            "reissued": REISSUED,
            "is_unfinished": job.state in UNFINISHED,
            "is_paused": job.state is JobState.PAUSED,
        }
        return self._frame.render("job.html", visit, values, at="refunds")

    async def resume(self, visit: Visit) -> Response:
        job = await self._api.resume(visit)
        return see_other(job_path(job.id, job.account))

    async def cancel(self, visit: Visit) -> Response:
        job = await self._api.cancel(visit)
        return see_other(job_path(job.id, job.account))

    def _account(self, visit: Visit) -> str:
        """The account of the job. Raises `Forbidden`, `NotFound`, `Conflict`."""
        accounts = visit.accounts
        if len(accounts) != 1:
            raise Conflict("A job belongs to one account. Choose the account in the list.", reason="account_needed")
        return accounts[0]

    async def _plan(self, visit: Visit, account: str, selection: Selection, changed: str = "") -> Response:
        jobs = Jobs(self._issuers[account])
        plan = await jobs.plan(selection)
        values = {
            "account": account,
            "plan": plan,
            "sums": sums(item.amount for item in plan.items),
            "shown": plan.items[:SHOWN],
            "left_out": left_out(plan),
            "ids": " ".join(selection.refund_ids),
            "reason": selection.reason,
            "seen": digest(plan),
            "unfinished": await jobs.store.jobs.current(),
            "changed": changed,
        }
        return self._frame.render("job_plan.html", visit, values, at="refunds", status=409 if changed else 200)


def read_selection(ids: Sequence[str], *, everything: bool, reason: str) -> Selection:
    """The refunds that a person ticked, or all open declines, with this reason unless it is empty.

    Raises `BadRequest`.
    """
    if everything:
        return Selection(reason=REASON.read(reason) if reason else "")
    if not ids:
        raise BadRequest("Tick the refunds that you want to reissue.", reason="selection_needed")
    if len(ids) > MOST_NAMED or not all(REFUND_ID.fullmatch(each) for each in ids):
        raise BadRequest(f"Tick at most {MOST_NAMED} refunds of the list.", reason="bad_refund_id")
    return Selection(refund_ids=tuple(dict.fromkeys(ids)))


def left_out(plan: Plan) -> list[LeftOutGroup]:
    """What the plan leaves out, by reason, the largest group first."""
    groups: dict[str, list[LeftOut]] = defaultdict(list)
    for each in plan.left_out:
        groups[LEFT_OUT.get(each.reason, each.reason)].append(each)
    return [LeftOutGroup(says, found) for says, found in sorted(groups.items(), key=lambda pair: -len(pair[1]))]


def digest(plan: Plan) -> str:
    """What a person has seen of a plan: the refunds, and their amounts."""
    return sha256(" ".join(f"{item.refund_id}={item.amount}" for item in plan.items).encode()).hexdigest()[:32]


def job_path(job_id: str, account: str) -> str:
    return f"/jobs/{job_id}?{urlencode({'account': account})}"
