"""Pure. One HTTP exchange as two plain values; `transport.py` alone turns the one into the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
