"""Flexible Payments in the simulator: signatures checked strictly, refunds by reference, statuses reported by a
form."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import parse_qsl, quote
from xml.etree.ElementTree import Element, fromstring

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from receiver.amazon.fps.calls import FpsRefundRequest, Policy, Version, refund
from receiver.amazon.fps.notification import read_status_notification
from receiver.amazon.fps.signing import Credentials, SignatureMethod
from receiver.ledger.money import Money
from receiver.simulator.app import Simulator
from receiver.simulator.checks import Asked
from receiver.simulator.faults import Fault
from receiver.simulator.fps.api import read_refund
from receiver.simulator.fps.checks import ACCESS_KEY_ID, SECRET_ACCESS_KEY, check, string_to_sign
from receiver.simulator.keys import Keys
from tests.kit.clock import T0, ManualClock
from tests.simulator.conftest import Client, Inbox, until

T1, T2, RESERVED = (f"14GKSIMULATOR000000000000000000000{number}" for number in (1, 2, 3))
DAY = 86_400_000


def stamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def query(values: Mapping[str, str]) -> str:
    return "&".join(sorted(f"{quote(name, safe='-._~')}={quote(value, safe='-._~')}" for name, value in values.items()))


def signed(values: Mapping[str, str], host: str, path: str = "/fps/", secret: str = SECRET_ACCESS_KEY) -> str:
    """The query with its signature, by the tests' own signer."""
    digest = {"HmacSHA1": hashlib.sha1}.get(values.get("SignatureMethod", ""), hashlib.sha256)
    text = f"GET\n{host}\n{path}\n{query(values)}"
    proof = base64.b64encode(hmac.new(secret.encode(), text.encode(), digest).digest()).decode()
    return f"{query(values)}&Signature={quote(proof, safe='')}"


@dataclass
class Fps:
    """Calls a simulator's Flexible Payments over its socket."""

    amazon: Simulator
    session: aiohttp.ClientSession
    clock: ManualClock
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.amazon.base_url.removeprefix("http://")

    def values(self, **more: str) -> dict[str, str]:
        return {
            "Action": "Refund",
            "AWSAccessKeyId": ACCESS_KEY_ID,
            "Timestamp": stamp(self.clock()),
            "Version": "2008-05-01",
            "SignatureVersion": "2",
            "SignatureMethod": "HmacSHA256",
            **more,
        }

    async def get(self, signed_query: str, path: str = "/fps/") -> tuple[int, Element]:
        url = URL(f"{self.amazon.base_url}{path}?{signed_query}", encoded=True)
        async with self.session.get(url) as answer:
            self.headers = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, fromstring(await answer.read())

    async def refund(
        self, reference: str, transaction_id: str = T1, amount: str = "", **more: str
    ) -> tuple[int, str, str]:
        """HTTP status, then TransactionStatus and reference, or error code and message."""
        money = {"RefundAmount.Value": amount, "RefundAmount.CurrencyCode": "USD"} if amount else {}
        name = "RefundTransactionReference" if more.get("Version") in (None, "2008-05-01") else "CallerReference"
        values = self.values(TransactionId=transaction_id, **{name: reference}, **money, **more)
        status, root = await self.get(signed(values, self.host))
        if status == 200:
            found = root.findtext("{*}RefundResult/{*}TransactionStatus", "")
            return status, found, root.findtext("{*}RefundResult/{*}RefundTransactionReference", "")
        return status, root.findtext("Errors/Error/Code", ""), root.findtext("Errors/Error/Message", "")

    async def code(self, reference: str, *args: str, **more: str) -> str:
        """The error code."""
        status, code, _ = await self.refund(reference, *args, **more)
        assert status == 400
        return code


@pytest.fixture
async def fps(amazon: Simulator, clock: ManualClock) -> AsyncIterator[Fps]:
    async with aiohttp.ClientSession() as session:
        yield Fps(amazon, session, clock)


# Signatures


def test_awss_published_example_is_the_checkers_too() -> None:
    """String to sign of AWS's page "Signature Version 2 Signing Process", and its signature accepted."""
    values = (
        "Action=DescribeJobFlows&Version=2009-03-31&AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&SignatureVersion=2"
        "&SignatureMethod=HmacSHA256&Timestamp=2011-10-03T15%3A19%3A30"
    )
    asked = Asked(
        "GET",
        "/",
        f"{values}&Signature=i91nKc4PWAt0JJIdXwz9HxZCJDdiy6cf%2FMj6vPxyYIs%3D",
        [("host", "elasticmapreduce.amazonaws.com")],
    )
    assert string_to_sign(asked, dict(parse_qsl(values))) == (
        "GET\nelasticmapreduce.amazonaws.com\n/\nAWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Action=DescribeJobFlows"
        "&SignatureMethod=HmacSHA256&SignatureVersion=2&Timestamp=2011-10-03T15%3A19%3A30&Version=2009-03-31"
    )
    secrets = {"AKIAIOSFODNN7EXAMPLE": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
    with pytest.raises(Fault) as caught:
        check(asked, secrets, T0)
    assert caught.value.word == "timestamp", "the signature holds; AWS's example has no Z, which is wanted here"


async def test_a_signed_refund_is_answered_as_the_guide_says(fps: Fps) -> None:
    """TransactionId, TransactionStatus, the reference, and a request id, in the namespace of the version."""
    values = fps.values(TransactionId=T1, RefundTransactionReference="w908dnwf092987")
    status, root = await fps.get(signed(values, fps.host))
    namespace = "{http://fps.amazonaws.com/doc/2008-05-01/}"
    assert (status, root.tag) == (200, f"{namespace}RefundResponse")
    found = {each.tag.removeprefix(namespace): each.text for each in root[0]}
    assert found == {
        "TransactionId": T1,
        "TransactionStatus": "Pending",
        "RefundTransactionReference": "w908dnwf092987",
    }
    assert root.findtext(f"{namespace}ResponseMetadata/{namespace}RequestId")
    assert [(call.call, call.object_id, call.status) for call in fps.amazon.calls] == [
        ("fps_refund", "w908dnwf092987", 200)
    ]


async def test_sha1_an_empty_first_field_and_the_path_without_slash_are_fine(fps: Fps) -> None:
    """The guide's own example begins with `?&Action=`."""
    values = fps.values(TransactionId=T1, RefundTransactionReference="R-1", SignatureMethod="HmacSHA1")
    assert (await fps.get("&" + signed(values, fps.host, "/fps"), "/fps"))[0] == 200


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"AWSAccessKeyId": "AKIAIOSFODNN7EXAMPLE"}, 403, "InvalidClientTokenId"),
        ({"SignatureVersion": "1"}, 400, "InvalidParameterValue"),
        ({"SignatureMethod": "HmacMD5"}, 400, "InvalidParameterValue"),
        ({"Timestamp": stamp(T0 - 901_000)}, 400, "RequestExpired"),
        ({"Timestamp": stamp(T0 + 901_000)}, 400, "RequestExpired"),
        ({"Timestamp": "2025-10-09 08:53:20"}, 400, "InvalidParameterValue"),
        ({"Timestamp": "2025-02-30T08:53:20Z"}, 400, "InvalidParameterValue"),
        ({"Action": "Pay"}, 400, "InvalidAction"),
        ({"Version": "2007-01-08"}, 400, "NoSuchVersion"),
        ({"Extra": "1"}, 400, "InvalidParams"),
        ({"CallerReference": "R-1"}, 400, "InvalidParams"),
        ({"RefundTransactionReference": ""}, 400, "MissingParameter"),
        ({"RefundTransactionReference": "x" * 129}, 400, "InvalidParams"),
        ({"RefundTransactionReference": "a\x01"}, 400, "InvalidParams"),
        ({"TransactionDescription": "x" * 161}, 400, "InvalidParams"),
        ({"MarketplaceRefundPolicy": "All"}, 400, "InvalidParams"),
        ({"RefundAmount.Value": "1.00"}, 400, "InvalidParams"),
        ({"RefundAmount.Value": "1.00", "RefundAmount.CurrencyCode": "EUR"}, 400, "InvalidParams"),
        ({"RefundAmount.Value": "1.001", "RefundAmount.CurrencyCode": "USD"}, 400, "InvalidParameterValue"),
        ({"RefundAmount.CurrencyCode": "USD"}, 400, "InvalidParameterValue"),
    ],
)
async def test_a_wrong_request_is_refused(fps: Fps, change: dict[str, str], status: int, code: str) -> None:
    """Though it is signed well; and nothing is refunded."""
    values = {**fps.values(TransactionId=T1, RefundTransactionReference="R-1"), **change}
    answered, root = await fps.get(signed(values, fps.host))
    assert (answered, root.findtext("Errors/Error/Code")) == (status, code)
    assert root.findtext("RequestID")
    assert fps.amazon.fps_refunds == []


@pytest.mark.parametrize("name", ["AWSAccessKeyId", "SignatureMethod", "SignatureVersion", "Timestamp"])
async def test_a_missing_parameter_is_named(fps: Fps, name: str) -> None:
    """Without it nothing can be judged."""
    values = fps.values(TransactionId=T1, RefundTransactionReference="R-1")
    del values[name]
    status, root = await fps.get(signed(values, fps.host))
    assert (status, root.findtext("Errors/Error/Code")) == (400, "MissingParameter")
    assert name in root.findtext("Errors/Error/Message", "")


async def test_any_change_after_signing_is_seen(fps: Fps) -> None:
    """Another secret, host, path or value, a plus for a space, a parameter more: SignatureDoesNotMatch."""
    values = fps.values(TransactionId=T1, RefundTransactionReference="R-1", TransactionDescription="a b")
    good = signed(values, fps.host)
    for wrong in (
        signed(values, fps.host, secret="x"),
        signed(values, "fps.amazonaws.com"),
        signed(values, fps.host, "/"),
        good.replace("R-1", "R-2"),
        good.replace("a%20b", "a+b"),
        f"{good}&MarketplaceRefundPolicy=MasterTxnOnly",
        f"{good.partition('&Signature=')[0]}&Signature={'A' * 43}%3D",
        f"{good.partition('&Signature=')[0]}&Signature=%C3%A9",
    ):
        status, root = await fps.get(wrong)
        assert (status, root.findtext("Errors/Error/Code")) == (403, "SignatureDoesNotMatch"), wrong
        assert fps.headers["x-amz-pay-simulator-reason"] == "signature"
    for broken in (f"{good}&Action=Refund", f"{good}&x", f"{good}&x=%zz", f"{good}&x=%ff"):
        status, root = await fps.get(broken)
        assert (status, root.findtext("Errors/Error/Code")) == (400, "MalformedQueryString"), broken
    assert (await fps.get(good))[0] == 200


PRINTABLE = st.characters(codec="utf-8", exclude_categories=("C", "Z"), include_characters=" ")


@settings(deadline=None)
@given(
    order=st.builds(
        FpsRefundRequest,
        st.from_regex(r"[A-Za-z0-9-]{1,35}", fullmatch=True),
        st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True),
        st.none() | st.integers(1, 10_000_000).map(lambda cents: Money(Decimal(cents).scaleb(-2), "USD")),
        st.text(PRINTABLE, max_size=160),
        st.sampled_from(["", *Policy]),
    ),
    version=st.sampled_from(Version),
    method=st.sampled_from(SignatureMethod),
    url=st.sampled_from(["http://127.0.0.1:9100/fps/", "https://fps.example", "https://[::1]:8443/a%20b/"]),
)
def test_what_the_receiver_signs_is_understood_by_this_second_implementation(
    order: FpsRefundRequest, version: Version, method: SignatureMethod, url: str
) -> None:
    """Every order that can be made, in every version, with either hash: accepted, with the same values."""
    request = refund(url, Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), order, T0, version=version, method=method)
    sent = URL(request.url, encoded=True)
    host = sent.raw_authority
    asked = Asked("GET", sent.raw_path, sent.raw_query_string, [("host", host)])
    found = read_refund(check(asked, {ACCESS_KEY_ID: SECRET_ACCESS_KEY}, T0))
    assert (found.transaction_id, found.reference, found.description) == (
        order.transaction_id,
        order.reference,
        order.description,
    )
    assert found.policy == (order.policy or "MasterTxnOnly")
    assert (found.amount.text if found.amount else None) == (order.amount.text if order.amount else None)


# Refunds


async def test_the_same_request_again_is_the_same_refund_and_another_one_is_not(fps: Fps) -> None:
    """Answered with the status of now; other values under a used reference are a DuplicateRequest, for seven days."""
    assert await fps.refund("R-1", amount="10.00") == (200, "Pending", "R-1")
    fps.clock.tick(30_000)
    assert await fps.refund("R-1", amount="10.00") == (200, "Success", "R-1")
    assert await fps.code("R-1", amount="11.00") == "DuplicateRequest"
    assert await fps.code("R-1", T2, amount="10.00") == "DuplicateRequest"
    assert len(fps.amazon.fps_refunds) == 1
    fps.clock.tick(7 * DAY)
    assert await fps.refund("R-1", amount="10.00") == (200, "Pending", "R-1")
    assert len(fps.amazon.fps_refunds) == 2


async def test_a_refused_request_has_used_up_its_reference_for_others(fps: Fps) -> None:
    """FPS: use a new reference even where the earlier request ended in an error. The same one may be tried again."""
    assert await fps.code("R-1", amount="100.01") == "RefundAmountExceeded"
    assert await fps.code("R-1", amount="100.01") == "RefundAmountExceeded"
    assert await fps.code("R-1", amount="100.00") == "DuplicateRequest"


async def test_nothing_over_the_original_amount_is_refunded(fps: Fps) -> None:
    """Declined refunds do not count; without an amount it is all that is left."""
    assert (await fps.refund("R-1", amount="60.01"))[1] == "Pending"
    assert await fps.code("R-2", amount="40.00") == "RefundAmountExceeded"
    fps.clock.tick(30_000)
    assert (await fps.refund("R-1", amount="60.01"))[1] == "Failure"
    assert (await fps.refund("R-3", amount="60.00"))[1] == "Pending"
    assert (await fps.refund("R-4"))[1] == "Pending"
    assert fps.amazon.fps_refunds[-1].amount.text == "40.00"
    assert await fps.code("R-5") == "TransactionFullyRefundedAlready"


async def test_only_a_settled_transaction_of_this_merchant_is_refunded(fps: Fps, client: Client) -> None:
    """A reserved one has to be settled first, as the guide says; the others have different errors."""
    assert await fps.code("R-1", RESERVED) == "InvalidTransactionState"
    assert await fps.code("R-2", "14GKUNKNOWN") == "InvalidTransactionId"
    for state, code in (("Pending", "OriginalTransactionIncomplete"), ("Failure", "OriginalTransactionFailed")):
        made = {"amount": "5.00", "currencyCode": "USD", "state": state}
        status, found = await client.control("POST", "/fps/transactions", made)
        assert (status, len(str(found["transactionId"]))) == (201, 35)
        assert await fps.code(f"R-{state}", str(found["transactionId"])) == code


@pytest.mark.parametrize(
    ("amount", "statuses"),
    [
        ("1.00", ["Pending", "Success", "Success"]),
        ("1.01", ["Pending", "Failure", "Failure"]),
        ("1.03", ["Pending", "Pending", "Pending"]),
        ("1.04", ["Pending", "UnderReview", "Success"]),
        ("1.06", ["Success", "Success", "Success"]),
        ("1.07", ["Failure", "Failure", "Failure"]),
        ("1.08", ["Pending", "Success", "Failure"]),
    ],
)
async def test_the_cents_choose_what_becomes_of_a_refund(fps: Fps, amount: str, statuses: list[str]) -> None:
    """By the table for all refunds, in the words of FPS, one delay after the other."""
    found = []
    for _ in statuses:
        found.append((await fps.refund("R-1", amount=amount, Version="2010-08-28"))[1])
        fps.clock.tick(30_000)
    assert found == statuses


async def test_later_versions_do_not_tell_the_reference(fps: Fps) -> None:
    """Their WSDL has TransactionId and TransactionStatus alone."""
    assert await fps.refund("R-1", amount="1.00", Version="2008-09-17") == (200, "Pending", "")


# Notifications and control


async def test_every_change_is_posted_as_a_form_where_it_is_wanted(fps: Fps, inbox: Inbox, client: Client) -> None:
    """Nowhere at first; then to the address that was set, with the status in capitals. SNS's address is another."""
    await fps.refund("R-0", amount="1.00")
    assert (await client.control("PUT", "/fps/post-to", {"url": inbox.url}))[0] == 204
    await fps.refund("R-1", amount="3.01")
    await until(lambda: len(inbox.bodies) == 1)
    fps.clock.tick(30_000)
    await until(lambda: len(inbox.bodies) == 3)
    assert {headers["content-type"] for headers in inbox.headers} == {
        "application/x-www-form-urlencoded; charset=UTF-8"
    }
    forms = [dict(parse_qsl(body.decode(), strict_parsing=True)) for body in inbox.bodies]
    told = [(form["callerReference"], form["status"]) for form in forms]
    assert told[0] == ("R-1", "PENDING")
    assert sorted(told[1:]) == [("R-0", "SUCCESS"), ("R-1", "FAILURE")]
    hints = [read_status_notification(body) for body in inbox.bodies]
    assert [(hint.reference, hint.status) for hint in hints] == told, "the receiver reads them so, too"
    assert all(hint.is_refund and hint.transaction_id == T1 for hint in hints)
    last = next(form for form in forms if form["status"] == "FAILURE")
    assert (last["operation"], last["transactionId"], last["transactionAmount"]) == ("REFUND", T1, "USD 3.01")
    assert last["transactionDate"] == str((T0 + 30_000) // 1000)
    _, index = await client.control("GET", "/fps")
    assert (index["postTo"], index["accessKeyId"]) == (inbox.url, ACCESS_KEY_ID)
    assert {line["verdict"] for line in index["posted"]} == {"delivered", "nowhere"}  # type: ignore[attr-defined]


async def test_a_notification_that_is_not_taken_is_posted_again(fps: Fps, inbox: Inbox) -> None:
    """After a 500, the same form; the address can be set in Python too."""
    fps.amazon.fps_post_to = inbox.url
    assert fps.amazon.fps_post_to == inbox.url
    inbox.answers = [500, 200]
    await fps.refund("R-1", amount="1.03")
    await until(lambda: len(inbox.bodies) == 2)
    await fps.amazon.idle()
    assert inbox.bodies[0] == inbox.bodies[1]


async def test_refunds_that_begin_need_not_be_told(keys: Keys, clock: ManualClock, inbox: Inbox) -> None:
    """`announce_initiated` is for both services."""
    async with (
        Simulator(keys=keys, now=clock, announce_initiated=False) as amazon,
        aiohttp.ClientSession() as session,
    ):
        amazon.fps_post_to = inbox.url
        fps = Fps(amazon, session, clock)
        assert amazon.fps_endpoint == f"{amazon.base_url}/fps/"
        await fps.refund("R-1", amount="1.00")
        clock.tick(30_000)
        await until(lambda: inbox.bodies)
        assert [dict(parse_qsl(body.decode()))["status"] for body in inbox.bodies] == ["SUCCESS"]


@pytest.mark.parametrize(
    ("method", "path", "values"),
    [
        ("POST", "/fps/transactions", {"amount": "1.00", "currencyCode": "EUR"}),
        ("POST", "/fps/transactions", {"amount": "1.00", "currencyCode": "USD", "state": "Gone"}),
        ("POST", "/fps/transactions", {"amount": "1.00", "currencyCode": "USD", "state": 1}),
        ("POST", "/fps/transactions", {"amount": "1.00", "currencyCode": "USD", "transactionId": T1}),
        ("POST", "/fps/transactions", {"amount": "1.00"}),
        ("PUT", "/fps/post-to", {"url": 1}),
        ("PUT", "/fps/post-to", {"address": "x"}),
    ],
)
async def test_wrong_control_is_refused(client: Client, method: str, path: str, values: object) -> None:
    """With 400."""
    assert (await client.control(method, path, values))[0] == 400


async def test_control_wants_json_by_name(client: Client) -> None:
    """So that a form on a web page cannot post here unnoticed."""
    url = f"{client.amazon.base_url}/simulator/fps/transactions"
    async with client.session.post(url, data={"amount": "1"}) as answer:
        assert answer.status == 415
