"""HTTP. The application: all routes in one list."""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Lifespan

from receiver.errors import ReceiverError
from receiver.http.api.auth import Tokens
from receiver.http.api.deliveries import DeliveryApi
from receiver.http.api.diagnostics import DiagnosticsApi, DiagnosticsSource
from receiver.http.api.fps import fps_routes
from receiver.http.api.issuing import IssueApi
from receiver.http.api.notifications import NotificationApi, notification_routes
from receiver.http.api.rate_limit import SignInLimit
from receiver.http.api.reads import Endpoint, Reads
from receiver.http.api.refresh_limit import Refreshes
from receiver.http.api.refunds import RefundApi
from receiver.http.api.requests import RequestApi
from receiver.http.api.subscribers import SubscriberApi
from receiver.http.dashboard.routes import Dashboard
from receiver.http.dashboard.sessions import Sessions
from receiver.http.feed.feed import FeedApi
from receiver.http.health import Check, Health
from receiver.http.ipn.endpoint import Ipn, Receives
from receiver.http.middleware import Application
from receiver.http.openapi import description_routes
from receiver.http.problems import on_http_exception, on_receiver_error, with_every_method
from receiver.issue.fps import FpsIssuer
from receiver.issue.issuer import Issuer
from receiver.runtime.metrics import Metrics
from receiver.settings import Settings
from receiver.settings.subscriber import rules_of
from receiver.store import Store

log = structlog.get_logger()

FROM_AMAZON: Final = ("/ipn", "/fps/")
HEALTH: Final = ("/healthz", "/readyz")


def new_secret() -> str:
    """A signing secret: 32 random bytes in the form of Standard Webhooks."""
    return f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"


def build(
    settings: Settings,
    *,
    receiver: Receives,
    store: Store,
    metrics: Metrics,
    now: Callable[[], int],
    checks: Mapping[str, Check],
    refresh_gauges: Check,
    advisory_checks: Mapping[str, Check] = MappingProxyType({}),
    alerting: Callable[[], Awaitable[Mapping[str, str]]] | None = None,
    issuers: Mapping[str, Issuer] = MappingProxyType({}),
    fps_issuers: Mapping[str, FpsIssuer] = MappingProxyType({}),
    inside: DiagnosticsSource | None = None,
    sessions: Sessions | None = None,
    lifespan: Lifespan[Starlette] | None = None,
    more_routes: Sequence[BaseRoute] = (),
) -> Application:
    """The application. `checks`, `advisory_checks` and `alerting` make `/readyz`, `refresh_gauges` runs before each
    `/metrics`.

    `now` is ms UTC. `issuers` by account: who issues refunds; `fps_issuers`: who makes those of Flexible Payments.
    `inside` is what `/v1/diagnostics` tells; without it there is no such route. `sessions`: of the dashboard, if not
    in memory.
    """
    sessions, attempts = sessions or Sessions(now), SignInLimit(settings.http.failed_sign_ins)
    tokens = Tokens(settings.tokens, [account.name for account in settings.accounts], attempts, sessions.reader)
    accounts = [account.name for account in settings.accounts]
    refreshes, reads = Refreshes(settings.http.refreshes), Reads()
    in_turn = partial(reads.shared, tokens)
    dashboard = Dashboard(store, tokens, sessions, issuers, now, refreshes, reads)
    ipn = Ipn(receiver, settings.ingest, metrics)
    routes = [
        *ipn_routes(ipn),
        *refund_routes(RefundApi(store, tokens, now, refreshes, settings.http), in_turn),
        *issue_routes(IssueApi(issuers, tokens)),
        *fps_routes(fps_issuers, tokens, settings.ingest, metrics),
        *request_routes(RequestApi(store, issuers, tokens), in_turn),
        *subscriber_routes(
            SubscriberApi(
                store, tokens, rules_of(settings.delivery), now, new_secret, settings.delivery.max_subscribers
            )
        ),
        *feed_routes(FeedApi(store, tokens, settings.feed, metrics, reads)),
        *delivery_routes(DeliveryApi(store, tokens, now), in_turn),
        *notification_routes(NotificationApi(store, tokens, accounts), in_turn),
        *health_routes(Health(checks, metrics, refresh_gauges, advisory_checks, alerting)),
        *([Route("/v1/diagnostics", DiagnosticsApi(inside, tokens, now).tell, methods=["GET"])] if inside else []),
        *description_routes(),
        *dashboard.routes(),
        *more_routes,
    ]
    return Application(
        metrics=metrics,
        ipn=ipn,
        routes=routes,
        exception_handlers={ReceiverError: on_receiver_error, HTTPException: dashboard.on_http_exception},
        lifespan=lifespan,
    )


def split_by_port(app: Application) -> tuple[Application, Application]:
    """The same application behind two doors, with all that it holds: one for Amazon, one for those who run it.

    Both have the health routes. A notification that comes to the second gets 503: SNS would never repeat a 404.
    """
    taken: list[BaseRoute] = []
    others: list[BaseRoute] = []
    for route in app.routes:
        path = route.path if isinstance(route, Route | Mount) else ""
        if path.startswith(FROM_AMAZON):
            taken.append(route)
            others.append(Route(path, _wrong_port, methods=["POST"]))
        else:
            others.append(route)
            taken += [route] if path in HEALTH else []
    answers = {ReceiverError: on_receiver_error, HTTPException: _nothing_else}
    return app.with_routes(taken, answers, posts=True), app.with_routes(others, app.exception_handlers, posts=False)


async def _wrong_port(request: Request) -> Response:
    """Without a body, as all answers to Amazon."""
    log.error("http.notification_at_admin_port", path=request.url.path, mend="Have it sent to http.port.")
    return Response(status_code=503, headers={"Retry-After": "60"})


async def _nothing_else(request: Request, error: Exception) -> Response:
    """JSON for browsers as well: they find no page there."""
    if isinstance(error, HTTPException):
        error = with_every_method(request, error)
    return await on_http_exception(request, error)


def ipn_routes(ipn: Ipn) -> list[BaseRoute]:
    """Notifications. A slash at the end is no reason to lose one: SNS does not follow redirects."""
    return [Route(path, ipn) for path in ("/ipn", "/ipn/", "/ipn/{account}", "/ipn/{account}/")]


def refund_routes(api: RefundApi, in_turn: Callable[[Endpoint], Endpoint]) -> list[BaseRoute]:
    """What is known of refunds."""
    return [
        Route("/v1/refunds", in_turn(api.many), methods=["GET"]),
        Route("/v1/refunds/{refund_id}", api.one, methods=["GET"]),
        Route("/v1/refunds/{refund_id}/history", api.history, methods=["GET"]),
        Route("/v1/refunds/{refund_id}/refresh", api.refresh, methods=["POST"]),
    ]


def issue_routes(api: IssueApi) -> list[BaseRoute]:
    """Refunds that we are asked to make."""
    return [
        Route("/v1/refunds", api.create, methods=["POST"]),
        Route("/v1/refunds/{refund_id}/retry", api.retry, methods=["POST"]),
    ]


def request_routes(api: RequestApi, in_turn: Callable[[Endpoint], Endpoint]) -> list[BaseRoute]:
    """Those of them that are not settled."""
    return [
        Route("/v1/refund-requests", in_turn(api.many), methods=["GET"]),
        Route("/v1/refund-requests/{request_id}", api.one, methods=["GET"]),
        Route("/v1/refund-requests/{request_id}/settle", api.settle, methods=["POST"]),
        Route("/v1/refund-requests/{request_id}/repeat", api.repeat, methods=["POST"]),
    ]


def subscriber_routes(api: SubscriberApi) -> list[BaseRoute]:
    """Who is told about them."""
    return [
        Route("/v1/subscribers", api.many, methods=["GET"]),
        Route("/v1/subscribers", api.add, methods=["POST"]),
        Route("/v1/subscribers/{name}", api.one, methods=["GET"]),
        Route("/v1/subscribers/{name}", api.change, methods=["PATCH"]),
        Route("/v1/subscribers/{name}", api.remove, methods=["DELETE"]),
        Route("/v1/subscribers/{name}/rotate", api.rotate, methods=["POST"]),
        Route("/v1/subscribers/{name}/pause", api.pause, methods=["POST"]),
        Route("/v1/subscribers/{name}/resume", api.resume, methods=["POST"]),
    ]


def feed_routes(api: FeedApi) -> list[BaseRoute]:
    """Every event, for whoever wants to follow."""
    return [Route("/v1/events", api.events, methods=["GET"])]


def delivery_routes(api: DeliveryApi, in_turn: Callable[[Endpoint], Endpoint]) -> list[BaseRoute]:
    """What subscribers are owed, and what was given up."""
    return [
        Route("/v1/subscribers/{name}/deliveries", in_turn(api.many), methods=["GET"]),
        Route("/v1/subscribers/{name}/redrive", api.redrive, methods=["POST"]),
        Route("/v1/subscribers/{name}/test", api.test, methods=["POST"]),
    ]


def health_routes(health: Health) -> list[BaseRoute]:
    """For those who run the service. These need no token: do not let strangers reach them."""
    return [
        Route("/healthz", health.alive, methods=["GET"]),
        Route("/readyz", health.ready, methods=["GET"]),
        Route("/metrics", health.metrics, methods=["GET"]),
    ]
