"""The legacy Refund of Flexible Payments: its request by AWS's example and the guide's, its answers judged."""

from __future__ import annotations

import base64
import hashlib
import hmac
from decimal import Decimal
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.amazon.fps import calls
from receiver.amazon.fps.answers import VERDICTS
from receiver.amazon.fps.signing import (
    Credentials,
    SignatureMethod,
    canonical_query,
    signature,
    signed_url,
    string_to_sign,
)
from receiver.errors import (
    AmazonError,
    AmazonOutcomeUnknown,
    AmazonRefused,
    AmazonRefusesUs,
    AmazonThrottled,
    BadRequest,
)
from receiver.exchange import Response
from receiver.ledger.money import Money
from receiver.ledger.refund import Observation, Unread
from receiver.ledger.timestamps import parse_time

KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
EXAMPLE = {
    "AWSAccessKeyId": KEY_ID,
    "Action": "DescribeJobFlows",
    "SignatureMethod": "HmacSHA256",
    "SignatureVersion": "2",
    "Timestamp": "2011-10-03T15:19:30",
    "Version": "2009-03-31",
}
EXAMPLE_TEXT = (
    "GET\nelasticmapreduce.amazonaws.com\n/\n"
    "AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Action=DescribeJobFlows&SignatureMethod=HmacSHA256&SignatureVersion=2"
    "&Timestamp=2011-10-03T15%3A19%3A30&Version=2009-03-31"
)
EXAMPLE_SIGNATURE = "i91nKc4PWAt0JJIdXwz9HxZCJDdiy6cf/Mj6vPxyYIs="
"""AWS General Reference, "Signature Version 2 Signing Process"."""

CREDENTIALS = Credentials(KEY_ID, SECRET)
NOW = parse_time("2007-05-10T05:11:41Z")
LIVE = calls.HOSTS["live"]
ORDER = calls.FpsRefundRequest("208sg0849sfwers082", "w908dnwf092987")
"""The transaction and the reference of the guide's example."""

ANSWER = """\
<RefundResponse xmlns="http://fps.amazonaws.com/doc/2008-09-17/">
  <RefundResult>
    <TransactionId>14GK6F2QU755ODS27SGHEURLKPG72Z54KMF</TransactionId>
    <TransactionStatus>Pending</TransactionStatus>
  </RefundResult>
  <ResponseMetadata>
    <RequestId>1a146b9a-b37b-4f5f-bda6-012a5b9e45c3:0</RequestId>
  </ResponseMetadata>
</RefundResponse>"""
"""As clients of the time recorded it."""

ERROR = (
    "<Response><Errors><Error><Code>{code}</Code><Message>What went wrong.</Message></Error></Errors>"
    "<RequestID>25a6-req</RequestID></Response>"
)


def parameters(url: str) -> dict[str, str]:
    """The query, read by Python."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def proof(url: str, host: str, secret: str = SECRET, digest: str = "sha256") -> str:
    """The signature that this address should have, made here from the rule alone."""
    parts = urlsplit(url)
    signed = sorted(field for field in parts.query.split("&") if not field.startswith("Signature="))
    text = "\n".join(("GET", host, parts.path, "&".join(signed)))
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), getattr(hashlib, digest)).digest()).decode()


def ok(body: str | bytes, status: int = 200, **headers: str) -> Response:
    return Response(status, headers, body.encode() if isinstance(body, str) else body)


def raised(response: Response, order: calls.FpsRefundRequest = ORDER) -> AmazonError:
    with pytest.raises(AmazonError) as caught:
        calls.read_refund(response, order, NOW)
    return caught.value


# Signature Version 2


def test_awss_published_example_is_signed_as_aws_signs_it() -> None:
    """String to sign and signature are those of AWS's page, by our code and by three lines of standard library."""
    text = string_to_sign("GET", "https://elasticmapreduce.amazonaws.com", EXAMPLE)
    assert text == EXAMPLE_TEXT
    assert signature(text, SECRET) == EXAMPLE_SIGNATURE
    independent = hmac.new(SECRET.encode(), EXAMPLE_TEXT.encode(), hashlib.sha256).digest()
    assert base64.b64encode(independent).decode() == EXAMPLE_SIGNATURE


def test_the_whole_address_of_awss_example() -> None:
    """The signed parameters in byte order, then the signature, percent-encoded."""
    rest = {name: EXAMPLE[name] for name in ("Version", "Action", "Timestamp")}
    assert signed_url("https://elasticmapreduce.amazonaws.com", rest, CREDENTIALS) == (
        "https://elasticmapreduce.amazonaws.com/?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Action=DescribeJobFlows"
        "&SignatureMethod=HmacSHA256&SignatureVersion=2&Timestamp=2011-10-03T15%3A19%3A30&Version=2009-03-31"
        "&Signature=i91nKc4PWAt0JJIdXwz9HxZCJDdiy6cf%2FMj6vPxyYIs%3D"
    )


def test_names_are_sorted_by_byte_and_encoded_by_rfc_3986() -> None:
    """Capitals before small letters; a space is %20, a star %2A, a tilde itself; hex digits are capitals; UTF-8."""
    values = {"b": "~-._", "a": "x y*", "B": "é/+", "A.Value": "1&2=3", "A": "\u20ac"}
    assert canonical_query(values) == "A=%E2%82%AC&A.Value=1%262%3D3&B=%C3%A9%2F%2B&a=x%20y%2A&b=~-._"


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://FPS.amazonaws.com/", "fps.amazonaws.com", "/"),
        ("https://fps.amazonaws.com:443/", "fps.amazonaws.com", "/"),
        ("http://fps.example:80", "fps.example", "/"),
        ("https://fps.example:80/x", "fps.example:80", "/x"),
        ("http://127.0.0.1:9100/fps/", "127.0.0.1:9100", "/fps/"),
        ("http://[::1]:9100/fps/", "[::1]:9100", "/fps/"),
        ("https://[::443]/", "[::443]", "/"),
    ],
)
def test_the_host_that_is_signed_is_the_value_of_the_host_header(url: str, host: str, path: str) -> None:
    """In lower case, with the port only where it is not the scheme's own; the path as it is sent."""
    assert string_to_sign("GET", url, {"A": "1"}) == f"GET\n{host}\n{path}\nA=1"


@settings(deadline=None)
@given(st.dictionaries(st.text("aB.é~ ", min_size=1, max_size=5), st.text(max_size=10)))
def test_every_value_survives_the_encoding(values: dict[str, str]) -> None:
    """What is encoded decodes to what it was, and holds unreserved characters and percent signs alone."""
    encoded = canonical_query(values)
    assert dict(parse_qsl(encoded, keep_blank_values=True)) == values
    assert quote(encoded, safe="-._~%&=") == encoded


@pytest.mark.parametrize(
    ("key_id", "secret", "reason"),
    [
        ("", SECRET, "bad_access_key_id"),
        ("AKIA", SECRET, "bad_access_key_id"),
        (f"{KEY_ID}\n", SECRET, "bad_access_key_id"),
        ("AKIAIOSFODNN7EXAMPL&", SECRET, "bad_access_key_id"),
        (KEY_ID, "", "bad_secret_access_key"),
        (KEY_ID, f"{SECRET} {SECRET}", "bad_secret_access_key"),
        (KEY_ID, "s" * 257, "bad_secret_access_key"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_without_being_shown(key_id: str, secret: str, reason: str) -> None:
    """The error names which half it is, and neither error nor repr has any of the secret."""
    with pytest.raises(BadRequest) as caught:
        Credentials(key_id, secret)
    assert caught.value.reason == reason
    assert not secret or secret not in caught.value.detail
    assert SECRET not in repr(CREDENTIALS)


# The request


def test_the_refund_has_exactly_the_parameters_of_amazons_guide() -> None:
    """The example of "How to Refund Transactions Programmatically", values and all, with nothing added or left out."""
    request = calls.refund(LIVE, CREDENTIALS, ORDER, NOW)
    assert (request.method, request.body, dict(request.headers)) == ("GET", b"", {})
    found = parameters(request.url)
    assert request.url.startswith("https://fps.amazonaws.com/?")
    assert "Timestamp=2007-05-10T05%3A11%3A41Z" in request.url
    assert found.pop("Signature") == proof(request.url, "fps.amazonaws.com")
    assert found == {
        "Action": "Refund",
        "AWSAccessKeyId": KEY_ID,
        "TransactionId": "208sg0849sfwers082",
        "RefundTransactionReference": "w908dnwf092987",
        "Timestamp": "2007-05-10T05:11:41Z",
        "Version": "2008-05-01",
        "SignatureVersion": "2",
        "SignatureMethod": "HmacSHA256",
    }


def test_the_signature_of_the_guides_request_is_pinned() -> None:
    """A literal, so that no change of the code goes unnoticed."""
    assert calls.refund(LIVE, CREDENTIALS, ORDER, NOW).url == (
        "https://fps.amazonaws.com/?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Action=Refund"
        "&RefundTransactionReference=w908dnwf092987&SignatureMethod=HmacSHA256&SignatureVersion=2"
        "&Timestamp=2007-05-10T05%3A11%3A41Z&TransactionId=208sg0849sfwers082&Version=2008-05-01"
        "&Signature=sMnOYQ0NqYgIcsH4POQu2SunbKDcRVltOzx16YE7PDA%3D"
    )


@pytest.mark.parametrize("version", ["2008-09-17", "2010-08-28"])
def test_later_versions_say_caller_reference_and_caller_description(version: str) -> None:
    """The API reference's names, with amount, description and policy."""
    order = calls.FpsRefundRequest(
        "T1", "R-1", Money(Decimal("3.5"), "USD"), "Größe 3 & more", "MasterAndMarketplaceTxn"
    )
    request = calls.refund(calls.HOSTS["sandbox"], CREDENTIALS, order, NOW, version=version)
    found = parameters(request.url)
    assert found.pop("Signature") == proof(request.url, "fps.sandbox.amazonaws.com")
    assert "CallerDescription=Gr%C3%B6%C3%9Fe%203%20%26%20more" in request.url
    assert {name: found[name] for name in found.keys() - {"Action", "AWSAccessKeyId", "Timestamp"}} == {
        "TransactionId": "T1",
        "CallerReference": "R-1",
        "RefundAmount.CurrencyCode": "USD",
        "RefundAmount.Value": "3.50",
        "CallerDescription": "Größe 3 & more",
        "MarketplaceRefundPolicy": "MasterAndMarketplaceTxn",
        "Version": version,
        "SignatureVersion": "2",
        "SignatureMethod": "HmacSHA256",
    }


def test_the_first_version_calls_the_description_that_of_the_transaction() -> None:
    """As Amazon's client library of 2008-05-01 does."""
    url = calls.refund(LIVE, CREDENTIALS, calls.FpsRefundRequest("T1", "R-1", description="d"), NOW).url
    assert parameters(url)["TransactionDescription"] == "d"


def test_sha1_is_allowed_and_then_named() -> None:
    """SignatureMethod says HmacSHA1, is signed itself, and the HMAC is made with SHA-1."""
    request = calls.refund(LIVE, CREDENTIALS, ORDER, NOW, method=SignatureMethod.HMAC_SHA1)
    found = parameters(request.url)
    assert found["SignatureMethod"] == "HmacSHA1"
    assert found["Signature"] == proof(request.url, "fps.amazonaws.com", digest="sha1")


USD = Decimal("1.00"), "USD"


@pytest.mark.parametrize(
    ("values", "reason", "named"),
    [
        ({"transaction_id": ""}, "bad_transaction_id", "TransactionId"),
        ({"transaction_id": "x" * 36}, "bad_transaction_id", "TransactionId"),
        ({"transaction_id": "a b"}, "bad_transaction_id", "TransactionId"),
        ({"reference": ""}, "bad_reference", "RefundTransactionReference"),
        ({"reference": "x" * 65}, "bad_reference", "RefundTransactionReference"),
        ({"reference": "a/b"}, "bad_reference", "RefundTransactionReference"),
        ({"reference": "a\n"}, "bad_reference", "RefundTransactionReference"),
        ({"amount": Money(Decimal("1.00"), "EUR")}, "bad_currency", "RefundAmount.CurrencyCode"),
        ({"amount": Money(Decimal("0.00"), "USD")}, "bad_amount", "RefundAmount.Value"),
        ({"amount": Money(Decimal("-1"), "USD")}, "bad_amount", "RefundAmount.Value"),
        ({"amount": Money(Decimal("1.001"), "USD")}, "bad_amount", "RefundAmount.Value"),
        ({"amount": Money(Decimal("NaN"), "USD")}, "bad_amount", "RefundAmount.Value"),
        ({"amount": Money(Decimal("Infinity"), "USD")}, "bad_amount", "RefundAmount.Value"),
        ({"description": "x" * 161}, "bad_description", "description"),
        ({"description": "a\x00b"}, "bad_description", "description"),
        ({"description": "\ud800"}, "bad_description", "description"),
        ({"policy": "Everything"}, "bad_policy", "MarketplaceRefundPolicy"),
    ],
)
def test_a_parameter_that_cannot_be_right_is_refused_by_name(
    values: dict[str, object], reason: str, named: str
) -> None:
    """Before anything is signed."""
    good: dict[str, object] = {"transaction_id": "T1", "reference": "R-1"}
    with pytest.raises(BadRequest) as caught:
        calls.FpsRefundRequest(**{**good, **values})  # type: ignore[arg-type]
    assert caught.value.reason == reason
    assert named in caught.value.detail


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "fps.amazonaws.com",
            "ftp://fps.example/",
            "https://",
            "https://fps.example/?a=1",
            "https://fps.example/#",
        ),
        *(
            "https://me@fps.example/",
            "https://fps.example/a b",
            "https://fps.example:99999/",
            "https://[::1/",
            "http://é/",
        ),
        *("https://fps.example:0/", "https://fps.example\\@other.example/"),
    ],
)
def test_an_address_that_cannot_be_signed_is_refused(url: str) -> None:
    """`bad_endpoint`, whatever is wrong with it."""
    with pytest.raises(BadRequest) as caught:
        calls.refund(url, CREDENTIALS, ORDER, NOW)
    assert caught.value.reason == "bad_endpoint"


def test_an_unknown_version_or_signature_method_is_refused() -> None:
    """Each by its name."""
    with pytest.raises(BadRequest, match="Version is one of"):
        calls.refund(LIVE, CREDENTIALS, ORDER, NOW, version="2007-01-08")
    with pytest.raises(BadRequest, match="SignatureMethod is one of"):
        calls.refund(LIVE, CREDENTIALS, ORDER, NOW, method="HmacMD5")


# The answer


def test_a_recorded_answer_becomes_an_observation_under_the_reference() -> None:
    """The ledger's id is the merchant's reference, the charge the transaction; FPS tells no time, so it is now."""
    amount = Money(*USD)
    order = calls.FpsRefundRequest("14GK6F2QU755ODS27SGHEURLKPG72Z54KMF", "R-1", amount)
    assert calls.read_refund(ok(ANSWER), order, NOW, environment="Sandbox") == calls.FpsAnswer(
        transaction_id="14GK6F2QU755ODS27SGHEURLKPG72Z54KMF",
        transaction_status="Pending",
        amazon_request_id="1a146b9a-b37b-4f5f-bda6-012a5b9e45c3:0",
        observation=Observation(
            refund_id="R-1",
            state="RefundInitiated",
            updated_at=NOW,
            charge_id="14GK6F2QU755ODS27SGHEURLKPG72Z54KMF",
            amount=amount,
            environment="Sandbox",
            is_dated=False,
        ),
    )


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Pending", "RefundInitiated"),
        ("Reserved", "RefundInitiated"),
        ("Success", "Refunded"),
        ("Failure", "Declined"),
        ("Cancelled", "Declined"),
        ("SUCCESS", "Refunded"),
        ("UnderReview", "UnderReview"),
    ],
)
def test_statuses_are_mapped_to_states_and_others_kept(status: str, state: str) -> None:
    """In the case of answers and of notifications; a word that no document knows is never final."""
    answer = calls.read_refund(ok(ANSWER.replace("Pending", status)), ORDER, NOW)
    assert (answer.observation.state, answer.transaction_status) == (state, status)


def test_the_reference_and_the_reason_are_read_where_they_are_told() -> None:
    """The guide says that the reference comes back; the WSDL of 2008-05-01 has PendingReason; no namespace is fine."""
    body = (
        "<RefundResponse><RefundResult><TransactionStatus>Pending</TransactionStatus><TransactionId>T1</TransactionId>"
        "<PendingReason>In  a\tbatch</PendingReason>"
        "<RefundTransactionReference>w908dnwf092987</RefundTransactionReference></RefundResult></RefundResponse>"
    )
    answer = calls.read_refund(ok(body), ORDER, NOW)
    assert (answer.observation.refund_id, answer.amazon_request_id) == ("w908dnwf092987", "")
    assert answer.observation.reason_description == "In a batch"
    error = raised(ok(body.replace("w908dnwf092987", "another")))
    assert (type(error), error.reason) == (AmazonOutcomeUnknown, "amazon_wrong_refund")


@pytest.mark.parametrize(
    "body",
    [
        *("", "{}", "<html><body>Hello</body></html>", "<RefundResponse/>", ANSWER[:-20], "\x00"),
        ANSWER.replace("RefundResult", "PayResult"),
        ANSWER.replace("Pending", ""),
        ANSWER.replace("Pending", "Pen ding"),
        ANSWER.replace("Pending", "<b>Pending</b>"),
        ANSWER.replace("<TransactionStatus>Pending</TransactionStatus>", ""),
        ANSWER.replace("<RefundResult>", "<RefundResult/><RefundResult>"),
        ANSWER.replace("</TransactionStatus>", "</TransactionStatus><TransactionStatus>Success</TransactionStatus>"),
        ANSWER.replace("</RefundResult>", "<RefundTransactionReference/></RefundResult>"),
        f'<!DOCTYPE x [<!ENTITY e "Success">]>{ANSWER.replace("Pending", "&e;")}',
        f"<!DOCTYPE RefundResponse>{ANSWER}",
        f'<?xml version="1.0" encoding="no-such"?>{ANSWER}',
    ],
)
def test_an_answer_that_does_not_tell_what_happened_is_unknown(body: str) -> None:
    """Half an answer, no XML, a document type, two statuses: nothing about money is guessed."""
    error = raised(ok(body))
    assert (type(error), error.reason, error.amazon_status) == (AmazonOutcomeUnknown, "amazon_unintelligible", 200)


@pytest.mark.parametrize("found", ["", "../..", "x" * 36, "<b>T1</b>"])
def test_a_transaction_id_that_cannot_be_read_hides_no_state(found: str) -> None:
    """Reference and status are enough: the id is empty and noted."""
    answer = calls.read_refund(ok(ANSWER.replace("14GK6F2QU755ODS27SGHEURLKPG72Z54KMF", found)), ORDER, NOW)
    assert (answer.transaction_id, answer.observation.state) == ("", "RefundInitiated")
    assert answer.observation.unread == (Unread("TransactionId", "bad_id"),)


def test_a_truncated_answer_is_unknown() -> None:
    """Although the part that arrived could be read."""
    assert raised(Response(200, {}, ANSWER.encode(), truncated=True)).reason == "amazon_unintelligible"


@pytest.mark.parametrize("status", [200, 400, 403])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, AmazonRefused) for code in sorted(VERDICTS)),
        *((code, AmazonRefusesUs) for code in ("SignatureDoesNotMatch", "RequestExpired", "InvalidParams", "Odd")),
    ],
)
def test_only_a_verdict_on_the_refund_refuses_it(status: int, code: str, kind: type[AmazonError]) -> None:
    """Whatever the status below 500; message and request id are kept. Every other error is about our request."""
    error = raised(ok(ERROR.format(code=code), status))
    assert type(error) is kind
    assert (error.reason_code, error.amazon_status, error.amazon_request_id) == (code, status, "25a6-req")
    assert error.detail == f"Amazon answered {status} {code}: What went wrong."


@pytest.mark.parametrize("code", ["ConcurrentModification", "InternalError", "ServiceUnavailable"])
def test_an_error_that_does_not_decide_is_unknown(code: str) -> None:
    """Also if it comes after one that would."""
    error = raised(ok(ERROR.format(code=code), 400))
    assert (type(error), error.reason, error.amazon_request_id) == (AmazonOutcomeUnknown, "amazon_unknown", "25a6-req")
    first = "<Errors><Error><Code>InvalidParams</Code></Error>"
    assert type(raised(ok(ERROR.format(code=code).replace("<Errors>", first), 400))) is AmazonOutcomeUnknown


def test_of_several_errors_one_that_is_no_verdict_counts() -> None:
    """The request was refused as well, or before the refund was judged."""
    first = "<Errors><Error><Code>RefundAmountExceeded</Code></Error>"
    error = raised(ok(ERROR.format(code="AuthFailure").replace("<Errors>", first), 400))
    assert (type(error), error.reason_code) == (AmazonRefusesUs, "AuthFailure")


@pytest.mark.parametrize("status", [100, 302, 408, 425, 500, 502, 503])
def test_a_status_that_does_not_decide_is_unknown_whatever_the_body(status: int) -> None:
    """Even a refusal in the body of a 500 proves nothing."""
    error = raised(ok(ERROR.format(code="InvalidParams"), status, **{"retry-after": "7"}))
    assert (type(error), error.amazon_status, error.retry_after) == (AmazonOutcomeUnknown, status, 7)


def test_429_is_a_throttle() -> None:
    """With the wait that Amazon asks for."""
    error = raised(ok("", 429, **{"retry-after": "3"}))
    assert (type(error), error.retry_after) == (AmazonThrottled, 3)


@pytest.mark.parametrize("body", ["<html/>", "", "<Response><Errors/></Response>", ERROR.format(code="no code")])
@pytest.mark.parametrize("status", [400, 404, 407])
def test_a_4xx_that_is_not_of_fps_refuses_the_request(body: str, status: int) -> None:
    """It may come from something in between, and says nothing of the refund."""
    error = raised(ok(body, status))
    assert (type(error), error.reason, error.amazon_status) == (AmazonRefusesUs, "amazon_refuses_us", status)


def test_a_4xx_with_the_answer_to_a_refund_is_unknown() -> None:
    """Half of it says that the refund was made."""
    error = raised(ok(ANSWER, 400))
    assert (type(error), error.reason) == (AmazonOutcomeUnknown, "amazon_unintelligible")


@settings(deadline=None)
@given(st.integers(100, 599), st.binary(max_size=60) | st.text("<>/&Errorsp ", max_size=40).map(str.encode))
def test_no_answer_escapes_the_tree_of_errors(status: int, body: bytes) -> None:
    """Any bytes with any status are an `AmazonError`, as none of these is a RefundResponse."""
    with pytest.raises(AmazonError):
        calls.read_refund(Response(status, {}, body), ORDER, NOW)
