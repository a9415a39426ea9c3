"""Edge: names. The system's resolver, in threads of its own."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult


class ThreadResolver(AbstractResolver):
    """The system's resolver in threads of its own.

    Event loops share a few threads among everything (uvloop: four), so a handful of names whose servers do not answer
    would hold up every other name in the process.
    """

    def __init__(self, threads: int = 16) -> None:
        self._threads = ThreadPoolExecutor(threads, "resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Every address of the name, in the system's order. Raises `OSError` where there is none."""
        loop = asyncio.get_running_loop()
        flags = socket.AI_ADDRCONFIG
        try:
            found = await loop.run_in_executor(
                self._threads, socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, flags
            )
        except UnicodeError as error:
            raise OSError("the name breaks the rules for names") from error
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=socket.AI_NUMERICHOST
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Let the threads end; look-ups that are under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
