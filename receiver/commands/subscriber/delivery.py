"""Command. `receiver delivery`: waiting and failed deliveries, and sending them again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from receiver.client.answers import DeliveryPage
from receiver.commands.client.options import ServiceCall, api_command
from receiver.commands.console import clean, emit, emit_table, moment, say
from receiver.errors import ConfigurationError
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
        answer = call.ask("GET", "subscribers", name, "deliveries", state=state, limit=limit, cursor=cursor)
        page = call.show(answer, DeliveryPage, _emit)
        if not (page.deliveries or call.json):
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
    answer = call.ask("POST", "subscribers", name, "redrive", body={**body, "dryRun": dry_run})
    call.show(answer, RedriveJson, _emit_redriven)


def _emit_redriven(done: RedriveJson) -> None:
    emit(f"{done.selected} would be sent again." if done.dry_run else f"{done.redriven} will be sent again.")
    if done.already_waiting:
        say([f"{done.already_waiting} already waiting."])
    if done.missing:
        say([f"Not found: {clean(', '.join(done.missing))}."])


def _emit(page: DeliveryPage) -> None:
    rows = []
    for each in page.deliveries:
        why = ": ".join(filter(None, (each.reason, each.last_error)))
        kind = (each.type or "").removeprefix("amazonpay.refund.")
        following = moment(each.next_attempt_at) or ""
        rows.append((each.stream_id, kind, each.refund_id or "", str(each.attempts), why, following))
    if rows:
        emit_table(("Stream id", "Type", "Refund", "Attempts", "Reason", "Next"), rows)
