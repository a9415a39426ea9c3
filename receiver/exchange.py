"""Pure. One HTTP exchange as two plain values; `transport/client.py` alone turns the one into the other.

A `traceparent` (W3C Trace Context) that a request brings is kept with what the request causes, and passed on byte for
byte: the service records no spans. `tracestate` is not passed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. `url` is sent as it stands; header names are lower case; the body is exactly the bytes sent."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def with_headers(self, **headers: str) -> Request:
        """The same request with more headers; `_` in a name stands for `-`."""
        added = {name.replace("_", "-"): value for name, value in headers.items()}
        return Request(self.method, self.url, {**self.headers, **added}, self.body)


@dataclass(frozen=True, slots=True)
class Response:
    """What came back. Header names are lower case; `truncated` says that the body is not whole: longer than we read, or
    broken off. `note` says what was wrong after the status had been read; empty: nothing."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    truncated: bool = False
    note: str = ""


ANY_VERSION: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)
"""W3C Trace Context, 3.2: version (never ff), trace id, parent id (neither all zeros), flags; later versions add."""
FORM: Final = "00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
"""A text of version 00, and of a bounded length: nothing else is passed on. ECMA 262 reads it alike."""
PASSED_ON: Final = re.compile(FORM)


def passed_on(text: str) -> str:
    """The `traceparent` as it is passed on: itself, or empty for one that is not valid or of a later version."""
    return text if PASSED_ON.fullmatch(text) else ""


def in_the_log(text: str) -> dict[str, str]:
    """`trace_id` of a `traceparent`, for log lines; nothing where it is not valid."""
    match = ANY_VERSION.fullmatch(text)
    if match is None or (match[1] == "00" and match[4]):
        return {}
    return {"trace_id": match[2]}
