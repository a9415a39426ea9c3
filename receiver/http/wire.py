"""HTTP. What requests bring along that is nobody's business but the frame's: traces, transfer codings, odd paths."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from starlette.types import Receive, Scope, Send

from receiver.http.problems import problem

Headers = Iterable[tuple[bytes, bytes]]

TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)
"""W3C Trace Context, 3.2: version (never ff), trace id, parent id (neither all zeros), flags; later versions add."""
SLASHES: Final = re.compile(r"/{2,}")


def trace_of(headers: Headers) -> dict[str, str]:
    """`trace_id` of the request's `traceparent`, for log lines; nothing where none is valid, or several came."""
    found = [value.decode("latin-1").strip() for name, value in headers if name == b"traceparent"]
    match = TRACEPARENT.fullmatch(found[0]) if len(found) == 1 else None
    if match is None or (match[1] == "00" and match[4]):
        return {}
    return {"trace_id": match[2]}


def tidy_path(path: str) -> str:
    """The path of a notification without doubled slashes: an address that was written `…//ipn` must not lose any.

    Every other path stays as it is.
    """
    if "//" not in path:
        return path
    tidy = SLASHES.sub("/", path)
    return tidy if tidy == "/ipn" or tidy.startswith("/ipn/") else path


def is_plain(headers: Headers) -> bool:
    """Whether the body comes as it is, or chunked, and in no other transfer coding (RFC 9112, 6.1)."""
    codings = b",".join(value for name, value in headers if name == b"transfer-encoding")
    return codings.strip().lower() in (b"", b"chunked")


async def not_plain(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer to another transfer coding: 501, as RFC 9112 asks. To SNS, unlike a 4xx, it is no end."""
    detail = "The only Transfer-Encoding that is understood is chunked."
    answer = problem(501, "transfer_encoding", detail, headers={"Connection": "close"})
    await answer(scope, receive, send)
