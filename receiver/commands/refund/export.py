"""Command. `receiver refund export`: refunds as CSV or JSON lines, page by page through the API.

A file is written as FILE.part, with its progress in FILE.part.state, and renamed when it is complete.
"""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self

import msgspec
import typer

from receiver.client.answers import RefundPage
from receiver.client.api import Api, convert, decode, target
from receiver.client.calls import MOST_PER_PAGE
from receiver.client.errors import not_the_api
from receiver.commands.client.options import ServiceCall, api_command, read_since
from receiver.commands.console import emit, read_ms, say
from receiver.errors import ConfigurationError
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.formats.cloudevents import AdvisedRefundJson

app = typer.Typer()

Columns = Mapping[str, tuple[str, ...]]
"""Column → the path of its value in the JSON. New columns come at the end."""
COLUMNS: Columns = {
    "account": ("account",),
    "refundId": ("refundId",),
    "chargeId": ("chargeId",),
    "orderReference": ("orderReference",),
    "state": ("statusDetails", "state"),
    "reasonCode": ("statusDetails", "reasonCode"),
    "reasonDescription": ("statusDetails", "reasonDescription"),
    "amount": ("refundAmount", "amount"),
    "currencyCode": ("refundAmount", "currencyCode"),
    "lastUpdatedTimestamp": ("statusDetails", "lastUpdatedTimestamp"),
    "creationTimestamp": ("creationTimestamp",),
    "softDescriptor": ("softDescriptor",),
    "releaseEnvironment": ("releaseEnvironment",),
    "refundType": ("refundType",),
    "final": ("final",),
    "conflict": ("conflict",),
    "retryable": ("retryable",),
    "retryOf": ("retryOf",),
    "retryRoot": ("retryRoot",),
    "retriedBy": ("retriedBy",),
    "revision": ("revision",),
    "firstSeenAt": ("firstSeenAt",),
    "changedAt": ("changedAt",),
    "source": ("source",),
    "unreadFields": ("unreadFields",),
    "resolution": ("resolution", "state"),
    "resolutionAt": ("resolution", "at"),
    "resolutionHow": ("resolution", "how"),
    "resolutionBy": ("resolution", "by"),
    "resolutionUser": ("resolution", "user"),
    "resolutionNote": ("resolution", "note"),
    "resolutionRefundId": ("resolution", "refundId"),
}
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Characters with which a formula begins in spreadsheets (OWASP, "CSV Injection"), also in full width."""
HIDDEN_FORMULA = re.compile(r'([;|\t\r\n]["\s]*)(?=[=+\-@＝＋－＠])')
"""Where a formula begins if the table is split at `;`, a tab, `|` or a line end, as in countries with decimal commas.
The quotes around a value do not help there: they do not begin the cell."""

OVERLAP = 10_000
"""ms by which the next export overlaps this one, since processes do not write in the order of their times."""


class Note(msgspec.Struct):
    """The progress of an export. `question` identifies its filters: an export with others cannot continue the file."""

    question: list[str]
    since: str
    until: str
    """Empty: everything that exists at the first page."""
    bounded: bool
    """Whether `until` is not after the latest change that the first page had."""
    cursor: str
    bytes: int
    rows: int
    newest: str = ""
    """The time of the first row, for a list whose entries never move."""


def csv_row(values: list[str]) -> str:
    """One row by RFC 4180. A text that a spreadsheet would calculate gets a leading apostrophe."""
    page = io.StringIO()
    csv.writer(page).writerow(map(_harmless, values))
    return page.getvalue()


def _harmless(value: str) -> str:
    """The value with an apostrophe before a possible formula: at its start, and after each character that may split
    it."""
    value = HIDDEN_FORMULA.sub(r"\1'", value)
    return "'" + value if value.startswith(FORMULA) else value


def cells(row: Mapping[str, Any], columns: Columns) -> list[str]:
    """The values of a row in the order of its columns; null is empty, true and false are words, lists have spaces."""
    found = []
    for path in columns.values():
        value: Any = row
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, list):
            value = " ".join(str(each) for each in value)
        found.append("" if value is None else str(value).lower() if isinstance(value, bool) else str(value))
    return found


class Output:
    """The output for rows: standard output, or a file that appears only when it is complete. `noun`: what they are."""

    def __init__(self, path: Path | None, noun: str, question: list[str], since: str, until: str) -> None:
        self.path, self.noun, self.note = path, noun, Note(question, since, until, False, "", 0, 0)
        self.resumed = False
        self._file: BinaryIO | None = None
        if path is not None:
            self.part, self.state = Path(f"{path}.part"), Path(f"{path}.part.state")

    def __enter__(self) -> Self:
        if self.path is None:
            return self
        try:
            self._resume()
            file: BinaryIO = self.part.open("r+b" if self.resumed else "wb")
            file.truncate(self.note.bytes)
            file.seek(self.note.bytes)
            self._file = file
        except OSError as error:
            raise ConfigurationError([f"--output: {error.filename} cannot be written ({error.strerror})."]) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _resume(self) -> None:
        if not (self.part.exists() and self.state.exists()):
            return
        try:
            found = msgspec.json.decode(self.state.read_bytes(), type=Note)
        except msgspec.MsgspecError:
            return
        if found.question != self.note.question:
            raise ConfigurationError(
                [f"--output: {self.part} belongs to another export. Remove it or use another file."]
            )
        if found.bytes <= self.part.stat().st_size:
            self.note, self.resumed = found, True

    def write(self, text: str, rows: int, cursor: str) -> None:
        """Write some whole rows, and where to continue. Both are on disk when this returns."""
        if self._file is None:
            if text:
                emit(text.removesuffix("\n").removesuffix("\r"))
            self.note.rows += rows
            return
        self._file.write(text.encode("utf-8", "replace"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.note.bytes, self.note.cursor = self._file.tell(), cursor
        self.note.rows += rows
        fresh = Path(f"{self.state}.new")
        fresh.write_bytes(msgspec.json.encode(self.note))
        fresh.replace(self.state)

    def finish(self) -> None:
        if self._file is not None and self.path is not None:
            self._file.close()
            self.part.replace(self.path)
            with suppress(OSError):
                self.state.unlink()


Rows = Sequence[Mapping[str, Any]]


async def write_pages(
    output: Output, page_after: Callable[[str], Awaitable[tuple[Rows, str | None]]], columns: Columns, as_csv: bool
) -> None:
    """Exports every page, from the output's position to the end. `page_after` reads the one after a cursor, and returns
    its rows and the next cursor."""
    if as_csv and not output.resumed:
        output.write(csv_row(list(columns)), 0, "")
    cursor, show = output.note.cursor, in_place()
    while True:
        rows, following = await page_after(cursor)
        if following and following == cursor:
            raise not_the_api()
        lines = [csv_row(cells(row, columns)) if as_csv else msgspec.json.encode(row).decode() + "\n" for row in rows]
        output.write("".join(lines), len(rows), following or "")
        show(f"{output.note.rows} {output.noun}")
        if not following:
            return
        cursor = following


def run_export(call: ServiceCall, output: Output, write: Callable[[Api, Output], Awaitable[None]]) -> Note:
    """Write the output, continuing an interrupted export. Returns its final note."""
    with output:
        if output.resumed:
            say([f"Continuing after {output.note.rows} {output.noun}."])
        try:
            call.run(lambda api: write(api, output))
        except Exception:
            if output.path is not None:
                say([f"{output.part} has {output.note.rows} {output.noun}. Run the same command to continue."])
            raise
        finally:
            in_place()("")
        output.finish()
    return output.note


async def _refunds(api: Api, output: Output, state: str, as_csv: bool) -> None:
    async def page_after(cursor: str) -> tuple[Rows, str | None]:
        query = {"since": output.note.since, "state": state, "cursor": cursor}
        where = target("refunds", account=api.account, **query, limit=MOST_PER_PAGE)
        page = decode(await api.call("GET", where), RefundPage)
        return _bounded(output.note, page.refunds), page.next_cursor

    await write_pages(output, page_after, COLUMNS, as_csv)


def _bounded(note: Note, refunds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The refunds before the end. The first refund received fixes it: a later change moves a refund before that one."""
    if refunds and not note.bounded:
        latest = max(map(_changed_at, refunds)) + 1
        given = read_ms(note.until)
        note.until, note.bounded = format_rfc3339(latest if given is None else min(given, latest)), True
    end = read_ms(note.until) or 0
    return [each for each in refunds if _changed_at(each) < end]


def _changed_at(refund: dict[str, Any]) -> int:
    return read_ms(convert(refund, AdvisedRefundJson).changed_at) or 0


@api_command(app)
def export(
    call: ServiceCall,
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Only refunds changed since: 7d, 2026-01-31 (UTC), 2026-01-31T12:00:00Z."),
    ],
    until: Annotated[
        str,
        typer.Option(metavar="TIME", help="Only refunds last changed before this. Default: now.", show_default=False),
    ] = "",
    state: Annotated[str, typer.Option(help="RefundInitiated, Refunded or Declined.")] = "",
    form: Annotated[
        Literal["csv", "jsonl"],
        typer.Option("--format", case_sensitive=False, help="csv, or jsonl: the API's JSON, one refund per line."),
    ] = "csv",
    output: Annotated[
        Path | None, typer.Option(help="File to write. Default: standard output.", show_default=False)
    ] = None,
) -> None:
    """Export refunds last changed from --since until just before --until, latest change first.

    Amounts are exact decimals as text; times are UTC. In CSV, text that a spreadsheet would treat as a formula (= + - @
    or a tab, at the start or after ; | a tab or a line end) gets a leading apostrophe. JSON lines are as in the API.

    If the export is interrupted, the same command continues where FILE.part ends. Changes made during an export are
    left to the next one, which starts at the --since printed at the end. A refund can be in both: keep its highest
    revision.
    """
    question = [call.base, call.account, since, until, state, form]
    whole = Output(output, "refunds", question, read_since(since), read_since(until))
    note = run_export(call, whole, lambda api, whole: _refunds(api, whole, state, form == "csv"))
    following = max((read_ms(note.until) or 0) - OVERLAP, 0)
    say([f"{note.rows} refunds. The next export: --since {format_rfc3339(following) if note.bounded else note.since}"])


def in_place() -> Callable[[str], None]:
    """Shows a text in place on a terminal, and nothing elsewhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        return lambda text: None
    return lambda text: typer.echo(f"\r\x1b[K{text}", nl=False, err=True)
