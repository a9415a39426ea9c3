"""A proxy that cuts connections in the middle of answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress


class Cutter:
    """Forwards TCP to a port. `plan`: for each of the next connections, after how many bytes of answers it is cut.
    Later connections are not cut."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self.plan: list[int] = []
        self.cut = 0
        """How many were cut."""
        self.url = ""
        self._connections: set[asyncio.Task[None]] = set()

    def drop(self) -> None:
        """Cut every current connection."""
        for each in self._connections:
            each.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends or is cut."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        left = self.plan.pop(0) if self.plan else None
        above, below = await asyncio.open_connection("127.0.0.1", self._upstream)
        asking = asyncio.create_task(self._pass(reader, below))
        try:
            while data := await above.read(65536 if left is None else left):
                writer.write(data)
                await writer.drain()
                left = None if left is None else left - len(data)
                if left == 0:
                    self.cut += 1
                    break
        except (asyncio.CancelledError, OSError):
            self.cut += 1
        finally:
            self._connections.discard(task)
            asking.cancel()
            for each in (below, writer):
                each.transport.abort()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, below: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                below.write(data)


@asynccontextmanager
async def cutting(upstream: int, plan: Sequence[int] = ()) -> AsyncIterator[Cutter]:
    """A running cutter, on a free port."""
    cutter = Cutter(upstream)
    cutter.plan = [*plan]
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    cutter.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cutter
    finally:
        server.close()
        cutter.drop()
