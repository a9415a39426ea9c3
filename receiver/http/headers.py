"""HTTP. Request headers and paths that concern every route: traces, transfer codings, odd paths."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from itertools import count
from typing import Final

from starlette.types import Receive, Scope, Send

from receiver.exchange import in_the_log, passed_on
from receiver.http.problems import problem

Headers = Iterable[tuple[bytes, bytes]]

OFFERS: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})
"""The headers that offer an upgrade."""
DEFAULTS: Final = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
"""Default headers of a response."""
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
SLASHES: Final = re.compile(r"/{2,}")


class RequestIds:
    """Ids for requests that bring none: 32 characters, a random part of this process followed by a number."""

    def __init__(self) -> None:
        self._prefix, self._numbers = secrets.token_hex(12), count()

    def __call__(self) -> str:
        return f"{self._prefix}{next(self._numbers):08x}"


def values_of(headers: Headers, name: bytes) -> list[str]:
    """The values of all headers of this name, which is in lower case."""
    return [value.decode("latin-1") for each, value in headers if each == name]


def brought_id(headers: Headers) -> str:
    """The request's `X-Request-Id`; empty if it is unusable, or there are several."""
    found = values_of(headers, b"x-request-id")
    return found[0] if len(found) == 1 and REQUEST_ID.fullmatch(found[0]) else ""


def trace_of(headers: Headers) -> dict[str, str]:
    """`trace_id` of the request's `traceparent`, for log lines; empty if none is valid, or there are several."""
    return in_the_log(_only_traceparent(headers))


def traceparent_of(headers: Headers) -> str:
    """The request's `traceparent` in the form passed on; empty if none is valid, or there are several."""
    return passed_on(_only_traceparent(headers))


def _only_traceparent(headers: Headers) -> str:
    found = values_of(headers, b"traceparent")
    return found[0].strip() if len(found) == 1 else ""


def tidy_path(path: str) -> str:
    """Removes doubled slashes from a notification's path, so that an endpoint configured as `…//ipn` loses none.

    Every other path is unchanged.
    """
    if "//" not in path:
        return path
    tidy = SLASHES.sub("/", path)
    return tidy if tidy == "/ipn" or tidy.startswith("/ipn/") else path


def head_without_offer(method: bytes, target: bytes, version: bytes, headers: Headers) -> bytes:
    """The head of a request that offers an upgrade, without the offer. Other `Connection` options are kept.

    RFC 9110, 7.8: a server may ignore `Upgrade`.
    """
    said = b",".join(value for name, value in headers if name == b"connection")
    options = [option.strip().lower() for option in said.split(b",") if option.strip()]
    kept = [option for option in options if option not in (b"upgrade", b"http2-settings")]
    lines = [
        b"%s %s HTTP/%s" % (method, target, version),
        *(b"%s: %s" % pair for pair in headers if pair[0] not in OFFERS),
        *([b"connection: " + b", ".join(kept)] if kept else []),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def is_plain(headers: Headers) -> bool:
    """Whether the body is unencoded or chunked, with no other transfer coding (RFC 9112, 6.1)."""
    return ",".join(values_of(headers, b"transfer-encoding")).strip().lower() in ("", "chunked")


async def not_plain(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers any other transfer coding with 501, as RFC 9112 asks. Unlike a 4xx, SNS retries it."""
    detail = "The only supported Transfer-Encoding is chunked."
    answer = problem(501, "transfer_encoding", detail, headers={"Connection": "close"})
    await answer(scope, receive, send)
