"""Command. `receiver refund retry` for many refunds, and `job`: start and follow a job of the service that reissues
them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from receiver.client.api import Api, decode, target
from receiver.client.errors import ApiProblem
from receiver.client.retrying import RetryingCaller
from receiver.commands.client.messages import notifier
from receiver.commands.client.options import ServiceCall, api_command
from receiver.commands.console import (
    clean,
    confirmed,
    emit,
    emit_json,
    emit_rich,
    emit_table,
    now_ms,
    plural,
    say,
    short_moment,
    shown,
    table,
)
from receiver.errors import ConfigurationError, Malformed
from receiver.ledger.declines.job import FIRST, REISSUED, UNFINISHED, JobState
from receiver.ledger.declines.job_shape import JobJson, JobListJson, JobRefundJson, PlanJson
from receiver.ledger.money import parse_amount
from receiver.ledger.schema import MoneyJson

app = typer.Typer()

LOOK_EVERY = 1.0
PER_CALL = 200
UNFINISHED_CODE, INCOMPLETE = 4, 5
"""Exit codes: the job is paused; some refunds were not reissued."""


def read_max_total(text: str) -> Mapping[str, str] | None:
    """The amount of `--max-total`, for the API. Raises `typer.BadParameter`."""
    if not text:
        return None
    try:
        money = parse_amount(text)
    except Malformed:
        raise typer.BadParameter('--max-total: give an amount and its currency, such as "5000.00 USD".') from None
    return {"amount": money.text, "currencyCode": money.currency_code}


def reissue_many(call: ServiceCall, selection: Mapping[str, object], *, dry_run: bool, yes: bool) -> None:
    """Show what a job would do, ask, start it, and follow it to its end."""
    body = {**selection, **({"account": call.account} if call.account else {})}
    path = target("refunds", "retry")
    answer = call.run(lambda api: api.call("POST", path, body={**body, "dryRun": True}, wait=60))
    plan = decode(answer, PlanJson)
    if dry_run or not call.json:
        emit_json(answer.body) if call.json else show_plan(plan)
    if dry_run:
        return
    if plan.unfinished_job:
        say([f"The account {plan.account} has an unfinished job, which is followed here. No other one was started."])
        follow(call, plan.unfinished_job, plan.account)
        return
    if not plan.count:
        say(["Nothing was reissued: no refund of this selection can be."])
        return
    if not (yes or confirmed(f"Reissue {plural(plan.count, 'refund')} now?")):
        say(["Nothing was reissued."])
        raise typer.Exit(1)
    follow(call, call.run(lambda api: _start(api, path, body)), plan.account)


async def _start(api: Api, path: str, body: Mapping[str, object]) -> str:
    """The id of the new job. If another one began at the same time, its id."""
    try:
        return decode(await api.call("POST", path, body=body, wait=60), JobJson).id
    except ApiProblem as problem:
        if problem.reason != "job_running":
            raise
        plan = decode(await api.call("POST", path, body={**body, "dryRun": True}, wait=60), PlanJson)
        if not plan.unfinished_job:
            raise
        say(["The account has another unfinished job, which is followed here."])
        return plan.unfinished_job


@api_command(app, more_epilog="Exit codes: 4 the job is paused · 5 some refunds were not reissued.")
def job(
    call: ServiceCall,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the job.")],
    resume: Annotated[bool, typer.Option("--resume", help="Resume a paused job.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the job.")] = False,
) -> None:
    """Follow a job that reissues refunds, resume it, or cancel it.

    Prints the outcome of every refund, and ends when the job does. If this command is stopped, the job goes on.
    """
    if resume and cancel:
        raise ConfigurationError(["--resume and --cancel: give one of them."])
    if resume or cancel:
        call.ask("POST", "jobs", job_id, "resume" if resume else "cancel")
    follow(call, job_id, call.account)


def follow(call: ServiceCall, job_id: str, account: str) -> None:
    """Print every outcome as it comes, until the job ends or pauses. The exit code says how it went."""
    say([f"Job {job_id}. If you stop this command, the job goes on; `receiver refund job {job_id}` follows it."])
    found = call.run(lambda api: _follow(api, job_id, account, as_json=call.json))
    say([found.detail])
    if found.state in UNFINISHED:
        say([f"`receiver refund job {job_id} --resume` resumes it, --cancel ends it."])
        raise typer.Exit(UNFINISHED_CODE)
    if found.reissued < found.total:
        raise typer.Exit(INCOMPLETE)


async def _follow(api: Api, job_id: str, account: str, *, as_json: bool) -> JobJson:
    after, asking = 0, RetryingCaller(api, notifier(say))
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        shown = bar.add_task("Reissued", total=None)
        while True:
            path = target("jobs", job_id, account=account, after=after, limit=PER_CALL)
            answer = await asking(api.call, "GET", path)
            found = decode(answer, JobJson)
            after = found.after
            ended = found.state != JobState.RUNNING and not found.refunds
            if as_json and (found.refunds or ended):
                emit_json(answer.body)
            elif not as_json:
                for each in found.refunds:
                    _line(each)
            _advance(bar, shown, found)
            if ended:
                return found
            if len(found.refunds) < PER_CALL:
                await asyncio.sleep(LOOK_EVERY if not found.refunds else 0.2)


def _advance(bar: Progress, shown: TaskID, found: JobJson) -> None:
    alone = found.waiting and found.reissued and found.reissued % FIRST == 0
    text = f"Waiting for the first {FIRST}" if alone else "Reissued"
    bar.update(shown, completed=found.reissued + found.failed, total=found.total, description=text)


def _line(each: JobRefundJson) -> None:
    """One line for one refund. A failure is in capitals, so that it stands out without colours too."""
    line = Text(f"{clean(each.refund_id):<27}  {_money([each.refund_amount] if each.refund_amount else []):>11}  ")
    if each.outcome == REISSUED:
        line.append("reissued", "green").append(f" as {clean(each.retried_by or '')}")
    else:
        line.append("NOT REISSUED", "bold red").append(f" {clean(each.outcome)}: {clean(each.detail or '')}")
    emit_rich(line)


def show_plan(plan: PlanJson) -> None:
    """How many refunds would be reissued, and which are left out."""
    total = f": {_money(plan.sums)}" if plan.sums else ""
    emit(f"Would reissue {plural(plan.count, 'refund')}{total} (account {clean(plan.account)})")
    if not plan.left_out:
        return
    emit(f"Left out: {sum(each.count for each in plan.left_out)}")
    rows = table(headers=False)
    for number in range(4):
        rows.add_column(justify="right" if number < 1 else "left", overflow="fold")
    for each in plan.left_out:
        rows.add_row(*map(shown, (f"  {each.count}", _money(each.sums), each.reason, each.detail)))
    emit_rich(rows)


def _money(sums: list[MoneyJson]) -> str:
    return clean(", ".join(map(str, sums)))


@api_command(app)
def jobs(
    call: ServiceCall,
    limit: Annotated[int, typer.Option(min=1, max=200, metavar="N", help="Show at most this many.")] = 20,
) -> None:
    """List jobs that reissue refunds, newest first. Jobs are kept for 30 days after their end. Times are UTC."""
    call.show(call.ask("GET", "jobs", limit=limit), JobListJson, _emit_jobs)


def _emit_jobs(found: JobListJson) -> None:
    if not found.jobs:
        say(["There are no jobs."])
        return
    rows, now = [], now_ms()
    for each in found.jobs:
        done = f"{each.reissued} of {each.total}{f', {each.failed} not' if each.failed else ''}"
        rows.append((short_moment(each.created_at, now), each.id, each.state, done, _money(each.sums), each.account))
    emit_table(("Created", "Job", "State", "Reissued", "Sum", "Account"), rows)
    if found.next_cursor:
        say([f"Showing {len(found.jobs)} jobs. Use a higher --limit for more."])
