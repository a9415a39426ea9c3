"""HTTP. `POST /v1/refunds/retry` and `/v1/jobs…`: reissue many declined refunds, as a job that survives a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from receiver.errors import BadRequest
from receiver.http.api.bodies import (
    ACCOUNT_FIELD,
    CURRENCY_FIELD,
    REFUND_FIELD,
    check_fields,
    money_schema,
    object_schema,
    only_account,
    possible_accounts,
    read_money,
    read_object,
    read_time,
)
from receiver.http.api.listing import check_words, newest_of, read_cursor, write_cursor
from receiver.http.api.lookup import find_job
from receiver.http.api.operations import NO_ACCOUNT, SEVERAL, Answer, Body, Call, issue_operation
from receiver.http.api.params import ACCOUNT, LIMIT, WORD, Schema, in_path, number, text, time, whole
from receiver.http.problems import JobProblemJson
from receiver.http.respond import json_answer
from receiver.issue.issuer import Issuer
from receiver.issue.jobs import Jobs
from receiver.ledger.declines.job import MOST_REFUNDS, Job, Selection
from receiver.ledger.declines.job_shape import JobJson, JobListJson, PlanJson, job_json, plan_json
from receiver.ledger.query import Query
from receiver.ledger.refund import REASONS, REFUND_ID, is_known_reason, reason_of
from receiver.store import Store

MOST_NAMED: Final = 1_000
"""How many ids one body may hold: more do not fit into it."""
FIELDS: Final[Mapping[str, Schema]] = {
    "account": ACCOUNT_FIELD,
    "refundIds": {
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_NAMED,
        "items": REFUND_FIELD,
        "description": "These declined refunds. Instead of `reason` and `since`.",
    },
    "reason": {
        "type": "string",
        "pattern": whole(WORD),
        "description": "Only refunds whose last decline has this reason code.",
        "examples": ["AmazonRejected"],
    },
    "since": time("Only refunds declined at or after this time."),
    "maxTotal": money_schema(
        {**CURRENCY_FIELD, "description": "ISO 4217. Other currencies are left out."},
        "Reissue no more than this in total. The oldest declines come first.",
    ),
    "dryRun": {"type": "boolean", "default": False, "description": "Only report what the job would do."},
}
EXAMPLE: Final = {
    "reason": "AmazonRejected",
    "since": "2026-01-28T12:00:00Z",
    "maxTotal": {"amount": "5000.00", "currencyCode": "USD"},
}


def _selected_by(about: str, needed: str, example: object, *others: str) -> Schema:
    """The schema of a body that selects refunds by this field, and perhaps by others."""
    names = (needed, *others, "account", "maxTotal", "dryRun")
    return object_schema(about, (needed,), {name: FIELDS[name] for name in names}, example)


RETRY_ALL: Final[Schema] = {
    "description": "Which open declines to reissue.",
    "oneOf": [
        _selected_by("Those that match.", "reason", EXAMPLE, "since"),
        _selected_by("All since a time.", "since", {"since": "2026-01-28T12:00:00Z"}),
        _selected_by("The named ones.", "refundIds", {"refundIds": ["S01-5105180-3221187-R022311"]}),
    ],
}
JOB: Final = in_path(
    "job_id", "The id of the job.", "8f14e45fceea167a", WORD, ("bad_job_id", "This is no id of a job.")
)
AFTER: Final = number("after", "Number of outcomes to skip: `after` of the last answer.", 0, 0, MOST_REFUNDS)
OUTCOMES: Final = number("limit", "The most outcomes to return.", 200, 1, 1_000)
LOCATION: Final = {"Location": "URL of the job."}
TO_JOB: Final = {"getJob": {"operationId": "getJob", "parameters": {"job_id": "$response.body#/id"}}}
ONE_JOB: Final = ({404: ("no_such_job",)}, SEVERAL)


CURSOR: Final = text("cursor", "`nextCursor` of the previous page.")


class JobApi:
    def __init__(self, store: Store, issuers: Mapping[str, Issuer]) -> None:
        self._store, self._issuers = store, issuers

    @issue_operation(
        "GET",
        "/v1/jobs",
        id="listJobs",
        summary="Jobs, newest first",
        about="Jobs are kept for 30 days after their end.",
        parameters=(ACCOUNT, CURSOR, LIMIT),
        reasons=({400: ("bad_cursor",)},),
        in_turn=True,
    )
    async def many(self, call: Call) -> JobListJson:
        accounts, limit = call.accounts, call[LIMIT]
        below = _read_place(read_cursor(call[CURSOR], "jobs", accounts))
        lists = await asyncio.gather(*(self._store.of(account).jobs.page(below, limit + 1) for account in accounts))
        found = [each for jobs in lists for each in jobs if isinstance(each, Job)]
        shown, last = newest_of((), found, _place_of, limit)
        return JobListJson(
            jobs=[job_json(job, [], 0) for job in shown],
            unreadable=[each for jobs in lists for each in jobs if isinstance(each, str)],
            next_cursor=write_cursor(f"{last[0]} {last[1]}", "jobs", accounts) if last else None,
        )

    @issue_operation(
        "POST",
        "/v1/refunds/retry",
        id="retryRefunds",
        summary="Reissue many declined refunds",
        about="Use this after the cause of many declines is gone, for example after a negative balance is repaid. "
        "Starts a job: each refund is reissued at most once, at Amazon's pace; a refund that cannot be reissued does "
        "not stop the others. The first ten go alone: if Amazon declines all of them again, the job pauses. An account "
        "has one unfinished job at a time: after an answer that was lost, repeating the call cannot start a second "
        "one.",
        body=Body(RETRY_ALL),
        answers=(
            Answer(200, PlanJson, "For `dryRun`: what the job would do. Nothing was started."),
            Answer(202, JobJson, "The job is saved and running.", LOCATION, TO_JOB),
        ),
        problem=JobProblemJson,
        reasons=(
            {
                400: (
                    *("unknown_field", "bad_parameter", "bad_refund_id", "bad_since", "bad_amount", "bad_currency"),
                    *("selection_needed", "too_many", "unknown_reason"),
                ),
                409: ("account_needed", "job_running", "nothing_to_reissue"),
            },
            NO_ACCOUNT,
        ),
    )
    async def start(self, call: Call) -> Response:
        fields = await read_object(call.request)
        check_fields(fields, FIELDS)
        account = only_account(possible_accounts(call.caller, fields.get("account")))
        selection, jobs = read_selection(fields), Jobs(self._issuers[account])
        if not is_known_reason(selection.reason or REASONS[0]):
            await check_words(self._store, [account], Query(reason=selection.reason))
        if _dry_run(fields):
            found, unfinished = await asyncio.gather(jobs.plan(selection), jobs.store.jobs.current())
            return json_answer(plan_json(account, found, unfinished))
        job = await jobs.start(selection, call.actor)
        return json_answer(job_json(job, [], 0), 202, Location=f"/v1/jobs/{job.id}?account={account}")

    @issue_operation(
        "GET",
        "/v1/jobs/{job_id}",
        id="getJob",
        summary="A job: its state, and the outcome of each refund",
        about="Jobs are kept for 30 days after their end.",
        parameters=(JOB, ACCOUNT, AFTER, OUTCOMES),
        reasons=ONE_JOB,
    )
    async def one(self, call: Call) -> JobJson:
        job, after = await find_job(self._store, call.accounts, call[JOB]), call[AFTER]
        outcomes = await self._store.of(job.account).jobs.outcomes(job.id, after, call[OUTCOMES])
        return job_json(job, outcomes, after)

    @issue_operation(
        "POST",
        "/v1/jobs/{job_id}/resume",
        id="resumeJob",
        summary="Resume a paused job",
        about="The next ten refunds go alone again. A running job stays as it is.",
        parameters=(JOB, ACCOUNT),
        reasons=({409: ("job_ended",)}, *ONE_JOB),
    )
    async def resume(self, call: Call) -> JobJson:
        job = await find_job(self._store, call.accounts, call[JOB])
        return job_json(await Jobs(self._issuers[job.account]).resume(job.id, call.actor), [], 0)

    @issue_operation(
        "POST",
        "/v1/jobs/{job_id}/cancel",
        id="cancelJob",
        summary="End a job",
        about="Refunds that are being reissued at this moment are not stopped.",
        parameters=(JOB, ACCOUNT),
        reasons=({409: ("job_ended",)}, *ONE_JOB),
    )
    async def cancel(self, call: Call) -> JobJson:
        job = await find_job(self._store, call.accounts, call[JOB])
        return job_json(await Jobs(self._issuers[job.account]).cancel(job.id, call.actor), [], 0)


def _place_of(job: Job) -> tuple[int, str]:
    return job.created_at, job.id


def _read_place(text: str) -> tuple[int, str] | None:
    """The place in a cursor of ours; None for the first page."""
    at, _, job_id = text.partition(" ")
    return (int(at), job_id) if text else None


def read_selection(fields: Mapping[str, Any]) -> Selection:
    """Which refunds a body names. Raises `BadRequest` that names the field."""
    refund_ids, reason, since = _refund_ids(fields), _reason(fields), fields.get("since")
    since = 0 if since is None else read_time(since, "since", "bad_since")
    if bool(refund_ids) is bool(reason or since):
        raise BadRequest(
            "Name the refunds: either `refundIds`, or `reason` or `since` or both of them.", reason="selection_needed"
        )
    most = fields.get("maxTotal")
    return Selection(
        refund_ids=refund_ids,
        reason=reason,
        since=since,
        max_total=None if most is None else read_money(most, field="maxTotal"),
    )


def _refund_ids(fields: Mapping[str, Any]) -> tuple[str, ...]:
    ids = fields.get("refundIds", [])
    if not isinstance(ids, list) or len(ids) > MOST_NAMED or ("refundIds" in fields and not ids):
        raise BadRequest(f"`refundIds` must be a list of 1 to {MOST_NAMED} refund ids.", reason="bad_refund_id")
    if not all(isinstance(each, str) and REFUND_ID.fullmatch(each) for each in ids):
        raise BadRequest("A refund id must be 1 to 64 letters, digits and hyphens.", reason="bad_refund_id")
    return tuple(ids)


def _reason(fields: Mapping[str, Any]) -> str:
    value = fields.get("reason", "")
    if not isinstance(value, str) or (value and not WORD.fullmatch(value)):
        raise BadRequest("`reason` must be a reason code such as AmazonRejected.", reason="bad_parameter")
    return reason_of(value)


def _dry_run(fields: Mapping[str, Any]) -> bool:
    value = fields.get("dryRun", False)
    if not isinstance(value, bool):
        raise BadRequest("`dryRun` must be true or false.", reason="bad_parameter")
    return value
