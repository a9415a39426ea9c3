"""Distinct notifications, signed as SNS signs: real RSA."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import msgspec

from receiver.ledger.refund import Observation
from tests.benchmarks.load import request
from tests.kit.sns import SnsSigner, headers, notice, rsa_key
from tests.store.makers import seen

MERCHANT = "A2ZABCDEFGHIJ"
LIFETIME = 300 * 86_400_000


def now() -> int:
    """ms since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def signer(at: int) -> SnsSigner:
    """The one signing certificate; `at` is ms."""
    return SnsSigner(not_before=at - 86_400_000, not_after=at + LIFETIME)


def refund_id(number: int) -> str:
    """The id of a sandbox refund."""
    return f"S01-{number // 10**7 % 10**7:07d}-{number % 10**7:07d}-R{number % 10**6:06d}"


def charge_of(refund: str) -> str:
    """The id of a refund's charge; each refund has a different one."""
    return refund.replace("-R", "-C")


def found(state: str, number: int, reason: str = "") -> Observation:
    """Amazon's answer about a refund that is a minute old."""
    refund, created = refund_id(number), now() - 60_000
    what = {"refund_id": refund, "charge_id": charge_of(refund), "created_at": created, "updated_at": created}
    return msgspec.structs.replace(seen(state, 1, reason), **what)


def post(sns: SnsSigner, at: int, version: int, number: int) -> bytes:
    """The whole request of one notification."""
    message = notice(ObjectId=refund_id(number), MerchantID=MERCHANT, NotificationId=f"benchmark-{number}")
    envelope = sns.envelope(message, timestamp_ms=at, version=version)
    return _request(envelope)


def wrong_signature(sns: SnsSigner, at: int, number: int) -> bytes:
    """A notification whose signature belongs to another message id."""
    envelope = sns.envelope(notice(MerchantID=MERCHANT), timestamp_ms=at)
    return _request({**envelope, "MessageId": f"00000000-0000-4000-8000-{number:012d}"})


def wrong_topic(sns: SnsSigner, at: int) -> bytes:
    """A genuine message of a topic in another AWS account."""
    foreign = "arn:aws:sns:us-east-1:123456789012:mine"
    return _request(sns.envelope(notice(MerchantID=MERCHANT), topic_arn=foreign, timestamp_ms=at))


def _request(envelope: dict[str, object]) -> bytes:
    body = json.dumps(envelope).encode()
    return request("/ipn", body, *(f"{name}: {value}" for name, value in headers(envelope).items()))


def _some(at: int, version: int, numbers: range) -> list[bytes]:
    sns = signer(at)
    return [post(sns, at, version, number) for number in numbers]


def sign_many(at: int, first: int, count: int, version: int = 1) -> list[bytes]:
    """This many distinct requests, signed on every core."""
    rsa_key()  # made before the processes part, so that all have the same
    workers = os.cpu_count() or 1
    step = -(-count // (workers * 4))
    parts = [range(start, min(start + step, first + count)) for start in range(first, first + count, step)]
    with ProcessPoolExecutor(workers, get_context("fork")) as pool:
        return [each for part in pool.map(partial(_some, at, version), parts) for each in part]
