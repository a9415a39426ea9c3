"""Command. `receiver subscriber`: who is told about refunds, managed through the HTTP API of a running service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from receiver.commands.answers import SubscriberAnswer, SubscribersAnswer
from receiver.commands.calling import Call, api_command, read_secret_file
from receiver.commands.client import Api, ApiProblem, decode, target
from receiver.commands.console import clean, emit, emit_fields, emit_json, emit_rich, moment, say, table
from receiver.errors import ConfigurationError, NotSent
from receiver.exchange import Response
from receiver.ledger.lifecycle import EventType
from receiver.outbox.formats import CLOUDEVENTS, FORMATS
from receiver.outbox.target import EXAMPLE
from receiver.outbox.written import ALL, NAME

TYPE_PREFIX = "amazonpay.refund."
UNSENT = ("bad_url", "bad_header", "dns_failed", "connect_failed", "tls_failed")
"""Reasons of `NotSent` with which no byte of a request has left."""
TYPES = {each.value.removeprefix(TYPE_PREFIX): each.value for each in EventType}

app = typer.Typer(
    help="Manage who is told about refunds. Needs a running `receiver serve`, and a token with the scope admin.",
    no_args_is_help=True,
)


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise typer.BadParameter("a name is 1 to 64 of a-z, 0-9, - and _, and begins with a letter or digit.")
    return text


Name = Annotated[str, typer.Argument(metavar="NAME", callback=_name, help="Name of the subscriber.")]


@api_command(app)
def add(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", callback=_name, help="Its name: a-z, 0-9, - and _.")],
    address: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help=f"Where events are posted, for example {EXAMPLE}. PagerDuty needs none.",
            show_default=False,
        ),
    ] = "",
    format: Annotated[  # noqa: A002
        str,
        typer.Option(metavar="FORMAT", help=f"How it is told: {', '.join(FORMATS)}."),
    ] = CLOUDEVENTS,
    types: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE,…",
            help=f"Events it wants: {', '.join(TYPES)}, or all. Repeat it, or separate by commas. Default: declined; "
            "with conflict for pagerduty; with conflict and stuck for slack and alertmanager.",
        ),
    ] = None,
    reasons: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REASON,…",
            help="Of events with a reason code only these, for example AmazonRejected. Default: all.",
        ),
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with the signing secret, whsec_…; without it the service makes one up."
        ),
    ] = None,
    address_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the URL, in its place: that of a Slack webhook is a secret."),
    ] = None,
    routing_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with PagerDuty's routing key (integration key).")
    ] = None,
    authorization_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with an Alertmanager's Authorization header, as Bearer TOKEN."),
    ] = None,
) -> None:
    """Add a subscriber, and print the signing secret that was made for it: this once, and never again.

    Events from now on are posted to its URL, by default as CloudEvents, signed as Standard Webhooks has it. Other
    formats have no signing secret. With several accounts, --account says whose refunds.
    """
    if address and address_file:
        raise typer.BadParameter("stands beside --address-file; give one of the two.", param_hint="URL")
    wanted = {
        "name": name,
        "url": read_secret_file(address_file, "--address-file") if address_file else address,
        "format": format,
        "routing_key": read_secret_file(routing_key_file, "--routing-key-file") if routing_key_file else "",
        "authorization": read_secret_file(authorization_file, "--authorization-file") if authorization_file else "",
        "types": [TYPES.get(each, ALL if each == "all" else each) for each in _split(types)],
        "reasons": _split(reasons),
        "secret": read_secret_file(secret_file, "--secret-file") if secret_file else "",
        "account": call.account,
    }
    answer = call.run(lambda api: _add(api, name, {key: value for key, value in wanted.items() if value}))
    if call.json:
        emit_json(answer.body)
        return
    added = decode(answer, SubscriberAnswer)
    emit_fields(_fields(added))
    if added.secret is not None:
        emit(
            f"\nIts signing secret, shown this once and never again; the subscriber needs it:\n\n{clean(added.secret)}"
        )


async def _add(api: Api, name: str, wanted: dict[str, Any]) -> Response:
    try:
        answer = await api.call("POST", target("subscribers"), body=wanted)
        decode(answer, SubscriberAnswer)
    except (NotSent, ApiProblem) as error:
        if error.status >= 500 and error.reason not in UNSENT:
            say([f"Perhaps {name} was added all the same: look with `receiver subscriber show {name}`."])
            if "secret" not in wanted and wanted["format"] == CLOUDEVENTS:
                say(["If so, its secret is lost: remove it, and add it again."])
        raise
    return answer


@api_command(app, name="list")
def list_all(call: Call) -> None:
    """List subscribers, by account and name."""
    answer = call.run(lambda api: api.call("GET", target("subscribers", account=api.account)))
    found = decode(answer, SubscribersAnswer).subscribers
    if call.json:
        emit_json(answer.body)
    elif found:
        _emit_list(found)
    if not found:
        say(["There are no subscribers yet."])


@api_command(app)
def show(call: Call, name: Name) -> None:
    """Show one subscriber. Of its secrets there is only a fingerprint, by which they can be told apart."""
    answer = call.run(lambda api: api.call("GET", _path(api, name)))
    found = decode(answer, SubscriberAnswer)
    emit_json(answer.body) if call.json else emit_fields(_fields(found))


@api_command(app)
def pause(call: Call, name: Name) -> None:
    """Send a subscriber nothing until it is resumed. What it is owed waits, and does not grow old."""
    _turn(call, name, "pause")


@api_command(app)
def resume(call: Call, name: Name) -> None:
    """Send a paused subscriber what has waited for it, also one that was paused because it answered 410 Gone."""
    _turn(call, name, "resume")


def _turn(call: Call, name: str, verb: str) -> None:
    answer = call.run(lambda api: api.call("POST", target("subscribers", name, verb, account=api.account)))
    found = decode(answer, SubscriberAnswer)
    emit_json(answer.body) if call.json else emit_fields(_fields(found))


@api_command(app)
def remove(
    call: Call,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first; needed where nobody can answer.")] = False,
) -> None:
    """Remove a subscriber, with all that it is still owed: that is lost. With --json it prints nothing.

    Asks first; any answer but yes is exit code 1. One that stands in the service's configuration cannot be removed
    here.
    """
    account = call.account
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise ConfigurationError(["There is nobody to ask: give --yes."])
        found = decode(call.run(lambda api: api.call("GET", _path(api, name))), SubscriberAnswer)
        account = found.account
        question = f"Remove {clean(found.name)} of account {clean(account)} ({clean(found.url)}), with all it is owed?"
        say([f"{question} [y/N]"])
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say(["Nothing was removed."])
            raise typer.Exit(1)
    call.run(lambda api: api.call("DELETE", target("subscribers", name, account=account)))
    if not call.json:
        emit(f"Removed {name}, with all that it was owed.")


def _path(api: Api, name: str) -> str:
    return target("subscribers", name, account=api.account)


def _split(values: Sequence[str] | None) -> Sequence[str]:
    return [word.strip() for value in values or () for word in value.split(",") if word.strip()]


def _emit_list(subscribers: Sequence[SubscriberAnswer]) -> None:
    rows = table()
    for column in ("Name", "Account", "State", "Wants", "Address"):
        rows.add_column(column, overflow="fold")
    for each in subscribers:
        name, account, wants, url = (Text(clean(text)) for text in (each.name, each.account, _wants(each), each.url))
        rows.add_row(name, account, _state(each), wants, url)
    emit_rich(rows)


def _fields(subscriber: SubscriberAnswer) -> Sequence[tuple[str, str | Text | None]]:
    return [
        ("Subscriber", subscriber.name),
        ("Account", subscriber.account),
        ("Format", subscriber.format),
        ("Address", subscriber.url),
        ("Wants", _wants(subscriber)),
        ("State", _state(subscriber)),
        ("Paused at", moment(subscriber.paused_at)),
        ("Created", moment(subscriber.created_at)),
        ("Comes from", "the configuration" if subscriber.origin == "config" else subscriber.origin),
        *(
            ("Fingerprint", each.fingerprint + (f", until {moment(each.expires_at)}" if each.expires_at else ""))
            for each in subscriber.secrets
        ),
        *([("Fingerprint", f"{kept.fingerprint} ({kept.field})")] if (kept := subscriber.credential) else []),
    ]


def _wants(subscriber: SubscriberAnswer) -> str:
    types = ", ".join("all" if each == ALL else each.removeprefix(TYPE_PREFIX) for each in subscriber.types)
    return f"{types} ({', '.join(subscriber.reasons)})" if subscriber.reasons else types


def _state(subscriber: SubscriberAnswer) -> Text:
    if not subscriber.paused:
        return Text("active", "green")
    why = f" ({clean(subscriber.paused_reason)})" if subscriber.paused_reason else ""
    return Text(f"PAUSED{why}", "bold red")
