"""The bounds of Amazon's answers, one by one: the error names the bound, and the time is linear in the length."""

from __future__ import annotations

import gzip
import time

import pytest

from receiver.amazon.answers import judge
from receiver.amazon.fps import calls
from receiver.errors import AmazonError, AmazonNotFound, AmazonOutcomeUnknown, AmazonRefusesUs, AmazonThrottled
from receiver.exchange import Response

ID = {"x-amz-pay-request-id": "abc"}
DEEP = b"[" * 17 + b"]" * 17
OVER = {
    "longer than": Response(200, {}, b'{"a":1}', truncated=True),
    "nested deeper than 16 levels": Response(200, {}, b'{"reasonCode":"ResourceNotFound","a":' + DEEP + b"}"),
    "content encoding gzip": Response(200, {"content-encoding": "GZIP"}, gzip.compress(b'{"a":1}')),
    "not JSON": Response(200, {}, '{"a":1}'.encode("utf-16")),
    "not a JSON object": Response(200, {}, b"null"),
}


@pytest.mark.parametrize("what", OVER)
def test_what_is_over_a_bound_is_said(what: str) -> None:
    """As a fault of Amazon's, not as a statement about the refund."""
    with pytest.raises(AmazonOutcomeUnknown) as caught:
        judge(OVER[what])
    assert caught.value.reason == "amazon_unintelligible"
    assert what in caught.value.detail


@pytest.mark.parametrize("over", list(OVER.values())[:2])
@pytest.mark.parametrize(
    ("status", "error"),
    [(400, AmazonRefusesUs), (404, AmazonRefusesUs), (429, AmazonThrottled), (500, AmazonOutcomeUnknown)],
)
def test_a_refusal_over_a_bound_is_no_verdict(over: Response, status: int, error: type[AmazonError]) -> None:
    """The status alone counts, with the fields of the head."""
    with pytest.raises(error) as caught:
        judge(Response(status, {**ID, "retry-after": "7"}, over.body, over.truncated))
    assert type(caught.value) is error
    assert not caught.value.reason_code
    assert caught.value.amazon_request_id == "abc"


def test_a_404_of_amazon_is_one() -> None:
    """Within the bounds."""
    with pytest.raises(AmazonNotFound):
        judge(Response(404, ID, b'{"reasonCode":"ResourceNotFound"}'))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 65_536,
        b'{"a":' * 13_000,
        b'{"a":"' + b'\\"' * 32_000,
        b"{" + b'"":0,' * 13_000 + b'"":0}',
        b"{" + b",".join(b'"%d":0' % n for n in range(7_000)) + b"}",
        b"1" * 65_536,
        b"[" + b"1e999999," * 7_000 + b"1]",
        b'"' + b"\xff" * 65_000 + b'"',
    ],
)
def test_no_answer_takes_more_than_its_length(body: bytes) -> None:
    """64 KiB of the worst known input take less than a second of CPU. A time that grew with the square of the length
    would be a minute."""
    began = time.process_time()
    for status in (200, 400):
        try:
            judge(Response(status, {}, body))
        except AmazonError as error:
            assert len(error.detail) <= 500  # noqa: PT017 - both outcomes are fine
    assert time.process_time() - began < 1


XML = "<RefundResponse>{}</RefundResponse>"
FPS = {
    "longer than": Response(200, {}, XML.format("").encode(), truncated=True),
    "nested deeper": Response(200, {}, XML.format("<a>" * 5_000 + "</a>" * 5_000).encode()),
    "content encoding gzip": Response(200, {"content-encoding": "gzip"}, gzip.compress(XML.format("").encode())),
    "not plain XML": Response(200, {}, b'<!DOCTYPE x [<!ENTITY a "b">]>' + XML.format("&a;").encode()),
    "not one RefundResult": Response(200, {}, XML.format("<RefundResult/>" * 2).encode()),
}


@pytest.mark.parametrize("what", FPS)
def test_answers_of_flexible_payments_have_the_same(what: str) -> None:
    """A 2xx over a bound does not say what happened to the refund; a 4xx over a bound is no verdict."""
    order = calls.FpsRefundRequest("208sg0849sfwers082", "w908dnwf092987")
    with pytest.raises(AmazonOutcomeUnknown) as caught:
        calls.read_refund(FPS[what], order, 0)
    assert caught.value.reason == "amazon_unintelligible"
    assert what in caught.value.detail
    with pytest.raises((AmazonRefusesUs, AmazonOutcomeUnknown)):
        calls.read_refund(Response(400, {}, FPS[what].body, FPS[what].truncated), order, 0)
