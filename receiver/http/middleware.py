"""HTTP. The application, and the frame around every request: request id, route, security headers, metrics, the access
log, and the response to errors.

Notifications pass it by: their endpoint is in front of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any, Final, NamedTuple

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from receiver.errors import ReceiverError
from receiver.http.api.auth import Tokens
from receiver.http.headers import DEFAULTS, RequestIds, brought_id, is_plain, not_plain, trace_of
from receiver.http.ipn.endpoint import Ipn
from receiver.http.ipn.pacing import PerTickLimit
from receiver.ledger.refund import REFUND_ID
from receiver.runtime.metrics import Metrics

log = structlog.get_logger()

NO_ROUTE: Final = "none"
BROUGHT: Final = frozenset({b"x-request-id", b"traceparent", b"transfer-encoding"})
"""The headers that the frame reads."""
OFTEN: Final = frozenset({"/healthz", "/readyz", "/metrics", "/static/{name}"})
"""Routes logged at level debug only: machines request them every few seconds."""

FIRST: Final = frozenset({"/healthz", "/readyz"})
PER_TURN: Final = 32
"""How many requests, other than notifications and probes, begin in one turn of the loop. Hundreds at once would delay
each step of a response to Amazon."""

Answers = Callable[[Request, Exception], Response]
Key = tuple[int | str, ...]


class _Template(NamedTuple):
    """The path of a route, in parts between slashes."""

    route: Route
    key: Key
    """How many parts there are, and the first three: nothing, and two names. A parameter is `{}`."""
    fixed: dict[int, str]
    """The further parts that are no parameters, by their place."""
    names: dict[int, str]
    """The names of the parameters, by their place."""


class Routes:
    """Finds the route of a path, which is split once: Starlette tries the pattern of each route until one fits.

    Of the routes that fit, the first that is declared for the method is taken. No path begins with a parameter.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        all_ = [_template(route) for route in routes]
        self._near = {near.key: [each for each in all_ if each.key in (near.key, _any(near.key))] for near in all_}

    def find(self, scope: Scope) -> Route:
        """The route of a request; the scope gets it and its parameters. Raises `HTTPException`."""
        parts, fitting = scope["path"].split("/"), list[Route]()
        key = (len(parts), *parts[:3])
        for route, _, fixed, names in self._near.get(key) or self._near.get(_any(key), []):
            values = {name: parts[at] for at, name in names.items()}
            if not all(values.values()) or {at: parts[at] for at in fixed} != fixed:
                continue
            is_for_method = route.methods is None or scope["method"] in route.methods
            if is_for_method or not fitting:
                scope["route"], scope["path_params"] = route, values
            if is_for_method:
                return route
            fitting.append(route)
        if not fitting:
            raise HTTPException(404)
        # `/v1/refunds/retry` is a separate path, although `/v1/refunds/{refund_id}` fits it too.
        own = [route for route in fitting if route.path == scope["path"]] or fitting
        allow = sorted({method for route in own for method in route.methods or ()})
        raise HTTPException(405, headers={"Allow": ", ".join(allow)})


def _template(route: Route) -> _Template:
    parts = route.path.split("/")
    names = {at: part[1:-1] for at, part in enumerate(parts) if part.startswith("{")}
    key = ("{}" if at in names else part for at, part in enumerate(parts[:3]))
    fixed = {at: part for at, part in enumerate(parts) if at > 2 and at not in names}
    return _Template(route, (len(parts), *key), fixed, names)


def _any(key: Key) -> Key:
    """The key of the paths whose third part is a parameter."""
    return (*key[:3], "{}")


class Application:
    """Everything that is served, as plain ASGI.

    Requests to the addresses of notifications go to `ipns` and to nothing else. None: another server takes them.
    `answer_to` answers errors. `tokens` are those of the API and of the dashboard.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        answer_to: Answers,
        metrics: Metrics,
        ipns: Sequence[Ipn] = (),
        tokens: Tokens | None = None,
    ) -> None:
        self.routes, self.answer_to, self.metrics, self.ipns, self.tokens = routes, answer_to, metrics, ipns, tokens
        self._found, self._new_id, self._turns = Routes(routes), RequestIds(), PerTickLimit(PER_TURN)
        self._log = log.bind()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """One request."""
        for each in self.ipns:
            if each.takes(scope["path"]):
                return each(scope, receive, send)
        return self._framed(scope, receive, send)

    async def _framed(self, scope: Scope, receive: Receive, send: Send) -> None:
        brought = [pair for pair in scope["headers"] if pair[0] in BROUGHT]
        request_id = (brought_id(brought) if brought else "") or self._new_id()
        status, began = 0, perf_counter()

        def framed(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status, said = message["status"], message["headers"]
                defaults = _missing(tuple([name for name, _ in said]))
                message["headers"] = [*said, *defaults, (b"x-request-id", request_id.encode())]
            return send(message)

        if not (self._turns.entered() or scope["path"] in FIRST):
            await self._turns.enter()
        bind_contextvars(request_id=request_id, **(trace_of(brought) if brought else {}))
        try:
            app = self._found.find(scope).app if is_plain(brought) else not_plain
            await app(scope, receive, framed)
        except Exception as error:
            if status:
                raise
            _note_error(scope, error)
            await self.answer_to(Request(scope, receive), error)(scope, receive, framed)
        finally:
            self.metrics.request(route_of(scope), scope["method"], status)
            _note(self._log, scope, status, perf_counter() - began)


def _note_error(scope: Scope, error: Exception) -> None:
    """Logs an error of ours; the traceback, if it is unexpected. Call it inside the exception handler."""
    if not isinstance(error, ReceiverError | HTTPException):
        log.exception("http.failed", method=scope["method"], route=route_of(scope))
    elif isinstance(error, ReceiverError) and error.status >= 500:
        log.error("http.unavailable", reason=error.reason, status=error.status, detail=error.detail)


def _note(logger: Any, scope: Scope, status: int, seconds: float) -> None:
    """Logs one line per request; notifications log their own, more detailed line."""
    route = route_of(scope)
    values: dict[str, object] = {"method": scope["method"], "route": route, "status": status or None}
    refund_id = scope.get("path_params", {}).get("refund_id", "")
    if REFUND_ID.fullmatch(refund_id):
        values["refund_id"] = refund_id
    (logger.debug if route in OFTEN else logger.info)("http.answered", duration_ms=round(seconds * 1000, 2), **values)


def route_of(scope: Scope) -> str:
    """The template of the route that handled the request, such as `/v1/refunds/{refund_id}`."""
    route = scope.get("route")
    return route.path if isinstance(route, Route) else NO_ROUTE


@lru_cache(256)
def _missing(names: tuple[bytes, ...]) -> tuple[tuple[bytes, bytes], ...]:
    """The default headers that the response lacks."""
    return tuple(pair for pair in DEFAULTS.items() if pair[0] not in names)
