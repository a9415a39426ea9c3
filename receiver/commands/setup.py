"""Command. What commands on the settings share: the option, logs, and failures as messages."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from receiver.errors import ConfigurationError, ReceiverError

if TYPE_CHECKING:
    from receiver.settings import Settings
    from receiver.transport.client import Transport

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="RECEIVER_CONFIG",
        help="TOML file with the settings. RECEIVER_… variables override it.",
    ),
]


def read_settings(config: Path | None) -> Settings:
    """The settings. If they are wrong, prints every problem and exits with 2."""
    from receiver.runtime import logs
    from receiver.settings import load

    try:
        settings = load(config, os.environ)
    except ConfigurationError as error:
        fail(error)
    logs.configure(level=settings.log.level, format=settings.log.format)
    return settings


@asynccontextmanager
async def transport(**limits: Any) -> AsyncIterator[Transport]:
    """Connections to the outside, closed at the end. Imported here: it takes long, and `--help` does not need it."""
    from receiver.transport.client import Transport

    found = Transport(**limits)
    try:
        yield found
    finally:
        await found.close()


def quiet() -> None:
    """Log errors only: the command prints its own results."""
    from receiver.runtime import logs

    logs.configure(level="error")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of the work. A `ReceiverError` is printed, and ends the process with 2."""
    import uvloop

    try:
        return uvloop.run(work)
    except ReceiverError as error:
        fail(error)


def fail(error: ReceiverError) -> NoReturn:
    """Print the error, and exit with 2."""
    problems = error.problems if isinstance(error, ConfigurationError) else (error.detail,)
    for problem in problems:
        typer.echo(f"receiver: {problem}", err=True)
    sys.exit(2)
