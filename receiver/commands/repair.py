"""Command. `receiver repair`: sets a damaged key, or part of one, aside in the configured store."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.commands.setup import Config
from receiver.errors import ConfigurationError

if TYPE_CHECKING:
    from receiver.settings import Settings

app = typer.Typer()


@app.command("repair")
def repair_command(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="The key, as shown by `receiver doctor --store`. \\xNN is a byte.")
    ],
    config: Config = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            help="Only this field or member, or this place in a list. \\xNN is a byte. Default: the whole key.",
            show_default=False,
        ),
    ] = None,
    compared: Annotated[
        bool, typer.Option("--compared", help="Confirms that you compared the charge with Seller Central.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only one JSON object.")] = False,
) -> None:
    """Set a damaged key, or part of one, aside. It is kept under another name, not deleted.

    Whatever can still be read of a refund stays, and Amazon is asked about it again. Keys that money depends on
    (charges, refund requests) need --compared. Works on the store of the settings while the service runs.

    Exit codes: 0 done · 1 no such key or part · 2 wrong usage or configuration · 3 the store does not answer.
    """
    import uvloop

    from receiver.commands.client.options import ending
    from receiver.runtime import logs
    from receiver.settings import load

    logs.configure(level="critical")
    with ending():
        raise typer.Exit(uvloop.run(repair(load(config, os.environ), key, part, compared, as_json)))


async def repair(settings: Settings, key: str, part: str | None, compared: bool, as_json: bool) -> int:
    """Set it aside. Returns the exit code: 1 if it is not there.

    Raises `ConfigurationError` for a key of another program or one that money depends on, and `StoreUnavailable`.
    """
    from receiver.commands.console import emit, emit_value
    from receiver.commands.prune import opened
    from receiver.store.maintenance.inspection import MONEY
    from receiver.store.redis.damage import unescaped_key
    from receiver.store.redis.keys import KeyScope, read_name

    name = read_name(unescaped_key(key))
    if name is None or name.entry.scope is KeyScope.ASIDE:
        raise ConfigurationError([f"KEY: {ascii(key)[:200]} is not a key of the receiver that can be set aside."])
    if name.kind in MONEY and not compared:
        raise ConfigurationError(
            [
                f"KEY: {key} determines how much may still be refunded. First compare the charge and its refunds with "
                "Seller Central, then add --compared."
            ]
        )
    async with opened(settings) as store:
        store.connection.accounts = [account.name for account in settings.accounts]
        await store.correct_clock()
        kept = await store.inspection.repair(key, part)
    if as_json:
        emit_value({"key": key, "part": part, "keptAt": kept or None})
    elif not kept:
        emit(f"There is no {key}{'' if part is None else f' with a part {part!r}'}. Nothing was changed.")
    else:
        emit(f"Set aside: {key}{'' if part is None else f', {part}'}. It is kept at {kept}.")
        undo = shlex.join(["redis-cli", "RENAMENX", kept, unescaped_key(key)])
        emit("It is a field of that hash." if part is not None else f"To undo it: {undo}")
    return 0 if kept else 1
