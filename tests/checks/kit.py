"""Sites for checks, made of real settings and a real transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from receiver.checks.finding import Finding
from receiver.checks.site import Send, Site
from receiver.errors import NotSent
from receiver.exchange import Request, Response
from receiver.settings import check
from tests.configuration import table

Ask = Callable[[Site], Awaitable[list[Finding]]]


def wall() -> int:
    """The machine's clock, ms."""
    return time.time_ns() // 1_000_000


async def no_web(request: Request, *, timeout: float, connect_timeout: float, max_body: int = 0) -> Response:
    """For checks that must ask nobody."""
    raise NotSent("There is no web here.", reason="dns_failed")


def site(*accounts: dict[str, Any], base: Path = Path("/"), send: Send = no_web, **more: Any) -> Site:
    """A site of these accounts (by default one, `us`). Settings and fields of the site can be given by name."""
    fields = {name: more.pop(name) for name in tuple(more) if name in Site.__dataclass_fields__}
    settings = check({"accounts": list(accounts) or [table("us")], **more}, base)
    return Site(settings, tuple(settings.build_accounts()), send, **{"wall": wall, **fields})


def words(findings: Iterable[Finding]) -> dict[str, str]:
    """What is not ok: check → reason."""
    return {each.check: each.reason for each in findings if each.reason}


def only(findings: Iterable[Finding], check: str) -> Finding:
    """The one finding of this check."""
    [found] = [each for each in findings if each.check == check]
    return found


@asynccontextmanager
async def silence() -> AsyncIterator[int]:
    """The port of a server that takes connections and never says a word."""
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
