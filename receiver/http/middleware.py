"""HTTP. The frame around every request: request id, security headers, metrics, the access log, and the response to
unexpected errors.

Notifications pass it by: their endpoint is in front of it, and of the framework.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from receiver.http.api.auth import Tokens
from receiver.http.headers import DEFAULTS, Headers, RequestIds, brought_id, is_plain, not_plain, trace_of
from receiver.http.ipn.endpoint import Ipn
from receiver.http.ipn.pacing import PerTickLimit
from receiver.http.problems import failed
from receiver.ledger.refund import REFUND_ID
from receiver.runtime.metrics import Metrics

log = structlog.get_logger()

NO_ROUTE: Final = "none"
BROUGHT: Final = frozenset({b"x-request-id", b"traceparent", b"transfer-encoding"})
"""The headers that the frame reads."""
OFTEN: Final = frozenset({"/healthz", "/readyz", "/metrics", "/static/{name}"})
"""Routes logged at level debug only: machines request them every few seconds."""

FIRST: Final = frozenset({"/healthz", "/readyz"})
PER_TURN: Final = 8
"""How many requests, other than notifications and probes, begin in one turn of the loop. Hundreds at once would delay
each step of a response to Amazon."""


class Frame:
    """Wraps every request to `app`."""

    def __init__(self, app: ASGIApp, metrics: Metrics, request_id: Callable[[], str]) -> None:
        self._app, self._metrics, self._new_id = app, metrics, request_id
        self._turns = PerTickLimit(PER_TURN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        brought = [pair for pair in scope["headers"] if pair[0] in BROUGHT]
        request_id = (brought_id(brought) if brought else "") or self._new_id()
        app = self._app if is_plain(brought) else not_plain
        status, began = 0, perf_counter()

        async def framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _headers(message.get("headers", ()), request_id)
            await send(message)

        if scope["path"] not in FIRST:
            await self._turns.enter()
        bound = bind_contextvars(request_id=request_id, **(trace_of(brought) if brought else {}))
        try:
            await app(scope, receive, framed)
        except Exception:
            answer = failed(scope["method"], route_of(scope))
            if status:
                raise
            await answer(scope, receive, framed)
        finally:
            self._metrics.request(route_of(scope), scope["method"], status)
            _note(scope, status, perf_counter() - began)
            reset_contextvars(**bound)


class Application(Starlette):
    """An application in its frame. The frame, not the framework, answers unexpected errors.

    Requests to the addresses of notifications go to `ipns` and to nothing else. None: another server takes them.
    `tokens` are those of the API and of the dashboard.
    """

    def __init__(self, *, metrics: Metrics, ipns: Sequence[Ipn], tokens: Tokens | None = None, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]  # passed through
        self.tokens = tokens
        self._metrics, self._ipns = metrics, ipns
        self.router.redirect_slashes = False

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]  # no coroutine
        """One request."""
        if scope["type"] == "http":
            for each in self._ipns:
                if each.takes(scope["path"]):
                    return each(scope, receive, send)
        return super().__call__(scope, receive, send)

    def with_routes(self, routes: Sequence[BaseRoute], handlers: Mapping[Any, Any], *, posts: bool) -> Application:
        """An application with some of its routes, in a frame of its own; `posts`: they include notifications."""
        ipns = self._ipns if posts else ()
        return Application(metrics=self._metrics, ipns=ipns, routes=routes, exception_handlers=handlers)

    def build_middleware_stack(self) -> ASGIApp:
        """The stack between the server and the routes."""
        return Frame(ExceptionMiddleware(self.router, handlers=self.exception_handlers), self._metrics, RequestIds())


def _note(scope: Scope, status: int, seconds: float) -> None:
    """Logs one line per request; notifications log their own, more detailed line."""
    route = route_of(scope)
    values: dict[str, object] = {"method": scope["method"], "route": route, "status": status or None}
    refund_id = scope.get("path_params", {}).get("refund_id", "")
    if REFUND_ID.fullmatch(refund_id):
        values["refund_id"] = refund_id
    (log.debug if route in OFTEN else log.info)("http.answered", duration_ms=round(seconds * 1000, 2), **values)


def route_of(scope: Scope) -> str:
    """The template of the route that handled the request, such as `/v1/refunds/{refund_id}`."""
    route = scope.get("route")
    return route.path if isinstance(route, Route) else NO_ROUTE


def _headers(said: Headers, request_id: str) -> list[tuple[bytes, bytes]]:
    """The response's own headers, and those of every response."""
    headers = [pair for pair in said if pair[0] != b"x-request-id"]
    names = {name for name, _ in headers}
    headers += [pair for pair in DEFAULTS.items() if pair[0] not in names]
    headers.append((b"x-request-id", request_id.encode()))
    return headers
