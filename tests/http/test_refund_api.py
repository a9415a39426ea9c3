"""`/v1/refunds…` over a real Valkey and real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver.amazon.fps.calls import FpsRefundRequest
from receiver.amazon.fps.orders import FpsOrder
from receiver.http.limits import Refreshes, TooManyRefreshes
from receiver.ledger.money import Money
from receiver.ledger.refund import Observation, Source
from receiver.receive.receiver import Receiver
from receiver.store import Store
from receiver.store.redis.pipeline import connect
from receiver.track.record import Recorder
from tests.http.kit import ADMIN, REFUNDER, US_ONLY, Service, real_receiver, running, settings
from tests.kit.accounts import make_account
from tests.kit.clock import T0, ManualClock
from tests.kit.sns import SnsSigner
from tests.store.makers import fill
from tests.store.makers import refund_id as numbered

REFUND = "S01-5105180-3221187-R022311"
ONE = f"/v1/refunds/{REFUND}"


async def seen(
    store: Store, account: str, refund_id: str = REFUND, state: str = "RefundInitiated", **more: str
) -> None:
    """Record this as an answer of Amazon's."""
    observation = Observation(
        refund_id=refund_id,
        state=state,
        updated_at=T0,
        charge_id=more.get("charge", "S01-5105180-3221187-C056351"),
        amount=Money.parse("14.00", "USD"),
        reason_code=more.get("reason", ""),
    )
    await Recorder(store, lambda: 0.5).record(make_account(account), observation, source=Source.NOTIFICATION)


@pytest.fixture
def receiver(sns: SnsSigner, store: Store) -> Receiver:
    return real_receiver(sns, store, "us", "eu")


@pytest.fixture
async def service(receiver: Receiver, store: Store) -> AsyncIterator[Service]:
    """Two accounts: us and eu."""
    async with running(settings("us", "eu"), store, receiver) as service:
        yield service


async def test_a_refund_in_amazons_spelling(service: Service, store: Store) -> None:
    """State, reason, amount and charge as Amazon names them; account and revision as we do."""
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    answer = await service.get(ONE)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    refund = answer.json
    assert refund["refundId"] == REFUND
    assert refund["refundAmount"] == {"amount": "14.00", "currencyCode": "USD"}
    assert (refund["statusDetails"]["state"], refund["statusDetails"]["reasonCode"]) == ("Declined", "AmazonRejected")
    assert (refund["account"], refund["revision"], refund["final"]) == ("us", 1, True)


async def test_etag_and_if_none_match(service: Service, store: Store, clock: ManualClock) -> None:
    """The same while nothing but the time of the advice changes, another one after a change of the refund or of its
    advice; weak, as `asOf` differs; lists, the strong form and `*` are understood."""
    await seen(store, "us")
    tag = (await service.get(ONE)).headers["ETag"]
    assert tag.startswith('W/"')
    clock.tick(5_000)
    for header in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
        unchanged = await service.get(ONE, If_None_Match=header)
        assert (unchanged.status, unchanged.body, unchanged.headers["ETag"]) == (304, b"", tag)
    clock.tick(1_000)
    await seen(store, "us", state="Refunded")
    changed = await service.get(ONE, If_None_Match=tag)
    assert changed.status == 200
    assert changed.headers["ETag"] != tag


async def test_an_emptied_store_gives_another_etag(service: Service, store: Store, clock: ManualClock) -> None:
    """Revisions begin again at 1 then; the tag must not say that nothing changed."""
    await seen(store, "us")
    before = (await service.get(ONE)).headers["ETag"]
    await connect_and_flush(store)
    clock.tick(1)
    await seen(store, "us", state="Refunded")
    assert (await service.get(ONE)).headers["ETag"] != before


async def connect_and_flush(store: Store) -> None:
    """Empty the store's Valkey."""
    await store.connection.client.flushall()


async def test_wait_returns_as_soon_as_the_refund_is_final(service: Service, store: Store) -> None:
    """A waiter is woken by the write; nothing polls."""
    await seen(store, "us")
    waiting = asyncio.ensure_future(service.get(f"{ONE}?wait=30"))
    await asyncio.wait({waiting}, timeout=0.3)
    assert not waiting.done()
    await seen(store, "us", state="Refunded")
    answer = await asyncio.wait_for(waiting, 30)
    assert answer.json["statusDetails"]["state"] == "Refunded"


async def test_wait_covers_a_refund_that_is_not_known_yet(service: Service, store: Store) -> None:
    """A client that has just created a refund may ask before the service knows it."""
    waiting = asyncio.ensure_future(service.get(f"{ONE}?wait=30"))
    await asyncio.wait({waiting}, timeout=0.2)
    await seen(store, "eu", state="Declined", reason="ProcessingFailure")
    answer = await asyncio.wait_for(waiting, 30)
    assert answer.json["account"] == "eu"


async def test_wait_ends_with_what_there_is(service: Service, store: Store) -> None:
    """After the time the pending refund is the answer, or 404 where there is none, or 304."""
    assert (await service.get(f"{ONE}?wait=1")).status == 404
    await seen(store, "us")
    answer = await service.get(f"{ONE}?wait=1")
    assert (answer.status, answer.json["final"]) == (200, False)
    assert (await service.get(f"{ONE}?wait=1", If_None_Match=answer.headers["ETag"])).status == 304


async def test_a_final_refund_is_not_waited_for(service: Service, store: Store) -> None:
    """It is answered at once."""
    await seen(store, "us", state="Refunded")
    assert (await asyncio.wait_for(service.get(f"{ONE}?wait=60"), 30)).status == 200


async def test_an_id_in_two_accounts_is_ambiguous(service: Service, store: Store) -> None:
    """409 names the accounts; `?account=` narrows; a token that sees one account has no doubt."""
    await seen(store, "us")
    await seen(store, "eu")
    answer = await service.get(ONE)
    assert (answer.status, answer.json["reason"]) == (409, "several_accounts")
    assert "us, eu" in answer.json["detail"]
    assert (await service.get(f"{ONE}?account=eu")).json["account"] == "eu"
    assert (await service.get(ONE, token=US_ONLY)).json["account"] == "us"


async def test_what_a_token_may_not_see_is_not_there(service: Service, store: Store) -> None:
    """404 for the refund and for the account alike, so that nothing is given away."""
    await seen(store, "eu")
    assert (await service.get(ONE, token=US_ONLY)).json["reason"] == "no_such_refund"
    for account in ("eu", "nowhere"):
        answer = await service.get(f"{ONE}?account={account}", token=US_ONLY)
        assert (answer.status, answer.json["reason"]) == (404, "no_such_account")
    assert (await service.get("/v1/refunds", token=US_ONLY)).json["refunds"] == []


async def test_history_shows_every_revision(service: Service, store: Store, clock: ManualClock) -> None:
    """Oldest first, each with its source."""
    await seen(store, "us")
    clock.tick(1_000)
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    answer = await service.get(f"{ONE}/history")
    revisions = answer.json["revisions"]
    assert [revision["statusDetails"]["state"] for revision in revisions] == ["RefundInitiated", "Declined"]
    assert [revision["revision"] for revision in revisions] == [1, 2]
    assert revisions[1]["source"] == "notification"
    assert (await service.get("/v1/refunds/S01-0/history")).status == 404


async def test_refresh_makes_the_refund_due_now(service: Service, store: Store) -> None:
    """202 when the hint is written; the next claim is for this refund, and knows that an operator asked."""
    await seen(store, "eu")
    answer = await service.call("POST", f"{ONE}/refresh", token=REFUNDER)
    assert (answer.status, answer.json) == (202, {"refundId": REFUND, "account": "eu", "refresh": "noted"})
    claimed = await store.of("eu").schedule.claim("get_refund", lease=30_000, burst=5, per_second=1, limit=5)
    assert [(look.refund_id, look.source) for look in claimed.items] == [(REFUND, Source.REFRESH)]


async def test_refresh_of_an_unknown_refund_needs_an_account(service: Service, store: Store) -> None:
    """With several accounts it must be named; with one it is clear."""
    answer = await service.call("POST", f"{ONE}/refresh", token=ADMIN)
    assert (answer.status, answer.json["reason"]) == (409, "account_needed")
    assert (await service.call("POST", f"{ONE}/refresh?account=us", token=ADMIN)).status == 202
    assert (await service.call("POST", f"{ONE}/refresh", token=US_ONLY)).json["account"] == "us"


FORMS = [
    *("S01-5105180-3221187-R022311", "S02-8274313-3487267-R019346", "S03-0000000-0000000-R000000"),
    *("P01-1234567-1234567-R000001", "P03-1234567-1234567-R000001", "P21-1234567-1234567-R000001"),
    *("B01-1234567-1234567-R000001", "C01-1234567-1234567-R000001", "C02-1234567-1234567-R000001"),
    *("P01-0000000-0000000-000000", "P01-0000000-0000000-Ref"),
]
NO_FORMS = [
    *("x", "made-up", "S01-1", "S01-5105180-3221187", "S01-5105180-3221187-C056351", "S01-5105180-3221187-A056351"),
    *("S01-5105180-3221187-R02231", "S01-5105180-3221187-R0223111", "s01-5105180-3221187-r022311"),
    *("S01-5105180-3221187-X022311", "S1-5105180-3221187-R022311", "-", "14GK6F2QU755ODS27SGHEURLKPG72Z54KMF"),
]


@pytest.mark.parametrize("refund_id", FORMS)
async def test_every_form_of_a_refund_id_can_be_refreshed(service: Service, refund_id: str) -> None:
    """All forms that were ever seen: today's, those of the XML generation, and those of its test messages."""
    answer = await service.call("POST", f"/v1/refunds/{refund_id}/refresh?account=us", token=REFUNDER)
    assert answer.status == 202


@pytest.mark.parametrize("refund_id", NO_FORMS)
async def test_what_cannot_be_a_refund_id_is_not_asked_about(service: Service, store: Store, refund_id: str) -> None:
    """Amazon's limit is for refunds."""
    answer = await service.call("POST", f"/v1/refunds/{refund_id}/refresh?account=us", token=REFUNDER)
    assert (answer.status, answer.json["reason"]) == (400, "bad_refund_id")
    assert "S01-5105180-3221187-R022311" in answer.json["detail"]
    assert ("the id of a charge." in answer.json["detail"]) is ("-C0" in refund_id)
    assert (await store.of("us").gauges.measure())["refreshed"] == 0


async def test_a_known_refund_is_refreshed_whatever_its_id(service: Service, store: Store) -> None:
    """Amazon has notified it, or it was ordered here by Flexible Payments: the id is not invented."""
    await seen(store, "us", "of-a-new-form-1")
    order = FpsOrder(values=FpsRefundRequest("14GKTRANSACTION", "my-reference-1"), version="2008-09-17")
    await store.of("us").fps.reserve(order, owner="o", lease=1000)
    for refund_id in ("of-a-new-form-1", "my-reference-1"):
        answer = await service.call("POST", f"/v1/refunds/{refund_id}/refresh?account=us", token=REFUNDER)
        assert answer.status == 202, refund_id


async def test_the_refreshes_of_a_token_are_limited(receiver: Receiver, store: Store) -> None:
    """1,500 at once: some are accepted, the others get a time to come back. Another token has a separate limit."""
    chosen = settings()
    limited = chosen.model_copy(update={"http": chosen.http.model_copy(update={"refreshes": 5})})
    async with running(limited, store, receiver) as service:
        paths = [f"/v1/refunds/S01-5105180-3221187-R{number:06d}/refresh" for number in range(40)]
        answers = [await service.call("POST", path, token=REFUNDER) for path in paths]
        assert [answer.status for answer in answers] == [202] * 5 + [429] * 35
        refused = answers[-1]
        assert refused.json["reason"] == "too_many_refreshes"
        assert 1 <= int(refused.headers["Retry-After"]) <= 12
        assert (await service.call("POST", paths[0], token=ADMIN)).status == 202
        assert (await store.of("us").gauges.measure())["refreshed"] == 5


def test_refreshes_come_back_with_time() -> None:
    """As many per minute as at once; 0 means no limit; with a stopped clock, none come back."""
    now = [0.0]
    refreshes = Refreshes(6, lambda: now[0])
    for _ in range(6):
        refreshes.take("orders")
    with pytest.raises(TooManyRefreshes) as caught:
        refreshes.take("orders")
    assert caught.value.retry_after == 10
    now[0] = 9.9
    with pytest.raises(TooManyRefreshes):
        refreshes.take("orders")
    refreshes.take("finance")
    now[0] = 10.1
    refreshes.take("orders")
    with pytest.raises(TooManyRefreshes):
        refreshes.take("orders")
    for _ in range(10_000):
        Refreshes(0, lambda: 0.0).take("orders")


async def test_scopes_are_apart(service: Service) -> None:
    """Reading needs `read`, refreshing `refund` or `admin`; none includes another."""
    for token in (REFUNDER, ADMIN):
        for path in (ONE, "/v1/refunds", f"{ONE}/history"):
            answer = await service.get(path, token=token)
            assert (answer.status, answer.json["reason"]) == (403, "scope_missing")
            assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert (await service.call("POST", f"{ONE}/refresh", token="reader-token")).status == 403


@pytest.mark.parametrize(
    "query",
    ["wait=61", "wait=-1", "wait=1.5", "wait=", "wait=١", "wait=1&wait=2", "wiat=1", "account=us&limit=1"],
)
async def test_odd_parameters_of_one_refund_are_400(service: Service, query: str) -> None:
    """Named, and never passed over in silence."""
    answer = await service.get(f"{ONE}?{query}")
    assert answer.status == 400
    assert answer.json["reason"] in ("bad_parameter", "unknown_parameter", "repeated_parameter")
    assert any(name in answer.json["detail"] for name in ("wait", "limit"))


@pytest.mark.parametrize("refund_id", ["a" * 65, "a_b", "a%20b", "%C3%BC", "..%2e", "a'b"])
async def test_odd_ids_are_400(service: Service, refund_id: str) -> None:
    """They never reach a key."""
    answer = await service.get(f"/v1/refunds/{refund_id}")
    assert (answer.status, answer.json["reason"]) == (400, "bad_refund_id")


async def test_without_redis_the_api_is_503(sns: SnsSigner) -> None:
    """With Retry-After, as a problem with its reason."""
    store = Store(connect("redis://127.0.0.1:1"))
    try:
        async with running(settings(), store, real_receiver(sns, store)) as service:
            for path in (ONE, "/v1/refunds"):
                answer = await service.get(path)
                assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
                assert answer.headers["Content-Type"] == "application/problem+json"
                assert answer.json["reason"] == "store_unreachable"
    finally:
        await store.close()


async def test_the_summary_counts_the_accounts_of_the_token_only(service: Service, store: Store) -> None:
    """Not even numbers of the others."""
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    for number in (1, 2):
        await seen(store, "eu", numbered(number), state="Declined", reason="ProcessingFailure")
    of_one = await service.get("/v1/summary", token=US_ONLY)
    assert (of_one.json["accounts"], of_one.json["openDeclines"]["count"]) == (["us"], 1)
    assert "ProcessingFailure" not in of_one.body.decode()
    for path in ("/v1/summary?account=eu", f"/v1/refunds/{numbered(1)}", "/v1/refunds?open=true&account=eu"):
        assert (await service.get(path, token=US_ONLY)).status in (403, 404), path
    for act in ("close", "reopen"):
        body = {"how": "not_owed", "note": "x"} if act == "close" else None
        answer = await service.call("POST", f"/v1/refunds/{numbered(1)}/{act}", token=US_ONLY, body=body)
        assert answer.status == 404, act
    assert (await service.get("/v1/summary")).json["openDeclines"]["count"] == 3
    assert (await service.get("/v1/summary?account=eu")).json["openDeclines"]["count"] == 2


async def test_the_tag_of_an_old_decline_stays_the_same(
    service: Service, store: Store, redis: Any, clock: ManualClock
) -> None:
    """Its case was never recorded, and is judged at each read."""
    await fill(redis, 1)
    path = f"/v1/refunds/{numbered(0)}"
    for days, state in ((1, "open"), (40, "closed")):
        clock.tick(days * 86_400_000)
        answer = await service.get(path)
        assert answer.json["resolution"]["state"] == state
        clock.tick(5_000)
        assert (await service.get(path, If_None_Match=answer.headers["ETag"])).status == 304
