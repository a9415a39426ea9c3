"""HTTP. The uvicorn that serves the application."""

from __future__ import annotations

from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from receiver.http.connections import Connections
from receiver.http.forwarded import Forwarded
from receiver.http.protocol import Protocol
from receiver.runtime.serving import Server
from receiver.settings.sections import HttpSettings


def server(app: ASGIApp, http: HttpSettings, **more: Any) -> Server:
    """A server for the application, not yet started. `more` is passed to `uvicorn.Config` (`fd`, `workers`, …)."""
    keep_alive = more.pop("timeout_keep_alive", int(http.keep_alive.total_seconds()))
    bounds = {
        "head_timeout": http.header_timeout.total_seconds(),
        "keep_alive": keep_alive,
        "others": Connections(http.connections, http.trusted_proxies),
    }
    timed = type("BoundedProtocol", (Protocol,), bounds)
    if http.trusted_proxies:
        trusted = [str(network) for network in http.trusted_proxies]
        app = cast(ASGIApp, Forwarded(cast(Any, app), trusted, http.user_header or ""))
    return Server(
        uvicorn.Config(
            app,
            host=http.host,
            port=http.port,
            http=timed,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=keep_alive,
            timeout_graceful_shutdown=int(http.shutdown_timeout.total_seconds()),
            **more,
        )
    )
