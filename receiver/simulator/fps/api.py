"""HTTP. Flexible Payments, which Amazon retired on 1 June 2015, at `/fps/`: its Refund call, and the control API for
it.

| route | does |
|---|---|
| `GET /fps/?Action=Refund&…` | the API; use its address as the endpoint |
| `GET /simulator/fps` | the access key, where notifications go, transactions, refunds, and what was posted |
| `POST /simulator/fps/transactions` `{amount, currencyCode, state?, transactionId?}` | makes a transaction in USD |
| `PUT /simulator/fps/post-to` `{url}` | posts status notifications there from now on; null: nowhere |

There are three initial transactions; the third is Reserved, and so cannot be refunded. The cents of the amount choose
the outcome of a refund, as everywhere here (`outcomes.py`). A refusal explains exactly what was wrong in the header
`x-amz-pay-simulator-reason`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from xml.etree.ElementTree import Element, SubElement, tostring

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from receiver.simulator.amounts import Amount
from receiver.simulator.api import REASON_HEADER, corrupt, header_rule, read, refuse_by
from receiver.simulator.control import answering, read_fields
from receiver.simulator.engine import CallRecord, Engine
from receiver.simulator.faults import Fault, invalid_value
from receiver.simulator.fps.book import FpsOrder, FpsRefund, Transaction
from receiver.simulator.fps.checks import ACCESS_KEY_ID, SECRET_ACCESS_KEY, check
from receiver.simulator.notifications.fault_injection import Rule, Trick
from receiver.simulator.shapes import need

VERSIONS = {
    "2008-05-01": ("RefundTransactionReference", "TransactionDescription"),
    "2008-09-17": ("CallerReference", "CallerDescription"),
    "2010-08-28": ("CallerReference", "CallerDescription"),
}
"""The names of a refund's reference and description in each version."""

COMMON = {"Action", "AWSAccessKeyId", "SignatureMethod", "SignatureVersion", "Timestamp", "Version"}
POLICIES = ("MasterTxnOnly", "MarketplaceTxnOnly", "MasterAndMarketplaceTxn")
REFUND_FIELDS = {"TransactionId", "RefundAmount.CurrencyCode", "RefundAmount.Value", "MarketplaceRefundPolicy"}
MOST_REFERENCE, MOST_DESCRIPTION = 128, 160
MOST_POSTED = 100

Handler = Callable[[Request], Awaitable[Response]]


class Fps:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[BaseRoute]:
        """The API, with and without a trailing slash, and the control API."""
        table: tuple[tuple[str, str, Handler], ...] = (
            ("GET", "/fps", self.call),
            ("GET", "/fps/", self.call),
            ("GET", "/simulator/fps", self.index),
            ("POST", "/simulator/fps/transactions", answering(self.open)),
            ("PUT", "/simulator/fps/post-to", answering(self.post_to)),
        )
        return [Route(path, handler, methods=[method]) for method, path, handler in table]

    async def call(self, request: Request) -> Response:
        """A call of the API, answered in XML."""
        engine = self._engine
        request_id, reference, reason = f"{engine.ids.uuid()}:0", "", ""
        rule: Rule | None = None
        at = engine.now()
        try:
            asked = await read(request)
            engine.tick()
            clock = engine.fault_injection.clock("fps_refund")
            at = engine.now() + (int(clock.seconds * 1000) if clock else 0)
            values = check(asked, {ACCESS_KEY_ID: SECRET_ACCESS_KEY}, at, engine.config.skew, strict=clock is not None)
            order = read_refund(values)
            reference = order.reference
            rule = header_rule(asked) or engine.fault_injection.take("fps_refund", reference)
            refuse_by(rule)
            response = await self._refunded(rule, order, values["Version"], request_id, request)
        except Fault as fault:
            reason = fault.word
            body, media_type = (fault.page, "text/html") if fault.page else (errors_xml(fault, request_id), "text/xml")
            response = Response(body, fault.status, {REASON_HEADER: reason}, media_type)
        response.headers["date"] = formatdate(at // 1000, usegmt=True)
        trick = str(rule.trick) if rule is not None else ""
        engine.calls.append(CallRecord(engine.now(), "fps_refund", reference, response.status_code, reason, trick))
        return response

    async def _refunded(
        self, rule: Rule | None, order: FpsOrder, version: str, request_id: str, request: Request
    ) -> Response:
        body = refund_xml(self._engine.refund_fps(order), version, request_id)
        if rule is not None and rule.trick is Trick.WRONG_REFUND:
            body = body.replace(order.reference.encode(), b"another-reference")
        return await corrupt(self._engine, rule, Response(body, 200, media_type="text/xml"), request)

    async def index(self, _: Request) -> Response:
        engine = self._engine
        engine.tick()
        return JSONResponse(
            {
                "accessKeyId": ACCESS_KEY_ID,
                "secretAccessKey": SECRET_ACCESS_KEY,
                "postTo": engine.fps_sender.url,
                "transactions": [_transaction(each) for each in engine.fps_book.transactions.values()],
                "refunds": [_refund(each) for each in engine.fps_book.refunds],
                "posted": [
                    {"reference": each.about, "status": each.state, "verdict": each.verdict, "answered": each.status}
                    for each in list(engine.fps_sender.posted)[: -MOST_POSTED - 1 : -1]
                ],
            }
        )

    async def open(self, request: Request) -> Response:
        found = await read_fields(request, {"amount", "currencyCode", "state", "transactionId"})
        amount = Amount.read(need(found, "amount"), need(found, "currencyCode"), "transaction")
        state, transaction_id = found.get("state") or "Success", found.get("transactionId") or ""
        if not isinstance(state, str) or not isinstance(transaction_id, str):
            raise invalid_value("transaction", "state and transactionId are texts")
        return JSONResponse(_transaction(self._engine.fps_book.open(amount, state, transaction_id)), 201)

    async def post_to(self, request: Request) -> Response:
        url = (await read_fields(request, {"url"})).get("url")
        if url is not None and not isinstance(url, str):
            raise invalid_value("url", "it is not a text")
        self._engine.fps_sender.url = url or None
        return Response(status_code=204)


def read_refund(values: Mapping[str, str]) -> FpsOrder:
    """The values of a Refund call; raises `Fault` 400 for missing, unknown or malformed parameters."""
    if values.get("Action") != "Refund":
        raise Fault(400, "InvalidAction", "The only action here is Refund.")
    names = VERSIONS.get(values.get("Version", ""))
    if names is None:
        raise Fault(400, "NoSuchVersion", f"The versions are {', '.join(VERSIONS)}.")
    for name in values:
        if name not in COMMON | REFUND_FIELDS | {*names}:
            raise Fault(400, "InvalidParams", f"Version {values['Version']} has no parameter {name[:64]!r}.")
    for name in ("TransactionId", names[0]):
        if not values.get(name):
            raise Fault(400, "MissingParameter", f"The request must contain the parameter {name}.", name)
    order = FpsOrder(
        values["TransactionId"],
        values[names[0]],
        _amount(values),
        values.get(names[1], ""),
        values.get("MarketplaceRefundPolicy", POLICIES[0]),
    )
    if len(order.reference.encode()) > MOST_REFERENCE or len(order.description) > MOST_DESCRIPTION:
        raise Fault(400, "InvalidParams", "The reference or the description is too long.")
    if not order.reference.isprintable():
        raise Fault(400, "InvalidParams", "The reference is not printable.")
    if order.policy not in POLICIES:
        raise Fault(400, "InvalidParams", f"MarketplaceRefundPolicy is one of {', '.join(POLICIES)}.")
    return order


def refund_xml(refund: FpsRefund, version: str, request_id: str) -> bytes:
    """RefundResponse. It contains RefundTransactionReference only if the request did."""
    root = Element("RefundResponse", xmlns=f"http://fps.amazonaws.com/doc/{version}/")
    result = SubElement(root, "RefundResult")
    SubElement(result, "TransactionId").text = refund.order.transaction_id
    SubElement(result, "TransactionStatus").text = refund.status
    name = VERSIONS[version][0]
    if name == "RefundTransactionReference":
        SubElement(result, name).text = refund.order.reference
    SubElement(SubElement(root, "ResponseMetadata"), "RequestId").text = request_id
    return bytes(tostring(root, "utf-8", xml_declaration=True))


def errors_xml(fault: Fault, request_id: str) -> bytes:
    """The list of errors, with one error."""
    root = Element("Response")
    error = SubElement(SubElement(root, "Errors"), "Error")
    SubElement(error, "Code").text = fault.reason_code
    SubElement(error, "Message").text = fault.message
    SubElement(root, "RequestID").text = request_id
    return bytes(tostring(root, "utf-8", xml_declaration=True))


def _amount(values: Mapping[str, str]) -> Amount | None:
    value, currency = values.get("RefundAmount.Value"), values.get("RefundAmount.CurrencyCode")
    if value is None and currency is None:
        return None
    if currency != "USD":
        raise Fault(400, "InvalidParams", "RefundAmount.CurrencyCode is USD.")
    return Amount.read(value, currency, "RefundAmount")


def _transaction(each: Transaction) -> dict[str, object]:
    return {
        "transactionId": each.transaction_id,
        **each.amount.json(),
        "state": each.state,
        "refundable": Amount(each.left, each.amount.currency).text,
    }


def _refund(each: FpsRefund) -> dict[str, object]:
    return {
        "reference": each.order.reference,
        "transactionId": each.order.transaction_id,
        **each.amount.json(),
        "status": each.status,
    }
