"""The status notification of Flexible Payments is read strictly, into a hint."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.amazon.fps.notification import StatusNotification, read_status_notification
from receiver.errors import Malformed

BODY = (
    b"transactionId=14GK6F2QU755ODS27SGHEURLKPG72Z54KMF&transactionDate=1254987247&status=SUCCESS&operation=REFUND"
    b"&transactionAmount=USD+3.50&buyerName=Bea%20B%C3%BCyer&callerReference=w908dnwf092987&paymentMethod=CC"
    b"&signatureMethod=RSA-SHA1&signatureVersion=2&signature=AbC%2B%2F%0A9%3D%3D"
    b"&certificateUrl=https%3A%2F%2Ffps.sandbox.amazonaws.com%2Fcerts%2F090909%2FPKICert.pem"
)
READ = StatusNotification("w908dnwf092987", "14GK6F2QU755ODS27SGHEURLKPG72Z54KMF", "SUCCESS", "REFUND")


def test_a_notification_of_a_refund_gives_reference_transaction_and_status() -> None:
    """And nothing else of it: it is a hint."""
    assert read_status_notification(BODY) == READ
    assert READ.is_refund


@pytest.mark.parametrize(
    "name", [b"callerReference", b"referenceId", b"RefundTransactionReference", b"CALLERREFERENCE"]
)
def test_the_reference_has_many_names(name: bytes) -> None:
    """FPS and Simple Pay spell them differently; case does not count."""
    assert read_status_notification(BODY.replace(b"callerReference", name)) == READ


def test_simple_pays_codes_tell_a_refund_where_no_operation_is_named() -> None:
    """RS and RF; PS is a payment."""
    bare = BODY.replace(b"&operation=REFUND", b"")
    assert read_status_notification(bare.replace(b"SUCCESS", b"RS")).is_refund
    assert read_status_notification(bare.replace(b"SUCCESS", b"RF")).is_refund
    assert not read_status_notification(bare.replace(b"SUCCESS", b"PS")).is_refund
    assert read_status_notification(BODY.replace(b"=REFUND", b"=refund")).operation == "REFUND"


def test_of_other_operations_odd_ids_are_left_out() -> None:
    """They concern no account here, and must not become keys."""
    body = BODY.replace(b"=REFUND", b"=PAY").replace(b"w908dnwf092987", b"order+12%2F3").replace(b"=14GK", b"=%21")
    assert read_status_notification(body) == StatusNotification("", "", "SUCCESS", "PAY")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"&",
        BODY + b"&",
        b"&" + BODY,
        BODY + b"&status=FAILURE",
        BODY + b"&Status=SUCCESS",
        BODY + b"&%73tatus=SUCCESS",
        BODY + b"&lonely",
        BODY + b"&=nameless",
        BODY + b"&x=%",
        BODY + b"&x=%4",
        BODY + b"&x=%GG",
        BODY + b"&x=%ff",
        BODY + b"&x=\xc3\xbc",
        BODY + b"&x=a\nb",
        BODY + b"&x=a b",
        BODY + b"&a%20b=1",
        BODY + b"&" + b"n" * 65 + b"=1",
        BODY + b"&x=" + b"y" * 16_384,
        BODY + b"".join(b"&n%d=1" % number for number in range(100)),
        BODY.replace(b"status=SUCCESS&", b""),
        BODY.replace(b"=SUCCESS", b"="),
        BODY.replace(b"=SUCCESS", b"=SUC+CESS"),
        BODY.replace(b"=REFUND", b"=RE-FUND"),
        BODY.replace(b"=w908dnwf092987", b"="),
        BODY.replace(b"=w908dnwf092987", b"=a%2Fb"),
        BODY.replace(b"=w908dnwf092987", b"=" + b"r" * 65),
        BODY.replace(b"=14GK", b"=%2F14GK"),
        b'{"status": "SUCCESS"}',
    ],
)
def test_what_could_be_read_in_two_ways_is_unreadable(body: bytes) -> None:
    """Doubled names, also in another case or encoding; broken escapes; other encodings; sizes; malformed values."""
    with pytest.raises(Malformed) as caught:
        read_status_notification(body)
    assert caught.value.reason == "notification_unreadable"


def test_the_bounds_are_exact() -> None:
    """16 KiB and 100 fields are read, one more is not."""
    longest = BODY + b"&x=" + b"y" * (16_384 - len(BODY) - 3)
    assert read_status_notification(longest) == READ
    fields = BODY.count(b"&") + 1
    most = BODY + b"".join(b"&n%d=" % number for number in range(100 - fields))
    assert read_status_notification(most) == READ
    for body in (longest + b"y", most + b"&last="):
        with pytest.raises(Malformed):
            read_status_notification(body)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_notification_or_unreadable(body: bytes) -> None:
    """The parser has one way to fail."""
    with suppress(Malformed):
        read_status_notification(body)


@settings(deadline=None)
@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.text(st.characters(codec="utf-8"), max_size=20))
)
def test_every_well_made_form_around_a_refund_is_read(extra: dict[str, str]) -> None:
    """Whatever else it says."""
    known = {"status", "operation"}
    body = urlencode({name: value for name, value in extra.items() if name not in known}).encode()
    assert read_status_notification(BODY + (b"&" + body if body else b"")) == READ
