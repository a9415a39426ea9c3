"""HTTP. The control API for people and scripts, under `/simulator`: it does what sellers, buyers and failures would do.

| route | does |
|---|---|
| `GET /simulator` | where everything is: topic, merchant, certificate, key id, outcomes, tricks, forgeries |
| `POST /simulator/refunds` `{amount, currencyCode, outcome?, chargeId?}` | starts a refund as Seller Central does |
| `GET /simulator/refunds` | all refunds with their true state, their past and their future |
| `POST /simulator/refunds/{id}/notify` | posts the refund's last notification once more |
| `POST /simulator/charges` `{amount, currencyCode, state?, merchantReferenceId?, chargeId?}` | makes a charge |
| `GET /simulator/charges` | all charges |
| `POST /simulator/balance` `{state}` | `negative`: refunds that start are AmazonRejected · `repaid`: no longer |
| `POST /simulator/disputes` `{chargeId, amount?, currencyCode?, filingReason?, state?, answerWithin?}` | opens one |
| `POST /simulator/disputes/{id}` `{state, resolution?, answerWithin?}` | moves it; `answerWithin` is in seconds |
| `GET /simulator/disputes` | all disputes |
| `GET`, `POST`, `DELETE /simulator/mischief` | lists faults · adds one: `{trick, times?, place?, …}` · removes all |
| `POST /simulator/forge` `{kind, refundId?}` | posts a forged notification and returns the receiver's answer |
| `GET /simulator/certificate` | the signing certificate, PEM |
| `GET /simulator/log` | notifications posted and API calls answered, newest first; `?limit=` |

There is no password: anyone who can reach the address controls the simulator. It listens on loopback by default. Bodies
have to be `application/json`, so that a web page cannot post here unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from decimal import Decimal

from msgspec import ValidationError, convert, structs, to_builtins
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from receiver.simulator.amounts import Amount
from receiver.simulator.api import read, refusal
from receiver.simulator.bank import Refund
from receiver.simulator.disputes import Dispute
from receiver.simulator.engine import Engine
from receiver.simulator.faults import Fault, invalid_value
from receiver.simulator.notifications.fault_injection import Rule, Trick
from receiver.simulator.notifications.forgeries import Forgery
from receiver.simulator.outcomes import Outcome, read_outcome
from receiver.simulator.shapes import charge_json, dispute_json, need, only, read_object, refund_json

Handler = Callable[[Request], Awaitable[Response]]
MOST_LINES = 1000
MOVE_FIELDS = ("state", "answerWithin")
RULE_FIELDS = {each.encode_name for each in structs.fields(Rule)} - {"used", "met"}


class Control:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[BaseRoute]:
        table: tuple[tuple[str, str, Handler], ...] = (
            ("GET", "", self.index),
            ("GET", "/refunds", self.refunds),
            ("POST", "/refunds", self.start_refund),
            ("POST", "/refunds/{id}/notify", self.notify),
            ("GET", "/charges", self.charges),
            ("POST", "/charges", self.open_charge),
            ("POST", "/balance", self.set_balance),
            ("GET", "/disputes", self.disputes),
            ("POST", "/disputes", self.open_dispute),
            ("POST", "/disputes/{id}", self.move_dispute),
            ("GET", "/mischief", self.fault_injection),
            ("POST", "/mischief", self.add_fault),
            ("DELETE", "/mischief", self.clear_faults),
            ("POST", "/forge", self.forge),
            ("GET", "/certificate", self.certificate),
            ("GET", "/log", self.log),
        )
        return [Route(f"/simulator{path}", answering(handler), methods=[method]) for method, path, handler in table]

    async def index(self, _: Request) -> Response:
        engine = self._engine
        return JSONResponse(
            {
                "merchantId": engine.config.merchant_id,
                "region": engine.config.region,
                "environment": engine.config.environment,
                "publicKeyId": engine.config.public_key_id,
                "topicArn": engine.topic_arn,
                "signingCertUrl": engine.certificate_url,
                "postTo": engine.sender.url,
                "balance": engine.bank.balance,
                "outcomes": list(Outcome),
                "tricks": list(Trick),
                "forgeries": list(Forgery),
            }
        )

    async def refunds(self, _: Request) -> Response:
        self._engine.tick()
        return JSONResponse({"refunds": [self._truth(refund) for refund in self._engine.bank.refunds.values()]})

    async def start_refund(self, request: Request) -> Response:
        found = await read_fields(request, {"amount", "currencyCode", "outcome", "chargeId"})
        amount = Amount.read(need(found, "amount"), need(found, "currencyCode"), "refund")
        outcome = read_outcome(_text(found, "outcome")) if found.get("outcome") else None
        change = self._engine.start_refund(amount, outcome, _text(found, "chargeId") or None)
        return JSONResponse(self._truth(change.refund), 201)

    async def notify(self, request: Request) -> Response:
        refund = self._engine.bank.refund(request.path_params["id"])
        posted = await self._engine.announcer.repeat(refund.refund_id)
        if posted is None:
            raise Fault(409, "InvalidRequest", "No notification about this refund has been sent yet.")
        return JSONResponse(to_builtins(posted))

    async def charges(self, _: Request) -> Response:
        bank = self._engine.bank
        return JSONResponse({"charges": [charge_json(charge, bank) for charge in bank.charges.values()]})

    async def open_charge(self, request: Request) -> Response:
        found = await read_fields(request, {"amount", "currencyCode", "state", "merchantReferenceId", "chargeId"})
        charge = self._engine.open_charge(
            Amount.read(need(found, "amount"), need(found, "currencyCode"), "charge"),
            state=_text(found, "state") or "Captured",
            reference=_text(found, "merchantReferenceId"),
            charge_id=_text(found, "chargeId"),
        )
        return JSONResponse(charge_json(charge, self._engine.bank), 201)

    async def set_balance(self, request: Request) -> Response:
        state = _text(await read_fields(request, {"state"}), "state")
        try:
            self._engine.bank.set_balance(state)
        except ValueError as error:
            raise invalid_value("state", str(error)) from None
        return JSONResponse({"balance": state})

    async def disputes(self, _: Request) -> Response:
        return JSONResponse({"disputes": [self._dispute(each) for each in self._engine.disputes.known.values()]})

    async def open_dispute(self, request: Request) -> Response:
        found = await read_fields(request, {"chargeId", "amount", "currencyCode", "filingReason", *MOVE_FIELDS})
        dispute = self._engine.disputes.open(
            str(need(found, "chargeId")),
            Amount.read(found["amount"], need(found, "currencyCode"), "dispute") if "amount" in found else None,
            filing_reason=_text(found, "filingReason") or "Fraudulent",
            state=_text(found, "state") or "ActionRequired",
            **({"answer_within": _seconds(found, "answerWithin")} if "answerWithin" in found else {}),
        )
        return JSONResponse(self._dispute(dispute), 201)

    async def move_dispute(self, request: Request) -> Response:
        found = await read_fields(request, {"resolution", *MOVE_FIELDS})
        moved = self._engine.disputes.move(
            request.path_params["id"],
            str(need(found, "state")),
            _text(found, "resolution"),
            answer_within=_seconds(found, "answerWithin"),
        )
        return JSONResponse(self._dispute(moved))

    async def fault_injection(self, _: Request) -> Response:
        return JSONResponse({"rules": to_builtins(self._engine.fault_injection.rules)})

    async def add_fault(self, request: Request) -> Response:
        found = await read_fields(request, RULE_FIELDS)
        try:
            rule = convert(found, Rule)
        except ValidationError as error:
            raise invalid_value("mischief", str(error)) from None
        self._engine.fault_injection.rules.append(rule)
        return JSONResponse(to_builtins(rule), 201)

    async def clear_faults(self, _: Request) -> Response:
        self._engine.fault_injection.clear()
        return Response(status_code=204)

    async def forge(self, request: Request) -> Response:
        found = await read_fields(request, {"kind", "refundId"})
        try:
            kind = Forgery(_text(found, "kind"))
        except ValueError:
            raise invalid_value("kind", f"it is not one of {', '.join(Forgery)}") from None
        return JSONResponse(to_builtins(await self._engine.forge(kind, _text(found, "refundId") or None)))

    async def certificate(self, _: Request) -> Response:
        return PlainTextResponse(self._engine.keys.signing.pem, media_type="application/x-pem-file")

    async def log(self, request: Request) -> Response:
        limit = request.query_params.get("limit", "100")
        if not limit.isdecimal():
            raise invalid_value("limit", "it is not a number")
        lines = min(int(limit), MOST_LINES)
        engine = self._engine
        posted, calls = list(engine.sender.posted)[::-1][:lines], list(engine.calls)[::-1][:lines]
        return JSONResponse({"posted": to_builtins(posted), "calls": to_builtins(calls)})

    def _dispute(self, dispute: Dispute) -> dict[str, object]:
        return dispute_json(dispute, self._engine.config.environment)

    def _truth(self, refund: Refund) -> dict[str, object]:
        return refund_json(refund, self._engine.config.environment) | {
            "outcome": refund.outcome,
            "startedBy": "api" if refund.by_api else "control",
            "past": to_builtins(refund.history),
            "ahead": [{"at": at, "state": step.state, "reason": step.reason} for at, step in refund.scheduled],
        }


def answering(handler: Handler) -> Handler:
    """The handler; a `Fault` is answered as Amazon's API would."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Fault as fault:
            return refusal(fault)

    return answer


async def read_fields(request: Request, known: set[str]) -> dict[str, object]:
    """The JSON object in the body, without members other than `known`. Raises `Fault`."""
    # Required, so that a web page cannot post here unnoticed.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Fault(415, "InvalidHeaderValue", "The content type has to be application/json.")
    found = read_object((await read(request)).body)
    only(found, known)
    return found


def _text(found: dict[str, object], name: str) -> str:
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid_value(name, f"it is not a text, but {json.dumps(value, default=str)[:40]}")
    return value or ""


def _seconds(found: dict[str, object], name: str) -> float | None:
    value = found.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or abs(float(value)) > 1e9:
        raise invalid_value(name, "it is not a number of seconds")
    return float(value)
