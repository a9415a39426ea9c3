"""Changing subscribers, rotating their secrets, and where they begin: over a real Valkey and real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver.ledger.refund import Source
from receiver.outbox.retries import DAY, HOUR
from receiver.outbox.subscribers.reading import read_subscriber
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import UrlPolicy
from receiver.store import Store
from receiver.store.deliveries.queues import AttemptEffects
from receiver.track.record import Recorder
from tests.http.kit import READER, US_ONLY, Answer, Service, real_receiver, running, settings
from tests.kit.accounts import make_account
from tests.kit.clock import T0
from tests.kit.sns import SnsSigner
from tests.store.makers import seen

PATH = "/v1/subscribers/finance"
SECRETS = ["whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in range(8)]
FINANCE = {"name": "finance", "url": "https://finance.example/hooks"}


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    """One account, whose subscriber is finance."""
    async with running(settings("us"), store, real_receiver(sns, store, "us")) as service:
        yield service


async def add(service: Service, **fields: Any) -> Answer:
    return await service.call(
        "POST", "/v1/subscribers", token=US_ONLY, body={**FINANCE, "secret": SECRETS[0], **fields}
    )


async def change(service: Service, body: Any) -> Answer:
    return await service.call("PATCH", PATH, token=US_ONLY, body=body)


async def rotate(service: Service, body: Any = None) -> Answer:
    return await service.call("POST", f"{PATH}/rotate", token=US_ONLY, body=body)


async def test_a_field_in_two_spellings_is_refused(service: Service, store: Store) -> None:
    """Which of the two is meant is unknown."""
    answer = await add(service, minAmount="1.00 USD", min_amount="5.00 USD")
    assert (answer.status, answer.json["reason"]) == (400, "duplicate_key")
    assert await store.of("us").subscribers.readable() == []


async def test_fields_change_and_null_is_the_default_again(service: Service, store: Store) -> None:
    """What is not named stays; secrets, birth and pauses are not touched."""
    await add(service, reasons=["AmazonRejected"])
    await service.call("POST", f"{PATH}/pause", token=US_ONLY)
    wanted = {
        "url": "https://finance.example/new",
        "types": ["*", "receiver.*"],
        "minAmount": ["100.00 USD", "5000 JPY"],
    }
    answer = await change(service, {**wanted, "rate": 2.5, "concurrency": 3, "reasons": None})
    assert answer.status == 200
    assert {key: answer.json[key] for key in wanted} == wanted
    assert (answer.json["reasons"], answer.json["rate"], answer.json["concurrency"]) == (None, 2.5, 3)
    (kept,) = await store.of("us").subscribers.readable()
    assert (kept.secrets, kept.paused, kept.created_at) == ((Secret(SECRETS[0]),), True, T0)
    answer = await change(service, {"minAmount": None, "rate": None})
    assert (answer.json["minAmount"], answer.json["rate"], answer.json["url"]) == (
        None,
        None,
        "https://finance.example/new",
    )


async def test_a_whole_number_is_a_rate_like_any_other(service: Service, store: Store) -> None:
    """It is kept in one form, so that the subscriber can be changed, paused and filled up afterwards."""
    async with asyncio.timeout(30):
        assert (await add(service, rate=10)).json["rate"] == 10
        assert (await change(service, {"rate": 20})).json["rate"] == 20
        assert (await service.call("POST", f"{PATH}/pause", token=US_ONLY)).json["paused"] is True
    (kept,) = await store.of("us").subscribers.readable()
    assert (kept.rate, type(kept.rate)) == (20.0, float)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"name": "other"}, "name: cannot be changed"),
        ({"secret": SECRETS[1]}, "secret: cannot be changed; rotate"),
        ({}, "Nothing to change"),
        ({"colour": "red"}, "colour: is not a field"),
        ({"url": None}, "url: is missing"),
        ({"url": "finance.example/hooks"}, "url: is not absolute"),
        ({"url": "https://me:pw@finance.example/"}, "url: must not hold a user name"),
        ({"url": "https://10.0.0.1/"}, "points to 10.0.0.1 (private)"),
        ({"url": "https://[::ffff:169.254.169.254]/"}, "(cloud_metadata)"),
        ({"format": "slack"}, "format: cannot be changed; add another"),
        ({"types": ["amazonpay.refund.test"]}, "is not an event type"),
        ({"minAmount": "100 dollars"}, "min_amount: '100 dollars' is not an amount (A currency"),
        ({"minAmount": ["1 USD", "2 USD"]}, "min_amount: names USD twice"),
        ({"minAmount": 100}, "min_amount: a int is not an amount"),
        ({"minAmount": []}, "min_amount: is not an amount"),
        ({"rate": 0}, "rate: is not a number of messages a second from 0.1 to 1000"),
        ({"rate": "fast"}, "rate: is not a number"),
        ({"rate": []}, "rate: is not a number"),
        ({"rate": {}}, "rate: is not a number"),
        ({"colour": None}, "colour: is not a field"),
        ({"account": None}, "account: is not a field"),
        ({"types": None, "start": None}, "start: is not a field"),
        ({"concurrency": 0.5}, "concurrency: is not a whole number"),
    ],
)
async def test_every_problem_of_a_change_is_named(service: Service, store: Store, body: Any, says: str) -> None:
    """400, and nothing has changed."""
    await add(service)
    before = await store.of("us").subscribers.readable()
    answer = await change(service, body)
    assert (answer.status, answer.json["reason"]) == (400, "bad_subscriber")
    assert says in answer.json["detail"]
    assert SECRETS[1] not in answer.body.decode()
    assert await store.of("us").subscribers.readable() == before


async def test_a_secret_does_not_follow_the_address_to_another_host(service: Service, store: Store) -> None:
    """400 and nothing is changed; with a secret it is done, and that one alone signs; a path needs none."""
    await add(service)
    await rotate(service, {"secret": SECRETS[1]})
    before = await store.of("us").subscribers.readable()
    answer = await change(service, {"url": "https://other.example/hooks", "rate": 5})
    assert (answer.status, answer.json["reason"]) == (400, "credential_needed")
    assert "`secret`" in answer.json["detail"]
    assert await store.of("us").subscribers.readable() == before
    assert (await change(service, {"url": "https://finance.example/moved"})).status == 200
    (kept,) = await store.of("us").subscribers.readable()
    assert kept.secrets == before[0].secrets
    answer = await change(service, {"url": "https://other.example/hooks", "secret": SECRETS[2]})
    assert (answer.status, answer.json["url"], answer.json.get("secret")) == (200, "https://other.example/hooks", None)
    assert SECRETS[2] not in answer.body.decode()
    (kept,) = await store.of("us").subscribers.readable()
    assert (kept.url, kept.secrets) == ("https://other.example/hooks", (Secret(SECRETS[2]),))


async def test_a_secret_is_made_for_the_new_host(service: Service, store: Store) -> None:
    """And shown once; not where the change is refused."""
    await add(service)
    answer = await change(service, {"url": "https://other.example/", "secret": "new"})
    assert answer.status == 200
    (kept,) = await store.of("us").subscribers.readable()
    assert kept.secrets == (Secret(answer.json["secret"]),)
    assert kept.secrets[0].value.startswith("whsec_")
    assert kept.secrets[0].value not in (await service.get(PATH, token=US_ONLY)).body.decode()
    for wrong in ({"secret": "new"}, {"url": "http://other.example/", "secret": "new"}):
        answer = await change(service, wrong)
        assert (answer.status, answer.json["reason"], "whsec_" in answer.json["detail"]) == (
            400,
            "bad_subscriber",
            False,
        )
    assert await store.of("us").subscribers.readable() == [kept]


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        ({"format": "pagerduty", "routingKey": "R" * 32}, {"routingKey": "S" * 32}),
        ({"format": "alertmanager", "authorization": "Bearer one"}, {"authorization": "Bearer two"}),
    ],
)
async def test_credentials_of_other_formats_do_not_follow_either(
    service: Service, store: Store, fields: dict[str, str], given: dict[str, str]
) -> None:
    """The routing key, and the header: named in the answer, and not repeated."""
    assert (await service.call("POST", "/v1/subscribers", token=US_ONLY, body={**FINANCE, **fields})).status == 201
    before = await store.of("us").subscribers.readable()
    answer = await change(service, {"url": "https://other.example/"})
    assert (answer.status, answer.json["reason"]) == (400, "credential_needed")
    assert "`secret`" not in answer.json["detail"]
    assert await store.of("us").subscribers.readable() == before
    answer = await change(service, {"url": "https://other.example/", **given})
    assert (answer.status, answer.json["url"]) == (200, "https://other.example/")
    (value,) = given.values()
    assert answer.json["credential"]["fingerprint"] == Secret(value).fingerprint
    assert (await change(service, {"url": "https://other.example/path"})).status == 200
    (kept,) = await store.of("us").subscribers.readable()
    assert kept.credential == Secret(value)


async def test_a_change_that_comes_second_is_judged_by_what_the_first_has_made(
    service: Service, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another path needed no secret when it was read; meanwhile the subscriber has moved, and it would move back."""
    await add(service)
    replace, first = store.of("us").subscribers.change, []

    async def late(before: Subscriber, after: Subscriber, **_: object) -> bool:
        monkeypatch.undo()
        first.append(await change(service, {"url": "https://other.example/", "secret": SECRETS[1]}))
        return await replace(before, after)

    monkeypatch.setattr(store.of("us").subscribers, "change", late)
    second = await change(service, {"url": "https://finance.example/path"})
    assert [answer.status for answer in first] == [200]
    assert (second.status, second.json["reason"]) == (400, "credential_needed")
    (kept,) = await store.of("us").subscribers.readable()
    assert (kept.url, kept.secrets) == ("https://other.example/", (Secret(SECRETS[1]),))


async def test_a_secret_in_a_chunked_body_is_read(service: Service, store: Store) -> None:
    """Such a body has no Content-Length; it must not be taken for none, and another secret be made."""
    await add(service)

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"secret": '
        yield json.dumps(SECRETS[1]).encode() + b"}"

    answer = await rotate(service, pieces())
    assert (answer.status, answer.json.get("secret")) == (200, None)
    (kept,) = await store.of("us").subscribers.readable()
    assert kept.secrets[0] == Secret(SECRETS[1])


async def test_a_rotation_names_a_field_that_it_does_not_know(service: Service) -> None:
    """With the same reason as elsewhere."""
    await add(service)
    answer = await rotate(service, {"secrets": SECRETS[:2]})
    assert (answer.status, answer.json["reason"]) == (400, "unknown_field")


async def test_a_new_secret_signs_first_and_the_old_one_for_a_day(service: Service, store: Store) -> None:
    """A made one is shown once; a given one never; both are live until the old one ends."""
    await add(service)
    answer = await rotate(service)
    made = answer.json["secret"]
    (kept,) = await store.of("us").subscribers.readable()
    assert kept.secrets == (Secret(made), Secret(SECRETS[0], T0 + 24 * HOUR))
    answer = await rotate(service, {"secret": SECRETS[1], "oldValidFor": "7d"})
    assert SECRETS[1] not in answer.body.decode()
    (kept,) = await store.of("us").subscribers.readable()
    ends = (None, T0 + 7 * DAY, T0 + 24 * HOUR)
    assert [(each.value, each.expires_at) for each in kept.secrets] == list(
        zip((SECRETS[1], made, SECRETS[0]), ends, strict=True)
    )
    await rotate(service, {"secret": SECRETS[2], "oldValidFor": "0s"})
    (kept,) = await store.of("us").subscribers.readable()
    assert kept.secrets == (Secret(SECRETS[2]),)


async def test_there_are_five_secrets_at_most(service: Service, store: Store) -> None:
    """The sixth is refused rather than one dropped that a receiver may still check with."""
    await add(service)
    for number in (1, 2, 3, 4):
        assert (await rotate(service, {"secret": SECRETS[number]})).status == 200
    answer = await rotate(service, {"secret": SECRETS[5]})
    assert (answer.status, answer.json["reason"]) == (409, "too_many_secrets")
    (kept,) = await store.of("us").subscribers.readable()
    assert len(kept.secrets) == 5
    assert (await rotate(service, {"secret": SECRETS[4]})).json["reason"] == "secret_exists"
    assert (await rotate(service, {"secret": SECRETS[5], "oldValidFor": "0s"})).status == 200


@pytest.mark.parametrize(
    "body", [{"secret": "hunter2"}, {"secret": 5}, {"oldValidFor": "8d"}, {"oldValidFor": "soon"}, {"old": 1}, []]
)
async def test_a_rotation_that_cannot_be(service: Service, body: Any) -> None:
    """400; a secret that is too short is not repeated."""
    await add(service)
    answer = await rotate(service, body)
    assert answer.status == 400
    assert "hunter2" not in answer.body.decode()


async def test_one_of_the_configuration_is_changed_there(service: Service, store: Store) -> None:
    """It would come back as it was with the next start: 409 for each, with where to do it."""
    configured = read_subscriber({**FINANCE, "secret": SECRETS[0]}, UrlPolicy(), origin="config", now=1)
    await store.of("us").subscribers.put(configured)
    for answer in (await change(service, {"types": ["*"]}), await rotate(service)):
        assert (answer.status, answer.json["reason"]) == (409, "configured")
        assert "secret" not in answer.json
    assert await store.of("us").subscribers.readable() == [configured]


async def test_where_a_new_one_begins(service: Service, store: Store) -> None:
    """Now, at a time, or at the beginning; anything else is refused, and adds no subscriber."""
    await Recorder(store, lambda: 0.0).record(make_account(), seen("Declined"), source=Source.POLL)
    for start in ("soon", 5, "2026-01-31", "", "2999-01-01T00:00:00Z"):
        answer = await add(service, start=start)
        assert (answer.status, answer.json["reason"]) == (400, "bad_start"), start
    assert await store.of("us").subscribers.readable() == []
    answer = await add(service, start="beginning")
    assert (answer.status, answer.json["eventsAfter"]) == (201, (await store.of("us").deliveries.backfills())[0].last)
    await add(service, name="timely", start="2020-01-31T12:00:00Z")
    await add(service, name="new", start="now")
    jobs = {job.name: job.cursor for job in await store.of("us").deliveries.backfills()}
    assert jobs == {"finance": "0-0", "timely": f"1580471999999-{2**64 - 1}"}


async def test_how_one_fares(service: Service, store: Store) -> None:
    """In `show` alone: lists stay cheap."""
    await add(service, types=["*"])
    recorder = Recorder(store, lambda: 0.0)
    for number in range(3):
        await recorder.record(make_account(), seen("Declined", number), source=Source.POLL)
    one, two, _ = (await store.of("us").deliveries.claim("finance", lease=30_000, limit=9)).items
    await store.of(one.account).deliveries.delivered(one)
    for _ in range(2):
        await store.of(two.account).deliveries.retry(
            two, two.token, two.attempts, AttemptEffects(failed=True, error="HTTP 500")
        )
    stats = (await service.get(PATH, token=US_ONLY)).json["stats"]
    assert stats.pop("oldestWaiting").startswith("20")
    assert stats == {
        "waiting": 2,
        "dead": 0,
        "delivered": 1,
        "lastSuccess": "2025-10-09T08:53:20.000Z",
        "lastError": "HTTP 500",
        "lastErrorAt": "2025-10-09T08:53:20.000Z",
        "failuresInARow": 2,
        "breaker": "closed",
    }
    assert "stats" not in (await service.get("/v1/subscribers", token=US_ONLY)).json["subscribers"][0]


async def test_changes_need_admin(service: Service) -> None:
    """All of them."""
    await add(service)
    for method, path in (
        ("PATCH", PATH),
        ("POST", f"{PATH}/rotate"),
        ("POST", f"{PATH}/test"),
        ("POST", f"{PATH}/redrive"),
        ("GET", f"{PATH}/deliveries"),
    ):
        assert (await service.call(method, path, token=READER, body={})).status == 403, path
