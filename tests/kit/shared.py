"""What takes a tenth of a second and is the same in each test: made once in a process, or not waited for."""

from __future__ import annotations

import asyncio
import os
import ssl
from copy import copy
from functools import cache
from typing import Any

import typer.main
import typer.testing
import uvicorn.server
from typer.core import TyperGroup

from receiver.service import system_clock
from receiver.simulator.keys import Keys, make_keys
from receiver.transport import client

_read_system_trust = client._system_trust


@cache
def keys() -> Keys:
    """Keys of a simulator whose clock is the machine's."""
    return make_keys(system_clock())


def share_trust() -> None:
    """All transports of this process, and of those that it forks, share one copy of each trust store that variables
    name."""
    client._system_trust = read_trust


def read_trust() -> ssl.SSLContext:
    """The copy of the trust store that the variables name now, or of the system's."""
    return _trust(*map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")))


@cache
def _trust(*_named: str | None) -> ssl.SSLContext:
    return _read_system_trust()


def share_commands() -> None:
    """All commands of this process, and of those that it forks, share one description of the command line."""
    vars(typer.main)["get_command"] = vars(typer.testing)["_get_command"] = _command_line


def _command_line(app: typer.Typer) -> Any:
    found = copy(_described(app))
    if isinstance(found, TyperGroup):
        found.commands = dict(found.commands)  # It adds what it loads.
    return found


_described = cache(typer.main.get_command)


def stop_servers_at_once() -> None:
    """uvicorn looks ten times a second whether it has to stop, and then waits a tenth of a second for connections to
    end. In this process it looks, and waits, ten times as briefly."""
    vars(uvicorn.server)["asyncio"] = _Brief()


class _Brief:
    """asyncio with brief sleeps."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        """For a tenth of the time."""
        await asyncio.sleep(seconds / 10)
