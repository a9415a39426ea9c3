"""An unclear request is sent once more, under the same key, before a person settles it by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.errors import Conflict, NotFound
from receiver.ledger.audit import Actor
from receiver.ledger.refund_request import RefundRequestRecord, RequestState
from receiver.store import Store
from receiver.track.amazon_client import REDATED
from tests.http.kit import ADMIN, READER, REFUNDER
from tests.issue.counter import Counter, shop
from tests.issue.kit import Desk, Killed, desk, dying
from tests.issue.test_dashboard_retry import csrf, page
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.service.stage import Amazon

Open = tuple[Counter, Amazon]


@pytest.fixture
async def here(store: Store, clock: ManualClock) -> AsyncIterator[Desk]:
    async with desk(store, clock) as made:
        yield made


async def unclear(here: Desk, charge: str, key: str = "unlucky", *, made: bool = False) -> RefundRequestRecord:
    """An attempt without an answer, whether Amazon made the refund or not, and then a verdict of Amazon's."""
    here.simulator.fault_injection.add("lost_answer" if made else "error", place="create_refund")
    pending = await here.issuer.create(here.wish(charge), key)
    here.simulator.fault_injection.add("refuse", place="create_refund", kind="count")
    await here.work(rounds=1)
    found = await here.store.of("us").requests.get(pending.record.order.id)
    assert found is not None
    assert (found.state, found.unknown) == (RequestState.UNCLEAR, True)
    return found


@pytest.mark.parametrize("made", [True, False])
async def test_amazon_tells_under_the_same_key_what_became_of_it(here: Desk, made: bool) -> None:
    """It made the refund, or makes it now: one in any case. Again, and after that, nothing more is sent."""
    charge = here.charge()
    found = await unclear(here, charge, made=made)
    with capture_logs() as logs:
        settled = await here.issuer.manual.repeat(found.order.id, by=Actor("ops"))
    assert settled.state is RequestState.DONE
    assert here.issued(charge) == [settled.refund_id]
    assert [each["by"] for each in logs if each["event"] == "refund.repeated_by_hand"] == ["ops"]
    assert await here.reserved(charge) == []
    sizes = await here.store.of("us").gauges.measure()
    assert (sizes["requests:unclear"], sizes["requests:reserved"]) == (0, 0)
    calls = len(here.simulator.calls)
    assert await here.another().manual.repeat(found.order.id, by=Actor("ops")) == settled
    again = await here.issuer.create(here.wish(charge), "unlucky")
    assert again.refund is not None
    assert (again.refund.refund_id, len(here.simulator.calls)) == (settled.refund_id, calls)


async def test_a_verdict_leaves_it_unclear_and_reserved(here: Desk) -> None:
    """It can be repeated as often as a person likes, and settled then."""
    charge = here.charge()
    found = await unclear(here, charge)
    here.simulator.fault_injection.add("refuse", place="create_refund", kind="count", times=2)
    for _ in range(2):
        assert (await here.issuer.manual.repeat(found.order.id, by=Actor("ops"))).state is RequestState.UNCLEAR
    assert len(await here.reserved(charge)) == 1
    assert (await here.store.of("us").gauges.measure())["requests:unclear"] == 1
    assert await here.store.connection.client.pttl(f"refunds:{{us}}:requests:{found.order.id}") == -1
    assert (await here.issuer.manual.as_not_issued(found.order.id, by=Actor("ops"))).state is RequestState.REFUSED
    with pytest.raises(Conflict) as caught:
        await here.issuer.manual.repeat(found.order.id, by=Actor("ops"))
    assert caught.value.reason == "request_settled"
    with pytest.raises(NotFound):
        await here.issuer.manual.repeat("0" * 64, by=Actor("ops"))


@pytest.mark.parametrize("trick", ["error", "refuse", "throttle"])
async def test_without_an_answer_a_worker_goes_on(here: Desk, trick: str) -> None:
    """Neither silence nor a refusal of our request makes it unclear again."""
    charge = here.charge()
    found = await unclear(here, charge)
    # The client repeats what is refused for its date.
    here.simulator.fault_injection.add(trick, place="create_refund", times=REDATED + 1 if trick == "refuse" else 1)
    assert (await here.issuer.manual.repeat(found.order.id, by=Actor("ops"))).state is RequestState.RESERVED
    await here.work()
    settled = await here.store.of("us").requests.get(found.order.id)
    assert settled is not None
    assert settled.state is RequestState.DONE
    assert here.issued(charge) == [settled.refund_id]


async def test_refusals_of_our_request_after_an_unknown_end_do_not_make_it_unclear(here: Desk) -> None:
    charge = here.charge()
    here.simulator.fault_injection.add("lost_answer", place="create_refund")
    pending = await here.issuer.create(here.wish(charge), "refund-1")
    for kind in ("date", "header", "signature", "key", "hold", "field", "value", "conflict", "page", "proxy", "tls"):
        here.simulator.fault_injection.add("refuse", place="create_refund", kind=kind, times=3)
        await here.work(rounds=1)
        found = await here.store.of("us").requests.get(pending.record.order.id)
        assert found is not None
        assert (found.state, found.unknown, found.last_error) == (RequestState.RESERVED, True, "amazon_refuses_us"), (
            kind
        )
        here.simulator.fault_injection.clear()
    await here.work()
    issued = await here.issuer.create(here.wish(charge), "refund-1")
    assert issued.refund is not None
    assert here.issued(charge) == [issued.refund.refund_id]


async def test_of_many_who_repeat_it_one_sends(here: Desk) -> None:
    charge = here.charge()
    found = await unclear(here, charge)
    before = len(here.simulator.calls)
    answers = await asyncio.gather(*(here.another().manual.repeat(found.order.id, by=Actor("ops")) for _ in range(6)))
    assert {each.state for each in answers} <= {RequestState.RESERVED, RequestState.DONE}
    assert len(here.simulator.calls) == before + 1
    assert len(here.issued(charge)) == 1


@pytest.mark.parametrize("made", [True, False])
async def test_wherever_the_process_dies_one_refund_comes_of_it(here: Desk, made: bool) -> None:
    """At every await point of a repetition: a worker goes on, or it is unclear still and repeated."""
    for point in range(200):
        charge = here.charge()
        found = await unclear(here, charge, f"key-{point}", made=made)
        try:
            await dying(here.another().manual.repeat(found.order.id, by=Actor("ops")), point)
        except Killed:
            died = True
        else:
            died = False
        await here.work(rounds=2)
        settled = await here.another().manual.repeat(found.order.id, by=Actor("ops"))
        assert settled.state is RequestState.DONE, point
        assert here.issued(charge) == [settled.refund_id], point
        assert await here.reserved(charge) == [], point
        if not died:
            break
    assert 5 < point < 199


@pytest.fixture
async def open_shop(redis: Any, valkey_url: str, tmp_path: Path) -> AsyncIterator[Open]:
    async with shop(valkey_url, tmp_path) as found:
        yield found


async def made_unclear(counter: Counter, amazon: Amazon, key: str = "unlucky") -> tuple[str, str]:
    """The charge, and the request that is unclear."""
    charge = amazon.open_charge("100.00", "USD")
    amazon.fault_injection.add("lost_answer", place="create_refund")
    amazon.fault_injection.add("refuse", place="create_refund", kind="count")
    _, pending = await counter.create(charge, key=key)
    request_id = pending["refundRequestId"]
    await counter.due(request_id)

    async def is_unclear() -> bool:
        return bool((await counter.request(request_id))["state"] == "unclear")

    await until(is_unclear, "it is unclear")
    return charge, request_id


async def test_over_http(open_shop: Open) -> None:
    counter, amazon = open_shop
    charge, request_id = await made_unclear(counter, amazon)
    path = f"/v1/refund-requests/{request_id}/repeat"
    for token, status in ((READER, 403), (ADMIN, 403), ("nobody", 401)):
        assert (await counter.call("POST", path, token=token))[0] == status
    status, problem, _ = await counter.call("POST", path, {"notIssued": True})
    assert (status, problem["reason"]) == (400, "unknown_field")
    for bad, reason in (("0" * 64, "no_such_request"), ("x", "bad_request_id")):
        assert (await counter.call("POST", f"/v1/refund-requests/{bad}/repeat"))[1]["reason"] == reason
    amazon.fault_injection.add("refuse", place="create_refund", kind="hold")
    status, found, headers = await counter.call("POST", path)
    assert (status, found["state"], found["lastError"], headers["Retry-After"]) == (
        202,
        "reserved",
        "amazon_refuses_us",
        "5",
    )
    await counter.due(request_id)

    async def done() -> bool:
        return bool((await counter.call("POST", path))[1]["state"] == "done")

    await until(done, "a worker goes on")
    status, found, _ = await counter.call("POST", path)
    assert (status, found["state"]) == (200, "done")
    assert [each.refund_id for each in amazon.refunds.values() if each.order.charge_id == charge] == [found["refundId"]]


async def test_the_command(open_shop: Open) -> None:
    """Exit code 6 while it stays unclear, 4 without an answer, 0 with a refund."""
    counter, amazon = open_shop
    _, request_id = await made_unclear(counter, amazon)
    amazon.fault_injection.add("refuse", place="create_refund", kind="count")
    ran = await counter.run("refund", "repeat", request_id)
    assert (ran.code, "unclear" in ran.out) == (6, True), ran
    amazon.fault_injection.add("refuse", place="create_refund", kind="hold")
    ran = await counter.run("refund", "repeat", request_id)
    assert (ran.code, "amazon_refuses_us" in ran.out) == (4, True), ran
    await counter.due(request_id)

    async def done() -> bool:
        return bool((await counter.request(request_id))["state"] == "done")

    await until(done, "a worker goes on")
    ran = await counter.run("refund", "repeat", request_id, "--json")
    assert ran.code == 0, ran
    assert '"state":"done"' in ran.out.replace(" ", "")


async def signed_in(counter: Counter) -> dict[str, str]:
    """The cookies of a browser that has signed in."""
    _, text, _, jar = await page(counter, "GET", "/sign-in", {})
    _, _, _, jar = await page(counter, "POST", "/sign-in", jar, token=REFUNDER, csrf=csrf(text), next="/")
    return dict(jar)


async def test_the_dashboard_has_a_button(open_shop: Open) -> None:
    counter, amazon = open_shop
    charge, request_id = await made_unclear(counter, amazon)
    jar = await signed_in(counter)
    path = f"/requests/{request_id}/repeat?account=us"
    _, text, _, _ = await page(counter, "GET", "/", jar)
    assert path in unescape(text)
    assert "TransactionCountExceeded" in text
    token = csrf(text)
    assert (await page(counter, "POST", path, jar, csrf="wrong"))[0] == 403
    amazon.fault_injection.add("refuse", place="create_refund", kind="count")
    status, _, headers, _ = await page(counter, "POST", path, jar, csrf=token)
    assert (status, headers["Location"]) == (303, "/?done=unclear")
    assert "still refuses it" in (await page(counter, "GET", "/?done=unclear", jar))[1]
    status, _, headers, _ = await page(counter, "POST", path, jar, csrf=token)
    (made,) = [each.refund_id for each in amazon.refunds.values() if each.order.charge_id == charge]
    assert (status, headers["Location"]) == (303, f"/refunds/{made}?account=us&done=retry")
    for wrong in (f"/requests/{'0' * 64}/repeat?account=us", f"/requests/{request_id}/repeat", "/requests/x/repeat"):
        assert (await page(counter, "POST", wrong, jar, csrf=token))[0] == 404
    assert path not in unescape((await page(counter, "GET", "/", jar))[1])


async def test_the_button_of_a_retry_says_what_happened_last_time(open_shop: Open) -> None:
    """On the refund, in its timeline, on the page that asks, and in `receiver refund get`."""
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    _, made = await counter.create(charge, "14.02")
    declined = made["refundId"]
    amazon.move()
    amazon.move()
    await counter.shows(declined, "Declined")
    jar = await signed_in(counter)
    path = f"/refunds/{declined}/retry?account=us"
    _, text, _, _ = await page(counter, "GET", path, jar)
    assert "The last attempt" not in text
    amazon.fault_injection.add("refuse", place="create_refund", kind="count")
    assert (await page(counter, "POST", path, jar, csrf=csrf(text)))[0] == 422
    said = "The charge has been refunded ten times."
    _, shown, _, _ = await page(counter, "GET", f"/refunds/{declined}?account=us", jar)
    assert "The last attempt to reissue it" in shown
    assert shown.count(said) == 2, "beside the button, and in the timeline"
    assert "Requested by refunder" in shown
    _, text, _, _ = await page(counter, "GET", path, jar)
    assert "The last attempt" in text
    assert said in text
    ran = await counter.run("refund", "get", declined)
    assert said in " ".join(ran.out.split())
    amazon.fault_injection.add("refuse", place="create_refund", kind="hold")
    status, _, headers, _ = await page(counter, "POST", path, jar, csrf=csrf(text))
    assert (status, headers["Location"]) == (303, f"/refunds/{declined}?account=us&done=refuses_us")
    assert "Amazon refuses our requests" in (await page(counter, "GET", headers["Location"], jar))[1]
