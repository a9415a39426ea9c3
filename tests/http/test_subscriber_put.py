"""`PUT /v1/subscribers/{name}` and repeated POSTs, over a real Valkey and real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs

from receiver.outbox.subscribers.reading import read_subscriber
from receiver.outbox.subscribers.url import UrlPolicy
from receiver.store import Store
from tests.http.kit import ADMIN, READER, US_ONLY, Answer, Service, real_receiver, running, settings
from tests.kit.clock import T0
from tests.kit.sns import SnsSigner

PATH = "/v1/subscribers/finance"
URL = "https://finance.example/hooks"
SECRETS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    """Two accounts, us and eu, with room for two subscribers each."""
    limited = settings("us", "eu")
    limited = limited.model_copy(update={"delivery": limited.delivery.model_copy(update={"max_subscribers": 2})})
    async with running(limited, store, real_receiver(sns, store, "us", "eu")) as service:
        yield service


async def put(service: Service, query: str = "", *, token: str = US_ONLY, path: str = PATH, **fields: Any) -> Answer:
    return await service.call("PUT", f"{path}{query}", token=token, body={"url": URL, **fields})


async def audited(service: Service) -> list[tuple[str, list[str]]]:
    """What was done, oldest first."""
    entries = (await service.get("/v1/audit", token=ADMIN)).json["entries"]
    return [(each["action"], each.get("fields") or []) for each in reversed(entries)]


async def test_one_is_created_made_equal_and_left_alone(service: Service, store: Store) -> None:
    """201 with its new secret; 200 with what differs; 200 with nothing. Only what was done is audited."""
    made = await put(service, rate=5)
    assert (made.status, made.json["outcome"], made.json["changes"]) == (201, "created", [])
    assert made.headers["Location"] == f"{PATH}?account=us"
    secret = made.json["secret"]
    await service.call("POST", f"{PATH}/pause", token=US_ONLY)
    for _ in range(2):
        same = await put(service, rate=5.0, start="beginning")
        assert (same.status, same.json["outcome"], same.json["changes"]) == (200, "unchanged", [])
        assert "secret" not in same.json
    changed = await put(service, types=["*"], minAmount="1.00 USD")
    assert (changed.status, changed.json["outcome"], changed.json["paused"]) == (200, "changed", True)
    assert changed.json["changes"] == [
        {"field": "types", "before": ["amazonpay.refund.declined"], "after": ["*"]},
        {"field": "minAmount", "before": None, "after": ["1.00 USD"]},
        {"field": "rate", "before": 5.0, "after": None},
    ]
    (kept,) = await store.of("us").subscribers.readable()
    assert [each.value for each in kept.secrets] == [secret]
    done = await audited(service)
    assert [action for action, _ in done] == ["subscriber.add", "subscriber.pause", "subscriber.change"]
    assert done[-1][1] == ["min_amount", "rate", "types"]


async def test_a_dry_run_changes_nothing(service: Service, store: Store) -> None:
    """It says what would be done, also that the account is full."""
    planned = await put(service, "?dryRun=true")
    assert (planned.status, planned.json["outcome"], "secret" in planned.json) == (200, "created", False)
    assert await store.of("us").subscribers.readable() == []
    await put(service)
    await put(service, path="/v1/subscribers/books")
    planned = await put(service, "?dryRun=true", rate=2)
    assert [each["field"] for each in planned.json["changes"]] == ["rate"]
    assert {each.rate for each in await store.of("us").subscribers.readable()} == {None}
    for query in ("?dryRun=true", ""):
        refused = await put(service, query, path="/v1/subscribers/third")
        assert (refused.status, refused.json["reason"]) == (409, "too_many_subscribers")


async def test_secrets_are_kept_replaced_and_never_sent_to_a_new_place(service: Service, store: Store) -> None:
    """The same secret keeps those that still sign after a rotation; a different one replaces all."""
    await put(service, secret=SECRETS[0])
    await service.call("POST", f"{PATH}/rotate", token=US_ONLY, body={"secret": SECRETS[1]})
    same = await put(service, secret=SECRETS[1])
    assert (same.json["outcome"], len(same.json["secrets"])) == ("unchanged", 2)
    moved = await put(service, url="https://other.example/hooks")
    assert (moved.status, moved.json["reason"]) == (400, "credential_needed")
    other = await put(service, secret=SECRETS[0], url="https://other.example/hooks")
    assert [each["field"] for each in other.json["changes"]] == ["url", "secrets"]
    assert SECRETS[0] not in other.body.decode()
    (kept,) = await store.of("us").subscribers.readable()
    assert [each.value for each in kept.secrets] == [SECRETS[0]]
    chat = await put(service, format="slack", url="https://hooks.slack.com/services/T0/B0/hunter2")
    assert (chat.status, chat.json["secrets"], "hunter2" in chat.body.decode()) == (200, [], False)
    again = await put(service)
    assert again.json["secret"].startswith("whsec_")


async def test_what_is_refused(service: Service, store: Store) -> None:
    """A missing account when there are several, another name in the body, wrong fields, a subscriber of the
    settings."""
    for answer, status, reason in (
        (await put(service, token=ADMIN), 409, "account_needed"),
        (await put(service, "?account=no", token=ADMIN), 404, "no_such_account"),
        (await put(service, token=READER), 403, "scope_missing"),
        (await put(service, name="other"), 400, "bad_subscriber"),
        (await put(service, url="http://10.0.0.1/"), 400, "bad_subscriber"),
        (await put(service, path="/v1/subscribers/No!"), 400, "bad_subscriber"),
        (await put(service, start="2099-01-01T00:00:00Z"), 400, "bad_start"),
        (await put(service, "?dryRun=1"), 400, "bad_parameter"),
    ):
        assert (answer.status, answer.json["reason"]) == (status, reason)
    configured = read_subscriber(
        {"name": "finance", "url": URL, "secret": SECRETS[0]}, UrlPolicy(), origin="config", now=1
    )
    await store.of("us").subscribers.put(configured)
    for query in ("", "?dryRun=true"):
        assert (await put(service, query, rate=2)).json["reason"] == "configured"
    repeated = await service.call("POST", "/v1/subscribers", token=US_ONLY, body={"name": "finance", "url": URL})
    assert (repeated.status, repeated.json["reason"]) == (409, "subscriber_exists")


async def test_one_that_the_settings_no_longer_name_is_taken_over(service: Service, store: Store) -> None:
    """From then on it counts as added through the API. A PATCH does not change that."""
    left = read_subscriber({"name": "finance", "url": URL, "secret": SECRETS[0]}, UrlPolicy(), origin="api", now=1)
    await store.of("us").subscribers.put(structs.replace(left, undeclared_at=T0))
    patched = await service.call("PATCH", PATH, token=US_ONLY, body={"rate": 2})
    assert patched.json["undeclaredAt"] == (await service.get(PATH, token=US_ONLY)).json["undeclaredAt"] is not None
    taken = await put(service, rate=2)
    assert [(each["field"], each["after"]) for each in taken.json["changes"]] == [("undeclaredAt", None)]
    assert (await put(service, rate=2)).json["outcome"] == "unchanged"


async def test_of_many_at_once_one_creates_it(service: Service, store: Store) -> None:
    """The others find it equal; two that differ leave one of them."""
    answers = await asyncio.gather(*(put(service) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [*[200] * 7, 201]
    assert sum("secret" in answer.json for answer in answers) == 1
    answers = await asyncio.gather(*(put(service, rate=rate) for rate in range(1, 6)))
    assert {answer.status for answer in answers} == {200}
    (kept,) = await store.of("us").subscribers.readable()
    assert kept.rate in range(1, 6)


async def test_a_damaged_record_is_not_replaced(service: Service, redis: Any) -> None:
    """It may be from a later version, so the answer is 409 until it is removed."""
    await redis.hset("refunds:{us}:subscribers", "finance", "{")
    answer = await put(service)
    assert (answer.status, answer.json["reason"]) == (409, "subscriber_exists")


async def test_a_repeated_post_is_answered_200(service: Service, store: Store) -> None:
    """Also after a 503 whose write succeeded, so that the secret was lost. A different subscriber still gets 409."""

    async def post(**fields: Any) -> Answer:
        body = {"name": "finance", "url": URL, **fields}
        return await service.call("POST", "/v1/subscribers", token=US_ONLY, body=body)

    first = await post(rate=5)
    await service.call("POST", f"{PATH}/pause", token=US_ONLY)
    repeated = await post(rate=5)
    assert (first.status, repeated.status, repeated.json["paused"]) == (201, 200, True)
    assert {"secret", "eventsAfter"} & repeated.json.keys() == set()
    assert (await post(rate=5, secret=first.json["secret"])).status == 200
    for fields in ({}, {"rate": 6}, {"rate": 5, "types": ["*"]}, {"rate": 5, "secret": SECRETS[0]}):
        assert (await post(**fields)).json["reason"] == "subscriber_exists"
    (kept,) = await store.of("us").subscribers.readable()
    assert [each.value for each in kept.secrets] == [first.json["secret"]]
    assert [action for action, _ in await audited(service)] == ["subscriber.add", "subscriber.pause"]
