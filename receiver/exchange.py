"""Pure. An HTTP request and its response, as plain values. Only `transport/client.py` sends one and returns the other.

The `traceparent` (W3C Trace Context) of an incoming request is stored with what the request causes, and passed on byte
for byte, unless spans are recorded (`runtime/tracing.py`): then the span's own is. `tracestate` is not passed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Request:
    """What to send: `url` unchanged, `body` byte for byte. Header names are lower case."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def with_headers(self, **headers: str) -> Request:
        """The request with additional headers; `_` in a name stands for `-`."""
        added = {name.replace("_", "-"): value for name, value in headers.items()}
        return Request(self.method, self.url, {**self.headers, **added}, self.body)


@dataclass(frozen=True, slots=True)
class Response:
    """What was received. Header names are lower case. `truncated`: the body is longer than we read, or was cut off.
    `note`: what went wrong after the status was read; empty: nothing."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    truncated: bool = False
    note: str = ""


NEVER_SENT: Final = frozenset(
    {"bad_url", "bad_header", "dns_failed", "connect_failed", "tls_failed", "forbidden_address"}
)
"""Reasons of `TransportError` that mean that no byte of the request was sent."""


def never_sent(reason: str) -> bool:
    """Whether an exchange that failed for this reason had no effect; of Amazon's errors too (`amazon_dns_failed`)."""
    return reason.removeprefix("amazon_") in NEVER_SENT


ANY_VERSION: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)
"""W3C Trace Context, 3.2: version (never ff), trace id, parent id (neither all zeros), flags; later versions add."""
FORM: Final = "00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
"""Version 00, of a fixed length; nothing else is passed on. The pattern means the same in ECMA 262."""
PASSED_ON: Final = re.compile(FORM)


def passed_on(text: str) -> str:
    """The `traceparent` to pass on: the same text, or empty if it is invalid or of a later version."""
    return text if PASSED_ON.fullmatch(text) else ""


def in_the_log(text: str) -> dict[str, str]:
    """The `trace_id` of a `traceparent`, as a field of log lines; empty if it is invalid."""
    match = ANY_VERSION.fullmatch(text)
    if match is None or (match[1] == "00" and match[4]):
        return {}
    return {"trace_id": match[2]}
