"""Issuing over HTTP: what a caller sends, and what comes back, with the service, its workers and Amazon on sockets."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from receiver.outbox.events.event import from_fields
from tests.http.kit import ADMIN, READER
from tests.issue.counter import CHARGE, Counter, shop, told
from tests.issue.kit import waiting
from tests.kit.accounts import merchant_key_pem
from tests.kit.processes import until
from tests.service.desk import Answer, Cut, Desk, Held, http, over_bounds, refund
from tests.service.stage import Amazon

Shop = tuple[Counter, Amazon]
Told = tuple[Counter, Desk]


@pytest.fixture
async def open_shop(redis: Any, valkey_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with shop(valkey_url, tmp_path) as found:
        yield found


@pytest.fixture
async def open_desk(redis: Any, valkey_url: str) -> AsyncIterator[Told]:
    async with told(valkey_url) as found:
        yield found


def created(amazon: Amazon) -> list[int]:
    """The statuses of all calls of Create Refund."""
    return [each.status for each in amazon.calls if each.call == "create_refund"]


async def test_a_refund_is_created_once_for_a_key(open_shop: Shop) -> None:
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD", reference="order-7")
    wish = {"chargeId": charge, "refundAmount": {"amount": "14.00", "currencyCode": "USD"}, "softDescriptor": "x" * 16}
    status, body, headers = await counter.call("POST", "/v1/refunds", wish, key="refund-1")
    assert status == 201
    (refund_id,) = amazon.refunds
    assert (body["refundId"], body["orderReference"], body["source"]) == (refund_id, "order-7", "create")
    assert headers["Location"] == f"/v1/refunds/{refund_id}?account=us"
    assert "Idempotent-Replayed" not in headers
    again, same, headers = await counter.call("POST", "/v1/refunds", wish, key="refund-1")
    assert (again, same["refundId"], headers["Idempotent-Replayed"]) == (201, refund_id, "true")
    status, problem, headers = await counter.call(
        "POST", "/v1/refunds", {**wish, "softDescriptor": "y"}, key="refund-1"
    )
    assert (status, problem["reason"]) == (409, "idempotency_key_reused")
    assert headers["Content-Type"] == "application/problem+json"
    assert created(amazon) == [201]


@pytest.mark.parametrize("number", ["order-7", "Auftrag #47/11", "注文 7", "a?b&c=d:e*{f}"])
async def test_a_refund_is_found_by_its_order_number_whatever_that_looks_like(open_shop: Shop, number: str) -> None:
    """Amazon gives no form for `merchantReferenceId`: shops put into it what they like."""
    counter, amazon = open_shop
    _, first = await counter.create(amazon.open_charge("100.00", "USD", reference=number))
    _, second = await counter.create(amazon.open_charge("100.00", "USD"), key="k2", orderReference=f" {number} ")
    assert (first["orderReference"], second["orderReference"]) == (number, f" {number} ")
    for asked in (number, f"  {number.replace(' ', '  ')} "):
        status, listed, _ = await counter.call("GET", f"/v1/refunds?order={quote(asked)}", token=READER)
        assert status == 200, listed
        assert {each["refundId"] for each in listed["refunds"]} == {first["refundId"], second["refundId"]}
    for asked in ("%00", "%20", "x" * 501, "a%0Ab"):
        status, problem, _ = await counter.call("GET", f"/v1/refunds?order={asked}", token=READER)
        assert (status, problem["reason"]) == (400, "bad_parameter")


async def test_a_refund_that_amazon_does_not_answer_is_202_and_then_201(open_shop: Shop) -> None:
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD", reference="order-7")
    amazon.fault_injection.add("lost_answer", place="create_refund")
    status, pending = await counter.create(charge)
    assert (status, pending["status"], pending["orderReference"]) == (202, "pending", "order-7")
    waiting = await counter.request(pending["refundRequestId"])
    assert (waiting["state"], waiting["tries"], waiting["mayHaveReachedAmazon"]) == ("reserved", 1, True)
    _, listed, _ = await counter.call("GET", "/v1/refund-requests?state=reserved")
    assert ([each["refundRequestId"] for each in listed["requests"]], listed["total"]) == (
        [pending["refundRequestId"]],
        1,
    )
    await counter.due(pending["refundRequestId"])

    async def issued() -> bool:
        return (await counter.create(charge))[0] == 201

    await until(issued, "a worker goes on")
    assert len(amazon.refunds) == 1
    assert (await counter.request(pending["refundRequestId"]))["refundId"] in amazon.refunds


USD = {"amount": "14.00", "currencyCode": "USD"}
BAD: dict[str, tuple[dict[str, Any], str | None, int, str]] = {
    "wrong currency": ({"refundAmount": {**USD, "currencyCode": "EUR"}}, "k", 400, "currency_mismatch"),
    "zero": ({"refundAmount": {**USD, "amount": "0.00"}}, "k", 400, "bad_amount"),
    "negative": ({"refundAmount": {**USD, "amount": "-1.00"}}, "k", 400, "bad_amount"),
    "negative number": ({"refundAmount": {**USD, "amount": -1}}, "k", 400, "bad_amount"),
    "too many decimals": ({"refundAmount": {**USD, "amount": "14.001"}}, "k", 400, "bad_amount"),
    "decimals in JPY": ({"refundAmount": {"amount": "14.5", "currencyCode": "JPY"}}, "k", 400, "bad_amount"),
    "not a number": ({"refundAmount": {**USD, "amount": "1e3"}}, "k", 400, "bad_amount"),
    "no currency": ({"refundAmount": {"amount": "14.00"}}, "k", 400, "bad_amount"),
    "bad currency": ({"refundAmount": {**USD, "currencyCode": "U$D"}}, "k", 400, "bad_currency"),
    "too much at all": ({"refundAmount": {**USD, "amount": "150000.01"}}, "k", 400, "bad_amount"),
    "over the allowance": ({"refundAmount": {**USD, "amount": "115.01"}}, "k", 409, "allowance_exceeded"),
    "unknown charge": ({"chargeId": "S01-0000000-0000000-C000000"}, "k", 422, "amazon_not_found"),
    "no charge": ({"chargeId": "../x"}, "k", 400, "bad_charge_id"),
    "no key": ({}, None, 400, "idempotency_key_needed"),
    "empty key": ({}, "", 400, "bad_idempotency_key"),
    "overlong key": ({}, "k" * 256, 400, "bad_idempotency_key"),
    "long descriptor": ({"softDescriptor": "x" * 17}, "k", 400, "bad_soft_descriptor"),
    "long reference": ({"orderReference": "x" * 257}, "k", 400, "bad_order_reference"),
    "misspelt field": ({"softdescriptor": "x"}, "k", 400, "unknown_field"),
    "unknown account": ({"account": "eu"}, "k", 404, "no_such_account"),
}


async def test_bad_input_is_told_with_its_reason_and_nothing_is_issued(open_shop: Shop) -> None:
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    for name, (fields, key, status, reason) in BAD.items():
        wish = {"chargeId": charge, "refundAmount": USD, **fields}
        got, problem, headers = await counter.call("POST", "/v1/refunds", wish, key=key)
        assert (got, problem["reason"]) == (status, reason), name
        assert headers["Content-Type"] == "application/problem+json"
        assert problem["detail"]
        if name == "unknown charge":
            assert problem["amazon"]["status"] == 404
            assert problem["amazon"]["reasonCode"] == "ResourceNotFound"
            assert problem["amazon"]["requestId"]
    for state in ("Authorized", "Canceled"):
        got, problem = await counter.create(amazon.open_charge("100.00", "USD", state=state))
        assert (got, problem["reason"]) == (409, "charge_not_captured")
    got, problem, _ = await counter.call("POST", "/v1/refunds", "not JSON", key="k")
    assert (got, problem["reason"]) == (400, "not_json")
    twice = f'{{"chargeId": "{charge}", "refundAmount": {{"amount": "1.00", "amount": "9.00", "currencyCode": "USD"}}}}'
    got, problem, _ = await counter.call("POST", "/v1/refunds", twice, key="k")
    assert (got, problem["reason"]) == (400, "duplicate_key")
    assert created(amazon) == []
    assert not await counter.reserved(charge)
    assert (await counter.call("GET", "/v1/refund-requests"))[1] == {"requests": [], "total": 0, "unreadable": []}


REFUSALS = {
    "InvalidChargeStatus": 422,
    "TransactionAmountExceeded": 422,
    "TransactionCountExceeded": 422,
    "CurrencyMismatch": 400,
    "DuplicateIdempotencyKey": 400,
    "InvalidChargePermissionStatus": 409,
    "ResourceNotFound": 404,
}


def no(status: int, code: str, message: str = "Amazon's own words.") -> bytes:
    body = {"reasonCode": code, "message": message}
    return http(status, json.dumps(body).encode(), "x-amz-pay-request-id: 1b5c1f3e-request")


async def test_amazons_refusals_reach_the_caller_whole_and_free_the_amount(open_desk: Told) -> None:
    counter, desk = open_desk
    for code, amazon_status in REFUSALS.items():
        desk.answers = [no(amazon_status, code)]
        for _ in range(2):
            status, problem = await counter.create(CHARGE, key=code)
            assert (status, problem["reason"]) == (422, "amazon_refused"), code
            assert problem["amazon"] == {
                "status": amazon_status,
                "reasonCode": code,
                "requestId": "1b5c1f3e-request",
            }
            assert "Amazon's own words." in problem["detail"]
        assert desk.answers == [], "the second answer is from memory"
        assert not await counter.reserved(CHARGE)


OF_OUR_REQUEST: dict[str, bytes] = {
    "date": no(400, "InvalidHeaderValue", "The value provided for x-amz-pay-date should not be in future"),
    "header": no(400, "MissingHeader"),
    "signature": no(401, "InvalidRequestSignature"),
    "key": no(400, "InvalidAuthentication"),
    "account on hold": no(403, "InvalidAccountStatus"),
    "field": no(400, "UnrecognizedField"),
    "value": no(400, "InvalidParameterValue"),
    "conflict": no(409, "RequestNotSupported"),
    "unprocessable": no(422, "SomethingNew"),
    "proxy": http(407, b"<html>Proxy Authentication Required</html>"),
    "TLS": no(426, "TLSVersionNotSupported"),
    "page": http(403, b"<html>Forbidden by the firewall</html>"),
    "page for what is not there": http(404, b"<html>Not Found</html>"),
    "nothing": http(404),
}


@pytest.mark.parametrize("what", OF_OUR_REQUEST)
async def test_a_refusal_of_our_request_ends_no_key(open_desk: Told, what: str) -> None:
    """The caller gets 202 with the reason, as often as it asks; the request is repeated under the same key of Amazon's
    with a new signature, and issued as soon as Amazon accepts it."""
    counter, desk = open_desk
    desk.then = OF_OUR_REQUEST[what]
    for _ in range(2):
        status, pending = await counter.create(CHARGE)
        assert (status, pending["status"], pending["reason"]) == (202, "pending", "amazon_refuses_us")
        assert "Amazon refuses our requests" in pending["detail"]
        assert pending["amazon"]["status"] in (400, 401, 403, 404, 407, 409, 422, 426)
    found = await counter.request(pending["refundRequestId"])
    assert (found["state"], found["mayHaveReachedAmazon"], found["lastError"]) == (
        "reserved",
        False,
        "amazon_refuses_us",
    )
    assert await counter.reserved(CHARGE) == 1
    desk.then = refund(releaseEnvironment="Sandbox")
    await counter.due(pending["refundRequestId"])

    async def issued() -> bool:
        return (await counter.create(CHARGE))[0] == 201

    await until(issued, "it is issued")
    posts = [each.decode() for each in desk.server.requests if each.startswith(b"POST ")]
    keys = {re.search(r"(?im)^x-amz-pay-idempotency-key: *(\S+)", each)[1] for each in posts}  # type: ignore[index]
    signatures = [re.search(r"Signature=(\S+)", each)[1] for each in posts]  # type: ignore[index]
    assert (len(keys), len(set(signatures))) == (1, len(posts))
    assert not await counter.reserved(CHARGE)


async def test_a_verdict_after_refusals_of_our_request_is_proven(open_desk: Told) -> None:
    """None of those can have issued anything: the request is refused, not unclear, and the amount is free."""
    counter, desk = open_desk
    desk.answers = [no(403, "InvalidAccountStatus"), http(407, b"<html>")]
    desk.then = no(422, "TransactionCountExceeded")
    status, pending = await counter.create(CHARGE)
    assert status == 202

    async def refused() -> bool:
        await counter.due(pending["refundRequestId"])
        return (await counter.create(CHARGE))[0] == 422

    await until(refused, "Amazon's verdict")
    assert (await counter.request(pending["refundRequestId"]))["state"] == "refused"
    assert not await counter.reserved(CHARGE)


async def test_a_signature_that_amazon_reads_otherwise_is_not_the_keys_fault(open_desk: Told) -> None:
    counter, desk = open_desk
    echoed = f"Unable to verify signature, signing String [AMZN-PAY-RSASSA-PSS-V2\n{'ab' * 32}]"
    desk.answers = [no(401, "InvalidRequestSignature", echoed)]
    status, pending = await counter.create(CHARGE)
    assert (status, pending["amazon"]["reasonCode"]) == (202, "InvalidRequestSignature")
    assert "the key is not the cause" in pending["detail"]


async def test_a_wrong_key_is_named_as_the_fault(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """The charge cannot be read: nothing is written down, and the same key may be used when the settings are right."""
    async with shop(valkey_url, tmp_path, private_key=merchant_key_pem().decode()) as (counter, amazon):
        status, problem = await counter.create(amazon.open_charge("100.00", "USD"))
        assert (status, problem["reason"]) == (502, "amazon_refuses_us")
        assert "private_key_file does not belong to public_key_id" in problem["detail"]
        assert created(amazon) == []
        assert (await counter.call("GET", "/v1/refund-requests"))[1]["total"] == 0


RIGHT = refund(releaseEnvironment="Sandbox")
UNKNOWN: dict[str, tuple[Answer, str]] = {
    "hangs": (Held(), "amazon_timeout"),
    "half an answer": (Cut(http(201, b'{"refundId": "S01-', length=400)), "amazon_"),
    "500": (http(500), "amazon_unknown"),
    "garbage": (http(201, b"\x1f\x8b<html>"), "amazon_unintelligible"),
    "another environment": (refund(releaseEnvironment="Live"), "amazon_other_environment"),
    "another charge": (refund(chargeId="S01-5105180-3221187-C000000"), "amazon_wrong_charge"),
    "another amount": (
        refund(refundAmount={"amount": "15.00", "currencyCode": "USD"}),
        "amazon_wrong_amount",
    ),
}


async def test_an_answer_that_does_not_tell_leaves_the_request_open(open_desk: Told) -> None:
    """202; the amount stays reserved; nothing enters the ledger; the right answer then settles it."""
    counter, desk = open_desk
    for name, (answer, error) in UNKNOWN.items():
        desk.answers = [answer]
        desk.then = http(500)
        with waiting(counter.stage.service.issuers["us"].amazon_client, 0.5 if name == "hangs" else 60.0):
            status, pending = await counter.create(CHARGE, "14.00", name)
        assert (status, pending["status"]) == (202, "pending"), name
        found = await counter.request(pending["refundRequestId"])
        assert (found["state"], found["mayHaveReachedAmazon"]) == ("reserved", True), name
        assert found["lastError"].startswith(error), (name, found["lastError"])
        assert await counter.reserved(CHARGE) == 1
        _, page, _ = await counter.call("GET", f"/v1/refunds?charge={CHARGE}", token=READER)
        assert len(page["refunds"]) == list(UNKNOWN).index(name)
        number = list(UNKNOWN).index(name) + 1
        desk.then = refund(number=number)
        await counter.due(pending["refundRequestId"])

        async def done(request_id: str = pending["refundRequestId"]) -> bool:
            return bool((await counter.request(request_id))["state"] == "done")

        await until(done, f"{name} is settled")
        assert await counter.reserved(CHARGE) == 0
    bodies = {each.partition(b"\r\n\r\n")[2] for each in desk.server.requests if each.startswith(b"POST ")}
    assert len(bodies) == 1, "every try sends the same bytes"


@pytest.mark.parametrize("status", [201, 422])
async def test_an_answer_over_a_bound_ends_no_request(open_desk: Told, status: int) -> None:
    """Whether it says that the refund is made or refused: the outcome is unknown, and it is repeated with the same key
    until an answer can be understood."""
    counter, desk = open_desk
    made = refund(releaseEnvironment="Sandbox").partition(b"\r\n\r\n")[2]
    said = made if status == 201 else b'{"reasonCode":"TransactionAmountExceeded","message":"x"}'
    desk.then = http(500)
    for name, answer in over_bounds(status, said).items():
        desk.answers = [Cut(answer)]
        answered, pending = await counter.create(CHARGE, "14.00", "one key")
        assert (answered, pending["status"]) == (202, "pending"), name
        found = await counter.request(pending["refundRequestId"])
        assert found["state"] == "reserved", name
        assert await counter.reserved(CHARGE) == 1, name
    desk.answers, desk.then = [], refund(releaseEnvironment="Sandbox")
    await counter.due(pending["refundRequestId"])

    async def done() -> bool:
        return bool((await counter.request(pending["refundRequestId"]))["state"] == "done")

    await until(done, "it is settled")
    posts = [each.decode() for each in desk.server.requests if each.startswith(b"POST ")]
    keys = {re.search(r"(?im)^x-amz-pay-idempotency-key: *(\S+)", each)[1] for each in posts}  # type: ignore[index]
    assert len(keys) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {"statusDetails": {}},
        {"statusDetails": None},
        {"statusDetails": [1]},
        {"statusDetails": {"state": "Refund Initiated"}},
        {"chargeId": "C" * 100},
        {"refundAmount": {"amount": "1.4e1", "currencyCode": "USD"}},
        {"refundAmount": 14},
        {"creationTimestamp": "2026-02-30", "softDescriptor": 7, "releaseEnvironment": ["Sandbox"]},
    ],
)
async def test_a_refund_that_is_made_is_known_whatever_else_the_answer_says(open_desk: Told, odd: Any) -> None:
    """A 2xx with an id: the request is done, its charge and amount are those that were sent, and it is not repeated."""
    counter, desk = open_desk
    desk.answers = [refund(**odd)]
    desk.then = http(500)
    status, body = await counter.create(CHARGE, "14.00", "odd")
    assert (status, body["chargeId"], body["refundAmount"]["amount"]) == (201, CHARGE, "14.00")
    assert body["statusDetails"]["state"] == ("Unknown" if "statusDetails" in odd else "RefundInitiated")
    assert not {"chargeId", "refundAmount"} & set(body["unreadFields"])
    assert await counter.reserved(CHARGE) == 0
    assert len([each for each in desk.server.requests if each.startswith(b"POST ")]) == 1


async def test_a_refund_that_contradicts_the_request_is_asked_about(open_desk: Told) -> None:
    """Its id stands in the detail, and Get Refund tells what it is: money has moved."""
    counter, desk = open_desk
    desk.answers = [refund(refundAmount={"amount": "15.00", "currencyCode": "USD"})]
    desk.then = http(500)
    status, pending = await counter.create(CHARGE, "14.00", "odd")
    assert (status, pending["reason"]) == (202, "amazon_wrong_amount")
    named = json.loads(refund().partition(b"\r\n\r\n")[2])["refundId"]
    assert named in (await counter.request(pending["refundRequestId"]))["detail"]

    async def asked() -> bool:
        return named in await counter.stage.members("due") | await counter.stage.members("hinted")

    await until(asked, "the refund is asked about")


async def test_scopes(open_shop: Shop) -> None:
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    wish = {"chargeId": charge, "refundAmount": USD}
    calls = [
        ("POST", "/v1/refunds", wish),
        ("POST", "/v1/refunds/S01-1/retry", None),
        ("GET", "/v1/refund-requests", None),
        ("GET", f"/v1/refund-requests/{'0' * 64}", None),
        ("POST", f"/v1/refund-requests/{'0' * 64}/settle", {"notIssued": True}),
    ]
    for method, path, body in calls:
        for token in (READER, ADMIN):
            status, problem, _ = await counter.call(method, path, body, key="k", token=token)
            assert (status, problem["reason"]) == (403, "scope_missing"), path
        status, problem, _ = await counter.call(method, path, body, key="k", token="nobody")
        assert (status, problem["reason"]) == (401, "token_unknown"), path
    assert created(amazon) == []


async def test_a_declined_retry_is_itself_retried(open_shop: Shop) -> None:
    """Each link of the chain once, with the refund that it began with."""
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    status, first = await counter.create(charge, "14.01")
    chain = [first["refundId"]]
    for _ in range(2):
        assert (await counter.retry(chain[-1]))[1]["reason"] == "not_declined"
        amazon.move()
        await counter.shows(chain[-1], "Declined")
        status, again = await counter.retry(chain[-1])
        assert status == 201
        assert (again["retryOf"], again["retryRoot"], again["retriedBy"]) == (chain[-1], chain[0], None)
        assert (await counter.retry(chain[-1]))[1]["refundId"] == again["refundId"]
        _, before, _ = await counter.call("GET", f"/v1/refunds/{chain[-1]}", token=READER)
        assert before["retriedBy"] == again["refundId"]
        chain.append(again["refundId"])
    assert list(amazon.refunds) == chain


async def test_what_is_not_to_be_retried_is_not(open_shop: Shop) -> None:
    """Pending, in conflict, of Flexible Payments, or unknown: no call of Amazon's is made."""
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    _, contradicted = await counter.create(charge, "14.08", "one")
    amazon.move()
    await counter.shows(contradicted["refundId"], "Refunded")
    assert (await counter.retry(contradicted["refundId"]))[1]["reason"] == "not_declined"
    amazon.move()
    await counter.shows(contradicted["refundId"], "Declined")
    _, declined = await counter.create(charge, "14.01", "two", besides=[contradicted["refundId"]])
    amazon.move()
    await counter.shows(declined["refundId"], "Declined")
    recorder = counter.stage.service.issuers["us"].recorder
    await recorder.annotate("us", declined["refundId"], {"refund_type": "FPS"})
    before = created(amazon)
    for refund_id, expected in (
        (contradicted["refundId"], (409, "in_conflict")),
        (declined["refundId"], (409, "not_amazon_pay")),
        ("S01-0000000-0000000-R000000", (404, "no_such_refund")),
        ("a.b", (400, "bad_refund_id")),
    ):
        status, problem = await counter.retry(refund_id)
        assert (status, problem["reason"]) == expected
    assert created(amazon) == before


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"refundAmount": {"amount": "1.00", "currencyCode": "USD"}}, "unknown_field"),
        ("amount=1.00", "not_json"),
        (b"", None),
        ({}, None),
    ],
)
async def test_a_retry_takes_no_values(open_shop: Shop, body: Any, reason: str | None) -> None:
    """A caller who sends an amount wants that amount, not a retry of the whole."""
    counter, amazon = open_shop
    _, declined = await counter.create(amazon.open_charge("100.00", "USD"), "14.01")
    amazon.move()
    await counter.shows(declined["refundId"], "Declined")
    before = created(amazon)
    status, answer, _ = await counter.call("POST", f"/v1/refunds/{declined['refundId']}/retry", body)
    assert (status, answer.get("reason")) == ((400, reason) if reason else (201, None))
    assert len(created(amazon)) == len(before) + (reason is None)


async def test_a_decline_at_once_does_not_count_its_own_reservation(open_shop: Shop) -> None:
    """The charge of 100.00 does not allow 90.07 twice, but once, and a retry is only one."""
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    status, refund_json = await counter.create(charge, "90.07")
    assert (status, refund_json["statusDetails"]["state"], refund_json["retryable"]) == (201, "Declined", True)
    entries = await counter.stage.redis.xrange("refunds:{us}:events")
    events = [from_fields("us", {k.decode(): v.decode() for k, v in fields.items()}) for _, fields in entries]
    assert [(event.type.value, event.refund.retryable) for event in events] == [("amazonpay.refund.declined", "yes")]
    labels = {"state": "Declined", "reason": "AmazonRejected", "found_by": "create"}
    assert counter.stage.counted("refunds_final", **labels) == 1


async def unclear(counter: Counter, desk: Desk) -> str:
    """A request that Amazon refuses after a try of unknown end."""
    desk.answers = [http(500), no(422, "TransactionCountExceeded")]
    desk.then = http(404, b'{"reasonCode":"ResourceNotFound","message":"x"}')
    _, pending = await counter.create(CHARGE)
    request_id = str(pending["refundRequestId"])
    await counter.due(request_id)

    async def there() -> bool:
        return bool((await counter.request(request_id))["state"] == "unclear")

    await until(there, "it is unclear")
    return request_id


LATE: dict[str, Any] = {"creationTimestamp": "20990101T000000Z"}


async def test_an_unclear_request_is_shown_with_its_candidate_and_settled(open_desk: Told) -> None:
    """From the caller's 409 through the list and the metrics to the person's decision."""
    counter, desk = open_desk
    request_id = await unclear(counter, desk)
    status, problem = await counter.create(CHARGE)
    assert (status, problem["reason"], problem["refundRequestId"]) == (409, "refund_unclear", request_id)
    assert problem["candidateRefundId"] is None
    desk.then = refund(**LATE)
    found = json.loads(desk.then.partition(b"\r\n\r\n")[2])["refundId"]

    async def named() -> bool:
        return bool((await counter.request(request_id))["candidateRefundId"] == found)

    with capture_logs() as logs:
        await counter.call("POST", f"/v1/refunds/{found}/refresh")
        await until(named, "the refund that appeared is named")
        lines = await until(
            lambda: [each for each in logs if each["event"] == "refund.unclear_candidate"], "a line", 10
        )
    assert [(each["log_level"], each["request"], each["candidate_refund_id"]) for each in lines] == [
        ("error", request_id, found)
    ]
    _, listed, _ = await counter.call("GET", "/v1/refund-requests?state=unclear")
    (shown,) = listed["requests"]
    assert (shown["state"], shown["candidateRefundId"], shown["settledBy"]) == ("unclear", found, None)
    assert shown["amazon"] == {
        "status": 422,
        "reasonCode": "TransactionCountExceeded",
        "requestId": "1b5c1f3e-request",
    }
    async with counter.stage.session.get(counter.stage.url + "/metrics") as answer:
        page = await answer.text()
    assert 'receiver_refund_requests{account="us",state="unclear"} 1.0' in page
    assert 'receiver_refund_tries_total{outcome="unclear"} 1.0' in page
    path = f"/v1/refund-requests/{request_id}/settle"
    for _ in range(2):
        status, settled, _ = await counter.call("POST", path, {"refundId": found})
        assert (status, settled["state"], settled["refundId"], settled["settledBy"]) == (200, "done", found, "refunder")
    assert (await counter.create(CHARGE))[1]["refundId"] == found
    assert await counter.reserved(CHARGE) == 0


async def test_settling_is_strict(open_desk: Told) -> None:
    counter, desk = open_desk
    request_id = await unclear(counter, desk)
    path = f"/v1/refund-requests/{request_id}/settle"
    for body in ({}, {"notIssued": False}, {"notIssued": 1}, {"refundId": "S01-1", "notIssued": True}, {"x": 1}):
        status, problem, _ = await counter.call("POST", path, body)
        assert (status, problem["reason"]) == (400, "bad_settlement"), body
    status, problem, _ = await counter.call("POST", path, {"refundId": "../x"})
    assert (status, problem["reason"]) == (400, "bad_refund_id")
    status, problem, _ = await counter.call("POST", path, {"refundId": "S01-1"})
    assert (status, problem["reason"], problem["amazon"]["status"]) == (422, "amazon_not_found", 404)
    desk.then = refund(chargeId="S01-5105180-3221187-C000000", **LATE)
    found = json.loads(desk.then.partition(b"\r\n\r\n")[2])["refundId"]
    status, problem, _ = await counter.call("POST", path, {"refundId": found})
    assert (status, problem["reason"]) == (409, "refund_mismatch")
    for wrong, expected in (
        ("/v1/refund-requests/x", "bad_request_id"),
        (f"/v1/refund-requests/{'0' * 64}", "no_such_request"),
        ("/v1/refund-requests?state=done", "bad_parameter"),
        ("/v1/refund-requests?stat=unclear", "unknown_parameter"),
    ):
        assert (await counter.call("GET", wrong))[1]["reason"] == expected
    assert (await counter.request(request_id))["state"] == "unclear"
    status, settled, _ = await counter.call("POST", path, {"notIssued": True})
    assert (status, settled["state"], settled["settledBy"]) == (200, "refused", "refunder")
    assert "not issued" in settled["detail"]
    status, problem = await counter.create(CHARGE)
    assert (status, problem["reason"]) == (409, "settled_as_not_issued")
    assert await counter.reserved(CHARGE) == 0


async def test_the_commands(open_shop: Shop) -> None:
    """Create a refund, repeat the same call, and make calls that are refused."""
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD", reference="order-7")
    ran = await counter.run("refund", "create", charge, "14.00", "usd", "--key", "k1", "--json")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["refundId"] in amazon.refunds
    assert "Key: k1" in ran.err
    assert "Nothing new" not in ran.err
    ran = await counter.run("refund", "create", charge, "14.00", "USD", "--key", "k1")
    assert (ran.code, len(amazon.refunds)) == (0, 1)
    assert "Nothing new was made" in ran.err
    assert "RefundInitiated" in ran.out
    assert "order-7" in (await counter.run("refund", "list")).out
    for wrong, says in (("-5", "must be greater than zero"), ("--ful", "No such option: --ful")):
        ran = await counter.run("refund", "create", charge, wrong, "USD")
        assert (ran.code, says in ran.err) == (2, True), ran.err
    ran = await counter.run("refund", "create", charge, "200.00", "USD")
    assert (ran.code, ran.out) == (1, "")
    assert "[409 allowance_exceeded]" in ran.err
    ran = await counter.run("refund", "create", charge, "14.00", "USD", "--key", "k2", token=READER)
    assert (ran.code, ran.out) == (1, "")
    assert "[403 scope_missing]" in ran.err
    (refund_id,) = amazon.refunds
    ran = await counter.run("refund", "retry", refund_id)
    assert (ran.code, ran.out) == (1, "")
    assert "[409 not_declined]" in ran.err
    ran = await counter.run("refund", "requests")
    assert (ran.code, ran.out) == (0, "")
    assert "There are no open requests." in ran.err


async def test_the_command_retries_what_was_declined(open_shop: Shop) -> None:
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    _, first = await counter.create(charge, "14.01")
    amazon.move()
    await counter.shows(first["refundId"], "Declined")
    ran = await counter.run("refund", "retry", first["refundId"])
    assert ran.code == 0, ran
    assert f"Retry of       {first['refundId']}" in ran.out
    ran = await counter.run("refund", "retry", first["refundId"])
    assert (ran.code, f"Nothing new was made: {first['refundId']}" in ran.err) == (0, True)
    assert len(amazon.refunds) == 2


async def test_the_commands_name_other_refunds(open_shop: Shop) -> None:
    """As often as there are others; without them the answer is a conflict."""
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    _, first = await counter.create(charge, "14.01")
    amazon.move()
    await counter.shows(first["refundId"], "Declined")
    ran = await counter.run("refund", "create", charge, "14.01", "USD")
    assert ran.code == 0, ran
    ran = await counter.run("refund", "retry", first["refundId"])
    assert "[409 same_amount_refunded]" in ran.err
    other = list(amazon.refunds)[-1]
    ran = await counter.run("refund", "retry", first["refundId"], "--besides", other, "--besides", first["refundId"])
    assert ran.code == 0, ran
    retried = list(amazon.refunds)[-1]
    named = ["--besides", other, "--besides", retried]
    ran = await counter.run("refund", "create", charge, "14.01", "USD", *named)
    assert ran.code == 0, ran
    assert len(amazon.refunds) == 4


async def test_a_decline_at_once_has_an_exit_code_of_its_own(open_shop: Shop) -> None:
    """A script that takes 0 for money on its way must not get 0."""
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    ran = await counter.run("refund", "create", charge, "90.07", "USD")
    assert ran.code == 5, ran
    assert "DECLINED" in ran.out


async def test_the_commands_show_and_settle_what_is_open(open_desk: Told) -> None:
    counter, desk = open_desk
    desk.answers = [http(500)]
    ran = await counter.run("refund", "create", CHARGE, "14.00", "USD", "--key", "refund-1", "--wait", "0")
    assert (ran.code, ran.out) == (4, "")
    assert "Amazon has not answered yet" in ran.err
    ran = await counter.run("refund", "requests", "--state", "reserved")
    assert ran.code == 0, ran
    line, request_id = ran.out.split("\n")[:2]
    assert line.startswith("reserved")
    assert "14.00 USD" in line
    desk.answers = [no(422, "TransactionCountExceeded")]
    await counter.due(request_id.strip())

    async def unclear_now() -> bool:
        return bool((await counter.request(request_id.strip()))["state"] == "unclear")

    await until(unclear_now, "it is unclear")
    ran = await counter.run("refund", "requests", request_id.strip())
    assert "422 TransactionCountExceeded" in ran.out
    for options in ((), ("--not-issued", "--refund-id", "S01-1")):
        ran = await counter.run("refund", "settle-request", request_id.strip(), *options)
        assert ran.code == 2
        assert "either --refund-id REFUND or --not-issued" in ran.err
    assert (await counter.run("refund", "settle-request", "x", "--not-issued")).code == 2
    ran = await counter.run("refund", "settle-request", request_id.strip(), "--not-issued")
    assert ran.code == 0, ran
    assert "refunder" in ran.out
    assert await counter.reserved(CHARGE) == 0
