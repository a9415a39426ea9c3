"""Command. `receiver delivery`: what waits for a subscriber and what was given up, and sending it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from receiver.commands.client.answers import AnyDelivery, DeliveryPage
from receiver.commands.client.api import Api, decode, target
from receiver.commands.client.options import Call, api_command
from receiver.commands.console import clean, emit, emit_json, emit_rich, moment, say, table
from receiver.errors import ConfigurationError
from receiver.exchange import Response
from receiver.http.api.schema import RedriveJson

app = typer.Typer(
    help="Look at what waits for a subscriber and at what was given up, and send it again. Needs a running "
    "`receiver serve`, and a token with the scope admin.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the subscriber.")]


@api_command(app, name="list")
def list_all(
    call: Call,
    name: Name,
    state: Annotated[str, typer.Option(help="dead (given up, newest first) or waiting (by next attempt).")] = "dead",
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most; with --all, how many a page.")] = 50,
    every: Annotated[bool, typer.Option("--all", help="Every page, not only the first.")] = False,
) -> None:
    """List the events that a subscriber is still owed, or that were given up, with what it answered last."""
    cursor: str | None = ""
    while cursor is not None:
        answer = call.run(lambda api, at=cursor: _page(api, name, state, limit, at))  # type: ignore[misc]
        page = decode(answer, DeliveryPage)
        if call.json:
            emit_json(answer.body)
        elif page.deliveries:
            _emit(page.deliveries)
        else:
            say([f"There are no {'more ' if cursor else ''}{clean(state)} events."])
        cursor = page.next_cursor if every else None
    if page.next_cursor:
        say(["There are more: --all lists them."])


@api_command(app)
def redrive(
    call: Call,
    name: Name,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]…", help="Ids of events: evt_…, or as in the column Stream id.")
    ] = None,
    since: Annotated[str, typer.Option(help="Dead events written since this time, 2026-01-31T12:00:00Z.")] = "",
    until: Annotated[str, typer.Option(help="Dead events written until this time.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every dead event.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
) -> None:
    """Send events again: dead ones by time or all of them, and by id also those that were delivered.

    They go at the subscriber's rate, with the webhook-id that they had; each can be sent again as often as you like.
    """
    wanted: dict[str, Any] = {"ids": ids or None, "since": since, "until": until, "all": every}
    body = {key: value for key, value in wanted.items() if value}
    if not body:
        raise ConfigurationError(["Say which: ids, --since and --until, or --all."])
    path = ("subscribers", name, "redrive")
    answer = call.run(
        lambda api: api.call("POST", target(*path, account=api.account), body={**body, "dryRun": dry_run})
    )
    done = decode(answer, RedriveJson)
    if call.json:
        emit_json(answer.body)
        return
    emit(f"{done.selected} would be sent again." if dry_run else f"{done.redriven} are sent again.")
    if done.already_waiting:
        say([f"{done.already_waiting} wait already."])
    if done.missing:
        say([f"Not found: {clean(', '.join(done.missing))}."])


async def _page(api: Api, name: str, state: str, limit: int, cursor: str) -> Response:
    query: dict[str, str | int] = {"account": api.account, "state": state, "limit": limit, "cursor": cursor}
    return await api.call("GET", target(*("subscribers", name, "deliveries"), **query))


def _emit(found: Sequence[AnyDelivery]) -> None:
    rows = table()
    for column in ("Stream id", "Type", "Refund", "Tries", "Why", "Next"):
        rows.add_column(column, overflow="fold")
    for each in found:
        why = ": ".join(filter(None, (each.reason, each.last_error)))
        kind = (each.type or "").removeprefix("amazonpay.refund.")
        texts = (each.stream_id, kind, each.refund_id or "", str(each.attempts), why)
        rows.add_row(*(Text(clean(text)) for text in texts), moment(each.next_attempt_at) or "")
    emit_rich(rows)
