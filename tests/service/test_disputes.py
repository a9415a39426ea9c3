"""A dispute end to end: Amazon's stand-in notifies of it; the service asks about it, guards the charge, and tells of
the deadline."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from receiver.simulator.outcomes import Outcome
from tests.kit.processes import until
from tests.service.stage import TOKEN, Amazon, Hook, Stage, account, running

ACTION_REQUIRED = "amazonpay.dispute.action_required"
EVERY = [{"name": "test", "sha256": sha256(TOKEN.encode()).hexdigest(), "scopes": ["read", "refund", "admin"]}]


@dataclass
class Court:
    """Everything that runs, and a declined refund of the charge that is disputed."""

    amazon: Amazon
    stage: Stage
    hook: Hook
    plain: Hook
    """A subscriber to `*`."""
    charge: str
    refund: str

    async def dispute(self) -> Any:
        """The dispute in the refund's history; None if there is none."""
        _, found = await self.stage.get(f"/v1/refunds/{self.refund}/history")
        return next(iter(found["disputes"]), None)

    @property
    def questions(self) -> int:
        """How often Get Dispute was asked."""
        return sum(each.call == "get_dispute" for each in self.amazon.calls)

    async def state(self) -> Any:
        return (await self.dispute() or {}).get("state")

    async def retry(self) -> tuple[int, Any]:
        """Issue the refund again."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.stage.session.post(
            f"{self.stage.url}/v1/refunds/{self.refund}/retry", headers=headers
        ) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def court(valkey_url: str, folder: Path, **more: Any) -> AsyncIterator[Court]:
    async with AsyncExitStack() as stack:
        amazon = await stack.enter_async_context(Amazon())
        hook = await stack.enter_async_context(Hook("court", types=[ACTION_REQUIRED]).listening())
        plain = await stack.enter_async_context(Hook("books").listening())
        tables = [account(amazon, folder, **more)]
        stage = await stack.enter_async_context(running(valkey_url, tables, [hook, plain], tokens=EVERY))
        amazon.post_to = f"{stage.url}/ipn"
        charge = amazon.open_charge("100.00", "USD")
        refund = amazon.start_refund("14.00", "USD", Outcome.DECLINED_AT_ONCE, charge)
        await until(lambda: stage.agrees(amazon), "the declined refund is known")
        yield Court(amazon, stage, hook, plain, charge, refund)


@pytest.fixture
async def at(redis: Redis, valkey_url: str, tmp_path: Path) -> AsyncIterator[Court]:
    async with court(valkey_url, tmp_path) as found:
        yield found


async def test_a_dispute_from_its_filing_to_its_end(at: Court) -> None:
    """409 while it is open; the webhook has the deadline; the refund can be issued again when the merchant has won."""
    dispute_id = at.amazon.disputes.open(at.charge).dispute_id
    await until(lambda: at.hook.posts, "the reminder")
    (event,) = at.hook.events
    assert (event.get_type(), event.get_subject()) == (ACTION_REQUIRED, dispute_id)
    data = event.get_data()
    assert isinstance(data, dict)
    assert (data["disputeId"], data["chargeId"], data["reminder"]) == (dispute_id, at.charge, "known")
    found = await at.dispute()
    assert (found["state"], found["open"], found["blocksRefunds"]) == ("ActionRequired", True, True)
    assert data["merchantResponseDeadline"] == found["merchantResponseDeadline"]
    status, problem = await at.retry()
    assert (status, problem["reason"]) == (409, "buyer_may_be_paid")
    assert problem["disputes"][0]["disputeId"] == dispute_id
    assert "answer by" in problem["detail"]
    refund = await at.stage.refund(at.refund)
    assert (refund["retryable"], refund["retryableReasons"]) == (False, ["buyer_may_be_paid"])
    assert "answer by" in refund["advice"]["summary"]

    at.amazon.disputes.move(dispute_id, "Resolved", "MerchantWon")
    await until(lambda: _is(at, "Resolved"), "its end is known")
    refund = await at.stage.refund(at.refund)
    assert (refund["retryable"], refund["retryableReasons"]) == (True, [])
    status, issued = await at.retry()
    assert status == 201, issued
    assert len(at.hook.posts) == 1


async def _is(at: Court, state: str) -> bool:
    return bool(await at.state() == state)


@pytest.mark.parametrize(
    ("state", "resolution", "status"),
    [("Closed", "NoFault", 201), ("Resolved", "BuyerWon", 409), ("Closed", "", 409), ("UnderReview", "", 409)],
)
async def test_only_a_harmless_end_takes_the_guard(at: Court, state: str, resolution: str, status: int) -> None:
    """In every other state the buyer may have the money."""
    dispute = at.amazon.disputes.open(at.charge, state="UnderReview", answer_within=None)
    await until(lambda: _is(at, "UnderReview"), "it is known")
    at.amazon.disputes.move(dispute.dispute_id, state, resolution)
    await until(lambda: _ended(at, state, resolution), "its end is known")
    assert (await at.retry())[0] == status


async def _ended(at: Court, state: str, resolution: str) -> bool:
    found = await at.dispute()
    return bool((found["state"], found["resolution"] or "") == (state, resolution))


async def test_a_key_without_the_right_guards_by_the_notification_alone(at: Court) -> None:
    """No refusal is a word about the dispute; with the right, a refused refund is enough to ask again."""
    at.amazon.fault_injection.add("refuse", kind="access", place="get_dispute", times=None)
    dispute = at.amazon.disputes.open(at.charge, state="UnderReview")
    await until(lambda: _failed(at), "the question was refused")
    found = await at.dispute()
    assert (found["state"], found["open"], found["blocksRefunds"]) == (None, True, True)
    asked = at.questions
    assert (await at.retry())[0] == 409
    await until(lambda: at.questions > asked, "the refused refund made the service ask")
    await until(lambda: _failed(at), "it was refused again")
    at.amazon.fault_injection.clear()
    at.amazon.post_to = None
    at.amazon.disputes.move(dispute.dispute_id, "Closed", "MerchantWon")
    # Once a minute; the minute is over.
    assert await at.stage.redis.delete(f"refunds:{{us}}:disputes_asked:{found['chargePermissionId']}") == 1
    assert (await at.retry())[0] == 409
    await until(lambda: _is(at, "Closed"), "Amazon was asked again")
    assert (await at.retry())[0] == 201


async def _failed(at: Court) -> bool:
    return bool((await at.dispute() or {}).get("failure") == "amazon_refuses_us")


async def test_the_feed_has_it_where_it_is_asked_for(at: Court) -> None:
    """A client that reads all events gets those of refunds; so does a subscriber to `*`."""
    dispute_id = at.amazon.disputes.open(at.charge).dispute_id
    await until(lambda: at.hook.posts, "the reminder")
    for named in ("dispute.action_required", ACTION_REQUIRED):
        _, page = await at.stage.get(f"/v1/events?after=beginning&type={named}")
        assert [each["subject"] for each in page["events"]] == [dispute_id]
        assert json.dumps(page["events"][0], sort_keys=True) == json.dumps(
            json.loads(at.hook.posts[0].body), sort_keys=True
        )
    _, page = await at.stage.get("/v1/events?after=beginning")
    assert {each["subject"] for each in page["events"]} == {at.refund}
    _, both = await at.stage.get("/v1/events?after=beginning&type=declined,dispute.action_required")
    assert {each["subject"] for each in both["events"]} == {at.refund, dispute_id}
    assert {each.get_subject() for each in at.plain.events} == {at.refund}
    async with at.stage.session.get(f"{at.stage.url}/metrics") as answer:
        text = await answer.text()
    assert 'receiver_disputes_to_answer{account="us"} 1.0' in text
    assert f'receiver_events_total{{type="{ACTION_REQUIRED}"}} 1.0' in text


async def test_the_dashboard_shows_what_is_to_answer_and_each_change_on_the_refunds_timeline(at: Court) -> None:
    """The timeline has the deadline and the end. The overview lists the dispute until it is answered."""
    dispute = at.amazon.disputes.open(at.charge, filing_reason="<b>Fraud</b>")
    await until(lambda: _is(at, "ActionRequired"), "it is known")
    url = at.stage.url
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{url}/sign-in") as page:
            csrf = (await page.text()).partition('name="csrf" value="')[2].partition('"')[0]
        fields = {"token": TOKEN, "csrf": csrf, "next": "/"}
        async with browser.post(f"{url}/sign-in", data=fields, headers={"Origin": url}) as page:
            assert page.status == 200
            overview = await page.text()
        at.amazon.disputes.move(dispute.dispute_id, "Resolved", "BuyerWon")
        await until(lambda: _is(at, "Resolved"), "its end is known")
        async with browser.get(url) as page:
            later = await page.text()
        async with browser.get(f"{url}/refunds/{at.refund}") as page:
            text = await page.text()
    assert page.status == 200
    assert "Disputes to answer" in overview
    assert dispute.dispute_id in overview
    assert "&lt;b&gt;Fraud&lt;/b&gt; · answer within " in overview
    assert f"/refunds?q={at.charge}" in overview
    assert "Disputes to answer" not in later
    assert "<b>Fraud</b>" not in text
    for words in ("won by the buyer", "ActionRequired", "MerchantResponseRequired", "answer by", "BuyerWon"):
        assert words in text, words
