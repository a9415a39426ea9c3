"""HTTP. What trusted proxies report about the client: `X-Forwarded-For`, `X-Forwarded-Proto`, and who is signed in.

uvicorn reads both, but of the second it recognises only four exact values. Several proxies produce a list, whose first
entry is the browser's scheme, and some write it in capitals. An unrecognised value counts as https: otherwise the
session cookie would silently go over plain connections too.

The person is in the header that `http.user_header` names, and is passed on in the scope's `state`, which no client can
write. It says who acts, never what they may do: that is the token's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import structlog
from starlette.requests import HTTPConnection
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

PROTO: Final = b"x-forwarded-proto"
SCHEMES: Final = {"http": b"http", "https": b"https", "ws": b"http", "wss": b"https"}

USER: Final = "user"
"""The member of the scope's `state`."""
MOST_USER: Final = 128
"""Characters of a person's name."""

log = structlog.get_logger()


class Forwarded(ProxyHeadersMiddleware):
    """Wraps an application and applies the headers of trusted proxies. The same headers from other clients are
    ignored. `user_header` names the one with the person; empty: none."""

    def __init__(self, app: Any, trusted_hosts: list[str], user_header: str = "") -> None:
        super().__init__(app, trusted_hosts)
        self._user_header = user_header.lower().encode()
        self._logged: set[str] = set()
        """The problems that have been logged: each once."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        client = scope.get("client")
        if client and client[0] in self.trusted_hosts:
            said = b",".join(value for name, value in scope["headers"] if name == PROTO)
            if said.strip(b" \t,"):
                others = [pair for pair in scope["headers"] if pair[0] != PROTO]
                scope["headers"] = [*others, (PROTO, self._scheme(said.decode("latin-1")))]
            users = [value for name, value in scope["headers"] if self._user_header and name == self._user_header]
            if user := self._user(users):
                scope.setdefault("state", {})[USER] = user
        await super().__call__(scope, receive, send)

    def _scheme(self, said: str) -> bytes:
        first = next((word for each in said.split(",") if (word := each.strip().lower())), "")
        scheme = SCHEMES.get(first)
        if scheme is None:
            self._log(
                "http.forwarded_proto_unknown",
                value=first[:32],
                fix="have the proxy send X-Forwarded-Proto: https, or http. Until then it counts as https",
            )
        return scheme or b"https"

    def _user(self, values: Iterable[bytes]) -> str:
        """The person named; empty if there is none, or for a value that cannot be a name."""
        found = [value.strip() for value in values if value.strip()]
        if not found:
            return ""
        try:
            user = found[0].decode()
        except UnicodeDecodeError:
            user = ""
        if len(found) == 1 and user.isprintable() and 1 <= len(user) <= MOST_USER:
            return user
        self._log(
            "http.user_header_ignored",
            fix=f"have the proxy send http.user_header once, with 1 to {MOST_USER} printable characters in UTF-8. "
            "Until then only the token's name is recorded",
        )
        return ""

    def _log(self, event: str, **values: str) -> None:
        if event not in self._logged:
            self._logged.add(event)
            log.error(event, **values)


def user_of(connection: HTTPConnection) -> str:
    """The person that a trusted proxy names in this request; empty if it names none."""
    return str(connection.scope.get("state", {}).get(USER, ""))
