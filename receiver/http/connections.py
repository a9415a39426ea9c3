"""HTTP. Which connection is closed to make room for a new one when the limit is reached.

A connection can be closed unless a complete request is being answered on it: it waits for the rest of a head or a body,
is idle between two requests, or has a response that the client is not reading. The client with the most such
connections loses its oldest one. So no client can hold every connection, and a client that sends a request and reads
the response is safe. Trusted proxies come last, since each stands for many clients. When no connection can be closed, a
few more are accepted, for requests that must never be shut out.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from ipaddress import ip_address
from typing import Final, Protocol

import structlog
from starlette.types import Receive, Scope, Send

from receiver.http.headers import tidy_path
from receiver.transport.addresses import Network, client_of

RESERVE: Final = 10
"""One reserve connection per this many: connections over the limit, which may only request `ADMITTED`."""
ADMITTED: Final = ("/healthz", "/readyz", "/ipn", "/fps/")
FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


YOUNG = 1.0
IDLE = 5.0
"""Seconds for which a connection is kept while there is a reserve: after it opens, and after a response. A request may
be on the way."""
SAY_EVERY: Final = 60.0
"""Seconds between two log lines about too many connections."""

log = structlog.get_logger()


class Room(Enum):
    """Whether one more connection is accepted."""

    FREE = "free"
    RESERVED = "reserved"
    NONE = "none"


class Yields(Protocol):
    reserved: bool
    """Whether it is over the limit."""

    def give_way(self) -> None:
        """Close, to make room for another connection."""


class Connections:
    """One server's connections that can be closed, by client, each client's longest-waiting first. Times are
    seconds."""

    def __init__(self, most: int, trusted: Sequence[Network]) -> None:
        self.most, self.reserve = most, -(-most // RESERVE)
        self._trusted = trusted
        self._spare: dict[str, dict[Yields, float]] = {}
        """Client → its connections that can be closed, each with the time until which the reserve is used instead."""
        self._proxies: dict[Yields, float] = {}
        self._said_at = float("-inf")

    def pool_of(self, host: str) -> str | None:
        """The client that a connection from this address counts towards; None: a trusted proxy, or a Unix socket."""
        try:
            address = ip_address(host)
        except ValueError:
            return None
        return None if any(address in network for network in self._trusted) else client_of(host)

    def spare(self, client: str | None, connection: Yields, now: float, *, idle: bool = False) -> None:
        """Marks it as closable, unless it already is; `idle`: it has completed a request."""
        held = self._proxies if client is None else self._spare.setdefault(client, {})
        held.setdefault(connection, now + (IDLE if idle else YOUNG))

    def needed(self, client: str | None, connection: Yields) -> None:
        """Marks it as not closable: it is in use, or already closed."""
        if client is None:
            self._proxies.pop(connection, None)
        elif (held := self._spare.get(client)) is not None:
            held.pop(connection, None)
            if not held:
                del self._spare[client]

    def room_for(self, client: str | None, count: int, now: float) -> Room:
        """Admits a new connection of this client, number `count`; another one may be closed for it.

        A client that holds as many as any other displaces no connection that is new or has just completed a request.
        Otherwise a flood of new connections would stop the clients being served.
        """
        if count <= self.most:
            return Room.FREE
        if now - self._said_at >= SAY_EVERY:
            self._said_at = now
            fix = "look who holds them, or raise http.connections"
            log.error("http.too_many_connections", connections=self.most, fix=fix)
        greediest = max(self._spare, key=lambda each: len(self._spare[each]), default=None)
        held = self._proxies if greediest is None else self._spare[greediest]
        own = self._proxies if client is None else self._spare.get(client, {})
        oldest = next(iter(held), None)
        stays = oldest is None or now < held[oldest]
        if count <= self.most + self.reserve and stays:
            return Room.RESERVED
        if oldest is None or (stays and len(own) >= len(held)):
            return Room.NONE
        self.needed(greediest, oldest)
        oldest.give_way()
        return Room.RESERVED if oldest.reserved else Room.FREE


def is_admitted(path: str) -> bool:
    """Whether a reserve connection may carry this request."""
    return tidy_path(path).startswith(ADMITTED)


async def no_room(_: Scope, __: Receive, send: Send) -> None:
    """The response to any other request on a reserve connection."""
    headers = [(b"content-length", b"0"), (b"retry-after", b"5"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
