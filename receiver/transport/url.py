"""Edge: the web. Validates a request before a connection is opened for it, and writes it as bytes."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from yarl import URL

from receiver.errors import TransportError
from receiver.exchange import Request
from receiver.transport.addresses import is_address

PRINTABLE_URL = re.compile(r"https?://[\x21-\x7e]+", re.IGNORECASE)
NUMERIC_HOST = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
"""WHATWG URL, "ends in a number": resolvers read these as IPv4 addresses (2130706433, 0x7f.1, 127.1)."""

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
HEADER_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
"""Control characters, and surrogates, which UTF-8 cannot express."""


USER_AGENT = "amazon-pay-refund-receiver"
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose requests have a length, even if that is 0 (RFC 9110, 8.6)."""


class Origin(NamedTuple):
    """Requests to one origin can share connections. An IPv6 address has no brackets."""

    tls: bool
    host: str
    port: int


class Target(NamedTuple):
    """Where a request goes."""

    origin: Origin
    authority: str
    """For the header `host`."""
    path: str
    """With the query, as it stands in the URL."""


@lru_cache(1024)
def checked_url(text: str, guarded: bool) -> Target:
    """The URL of a request. Raises `TransportError`: `bad_url`, `forbidden_address`."""
    if not PRINTABLE_URL.fullmatch(text):
        raise TransportError("The address is not an http or https URL in ASCII.", reason="bad_url")
    try:
        url = URL(text, encoded=True)
        host, port = url.raw_host or "", url.port
    except ValueError as error:
        raise TransportError("The address is not a URL.", reason="bad_url") from error
    if not host or not port or "@" in url.raw_authority:
        raise TransportError("The address needs a host, and must have no user or password.", reason="bad_url")
    if ":" not in host and NUMERIC_HOST.fullmatch(host) and not is_address(host):
        reason = "forbidden_address" if guarded else "bad_url"
        raise TransportError("The address is a number that is not written as four decimal parts.", reason=reason)
    origin = Origin(url.scheme == "https", host, port)
    return Target(origin, url.host_port_subcomponent or host, url.raw_path_qs)


@lru_cache(256)
def _is_name(name: str) -> bool:
    return HEADER_NAME.fullmatch(name) is not None


def encoded(request: Request, target: Target) -> bytes:
    """The request as bytes. Raises `TransportError` (`bad_header`) for a header that would break it."""
    values = "".join(request.headers.values())
    is_plain = values.isascii() and values.isprintable()
    if not all(map(_is_name, request.headers)) or (not is_plain and HEADER_FORBIDDEN.search(values)):
        raise TransportError("A header contains forbidden characters.", reason="bad_header")
    headers = {"host": target.authority, "user-agent": USER_AGENT, "accept-encoding": "identity"}
    headers |= {name.lower(): value for name, value in request.headers.items()}
    if request.body or request.method in WITH_BODY:
        headers["content-length"] = str(len(request.body))
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"{request.method} {target.path} HTTP/1.1\r\n{fields}\r\n".encode() + request.body
