"""`/v1/subscribers…` over a real Valkey and real sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from receiver.outbox.subscribers.reading import read_subscriber
from receiver.outbox.subscribers.url import UrlPolicy
from receiver.store import Store
from tests.http.kit import ADMIN, READER, REFUNDER, US_ONLY, Answer, Service, real_receiver, running, settings
from tests.kit.sns import SnsSigner

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FINANCE = {"name": "finance", "url": "https://finance.example/hooks"}


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    """Two accounts: us and eu."""
    async with running(settings("us", "eu"), store, real_receiver(sns, store, "us", "eu")) as service:
        yield service


async def add(service: Service, token: str = US_ONLY, **fields: Any) -> Answer:
    return await service.call("POST", "/v1/subscribers", token=token, body={**FINANCE, **fields})


async def test_a_secret_is_made_and_shown_once(service: Service, store: Store) -> None:
    """201 shows the secret, which signs; afterwards only its fingerprint is shown."""
    answer = await add(service)
    assert answer.status == 201
    secret = answer.json["secret"]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    Webhook(secret)
    (kept,) = await store.of("us").subscribers.readable()
    assert (kept.secrets[0].value, kept.origin) == (secret, "api")
    assert answer.headers["Location"] == "/v1/subscribers/finance?account=us"
    assert answer.headers["Cache-Control"] == "no-store"
    later = await service.get(answer.headers["Location"], token=ADMIN)
    assert later.status == 200
    assert secret not in later.body.decode()
    assert later.json["secrets"][0]["fingerprint"] == kept.secrets[0].fingerprint


async def test_two_secrets_differ(service: Service) -> None:
    """They are random."""
    assert (await add(service)).json["secret"] != (await add(service, name="other")).json["secret"]


async def test_a_secret_that_is_brought_is_kept_and_not_repeated(service: Service, store: Store) -> None:
    """A caller that sent the secret does not get it back."""
    answer = await add(service, secret=SECRET, types=["*"], reasons=["AmazonRejected"])
    assert answer.status == 201
    assert SECRET not in answer.body.decode()
    (kept,) = await store.of("us").subscribers.readable()
    assert (kept.secrets[0].value, kept.types, kept.reasons) == (SECRET, ("*",), ("AmazonRejected",))


async def test_the_account_is_named_where_there_are_several(service: Service) -> None:
    """In the body; the same name in two accounts is two subscribers, and reading one needs the account too."""
    answer = await add(service, token=ADMIN)
    assert (answer.status, answer.json["reason"]) == (409, "account_needed")
    assert [(await add(service, token=ADMIN, account=name)).status for name in ("us", "eu")] == [201, 201]
    listed = await service.get("/v1/subscribers", token=ADMIN)
    assert [(each["account"], each["name"]) for each in listed.json["subscribers"]] == [
        ("us", "finance"),
        ("eu", "finance"),
    ]
    one = await service.get("/v1/subscribers/finance", token=ADMIN)
    assert (one.status, one.json["reason"]) == (409, "several_accounts")
    assert (await service.get("/v1/subscribers/finance?account=eu", token=ADMIN)).json["account"] == "eu"
    assert len((await service.get("/v1/subscribers", token=US_ONLY)).json["subscribers"]) == 1


async def test_accounts_that_a_token_may_not_see_are_not_there(service: Service) -> None:
    """404, as for one that does not exist."""
    for account in ("eu", "nowhere"):
        assert (await add(service, account=account)).status == 404
    assert (await add(service, account=5)).status == 400


async def test_a_name_is_taken_once(service: Service) -> None:
    """409, and the first one stays."""
    await add(service)
    answer = await add(service, url="https://other.example/")
    assert (answer.status, answer.json["reason"]) == (409, "subscriber_exists")


async def test_one_more_than_the_most_is_refused_and_the_others_can_be_changed(sns: SnsSigner, store: Store) -> None:
    """Of twenty at once where one place is left exactly one is added; a place that becomes free is used."""
    limited = settings("us")
    limited = limited.model_copy(update={"delivery": limited.delivery.model_copy(update={"max_subscribers": 3})})
    async with running(limited, store, real_receiver(sns, store, "us")) as service:
        for name in ("finance", "books"):
            assert (await add(service, name=name)).status == 201
        answers = await asyncio.gather(*(add(service, name=f"late-{number}") for number in range(20)))
        assert sorted(answer.status for answer in answers) == [201, *[409] * 19]
        assert len(await store.of("us").subscribers.readable()) == 3
        refused = next(answer.json for answer in answers if answer.status == 409)
        assert refused["reason"] == "too_many_subscribers"
        assert "delivery.max_subscribers is 3. Remove one" in refused["detail"]
        assert (await add(service, rate=9)).json["reason"] == "subscriber_exists"
        path = "/v1/subscribers/finance"
        assert (await service.call("PATCH", path, token=US_ONLY, body={"rate": 2})).json["rate"] == 2
        assert (await service.call("POST", f"{path}/rotate", token=US_ONLY)).status == 200
        assert (await service.call("DELETE", "/v1/subscribers/books", token=US_ONLY)).status == 204
        assert (await add(service, name="later")).status == 201


async def test_every_problem_of_a_subscriber_is_named(service: Service, store: Store) -> None:
    """400 with a line for each field; private addresses and plain http are refused by default."""
    answer = await add(service, name="No!", url="http://10.0.0.1/", types=["x"], colour="red", secret="hunter2")
    assert (answer.status, answer.json["reason"]) == (400, "bad_subscriber")
    lines = answer.json["detail"].splitlines()
    assert {line.split(":")[0].strip("'") for line in lines} == {"colour", "name", "url", "types", "secret"}
    assert "hunter2" not in answer.json["detail"]
    assert await store.of("us").subscribers.readable() == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 10_000, b" " * 70_000, b'{"a":1e99999999999999999999}']
)
async def test_bodies_that_are_no_object_are_400(service: Service, body: bytes) -> None:
    """Whatever they are."""
    answer = await service.call("POST", "/v1/subscribers", token=ADMIN, body=body)
    assert answer.status == 400
    assert answer.json["reason"] in ("not_json", "too_large")


async def test_removing(service: Service, store: Store) -> None:
    """204, then 404."""
    await add(service)
    path = "/v1/subscribers/finance"
    assert (await service.call("DELETE", path, token=US_ONLY)).status == 204
    assert await store.of("us").subscribers.readable() == []
    assert (await service.call("DELETE", path, token=US_ONLY)).status == 404


async def test_a_subscriber_of_the_configuration_is_removed_there(service: Service, store: Store) -> None:
    """It would return with the next start, so the API says where to remove it."""
    configured = read_subscriber({**FINANCE, "secret": SECRET}, UrlPolicy(), origin="config", now=1)
    await store.of("us").subscribers.put(configured)
    answer = await service.call("DELETE", "/v1/subscribers/finance", token=US_ONLY)
    assert (answer.status, answer.json["reason"]) == (409, "configured")


async def test_all_of_it_needs_admin(service: Service) -> None:
    """Also reading: addresses of subscribers can contain keys."""
    for token in (READER, REFUNDER):
        assert (await add(service, token=token)).status == 403
        for method, path in (("GET", "/v1/subscribers"), ("GET", "/v1/subscribers/x"), ("DELETE", "/v1/subscribers/x")):
            assert (await service.call(method, path, token=token)).status == 403


async def test_pausing_and_resuming(service: Service, store: Store) -> None:
    """Also one that was paused because it answered 410; each answer has its current state."""
    await add(service)
    path = "/v1/subscribers/finance"
    for verb, paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
        answer = await service.call("POST", f"{path}/{verb}", token=US_ONLY)
        assert (answer.status, answer.json["paused"]) == (200, paused)
        (found,) = await store.of("us").subscribers.readable()
        assert found.paused is paused
    assert (await service.call("POST", f"{path}/resume", token=READER)).status == 403


HOOK = "https://hooks.slack.com/services/T00000000/B00000000/hunter2hunter2hunter2"


async def test_other_formats_have_no_signing_secret(service: Service, store: Store) -> None:
    """None is made, and the credential there is never shown again."""
    answer = await add(service, name="chat", format="slack", url=HOOK)
    assert answer.status == 201
    assert (answer.json["format"], answer.json["url"]) == ("slack", "https://hooks.slack.com/…")
    assert "secret" not in answer.json
    oncall = {"name": "oncall", "format": "pagerduty", "routing_key": "R" * 32, "account": "us"}
    paged = await service.call("POST", "/v1/subscribers", token=ADMIN, body=oncall)
    assert (paged.status, paged.json["url"]) == (201, "https://events.pagerduty.com/v2/enqueue")
    assert paged.json["credential"]["field"] == "routing_key"
    for body in (answer.body, paged.body, (await service.get("/v1/subscribers", token=ADMIN)).body):
        assert b"hunter2" not in body
        assert b"RRRR" not in body
    assert {each.name: each.url for each in await store.of("us").subscribers.readable()}["chat"] == HOOK
    refused = await add(service, name="x", format="slack", url=HOOK, secret=SECRET, routing_key="hunter2")
    assert (refused.status, refused.json["reason"]) == (400, "bad_subscriber")
    assert "hunter2" not in refused.body.decode()


async def test_a_subscriber_whose_record_is_damaged_is_listed_as_such_and_can_be_removed(
    service: Service, redis: Any
) -> None:
    """The others are listed as ever."""
    await add(service)
    await redis.hset("refunds:{us}:subscribers", "broken", "{")
    await redis.zadd("refunds:{us}:lane:broken", {"1-1": 1})
    listed = await service.get("/v1/subscribers", token=ADMIN)
    assert [each["name"] for each in listed.json["subscribers"]] == ["finance"]
    assert listed.json["unreadable"] == ["us/broken"]
    assert (await service.call("DELETE", "/v1/subscribers/broken", token=READER)).status == 403
    assert (await service.call("DELETE", "/v1/subscribers/broken", token=ADMIN)).status == 204
    assert not await redis.exists("refunds:{us}:lane:broken")
    assert (await service.get("/v1/subscribers", token=ADMIN)).json["unreadable"] == []
    assert (await service.call("DELETE", "/v1/subscribers/broken", token=ADMIN)).status == 404


async def test_no_subscriber_is_made_on_a_foreign_key_and_no_secret_is_lost(
    service: Service, store: Store, redis: Any
) -> None:
    """503 names the key, and nothing is there: asked again when the key is right, it is made."""
    await redis.set("refunds:{us}:health:finance", "not ours")
    answer = await add(service)
    assert (answer.status, answer.json["reason"]) == (503, "store_wrong_type")
    assert "refunds:{us}:health:finance" in answer.json["detail"]
    assert await store.of("us").subscribers.readable() == []
    await redis.delete("refunds:{us}:health:finance")
    assert (await add(service)).status == 201
