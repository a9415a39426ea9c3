"""HTTP. What trusted proxies say of the client: `X-Forwarded-For` and `X-Forwarded-Proto`.

uvicorn reads them, and takes of the second only the four words that it knows, as they stand. Several proxies make a
list of it, whose first entry is how the browser came, and some write it in capitals. What is not understood counts as
https: else the cookie of a session would go over plain connections too, and nobody would notice.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

PROTO: Final = b"x-forwarded-proto"
SCHEMES: Final = {"http": b"http", "https": b"https", "ws": b"http", "wss": b"https"}

log = structlog.get_logger()


class Forwarded(ProxyHeadersMiddleware):
    """Between the server and an application, for requests from trusted proxies. A header from anybody else is passed
    over."""

    said = False
    """Whether a scheme that is not understood has been logged."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
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
                mend="have the proxy send X-Forwarded-Proto: https, or http. Until then it counts as https",
            )
        return scheme or b"https"
