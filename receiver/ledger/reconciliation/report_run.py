"""Pure. A run that fetches Amazon's reports. It is stored, so that a killed run can be continued."""

from __future__ import annotations

import hashlib

import msgspec

from receiver.ledger.age import DAY

LAG = 15 * 60_000
"""ms: a change in this last part of a report's period may be missing in the report, because changes can reach Amazon's
reports late."""
LONGEST = 90 * DAY
"""ms: Amazon keeps reports for 90 days."""
RESUMABLE = DAY
"""ms: an unfinished run is continued if its period ended no longer ago than this; a later run asks for newer data."""


class ReportRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """An unfinished run. Times in ms."""

    start: int
    """The period of the report that is asked for, in whole seconds."""
    end: int
    began_at: int
    report_id: str = ""
    """Empty until Amazon has answered."""
    attempt: int = 0
    """How many reports of this run Amazon has failed to make, or forgotten."""

    def idempotency_key(self, account: str, report_type: str) -> str:
        """32 hex digits, the same for the same request: repeating it after a crash makes no second report."""
        text = f"{account}\n{report_type}\n{self.start}\n{self.end}\n{self.attempt}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class RunResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """How the last run ended. Times in ms."""

    at: int
    start: int = 0
    end: int = 0
    fetched_to: int = 0
    """The time up to which all runs together leave no gap, if that is before `end`: a manual run can go less far
    back."""
    rows: int = 0
    findings: dict[str, int] = {}
    """By kind."""
    unread: int = 0
    """How many reports have unreadable lines. Such a report does not prove that a refund is missing."""
    reason: str = ""
    """Why it failed; empty if it is complete."""
    detail: str = ""


def gap_before(run: ReportRun, complete: RunResult | None) -> int:
    """The start (ms) of the gap that this run leaves after earlier ones; 0 if it leaves none that can be closed."""
    until = (complete.fetched_to or complete.end) if complete else 0
    return until if run.end - LONGEST < until < run.start + LAG and run.end - run.start < LONGEST else 0


def planned(unfinished: ReportRun | None, span: int, now: int) -> ReportRun:
    """The run that fetches the reports of the last `span` ms: the unfinished one if it covers as much, or a new one."""
    if unfinished and unfinished.end >= now - RESUMABLE and unfinished.end - unfinished.start >= span:
        return unfinished
    end = now // 1000 * 1000
    return ReportRun(start=end - span, end=end, began_at=now)
