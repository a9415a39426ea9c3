"""Command. `receiver refund import`: asks Amazon about every refund id in a settlement report or a list."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import typer

from receiver.amazon.ids import id_problem, is_refund_id
from receiver.amazon.reports.lines import Line, lines
from receiver.amazon.reports.table import HEAD_WITHIN, TOO_LONG, columns, plain, records
from receiver.client.api import Api, decode, target
from receiver.client.errors import ApiProblem
from receiver.client.retrying import repeated
from receiver.commands.client.messages import exit_code
from receiver.commands.client.options import ServiceCall, api_command
from receiver.commands.console import emit, emit_value, say
from receiver.errors import ConfigurationError, ReceiverError
from receiver.http.api.schema import RefreshJson

app = typer.Typer()

MOST_BYTES = 64 * 1024 * 1024
ID_COLUMNS = ("refundid", "amazonrefundid", "amazontransactionid", "transactionid")
TYPE_COLUMN = "transactiontype"
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


def read_ids(chunks: Iterable[bytes], column: str = "") -> FileContent:
    """The ids of a table with a header, or of a list with one id per line. Raises `ConfigurationError` if the column is
    missing."""
    found = FileContent()
    seen: set[str] = set()
    for number, value, kind, unread in _values(lines(chunks), column):
        if kind and kind.lower() != "refund" and not is_refund_id(value):
            found.others += 1
        elif problem := unread or id_problem(value):
            found.bad.append(f"line {number}: {problem}")
        elif value in seen:
            found.repeated += 1
        else:
            seen.add(value)
            found.ids.append(value)
    return found


def _values(source: Iterator[Line], column: str) -> Iterator[tuple[int, str, str, str]]:
    """Line number, id, the transaction's type if the table has it, and why the line cannot be read."""
    head = list(islice(source, HEAD_WITHIN))
    wanted = [plain(column)] if column else ID_COLUMNS
    for at, line in enumerate(head, 1):
        delimiter, names = columns(line.text or "")
        place = next((names.index(name) for name in wanted if name in names), None)
        if place is not None:
            kind = names.index(TYPE_COLUMN) if TYPE_COLUMN in names else None
            for record in records(chain(head[at:], source), delimiter):
                yield record.line, _cell(record.cells, place), _cell(record.cells, kind), record.problem
            return
    if column:
        raise ConfigurationError([f"--column: the first {HEAD_WITHIN} lines have no header with a column {column!r}."])
    _check_is_a_list(head)
    for line in chain(head, source):
        if line.text is None:
            yield line.number, "", "", TOO_LONG
        elif _says_something(line):
            yield line.number, line.text.strip(), "", ""


def _check_is_a_list(head: Sequence[Line]) -> None:
    """Raise `ConfigurationError` if the file is a table without a known column: its first non-empty lines have several
    cells."""
    widest = max(filter(_says_something, head), key=lambda line: len(columns(line.text or "")[1]), default=None)
    delimiter, names = columns(widest.text or "") if widest else ("", [])
    if widest and len(names) > 1:
        cells = (widest.text or "").split(delimiter)[:MOST_SHOWN]
        known = ", ".join(ascii(cell.strip().strip('"'))[1:-1] for cell in cells)
        raise ConfigurationError(
            [
                "the file is a table without a known column of refund ids (RefundId, AmazonTransactionId). "
                f"Name the column with --column. Its columns are: {known[:MOST_COLUMNS]}."
            ]
        )


def _says_something(line: Line) -> bool:
    text = (line.text or "").strip()
    return text != "" and not text.startswith("#")


def _cell(row: Sequence[str], place: int | None) -> str:
    return row[place].strip("'\"") if place is not None and place < len(row) else ""


@dataclass(slots=True)
class ImportTally:
    """The results for the ids."""

    accepted: int = 0
    refused: list[str] = field(default_factory=list)


async def check_account(api: Api) -> None:
    """Raises `ApiProblem` (`no_such_account`) if the service has no such account, or the token may not see it.

    For a token that may not read, its first refresh shows it.
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
            await repeated(_refresh, api, refund_id)
        except ReceiverError as error:
            if exit_code(error) != 1 or error.status in (401, 403, 429) or error.reason in GENERAL:
                say([f"{tally.accepted} of {len(ids)} were accepted before this. You can safely run it again."])
                raise
            tally.refused.append(f"{refund_id}: {error.detail} [{error.reason}]")
        else:
            tally.accepted += 1
    return tally


async def _refresh(api: Api, refund_id: str) -> None:
    decode(await api.call("POST", target("refunds", refund_id, "refresh", account=api.account)), RefreshJson)


GENERAL = frozenset({"account_needed", "no_such_account", "no_such_route", "not_the_api"})


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

    Exit code 1: a line was bad or refused; all others were imported.
    """
    found = read_ids([_read(file)], column)
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


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError([f"{file}: cannot be read ({error.strerror})."]) from error
    if len(raw) > MOST_BYTES:
        raise ConfigurationError([f"{file}: is over {MOST_BYTES // 2**20} MiB. Split it."])
    if not raw.strip():
        raise ConfigurationError([f"{file}: is empty."])
    return raw
