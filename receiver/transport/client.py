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
    head        128 KiB and 1024 fields (`head.py`): more than what servers send; 16 interim answers (`interim.py`)
    body        set by the caller: the rest is cut off, whatever the framing says
    connections 256, and 64 to one host, for unguarded requests; guarded ones are limited by the delivery workers
    idle        a connection is kept for 15 s: less than the 60 s after which most servers and balancers close theirs

It follows no redirects, keeps no cookies, uses no proxies from the environment, and unpacks no encodings. The trust
store is the system's; OpenSSL respects `SSL_CERT_FILE` and `SSL_CERT_DIR`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from receiver.errors import CertificateUnavailable, TransportError
from receiver.exchange import Request, Response
from receiver.transport.addresses import Network, forbidden
from receiver.transport.errors import judged
from receiver.transport.head import MAX_FIELDS, MAX_HEAD, joined
from receiver.transport.interim import NOTE, careful
from receiver.transport.resolver import AsyncResolver
from receiver.transport.url import check_headers, checked_url

USER_AGENT = "amazon-pay-refund-receiver"
CONNECTIONS = 256
CONNECTIONS_PER_HOST = 64
"""For unguarded requests. Delivery workers limit those to subscribers; a limit here would make one wait for another."""
IDLE = 15.0
"""Seconds for which an idle connection is kept."""
MAX_CERTIFICATE = 16 * 1024
CHUNK = 256 * 1024

AddressInfo = tuple[int, int, int, str, tuple[str | int, ...]]


@dataclass(slots=True)
class _Attempts:
    """The guard's verdict on each address that a guarded request was about to connect to; None: allowed."""

    verdicts: list[str | None] = field(default_factory=list)
    answer: Response | None = None
    """Status and header fields, as soon as they are read."""
    body: bytearray = field(default_factory=bytearray)

    @property
    def refusal(self) -> str | None:
        """The name of the range, if every address was refused."""
        return next(iter(self.verdicts), None) if all(self.verdicts) else None


_attempts: ContextVar[_Attempts] = ContextVar("attempts")


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
        resolver: AbstractResolver | None = None,
        name_servers: Sequence[str] = (),
        dns_ttl: int = 10,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow = tuple(allow_networks)
        self._resolver = resolver
        self._name_servers = tuple(name_servers)
        self._dns_ttl = dns_ttl
        self._tls = tls or _system_trust()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._resolvers: list[AsyncResolver] = []

    async def close(self) -> None:
        """Close every connection; a later `send` would open new ones."""
        sessions, self._sessions = list(self._sessions.values()), {}
        resolvers, self._resolvers = self._resolvers, []
        for session in sessions:
            await session.close()
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
        pooled connection was checked when it was made. A guarded request whose pooled connection turns out to be dead
        is sent once more over another; subscribers can recognize the repetition by its id. Failures after the status
        become the answer's `note` for guarded requests, and for 429 and 503. Raises `TransportError`. Its text may name
        the host, but never a path, a query or a header.
        """
        url = checked_url(request.url, guarded)
        check_headers(request)
        attempts = _Attempts()
        token = _attempts.set(attempts)
        try:
            async with asyncio.timeout(timeout):
                try:
                    return await self._exchange(request, url, connect_timeout, max_body, guarded, into)
                except (aiohttp.ServerDisconnectedError, ConnectionError):
                    # No socket was made, so the request used a pooled connection.
                    if not guarded or attempts.verdicts or attempts.answer:
                        raise
                return await self._exchange(request, url, connect_timeout, max_body, guarded, into)
        except (aiohttp.ClientError, OSError) as error:
            if attempts.answer is not None and _says_it_all(attempts.answer.status, guarded):
                return replace(attempts.answer, body=bytes(attempts.body), truncated=True, note=judged(error)[1])
            raise _not_sent(error, url.raw_host or "", attempts) from error
        finally:
            _attempts.reset(token)

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

    async def _exchange(
        self,
        request: Request,
        url: URL,
        connect_timeout: float,
        max_body: int,
        guarded: bool,
        into: BinaryIO | None,
    ) -> Response:
        async with self._session(guarded).request(
            request.method,
            url,
            headers=request.headers,
            data=request.body or None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_connect=connect_timeout),
        ) as answer:
            head = Response(answer.status, joined(answer.headers))
            if (said := answer.reason or "").startswith(NOTE):
                note = said.removeprefix(NOTE)
                if not _says_it_all(answer.status, guarded):
                    raise TransportError(f"{url.raw_host}: {note}.", reason="bad_answer")
                return replace(head, truncated=True, note=note)
            attempts = _attempts.get()
            attempts.answer = head
            truncated = await _read(answer, attempts.body, max_body, into if head.status == 200 else None)
            return replace(head, body=bytes(attempts.body), truncated=truncated)

    def _session(self, guarded: bool) -> aiohttp.ClientSession:
        if guarded not in self._sessions:
            connector = aiohttp.TCPConnector(
                ssl=self._tls,
                limit=0 if guarded else CONNECTIONS,
                limit_per_host=0 if guarded else CONNECTIONS_PER_HOST,
                use_dns_cache=self._dns_ttl > 0,
                ttl_dns_cache=self._dns_ttl,
                resolver=self._resolver or self._own_resolver(),
                keepalive_timeout=IDLE,
                socket_factory=self._guarded_socket if guarded else None,
            )
            connector._factory = careful(asyncio.get_running_loop())
            self._sessions[guarded] = aiohttp.ClientSession(
                connector=connector,
                headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
                skip_auto_headers=("accept", "content-type"),
                cookie_jar=_NoCookies(),
                auto_decompress=False,
                max_line_size=MAX_HEAD,
                max_field_size=MAX_HEAD,
                max_headers=MAX_FIELDS,
                trust_env=False,
            )
        return self._sessions[guarded]

    def _own_resolver(self) -> AsyncResolver:
        self._resolvers.append(AsyncResolver(self._name_servers))
        return self._resolvers[-1]

    def _guarded_socket(self, info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        word = forbidden(str(address[0]), self._allow)
        _attempts.get().verdicts.append(word)
        if word is not None:
            raise PermissionError(f"the address is not public ({word})")
        return socket.socket(family, kind, protocol)


def _system_trust() -> ssl.SSLContext:
    """Reading the store takes up to 0.2 s, so it is done at start, not during the first request."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _NoCookies(aiohttp.DummyCookieJar):
    """A cookie jar that keeps none. The library's own dummy still parses them."""

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        """Ignore them."""


def _says_it_all(status: int, guarded: bool) -> bool:
    """Whether the status alone says what matters."""
    return guarded or status in {429, 503}


async def _read(answer: aiohttp.ClientResponse, body: bytearray, max_body: int, into: BinaryIO | None) -> bool:
    """Read the body up to the limit. Returns whether there is more."""
    left = max_body
    while chunk := await answer.content.read(min(left + 1, CHUNK)):
        body += chunk[:left]
        if into is not None:
            into.write(body)
            body.clear()
        if len(chunk) > left:
            answer.close()
            return True
        left -= len(chunk)
    return False


def _not_sent(error: Exception, host: str, attempts: _Attempts) -> TransportError:
    reason, what = judged(error)
    if reason == "connect_failed" and attempts.refusal is not None:
        reason, what = "forbidden_address", f"its address is not public ({attempts.refusal})"
    return TransportError(f"{host}: {what}.", reason=reason)
