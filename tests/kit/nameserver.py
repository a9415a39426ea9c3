"""Edge: a name server for tests, over real UDP on loopback. It answers the names of a table, and no others."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

A, NXDOMAIN, NOERROR, SERVFAIL = 1, 3, 0, 2


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """`table`: name → IPv4 address; empty: there is no such name; "fail": SERVFAIL. `late`: name → seconds after
    the first question until the answer is known here."""

    table: dict[str, str] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    first: dict[str, float] = field(default_factory=dict)
    address: str = ""
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, end = _question(data)
        self.asked[name] += 1
        if (found := self.table.get(name)) is None or self.transport is None:
            return
        kind = int.from_bytes(data[end : end + 2])
        code = {"": NXDOMAIN, "fail": SERVFAIL}.get(found, NOERROR)
        record = b""
        if kind == A and code == NOERROR:
            record = b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 60, 4) + bytes(map(int, found.split(".")))
        said = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, bool(record), 0, 0) + data[12 : end + 4] + record
        loop = asyncio.get_running_loop()
        known = self.first.setdefault(name, loop.time()) + self.late.get(name, 0.0)
        loop.call_at(known, self.transport.sendto, said, addr)


def _question(data: bytes) -> tuple[str, int]:
    """The name that is asked for, in lower case, and where it ends."""
    labels, at = [], 12
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode("ascii").lower())
        at += 1 + length
    return ".".join(labels), at + 1


@asynccontextmanager
async def nameserver(**table: str) -> AsyncIterator[NameServer]:
    """A server that answers nothing until it is configured."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(table), local_addr=("127.0.0.1", 0)
    )
    host, port = transport.get_extra_info("sockname")
    server.address = f"{host}:{port}"
    try:
        yield server
    finally:
        transport.close()
