"""Edge: the web. The only module with outgoing web connections: sends a `Request`; returns a `Response` or raises
`TransportError`.

    reason                what happened
    bad_url               the URL is invalid
    bad_header            a header is invalid
    dns_failed            the name has no address
    forbidden_address     every address of a guarded request lies in a range that is not public
    connect_failed        no connection could be made
    tls_failed            no TLS, or a certificate that the system's trust store or the host's name does not match
    timeout               no connection, or no complete answer, in time
    cut                   the connection ended before the answer did
    bad_answer            the answer is not HTTP, or its head exceeds the limits
    server_error          408, 429 or 5xx for a certificate (`fetch_certificate` only)

Once a status has been read, there is an answer. A later failure (`cut`, `timeout`, `bad_answer`) becomes the answer's
`note` if the status alone says what matters: for every guarded request, and for 429 and 503. Otherwise `TransportError`
is raised, because half a body is useless.

The limits, and why:

    time        set by the caller: for everything, and for name, TCP and TLS together
    head        128 KiB and 1024 fields (`head.py`): more than what servers send; 16 interim answers (`answer.py`)
    body        set by the caller: the rest is cut off, whatever the framing says
    connections 256, and 64 to one host, for unguarded requests; guarded ones are limited by the delivery workers
    idle        a connection is kept for 15 s: less than the 60 s after which most servers and balancers close theirs

It follows no redirects, keeps no cookies, uses no proxies from the environment, and unpacks no encodings. The trust
store is the system's; OpenSSL respects `SSL_CERT_FILE` and `SSL_CERT_DIR`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import BinaryIO

from receiver.errors import CertificateUnavailable, TransportError
from receiver.exchange import Request, Response
from receiver.transport.addresses import Network
from receiver.transport.connection import Connection
from receiver.transport.pool import Pool
from receiver.transport.resolver import AsyncResolver
from receiver.transport.url import checked_url, encoded

MAX_CERTIFICATE = 16 * 1024
REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Idempotent methods (RFC 9110, 9.2.2): sent once more if a pooled connection turns out to be dead."""


class Transport:
    """HTTP/1.1 over pooled connections; one object for the life of the process.

    Guarded requests may reach `allow_networks` even if they are not public. Guarded and unguarded requests have
    separate pools and resolvers, so that subscribers cannot delay calls to Amazon. `dns_ttl` is in seconds. `tls`
    replaces the system's trust store, `name_servers` its name servers.
    """

    def __init__(
        self,
        *,
        allow_networks: Sequence[Network] = (),
        resolver: AsyncResolver | None = None,
        name_servers: Sequence[str] = (),
        dns_ttl: int = 10,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow = tuple(allow_networks)
        self._resolver = resolver
        self._name_servers = tuple(name_servers)
        self._dns_ttl = dns_ttl
        self._tls = tls or _system_trust()
        self._pools: dict[bool, Pool] = {}
        self._resolvers: list[AsyncResolver] = []

    async def close(self) -> None:
        """Close every connection; a later `send` would open new ones."""
        pools, self._pools = list(self._pools.values()), {}
        resolvers, self._resolvers = self._resolvers, []
        for pool in pools:
            await pool.close()
        for resolver in resolvers:
            await resolver.close()

    async def send(
        self,
        request: Request,
        *,
        timeout: float = 10.0,
        connect_timeout: float = 3.0,
        max_body: int = 65_536,
        guarded: bool = False,
        into: BinaryIO | None = None,
    ) -> Response:
        """Send the request unchanged and read the answer, whatever its status.

        `timeout` seconds are for everything, `connect_timeout` of them for name, TCP and TLS together. At most
        `max_body` bytes of the body are read; if there are more, the answer is `truncated` and the connection is
        closed. The body of a 200 is written `into` a file, if one is given. With `guarded`, every address is checked at
        the moment a socket is made for it, so changing a name's address between check and use achieves nothing. A
        pooled connection was checked when it was made. A guarded request, or an idempotent one, whose pooled connection
        turns out to be dead is sent once more over another; subscribers can recognize the repetition by its id.
        Failures after the status become the answer's `note` for guarded requests, and for 429 and 503. Raises
        `TransportError`. Its text may name the host, but never a path, a query or a header.
        """
        origin, *_ = target = checked_url(request.url, guarded)
        data, repeatable = encoded(request, target), guarded or request.method in REPEATABLE
        clock, pool = asyncio.get_running_loop().time, self._pool(guarded)
        until = clock() + timeout

        def connect_by() -> float:
            return min(until, clock() + connect_timeout)

        async def exchange(connection: Connection) -> Response:
            try:
                return await connection.exchange(
                    data,
                    until,
                    has_body=request.method != "HEAD",
                    max_body=max_body,
                    into=into,
                    lenient=guarded,
                )
            finally:
                pool.keep(origin, connection)

        by = connect_by()
        place = await pool.enter(origin, by)
        try:
            if (idle := pool.idle(origin)) is not None:
                try:
                    return await exchange(idle)
                except TransportError as error:
                    if error.reason != "cut" or not idle.is_silent or not repeatable:
                        raise
                    by = connect_by()
            return await exchange(await pool.connect(origin, by))
        finally:
            pool.leave(place)

    async def fetch_certificate(
        self,
        url: str,
        *,
        timeout: float = 5.0,
        connect_timeout: float = 2.0,
    ) -> bytes:
        """The body of a 200 at an https address, at most 16 KiB. `timeout` seconds are for both attempts together.

        A failed connection and a 5xx are tried once more. The address is not guarded: inside a cloud network the name
        of SNS may legitimately resolve to a private address, and TLS proves the name. Raises `TransportError` for
        failures that may be temporary, and `CertificateUnavailable` ("certificate_not_found") for any other answer:
        another status (including a redirect), a longer or an encoded body.
        """
        if not url.startswith("https://"):
            raise TransportError("Certificates are fetched over https only.", reason="bad_url")
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            return await self._fetch_once(url, deadline, connect_timeout)
        except TransportError as error:
            if error.reason not in {"connect_failed", "dns_failed", "cut", "server_error", "timeout"}:
                raise
            if deadline - asyncio.get_running_loop().time() < timeout / 10:
                raise
        return await self._fetch_once(url, deadline, connect_timeout)

    async def _fetch_once(self, url: str, deadline: float, connect_timeout: float) -> bytes:
        left = deadline - asyncio.get_running_loop().time()
        answer = await self.send(
            Request("GET", url), timeout=left, connect_timeout=connect_timeout, max_body=MAX_CERTIFICATE
        )
        if answer.status in {408, 429} or answer.status >= 500:
            raise TransportError(f"The certificate's host answered {answer.status}.", reason="server_error")
        if answer.status != 200:
            problem = f"its host answered {answer.status}"
        elif answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
            problem = "its host sent it encoded"
        elif answer.truncated:
            problem = f"it is longer than {MAX_CERTIFICATE} bytes"
        else:
            return answer.body
        raise CertificateUnavailable(
            f"The certificate could not be fetched: {problem}.", reason="certificate_not_found"
        )

    def _pool(self, guarded: bool) -> Pool:
        if guarded not in self._pools:
            resolver = self._resolver or self._own_resolver()
            self._pools[guarded] = Pool(self._tls, resolver, self._dns_ttl, self._allow if guarded else None)
        return self._pools[guarded]

    def _own_resolver(self) -> AsyncResolver:
        self._resolvers.append(AsyncResolver(self._name_servers))
        return self._resolvers[-1]


def _system_trust() -> ssl.SSLContext:
    """Reading the store takes up to 0.2 s, so it is done at start, not during the first request."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
