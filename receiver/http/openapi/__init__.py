"""HTTP. The API in OpenAPI 3.1, for client generators, gateways and people: `GET /openapi.json`.

Every operation is declared above its handler (`api/operations.py`), and its answers by the types that the handlers
fill. The dashboard is for browsers and not included.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.http.api.cases import CaseApi
from receiver.http.api.charges import ChargeApi
from receiver.http.api.deliveries import DeliveryApi
from receiver.http.api.diagnostics import DiagnosticsApi, NotificationApi
from receiver.http.api.fps import TAKE_FORM, FpsApi
from receiver.http.api.issuing import IssueApi
from receiver.http.api.jobs import JobApi
from receiver.http.api.operations import JSON, Answer, Operation, operations_of
from receiver.http.api.params import IF_NONE_MATCH
from receiver.http.api.refunds import RefundApi
from receiver.http.api.requests import RequestApi
from receiver.http.api.schema import DeadDeliveryJson, WaitingDeliveryJson
from receiver.http.api.subscriber_put import SubscriberPutApi
from receiver.http.api.subscribers import SubscriberApi
from receiver.http.audit import AuditApi
from receiver.http.feed.feed import FeedApi
from receiver.http.findings import FindingApi
from receiver.http.health import HealthApi
from receiver.http.ipn import operations as ipn
from receiver.http.openapi.describe import BEARER, components, described, shared_answers, types_of
from receiver.http.openapi.webhooks import webhooks
from receiver.http.respond import matches
from receiver.http.summary import SummaryApi
from receiver.outbox.formats.cloudevents import EVENT_SHAPES
from receiver.runtime.version import package_version

APIS: Final = (
    *(RefundApi, ChargeApi, IssueApi, CaseApi, JobApi, FpsApi, RequestApi, DeliveryApi, FeedApi),
    *(SubscriberApi, SubscriberPutApi, SummaryApi, FindingApi, NotificationApi, DiagnosticsApi, AuditApi, HealthApi),
)
DESCRIBE: Final = Operation(
    "GET",
    "/openapi.json",
    id="getDescription",
    tag="operation",
    summary="This description",
    parameters=(IF_NONE_MATCH,),
    answers=(
        Answer(200, {JSON: {"type": "object"}}, headers={"ETag": "Entity tag of this version."}),
        Answer(304, headers={"ETag": "Entity tag of this version."}),
    ),
)
DECLARED: Final = (
    *ipn.OPERATIONS,
    TAKE_FORM,
    *(operation for api in APIS for _, operation in operations_of(api)),
    DESCRIBE,
)
OPERATIONS: Final = {(operation.path, operation.method.lower()): operation for operation in DECLARED}
"""By path and method."""
ABOUT: Final = """\
Tracks and issues Amazon Pay refunds, and notifies subscribers of their outcome.

Errors are `application/problem+json` (RFC 9457) with a stable `reason`. New reasons may be added; handle an unknown \
one by its status. Unknown parameters and fields are rejected. Every GET also supports HEAD. Every response has an \
`X-Request-Id`, which also appears in the service's log: yours, if you send one. A `traceparent` (W3C Trace Context) \
is passed on to Amazon and to the resulting events, or that of the service's own span. Bodies are read as JSON \
whatever their Content-Type. Responses may gain new members: ignore those that you do not know.

If `http.admin_port` is set, everything here is on that port, except notifications, which are on `http.port`. Both \
ports have `/healthz` and `/readyz`.

The dashboard at `/` is for browsers and not described here. With its session, pages of the same origin can send GET \
requests without a token.
"""
TAGS: Final = {
    "refunds": "Read refunds and charges.",
    "issuing": "Issue refunds.",
    "events": "The feed of all events.",
    "subscribers": "Subscribers and their deliveries.",
    "webhooks": "What a subscriber with the format `cloudevents` receives.",
    "notifications": "Endpoints for Amazon's notifications.",
    "operation": "For operators of the service.",
}


@cache
def document() -> dict[str, Any]:
    """The description. Do not modify it."""
    paths: dict[str, dict[str, Any]] = {}
    for (path, method), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method] = described(operation)
    shapes = {shape for operation in OPERATIONS.values() for shape in types_of(operation)}
    listed = (DeadDeliveryJson, WaitingDeliveryJson, *EVENT_SHAPES)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Amazon Pay refund receiver", "version": package_version() or "0", "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in TAGS.items()],
        "paths": paths,
        "webhooks": webhooks(),
        "components": {
            "schemas": components(sorted({*shapes, *listed}, key=lambda shape: shape.__name__)),
            "responses": shared_answers(),
            "securitySchemes": {
                BEARER: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token from `[[tokens]]`. Each operation names the scope that it needs: read, "
                    "refund or admin; none includes another.",
                }
            },
        },
    }


@cache
def encoded() -> tuple[bytes, str]:
    """The encoded description, and its strong `ETag`."""
    body = msgspec.json.encode(document())
    return body, f'"{sha256(body).hexdigest()[:32]}"'


async def describe(request: Request) -> Response:
    """`GET /openapi.json`: this description, the same for every caller. No token is needed."""
    body, tag = encoded()
    headers = {"ETag": tag, "Cache-Control": "public, max-age=300"}
    if matches(request.headers.raw, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def description_routes() -> list[Route]:
    return [Route(DESCRIBE.path, describe, methods=[DESCRIBE.method])]
