"""`POST /ipn` end to end: real signatures, real Valkey, real sockets; every row of the table of answers."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from receiver.receive.receiver import Receiver
from receiver.store import Store
from receiver.store.redis.pipeline import connect
from tests.http.kit import Service, real_receiver, running, settings
from tests.kit.sns import NOW, REFUND_ID, SnsSigner, notice

STRANGER = "arn:aws:sns:us-east-1:666666666666:x"


@pytest.fixture
def receiver(sns: SnsSigner, store: Store) -> Receiver:
    return real_receiver(sns, store)


@pytest.fixture
async def service(receiver: Receiver, store: Store) -> AsyncIterator[Service]:
    async with running(settings(), store, receiver) as service:
        yield service


async def test_a_believed_notification_is_written_and_answered_200(
    service: Service, sns: SnsSigner, redis: Redis
) -> None:
    """The hint is in Redis when the answer comes; the answer has no body; one line tells of it."""
    body = sns.post_body(timestamp_ms=NOW - 4_000)
    with capture_logs() as lines:
        answer = await service.call("POST", "/ipn", body=body)
    assert (answer.status, answer.body) == (200, b"")
    assert await redis.zscore("refunds:{us}:hinted", REFUND_ID) is not None
    assert service.counted("noted") == 1
    (line,) = [line for line in lines if line["event"].startswith("ipn.")]
    assert line["event"] == "ipn.answered"
    assert (line["outcome"], line["refund_id"], line["age_ms"], line["accounts"]) == (
        "noted",
        REFUND_ID,
        4_000,
        ("us",),
    )
    assert line["duration_ms"] >= 0


@pytest.mark.parametrize("path", ["/ipn/", "/ipn/us", "/ipn/us/"])
async def test_every_spelling_of_the_path_is_served(service: Service, sns: SnsSigner, path: str) -> None:
    """SNS does not follow redirects, so a slash at the end must not cost a notification."""
    assert (await service.call("POST", path, body=sns.post_body())).status == 200


async def test_repetitions_and_other_objects_are_answered_200(service: Service, sns: SnsSigner) -> None:
    """They need no second delivery."""
    body = sns.post_body()
    assert [(await service.call("POST", "/ipn", body=body)).status for _ in range(2)] == [200, 200]
    assert (await service.call("POST", "/ipn", body=sns.post_body(notice(ObjectType="CHARGE")))).status == 200
    assert [service.counted(outcome) for outcome in ("noted", "repeated", "not_a_refund")] == [1, 1, 1]


REFUSED = {
    "not JSON": (b"{", 400, "not_json"),
    "empty": (b"", 400, "not_json"),
    "deep": (b"[" * 2_000, 400, "too_deep"),
    "two topics": (b'{"TopicArn":"a","TopicArn":"b"}', 400, "duplicate_key"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_unreadable_bodies_are_400(service: Service, redis: Redis, name: str) -> None:
    """Without a word of explanation outside, and without a trace in Redis."""
    body, status, reason = REFUSED[name]
    with capture_logs() as lines:
        answer = await service.call("POST", "/ipn", body=body)
    assert (answer.status, answer.body) == (status, b"")
    assert service.counted("refused", reason) == 1
    assert await redis.dbsize() == 0
    (line,) = [line for line in lines if line["event"] == "ipn.answered"]
    assert (line["outcome"], line["reason"], line["log_level"]) == ("refused", reason, "warning")


async def test_what_is_not_proven_is_403(service: Service, sns: SnsSigner, redis: Redis) -> None:
    """A stranger's topic, a forged signature, an old message: 403, and nothing written."""
    forged = {**sns.envelope(), "Message": notice(ObjectId="S01-0000000-0000000-R000000")}
    bodies = {
        "wrong_topic": sns.post_body(topic_arn=STRANGER),
        "bad_signature": json.dumps(forged).encode(),
        "too_old": sns.post_body(timestamp_ms=NOW - 16 * 86_400_000),
        "wrong_certificate_address": sns.post_body(SigningCertURL="https://sns.us-east-1.amazonaws.com/x.pem"),
    }
    for reason, body in bodies.items():
        answer = await service.call("POST", "/ipn", body=body)
        assert (answer.status, answer.body) == (403, b""), reason
        assert service.counted("refused", reason) == 1
    assert await redis.dbsize() == 0


async def test_our_own_trouble_is_503_with_retry_after(service: Service, sns: SnsSigner) -> None:
    """A message from the future, an unconfigured topic or merchant, an unknown account."""
    unknown = "arn:aws:sns:us-west-2:291180941288:A31YDYE76E6TCPA3G30QK8ZESA0D"
    cases = [
        ("/ipn", sns.post_body(timestamp_ms=NOW + 301_000), "dated_in_future", "60"),
        ("/ipn", sns.post_body(topic_arn=unknown), "unconfigured_topic", "600"),
        ("/ipn", sns.post_body(notice(MerchantID="A2SOMEBODYELSE")), "unconfigured_merchant", "600"),
        ("/ipn/old-name", sns.post_body(), "unconfigured_account", "600"),
    ]
    for path, body, reason, wait in cases:
        answer = await service.call("POST", path, body=body)
        assert (answer.status, answer.headers.get("Retry-After"), answer.body) == (503, wait, b""), reason
        assert service.counted("unavailable", reason) == 1


async def test_without_redis_nothing_is_acknowledged(sns: SnsSigner) -> None:
    """A genuine notification is answered 503 while Redis is away, so that it comes again."""
    store = Store(connect("redis://127.0.0.1:1"))
    try:
        async with running(settings(), store, real_receiver(sns, store)) as service:
            answer = await service.call("POST", "/ipn", body=sns.post_body())
        assert (answer.status, answer.headers["Retry-After"], answer.body) == (503, "5", b"")
        assert service.counted("unavailable", "store_unreachable") == 1
    finally:
        await store.close()


async def test_compressed_bodies_are_415(service: Service, sns: SnsSigner) -> None:
    """SNS sends none; nothing is decompressed for any sender."""
    body = gzip.compress(sns.post_body())
    for encoding in ("gzip", "br", "identity, gzip", "x"):
        answer = await service.call("POST", "/ipn", body=body, headers={"Content-Encoding": encoding})
        assert (answer.status, answer.body) == (415, b"")
    identity = await service.call("POST", "/ipn", body=sns.post_body(), headers={"Content-Encoding": "identity"})
    assert identity.status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods_are_405(service: Service, method: str) -> None:
    """With the method that is allowed."""
    answer = await service.call(method, "/ipn")
    assert (answer.status, answer.headers["Allow"], answer.body) == (405, "POST", b"")


async def test_neither_body_nor_signature_reach_the_log(service: Service, sns: SnsSigner) -> None:
    """Whatever is wrong with a message, its content stays out of the log."""
    marked = "hunter2-in-the-message"
    envelope = sns.envelope(notice(NotificationId=marked))
    bodies = [
        json.dumps({**envelope, "Timestamp": marked}).encode(),
        json.dumps({**envelope, "Signature": envelope["Signature"][:-8] + "AAAAAAA="}).encode(),
        json.dumps({**envelope, "TopicArn": f"arn:aws:sns:us-east-1:666666666666:{marked}"}).encode(),
        marked.encode(),
        sns.post_body(kind="SubscriptionConfirmation", Message=marked),
    ]
    with capture_logs() as lines:
        for body in bodies:
            await service.call("POST", "/ipn", body=body)
    assert len([line for line in lines if line["event"] == "ipn.answered"]) == len(bodies)
    text = repr(lines)
    assert marked not in text
    assert envelope["Signature"][:40] not in text
    assert "2336412f37fb687f" not in text


async def test_answers_carry_an_id_and_are_not_kept(service: Service, sns: SnsSigner) -> None:
    """The id stands on the log line too, so that both can be matched."""
    answer = await service.call("POST", "/ipn", body=sns.post_body(), headers={"X-Request-Id": "trace-1"})
    assert answer.headers["X-Request-Id"] == "trace-1"
    assert answer.headers["Cache-Control"] == "no-store"
    odd = await service.call("POST", "/ipn", body=b"", headers={"X-Request-Id": "a b"})
    assert len(odd.headers["X-Request-Id"]) == 32
