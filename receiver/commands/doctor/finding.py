"""Pure. The result of a check: what was checked, how bad it is, what was found, and how to fix it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """From good to bad; `skip` means not checked."""

    OK = "ok"
    SKIP = "skip"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `check` and `reason` are stable words for programs; the rest is for people."""

    check: str
    """What was checked, as `group.thing`."""
    status: Status
    found: str
    fix: str = ""
    reason: str = ""
    """Why it is not ok, as a word; empty if it is."""
    subject: str = ""
    """The account, the file or the subscriber that it is about; empty for the whole installation."""

    def as_json(self) -> dict[str, str]:
        """Every field. `mend` is the old name of `fix`, kept for programs that read it."""
        return {
            "check": self.check,
            "subject": self.subject,
            "status": self.status.value,
            "reason": self.reason,
            "found": self.found,
            "fix": self.fix,
            "mend": self.fix,
        }


def ok(check: str, found: str, subject: str = "") -> Finding:
    """It is as it should be."""
    return Finding(check, Status.OK, found, subject=subject)


def warn(check: str, reason: str, found: str, fix: str, subject: str = "") -> Finding:
    """It works, but needs attention."""
    return Finding(check, Status.WARN, found, fix, reason, subject)


def fail(check: str, reason: str, found: str, fix: str, subject: str = "") -> Finding:
    """It does not work, or data may be lost."""
    return Finding(check, Status.FAIL, found, fix, reason, subject)


def skip(check: str, reason: str, found: str, fix: str = "", subject: str = "") -> Finding:
    """It could not be checked, or there is nothing to check."""
    return Finding(check, Status.SKIP, found, fix, reason, subject)


def plain_http(check: str, name: str, fix: str, subject: str) -> Finding:
    """A subscriber gets its events without TLS."""
    found = f"{name} has a plain http address: anyone on the network can read and drop its events"
    return warn(check, "plain_http", found, fix, subject)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(finding.status for finding in self.findings)
        return {status.value: found[status] for status in Status}

    @property
    def status(self) -> Status:
        """The worst that was found."""
        there = {finding.status for finding in self.findings}
        return next(
            status for status in (Status.FAIL, Status.WARN, Status.OK) if status in there or status is Status.OK
        )

    @property
    def exit_code(self) -> int:
        return 1 if self.status is Status.FAIL else 0

    def as_json(self) -> dict[str, Any]:
        return {
            "status": self.status.value,
            "counts": self.counts,
            "findings": [finding.as_json() for finding in self.findings],
        }


def report(findings: Iterable[Finding]) -> Report:
    return Report(tuple(findings))
