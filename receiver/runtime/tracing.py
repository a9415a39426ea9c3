"""Edge: OpenTelemetry. Spans, exported by OTLP over HTTP. Needs the extra `otel`; nothing of it is imported before use.

The SDK reads the usual variables itself: OTEL_EXPORTER_OTLP_…, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
OTEL_TRACES_SAMPLER, OTEL_BSP_… ("Environment Variable Specification" and "OTLP Exporter Configuration" of
OpenTelemetry). Spans are sent by a thread, at most 2,048 wait for it, and those beyond are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from receiver.errors import ReceiverError
from receiver.exchange import passed_on
from receiver.runtime.version import PACKAGE, package_version

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OURS: Final = "http/protobuf"
LAST_EXPORT: Final = 2.0
"""Seconds in which the last spans are sent at the end."""


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment names an endpoint, and does not turn tracing off."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER", "") == "none"
    return not off and any(environ.get(name) for name in ENDPOINTS)


def other_protocol(environ: Mapping[str, str]) -> str:
    """The protocol that the environment asks for, if it is another than the one spoken here; otherwise empty."""
    found = next((environ[name] for name in PROTOCOLS if environ.get(name)), OURS)
    return "" if found == OURS else found


class Spans:
    """Makes spans and exports them. Raises `ImportError` if the extra is not installed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        is_named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        named = {} if is_named else {"service.name": PACKAGE}
        resource = Resource.create({"service.version": package_version(), **named})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(PACKAGE, package_version())
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)  # not every repeated attempt
        self._trace, self._context = trace, TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def span(self, name: str, kind: str, traceparent: str = "", **attributes: str | int) -> Iterator[Any]:
        """A span, current within the block: a child of `traceparent` if that is valid, otherwise of the current span.

        `kind` is a name of `SpanKind`. An error ends it with the error's reason; its text may hold outside data.
        """
        parent = self._context.extract({"traceparent": traceparent}) if passed_on(traceparent) else None
        with self._tracer.start_as_current_span(
            name,
            parent,
            self._trace.SpanKind[kind],
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as error:
                reason = error.reason if isinstance(error, ReceiverError) else ""
                self.failed(span, reason or type(error).__name__)
                raise

    def failed(self, span: Any, reason: str) -> None:
        """The span's work failed."""
        span.set_attribute("error.type", reason)
        span.set_status(self._trace.StatusCode.ERROR)

    def is_recording(self) -> bool:
        """Whether there is a current span that is exported."""
        return bool(self._trace.get_current_span().is_recording())

    def has_current(self) -> bool:
        """Whether there is a current span."""
        return bool(self._trace.get_current_span().get_span_context().is_valid)

    def traceparent(self) -> str:
        """The `traceparent` (W3C Trace Context) of the current span."""
        carrier: dict[str, str] = {}
        self._context.inject(carrier)
        return carrier.get("traceparent", "")

    async def stop(self) -> None:
        """Send the last spans, within `LAST_EXPORT` seconds. A thread that hangs does not delay the process's end."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="spans", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), LAST_EXPORT)
