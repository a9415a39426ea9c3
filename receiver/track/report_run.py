"""Verb. Amazon's reports → findings: fetch the reports of a period, and compare them. On demand, and once a day."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog

from receiver.amazon.account import DailyReconciliation
from receiver.amazon.reports.reader import REPORT_TYPES, SETTLEMENTS, Heading, Item, Refused, read
from receiver.errors import Malformed, ReceiverError, StoreUnavailable, Unavailable
from receiver.ledger.reconciliation.finding import Finding
from receiver.ledger.reconciliation.report_run import (
    LAG,
    LONGEST,
    RESUMABLE,
    ReportRun,
    RunResult,
    gap_before,
    planned,
)
from receiver.ledger.reconciliation.rows import Period, RefundRow, Row, SettlementRow
from receiver.ledger.reconciliation.run import Batch, Compared, Report, reconcile
from receiver.runtime.metrics import Metrics
from receiver.store.refunds.report_runs import COMPLETE, FAILED, LEASE, ReportRuns
from receiver.track.amazon_client import AmazonClient
from receiver.track.reconcile import Reconciler
from receiver.track.reports import Fetched, ReportFetcher, Send, not_kept

log = structlog.get_logger()

CHUNK = 256 * 1024
IDLE = 30.0
"""Seconds between two checks of the clock."""
RETRY_AFTER = 3_600_000
"""ms until a failed daily run is tried again."""


@dataclass(frozen=True, slots=True)
class ReportReconciliation:
    """Fetches and compares the reports of one account. `new_owner` names a process in the lease."""

    fetcher: ReportFetcher
    compare: Callable[[Batch], Awaitable[Compared]]
    metrics: Metrics
    new_owner: Callable[[], str]

    @property
    def account(self) -> str:
        return self.runs.account

    @property
    def runs(self) -> ReportRuns:
        return self.fetcher.runs

    async def run(self, span: int, on_finding: Callable[[Finding], None] = lambda found: None) -> RunResult:
        """Fetch the reports of the last `span` ms, or continue an unfinished run, and compare them.

        Raises `Unavailable` (`reconcile_running`) if another process does it, the `AmazonError` tree, `Malformed` for a
        document that is no report, `ReceiverError` (`report_not_kept`) if this machine has no room for the files, and
        `StoreUnavailable`. A failure is recorded, and can be continued.
        """
        owner = self.new_owner()
        async with self._leased(owner):
            run = planned(await self.runs.unfinished(), span, self.runs.now())
            await self.runs.write(run)
            log.info("reconcile.started", account=self.account, report_id=run.report_id or None)
            try:
                result = await self._compared(run, on_finding)
            except Exception as error:
                await self._failed(error)
                raise
            await self.runs.finish(result)
            self.metrics.reconcile_run(COMPLETE)
            log.info("reconcile.complete", account=self.account, rows=result.rows, findings=result.findings)
            return result

    async def _failed(self, error: Exception) -> None:
        self.metrics.reconcile_run(FAILED)
        if isinstance(error, StoreUnavailable):
            return
        told = error if isinstance(error, ReceiverError) else ReceiverError(f"{type(error).__name__}: see the log.")
        await self.runs.finish(RunResult(at=self.runs.now(), reason=told.reason, detail=told.detail))

    @contextlib.asynccontextmanager
    async def _leased(self, owner: str) -> AsyncIterator[None]:
        if not await self.runs.lease(owner):
            text = "Another process is comparing this account's reports, or was killed less than a minute ago."
            raise Unavailable(text, reason="reconcile_running")
        keeping = asyncio.create_task(self._keep(owner))
        try:
            yield
        finally:
            keeping.cancel()
            with contextlib.suppress(StoreUnavailable):
                await self.runs.lease(owner, 0)

    async def _keep(self, owner: str) -> None:
        while True:
            await asyncio.sleep(LEASE / 3000)
            with contextlib.suppress(StoreUnavailable):
                await self.runs.lease(owner)

    async def _compared(self, run: ReportRun, on_finding: Callable[[Finding], None]) -> RunResult:
        try:
            with tempfile.TemporaryDirectory(prefix="receiver-reports-") as folder:
                fetched = await self.fetcher.fetch(run, Path(folder))
                reports = [_report(each, each.file, run) for each in fetched if each.file]
                # In a thread: a report may have a million rows about payments between two refunds.
                tally = await reconcile(reports, self.compare, on_finding, asyncio.to_thread)
        except OSError as error:
            raise not_kept(error) from error
        return RunResult(
            at=self.runs.now(),
            start=run.start,
            end=run.end,
            fetched_to=gap_before(run, await self.runs.last_complete()),
            rows=tally.rows,
            findings=tally.findings,
            unread=sum(not each.complete for each in reports),
        )


def _report(fetched: Fetched, file: Path, run: ReportRun) -> Report:
    """The report in a file. A report that was not requested brings its own period; if it cannot be read, the others are
    still compared. Raises `Malformed` if the requested report cannot be read."""
    info, items = fetched.info, read(_chunks(file))
    is_asked_for = info.report_type != REPORT_TYPES[SETTLEMENTS]
    try:
        heading = next((each for each in items if isinstance(each, Heading)), Heading(info.kind))
    except Malformed as error:
        if is_asked_for:
            raise
        log.error("reconcile.report_refused", report_id=info.report_id, problem=error.detail)
        return Report(source=info.report_id, rows=(), complete=False)
    start, end = (run.start, run.end - LAG) if is_asked_for else (info.start, info.end)
    is_expected = heading.report == info.kind
    period = Period(report=heading.report, start=start, end=end) if start and end and is_expected else None
    report = Report(info.report_id, (), period, heading.seller_id, complete=is_expected)
    report.rows = _rows(items, report)
    return report


def _rows(items: Iterator[Item], report: Report) -> Iterator[Row]:
    refused = 0
    for item in items:
        if isinstance(item, RefundRow | SettlementRow):
            yield item
        elif isinstance(item, Refused):
            report.complete, refused = False, refused + 1
            if refused == 1:
                log.error("reconcile.line_refused", report_id=report.source, line=item.line, problem=item.reason)
    if refused:
        log.error("reconcile.lines_refused", report_id=report.source, lines=refused)


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            yield chunk


@dataclass(frozen=True, slots=True)
class Daily:
    """Runs the comparison once a day, in one of several processes. A failed run is tried again every hour."""

    reconciliation: ReportReconciliation
    settings: DailyReconciliation

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(IDLE)

    async def once(self) -> None:
        """Run the comparison if it is due. Failures are logged, counted and recorded."""
        about, runs = {"account": self.reconciliation.account}, self.reconciliation.runs
        try:
            complete, failure, now = await runs.last_complete(), await runs.last_failure(), runs.now()
            if _is_due(self.settings, complete, failure, now):
                span = span_to_fetch(self.settings.span, complete, await runs.unfinished(), now)
                await self.reconciliation.run(span)
        except StoreUnavailable as error:
            log.warning("reconcile.store_unavailable", reason=error.reason, **about)
        except Unavailable as error:
            log.debug("reconcile.not_now", reason=error.reason, **about)
        except ReceiverError as error:
            log.error("reconcile.failed", reason=error.reason, problem=error.detail, **about)
        except Exception:  # A report that breaks the reader must not make the process unready.
            log.exception("reconcile.failed", reason=ReceiverError.reason, **about)


def _is_due(settings: DailyReconciliation, complete: RunResult | None, failure: RunResult | None, now: int) -> bool:
    if failure is not None and abs(now - failure.at) < RETRY_AFTER:
        return False
    done_at = (complete.fetched_to or complete.at) if complete else 0
    # A time ahead of now was written while the clock was wrong.
    return not last_time(settings, now) <= done_at < now + RETRY_AFTER


def span_to_fetch(span: int, complete: RunResult | None, unfinished: ReportRun | None, now: int) -> int:
    """How far back (ms) the next reports go: to the end of the last ones, if that is further than the setting.

    If an unfinished run goes back this far, it is continued: the time that has passed since causes no new request.
    """
    end = unfinished.end if unfinished and unfinished.end >= now - RESUMABLE else now
    gap = end - (complete.fetched_to or complete.end) + LAG if complete and complete.end else 0
    return min(max(span, gap), LONGEST)


def last_time(settings: DailyReconciliation, now: int) -> int:
    """The last time (ms) before `now` at which the comparison was due."""
    zone = UTC if settings.time_zone == "UTC" else ZoneInfo(settings.time_zone)
    local = datetime.fromtimestamp(now / 1000, zone)
    at = time(*divmod(settings.minute, 60))
    due = datetime.combine(local.date(), at, zone)
    if due > local:
        due = datetime.combine(local.date() - timedelta(days=1), at, zone)
    return round(due.timestamp() * 1000)


def report_reconciliation(
    amazon_client: AmazonClient, send: Send, metrics: Metrics, *, declared: bool = False
) -> ReportReconciliation:
    """Everything that the account of this client needs. `declared`: see `Recorder`."""
    account, store = amazon_client.account, amazon_client.store
    reconciler = Reconciler(account, store, metrics, declared)
    fetcher = ReportFetcher(amazon_client, store.report_runs, send)
    return ReportReconciliation(fetcher, reconciler.compare, metrics, lambda: secrets.token_hex(8))


def daily_reconciliation(
    amazon_client: AmazonClient, send: Send, metrics: Metrics, settings: DailyReconciliation
) -> Daily:
    """The same for a worker, once a day."""
    return Daily(report_reconciliation(amazon_client, send, metrics, declared=True), settings)
