"""Clients of the feed, and events for it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from receiver.ledger.refund import Observation, Source
from receiver.outbox.events.event import to_fields
from receiver.store import Store
from receiver.track.record import Recorder
from tests.http.kit import READER
from tests.kit.accounts import make_account
from tests.kit.clock import T0
from tests.outbox.examples import an_event

BOUND = 30.0
"""Seconds in which what must come has come."""


@dataclass(frozen=True)
class Said:
    """One server-sent event, or a comment."""

    event: str = ""
    id: str = ""
    data: str = ""
    retry: str = ""
    comment: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def subject(self) -> str:
        """The refund that the event is about."""
        return str(self.json["subject"])


def parse(block: str) -> Said:
    """Between two blank lines. Strict: a line that this project never writes is an error."""
    fields: dict[str, str] = {}
    for line in block.split("\n"):
        name, _, value = line.partition(": ")
        assert (name or "comment") not in fields, block
        fields[name or "comment"] = value
    return Said(**fields)


class Client:
    """One stream, on its own socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self._text = ""
        self.last_id = ""

    async def open(self, path: str, token: str, last_id: str) -> None:
        """Send the request, and read the head of the answer."""
        resume = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        accept = "Accept: text/event-stream\r\n"
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{accept}{resume}\r\n"
        self._writer.write(head.encode())
        async with asyncio.timeout(BOUND):
            answer = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = answer.strip().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def next(self) -> Said | None:
        """The next message or comment; None at the end of the stream, however it ends."""
        async with asyncio.timeout(BOUND):
            while "\n\n" not in self._text:
                try:
                    size = int(await self._reader.readuntil(b"\r\n"), 16)
                    self._text += (await self._reader.readexactly(size + 2))[:size].decode()
                except (asyncio.IncompleteReadError, ConnectionError):
                    return None
                if not size:
                    return None
        block, _, self._text = self._text.partition("\n\n")
        said = parse(block)
        self.last_id = said.id or self.last_id
        return said

    async def until(self, event: str) -> Said:
        """The next of this kind; those before it are passed over."""
        while (said := await self.next()) is not None:
            if said.event == event:
                return said
        raise AssertionError(f"the stream ended without {event!r}")

    async def events(self, count: int) -> list[Said]:
        """So many events about refunds. Nothing else but signs of life may come between."""
        found: list[Said] = []
        while len(found) < count:
            said = await self.next()
            assert said is not None, f"ended after {len(found)} of {count}"
            assert said.event not in ("reset", "bye"), said
            if said.event.startswith("amazonpay."):
                found.append(said)
        return found

    def close(self) -> None:
        """Abort the connection."""
        self._writer.transport.abort()


@asynccontextmanager
async def stream(
    port: int, path: str = "/v1/events", *, token: str = READER, last_id: str = "", receive_buffer: int = 0
) -> AsyncIterator[Client]:
    """Listen. With a `receive_buffer` (bytes) the system takes little for who does not read."""
    line = socket.socket()
    if receive_buffer:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    line.setblocking(False)
    await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
    client = Client(*await asyncio.open_connection(sock=line, limit=2**20 if not receive_buffer else 1024))
    try:
        await client.open(path, token, last_id)
        yield client
    finally:
        client.close()


def refund_id(number: int) -> str:
    return f"S01-5105180-3221187-R{number:06d}"


async def happened(
    store: Store, redis: Redis, *numbers: int, account: str = "us", reason: str = "AmazonRejected", text: str = "No."
) -> None:
    """Add a decline of each refund to the stream, as a commit writes it."""
    async with redis.pipeline(transaction=False) as pipeline:
        for number in numbers:
            event = an_event(account=account, refund_id=refund_id(number), reason_code=reason, reason_description=text)
            pipeline.xadd(f"refunds:{{{account}}}:events", to_fields(event))  # type: ignore[arg-type]
        await pipeline.execute()
    store.connection.change_notifier.notify(account)


async def settled(
    store: Store, number: int, state: str = "Declined", account: str = "us", reason: str = "AmazonRejected"
) -> None:
    """The same by the real way: Amazon was seen to say it, and the change is committed."""
    observation = Observation(
        refund_id=refund_id(number), state=state, updated_at=T0, reason_code=reason if state == "Declined" else ""
    )
    await Recorder(store, lambda: 0.5).record(make_account(account), observation, source=Source.NOTIFICATION)


def numbers(events: list[Said]) -> list[int]:
    """Which refunds they are about."""
    return [int(each.subject[-6:]) for each in events]
