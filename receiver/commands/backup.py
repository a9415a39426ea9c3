"""Command. `receiver backup` and `receiver restore`: save a snapshot of the configured store, and restore one."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from receiver.commands.setup import Config
from receiver.errors import ConfigurationError

if TYPE_CHECKING:
    from receiver.settings import StoreSettings
    from receiver.store import Store

app = typer.Typer()

T = TypeVar("T")


@app.command("backup")
def backup_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to save the snapshot. An older one is replaced.")],
    config: Config = None,
    bound: Annotated[float, typer.Option("--bound", min=1, help="Seconds that the snapshot may take.")] = 600.0,
) -> None:
    """Save the store to a file, while the service runs. Works on the machine of the server that holds the data.

    Of the settings, only data_dir and redis are read, so accounts and their keys need not be readable. Without
    settings: RECEIVER_DATA_DIR=/var/lib/receiver, or RECEIVER_REDIS__URL and RECEIVER_REDIS__PASSWORD_FILE. Only you
    can read the file. Protect it like payment data: it contains refunds and the secrets of subscribers.

    Exit codes: 0 done · 2 wrong usage or configuration · 3 the store does not answer, or could not write the snapshot.
    """
    from receiver.commands.client.options import ending
    from receiver.commands.console import emit
    from receiver.store.maintenance.backup import save

    with ending():
        size = _with(_store_of(config), lambda store: save(store.connection.client, file, bound))
        emit(f"{file}: {size} bytes")


@app.command("restore")
def restore_command(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A file of `receiver backup`.")] = None,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="The data folder of your own, stopped server. Default: data_dir of the settings."
        ),
    ] = None,
    config: Config = None,
    mark_only: Annotated[
        bool,
        typer.Option(
            "--mark-only",
            help="Restore nothing: mark the data of the running store as restored by other means.",
        ),
    ] = False,
) -> None:
    """Restore a backup into the folder of a stopped store that holds no data. The files get the folder's owner.

    At its next start, the service asks Amazon about every refund that was not final. Of the settings, only data_dir and
    redis are read.

    Exit codes: 0 done · 2 wrong usage, a folder with data, or no snapshot · 3 the store does not answer.
    """
    from receiver.commands.client.options import ending
    from receiver.commands.console import emit
    from receiver.store.maintenance.backup import restore

    with ending():
        store = _store_of(config)
        if mark_only:
            if file is not None:
                raise ConfigurationError(["--mark-only: restores nothing, so it takes no FILE."])
            _with(store, lambda opened: opened.format.mark_restored())
            emit("Marked as restored. The service sees it at its next start, or within 30 s.")
            return
        if file is None:
            raise ConfigurationError(["FILE is missing: a file of `receiver backup`."])
        place, database = _target(store, folder)
        size = restore(file, place, database)
        emit(f"{place}: restored from {file}, {size} bytes, for {_owner(place)}. Start the service.")


def _store_of(config: Path | None) -> StoreSettings:
    from receiver.settings import load_store

    return load_store(config, os.environ)


def _with(settings: StoreSettings, work: Callable[[Store], Awaitable[T]]) -> T:
    """The result of the work with the store of these settings."""
    import uvloop

    from receiver.commands.prune import opened

    async def done() -> T:
        async with opened(settings) as store:
            return await work(store)

    return uvloop.run(done())


def _target(settings: StoreSettings, folder: Path | None) -> tuple[Path, int]:
    """Where the data of the store is, and the number of its database."""
    address = settings.redis.address
    if address is None:
        return folder or settings.data_dir, 0
    if folder is None:
        raise ConfigurationError(["FOLDER is missing: with redis.url it is where your server keeps its data."])
    return folder, address.database


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except (KeyError, NotImplementedError):
        return f"user {folder.stat().st_uid}"
