"""HTTP. One notification as it arrives: what its head says, and its body piece by piece."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from starlette.types import Receive, Scope

from receiver.amazon.sns.envelope import HEADERS
from receiver.http.headers import brought_id, tidy_path, trace_of, traceparent_of
from receiver.runtime.deadline import Deadline

SNS = {name.encode(): name for name in HEADERS}
"""The SNS headers that are read."""
ODD: Final = frozenset({b"content-length", b"content-encoding", b"transfer-encoding", b"x-request-id", b"traceparent"})
"""The other headers that are read."""

NO_TRACE: Final[Mapping[str, str]] = MappingProxyType({})


class Address:
    """Where notifications are posted: a path, also with doubled slashes or one at the end, which may name an account.

    `needs_account`: it must.
    """

    def __init__(self, path: str, *, needs_account: bool = False) -> None:
        self.path, self.plain = path, "" if needs_account else path
        self._pattern = re.compile(f"{path}(?:/([^/]+)){'' if needs_account else '?'}(/?)")

    def match(self, path: str) -> re.Match[str] | None:
        """Groups: the account's name, and the slash at the end."""
        return self._pattern.fullmatch(tidy_path(path)) if self.path in path else None


class Dropped(Exception):
    """The request ends without a response: `disconnected`, `body_timeout`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Incoming:
    """The body of one request as it arrives, what is held of it in memory, its client, and its deadline."""

    __slots__ = ("_receive", "data", "gave_way", "limit", "more", "source")

    def __init__(self, receive: Receive, source: str, seconds: float) -> None:
        self._receive, self.source, self.limit = receive, source, Deadline(seconds)
        self.gave_way, self.more = False, True
        """`more`: whether more of the body may follow."""
        self.data: bytes | bytearray = b""

    async def chunk(self) -> bytes:
        """The next piece, possibly empty. Raises `Dropped` when the sender has disconnected."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Dropped("disconnected")
        self.more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece

    def add(self, piece: bytes) -> None:
        """Hold one more piece. Most bodies are one."""
        if self.data:
            self.data += piece
        else:
            self.data = bytearray(piece) if self.more else piece

    def give_way(self) -> None:
        """Ends the request now, to make room for others."""
        self.gave_way = True
        self.limit.move(0)


class Head:
    """What a request's head says to us. `odd` are the headers other than SNS's that are read; most have one."""

    __slots__ = ("account", "odd", "request_id", "route", "sns", "trace", "traceparent")

    def __init__(self, scope: Scope, address: Address, new_id: Callable[[], str]) -> None:
        self.route, self.account = address.path, None
        if (path := scope["path"]) != address.plain and (found := address.match(path)):
            self.account, slash = found.groups()
            self.route += f"{'/{account}' if self.account else ''}{slash}"
        self.sns: dict[str, str] = {}
        self.odd: list[tuple[bytes, bytes]] = []
        for pair in scope["headers"]:
            if known := SNS.get(pair[0]):
                self.sns[known] = pair[1].decode("latin-1")
            elif pair[0] in ODD:
                self.odd.append(pair)
        self.trace, self.traceparent, self.request_id = NO_TRACE, "", ""
        if self.odd and (len(self.odd) > 1 or self.odd[0][0] != b"content-length"):
            self.trace, self.traceparent = trace_of(self.odd), traceparent_of(self.odd)
            self.request_id = brought_id(self.odd)
        self.request_id = self.request_id or new_id()
