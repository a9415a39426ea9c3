"""What takes a tenth of a second and is the same in each test: made once in a process, or not waited for."""

from __future__ import annotations

import asyncio
import os
import ssl
from functools import cache
from typing import Any

import uvicorn.server

from receiver.service import system_clock
from receiver.simulator.keys import Keys, make_keys
from receiver.transport import client

_read_system_trust = client._system_trust


@cache
def keys() -> Keys:
    """Keys of a simulator whose clock is the machine's."""
    return make_keys(system_clock())


def share_trust() -> None:
    """All transports of this process, and of those that it forks, share one copy of the system's trust store, unless
    a variable names another."""
    client._system_trust = _system_trust


@cache
def read_trust() -> ssl.SSLContext:
    """That copy."""
    return _read_system_trust()


def _system_trust() -> ssl.SSLContext:
    return _read_system_trust() if {"SSL_CERT_FILE", "SSL_CERT_DIR"} & os.environ.keys() else read_trust()


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
