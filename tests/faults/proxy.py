"""A proxy between a store and its Redis that understands enough RESP to fail at exactly one command.

Commands are counted from 1 over all connections, in the order in which they arrive; each is passed on when the one
before it on its connection has been answered. So a fault at the n-th command means exactly that command.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from redis.asyncio import Redis

from receiver.store.redis.scripts import script, texts

NEVER_TWICE = (
    "claim",
    "claim_deliveries",
    "claim_request",
    "begin_try",
    "fps_begin",
    "take",
    "subscribe",
    "unsubscribe",
)
"""Scripts that no client may send twice, and those for operators, whose work a late copy would undo."""
LATE = 3
"""Commands after which the copy of a `late` one arrives."""


class Fault(StrEnum):
    """The failure at one command."""

    BEFORE = "before"
    """The connection ends before the command is passed on."""
    HALF_SENT = "half sent"
    """Redis gets half of the command."""
    HALF_ANSWERED = "half answered"
    """It is run, and half of the answer comes back."""
    AFTER = "after"
    """It is run, and no answer comes back."""
    AFTER_ALL = "after all"
    """It is run with all that follows on its connection, and of none an answer comes back."""
    FULL = "full"
    """Redis has no memory left while it runs this one."""
    READ_ONLY = "read-only"
    """Redis is a replica while it runs this one."""
    LOADING = "loading"
    """Redis answers that it is loading its data, and runs nothing."""
    FORGETS = "forgets scripts"
    """Redis has lost all scripts."""
    TWICE = "twice"
    """It is run twice, and the second answer comes back."""
    LATE = "late"
    """It is run once more, long after it was answered."""


COPIES = (Fault.TWICE, Fault.LATE)
NOT_RUN = (Fault.BEFORE, Fault.HALF_SENT, Fault.LOADING)
Frame = list[bytes]


@dataclass
class FaultProxy:
    """`plan`: command number → its fault. `every` is the fault of each command that may be sent twice."""

    upstream: str
    admin: Redis
    plan: dict[int, Fault] = field(default_factory=dict)
    every: Fault | None = None
    seen: int = 0
    fired: int = 0
    """Faults that have happened."""
    log: list[str] = field(default_factory=list)
    """The commands, by name; scripts by theirs."""
    _late: deque[tuple[int, bytes]] = field(default_factory=deque)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection, until it ends or is cut."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        above, below = await asyncio.open_unix_connection(self.upstream)
        try:
            while await self._pass_one(reader, writer, above, below):
                pass
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            for each in (below, writer):
                each.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _pass_one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        above: asyncio.StreamReader,
        below: asyncio.StreamWriter,
    ) -> bool:
        """Whether the connection is still of use."""
        raw, words = await read_command(reader)
        self.seen += 1
        self.log.append(name_of(words))
        fault = self._fault(words)
        if fault is not None:
            self.fired += 1
        if fault in NOT_RUN:
            return await self._refuse(fault, raw, writer, below)
        if fault is Fault.TWICE:
            below.write(raw)
            await read_answer(above)
        elif fault is Fault.LATE:
            self._late.append((self.seen + LATE, raw))
        async with self._state(fault):
            below.write(raw)
            answer = await read_answer(above)
        if fault is Fault.AFTER_ALL:
            await self._swallow(reader, above, below)
        if fault in (Fault.AFTER, Fault.AFTER_ALL):
            return False
        if fault is Fault.HALF_ANSWERED:
            writer.write(answer[: len(answer) // 2])
            await writer.drain()
            return False
        writer.write(answer)
        await self.send_late(self.seen)
        return True

    async def _refuse(
        self, fault: Fault | None, raw: bytes, writer: asyncio.StreamWriter, below: asyncio.StreamWriter
    ) -> bool:
        """The command is not run. Whether the connection is still of use."""
        if fault is Fault.LOADING:
            writer.write(b"-LOADING Valkey is loading the dataset in memory\r\n")
            return True
        if fault is Fault.HALF_SENT:
            below.write(raw[: len(raw) // 2])
            await below.drain()
        return False

    def _fault(self, words: Frame) -> Fault | None:
        fault = self.plan.get(self.seen, self.every)
        if fault in COPIES and (words[0] not in (b"EVALSHA", b"EVAL") or name_of(words) in NEVER_TWICE):
            return None
        return fault

    @contextlib.asynccontextmanager
    async def _state(self, fault: Fault | None) -> AsyncIterator[None]:
        """What is the matter with Redis while it runs one command."""
        if fault is Fault.FORGETS:
            await self.admin.script_flush()
        elif fault is Fault.FULL:
            await self.admin.config_set("maxmemory", "1")
        elif fault is Fault.READ_ONLY:
            await self.admin.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            if fault is Fault.FULL:
                await self.admin.config_set("maxmemory", "0")
            elif fault is Fault.READ_ONLY:
                await self.admin.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]

    async def _swallow(
        self, reader: asyncio.StreamReader, above: asyncio.StreamReader, below: asyncio.StreamWriter
    ) -> None:
        """Run what the client has sent together with it: a pipeline arrives as a whole."""
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.002):
                    raw, words = await read_command(reader)
                self.seen += 1
                self.log.append(name_of(words))
                below.write(raw)
                await read_answer(above)

    async def send_late(self, seen: int | None = None) -> None:
        """Send the copies that are due; None: all of them."""
        while self._late and (seen is None or self._late[0][0] <= seen):
            _, raw = self._late.popleft()
            above, below = await asyncio.open_unix_connection(self.upstream)
            below.write(raw)
            await read_answer(above)
            below.close()

    async def close(self) -> None:
        """Cut every connection."""
        for each in self._connections:
            each.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


async def read_command(reader: asyncio.StreamReader) -> tuple[bytes, Frame]:
    """One command as it came, and its words."""
    head = await reader.readuntil(b"\r\n")
    assert head.startswith(b"*"), head
    raw, words = [head], []
    for _ in range(int(head[1:])):
        length = await reader.readuntil(b"\r\n")
        word = await reader.readexactly(int(length[1:]) + 2)
        raw += [length, word]
        words.append(word[:-2])
    return b"".join(raw), [words[0].upper(), *words[1:]]


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """One answer as it came, RESP2 or RESP3: https://valkey.io/topics/protocol/."""
    head = await reader.readuntil(b"\r\n")
    kind, count = head[:1], head[1:-2]
    if kind in b"$=!" and count != b"-1":
        return head + await reader.readexactly(int(count) + 2)
    if kind in b"*~>%|":
        items = max(int(count), 0) * (2 if kind in b"%|" else 1)
        return head + b"".join([await read_answer(reader) for _ in range(items)])
    return head


def name_of(words: Iterable[bytes]) -> str:
    """`HGETALL`, or the name of the script's file."""
    command, *rest = words
    if command not in (b"EVALSHA", b"EVAL"):
        return command.decode()
    return next((name for name in SCRIPTS if rest[0] in (script(name).sha.encode(), script(name).source)), "?")


SCRIPTS = sorted({*texts()} - {"prelude", "helpers"})


@contextlib.asynccontextmanager
async def faulty(upstream_url: str, admin: Redis, directory: Path) -> AsyncIterator[tuple[FaultProxy, str]]:
    """A running proxy and the address of its socket."""
    proxy = FaultProxy(upstream_url.removeprefix("unix://"), admin)
    path = directory / "f.sock"
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(proxy.serve, str(path))
    try:
        yield proxy, f"unix://{path}"
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
