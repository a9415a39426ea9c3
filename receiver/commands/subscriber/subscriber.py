"""Command. `receiver subscriber`: who is told about refunds, managed through the HTTP API of a running service."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from receiver.commands.client.answers import SubscriberAnswer, SubscribersAnswer, TryAnswer
from receiver.commands.client.api import Api, ApiProblem, decode, target
from receiver.commands.client.options import Call, api_command, read_secret_file
from receiver.commands.console import clean, emit, emit_fields, emit_json, say
from receiver.commands.subscriber.options import (
    AddressFile,
    AuthorizationFile,
    Backfill,
    Concurrency,
    MinAmount,
    NewSecret,
    Rate,
    Reasons,
    ReplacingSecretFile,
    RoutingKeyFile,
    SecretFile,
    Types,
    filters,
    read_files,
    split,
)
from receiver.commands.subscriber.views import emit_list, fields
from receiver.errors import ConfigurationError, TransportError
from receiver.exchange import Response
from receiver.outbox.formats.registry import DEFAULT, FORMATS
from receiver.outbox.subscribers.changes import NEW
from receiver.outbox.subscribers.fields import NAME
from receiver.outbox.subscribers.url import EXAMPLE

UNSENT = ("bad_url", "bad_header", "dns_failed", "connect_failed", "tls_failed")
"""Reasons of `TransportError` with which no byte of a request has left."""
TEST_WAIT = 30
"""Seconds that the service may take to send a test."""

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
    ] = DEFAULT.name,
    types: Types = None,
    reasons: Reasons = None,
    min_amount: MinAmount = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    backfill: Backfill = None,
    start: Annotated[
        str, typer.Option("--from", help="Told of events since: now, beginning (all that are kept), or a time.")
    ] = "now",
    secret_file: SecretFile = None,
    address_file: AddressFile = None,
    routing_key_file: RoutingKeyFile = None,
    authorization_file: AuthorizationFile = None,
) -> None:
    """Add a subscriber, and print the signing secret that was made for it: this once, and never again.

    Events are posted to its URL, by default as CloudEvents, signed as Standard Webhooks has it. Other formats have no
    signing secret. With several accounts, --account says whose refunds.
    """
    if address and address_file:
        raise typer.BadParameter("stands beside --address-file; give one of the two.", param_hint="URL")
    wanted = {
        "name": name,
        "url": address,
        "format": format,
        **filters(types, reasons, min_amount),
        "rate": rate,
        "concurrency": concurrency,
        "backfill": backfill,
        "start": "" if start == "now" else start,
        "account": call.account,
        **read_files(secret_file, routing_key_file, authorization_file, address_file),
    }
    answer = call.run(
        lambda api: _add(api, name, {key: value for key, value in wanted.items() if value or value is False})
    )
    _emit(call, answer)


async def _add(api: Api, name: str, wanted: dict[str, Any]) -> Response:
    try:
        answer = await api.call("POST", target("subscribers"), body=wanted)
        decode(answer, SubscriberAnswer)
    except (TransportError, ApiProblem) as error:
        if error.status >= 500 and error.reason not in UNSENT:
            say([f"Perhaps {name} was added all the same: look with `receiver subscriber show {name}`."])
            if "secret" not in wanted and wanted["format"] == DEFAULT.name:
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
        emit_list(found)
    if not found:
        say(["There are no subscribers yet."])


@api_command(app)
def show(call: Call, name: Name) -> None:
    """Show one subscriber. Of its secrets there is only a fingerprint, by which they can be told apart."""
    _emit(call, call.run(lambda api: api.call("GET", _path(api, name))))


@api_command(app)
def change(
    call: Call,
    name: Name,
    address: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL",
            help="Where events are posted. Another scheme, host or port needs the credentials in the same change.",
        ),
    ] = "",
    types: Types = None,
    reasons: Reasons = None,
    min_amount: MinAmount = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    backfill: Backfill = None,
    default: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="Back to its default: types, reasons, min-amount, rate, concurrency, backfill, authorization.",
        ),
    ] = None,
    secret_file: ReplacingSecretFile = None,
    new_secret: NewSecret = False,
    address_file: AddressFile = None,
    routing_key_file: RoutingKeyFile = None,
    authorization_file: AuthorizationFile = None,
) -> None:
    """Change what a subscriber is told, and where. Options that are not given change nothing.

    What it is owed already stays owed. Credentials do not follow a URL to another scheme, host or port: give them again
    in the same change. A subscriber that stands in the service's configuration is changed there.
    """
    if address and address_file:
        raise typer.BadParameter("stands beside --address-file; give one of the two.", param_hint="--to")
    if new_secret and secret_file:
        raise typer.BadParameter("stands beside --secret-file; give one of the two.", param_hint="--new-secret")
    wanted = {
        "url": address,
        **filters(types, reasons, min_amount),
        "rate": rate,
        "concurrency": concurrency,
        "backfill": backfill,
        "secret": NEW if new_secret else "",
        **read_files(secret_file, routing_key_file, authorization_file, address_file),
    }
    body: dict[str, Any] = {key: value for key, value in wanted.items() if value or value is False}
    for field in split(default):
        body[field.replace("-", "_")] = None
    _emit(call, call.run(lambda api: api.call("PATCH", _path(api, name), body=body)))


@api_command(app)
def rotate(
    call: Call,
    name: Name,
    secret_file: SecretFile = None,
    old_valid_for: Annotated[
        str, typer.Option(metavar="SPAN", help="How long the old secret goes on signing, 0s to 7d.")
    ] = "24h",
) -> None:
    """Give a subscriber another signing secret, and print the one that was made: this once, and never again.

    Until the old one ends, every delivery is signed with both.
    """
    body: dict[str, Any] = {"oldValidFor": old_valid_for}
    if secret_file:
        body["secret"] = read_secret_file(secret_file, "--secret-file")
    path = ("subscribers", name, "rotate")
    _emit(call, call.run(lambda api: api.call("POST", target(*path, account=api.account), body=body)))


@api_command(app)
def test(call: Call, name: Name) -> None:
    """Send one test event to this subscriber alone, also while it is paused, and show what it answers.

    Its type is amazonpay.refund.test. Exit code 1 if it was not accepted.
    """
    path = ("subscribers", name, "test")
    answer = call.run(lambda api: api.call("POST", target(*path, account=api.account), wait=TEST_WAIT))
    tried = decode(answer, TryAnswer)
    if call.json:
        emit_json(answer.body)
    else:
        status = f"HTTP {tried.status}" if tried.status else None
        accepted = "accepted" if tried.delivered else "not accepted" if tried.delivered is False else "not sent yet"
        lines = [("Test", accepted), ("Answer", status), ("Error", tried.error), ("It said", tried.answer)]
        lines += [("Note", tried.note), ("Took", f"{tried.seconds:g} s"), ("webhook-id", tried.id)]
        emit_fields(lines)
    if not tried.delivered:
        raise typer.Exit(1)


@api_command(app)
def pause(call: Call, name: Name) -> None:
    """Send a subscriber nothing until it is resumed. What it is owed waits, and does not grow old."""
    _turn(call, name, "pause")


@api_command(app)
def resume(call: Call, name: Name) -> None:
    """Send a paused subscriber what has waited for it, at its rate; also one that answered 410 Gone, or was failing."""
    _turn(call, name, "resume")


def _turn(call: Call, name: str, verb: str) -> None:
    _emit(call, call.run(lambda api: api.call("POST", target("subscribers", name, verb, account=api.account))))


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


def _emit(call: Call, answer: Response) -> None:
    if call.json:
        emit_json(answer.body)
        return
    found = decode(answer, SubscriberAnswer)
    emit_fields(fields(found))
    if found.secret is not None:
        emit(
            f"\nIts signing secret, shown this once and never again; the subscriber needs it:\n\n{clean(found.secret)}"
        )


def _path(api: Api, name: str) -> str:
    return target("subscribers", name, account=api.account)
