"""HTTP. Liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType

import structlog
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import ReceiverError
from receiver.http.api.operations import Answer, Operation
from receiver.http.api.params import TEXT
from receiver.http.api.schema import AliveJson, ReadinessJson
from receiver.http.respond import json_answer
from receiver.runtime.metrics import CONTENT_TYPE, Metrics
from receiver.store.redis.damage import KeysDamaged

log = structlog.get_logger()

Check = Callable[[], Awaitable[object]]
"""Raises if something is wrong; the reason of a `ReceiverError` says what."""
CHECK_TIMEOUT = 2.0
FRESH_TIMEOUT = 2.0
MOST_DAMAGED = 20
"""How many damaged keys readiness names."""
probe_operation = partial(
    Operation, "GET", tag="operation", about="Needs no token: expose it only inside your network."
)
_NOTHING: Mapping[str, Check] = MappingProxyType({})


class HealthApi:
    """`checks` by name; `refresh` sets the gauges from the store, and may raise.

    Readiness shows `advisory_checks` and `alerting` but does not depend on them: another process would have the same
    problems. `alerting` gives a word for each kind of problem with subscribers.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        metrics: Metrics,
        refresh: Check,
        advisory_checks: Mapping[str, Check] = _NOTHING,
        alerting: Callable[[], Awaitable[Mapping[str, str]]] | None = None,
    ) -> None:
        self._checks, self._metrics, self._refresh, self._advisory_checks = checks, metrics, refresh, advisory_checks
        self._alerting = alerting

    @probe_operation(
        "/healthz",
        id="isAlive",
        summary="Liveness: whether the process responds",
        answers=(Answer(200, AliveJson),),
    )
    async def alive(self, _: Request) -> Response:
        """200 as long as the process responds at all. Checks nothing else."""
        return json_answer(AliveJson(status="alive"))

    @probe_operation(
        "/readyz",
        id="isReady",
        summary="Readiness: whether the service can work, and what is wrong",
        answers=(Answer(200, ReadinessJson), Answer(503, ReadinessJson, "The service cannot work.")),
    )
    async def ready(self, _: Request) -> Response:
        """200, or 503 with one word per problem."""
        asked = {**self._checks, **self._advisory_checks}
        alerting, words = await asyncio.gather(
            self._alerting_words(), asyncio.gather(*(self._word(name, check) for name, check in asked.items()))
        )
        found = {**{name: word for name, (word, _) in zip(asked, words, strict=True)}, **alerting}
        ready = all(found[name] == "ok" for name in self._checks)
        damaged = [pair for _, keys in words for pair in keys.items()]
        body = ReadinessJson(
            status="ready" if ready else "not_ready",
            checks=found,
            damaged_keys=dict(damaged[:MOST_DAMAGED]) or UNSET,
        )
        return json_answer(body, 200 if ready else 503)

    @probe_operation(
        "/metrics",
        id="getMetrics",
        summary="Counters and gauges for Prometheus",
        answers=(Answer(200, {CONTENT_TYPE: TEXT}),),
    )
    async def metrics(self, _: Request) -> Response:
        """The Prometheus text format. Without Redis it still has the counters, but not the store's gauges."""
        try:
            async with asyncio.timeout(FRESH_TIMEOUT):
                await self._refresh()
        except (ReceiverError, TimeoutError) as error:
            self._metrics.gauges({})
            log.warning("metrics.gauges_missing", reason=getattr(error, "reason", "timeout"))
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)

    async def _alerting_words(self) -> Mapping[str, str]:
        """Empty if the store does not respond: the store's own check reports that."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                return await self._alerting() if self._alerting else {}
        except (ReceiverError, TimeoutError):
            return {}

    async def _word(self, name: str, check: Check) -> tuple[str, Mapping[str, str]]:
        """The check's result as a word, and the store's keys that it names."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await check()
        except ReceiverError as error:
            return error.reason, error.keys if isinstance(error, KeysDamaged) else {}
        except TimeoutError:
            return "timeout", {}
        except Exception:
            log.exception("health.check_failed", check=name)
            return "failed", {}
        return "ok", {}
