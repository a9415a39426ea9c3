"""HTTP. The API that merchants call: refunds, charges, disputes and reports, as Amazon answers them.

Every call is checked in this order: signature, environment, fault injection, throttle, the call itself. A refusal
explains exactly what was wrong in the header `x-amz-pay-simulator-reason`, which Amazon itself does not send.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from receiver.simulator.checks import IDEMPOTENCY_KEY, NEVER_SIGNED, Asked
from receiver.simulator.engine import CallRecord, Engine, check_environment
from receiver.simulator.faults import Fault
from receiver.simulator.notifications.fault_injection import Rule, Trick, read_header
from receiver.simulator.odd_fields import corrupted
from receiver.simulator.outcomes import read_outcome
from receiver.simulator.refusals import refusal_of
from receiver.simulator.shapes import charge_json, dispute_json, read_create_refund, read_key, refund_json

MOST_BODY = 65_536
FAULT_INJECTION_HEADER = "x-amz-pay-simulator-mischief"
REASON_HEADER = "x-amz-pay-simulator-reason"
log = structlog.get_logger("receiver.simulator")


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON object."""

    status: int
    body: dict[str, object]


Work = Callable[[Asked, str], Answer]
"""Does one call, whose path names an object. Raises `Fault`."""


class Api:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[BaseRoute]:
        """Refunds, charges and disputes. Create Refund answers 201, the others 200."""
        return [
            *self.route("POST", "/refunds", "create_refund", self._create),
            *self.route("GET", "/refunds/{id}", "get_refund", self._refund),
            *self.route("GET", "/charges/{id}", "get_charge", self._charge),
            *self.route("GET", "/disputes/{id}", "get_dispute", self._dispute),
        ]

    def route(self, method: str, path: str, call: str, work: Work) -> list[BaseRoute]:
        """A call with and without the environment in the path, and with a trailing slash (the .NET SDK sends one)."""

        async def handler(request: Request) -> Response:
            return await self._answer(call, request, work)

        return [
            Route(f"{base}{path}{slash}", handler, methods=[method])
            for base in ("/v2", "/{environment:str}/v2")
            for slash in ("", "/")
        ]

    def _create(self, asked: Asked, _: str) -> Answer:
        engine = self._engine
        key, order = read_key(asked.header(IDEMPOTENCY_KEY)), read_create_refund(asked.body)
        stored = engine.bank.repeated(key, order)
        if stored is not None:
            return Answer(201, stored)
        code = asked.header(NEVER_SIGNED)
        outcome = read_outcome(code) if code else None
        change = engine.start_refund(
            order.amount, outcome, order.charge_id, by_api=True, soft_descriptor=order.soft_descriptor
        )
        answer = refund_json(change.refund, engine.config.environment)
        engine.bank.remember(key, order, answer)
        return Answer(201, answer)

    def _refund(self, _: Asked, object_id: str) -> Answer:
        return Answer(200, refund_json(self._engine.bank.refund(object_id), self._engine.config.environment))

    def _charge(self, _: Asked, object_id: str) -> Answer:
        bank = self._engine.bank
        return Answer(200, charge_json(bank.charge(object_id), bank))

    def _dispute(self, _: Asked, object_id: str) -> Answer:
        return Answer(200, dispute_json(self._engine.disputes.get(object_id), self._engine.config.environment))

    async def _answer(self, call: str, request: Request, work: Work) -> Response:
        engine, object_id = self._engine, request.path_params.get("id", "")
        rule: Rule | None = None
        reason, at = "", engine.now()
        try:
            asked = await read(request)
            engine.tick()
            clock = engine.fault_injection.clock(call, object_id)
            at = engine.now() + (int(clock.seconds * 1000) if clock else 0)
            engine.checks.check(asked, at, strict=clock is not None)
            check_environment(engine, request.path_params.get("environment", ""), object_id)
            rule = header_rule(asked) or engine.fault_injection.take(call, object_id)
            refuse_by(rule)
            if not engine.throttle.admits(call, engine.now()):
                raise Fault(429, "TooManyRequests", "Too many requests.", "throttled")
            answer = work(asked, object_id)
            response = await self._corrupt(rule, answer, request)
        except Fault as fault:
            response, reason = refusal(fault), fault.word
            if rule is not None and rule.trick is Trick.THROTTLE and rule.seconds:
                response.headers["retry-after"] = f"{rule.seconds:.0f}"
        response.headers["date"] = formatdate(at // 1000, usegmt=True)
        if response.media_type != "text/html":
            response.headers["x-amz-pay-request-id"] = engine.ids.uuid()
        trick = str(rule.trick) if rule is not None else ""
        engine.calls.append(CallRecord(engine.now(), call, object_id, response.status_code, reason, trick))
        log.debug("simulator.called", call=call, object_id=object_id, status=response.status_code, reason=reason)
        return response

    async def _corrupt(self, rule: Rule | None, answer: Answer, request: Request) -> Response:
        body = answer.body
        name = next((each for each in ("refundId", "disputeId") if each in body), "")
        if rule is not None and rule.trick is Trick.WRONG_REFUND and name:
            body = {**body, name: f"{str(body[name])[:-6]}999999"}
        if rule is not None and rule.trick is Trick.ODD_FIELD:
            body = corrupted(body, rule.kind)
        response = Response(json.dumps(body).encode(), answer.status, media_type="application/json")
        return await corrupt(self._engine, rule, response, request)


async def corrupt(engine: Engine, rule: Rule | None, response: Response, request: Request) -> Response:
    """Apply the rule to the answer of a completed call. Raises `Fault` 500 for a lost answer."""
    trick = rule.trick if rule is not None else None
    if trick is Trick.LOST_ANSWER:
        raise Fault(500, "InternalServerError", "The server could not answer.", "mischief")
    if trick is Trick.GARBAGE:
        return Response(b'\x1f\x8b<html>{"refundId":', 200, media_type=response.media_type)
    if rule is not None and trick is Trick.HANG:
        await _hang(engine, request, rule.seconds)
    if trick is Trick.HALF:
        return Half(response.body, response.status_code, media_type=response.media_type)
    return response


async def _hang(engine: Engine, request: Request, seconds: float) -> None:
    """Wait until the time is over (0: for ever), the client disconnects, or the simulator stops."""
    waits = {
        asyncio.ensure_future(engine.stopping.wait()),
        asyncio.ensure_future(_gone(request)),
    }
    _, pending = await asyncio.wait(waits, timeout=seconds or None, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


class Half(Response):
    """Announces the whole body but sends half of it, after which the server cuts the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})


def refusal(fault: Fault) -> Response:
    """Amazon's error body with the simulator's specific reason in a header; or an intermediary's page."""
    headers = {REASON_HEADER: fault.word}
    if fault.page:
        return Response(fault.page, fault.status, headers, "text/html")
    return Response(json.dumps(fault.body()).encode(), fault.status, headers, "application/json")


async def read(request: Request) -> Asked:
    """The request as it was received; raises `Fault` 413 for a body larger than any call needs."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BODY:
                raise Fault(413, "InvalidRequest", "The body is too large.", "too_large")
    except ClientDisconnect:
        raise Fault(400, "InvalidRequest", "The body is not complete.", "incomplete") from None
    return Asked(
        method=request.method,
        path=request.scope["raw_path"].decode("latin-1").partition("?")[0],
        query=request.scope["query_string"].decode("latin-1"),
        headers=[(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.headers.raw],
        body=bytes(body),
    )


async def on_http_exception(_: Request, error: Exception) -> Response:
    """Unknown route or method, answered in Amazon's format."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "ResourceNotFound", 405: "UnsupportedOperation"}.get(status, "InvalidRequest")
    return refusal(Fault(status, code, "There is no such operation here.", "no_route"))


def header_rule(asked: Asked) -> Rule | None:
    """The fault that the request asks for in its header; raises `Fault` 400 for an unknown one."""
    try:
        return read_header(asked.header(FAULT_INJECTION_HEADER))
    except ValueError as error:
        raise Fault(
            400, "InvalidSandboxSimulationSpecified", f"{FAULT_INJECTION_HEADER}: {error}", "mischief"
        ) from None


def refuse_by(rule: Rule | None) -> None:
    """Raise `Fault` if the rule prevents the call."""
    if rule is not None and rule.trick is Trick.THROTTLE:
        raise Fault(429, "TooManyRequests", "Too many requests.", "mischief")
    if rule is not None and rule.trick is Trick.ERROR:
        raise Fault(500, "InternalServerError", "Something went wrong.", "mischief")
    if rule is not None and rule.trick is Trick.REFUSE:
        raise refusal_of(rule.kind)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
