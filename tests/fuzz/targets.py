"""The fuzz targets: each takes any bytes, and raises if a property does not hold for them.

A target accepts only the errors that its reader documents. `python -m tests.fuzz TARGET` searches for bytes that break
a property; `corpus/<target>/` has the initial inputs, including all that ever broke one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from receiver.amazon import calls
from receiver.amazon.fps import calls as fps
from receiver.amazon.fps.notification import StatusNotification, read_status_notification
from receiver.amazon.notification import Notice, read_notice
from receiver.amazon.sns.envelope import Envelope, read_envelope
from receiver.amazon.sns.signature import check_address, check_age
from receiver.errors import AmazonError, Malformed, TransportError, Unavailable, VerificationFailed
from receiver.exchange import Response
from receiver.ledger.age import DAY
from receiver.ledger.dispute import Dispute, dispute_json, standing
from receiver.ledger.next_look import after_dispute
from receiver.ledger.refund import REFUND_ID, Observation
from receiver.outbox import retries
from receiver.runtime.metrics import REASONS
from tests.fuzz.names import CORPUS, NAMES
from tests.kit.clock import T0
from tests.kit.sns import signed_text

STATUSES = (200, 201, 204, 301, 400, 404, 408, 410, 425, 429, 500, 503, 599, 100)
ORDER = fps.FpsRefundRequest("208sg0849sfwers082", "w908dnwf092987")
DISPUTE = Dispute(dispute_id="S01-5105180-3221187-B000001", charge_permission_id="S01-5105180-3221187", told_at=T0 - 1)
LONGEST_TEXT = 600
"""Characters of what people are shown of an answer."""


def envelope(data: bytes) -> None:
    """From any sender: an envelope whose signed text is the one that SNS defines, or a refusal with a known reason."""
    try:
        found = read_envelope(data)
    except Malformed as error:
        assert error.reason in REASONS, error.reason
        return
    fields = json.loads(data)
    assert isinstance(found, Envelope)
    assert found.signed_text == signed_text(fields)
    assert (found.message, found.topic_arn, found.message_id) == tuple(
        fields[name] for name in ("Message", "TopicArn", "MessageId")
    )
    for check in (lambda: check_address(found), lambda: check_age(found, T0)):
        try:
            check()
        except (VerificationFailed, Unavailable) as error:
            assert error.reason in REASONS, error.reason


def notice(data: bytes) -> None:
    """The text inside an accepted envelope: it is Amazon's, but nothing is assumed about it."""
    _notice(data.decode("utf-8", "surrogateescape"))


def xml(data: bytes) -> None:
    """The XML inside a notice of the older generation."""
    _notice(
        json.dumps(
            {
                "NotificationType": "PaymentRefund",
                "SellerId": "A2ZABCDEFGHIJ",
                "NotificationData": data.decode("utf-8", "surrogateescape"),
            }
        )
    )


def _notice(text: str) -> None:
    try:
        found = read_notice(text)
    except Malformed as error:
        assert error.reason == "notice_unreadable"
        return
    assert isinstance(found, Notice)
    assert REFUND_ID.fullmatch(found.object_id) or not found.is_refund
    assert found.merchant_id.isalnum()
    assert all(len(each) <= 64 for each in (found.merchant_id, found.notification_type, found.refund_type))


def fps_form(data: bytes) -> None:
    """A status notification of Flexible Payments, which nothing proves."""
    try:
        found = read_status_notification(data)
    except Malformed as error:
        assert error.reason == "notification_unreadable"
        return
    assert isinstance(found, StatusNotification)
    assert REFUND_ID.fullmatch(found.reference) or not (found.is_refund or found.reference)
    assert found.status.isalpha()


def fps_answer(data: bytes) -> None:
    """What Flexible Payments answers; the first byte chooses the status."""
    response = answer(data)
    with suppress(AmazonError):
        found = fps.read_refund(response, ORDER, T0)
        _observation(found.observation)
        assert 200 <= response.status < 300
        assert found.observation.refund_id == ORDER.reference


def amazon_answer(data: bytes) -> None:
    """What the Get calls answer; the first byte chooses the status, a line of headers may follow."""
    response = answer(data)
    with suppress(AmazonError):
        _observation(calls.read_refund(response))
        assert 200 <= response.status < 300
    with suppress(AmazonError):
        charge = calls.read_charge(response)
        assert REFUND_ID.fullmatch(charge.charge_id)
    with suppress(AmazonError):
        dispute = calls.read_dispute(response)
        assert REFUND_ID.fullmatch(dispute.dispute_id)
        look = after_dispute(DISPUTE, dispute, T0, 0.0)
        assert look.at is None or T0 <= look.at <= T0 + 8 * DAY
        assert standing(look.dispute)
        assert dispute_json(look.dispute)
    try:
        calls.read_refund(response, "S01-5105180-3221187-R022311")
    except AmazonError as error:
        assert len(error.detail) <= LONGEST_TEXT, error.detail
        assert 0 <= (error.retry_after or 0) <= 86_400


def _observation(found: Observation) -> None:
    assert REFUND_ID.fullmatch(found.refund_id)
    assert found.state
    assert len(found.reason_description) <= LONGEST_TEXT
    assert found.amount is None or found.amount.amount.is_finite()


def subscriber_answer(data: bytes) -> None:
    """What a subscriber answers; the first byte chooses status and attempts, a line of headers may follow."""
    tried = (
        retries.DeliveryAttempts(count=data[0] % 13, first_at=T0 - data[0] * 3_600_000)
        if data
        else retries.DeliveryAttempts()
    )
    response = answer(data)
    for said in (response, TransportError(response.body.decode("utf-8", "replace"), reason="connect_failed")):
        verdict = retries.judge(said, tried, T0, 0.5)
        if isinstance(verdict, retries.Retry):
            assert T0 < verdict.at < retries.deadline(tried, T0)
        written = retries.record(said, tried, verdict, T0)
        assert tried.count <= written.count <= tried.count + 1
        for text in (written.last_error, written.excerpt):
            assert len(text) <= retries.LONGEST_EXCERPT
            assert text.isprintable(), text


def answer(data: bytes) -> Response:
    """An answer out of bytes: status, then perhaps `name: value` lines and an empty one, then the body."""
    status = STATUSES[data[0] % len(STATUSES)] if data else 200
    head, found, body = data[1:].partition(b"\n\n")
    if not found:
        return Response(status, {}, data[1:])
    pairs = [line.partition(b":") for line in head.split(b"\n")]
    headers = {name.decode("latin-1").strip().lower(): value.decode("latin-1").strip() for name, _, value in pairs}
    return Response(status, headers, body)


TARGETS: dict[str, Callable[[bytes], None]] = {name: globals()[name] for name in NAMES}


def seeds(name: str) -> list[Path]:
    """The corpus of a target."""
    return sorted((CORPUS / name).iterdir())
