"""What an answer means: by the class of its status first; and no bytes fail in any other way."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.amazon.answers import MAX_RETRY_AFTER, VERDICTS, retry_after
from receiver.amazon.calls import read_charge, read_refund
from receiver.errors import (
    AmazonError,
    AmazonNotFound,
    AmazonOutcomeUnknown,
    AmazonRefused,
    AmazonRefusesUs,
    AmazonThrottled,
)
from receiver.exchange import Response
from tests.amazon.examples import CHARGE, REFUND, answer


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (100, AmazonOutcomeUnknown),
        (204, AmazonOutcomeUnknown),
        (301, AmazonOutcomeUnknown),
        (304, AmazonOutcomeUnknown),
        (400, AmazonRefusesUs),
        (401, AmazonRefusesUs),
        (403, AmazonRefusesUs),
        (404, AmazonNotFound),
        (407, AmazonRefusesUs),
        (408, AmazonOutcomeUnknown),
        (409, AmazonRefusesUs),
        (422, AmazonRefusesUs),
        (425, AmazonOutcomeUnknown),
        (426, AmazonRefusesUs),
        (429, AmazonThrottled),
        (500, AmazonOutcomeUnknown),
        (503, AmazonOutcomeUnknown),
        (599, AmazonOutcomeUnknown),
        (999, AmazonOutcomeUnknown),
    ],
)
def test_the_class_of_the_status_decides(code: int, error: type[AmazonError]) -> None:
    """Whatever the body says, even a whole refund; status, reason code and request id are kept."""
    for body, word in (
        (b"", ""),
        (answer({"reasonCode": "InternalServerError", "message": "m"}).body, "InternalServerError"),
    ):
        with pytest.raises(AmazonError) as caught:
            read_refund(answer(body, code, x_amz_pay_request_id="req-1"))
        assert type(caught.value) is error
        assert caught.value.amazon_status == code
        assert caught.value.amazon_request_id == "req-1"
        assert caught.value.reason_code == ("" if code == 204 else word)
    if code != 204:
        with pytest.raises(error):
            read_refund(answer(REFUND, code, x_amz_pay_request_id="req-1"))


@pytest.mark.parametrize("status", [400, 405, 409, 422])
@pytest.mark.parametrize("code", sorted(VERDICTS))
def test_only_a_documented_verdict_refuses_the_refund(status: int, code: str) -> None:
    """Whatever the status, for no document is sure about it."""
    with pytest.raises(AmazonError) as caught:
        read_refund(answer({"reasonCode": code, "message": "m"}, status))
    assert type(caught.value) is AmazonRefused
    assert caught.value.reason_code == code


@pytest.mark.parametrize("status", [400, 401, 403, 407, 409, 410, 413, 422, 426, 431, 451, 499])
@pytest.mark.parametrize(
    "code",
    [
        *("InvalidHeaderValue", "MissingHeader", "MissingHeaderValue", "InvalidRequest", "InvalidRequestFormat"),
        *("InvalidRequestSignature", "InvalidAuthentication", "UnauthorizedAccess", "InvalidAccountStatus"),
        *("InvalidParameterValue", "MissingParameterValue", "UnrecognizedField", "InvalidAPIVersion"),
        *("UnsupportedOperation", "RequestNotSupported", "TLSVersionNotSupported", "ProcessingFailure"),
        *("AmazonRejected", "transactionamountexceeded", "TransactionAmountExceededX", ""),
    ],
)
def test_every_other_refusal_is_of_our_request(status: int, code: str) -> None:
    """The list of verdicts is closed."""
    with pytest.raises(AmazonError) as caught:
        read_refund(answer({"reasonCode": code, "message": "m"}, status))
    assert (type(caught.value), caught.value.reason) == (AmazonRefusesUs, "amazon_refuses_us")


@pytest.mark.parametrize("status", [401, 403, 407, 426])
def test_a_status_that_speaks_of_who_asks_comes_before_the_code(status: int) -> None:
    """Decide on the class first."""
    with pytest.raises(AmazonRefusesUs):
        read_refund(answer({"reasonCode": "TransactionAmountExceeded", "message": "m"}, status))


@pytest.mark.parametrize("body", [b"<html>", b'{"message":"no Route matched"}', b"[]", b"TransactionAmountExceeded"])
@pytest.mark.parametrize("status", [400, 403, 404, 407, 409, 418, 422])
def test_a_page_of_something_on_the_way_refuses_the_request(status: int, body: bytes) -> None:
    """Amazon's own answers have a reason code, or a request id, or nothing at all in them."""
    with pytest.raises(AmazonRefusesUs):
        read_refund(answer(body, status))


@pytest.mark.parametrize(
    ("body", "headers"),
    [(b"", {}), (b"<html>", {"x_amz_pay_request_id": "a"}), (b'{"reasonCode":"ResourceNotFound"}', {})],
)
def test_a_404_that_may_be_amazons_is_not_found(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(AmazonNotFound):
        read_refund(answer(body, 404, **headers))


def test_a_refusal_holds_amazons_reason_and_message() -> None:
    """A signature error echoes the text that Amazon signed against: the first thing to compare."""
    said = "Unable to verify signature, signing String [AMZN-PAY-RSASSA-PSS-V2\n0123abcd]"
    with pytest.raises(AmazonRefusesUs) as caught:
        read_refund(answer({"reasonCode": "InvalidRequestSignature", "message": said}, 401))
    assert caught.value.reason_code == "InvalidRequestSignature"
    assert caught.value.detail == (
        "Amazon answered 401 InvalidRequestSignature: "
        "Unable to verify signature, signing String [AMZN-PAY-RSASSA-PSS-V2 0123abcd]"
    )


def test_a_refusals_text_is_bounded() -> None:
    """500 characters; odd codes and request ids are left out."""
    problem = {"reasonCode": "not a code", "message": "m" * 9_000}
    with pytest.raises(AmazonRefusesUs) as caught:
        read_refund(answer(problem, 400, x_amz_pay_request_id="a b\x00"))
    assert len(caught.value.detail) == 500
    assert (caught.value.reason_code, caught.value.amazon_request_id) == ("", None)


DATE = "Sun, 14 Jul 2019 15:53:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "9999999999"}, MAX_RETRY_AFTER),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 14 Jul 2019 15:53:30 GMT", "date": DATE}, 30),
        ({"retry-after": "Sunday, 14-Jul-19 15:53:30 GMT", "date": DATE}, 30),
        ({"retry-after": "Sun, 14 Jul 2019 15:52:00 GMT", "date": DATE}, 0),
        ({"retry-after": "Sun, 14 Jul 2029 15:52:00 GMT", "date": DATE}, MAX_RETRY_AFTER),
        ({"retry-after": "Sun, 14 Jul 2019 15:53:30 GMT"}, None),
        ({"retry-after": "Sun, 14 Jul 2019 15:53:30 GMT", "date": "today"}, None),
        ({"retry-after": "Sun, 14 Jul 2019 15:53:30 -0000", "date": DATE}, None),
        ({"retry-after": "Sun, 99 Jul 2019 15:53:30 GMT", "date": DATE}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: int | None) -> None:
    """A date is measured against the answer's own date: no clock is needed."""
    assert retry_after(headers) == seconds
    with pytest.raises(AmazonThrottled) as throttled:
        read_refund(Response(429, headers))
    assert throttled.value.retry_after == seconds
    with pytest.raises(AmazonOutcomeUnknown) as unknown:
        read_refund(Response(503, headers))
    assert unknown.value.retry_after == seconds


# --------------------------------------------------------------------------------------------------------- properties

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    *REFUND,
    *REFUND["statusDetails"],
    "statusDetail",
    "amount",
    "currencyCode",
    "captureAmount",
    "merchantMetadata",
]


@given(body=st.binary(max_size=300), code=st.integers(0, 1000), id_=st.none() | st.text(max_size=5))
@example(body=b'{"refundId":"a","statusDetails":{"state":"b"}}', code=200, id_="a")
def test_any_bytes_are_a_refund_or_an_amazon_error(body: bytes, code: int, id_: str | None) -> None:
    """No other exception, whatever comes back."""
    for read in (read_refund, read_charge):
        try:
            read(Response(code, {"retry-after": "x"}, body), id_)
        except AmazonError as error:
            assert len(error.detail) <= 500  # noqa: PT017 - both outcomes are fine


@settings(max_examples=400)
@given(
    values=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5),
    inner=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4),
    place=st.sampled_from(NAMES),
    whole=st.booleans(),
)
def test_any_json_is_a_refund_or_an_amazon_error(
    values: dict[str, Any], inner: dict[str, Any], place: str, whole: bool
) -> None:
    """Right names with anything in them; what is read is always safe to keep."""
    body = {**(REFUND if whole else {}), **values, place: inner}
    try:
        found = read_refund(answer(body))
    except AmazonOutcomeUnknown as error:
        assert error.reason == "amazon_unintelligible"  # noqa: PT017 - both outcomes are fine
    else:
        assert found.state.isascii()
        assert found.reason_description.isprintable()
        assert found.amount is None or isinstance(found.amount.amount, Decimal)
    try:
        read_charge(answer({**CHARGE, **body} if whole else body))
    except AmazonOutcomeUnknown as error:
        assert error.reason == "amazon_unintelligible"  # noqa: PT017 - both outcomes are fine
