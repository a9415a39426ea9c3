"""Command. `receiver delivery`: waiting and failed deliveries, and sending them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from receiver.client.answers import AnyDelivery, DeliveryPage
from receiver.client.api import Api, decode, target
from receiver.commands.client.options import ServiceCall, api_command
from receiver.commands.console import clean, emit, emit_json, emit_rich, moment, say, table
from receiver.errors import ConfigurationError
from receiver.exchange import Response
from receiver.http.api.schema import RedriveJson

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the subscriber.")]


@api_command(app, name="list")
def list_all(
    call: ServiceCall,
    name: Name,
    state: Annotated[
        str, typer.Option(help="dead (failed permanently, newest first) or waiting (by next attempt).")
    ] = "dead",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Show at most this many; with --all, the page size.")] = 50,
    every: Annotated[bool, typer.Option("--all", help="Show all pages.")] = False,
) -> None:
    """List events that wait for a subscriber or failed permanently, with its last answer."""
    cursor: str | None = ""
    while cursor is not None:
        answer = call.run(lambda api, at=cursor: _page(api, name, state, limit, at))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        page = decode(answer, DeliveryPage)
        if call.json:
            emit_json(answer.body)
        elif page.deliveries:
            _emit(page.deliveries)
        else:
            say([f"There are no {'more ' if cursor else ''}{clean(state.lower())} events."])
        cursor = page.next_cursor if every else None
    if page.next_cursor:
        say(["Use --all to list more."])


@api_command(app)
def redrive(
    call: ServiceCall,
    name: Name,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]…", help="Event ids: evt_…, or values of the column Stream id.")
    ] = None,
    since: Annotated[
        str, typer.Option(help="Dead events written since this time, for example 2026-01-31T12:00:00Z.")
    ] = "",
    until: Annotated[str, typer.Option(help="Dead events written until this time.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every dead event.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be sent.")] = False,
) -> None:
    """Resend events: dead ones by time or all of them, and by id also delivered ones.

    They are sent at the subscriber's rate, with their original webhook-id. You can resend an event any number of times.
    """
    wanted: dict[str, Any] = {"ids": ids or None, "since": since, "until": until, "all": every}
    body = {key: value for key, value in wanted.items() if value}
    if not body:
        raise ConfigurationError(["Choose events: ids, --since and --until, or --all."])
    path = ("subscribers", name, "redrive")
    answer = call.run(
        lambda api: api.call("POST", target(*path, account=api.account), body={**body, "dryRun": dry_run})
    )
    done = decode(answer, RedriveJson)
    if call.json:
        emit_json(answer.body)
        return
    emit(f"{done.selected} would be sent again." if dry_run else f"{done.redriven} will be sent again.")
    if done.already_waiting:
        say([f"{done.already_waiting} already waiting."])
    if done.missing:
        say([f"Not found: {clean(', '.join(done.missing))}."])


async def _page(api: Api, name: str, state: str, limit: int, cursor: str) -> Response:
    query: dict[str, str | int] = {"account": api.account, "state": state, "limit": limit, "cursor": cursor}
    return await api.call("GET", target(*("subscribers", name, "deliveries"), **query))


def _emit(found: Sequence[AnyDelivery]) -> None:
    rows = table()
    for column in ("Stream id", "Type", "Refund", "Attempts", "Reason", "Next"):
        rows.add_column(column, overflow="fold")
    for each in found:
        why = ": ".join(filter(None, (each.reason, each.last_error)))
        kind = (each.type or "").removeprefix("amazonpay.refund.")
        texts = (each.stream_id, kind, each.refund_id or "", str(each.attempts), why)
        rows.add_row(*(Text(clean(text)) for text in texts), moment(each.next_attempt_at) or "")
    emit_rich(rows)
