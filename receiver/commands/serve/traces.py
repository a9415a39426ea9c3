"""Command. Records spans of a process's work, if the environment says where to export them (`runtime/tracing.py`).

As instrumentations of OpenTelemetry do, it replaces methods, once, before the work begins. Without an endpoint nothing
is replaced, so that the work is as fast as without traces.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import structlog

from receiver.deliver.send import DeliveryAttempt
from receiver.exchange import Request, Response
from receiver.issue.attempts import RefundAttempts
from receiver.ledger.next_look import DueRefund
from receiver.ledger.notification import PostedNotification, Receipt
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.receive.receiver import Receiver
from receiver.runtime.tracing import Spans, is_wanted, other_protocol
from receiver.store.deliveries.queues import DeliveryQueues
from receiver.store.redis.base import RedisRepository
from receiver.store.redis.scripts import Command, Script, script, texts
from receiver.track.amazon_client import AmazonClient, host_of
from receiver.track.tracker import Tracker

log = structlog.get_logger()

Method = Callable[..., Any]


@contextlib.asynccontextmanager
async def traced(environ: Mapping[str, str]) -> AsyncIterator[None]:
    """Within the block spans are recorded and exported, if the environment names an endpoint."""
    spans = _spans(environ) if is_wanted(environ) else None
    if spans is None:
        yield
        return
    before = [(place, name, getattr(place, name)) for place, name, _ in TRACED]
    for (place, name, method), (_, _, with_span) in zip(before, TRACED, strict=True):
        setattr(place, name, wraps(method)(with_span(spans, method)))
    log.info("traces.started")
    try:
        yield
    finally:
        for place, name, method in before:
            setattr(place, name, method)
        await spans.stop()


def _spans(environ: Mapping[str, str]) -> Spans | None:
    if protocol := other_protocol(environ):
        fix = "Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and the collector's port for it, mostly 4318."
        log.error("traces.not_started", reason="other_protocol", protocol=protocol, fix=fix)
        return None
    try:
        return Spans(environ)
    except ImportError:
        fix = "Install the extra otel, or unset OTEL_EXPORTER_OTLP_ENDPOINT."
        log.error("traces.not_started", reason="not_installed", fix=fix)
    except Exception as error:  # The SDK raises what its parsers raise. A wrong variable must not stop the service.
        log.error("traces.not_started", reason="bad_variable", error=type(error).__name__, fix="Check OTEL_….")
    return None


def _notification(spans: Spans, receive: Method) -> Method:
    """From the body to the hint. What follows from the notification is a child of this span."""

    async def traced(self: Receiver, posted: PostedNotification) -> Receipt:
        with spans.span("notification", "SERVER", posted.traceparent) as span:
            receipt: Receipt = await receive(self, posted._replace(traceparent=spans.traceparent()))
            span.set_attribute("receiver.outcome", receipt.outcome.value)
            span.set_attribute("receiver.accounts", receipt.accounts)
            if receipt.refund_id:
                span.set_attribute("receiver.refund_id", receipt.refund_id)
            return receipt

    return traced


def _question(spans: Spans, look: Method) -> Method:
    """A due refund: Amazon is asked, and the answer recorded."""

    async def traced(self: Tracker, due: DueRefund) -> None:
        about = {"receiver.account": self.account.name, "receiver.refund_id": due.refund_id}
        with spans.span("question", "INTERNAL", due.traceparent, **about, **{"receiver.source": due.source.value}):
            await look(self, due)

    return traced


def _exchange(spans: Spans, ask: Method) -> Method:
    """One call of Amazon's API, which is sent this span as its parent."""

    async def traced(self: AmazonClient, call: str, request: Request, read: Method) -> Any:
        about = {"receiver.account": self.account.name, "server.address": host_of(request)}
        parent = "" if spans.has_current() else self.traceparent
        with spans.span(f"amazon {call}", "CLIENT", parent, **about, **{"http.request.method": request.method}):
            return await ask(replace(self, traceparent=spans.traceparent()), call, request, read)

    return traced


def _attempt(spans: Spans, attempt_once: Method) -> Method:
    """One attempt to issue a refund."""

    async def traced(self: RefundAttempts, attempt: Any, prepared: Any) -> None:
        about = {"receiver.account": self.account, "receiver.refund_request_id": prepared.id}
        with spans.span("refund attempt", "INTERNAL", prepared.traceparent, **about):
            await attempt_once(self, attempt, prepared)

    return traced


def _delivery(spans: Spans, message: Method) -> Method:
    """One message to a subscriber. Of several events, the parent is what caused the first."""

    async def traced(self: DeliveryAttempt, batch: Sequence[Any], subscriber: Subscriber, **how: bool) -> None:
        delivery, event = batch[0]
        about = {"receiver.account": self.store.account, "receiver.subscriber": subscriber.name}
        about |= {"receiver.format": subscriber.format, "receiver.event_id": event.id}
        traceparent, count = delivery.fields.get("traceparent", ""), len(batch)
        with spans.span("delivery", "INTERNAL", traceparent, **about, **{"messaging.batch.message_count": count}):
            await message(self, batch, subscriber, **how)

    return traced


def _post(spans: Spans, post: Method) -> Method:
    """The exchange with the subscriber."""

    async def traced(self: DeliveryAttempt, batch: Sequence[Any], subscriber: Subscriber) -> Any:
        with spans.span("POST", "CLIENT", **{"http.request.method": "POST"}) as span:
            answer, seconds = await post(self, batch, subscriber)
            if not isinstance(answer, Response):
                spans.failed(span, answer.reason)
                return answer, seconds
            span.set_attribute("http.response.status_code", answer.status)
            if answer.status >= 300:
                spans.failed(span, str(answer.status))
            return answer, seconds

    return traced


def _command(spans: Spans, called: Method) -> Method:
    """A command or script of Redis, within another span only: workers look for work all the time."""
    names = {script(name).sha: name for name in texts() if name not in PARTS}

    async def traced(self: RedisRepository, group: Any, command: Command, *more: Script | None, **how: bool) -> Any:
        if not spans.is_recording():
            return await called(self, group, command, *more, **how)
        word = str(command[0])
        name = names.get(str(command[1])) if word == "EVALSHA" else None
        with _redis(spans, word, name):
            return await called(self, group, command, *more, **how)

    return traced


def _finish(spans: Spans, finish: Method) -> Method:
    """Trace the end of a delivery. Deliveries that end together share one call of the script; each gets a span for
    it."""

    async def traced(self: DeliveryQueues, *args: Any, **how: Any) -> bool:
        with _redis(spans, "EVALSHA", "finish_delivery") if spans.is_recording() else contextlib.nullcontext():
            held: bool = await finish(self, *args, **how)
            return held

    return traced


def _redis(spans: Spans, word: str, name: str | None) -> contextlib.AbstractContextManager[Any]:
    about = {"db.system.name": "redis", "db.operation.name": word}
    if name:
        about["db.stored_procedure.name"] = name
    return spans.span(f"redis {name or word}", "CLIENT", **about)


PARTS = ("helpers", "prelude")
"""Lua files that are parts of scripts."""
TRACED: Sequence[tuple[type, str, Callable[[Spans, Method], Method]]] = (
    (Receiver, "receive", _notification),
    (Tracker, "look", _question),
    (AmazonClient, "ask", _exchange),
    (RefundAttempts, "_try", _attempt),
    (DeliveryAttempt, "_message", _delivery),
    (DeliveryAttempt, "_post", _post),
    (RedisRepository, "_called", _command),
    (DeliveryQueues, "_finish", _finish),
)
"""The class, its method, and what makes a span of each call."""
