"""Verb. Amazon's reports → files. A run can be killed at any time and continued: no report is requested twice."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
import structlog

from receiver.amazon.account import Environment
from receiver.amazon.reports.calls import (
    SANDBOX_SETTLEMENTS,
    ReportInfo,
    Status,
    create_report,
    get_report,
    get_report_document,
    get_reports,
    read_created,
    read_report,
    read_report_document,
    read_reports,
)
from receiver.amazon.reports.reader import REFUNDS, REPORT_TYPES, SETTLEMENTS
from receiver.amazon.throttle import Call
from receiver.errors import (
    AmazonError,
    AmazonNotFound,
    AmazonOutcomeUnknown,
    AmazonThrottled,
    ReceiverError,
    TransportError,
)
from receiver.exchange import Request, Response
from receiver.ledger.next_look import THROTTLED_PAUSE
from receiver.ledger.reconciliation.report_run import ReportRun
from receiver.store.refunds.report_runs import ReportRuns
from receiver.track.amazon_client import AmazonClient

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = structlog.get_logger()

Value = TypeVar("Value")

MOST_BYTES = 512 * 1024 * 1024
DOWNLOAD_TIMEOUT = 600.0
TOKEN_PATIENCE = 120.0
"""Seconds to wait for a throttle token."""
TRIES = 6
"""How often a call without an answer is tried, and a download."""
RETRY_FIRST, RETRY_MOST = 2.0, 60.0
POLLS = (2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds between two questions about a report that is being made; the last one repeats."""
ENDED = frozenset({"content-length", "transfer-encoding"})
"""One of these headers says where a document ends. Without them, a cut connection looks like the end."""
MADE_WITHIN = 3600.0
MOST_ATTEMPTS = 3
"""How often a report is requested in one run if Amazon fails to make it."""
MOST_PAGES = 100


class Send(Protocol):
    """Sends a request: `Transport.send`."""

    async def __call__(
        self, request: Request, *, timeout: float, max_body: int, guarded: bool, into: BinaryIO
    ) -> Response:
        """The answer; the body of a 200 is written into the file. Raises `TransportError`."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A report, and the file that holds its document; None if Amazon made none."""

    info: ReportInfo
    file: Path | None


@dataclass(frozen=True, slots=True)
class ReportFetcher:
    amazon_client: AmazonClient
    runs: ReportRuns
    send: Send
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    async def fetch(self, run: ReportRun, folder: Path) -> list[Fetched]:
        """All reports of the run's period, as files in this folder.

        Raises the `AmazonError` tree and `StoreUnavailable`. The request is stored, so that the same run can be
        continued.
        """
        is_live = self.amazon_client.account.environment is Environment.LIVE
        infos = [await self._made(run, REPORT_TYPES[REFUNDS] if is_live else SANDBOX_SETTLEMENTS)]
        if is_live:
            infos += await self._settlements(run)
        fetched = []
        for number, info in enumerate(infos):
            file = folder / f"{number}.txt" if info.status == Status.COMPLETED else None
            if file:
                await self._download(info, file)
            fetched.append(Fetched(info, file))
        return fetched

    async def _made(self, run: ReportRun, report_type: str) -> ReportInfo:
        """The report that the run requests, once it is made. A report that failed or is gone is requested again."""
        endpoint, account = self.amazon_client.account.endpoint, self.amazon_client.account.name
        for _ in range(MOST_ATTEMPTS):
            if not run.report_id:
                key = run.idempotency_key(account, report_type)
                report_id = await self._ask(create_report(endpoint, report_type, run.start, run.end, key), read_created)
                log.info("reconcile.report_requested", account=account, report_id=report_id, report_type=report_type)
                run = msgspec.structs.replace(run, report_id=report_id)
                await self.runs.write(run)
            info = await self._finished(run.report_id)
            if info is not None and info.status != Status.FAILED:
                return info
            log.warning("reconcile.report_failed", account=account, report_id=run.report_id, is_gone=info is None)
            run = msgspec.structs.replace(run, report_id="", attempt=run.attempt + 1)
            await self.runs.write(run)
        raise AmazonOutcomeUnknown(
            f"Amazon failed to make the report {MOST_ATTEMPTS} times. Try again later.", reason="amazon_report_failed"
        )

    async def _finished(self, report_id: str) -> ReportInfo | None:
        """The report once Amazon has finished it; None if Amazon does not know it any more."""
        left, waits = MADE_WITHIN, iter(POLLS)
        request = get_report(self.amazon_client.account.endpoint, report_id)
        while True:
            try:
                info = await self._ask(request, lambda response: read_report(response, report_id))
            except AmazonNotFound:
                return None
            if info.is_finished:
                return info
            wait = next(waits, POLLS[-1])
            if (left := left - wait) < 0:
                raise AmazonOutcomeUnknown(
                    f"Amazon is still making the report {report_id}. Run it again to go on with it.",
                    reason="amazon_report_not_ready",
                )
            await self.sleep(wait)

    async def _settlements(self, run: ReportRun) -> list[ReportInfo]:
        """The reports of settlement data that Amazon made since the start of the period."""
        endpoint, found, token = self.amazon_client.account.endpoint, list[ReportInfo](), ""
        for _ in range(MOST_PAGES):
            request = get_reports(endpoint, REPORT_TYPES[SETTLEMENTS], run.start, token)
            page = await self._ask(request, read_reports)
            found += [each for each in page.reports if each.kind == SETTLEMENTS and each.status == Status.COMPLETED]
            if not (token := page.next_token):
                return found
        raise AmazonOutcomeUnknown("Amazon's list of reports does not end.", reason="amazon_unintelligible")

    async def _download(self, info: ReportInfo, file: Path) -> None:
        """Write a report's document into the file. Its address expires soon, so each try asks for a new one."""
        endpoint, problem = self.amazon_client.account.endpoint, ""
        for failures in range(TRIES):
            url = await self._ask(get_report_document(endpoint, info.document_id), read_report_document)
            # A stand-in for Amazon may be on this machine; Amazon's storage is not.
            is_own = endpoint.override is not None and _origin(url) == _origin(endpoint.override)
            if not is_own and urlsplit(url).scheme.lower() != "https":
                raise _no_document(info, "its address is not https")
            try:
                with _Writer(file) as into:
                    how = {"timeout": DOWNLOAD_TIMEOUT, "max_body": MOST_BYTES, "guarded": not is_own}
                    answer = await self.send(Request("GET", url), into=into, **how)  # type: ignore[arg-type]
            except TransportError as error:
                if error.reason == "forbidden_address":
                    raise _no_document(info, f"{error.detail} See delivery.allow_networks") from error
                problem = error.detail
            else:
                if answer.status == 200 and answer.truncated and not answer.note:
                    raise _no_document(info, f"it is over {MOST_BYTES // 2**20} MiB")
                if answer.status == 200 and not answer.note and not ENDED.isdisjoint(answer.headers):
                    return
                problem = answer.note or f"the storage answered {answer.status}"
                if answer.status == 200 and not answer.note:
                    problem = "the answer does not say where it ends, so it may have been cut off"
            log.warning("reconcile.download_failed", report_id=info.report_id, problem=problem)
            await self.sleep(_backoff(failures))
        raise _no_document(info, problem)

    async def _ask(self, request: Request, read: Callable[[Response], Value]) -> Value:
        """One call, within the throttle; tried again while there is no answer. Raises the `AmazonError` tree."""
        last: AmazonError
        for failures in range(TRIES):
            if not await self.amazon_client.token(Call.REPORTS, TOKEN_PATIENCE):
                raise AmazonThrottled("Too many calls about reports are waiting.", retry_after=THROTTLED_PAUSE)
            try:
                return await self.amazon_client.ask(Call.REPORTS, request, read)
            except AmazonThrottled as error:
                last, wait = error, float(error.retry_after or THROTTLED_PAUSE)
            except AmazonOutcomeUnknown as error:
                last, wait = error, max(_backoff(failures), float(error.retry_after or 0))
            if failures < TRIES - 1:
                await self.sleep(min(wait, 5 * RETRY_MOST))
        raise last


class _Writer(io.BufferedWriter):
    """A new file. A full disk raises another error than a broken connection."""

    def __init__(self, file: Path) -> None:
        super().__init__(io.FileIO(file, "w"))

    def write(self, data: Buffer) -> int:
        """Raises `ReceiverError` (`report_not_kept`)."""
        try:
            return super().write(data)
        except OSError as error:
            raise not_kept(error) from error


def not_kept(error: OSError) -> ReceiverError:
    """This machine has no room for a report."""
    what = error.strerror or type(error).__name__
    return ReceiverError(
        f"A report cannot be kept in a temporary file: {what}. Make room, or set TMPDIR to a folder that has it.",
        reason="report_not_kept",
    )


def _backoff(failures: int) -> float:
    return min(RETRY_FIRST * float(2**failures), RETRY_MOST)


def _no_document(info: ReportInfo, why: str) -> AmazonOutcomeUnknown:
    return AmazonOutcomeUnknown(
        f"The document of the report {info.report_id} cannot be downloaded: {why}.", reason="amazon_report_document"
    )


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port
