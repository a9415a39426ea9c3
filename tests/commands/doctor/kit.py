"""Sites for checks, made of real settings and a real transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from receiver.amazon.account import Account
from receiver.client.api import Send
from receiver.commands.doctor.finding import Finding
from receiver.commands.doctor.site import Site
from receiver.errors import TransportError
from receiver.exchange import Request, Response
from receiver.settings import Settings, check
from receiver.settings.subscriber import read_tables
from tests.kit.configuration import table

Ask = Callable[[Site], Awaitable[list[Finding]]]


def system_clock() -> int:
    """The machine's clock, ms."""
    return time.time_ns() // 1_000_000


async def no_web(request: Request, *, timeout: float, connect_timeout: float, max_body: int = 0) -> Response:
    """For checks that must send no request."""
    raise TransportError("There is no web here.", reason="dns_failed")


@cache
def plain() -> tuple[Settings, tuple[Account, ...]]:
    """The account `us` and nothing else; to read its key takes a tenth of a second each time."""
    settings = check({"accounts": [table("us")]}, Path("/"))
    return settings, tuple(settings.build_accounts())


def site(*accounts: dict[str, Any], base: Path = Path("/"), send: Send = no_web, **more: Any) -> Site:
    """A site of these accounts (by default one, `us`). Settings and fields of the site can be given by name."""
    fields = {name: more.pop(name) for name in tuple(more) if name in Site.__dataclass_fields__}
    if accounts:
        settings = check({"accounts": list(accounts), **more}, base)
        built = tuple(settings.build_accounts())
    else:
        settings, built = plain()
        kinds: dict[str, Any] = {name: Settings.model_fields[name].annotation for name in more}
        if "subscribers" in more:
            more["subscribers"] = read_tables(more, base)[0]
        context = {"base": base}
        tables = {name: TypeAdapter(kind).validate_python(more[name], context=context) for name, kind in kinds.items()}
        settings = settings.model_copy(update=tables)
    return Site(settings, built, send, **{"system_clock": system_clock, **fields})


def words(findings: Iterable[Finding]) -> dict[str, str]:
    """What is not ok: check → reason."""
    return {each.check: each.reason for each in findings if each.reason}


def only(findings: Iterable[Finding], check: str) -> Finding:
    """The one finding of this check."""
    [found] = [each for each in findings if each.check == check]
    return found


@asynccontextmanager
async def silence() -> AsyncIterator[int]:
    """The port of a server that accepts connections and never sends anything."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while await reader.read(65_536):
                pass
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
