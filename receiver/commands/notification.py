"""Command. `receiver notification`: notifications that this version does not understand."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from receiver.commands.client.options import ServiceCall, api_command, of_form
from receiver.commands.console import clean, emit, emit_fields, emit_table, moment, say
from receiver.http.api.schema import UnrecognizedJson, UnrecognizedListJson, UnrecognizedMessageJson

app = typer.Typer(no_args_is_help=True)
checked_notification_id = of_form(
    re.compile(r"[0-9A-Za-z-]{1,64}"), "is not a notification id. See `receiver notification list`."
)


@api_command(app, name="list")
def list_all(
    call: ServiceCall,
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Show at most this many.")] = 50,
) -> None:
    """List notifications that were not understood, newest first.

    The service asked Amazon about every refund they name. Show one with `receiver notification show ID`.
    """
    call.show(call.ask("GET", "notifications", limit=limit), UnrecognizedListJson, _emit_list)


def _emit_list(found: UnrecognizedListJson) -> None:
    if not found.notifications:
        say(["There are none: every notification was understood."])
        return
    rows = []
    for each in found.notifications:
        refunds = ", ".join([*each.refund_ids[:5], *(["…"] if each.refund_count > 5 else [])])
        received, accounts = moment(each.received_at) or "", ", ".join(each.accounts)
        rows.append((received, each.notification_id, accounts, refunds, each.problem))
    emit_table(("Received", "Notification", "Accounts", "Refunds", "Not understood"), rows)
    if found.more:
        say([f"Showing {len(found.notifications)}. Use a higher --limit for more."])


@api_command(app)
def show(
    call: ServiceCall,
    notification_id: Annotated[
        str, typer.Argument(metavar="ID", callback=checked_notification_id, help="The id of the notification.")
    ],
) -> None:
    """Show one notification. With --json its message is exactly as Amazon signed it, otherwise printable."""
    call.show(call.ask("GET", "notifications", notification_id), UnrecognizedMessageJson, _emit)


def _emit(found: UnrecognizedMessageJson) -> None:
    emit_fields(
        [
            ("Notification", found.notification_id),
            ("Not understood", found.problem),
            ("Refunds", _refunds(found)),
            ("Accounts", ", ".join(found.accounts)),
            ("Topic", found.topic_arn),
            ("Subject", found.subject),
            ("Sent", moment(found.sent_at)),
            ("Received", moment(found.received_at)),
        ]
    )
    emit("")
    for line in found.message.splitlines() or [""]:
        emit(clean(line))


def _refunds(found: UnrecognizedJson) -> str | None:
    more = found.refund_count - len(found.refund_ids)
    return ", ".join([*found.refund_ids, *([f"and {more} more"] if more else [])]) or None
