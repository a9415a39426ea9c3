"""What holds for every route: tokens, problems, ids, headers, health, counters."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from receiver.errors import StoreUnavailable
from receiver.http import app as application
from receiver.http.middleware import Routes
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.store.redis.pipeline import connect
from tests.http.kit import ADMIN, READER, Service, all_routes, real_receiver, running, settings
from tests.kit.sns import SnsSigner

LIST = "/v1/refunds"


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    async with running(settings(), store, real_receiver(sns, store)) as service:
        yield service


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {READER}"},
        {"Authorization": READER},
        {"Authorization": "Bearer " + "x" * 2_000},
    ],
)
async def test_without_a_token_it_is_401(service: Service, headers: dict[str, str]) -> None:
    """With the challenge of RFC 6750."""
    answer = await service.call("GET", LIST, headers=headers)
    assert (answer.status, answer.json["reason"]) == (401, "token_missing")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="receiver"'


@pytest.mark.parametrize("token", ["wrong", READER + "x", READER[:-1], READER.upper(), "Ã¼"])
async def test_with_a_wrong_token_it_is_401(service: Service, token: str) -> None:
    """`invalid_token`, whatever is wrong with it."""
    answer = await service.call("GET", LIST, token=token)
    assert (answer.status, answer.json["reason"]) == (401, "token_unknown")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


async def test_the_scheme_has_any_case(service: Service) -> None:
    """RFC 9110: scheme names are case-insensitive."""
    answer = await service.call("GET", LIST, headers={"Authorization": f"bEARER {READER}"})
    assert answer.status == 200


async def test_two_authorization_headers_are_none(service: Service) -> None:
    """Which of the two would count?"""
    reader, writer = await service.connect()
    line = f"Authorization: Bearer {READER}\r\n"
    writer.write(f"GET {LIST} HTTP/1.1\r\nHost: x\r\n{line}{line}Connection: close\r\n\r\n".encode())
    assert b" 401 " in await asyncio.wait_for(reader.readline(), 30)
    writer.close()


async def test_a_token_without_configuration_opens_nothing(sns: SnsSigner, store: Store) -> None:
    """No tokens configured means a closed API, not an open one."""
    closed = settings().model_copy(update={"tokens": ()})
    async with running(closed, store, real_receiver(sns, store)) as service:
        assert (await service.get(LIST)).status == 401


async def test_unknown_routes_and_methods_are_problems(service: Service) -> None:
    """404 and 405 in the same form as all others."""
    answer = await service.get("/v2/refunds")
    assert (answer.status, answer.headers["Content-Type"]) == (404, "application/problem+json")
    body = answer.json
    assert (body["type"], body["title"], body["status"], body["reason"]) == (
        "about:blank",
        "Not Found",
        404,
        "no_such_route",
    )
    answer = await service.call("PUT", LIST, token=ADMIN)
    assert (answer.status, answer.json["reason"]) == (405, "method")
    assert answer.headers["Allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/subscribers", "GET, HEAD, POST"),
        ("/v1/subscribers/finance", "DELETE, GET, HEAD, PATCH, PUT"),
        ("/v1/subscribers/finance/pause", "POST"),
        ("/sign-in", "GET, HEAD, POST"),
    ],
)
async def test_a_refused_method_names_all_that_the_path_has(service: Service, path: str, allowed: str) -> None:
    """RFC 9110, 15.5.6; also to a browser. The router by itself names those of the first route of the path."""
    for accepted in ("*/*", "text/html"):
        answer = await service.call("OPTIONS", path, headers={"Accept": accepted})
        assert (answer.status, answer.headers["Allow"]) == (405, allowed)


async def test_a_problem_names_the_request(service: Service) -> None:
    """By the id that the client brought, or one of ours."""
    answer = await service.get(LIST + "?x=1", X_Request_Id="order-17")
    assert answer.headers["X-Request-Id"] == answer.json["requestId"] == "order-17"
    answer = await service.get(LIST + "?x=1")
    assert answer.headers["X-Request-Id"] == answer.json["requestId"] != ""


async def test_security_headers_stand_on_every_answer(service: Service) -> None:
    """Also on errors and notifications."""
    for method, path in (("GET", "/healthz"), ("GET", LIST), ("GET", "/nowhere"), ("POST", "/ipn")):
        headers = (await service.call(method, path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "Server" not in headers


async def test_a_fault_of_ours_is_500_without_details(sns: SnsSigner, store: Store) -> None:
    """The traceback goes to the log with the request's id; the answer says nothing of it."""

    async def broken(request: Request) -> Response:
        raise KeyError("inner-detail")

    metrics = Metrics()

    async def nothing() -> None:
        return None

    app = application.build(
        settings(),
        receiver=real_receiver(sns, store),
        store=store,
        metrics=metrics,
        now=lambda: 0,
        checks={},
        refresh_gauges=nothing,
        more_routes=[Route("/broken", broken)],
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"hunter2", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/broken",
        "raw_path": b"/broken",
        "query_string": b"",
        "headers": [],
    }
    with capture_logs() as lines:
        await app(scope, receive, send)
    assert sent[0]["status"] == 500
    assert b"inner-detail" not in sent[1]["body"]
    told = [("http.failed", "/broken"), ("http.answered", "/broken")]
    assert [(line["event"], line["route"]) for line in lines] == told
    assert "hunter2" not in repr(lines)
    labels = {"route": "/broken", "method": "GET", "status": "500"}
    assert metrics.registry.get_sample_value("receiver_http_requests_total", labels) == 1


async def test_health_is_200_while_the_process_lives(sns: SnsSigner) -> None:
    """Even without Redis: a restart would not bring it back."""
    store = Store(connect("redis://127.0.0.1:1"))
    try:
        async with running(settings(), store, real_receiver(sns, store), checks={"store": store.ping}) as service:
            assert (await service.get("/healthz", token=None)).status == 200
            ready = await service.get("/readyz", token=None)
            assert (ready.status, ready.json) == (
                503,
                {"status": "not_ready", "checks": {"store": "store_unreachable"}},
            )
    finally:
        await store.close()


async def test_ready_is_200_when_every_check_passes(sns: SnsSigner, store: Store) -> None:
    """A check that hangs or fails is not ready, and its result says so."""

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def breaks() -> None:
        raise KeyError("inner-detail")

    receiver = real_receiver(sns, store)
    async with running(settings(), store, receiver, checks={"store": store.ping}) as service:
        assert (await service.get("/readyz", token=None)).json == {"status": "ready", "checks": {"store": "ok"}}
    async with running(settings(), store, receiver, checks={"a": hangs, "b": breaks, "c": store.ping}) as service:
        answer = await service.get("/readyz", token=None)
        assert (answer.status, answer.json["checks"]) == (503, {"a": "timeout", "b": "failed", "c": "ok"})


async def test_metrics_are_shown_with_and_without_redis(sns: SnsSigner, store: Store) -> None:
    """The gauges are read before each page; where that fails the counters are shown all the same."""
    calls = []

    async def refresh() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise StoreUnavailable

    async with running(settings(), store, real_receiver(sns, store), refresh=refresh) as service:
        await service.call("POST", "/ipn", body=b"{")
        for _ in range(2):
            page = await service.get("/metrics", token=None)
            assert page.status == 200
            assert page.headers["Content-Type"].startswith("text/plain; version=1.0.0")
            samples = {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in text_string_to_metric_families(page.body.decode())
                for sample in family.samples
            }
            key = ("receiver_notifications_total", (("outcome", "refused"), ("reason", "not_json")))
            assert samples[key] == 1
    assert len(calls) == 2


async def test_requests_are_counted_by_template(service: Service) -> None:
    """Never by path: a thousand ids are one line of the page."""
    for number in range(3):
        await service.get(f"/v1/refunds/S01-{number}")
        await service.get(f"/nowhere/{number}")
    value = service.metrics.registry.get_sample_value
    one = {"route": "/v1/refunds/{refund_id}", "method": "GET", "status": "404"}
    assert value("receiver_http_requests_total", one) == 3
    assert value("receiver_http_requests_total", {"route": "none", "method": "GET", "status": "404"}) == 3


async def test_each_request_is_one_line(service: Service) -> None:
    """With its id, the token's name and the refund; health checks and scrapes only at the level debug."""
    with capture_logs(processors=[merge_contextvars]) as lines:
        answer = await service.get("/v1/refunds/S01-1-1-R1")
        await service.call("GET", LIST, token=None)
        await service.get("/v1/refunds/%22%0Aforged")
        for path in ("/healthz", "/readyz", "/metrics"):
            await service.get(path)
    assert {line["event"] for line in lines} == {"http.answered"}
    assert all(line["duration_ms"] >= 0 and line["method"] == "GET" for line in lines)
    one = "/v1/refunds/{refund_id}"
    assert [(line["log_level"], line["route"], line["status"], line.get("refund_id")) for line in lines] == [
        ("info", one, 404, "S01-1-1-R1"),
        ("info", "/v1/refunds", 401, None),
        ("info", one, lines[2]["status"], None),
        *(("debug", path, 200, None) for path in ("/healthz", "/readyz", "/metrics")),
    ]
    assert lines[0]["request_id"] == answer.headers["X-Request-Id"]
    assert [line.get("token_name") for line in lines[:2]] == [READER.removesuffix("-token"), None]


async def test_tokens_are_never_logged(service: Service) -> None:
    """Neither a right one nor a wrong one."""
    with capture_logs() as lines:
        await service.get(LIST)
        await service.call("GET", LIST, token="hunter2")
    assert "hunter2" not in repr(lines)
    assert READER not in repr(lines)


def test_a_route_is_found_as_the_framework_would_find_it() -> None:
    """Each path with each method, and similar paths: with one part more, one less, and an empty one."""
    routes = all_routes().routes
    found = Routes(routes)
    full = {re.sub(r"\{\w+\}", "x-1", route.path) for route in routes} | {"", "*", "x/healthz", "/v1/refunds/{}"}
    near = {path + more for path in full for more in ("/", "/x", "//x")} | {path.rpartition("/")[0] for path in full}
    for path, method in product(full | near, ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")):
        mine: dict[str, Any] = {"type": "http", "path": path, "method": method, "root_path": ""}
        theirs = {**mine}
        matches = [(route, *route.matches(theirs)) for route in routes]
        fitting = [each for each in matches if each[1] is Match.FULL] or [each for each in matches if each[1].value]
        status = 200 if fitting and fitting[0][1] is Match.FULL else 405 if fitting else 404
        answered = 200
        try:
            found.find(mine)
        except HTTPException as error:
            answered = error.status_code
        assert (path, method, answered) == (path, method, status)
        if fitting:
            assert (mine["route"], mine["path_params"]) == (fitting[0][0], fitting[0][2]["path_params"]), (path, method)
