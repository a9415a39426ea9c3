"""Command. `receiver verify`: checks captured notifications offline, by every rule of `/ipn` except deduplication.

A file holds an envelope, or `{"message": <envelope>, "cert_pem": "…"}`. A certificate inside the file proves
only that the file is consistent: pass Amazon's own with `--cert` if you doubt where the file comes from.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from receiver.amazon.notification import Notice, read_notice
from receiver.amazon.sns import strict_json
from receiver.amazon.sns.certificate import MAX_PEM, read_certificate
from receiver.amazon.sns.envelope import MAX_BODY, NOTIFICATION, Envelope, read_envelope
from receiver.amazon.sns.signature import check_claims, prove
from receiver.amazon.sns.topic import AMAZON_PAY_AWS_ACCOUNTS, TopicPattern
from receiver.errors import (
    ConfigurationError,
    InvalidNotification,
    Malformed,
    ReceiverError,
    TooLarge,
    VerificationFailed,
)
from receiver.ledger.timestamps import parse_any_time

MAX_FILE = 4 * MAX_BODY
ANY_TOPIC = "*"
UNRECOGNIZED = "unrecognized"


class Unrecognized(Exception):
    """It is from Amazon Pay, but not understood: `/ipn` answers 200 and keeps it."""


def verify_files(
    paths: Iterable[Path],
    *,
    cert: Path | None,
    at: str,
    topics: Sequence[str],
    now: Callable[[], int],
) -> Iterator[dict[str, str | None]]:
    """One dict per file: `file`, `verdict` (accepted, refused), `reason` (null when accepted, `unrecognized` where it
    is accepted and not understood), `refund_id` (or null).

    `at` is the moment to judge at: `now`, `message` (each message's own time) or RFC 3339. `topics` are patterns as in
    the configuration; `*` allows any topic, and messages that are not Amazon Pay's.
    Merchants are not checked, as no account is known. Raises `ConfigurationError` on an unusable `at` or `cert`.
    """
    moment = _moment(at, now)
    certificate = _read_option(cert)
    patterns = [TopicPattern(topic) for topic in topics]
    return (_verify(path, certificate, moment, patterns) for path in paths)


def _verify(
    path: Path, certificate: bytes | None, moment: int | None, patterns: Sequence[TopicPattern]
) -> dict[str, str | None]:
    try:
        body, own = _read_file(path)
        notice = _judge(body, certificate or own, moment, patterns)
    except Unrecognized:
        return {"file": str(path), "verdict": "accepted", "reason": UNRECOGNIZED, "refund_id": None}
    except ReceiverError as error:
        return {"file": str(path), "verdict": "refused", "reason": error.reason, "refund_id": None}
    is_real_refund = notice is not None and notice.is_refund and not notice.is_sample
    refund_id = notice.object_id if notice and is_real_refund else None
    return {"file": str(path), "verdict": "accepted", "reason": None, "refund_id": refund_id}


def _judge(body: bytes, pem: bytes | None, moment: int | None, patterns: Sequence[TopicPattern]) -> Notice | None:
    """The checks of `receive/receiver.py`, with a given certificate in place of a fetched one."""
    if len(body) > MAX_BODY:
        raise TooLarge()
    envelope = read_envelope(body)
    if not any(pattern.matches(envelope.topic_arn) for pattern in patterns):
        raise VerificationFailed("The topic is not one that is allowed.", reason="wrong_topic")
    at = envelope.timestamp if moment is None else moment
    name = check_claims(envelope, at)
    if pem is None:
        raise VerificationFailed("No certificate: pass one with --cert.", reason="certificate_missing")
    certificate = read_certificate(pem)
    if certificate.name != name:
        raise VerificationFailed("The certificate does not match its file name.", reason="certificate_not_as_named")
    prove(envelope, certificate, at)
    return _read_notice(envelope, patterns) if envelope.type == NOTIFICATION else None


def _read_notice(envelope: Envelope, patterns: Sequence[TopicPattern]) -> Notice | None:
    """The notice inside; None for a message that is not Amazon Pay's, which only `*` allows.

    Raises `Unrecognized` for a message of Amazon Pay that is not understood.
    """
    with contextlib.suppress(Malformed):
        notice = read_notice(envelope.message)
        if notice.is_known:
            return notice
    pinned = any(pattern.text != ANY_TOPIC and pattern.matches(envelope.topic_arn) for pattern in patterns)
    if pinned or envelope.aws_account in AMAZON_PAY_AWS_ACCOUNTS:
        raise Unrecognized
    return None


def _read_file(path: Path) -> tuple[bytes, bytes | None]:
    """The envelope's bytes, and the file's certificate if it has one."""
    try:
        with path.open("rb") as file:
            body = file.read(MAX_FILE + 1)
    except OSError as error:
        raise InvalidNotification("The file cannot be read.", reason="file_unreadable") from error
    if len(body) > MAX_FILE:
        raise TooLarge()
    match strict_json.parse(body):
        case {"message": dict() as message, "cert_pem": str() as pem}:
            # Escaped to ASCII, so that half a surrogate pair is still found by the reader of envelopes.
            return json.dumps(message, separators=(",", ":")).encode(), pem.encode(errors="replace")
    return body, None


def _moment(at: str, now: Callable[[], int]) -> int | None:
    """ms since the epoch; None for each message's own time."""
    if at == "message":
        return None
    if at == "now":
        return now()
    try:
        return parse_any_time(at)
    except Malformed as error:
        problem = f"--at {at!r}: give now, message, or a time with its zone such as 2026-01-31T12:00:00Z."
        raise ConfigurationError([problem]) from error


def _read_option(cert: Path | None) -> bytes | None:
    if cert is None:
        return None
    try:
        with cert.open("rb") as file:
            return file.read(MAX_PEM + 1)
    except OSError as error:
        raise ConfigurationError([f"--cert {str(cert)!r} cannot be read: {error.strerror}."]) from error
