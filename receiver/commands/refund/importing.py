"""Command. `receiver refund import`: asks Amazon about every refund id in a settlement report or a list."""

from __future__ import annotations

import asyncio
import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from receiver.amazon.reports.ids import id_problem, is_refund_id
from receiver.client.api import Api, decode, target
from receiver.client.errors import ApiProblem, may_pass
from receiver.commands.client.messages import exit_code
from receiver.commands.client.options import ServiceCall, api_command
from receiver.commands.console import emit, emit_value, say
from receiver.errors import ConfigurationError, ReceiverError
from receiver.http.api.schema import RefreshJson

app = typer.Typer()

MOST_BYTES = 64 * 1024 * 1024
HEAD_WITHIN = 20
"""The header must be in the first lines: settlement reports start with lines about the report."""
ID_COLUMNS = ("refundid", "amazonrefundid", "amazontransactionid", "transactionid")
TYPE_COLUMNS = ("transactiontype",)
LINE_END = re.compile(r"\r\n|\n|\r")
TRIES = 5
PAUSE = 2.0
"""Seconds before a failed refresh is retried; doubled each time."""
MOST_SHOWN = 20
MOST_COLUMNS = 500
"""Characters of a table's head that an error shows."""


@dataclass(slots=True)
class FileContent:
    """The content of a file: its ids in order, each once; lines without a refund id; and lines about other
    transactions."""

    ids: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    others: int = 0
    repeated: int = 0


def read_ids(text: str, column: str = "") -> FileContent:
    """The ids of a table with a header, or of a list with one id per line. Raises `ConfigurationError` if the column is
    missing."""
    lines = LINE_END.split(text)
    found = FileContent()
    seen: set[str] = set()
    for number, value, kind in _values(lines, column):
        if kind and kind.lower() != "refund" and not is_refund_id(value):
            found.others += 1
        elif problem := id_problem(value):
            found.bad.append(f"line {number}: {problem}")
        elif value in seen:
            found.repeated += 1
        else:
            seen.add(value)
            found.ids.append(value)
    return found


def _values(lines: Sequence[str], column: str) -> Iterator[tuple[int, str, str]]:
    """Line number (from 1), id, and the transaction's type if the table has it."""
    for at, line in enumerate(lines[:HEAD_WITHIN]):
        delimiter = max(",;\t", key=line.count)
        head = [_plain(name) for name in _head(line, delimiter)]
        wanted = [_plain(column)] if column else ID_COLUMNS
        place = next((head.index(name) for name in wanted if name in head), None)
        if place is not None:
            kind = next((head.index(name) for name in TYPE_COLUMNS if name in head), None)
            yield from _rows(lines, at, delimiter, place, kind)
            return
    if column:
        raise ConfigurationError([f"--column: the first {HEAD_WITHIN} lines have no header with a column {column!r}."])
    _check_is_a_list(lines)
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip(), ""


def _check_is_a_list(lines: Sequence[str]) -> None:
    """Raise `ConfigurationError` if the file is a table, which has no column that is known: the first lines that say
    something have several cells."""
    said = [line for line in lines[:HEAD_WITHIN] if line.strip() and not line.lstrip().startswith("#")]
    head = max((_head(line, max(",;\t", key=line.count)) for line in said), key=len, default=[])
    if len(head) > 1:
        columns = ", ".join(ascii(name.strip())[1:-1] for name in head[:MOST_SHOWN])
        raise ConfigurationError(
            [
                "the file is a table without a column of refund ids that is known (RefundId, AmazonTransactionId). "
                f"Name the column with --column. Its columns are: {columns[:MOST_COLUMNS]}."
            ]
        )


def _rows(
    lines: Sequence[str], head: int, delimiter: str, place: int, kind: int | None
) -> Iterator[tuple[int, str, str]]:
    # Strict: otherwise an unclosed quotation mark turns all following rows into one cell.
    reader = csv.reader((f"{line}\n" for line in lines[head + 1 :]), delimiter=delimiter, strict=True)
    number = head + 2
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield head + 1 + reader.line_num, _cell(row, place), _cell(row, kind)
            number = head + 2 + reader.line_num
    except csv.Error as error:
        raise ConfigurationError(
            [f"the file is not a valid table from line {number} on ({error}). Look for an unclosed quotation mark."]
        ) from None


def _head(line: str, delimiter: str) -> Sequence[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _cell(row: Sequence[str], place: int | None) -> str:
    return row[place].strip().strip("'\"") if place is not None and place < len(row) else ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(slots=True)
class ImportTally:
    """The results for the ids."""

    accepted: int = 0
    refused: list[str] = field(default_factory=list)


async def check_account(api: Api) -> None:
    """Raises `ApiProblem` (`no_such_account`) if the service has no such account, or the token may not see it.

    A token that may not read learns it from its first refresh.
    """
    try:
        await api.call("GET", target("refunds", account=api.account, limit=1))
    except ApiProblem as error:
        if error.reason != "scope_missing":
            raise


async def refresh_all(api: Api, ids: Sequence[str], rate: float) -> ImportTally:
    """Refreshes one after the other, at most `rate` per second. Raises errors that would occur for every id."""
    tally = ImportTally()
    clock = asyncio.get_running_loop().time
    due = clock()
    for refund_id in ids:
        await asyncio.sleep(max(due - clock(), 0))
        due = max(due, clock() - 1) + 1 / rate
        try:
            await _refresh(api, refund_id)
        except ReceiverError as error:
            if exit_code(error) != 1 or error.status in (401, 403, 429) or error.reason in GENERAL:
                say([f"{tally.accepted} of {len(ids)} were accepted before this. You can safely run it again."])
                raise
            tally.refused.append(f"{refund_id}: {error.detail} [{error.reason}]")
        else:
            tally.accepted += 1
    return tally


GENERAL = frozenset({"account_needed", "no_such_account", "no_such_route", "not_the_api"})


async def _refresh(api: Api, refund_id: str) -> None:
    pause = PAUSE
    for left in range(TRIES, 0, -1):
        try:
            decode(await api.call("POST", target("refunds", refund_id, "refresh", account=api.account)), RefreshJson)
            return
        except ReceiverError as error:
            if left == 1 or not may_pass(error):
                raise
            await asyncio.sleep(min(max(pause, error.retry_after or 0), 60))
            pause *= 2


@api_command(app, name="import")
def import_ids(
    call: ServiceCall,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A settlement report, another table, or a list with one id per line.")
    ],
    column: Annotated[str, typer.Option(help="Column with the refund ids, if not one of Amazon's.")] = "",
    rate: Annotated[float, typer.Option(min=0.01, max=100, help="Refreshes per second, at most.")] = 2.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read the file and report what it contains.")] = False,
) -> None:
    """Import refunds by id: the service asks Amazon about each, as with `refresh`.

    Reads Amazon Pay's settlement report (CSV or tabs; AmazonTransactionId where TransactionType is Refund), an export
    of this service (refundId), any other table with --column, or a list with one id per line (# starts a comment).
    Every other line is refused with its number and the reason: an id must have the form of Amazon's refund ids. An id
    with an R is a refund, whatever TransactionType says. Repeating the command is safe: known ids are only asked about
    again. Needs a token with the scope refund or admin, and --account if the token sees several. The default --rate
    leaves half of Amazon's limit for notifications.

    Exit code 1: a line was bad or refused; all others were taken in.
    """
    found = read_ids(_read(file), column)
    tally = ImportTally()
    if not dry_run and found.ids:
        tally = call.run(lambda api: refresh_all(api, found.ids, rate))
    elif call.account:
        call.run(check_account)
    if call.json:
        emit_value(
            {
                "dryRun": dry_run,
                "ids": len(found.ids),
                "accepted": tally.accepted,
                "refused": tally.refused,
                "bad": found.bad,
                "others": found.others,
                "repeated": found.repeated,
            }
        )
    else:
        done = "would be imported" if dry_run else "accepted"
        emit(f"{len(found.ids) if dry_run else tally.accepted} {done}")
        emit(
            f"{len(tally.refused)} refused, {len(found.bad)} bad, {found.repeated} repeated, {found.others} not refunds"
        )
        say([*_shown(tally.refused), *_shown(found.bad)])
    if tally.refused or found.bad:
        raise typer.Exit(1)


def _shown(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST_SHOWN
    return [*lines[:MOST_SHOWN], *([f"… and {more} more. --json shows all."] if more > 0 else [])]


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError([f"{file}: cannot be read ({error.strerror})."]) from error
    if len(raw) > MOST_BYTES:
        raise ConfigurationError([f"{file}: is over {MOST_BYTES // 2**20} MiB. Split it."])
    if not raw.strip():
        raise ConfigurationError([f"{file}: is empty."])
    try:
        return raw.decode("utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")
