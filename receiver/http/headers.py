"""HTTP. What requests bring along, whatever their route: traces, transfer codings, odd paths."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from starlette.types import Receive, Scope, Send

from receiver.exchange import in_the_log, passed_on
from receiver.http.problems import problem

Headers = Iterable[tuple[bytes, bytes]]

OFFERS: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})
"""What offers an upgrade."""
SLASHES: Final = re.compile(r"/{2,}")


def trace_of(headers: Headers) -> dict[str, str]:
    """`trace_id` of the request's `traceparent`, for log lines; nothing where none is valid, or several came."""
    return in_the_log(_only_traceparent(headers))


def traceparent_of(headers: Headers) -> str:
    """The request's `traceparent` as it is passed on; empty where none is valid, or several came."""
    return passed_on(_only_traceparent(headers))


def _only_traceparent(headers: Headers) -> str:
    found = [value.decode("latin-1").strip() for name, value in headers if name == b"traceparent"]
    return found[0] if len(found) == 1 else ""


def tidy_path(path: str) -> str:
    """The path of a notification without doubled slashes: an address that was written `…//ipn` must not lose any.

    Every other path stays as it is.
    """
    if "//" not in path:
        return path
    tidy = SLASHES.sub("/", path)
    return tidy if tidy == "/ipn" or tidy.startswith("/ipn/") else path


def head_without_offer(method: bytes, target: bytes, version: bytes, headers: Headers) -> bytes:
    """The head of a request that offers an upgrade, without the offer; what else `Connection` says is kept.

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
    """Whether the body comes as it is, or chunked, and in no other transfer coding (RFC 9112, 6.1)."""
    codings = b",".join(value for name, value in headers if name == b"transfer-encoding")
    return codings.strip().lower() in (b"", b"chunked")


async def not_plain(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer to another transfer coding: 501, as RFC 9112 asks. To SNS, unlike a 4xx, it is no end."""
    detail = "The only Transfer-Encoding that is understood is chunked."
    answer = problem(501, "transfer_encoding", detail, headers={"Connection": "close"})
    await answer(scope, receive, send)
