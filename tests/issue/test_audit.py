"""The audit trail: every act of a caller has one entry, with the token and the person, whatever fails in between."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from receiver.issue.cases import Closing
from receiver.ledger.audit import Actor
from receiver.ledger.refund import How
from receiver.ledger.refund_request import Asked, RequestState
from receiver.store import Store
from tests.http.kit import ADMIN, READER, REFUNDER
from tests.issue.counter import Counter, counter
from tests.issue.kit import Desk, Killed, desk, dying
from tests.issue.test_dashboard_retry import csrf
from tests.issue.test_generations import declined
from tests.issue.test_repeat import made_unclear, unclear
from tests.kit.clock import ManualClock
from tests.service.stage import Amazon, account

Open = tuple[Counter, Amazon]
HEADER = "X-Forwarded-User"
ANN, BOB = Actor("orders", "ann"), Actor("orders", "bob")
TRAIL = "refunds:{us}:audit"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def here(store: Store, clock: ManualClock) -> AsyncIterator[Desk]:
    async with desk(store, clock) as made:
        yield made


@pytest.fixture
async def open_shop(redis: Any, valkey_url: str, tmp_path: Path) -> AsyncIterator[Open]:
    """Behind a proxy that signs people in."""
    http = {"port": 0, "trusted_proxies": ["127.0.0.1"], "user_header": HEADER}
    async with Amazon() as amazon, counter(valkey_url, account(amazon, tmp_path), http=http) as found:
        yield found, amazon


@pytest.fixture
def closed_port() -> Iterator[int]:
    """One that refuses connections."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def trail(found: Counter, **query: str | int) -> list[dict[str, Any]]:
    """The entries, oldest first."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    status, body, _ = await found.call("GET", f"/v1/audit?{asked}", token=ADMIN)
    assert (status, body["unreadable"], body["nextCursor"]) == (200, [], None), body
    return list(reversed(body["entries"]))


def short(entries: list[dict[str, Any]]) -> list[tuple[str, str, str | None, str]]:
    return [(each["action"], each["token"], each["user"], each["outcome"]) for each in entries]


async def test_every_act_on_refunds_has_one_entry(open_shop: Open) -> None:
    """The entry names what the act concerned; a repeated call and a refused one have none."""
    found, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    wish = {"chargeId": charge, "refundAmount": {"amount": "14.02", "currencyCode": "USD"}}
    for user in ("ann", "bob"):
        status, made, _ = await found.call("POST", "/v1/refunds", wish, key="k1", headers={HEADER: user})
        assert status == 201
    refund_id = made["refundId"]
    assert (made["issuedBy"], made["issuedByUser"]) == ("refunder", "ann")
    assert (await found.call("POST", "/v1/refunds", {**wish, "chargeId": "S01-1-1-C1"}, key="k1"))[0] == 409
    amazon.move()
    amazon.move()
    await found.shows(refund_id, "Declined")
    for user in ("bob", "ann"):
        status, again, _ = await found.call("POST", f"/v1/refunds/{refund_id}/retry", headers={HEADER: user})
        assert (status, again["issuedByUser"]) == (201, "bob")
    refused = await found.call("POST", f"/v1/refunds/{again['refundId']}/retry", headers={HEADER: "eve"})
    assert refused[0] == 409
    created, refreshed, retried = entries = await trail(found)
    assert short(entries) == [
        ("refund.create", "refunder", "ann", "accepted"),
        ("refund.refresh", "refunder", None, "accepted"),
        ("refund.retry", "refunder", "bob", "accepted"),
    ]
    assert (created["chargeId"], retried["chargeId"], refreshed["refundId"]) == (charge, charge, refund_id)
    assert (created["refundId"], retried["refundId"]) == (None, refund_id)
    assert await trail(found, refund=refund_id) == entries, "that of its request, too"
    assert await trail(found, refund=again["refundId"]) == [retried]
    assert await trail(found, refund=created["refundRequestId"]) == [created]
    assert await trail(found, actor="bob") == [retried]
    assert await trail(found, actor="refunder") == entries
    assert await trail(found, since=retried["time"]) == [retried]
    assert await trail(found, until=created["time"]) == []
    _, history, _ = await found.call("GET", f"/v1/refunds/{refund_id}/history", token=READER)
    assert {each["issuedByUser"] for each in history["revisions"]} == {"ann"}
    raw = json.dumps([each async for each in stored(found)])
    assert "14.02" not in raw
    assert REFUNDER not in raw


async def stored(found: Counter) -> AsyncIterator[str]:
    for _, fields in await found.stage.redis.xrange(TRAIL):
        yield repr(fields)


async def test_repeating_and_settling(open_shop: Open) -> None:
    """For an unclear request. The request says who did it, and so does the log."""
    found, amazon = open_shop
    charge, request_id = await made_unclear(found, amazon)
    amazon.fault_injection.add("refuse", place="create_refund", kind="count")
    path = f"/v1/refund-requests/{request_id}"
    assert (await found.call("POST", f"{path}/repeat", headers={HEADER: "ann"}))[0] == 200
    with capture_logs(processors=[merge_contextvars]) as logs:
        for user in ("bob", "ann"):
            status, body, _ = await found.call("POST", f"{path}/settle", {"notIssued": True}, headers={HEADER: user})
            assert (status, body["settledBy"], body["settledByUser"]) == (200, "refunder", "bob")
    _, _, settled = entries = await trail(found, refund=request_id)
    assert short(entries) == [
        ("refund.create", "refunder", None, "accepted"),
        ("refund_request.repeat", "refunder", "ann", "accepted"),
        ("refund_request.settle", "refunder", "bob", "not_issued"),
    ]
    assert {each["chargeId"] for each in entries} == {charge}
    (line,) = [each for each in logs if each["event"] == "refund.settled_by_hand"]
    assert (line["token_name"], line["user"], line["by"]) == ("refunder", "bob", "refunder (bob)")
    assert line["request_id"] == settled["requestId"]


async def test_every_act_on_subscribers_has_one_entry(open_shop: Open, closed_port: int) -> None:
    """The names of changed fields, and never a value."""
    found, _ = open_shop
    fields = {"name": "finance", "url": f"http://127.0.0.1:{closed_port}/hook", "secret": SECRET}

    async def act(method: str, path: str, body: Any = None, user: str = "ann") -> Any:
        status, answer, _ = await found.call(method, path, body, token=ADMIN, headers={HEADER: user})
        assert status < 300, answer
        return answer

    one = "/v1/subscribers/finance"
    await act("POST", "/v1/subscribers", fields)
    assert (await found.call("POST", "/v1/subscribers", {**fields, "rate": 1}, token=ADMIN))[0] == 409
    await act("PATCH", one, {"rate": 2.5, "types": ["*"]}, "bob")
    assert (await found.call("PATCH", one, {"rates": 2.5}, token=ADMIN))[0] == 400
    await act("POST", f"{one}/rotate")
    for _ in range(2):
        await act("POST", f"{one}/pause")
    tested = await act("POST", f"{one}/test")
    at = (await found.stage.redis.xadd("refunds:{us}:events", {"id": "x"})).decode()
    for dry_run in (True, False):
        await act("POST", f"{one}/redrive", {"ids": [at], "dryRun": dry_run})
    for _ in range(2):
        await act("POST", f"{one}/resume")
    await act("DELETE", one)
    entries = await trail(found)
    assert [(each["action"], each["outcome"]) for each in entries] == [
        ("subscriber.add", "done"),
        ("subscriber.change", "done"),
        ("subscriber.rotate", "done"),
        ("subscriber.pause", "done"),
        ("subscriber.test", "accepted"),
        ("subscriber.redrive", "accepted"),
        ("subscriber.resume", "done"),
        ("subscriber.remove", "done"),
    ]
    assert {each["subscriber"] for each in entries} == {"finance"}
    assert [each["user"] for each in entries].count("bob") == 1
    assert (entries[1]["fields"], entries[4]["eventId"], entries[5]["count"]) == (["rate", "types"], tested["id"], 1)
    kept = "".join([each async for each in stored(found)])
    assert not any(word in kept for word in ("whsec", "127.0.0.1", "2.5"))


async def test_the_dashboard_acts_for_the_person_of_each_request(open_shop: Open, closed_port: int) -> None:
    """A session belongs to a token; the acting person is the one that the proxy names in each request."""
    found, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    _, made = await found.create(charge, "14.02")
    refund_id = made["refundId"]
    amazon.move()
    amazon.move()
    await found.shows(refund_id, "Declined")
    await found.call(
        "POST", "/v1/subscribers", {"name": "finance", "url": f"http://127.0.0.1:{closed_port}/h"}, token=ADMIN
    )
    before = len(await trail(found))
    refunds, subscribers = await signed_in(found, REFUNDER), await signed_in(found, ADMIN)
    await press(found, refunds, f"/refunds/{refund_id}/refresh?account=us", f"/refunds/{refund_id}?account=us", "ann")
    await press(
        found, refunds, f"/refunds/{refund_id}/retry?account=us", f"/refunds/{refund_id}/retry?account=us", "bob"
    )
    for word in ("pause", "resume"):
        await press(found, subscribers, f"/subscribers/finance/{word}?account=us", "/subscribers", "cat")
    assert short((await trail(found))[before:]) == [
        ("refund.refresh", "refunder", "ann", "accepted"),
        ("refund.retry", "refunder", "bob", "accepted"),
        ("subscriber.pause", "admin", "cat", "done"),
        ("subscriber.resume", "admin", "cat", "done"),
    ]
    _, text = await page(found, "GET", f"/refunds/{refund_id}?account=us", refunds, "ann")
    assert "requested by refunder (ann)" in text


async def page(
    found: Counter, method: str, path: str, jar: dict[str, str], user: str, **fields: str
) -> tuple[int, str]:
    """The status and text of a page, as a browser behind the proxy gets it; cookies go to the jar."""
    sent = {"Accept": "text/html", HEADER: user, "Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
    url = found.stage.url + path
    async with found.stage.session.request(method, url, data=fields or None, headers=sent, allow_redirects=False) as it:
        jar.update({name: morsel.value for name, morsel in it.cookies.items()})
        return it.status, await it.text()


async def signed_in(found: Counter, token: str) -> dict[str, str]:
    jar: dict[str, str] = {}
    _, text = await page(found, "GET", "/sign-in", jar, "sam")
    await page(found, "POST", "/sign-in", jar, "sam", token=token, csrf=csrf(text), next="/")
    return jar


async def press(found: Counter, jar: dict[str, str], target: str, at: str, user: str) -> None:
    _, text = await page(found, "GET", at, jar, user)
    assert (await page(found, "POST", target, jar, user, csrf=csrf(text)))[0] == 303


async def test_a_forged_person_is_not_recorded(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """From a client that is no trusted proxy the header is nothing; the act is the token's alone."""
    http = {"port": 0, "trusted_proxies": ["192.0.2.1"], "user_header": HEADER}
    async with Amazon() as amazon, counter(valkey_url, account(amazon, tmp_path), http=http) as found:
        charge = amazon.open_charge("100.00", "USD")
        wish = {"chargeId": charge, "refundAmount": {"amount": "14.00", "currencyCode": "USD"}}
        status, made, _ = await found.call("POST", "/v1/refunds", wish, key="k", headers={HEADER: "mallory"})
        assert (status, made["issuedByUser"]) == (201, None)
        assert short(await trail(found)) == [("refund.create", "refunder", None, "accepted")]
        for token, expected in ((READER, 403), (REFUNDER, 403), ("nobody", 401)):
            assert (await found.call("GET", "/v1/audit", token=token))[0] == expected


async def test_closing_and_reopening(open_shop: Open) -> None:
    """Who ended a case, and how; another closing of a closed case is refused, and no act."""
    found, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    _, made = await found.create(charge, "14.02")
    refund_id = made["refundId"]
    amazon.move()
    amazon.move()
    await found.shows(refund_id, "Declined")
    path, gift = f"/v1/refunds/{refund_id}", {"how": "compensated", "note": "gift card"}
    for user in ("ann", "bob"):
        status, body, _ = await found.call("POST", f"{path}/close", gift, headers={HEADER: user})
        assert (status, body["resolution"]["user"]) == (200, "ann")
    assert (await found.call("POST", f"{path}/close", {"how": "not_owed", "note": "x"}))[0] == 409
    for _ in range(2):
        assert (await found.call("POST", f"{path}/reopen", headers={HEADER: "bob"}))[0] == 200
    entries = [
        each for each in await trail(found, refund=refund_id) if each["action"] in ("refund.close", "refund.reopen")
    ]
    assert short(entries) == [
        ("refund.close", "refunder", "ann", "compensated"),
        ("refund.reopen", "refunder", "bob", "done"),
    ]
    assert "gift card" not in "".join([each async for each in stored(found)])


async def state_and_entries(here: Desk, request_id: str, action: str) -> tuple[str, list[str]]:
    """The state of a request, and who has done this to it: as they stood at one moment."""
    redis = here.store.connection.client
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hget(f"refunds:{{us}}:requests:{request_id}", "state")
        pipe.xrange(TRAIL)
        state, entries = await pipe.execute()
    found = [json.loads(next(iter(fields.values()))) for _, fields in entries]
    mine = [each for each in found if each["refund_request_id"] == request_id and each["action"] == action]
    return (state or b"").decode(), [each["actor"]["user"] for each in mine]


async def die(work: Coroutine[Any, Any, Any], point: int) -> bool:
    """Whether it died at this await point."""
    try:
        await dying(work, point)
    except Killed:
        return True
    return False


async def test_wherever_a_request_dies_it_has_one_entry_if_it_is_there(here: Desk) -> None:
    """Nothing is on disk without its entry, and nothing twice when another person repeats the call."""
    for point in range(200):
        charge, key = here.charge(), f"key-{point}"
        wish = here.wish(charge)
        died = await die(here.another().create(wish, key, Asked(ANN)), point)
        request_id = sha256(key.encode()).hexdigest()
        state, by = await state_and_entries(here, request_id, "refund.create")
        assert by == (["ann"] if state else []), point
        await here.work(rounds=2)
        issued = await here.another().create(wish, key, Asked(BOB))
        assert here.issued(charge) == [issued.record.refund_id]
        _, after = await state_and_entries(here, request_id, "refund.create")
        assert after in (["ann"], ["bob"]), point
        assert after == by or not by, point
        if not died:
            break
    assert 5 < point < 199


@pytest.mark.parametrize("how", ["repeat", "settle"])
async def test_wherever_a_person_dies_the_request_and_its_entry_agree(here: Desk, how: str) -> None:
    """It is unclear still, without an entry; or it is not, with one."""
    for point in range(200):
        charge = here.charge()
        order = (await unclear(here, charge, f"{how}-{point}")).order
        issuer = here.another()
        work = (
            issuer.manual.repeat(order.id, by=ANN) if how == "repeat" else issuer.manual.as_not_issued(order.id, by=ANN)
        )
        died = await die(work, point)
        state, by = await state_and_entries(here, order.id, f"refund_request.{how}")
        assert by == ([] if state == RequestState.UNCLEAR else ["ann"]), point
        await here.work(rounds=2)
        if how == "repeat":
            await here.another().manual.repeat(order.id, by=BOB)
        else:
            await here.another().manual.as_not_issued(order.id, by=BOB)
        _, after = await state_and_entries(here, order.id, f"refund_request.{how}")
        assert after in (["ann"], ["bob"]), point
        assert after == by or not by, point
        if not died:
            break
    assert 3 < point < 199


async def test_wherever_a_person_dies_the_case_and_its_entry_agree(here: Desk) -> None:
    """It is open still, without an entry; or it is closed, with one."""
    for point in range(200):
        root = await declined(here)
        died = await die(here.another().cases.close(root, Closing(How.COMPENSATED, ANN, note="gift")), point)
        redis = here.store.connection.client
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hget(f"refunds:{{us}}:refund:{root}", "case_how")
            pipe.xrange(TRAIL)
            how, entries = await pipe.execute()
        found = [json.loads(next(iter(fields.values()))) for _, fields in entries]
        closings = [each for each in found if each["action"] == "refund.close" and each["refund_id"] == root]
        assert [each["outcome"] for each in closings] == ([how.decode()] if how else []), point
        if not died:
            break
    assert 3 < point < 199
