"""Command. `receiver audit`: who did what, page by page through the API."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from receiver.client.api import Api, decode, target
from receiver.client.calls import MOST_PER_PAGE
from receiver.commands.client.options import ServiceCall, api_command, read_since
from receiver.commands.console import read_ms, say
from receiver.commands.refund.export import OVERLAP, Columns, Output, Rows, run_export, write_pages
from receiver.ledger.timestamps import format_rfc3339

app = typer.Typer(no_args_is_help=True)
NAMES = (
    *("time", "account", "action", "token", "user", "outcome", "refundId", "refundRequestId", "chargeId"),
    *("subscriber", "eventId", "fields", "count", "requestId", "id", "jobId"),
)
COLUMNS: Columns = {name: (name,) for name in NAMES}


class AuditPage(msgspec.Struct, rename="camel"):
    """A page of the list; each entry is the JSON received."""

    entries: list[dict[str, Any]]
    unreadable: list[str]
    next_cursor: str | None = None


async def _entries(api: Api, output: Output, filters: Mapping[str, str], as_csv: bool) -> None:
    """Every page. Acts that are done meanwhile would come before the first page."""
    note = output.note

    async def page_after(cursor: str) -> tuple[Rows, str | None]:
        query = {"since": note.since, "until": note.until, **filters, "cursor": cursor}
        where = target("audit", account=api.account, **query, limit=MOST_PER_PAGE)
        page = decode(await api.call("GET", where), AuditPage)
        if page.unreadable:
            say([f"Damaged, and left out: {', '.join(page.unreadable)}."])
        if page.entries and not note.newest:
            note.newest = str(page.entries[0].get("time", ""))
        return page.entries, page.next_cursor

    await write_pages(output, page_after, COLUMNS, as_csv)


@api_command(app)
def export(
    call: ServiceCall,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Only what was done since: 7d, 2026-01-31 (UTC), 2026-01-31T12:00:00Z.")
    ] = "",
    until: Annotated[
        str, typer.Option(metavar="TIME", help="Only what was done before this. Default: now.", show_default=False)
    ] = "",
    refund: Annotated[
        str, typer.Option(metavar="ID", help="Only what was done to this refund or refund request.")
    ] = "",
    actor: Annotated[str, typer.Option(metavar="NAME", help="Only what this token or person did.")] = "",
    form: Annotated[
        Literal["csv", "jsonl"],
        typer.Option("--format", case_sensitive=False, help="csv, or jsonl: the API's JSON, one entry per line."),
    ] = "jsonl",
    output: Annotated[
        Path | None, typer.Option(help="File to write. Default: standard output.", show_default=False)
    ] = None,
) -> None:
    """Export the audit trail, newest entry first.

    In CSV, text that a spreadsheet would treat as a formula gets a leading apostrophe. JSON lines are as in the API.

    If the export is interrupted, the same command continues exactly where FILE.part ends. What is done during an export
    is left to the next one, which starts at the --since printed at the end. An entry can be in both, with the same
    account and id.
    """
    question = ["audit", call.base, call.account, since, until, refund, actor, form]
    whole = Output(output, "entries", question, read_since(since), read_since(until))
    filters = {"refund": refund, "actor": actor}
    note = run_export(call, whole, lambda api, whole: _entries(api, whole, filters, form == "csv"))
    newest = read_ms(note.newest)
    following = note.since if newest is None else format_rfc3339(max(newest - OVERLAP, 0))
    again = f" The next export: --since {following}" if following else ""
    say([f"{note.rows} entries.{again}"])
