"""Edge: the web. Makes connections, and keeps those that are idle.

A connection is made to the first address that answers (RFC 8305, "Happy Eyeballs"); if TLS fails there, to another.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import partial
from weakref import WeakValueDictionary

from aiohappyeyeballs import start_connection

from receiver.errors import TransportError
from receiver.transport.addresses import Network, forbidden, is_address
from receiver.transport.connection import Connection
from receiver.transport.resolver import AsyncResolver
from receiver.transport.url import Origin

CONNECTIONS = 256
CONNECTIONS_PER_HOST = 64
"""Limits for unguarded requests. The delivery workers limit requests to subscribers; a limit here would make one
subscriber wait for another."""
IDLE = 15.0
"""Seconds for which an idle connection is kept."""
NEXT_ADDRESS = 0.25
"""Seconds until the next address is tried as well."""

AddressInfo = tuple[int, int, int, str, tuple[str | int, ...]]


class Pool:
    """The connections for guarded requests, or those for unguarded ones. Guarded requests may also reach the networks
    in `allow`, which is None for unguarded ones."""

    def __init__(
        self, tls: ssl.SSLContext, resolver: AsyncResolver, dns_ttl: float, allow: Sequence[Network] | None
    ) -> None:
        self._tls, self._resolver, self._dns_ttl, self._allow = tls, resolver, dns_ttl, allow
        self._loop = asyncio.get_running_loop()
        self._idle: defaultdict[Origin, deque[tuple[float, Connection]]] = defaultdict(deque)
        self._open: set[Connection] = set()
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None
        self._names: dict[Origin, tuple[float, asyncio.Task[list[tuple[str, int]]]]] = {}
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._places_of: WeakValueDictionary[Origin, asyncio.Semaphore] = WeakValueDictionary()
        """Only hosts to which requests are under way have an entry."""

    async def enter(self, origin: Origin, by: float) -> asyncio.Semaphore | None:
        """Wait for a place, if they are limited. Raises `TransportError`. Call `leave` with the result afterwards."""
        if self._allow is not None:
            return None
        if (of_host := self._places_of.get(origin)) is None:
            of_host = self._places_of[origin] = asyncio.Semaphore(CONNECTIONS_PER_HOST)
        try:
            async with asyncio.timeout_at(by):
                await of_host.acquire()
                try:
                    await self._places.acquire()
                except BaseException:
                    of_host.release()
                    raise
        except TimeoutError:
            raise _too_late(origin) from None
        return of_host

    def leave(self, of_host: asyncio.Semaphore | None) -> None:
        """Free the place."""
        if of_host is not None:
            self._places.release()
            of_host.release()

    def idle(self, origin: Origin) -> Connection | None:
        """The idle connection that was used last."""
        kept, oldest = self._idle.get(origin), self._loop.time() - IDLE
        while kept:
            since, connection = kept.pop()
            if since > oldest and connection.is_reusable:
                return connection
            connection.abort()
        return None

    def keep(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection after an exchange, if it can be used again."""
        if connection.is_reusable:
            self._idle[origin].append((self._loop.time(), connection))
            self._sweep = self._sweep or self._loop.call_later(IDLE, self._sweep_idle)

    async def connect(self, origin: Origin, by: float) -> Connection:
        """A new connection. Raises `TransportError`."""
        verdicts: list[str | None] = []
        try:
            async with asyncio.timeout_at(by):
                return await self._connect(origin, await self._addresses(origin), verdicts)
        except (ssl.SSLError, UnicodeError) as error:  # UnicodeError: TLS cannot express the name.
            said = getattr(error, "verify_message", "") or getattr(error, "reason", "")
            raise TransportError(
                f"{origin.host}: TLS failed ({said or 'no handshake'}).", reason="tls_failed"
            ) from error
        except OSError as error:
            if isinstance(error, TimeoutError) and error.errno is None:
                raise _too_late(origin) from error
            if verdicts and all(verdicts):
                what = f"its address is not public ({verdicts[0]})"
                raise TransportError(f"{origin.host}: {what}.", reason="forbidden_address") from error
            what = f"no connection ({error.strerror or 'refused'})"
            raise TransportError(f"{origin.host}: {what}.", reason="connect_failed") from error

    async def close(self) -> None:
        """End every connection, and make no more."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in tuple(self._open):
            connection.abort()
        await asyncio.sleep(0)  # Sockets are closed in the next turn.

    async def _connect(self, origin: Origin, addresses: list[AddressInfo], verdicts: list[str | None]) -> Connection:
        made: dict[socket.socket, AddressInfo] = {}
        while not self._closed:
            connected = await start_connection(
                addresses,
                happy_eyeballs_delay=NEXT_ADDRESS,
                loop=self._loop,
                socket_factory=partial(_made_socket, self._allow, verdicts, made),
            )
            connection = Connection(origin.host, self._open)
            try:
                await self._loop.create_connection(
                    lambda connection=connection: connection,
                    sock=connected,
                    ssl=self._tls if origin.tls else None,
                    server_hostname=origin.host.rstrip(".") if origin.tls else None,
                )
            except BaseException as error:
                # Cancelled in the turn in which TLS is ready, asyncio keeps using the number of the closed socket.
                if connection in self._open:
                    connection.abort()
                    self._open.discard(connection)
                connected.close()
                addresses = [each for each in addresses if each != made[connected]]
                if not isinstance(error, OSError) or not addresses:
                    raise
            else:
                if not self._closed:
                    return connection
                connection.abort()
        raise TransportError(f"{origin.host}: the connection was closed on this side.", reason="cut")

    async def _addresses(self, origin: Origin) -> list[AddressInfo]:
        found = [(origin.host, origin.port)] if is_address(origin.host) else await self._look_up(origin)
        if not found:
            raise TransportError(f"{origin.host}: the name has no address.", reason="dns_failed")
        return [_info(*each) for each in found]

    async def _look_up(self, origin: Origin) -> list[tuple[str, int]]:
        """The addresses of a name. Requests share a look-up."""
        now = self._loop.time()
        if origin not in self._names or self._names[origin][0] <= now:
            self._names = {each: known for each, known in self._names.items() if known[0] > now}
            looking = self._loop.create_task(self._resolver.resolve(origin.host, origin.port))
            looking.add_done_callback(partial(self._looked_up, origin))
            self._names[origin] = now + self._dns_ttl, looking
        _, looking = self._names[origin]
        try:
            found = await asyncio.shield(looking)
        except OSError as error:
            what = error.strerror or "the name has no address"
            raise TransportError(f"{origin.host}: {what}.", reason="dns_failed") from error
        found[:] = [*found[1:], *found[:1]]  # The next connection begins with another address.
        return found

    def _looked_up(self, origin: Origin, looking: asyncio.Task[list[tuple[str, int]]]) -> None:
        """Failures are not kept for other requests."""
        if looking.cancelled() or looking.exception():
            self._names.pop(origin, None)

    def _sweep_idle(self) -> None:
        """End connections that were idle for too long."""
        oldest, self._sweep = self._loop.time() - IDLE, None
        for origin, kept in list(self._idle.items()):
            while kept and (kept[0][0] <= oldest or not kept[0][1].is_reusable):
                kept.popleft()[1].abort()
            if not kept:
                del self._idle[origin]
        if self._idle:
            self._sweep = self._loop.call_later(IDLE / 5, self._sweep_idle)


def _made_socket(
    allow: Sequence[Network] | None,
    verdicts: list[str | None],
    made: dict[socket.socket, AddressInfo],
    info: AddressInfo,
) -> socket.socket:
    family, kind, protocol, _, address = info
    if allow is not None:
        verdicts.append(word := forbidden(str(address[0]), allow))
        if word is not None:
            raise PermissionError(f"the address is not public ({word})")
    made[sock := socket.socket(family, kind, protocol)] = info
    return sock


def _too_late(origin: Origin) -> TransportError:
    return TransportError(f"{origin.host}: no connection in time.", reason="timeout")


def _info(address: str, port: int) -> AddressInfo:
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)
