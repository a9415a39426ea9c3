"""HTTP. Builds the application, once, from everything that has routes."""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.http.api.auth import Tokens
from receiver.http.api.cases import CaseApi
from receiver.http.api.charges import ChargeApi
from receiver.http.api.deliveries import DeliveryApi
from receiver.http.api.diagnostics import DiagnosticsApi, DiagnosticsSource, NotificationApi
from receiver.http.api.fps import FpsApi, form_endpoint, form_routes
from receiver.http.api.issuing import IssueApi
from receiver.http.api.jobs import JobApi
from receiver.http.api.operations import routes_of
from receiver.http.api.refunds import RefundApi
from receiver.http.api.requests import RequestApi
from receiver.http.api.subscriber_put import SubscriberPutApi
from receiver.http.api.subscribers import SubscriberApi
from receiver.http.audit import AuditApi
from receiver.http.dashboard.routes import Dashboard
from receiver.http.dashboard.sessions import Sessions
from receiver.http.feed.feed import FeedApi
from receiver.http.findings import FindingApi
from receiver.http.health import Check, HealthApi
from receiver.http.ipn.endpoint import Ipn, Receives
from receiver.http.ipn.operations import ipn_routes
from receiver.http.limits import Reads, Refreshes, SignInLimit
from receiver.http.middleware import Application
from receiver.http.openapi import description_routes
from receiver.http.problems import answer_to
from receiver.http.summary import SummaryApi
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
    """A signing secret: 32 random bytes in the Standard Webhooks form."""
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
    more_routes: Sequence[Route] = (),
) -> Application:
    """Builds the application. `/readyz` uses `checks`, `advisory_checks` and `alerting`; `refresh_gauges` runs before
    each `/metrics`.

    `now` is ms UTC. `issuers` and `fps_issuers` (Flexible Payments) are keyed by account. `inside` is the content of
    `/v1/diagnostics`; without it the route does not exist. `sessions` are the dashboard's, in memory by default.
    """
    sessions = sessions or Sessions(now)
    tokens = _tokens(settings, sessions)
    configured_fps = {name: issuer for name, issuer in fps_issuers.items() if issuer.is_configured}
    refreshes, reads = Refreshes(settings.http.refreshes), Reads()
    ipn, forms = Ipn(receiver, settings.ingest, metrics), form_endpoint(configured_fps, settings.ingest, metrics)
    managing = (store, rules_of(settings.delivery), now, new_secret, settings.delivery.max_subscribers)
    subscribers, links = SubscriberApi(*managing), settings.delivery.seller_central
    dashboard = Dashboard(store, tokens, sessions, issuers, now, refreshes, reads, subscribers, links)
    apis = [
        RefundApi(store, tokens, now, refreshes, settings.http),
        ChargeApi(store, {name: issuer.amazon_client for name, issuer in issuers.items()}, refreshes),
        IssueApi(issuers),
        CaseApi(store, issuers),
        JobApi(store, issuers),
        FpsApi(configured_fps),
        RequestApi(store, issuers),
        *(subscribers, SubscriberPutApi(*managing)),
        FeedApi(store, tokens, settings.feed, metrics, reads),
        DeliveryApi(store, now),
        *(AuditApi(store), SummaryApi(store, now), FindingApi(store, issuers)),
        NotificationApi(store, [account.name for account in settings.accounts]),
        HealthApi(checks, metrics, refresh_gauges, advisory_checks, alerting),
        *([DiagnosticsApi(inside, now)] if inside else []),
    ]
    routes = [
        *(route for api in apis for route in routes_of(api, tokens, reads)),  # the most requested ones first
        *ipn_routes(ipn),
        *form_routes(forms),
        *description_routes(),
        *dashboard.routes(),
        *more_routes,
    ]
    return Application(routes, dashboard.answer_to, metrics, (ipn, forms), tokens)


def _tokens(settings: Settings, sessions: Sessions) -> Tokens:
    """The tokens of the settings. A session ends with its token."""
    attempts = SignInLimit(settings.http.failed_sign_ins)
    tokens = Tokens(settings.tokens, [account.name for account in settings.accounts], attempts, sessions.reader)
    sessions.is_known = tokens.knows
    return tokens


def split_by_port(app: Application) -> tuple[Application, Application]:
    """Splits the application by port, with shared state: one part for Amazon, one for operators.

    Both have the health routes. A notification that arrives at the second part gets 503: SNS would never retry a 404.
    """
    taken: list[Route] = []
    others: list[Route] = []
    for route in app.routes:
        if route.path.startswith(FROM_AMAZON):
            taken.append(route)
            others.append(Route(route.path, _wrong_port, methods=["POST"]))
        else:
            others.append(route)
            taken += [route] if route.path in HEALTH else []
    # Browsers get JSON too: the first port has no pages.
    public = Application(taken, answer_to, app.metrics, app.ipns)
    return public, Application(others, app.answer_to, app.metrics)


async def _wrong_port(request: Request) -> Response:
    """Has no body, like every response to Amazon."""
    log.error("http.notification_at_admin_port", path=request.url.path, fix="Have it sent to http.port.")
    return Response(status_code=503, headers={"Retry-After": "60"})
