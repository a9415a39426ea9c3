"""Command. `receiver subscriber`: manages subscribers through the HTTP API of a running service."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from receiver.client.answers import AnySubscriber, AnyTest
from receiver.client.api import Api, decode, target
from receiver.client.errors import ApiProblem
from receiver.commands.client.options import ServiceCall, api_command, of_form, read_secret_file
from receiver.commands.console import confirmed, emit, emit_fields, need_terminal, say
from receiver.commands.subscriber import apply
from receiver.commands.subscriber.options import (
    AddressFile,
    AuthorizationFile,
    Backfill,
    Concurrency,
    MinAmount,
    NewSecret,
    OldValidFor,
    Rate,
    Reasons,
    ReplacingSecretFile,
    RoutingKeyFile,
    SecretFile,
    Types,
    check_address,
    filters,
    read_files,
    split,
)
from receiver.commands.subscriber.views import emit_list, emit_subscriber
from receiver.errors import TransportError
from receiver.exchange import Response
from receiver.http.api.schema import SubscriberListJson
from receiver.outbox.formats.registry import DEFAULT, FORMATS
from receiver.outbox.subscribers.changes import NEW
from receiver.outbox.subscribers.fields import NAME
from receiver.outbox.subscribers.url import EXAMPLE

UNSENT = ("bad_url", "bad_header", "dns_failed", "connect_failed", "tls_failed")
"""Reasons of `TransportError` if nothing was sent."""
TEST_WAIT = 30
"""Seconds to wait for a test delivery."""

app = typer.Typer(no_args_is_help=True)
checked_name = of_form(NAME, "a name is 1 to 64 characters of a-z, 0-9, - and _, and begins with a letter or digit.")
Name = Annotated[str, typer.Argument(metavar="NAME", callback=checked_name, help="Name of the subscriber.")]


@api_command(app)
def add(
    call: ServiceCall,
    name: Annotated[str, typer.Argument(metavar="NAME", callback=checked_name, help="Its name: a-z, 0-9, - and _.")],
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
        typer.Option(metavar="FORMAT", help=f"Message format: {', '.join(FORMATS)}."),
    ] = DEFAULT.name,
    types: Types = None,
    reasons: Reasons = None,
    min_amount: MinAmount = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    backfill: Backfill = None,
    start: Annotated[
        str, typer.Option("--from", help="Send events from: now, beginning (the oldest kept event), or a time.")
    ] = "now",
    secret_file: SecretFile = None,
    address_file: AddressFile = None,
    routing_key_file: RoutingKeyFile = None,
    authorization_file: AuthorizationFile = None,
) -> None:
    """Add a subscriber and print its new signing secret. The secret is shown only once.

    Events are posted to its URL, by default as CloudEvents signed by Standard Webhooks. Other formats have no signing
    secret. With several accounts, choose one with --account.
    """
    check_address(address, address_file, format)
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
        decode(answer, AnySubscriber)
    except (TransportError, ApiProblem) as error:
        if error.status >= 500 and error.reason not in UNSENT:
            say([f"{name} may have been added. Repeat the command: it adds nothing twice."])
            if "secret" not in wanted and wanted["format"] == DEFAULT.name:
                say([f"If it was added, its secret is lost: make another with `receiver subscriber rotate {name}`."])
        raise
    if answer.status == 200:
        shown = " Its secret is not shown again." if wanted["format"] == DEFAULT.name else ""
        say([f"{name} exists already with these values. Nothing was changed.{shown}"])
    return answer


@api_command(app, name="list")
def list_all(call: ServiceCall) -> None:
    """List subscribers, by account and name."""
    if not call.show(call.ask("GET", "subscribers"), SubscriberListJson, emit_list).subscribers:
        say(["There are no subscribers yet."])


@api_command(app)
def show(call: ServiceCall, name: Name) -> None:
    """Show one subscriber. Secrets are shown as fingerprints only."""
    _emit(call, call.ask("GET", "subscribers", name))


@api_command(app)
def change(
    call: ServiceCall,
    name: Name,
    address: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL",
            help="Where events are posted. A change of scheme, host or port needs the credentials again.",
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
            help="Reset to the default: types, reasons, min-amount, rate, concurrency, backfill, authorization.",
        ),
    ] = None,
    secret_file: ReplacingSecretFile = None,
    new_secret: NewSecret = False,
    address_file: AddressFile = None,
    routing_key_file: RoutingKeyFile = None,
    authorization_file: AuthorizationFile = None,
) -> None:
    """Change a subscriber's events or endpoint. Omitted options stay as they are.

    Events already waiting stay waiting. If the URL moves to another scheme, host or port, pass the credentials again in
    the same change. A subscriber from the service's settings file must be changed there.
    """
    if address and address_file:
        raise typer.BadParameter("use either this or --address-file.", param_hint="--to")
    if new_secret and secret_file:
        raise typer.BadParameter("use either this or --secret-file.", param_hint="--new-secret")
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
    _emit(call, call.ask("PATCH", "subscribers", name, body=body))


@api_command(app)
def rotate(
    call: ServiceCall,
    name: Name,
    secret_file: SecretFile = None,
    old_valid_for: OldValidFor = "24h",
) -> None:
    """Replace a subscriber's signing secret and print the new one. It is shown only once.

    Until the old secret expires, every delivery is signed with both.
    """
    body: dict[str, Any] = {"oldValidFor": old_valid_for}
    if secret_file:
        body["secret"] = read_secret_file(secret_file, "--secret-file")
    _emit(call, call.ask("POST", "subscribers", name, "rotate", body=body))


@api_command(app)
def test(call: ServiceCall, name: Name) -> None:
    """Send a test event to this subscriber only, even if it is paused, and show its answer.

    The event's type is amazonpay.refund.test. Exit code 1 if it was not accepted.
    """
    answer = call.ask("POST", "subscribers", name, "test", wait=TEST_WAIT)
    if not call.show(answer, AnyTest, _emit_test).delivered:
        raise typer.Exit(1)


def _emit_test(tried: AnyTest) -> None:
    status = f"HTTP {tried.status}" if tried.status else None
    accepted = "accepted" if tried.delivered else "not accepted" if tried.delivered is False else "not sent yet"
    lines = [("Test", accepted), ("Answer", status), ("Error", tried.error), ("Body", tried.answer)]
    lines += [("Note", tried.note), ("Took", f"{tried.seconds:g} s"), ("webhook-id", tried.id)]
    emit_fields(lines)


@api_command(app)
def pause(call: ServiceCall, name: Name) -> None:
    """Send nothing to a subscriber until it is resumed. Its events wait and do not expire."""
    _emit(call, call.ask("POST", "subscribers", name, "pause"))


@api_command(app)
def resume(call: ServiceCall, name: Name) -> None:
    """Resume a paused subscriber, also one paused for 410 Gone or failing: waiting events are sent at its rate."""
    _emit(call, call.ask("POST", "subscribers", name, "resume"))


@api_command(app)
def remove(
    call: ServiceCall,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove a subscriber. Its waiting and failed events are lost. With --json it prints nothing.

    Asks for confirmation first; exit code 1 unless you answer yes. A subscriber from the service's settings file cannot
    be removed here.
    """
    account = call.account
    if not yes:
        need_terminal()
        found = decode(call.ask("GET", "subscribers", name), AnySubscriber)
        account = found.account
        if not confirmed(f"Remove {found.name} of account {account} ({found.url}) and its waiting events?"):
            say(["Not removed."])
            raise typer.Exit(1)
    call.run(lambda api: api.call("DELETE", target("subscribers", name, account=account)))
    if not call.json:
        emit(f"Removed {name} and its waiting events.")


def _emit(call: ServiceCall, answer: Response) -> None:
    call.show(answer, AnySubscriber, emit_subscriber)


app.add_typer(apply.app)
