"""HTTP. What trusted proxies report about the client: `X-Forwarded-For` and `X-Forwarded-Proto`.

uvicorn reads both, but of the second it recognises only four exact values. Several proxies produce a list, whose first
entry is the browser's scheme, and some write it in capitals. An unrecognised value counts as https: otherwise the
session cookie would silently go over plain connections too.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

PROTO: Final = b"x-forwarded-proto"
SCHEMES: Final = {"http": b"http", "https": b"https", "ws": b"http", "wss": b"https"}

log = structlog.get_logger()


class Forwarded(ProxyHeadersMiddleware):
    """Wraps an application and applies the headers of trusted proxies. The same headers from other clients are
    ignored."""

    said = False
    """Whether an unrecognised scheme has been logged."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        client = scope.get("client")
        if client and client[0] in self.trusted_hosts:
            said = b",".join(value for name, value in scope["headers"] if name == PROTO)
            if said.strip(b" \t,"):
                others = [pair for pair in scope["headers"] if pair[0] != PROTO]
                scope["headers"] = [*others, (PROTO, self._scheme(said.decode("latin-1")))]
        await super().__call__(scope, receive, send)

    def _scheme(self, said: str) -> bytes:
        first = next((word for each in said.split(",") if (word := each.strip().lower())), "")
        scheme = SCHEMES.get(first)
        if scheme is None and not self.said:
            self.said = True
            log.error(
                "http.forwarded_proto_unknown",
                value=first[:32],
                fix="have the proxy send X-Forwarded-Proto: https, or http. Until then it counts as https",
            )
        return scheme or b"https"
