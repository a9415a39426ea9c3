"""Command. `receiver reconcile`: compares Amazon's reports, from files or Amazon's API, with what the service knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import typer

from receiver.amazon.reports.reader import Heading, Item, Other, Refused, read
from receiver.client.api import Api, decode, target
from receiver.client.errors import not_the_api
from receiver.client.retrying import repeated
from receiver.commands.client.options import ServiceCall, api_command
from receiver.commands.console import emit, emit_table, emit_value, read_ms, say
from receiver.commands.refund.export import cells, csv_row
from receiver.commands.setup import Config, read_settings
from receiver.commands.signals import in_order
from receiver.errors import ConfigurationError, Malformed
from receiver.http.finding_schema import ComparedJson, row_json
from receiver.ledger.reconciliation.finding import Finding, FindingKind
from receiver.ledger.reconciliation.rows import Period, RefundRow, Row
from receiver.ledger.reconciliation.run import Batch, Compared, Report, Tally, reconcile
from receiver.outbox.events.mismatch_event import FindingJson, finding_json

COLUMNS: Final = {
    name: (name,) for name in ("account", "finding", "refundId", "here", "there", "report", "line", "since")
}
MOST_SHOWN = 20
"""Refused lines that are shown of each file."""
CHUNK = 64 * 1024
LONG_WAIT = 110
"""Seconds that the last call may take longer: it looks through all refunds."""

Form = Literal["table", "csv", "jsonl"]


@dataclass(slots=True)
class ReportFile:
    """One file, and what was read of it."""

    path: Path
    items: Iterator[Item] = field(init=False)
    report: Report = field(init=False)
    others: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        """Read up to the header. Raises `ConfigurationError`."""
        self.items = iter(read(self._chunks()))
        try:
            heading = next(each for each in self.items if isinstance(each, Heading))
        except Malformed as error:
            raise ConfigurationError([f"{self.path}: {error.detail}"]) from None
        is_dated = heading.start and heading.end
        period = Period(report=heading.report, start=heading.start, end=heading.end) if is_dated else None
        self.report = Report(self.path.name, self._rows(), period, heading.seller_id)

    def _chunks(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise ConfigurationError([f"{self.path}: cannot be read ({error.strerror})."]) from error

    def _rows(self) -> Iterator[Row]:
        """The rows about refunds. A refused line is shown at once."""
        for item in self.items:
            if isinstance(item, Refused):
                self.refused += 1
                self.report.complete = False
                if self.refused <= MOST_SHOWN:
                    say([f"{self.path}, line {item.line}: {item.reason}"])
            elif isinstance(item, Other):
                self.others += 1
            elif not isinstance(item, Heading):
                yield item
        if self.refused > MOST_SHOWN:
            say([f"{self.path}: … and {self.refused - MOST_SHOWN} more lines are refused."])


class Findings:
    """Shows findings: at once, or as a table at the end."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self.found: dict[str, FindingJson] = {}
        self._rows: list[tuple[str, ...]] = []
        if form == "csv":
            emit(csv_row(list(COLUMNS)).rstrip("\r\n"))

    def show(self, finding: Finding) -> None:
        """One finding, when it is found."""
        found = self.found.pop(finding.name)
        if self._form == "jsonl":
            emit_value(found)
        elif self._form == "csv":
            emit(csv_row(cells(msgspec.to_builtins(found), COLUMNS)).rstrip("\r\n"))
        else:
            texts = (found.here or "-", found.there or "-", found.report or "-", str(found.line or ""))
            self._rows.append((found.finding, found.refund_id, *texts))

    def end(self) -> None:
        if self._rows:
            emit_table(("Finding", "Refund", "Here", "In the report", "Report", "Line"), self._rows)


def comparer(api: Api, shown: Findings) -> Callable[[Batch], Any]:
    """Sends a batch to the service, again if it fails: every batch can be repeated."""

    async def compare(batch: Batch) -> Compared:
        body = {name: value for name, value in msgspec.to_builtins(batch).items() if value}
        body["rows"] = [row_json(row) for row in batch.rows]
        if api.account:
            body["account"] = api.account
        wait = LONG_WAIT if batch.is_last else 20

        async def ask() -> ComparedJson:
            return decode(await api.call("POST", target("reconciliations"), body=body, wait=wait), ComparedJson)

        answer = await repeated(ask)
        found = [_finding(each) for each in answer.findings]
        shown.found |= {each.name: one for each, one in zip(found, answer.findings, strict=True)}
        return Compared(findings=tuple(found), again=tuple(answer.again))

    return compare


def _finding(given: FindingJson) -> Finding:
    try:
        kind = FindingKind(given.finding)
    except ValueError:
        raise not_the_api() from None
    row = RefundRow(refund_id=given.refund_id, state="", line=given.line) if given.line else None
    return Finding(kind=kind, refund_id=given.refund_id, since=read_ms(given.since) or 0, row=row)


def reconcile_files(
    call: ServiceCall,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="Reports of refund data and of settlement data.")
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            metavar="SPAN", help="Fetch the reports of this period through Amazon's API, such as 7d. 1h to 90d."
        ),
    ] = "",
    config: Config = None,
    form: Annotated[Form, typer.Option("--format", help="table, csv, or jsonl (as --json).")] = "table",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read the files and show what is refused.")] = False,
) -> None:
    """Compare Amazon's reports with what the service knows, and show what differs.

    With files, reads the flat files that Seller Central and the Reports API give: refund data
    (_GET_FLAT_FILE_OFFAMAZONPAYMENTS_REFUND_DATA_) and settlement data (…SETTLEMENT_DATA_), as CSV or with tabs, in
    UTF-8, UTF-16 or cp932. Differences: unknown_here (the service looks the refund up), state_differs, amount_differs,
    settled_but_declined, not_settled (accounts.reconcile.settled_within) and not_in_report.

    Each difference is recorded once, sent once as the event amazonpay.refund.mismatch, and closes when it is explained.
    Start a killed run again. A line that cannot be read is refused with the reason; its report then does not prove
    that a refund is missing. Needs a token with the scope refund or admin, and --account if the token sees
    several.

    With --since, fetches the reports through Amazon's API. That needs the settings of the service (--config) and no
    token, and runs where the service runs. Amazon takes minutes to make a report. A killed run is continued, and
    requests no second report.

    Exit code 1: something differs, or a line was refused.
    """
    if bool(files) == bool(since) or (since and dry_run):
        raise ConfigurationError(["Give either files, or --since (without --dry-run)."])
    shown = Findings("jsonl" if call.json else form)
    refused, others = 0, ""
    if since:
        tally, refused = _fetched(call, since, config, shown)
    else:
        opened = [ReportFile(path) for path in files or ()]
        tally = _compared(call, opened, shown, dry_run=dry_run)
        refused = sum(file.refused for file in opened)
        others = f", {refused} lines refused, {sum(file.others for file in opened)} not about refunds"
    shown.end()
    differences = sum(tally.findings.values())
    summary = f"{tally.rows} rows, {differences} differences{others}"
    if form == "table" and not call.json:
        emit(summary)
    else:
        say([summary])
    if differences or refused:
        raise typer.Exit(1)


def _compared(call: ServiceCall, files: Sequence[ReportFile], shown: Findings, *, dry_run: bool) -> Tally:
    if dry_run:
        return Tally(rows=sum(1 for file in files for _ in file.report.rows))
    reports = [file.report for file in files]
    return call.run(lambda api: reconcile(reports, comparer(api, shown), shown.show))


def _fetched(call: ServiceCall, since: str, config: Path | None, shown: Findings) -> tuple[Tally, int]:
    """Fetch the reports through Amazon's API, and compare them. Also returns how many have lines that are refused."""
    from receiver.commands.reconcile_since import fetch_and_compare, read_since

    def show(account: str, finding: Finding) -> None:
        shown.found[finding.name] = finding_json(account, finding)
        shown.show(finding)

    tally, unread, span = Tally(), 0, read_since(since)
    for result in asyncio.run(in_order(fetch_and_compare(read_settings(config), call.account, span, show))):
        tally.rows, unread = tally.rows + result.rows, unread + result.unread
        for kind, count in result.findings.items():
            tally.findings[kind] = tally.findings.get(kind, 0) + count
    return tally, unread


app = typer.Typer(add_completion=False)
api_command(app, name="reconcile")(reconcile_files)
