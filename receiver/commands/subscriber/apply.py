"""Command. `receiver subscriber apply`: makes subscribers equal to the tables of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.client.answers import PutSubscriber
from receiver.client.api import Api, decode, target
from receiver.client.errors import ApiProblem
from receiver.commands.client.messages import explain
from receiver.commands.client.options import ServiceCall, api_command
from receiver.commands.console import clean, emit, emit_json, say
from receiver.errors import TransportError
from receiver.exchange import Response
from receiver.ledger.timestamps import format_rfc3339

if TYPE_CHECKING:
    from receiver.settings.subscriber import SubscriberSettings

app = typer.Typer()

DONE = {"created": "created", "changed": "changed", "unchanged": "unchanged"}
PLANNED = {"created": "would be created", "changed": "would be changed", "unchanged": "unchanged"}


@api_command(app)
def apply(
    call: ServiceCall,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML file with [[subscribers]] tables, as in the settings.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> None:
    """Create or change subscribers so that they are equal to the [[subscribers]] tables of a file. Can be repeated.

    All tables are checked first: if one is refused, nothing is changed. Subscribers that the file does not name stay.
    A new subscriber without a secret gets one, which is printed once; an existing one keeps its secrets. A subscriber
    from the service's settings file must be changed there. A table's account goes before --account.
    """
    from receiver.settings.subscriber import read_subscribers_file

    wanted = read_subscribers_file(file)
    if not call.run(lambda api: _apply(api, call, wanted, dry_run)):
        raise typer.Exit(1)


async def _apply(api: Api, call: ServiceCall, wanted: Sequence[SubscriberSettings], dry_run: bool) -> bool:
    """False if a table was refused, which is printed. Each answer is printed at once: it may hold a new secret."""
    plans, refused = [], False
    for each in wanted:
        try:
            plans.append(await _put(api, each, dry_run=True))
        except ApiProblem as error:
            if error.status >= 500:
                raise
            refused = True
            lines = explain(error)
            say([f"{each.name}: {lines[0]}", *lines[1:]])
    if refused:
        say(["Nothing was changed."])
        return False
    for each, plan in zip(wanted, plans, strict=True):
        if dry_run or decode(plan, PutSubscriber).outcome == "unchanged":
            _emit(call, plan, PLANNED)
        else:
            _emit(call, await _written(api, each), DONE)
    return True


async def _put(api: Api, wanted: SubscriberSettings, *, dry_run: bool) -> Response:
    """One subscriber. Raises `ApiProblem`, also for an answer that is not the service's, and `TransportError`."""
    body: dict[str, Any] = dict(wanted.fields)
    if wanted.start_at is not None:
        body["start"] = format_rfc3339(wanted.start_at)
    account = wanted.account or api.account
    path = target("subscribers", wanted.name, account=account, dryRun="true" if dry_run else "")
    answer = await api.call("PUT", path, body=body)
    decode(answer, PutSubscriber)
    return answer


async def _written(api: Api, wanted: SubscriberSettings) -> Response:
    try:
        return await _put(api, wanted, dry_run=False)
    except (TransportError, ApiProblem) as error:
        if error.status >= 500:
            say([f"{wanted.name} may have been written. Apply the file again to make sure."])
            if "secret" not in wanted.fields and "secrets" not in wanted.fields:
                rotate = f"receiver subscriber rotate {wanted.name}"
                say([f"If it was new, its secret is lost: make another with `{rotate}`."])
        raise


def _emit(call: ServiceCall, answer: Response, words: dict[str, str]) -> None:
    if call.json:
        emit_json(answer.body)
        return
    found = decode(answer, PutSubscriber)
    emit(f"{clean(found.name)} ({clean(found.account)}): {words.get(found.outcome, clean(found.outcome))}")
    for each in found.changes:
        emit(f"  {clean(each.field)}: {_shown(each.before)} → {_shown(each.after)}")
    if found.secret is not None:
        emit(f"  Its signing secret (shown only once): {clean(found.secret)}")


def _shown(value: Any) -> str:
    """A field's value, short: a secret by its fingerprint, a list by its parts."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, dict):
        return clean(str(value.get("fingerprint", "?")))
    return "none" if value is None else clean(str(value).lower() if isinstance(value, bool) else str(value))
