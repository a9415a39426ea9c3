"""Spans of a real process at a real OTLP endpoint, read with the protocol's own messages."""

from __future__ import annotations

import ast
import gzip
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from receiver.commands.serve.traces import traced
from receiver.receive.receiver import Receiver
from receiver.runtime import tracing
from receiver.runtime.tracing import is_wanted, other_protocol
from tests.kit.processes import Desk, until
from tests.service.crash_kit import TOKEN, World

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ISSUED, CALLER = "1bf7651916cd43dd8448eb211c80319c", "c7ad6b7169203331"


@dataclass(frozen=True)
class Span:
    """One span as it arrived."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    is_error: bool
    attributes: dict[str, Any]


@dataclass
class Collector:
    """An OTLP endpoint."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    headers: list[str] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        found = trace_service.ExportTraceServiceRequest()
        found.ParseFromString(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
        self.headers.append(request.headers.get("x-key", ""))
        for group in found.resource_spans:
            self.resource = values(group.resource.attributes)
            for span in (each for scope in group.scope_spans for each in scope.spans):
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                self.spans.append(Span(span.name, *ids, span.kind, span.status.code == 2, values(span.attributes)))
        return web.Response(headers={"Content-Type": "application/x-protobuf"})

    def named(self, name: str, trace: str = TRACE) -> list[Span]:
        return [each for each in self.spans if (each.name, each.trace) == (name, trace)]

    def under(self, span: Span) -> set[str]:
        """The names of its children."""
        return {each.name for each in self.spans if each.parent == span.id}


def values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """On a port of loopback."""
    found, app = Collector(), web.Application()
    app.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield found
    finally:
        await runner.cleanup()


async def post(url: str, body: bytes | dict[str, Any], **headers: str) -> tuple[int, str]:
    more: dict[str, Any] = {"json": body} if isinstance(body, dict) else {"data": body}
    async with aiohttp.ClientSession() as session, session.post(url, headers=headers, **more) as answer:
        return answer.status, await answer.text()


async def test_a_notification_is_followed_to_the_subscriber(place: Desk, around: World) -> None:
    """In the sender's trace, with the calls to Amazon and the writes to Redis. The same holds for an issued refund. A
    span that an error ended names the error. The last spans are sent at the end."""
    around.answers.set()
    config = around.configure(place.folder)
    config.write_text(config.read_text().replace('scopes = ["read"', 'scopes = ["refund", "read"'))
    async with collector() as found:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": found.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=hush",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        command = await around.at(await place.serve(config, env=environment))
        refund_id = around.refund()
        status, _ = await post(f"{around.url}/ipn", around.body(refund_id), traceparent=f"00-{TRACE}-{PARENT}-01")
        assert status == 200
        await until(lambda: found.named("delivery"), "it is delivered")
        charge = around.amazon.open_charge("20.00", "USD")
        asked = {"chargeId": charge, "refundAmount": {"amount": "5.00", "currencyCode": "USD"}}
        key = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "one"}
        status, text = await post(f"{around.url}/v1/refunds", asked, **key, traceparent=f"00-{ISSUED}-{CALLER}-01")
        assert status in (201, 202), text
        await until(lambda: found.named("refund attempt", ISSUED), "it is issued")
        await post(f"{around.url}/ipn", b"{}")
        assert await command.stop() == 0
        assert (await command.line("traces.started"))["level"] == "info"

    (notification,) = found.named("notification")
    assert (notification.parent, notification.kind, notification.is_error) == (PARENT, 2, False)
    assert notification.attributes["receiver.outcome"] == "noted"
    assert notification.attributes["receiver.refund_id"] == refund_id
    assert "redis hint" in found.under(notification)
    question = next(each for each in found.named("question") if each.parent == notification.id)
    assert {"amazon get_refund", "redis commit"} <= found.under(question)
    delivery = found.named("delivery")[0]
    assert delivery.parent == notification.id
    assert delivery.attributes["receiver.subscriber"] == "all"
    assert {"POST", "redis finish_delivery"} <= found.under(delivery)
    (attempt,) = found.named("refund attempt", ISSUED)
    assert attempt.parent == CALLER
    assert {"amazon create_refund", "redis begin_try"} <= found.under(attempt)
    (refused,) = [each for each in found.spans if each.name == "notification" and each.is_error]
    assert refused.attributes["error.type"] == "bad_type"
    assert found.resource["service.name"] == "amazon-pay-refund-receiver"
    assert found.resource["deployment.environment.name"] == "test"
    assert set(found.headers) == {"hush"}
    assert not [each for each in found.spans if each.name.startswith("redis") and not each.parent]


@pytest.mark.parametrize(
    ("environ", "wanted", "other"),
    [
        ({}, False, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, True, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4318/v1/traces"}, True, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "TRUE"}, False, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, True, "grpc"),
    ],
)
def test_the_usual_variables_decide(environ: dict[str, str], wanted: bool, other: str) -> None:
    """An endpoint turns tracing on; there are two ways to turn it off again; the protocol is OTLP over HTTP."""
    assert (is_wanted(environ), other_protocol(environ)) == (wanted, other)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "bad_variable"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "other_protocol"),
    ],
)
async def test_wrong_variables_stop_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    """They are named in the log, and no method is replaced."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    receive = Receiver.receive
    with capture_logs() as logs:
        async with traced(os.environ):
            assert Receiver.receive is receive
    assert [(line["event"], line["reason"]) for line in logs] == [("traces.not_started", reason)]


def test_nothing_of_it_is_imported_before_it_is_used() -> None:
    """Only within functions, and only there (tests/test_architecture.py)."""
    body = ast.parse(Path(tracing.__file__).read_text()).body
    names = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
    assert len(names) > 5
    assert not [name for name in names if name.startswith("opentelemetry")]
