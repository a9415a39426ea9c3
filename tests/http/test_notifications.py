"""What is proven and not understood, from the POST of SNS to the person who reads it, on a real Valkey."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from receiver.amazon.account import Environment
from receiver.amazon.sns.topic import TopicPattern
from receiver.receive.certificates import CertificateStore
from receiver.receive.receiver import Receiver
from receiver.store import Store
from tests.http.kit import ADMIN, READER, REFUNDER, US_ONLY, Service, no_fetch, running, settings
from tests.kit.accounts import MERCHANT, TOPIC, make_account
from tests.kit.sns import NOW, REFUND_ID, SnsSigner, notice

LIVE_ID = "P01-0000000-0000001-R000001"
EVERYBODYS = "arn:aws:sns:us-east-1:291180941288:Everybody"


@pytest.fixture
async def service(store: Store, sns: SnsSigner) -> AsyncIterator[Service]:
    """Two accounts of one merchant, and one of another on the same topics."""
    topics = (TopicPattern("arn:aws:sns:us-east-1:291180941288:*"),)
    accounts = [
        make_account("us", topics=topics),
        make_account("shop", topics=topics, environment=Environment.LIVE),
        make_account("other", topics=topics, merchant_id=f"{MERCHANT}2"),
    ]
    certificates = CertificateStore(no_fetch, lambda: NOW, pinned={sns.url: sns.pem})
    receiver = Receiver(accounts, certificates, store, lambda: NOW)
    async with running(settings("us", "shop", "other"), store, receiver) as service:
        yield service


async def listed(service: Service, token: str = ADMIN, query: str = "") -> list[dict[str, Any]]:
    answer = await service.call("GET", f"/v1/notifications{query}", token=token)
    assert answer.status == 200
    body = json.loads(answer.body)
    assert body["more"] is False
    found: list[dict[str, Any]] = body["notifications"]
    return found


async def test_it_is_answered_200_kept_and_its_refunds_are_asked_about(
    service: Service, sns: SnsSigner, redis: Redis
) -> None:
    """Durably, before the answer. Its text is for administrators, and never in the log."""
    message = f"Amazon Pay: a buyer called Jane; refunds {REFUND_ID} and {LIVE_ID}"
    fields = sns.envelope(message, Subject="a new kind", timestamp_ms=NOW - 4_000)
    with capture_logs() as logs:
        answer = await service.call("POST", "/ipn", body=json.dumps(fields).encode())
    assert (answer.status, answer.body) == (200, b"")
    assert "Jane" not in json.dumps(logs, default=str)
    assert await redis.zscore("refunds:{us}:hinted", REFUND_ID) is not None
    assert await redis.zscore("refunds:{shop}:hinted", LIVE_ID) is not None
    assert service.counted("unrecognized") == 1
    [found] = await listed(service)
    assert found == {
        "notificationId": fields["MessageId"],
        "accounts": ["us", "shop"],
        "topicArn": TOPIC,
        "sentAt": "2025-12-31T23:59:56.000Z",
        "receivedAt": "2026-01-01T00:00:00.000Z",
        "problem": "The message inside is not a notice of Amazon Pay: The body is not JSON.",
        "refundIds": [REFUND_ID, LIVE_ID],
        "refundCount": 2,
        "size": len(message),
        "subject": "a new kind",
    }
    shown = await service.call("GET", f"/v1/notifications/{fields['MessageId']}", token=ADMIN)
    assert json.loads(shown.body) == {**found, "message": message}


async def test_a_repetition_is_one_and_a_known_notice_is_none(service: Service, sns: SnsSigner) -> None:
    """SNS repeats messages. A notification about a charge is understood."""
    body = sns.post_body(notice(ObjectType="PAYOUT"))
    for _ in range(3):
        assert (await service.call("POST", "/ipn", body=body)).status == 200
    for kind in ("REFUND", "CHARGE", "CHARGE_PERMISSION"):
        assert (await service.call("POST", "/ipn", body=sns.post_body(notice(ObjectType=kind)))).status == 200
    [found] = await listed(service)
    assert found["problem"] == "Objects of the type PAYOUT are not known to this version."
    assert found["refundIds"] == [REFUND_ID]


async def test_only_administrators_read_it_and_only_of_their_accounts(service: Service, sns: SnsSigner) -> None:
    """What may be for several merchants is for a token that sees all of them."""
    of_other = sns.envelope(notice(ObjectType="PAYOUT", MerchantID=f"{MERCHANT}2"))
    of_both = sns.envelope("to whom it may concern", topic_arn=EVERYBODYS)
    for fields in (of_other, of_both):
        assert (await service.call("POST", "/ipn", body=json.dumps(fields).encode())).status == 200
    assert {each["notificationId"] for each in await listed(service)} == {of_other["MessageId"], of_both["MessageId"]}
    assert await listed(service, US_ONLY) == []
    assert [each["notificationId"] for each in await listed(service, query="?account=us")] == [of_both["MessageId"]]
    for fields in (of_other, of_both):
        path = f"/v1/notifications/{fields['MessageId']}"
        assert (await service.call("GET", path, token=ADMIN)).status == 200
        assert (await service.call("GET", path, token=US_ONLY)).status == 404
        for token in (READER, REFUNDER):
            assert (await service.call("GET", path, token=token)).status == 403
    assert (await service.call("GET", "/v1/notifications", token=READER)).status == 403
    assert (await service.call("GET", "/v1/notifications")).status == 401


async def test_the_newest_are_shown_and_that_there_are_more(service: Service, sns: SnsSigner) -> None:
    """A copy in each account of the merchant is one."""
    for number in range(3):
        body = sns.post_body(f"news {number}")
        assert (await service.call("POST", "/ipn", body=body)).status == 200
    for limit, more in ((2, True), (3, False)):
        answer = await service.call("GET", f"/v1/notifications?limit={limit}", token=ADMIN)
        found = json.loads(answer.body)
        assert (len(found["notifications"]), found["more"]) == (limit, more)


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/v1/notifications/1", 400, "bad_notification_id"),
        (f"/v1/notifications/{uuid.UUID(int=0)}", 404, "no_such_notification"),
        ("/v1/notifications?limit=0", 400, "bad_parameter"),
        ("/v1/notifications?limit=1001", 400, "bad_parameter"),
        ("/v1/notifications?cursor=x", 400, "unknown_parameter"),
        ("/v1/notifications?account=none", 404, "no_such_account"),
    ],
)
async def test_wrong_requests_are_told_what_is_wrong(service: Service, path: str, status: int, reason: str) -> None:
    answer = await service.call("GET", path, token=ADMIN)
    assert (answer.status, json.loads(answer.body)["reason"]) == (status, reason)


@pytest.mark.parametrize("key", ["unrecognized", "unrecognized:messages"])
async def test_what_could_not_be_kept_is_not_acknowledged(
    service: Service, sns: SnsSigner, redis: Redis, key: str
) -> None:
    """503, and SNS sends it again: then it is kept."""
    body = sns.post_body("new generation")
    await redis.set(f"refunds:{{us}}:{key}", "foreign")
    assert (await service.call("POST", "/ipn", body=body)).status == 503
    await redis.delete(f"refunds:{{us}}:{key}")
    assert (await service.call("POST", "/ipn", body=body)).status == 200
    assert len(await listed(service)) == 1


async def test_the_largest_message_is_kept_whole(service: Service, sns: SnsSigner, redis: Redis) -> None:
    """And all of the thousands of refunds that it names are polled, after those of other notifications."""
    ids = [f"S01-5105180-3221187-R{number:06d}" for number in range(8_000)]
    message = " ".join(ids)
    fields = sns.envelope(message)
    assert (await service.call("POST", "/ipn/us", body=json.dumps(fields).encode())).status == 200
    assert await redis.zcard("refunds:{us}:refreshed") == len(ids)
    shown = await service.call("GET", f"/v1/notifications/{fields['MessageId']}", token=ADMIN)
    found = json.loads(shown.body)
    assert (found["message"], found["refundIds"], found["refundCount"]) == (message, ids[:100], len(ids))


async def test_the_place_apart_is_no_account(service: Service) -> None:
    """No request can name it."""
    assert (await service.call("GET", "/v1/notifications?account=%2A", token=ADMIN)).status == 404
