"""Command. `receiver doctor`: checks an installation and says what to fix."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from rich.text import Text

from receiver.client.api import read_base
from receiver.commands.client.options import URL_NAMES, given_token
from receiver.commands.console import clean, emit_rich, emit_value, now_ms
from receiver.commands.doctor.checks import examine, examine_nothing
from receiver.commands.doctor.finding import Finding, Report, Status
from receiver.commands.doctor.site import Site
from receiver.commands.setup import transport
from receiver.errors import ConfigurationError
from receiver.runtime.version import package_version
from receiver.settings import load

COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIP: "dim"}
INDENT = " " * 6
LINGER = 0.5
"""Seconds that the process may take to end after its report."""


async def doctor(
    config: Path | None,
    *,
    offline: bool,
    as_json: bool,
    url: str,
    token_file: Path | None,
    insecure: bool,
    whole_store: bool,
) -> int:
    """Examine, print, and return the exit code: 0, or 1 if anything failed. The process ends soon after.

    Settings that are wrong are a finding. Raises `ConfigurationError` for options that cannot be used.
    """
    base = read_base(url, insecure=insecure, name=URL_NAMES, allow="--insecure") if url else ""
    token = given_token(token_file, os.environ.get("RECEIVER_TOKEN", ""))
    try:
        settings = load(config, os.environ)
    except ConfigurationError as error:
        found = await examine_nothing(error.problems)
    else:
        accounts, rest = tuple(settings.build_accounts()), (config, offline, base, token, insecure, whole_store)
        async with transport() as web:
            found = await examine(Site(settings, accounts, web.send, now_ms, *rest))
    show(found, as_json=as_json)
    end_soon(found.exit_code)
    return found.exit_code


def show(report: Report, *, as_json: bool) -> None:
    """Print the report: lines for people, with colours only on a terminal, or one JSON object."""
    if as_json:
        body: dict[str, Any] = {"version": package_version(), **report.as_json()}
        emit_value(body)
        return
    for finding in report.findings:
        emit_rich(_line(finding))
    counts = report.counts
    parts = (
        f"{counts['ok']} ok",
        f"{counts['warn']} warnings",
        f"{counts['fail']} failed",
        f"{counts['skip']} skipped",
    )
    emit_rich(Text(f"\n{', '.join(parts)}."))


def _line(finding: Finding) -> Text:
    # A subject `account/subscriber`: the text names the subscriber.
    about = "" if finding.subject in finding.found else finding.subject.partition("/")[0]
    text = Text()
    text.append(f"{finding.status.value:<4}  ", COLOURS[finding.status])
    text.append(f"{finding.check:<28}  ")
    text.append(clean(f"{about}: {finding.found}" if about else finding.found))
    if finding.fix:
        text.append(f"\n{INDENT}→ {clean(finding.fix)}")
    return text


def end_soon(code: int) -> None:
    """Makes the process end: a thread that waits for a name server would delay it by half a minute."""

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)

    last = threading.Timer(LINGER, end)
    last.daemon = True
    last.start()
