"""Fault injection on a live simulator: each trick does what the table says, and then all is well again."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from receiver.simulator.app import Simulator
from receiver.simulator.notifications.forgeries import Forgery
from receiver.simulator.notifications.notices import Unfamiliar
from receiver.simulator.notifications.sender import Verdict
from tests.kit.clock import ManualClock
from tests.simulator.conftest import Client, Inbox, until

CHARGE = "S01-0000001-0000001-C000001"


async def settle(amazon: Simulator, clock: ManualClock) -> None:
    """Let the outcome of every refund come, and all notifications go."""
    clock.tick(30_000)
    amazon.tick()
    await amazon.idle()


async def test_duplicate_posts_the_same_notification_again(amazon: Simulator, inbox: Inbox) -> None:
    """Byte for byte, three times."""
    amazon.fault_injection.add("duplicate", copies=3)
    amazon.start_refund("1.00", "USD", "Pending")
    await amazon.idle()
    assert len(inbox.bodies) == 3
    assert len(set(inbox.bodies)) == 1
    assert [post.kind for post in amazon.posted] == ["genuine", "repeated", "repeated"]


async def test_drop_never_posts(amazon: Simulator, clock: ManualClock, inbox: Inbox) -> None:
    """Only the notification of the named state is lost, and the log says so."""
    amazon.fault_injection.add("drop", state="Refunded")
    refund_id = amazon.start_refund("1.00", "USD")
    await amazon.idle()
    await settle(amazon, clock)
    assert inbox.objects == [refund_id]
    assert [(post.state, post.verdict) for post in amazon.posted] == [
        ("RefundInitiated", Verdict.DELIVERED),
        ("Refunded", Verdict.DROPPED),
    ]


async def test_reorder_swaps_two_notifications_of_a_refund(amazon: Simulator, clock: ManualClock) -> None:
    """The first comes after the second, and only once; other refunds are not held up."""
    amazon.fault_injection.add("reorder", seconds=3600)
    late = amazon.start_refund("1.00", "USD", "Contradicted")
    other = amazon.start_refund("1.00", "USD", "Pending")
    await until(lambda: [post.about for post in amazon.posted] == [other])
    clock.tick(30_000)
    amazon.tick()
    await until(lambda: len(amazon.posted) == 3)
    clock.tick(30_000)
    amazon.tick()
    await until(lambda: amazon.posted[-1].state == "Declined")
    amazon.start_refund("1.00", "USD", "Pending")
    await until(lambda: amazon.posted[-1].about not in (late, other))
    told = [post.state for post in amazon.posted if post.about == late]
    assert told == ["Refunded", "RefundInitiated", "Declined"]


async def test_a_held_notification_goes_out_though_no_other_comes(amazon: Simulator, inbox: Inbox) -> None:
    """After its seconds."""
    amazon.fault_injection.add("reorder", seconds=0.05)
    amazon.start_refund("1.00", "USD", "Pending")
    await amazon.idle()
    assert len(inbox.bodies) == 1


async def test_delay_posts_later(amazon: Simulator, inbox: Inbox) -> None:
    """A second notification overtakes it."""
    amazon.fault_injection.add("delay", seconds=0.2)
    late = amazon.start_refund("1.00", "USD", "Pending")
    early = amazon.start_refund("1.00", "USD", "Pending")
    await amazon.idle()
    assert inbox.objects == [early, late]


async def test_unfamiliar_tells_of_the_refund_in_other_words(amazon: Simulator, inbox: Inbox) -> None:
    """Every kind in turn, or the one that was asked for; signed like any other, and each names the refund."""
    amazon.fault_injection.add("unfamiliar", times=len(Unfamiliar))
    amazon.fault_injection.add("unfamiliar", kind="text")
    refunds = []
    for _ in range(len(Unfamiliar) + 1):
        refunds.append(amazon.start_refund("1.00", "USD", "Pending"))
        await amazon.idle()
    messages = [envelope["Message"] for envelope in inbox.envelopes]
    assert all(refund_id in message for refund_id, message in zip(refunds, messages, strict=True))
    assert [message[0] for message in messages] == ["A", "{", "{", "{", "A"]
    assert len(set(messages)) == len(messages)
    for wrong in ({"kind": "other_topic"}, {"place": "get_refund"}):
        with pytest.raises(ValueError, match=r"kind|place"):
            amazon.fault_injection.add("unfamiliar", **wrong)


async def test_forge_posts_a_forgery_before_the_genuine_one(amazon: Simulator, inbox: Inbox) -> None:
    """Every kind in turn; never tried again, whatever the answer."""
    amazon.fault_injection.add("forge", times=None)
    for _ in Forgery:
        inbox.answers = [503, 200]
        amazon.start_refund("1.00", "USD", "Pending")
        await amazon.idle()
    kinds = [post.kind for post in amazon.posted]
    assert kinds[0::2] == [f"forged:{kind}" for kind in Forgery]
    assert set(kinds[1::2]) == {"genuine"}


async def test_a_forgery_on_its_own_tells_the_answer(amazon: Simulator, client: Client, inbox: Inbox) -> None:
    """From Python and over HTTP."""
    inbox.answers = [403, 503]
    posted = await amazon.forge("other_topic")
    assert (posted.kind, posted.status, posted.verdict) == ("forged:other_topic", 403, Verdict.REFUSED)
    status, told = await client.control("POST", "/forge", {"kind": "wrong_key", "refundId": "S01-1-1-R1"})
    assert (status, told["kind"], told["status"], told["about"]) == (200, "forged:wrong_key", 503, "S01-1-1-R1")
    assert (await client.control("POST", "/forge", {"kind": "nice"}))[0] == 400


async def test_throttle_answers_429_with_retry_after(amazon: Simulator, client: Client) -> None:
    """As often as planned."""
    amazon.fault_injection.add("throttle", seconds=7)
    status, body = await client.call("GET", f"/v2/charges/{CHARGE}")
    assert (status, body["reasonCode"], client.headers["retry-after"]) == (429, "TooManyRequests", "7")
    assert (await client.call("GET", f"/v2/charges/{CHARGE}"))[0] == 200


async def test_an_error_does_nothing_and_a_lost_answer_did_it(amazon: Simulator, client: Client) -> None:
    """Both are 500; the repeated call shows the difference."""
    amazon.fault_injection.add("error", place="create_refund")
    assert (await client.create(CHARGE, "1.00", key="a"))[0] == 500
    assert not amazon.refunds
    amazon.fault_injection.add("lost_answer", place="create_refund")
    assert (await client.create(CHARGE, "1.00", key="b"))[0] == 500
    (refund_id,) = amazon.refunds
    assert (await client.create(CHARGE, "1.00", key="b"))[1]["refundId"] == refund_id


async def test_garbage_is_not_json(amazon: Simulator, client: Client) -> None:
    """With 200 and a content type that promises it."""
    amazon.fault_injection.add("garbage")
    with pytest.raises(ValueError, match="decode"):
        await client.call("GET", f"/v2/charges/{CHARGE}")
    assert client.headers["content-type"] == "application/json"


async def test_half_an_answer_is_cut(amazon: Simulator, client: Client) -> None:
    """The connection ends before the promised length."""
    amazon.fault_injection.add("half")
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.call("GET", f"/v2/charges/{CHARGE}")
    assert (await client.call("GET", f"/v2/charges/{CHARGE}"))[0] == 200


async def test_wrong_refund_answers_about_another(amazon: Simulator, client: Client) -> None:
    """Well-formed, 200, but not what was asked for."""
    refund_id = amazon.start_refund("1.00", "USD")
    amazon.fault_injection.add("wrong_refund", refund_id=refund_id)
    _, wrong = await client.call("GET", f"/v2/refunds/{refund_id}")
    _, right = await client.call("GET", f"/v2/refunds/{refund_id}")
    assert wrong["refundId"] != refund_id
    assert right == {**wrong, "refundId": refund_id}


async def test_hang_answers_late_or_never(amazon: Simulator, client: Client) -> None:
    """After its seconds, or when the client has gone."""
    amazon.fault_injection.add("hang", seconds=0.1)
    assert (await client.call("GET", f"/v2/charges/{CHARGE}"))[0] == 200
    amazon.fault_injection.add("hang")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.call("GET", f"/v2/charges/{CHARGE}")
    await until(lambda: len(amazon.calls) == 2)


async def test_one_call_can_be_told_by_header_to_misbehave(amazon: Simulator, client: Client) -> None:
    """Unsigned, and only that call."""
    unsigned = {"x-amz-pay-simulator-mischief": "throttle;seconds=3"}
    assert (await client.call("GET", f"/v2/charges/{CHARGE}", unsigned=unsigned))[0] == 429
    assert client.headers["retry-after"] == "3"
    assert (await client.call("GET", f"/v2/charges/{CHARGE}"))[0] == 200
    wrong = {"x-amz-pay-simulator-mischief": "drop"}
    assert (await client.call("GET", f"/v2/charges/{CHARGE}", unsigned=wrong))[0] == 400
    assert [call.trick for call in amazon.calls] == ["throttle", "", ""]


async def test_mischief_can_be_planned_over_http(amazon: Simulator, client: Client) -> None:
    """Added, listed, used up, cleared; nonsense is refused."""
    rule = {"trick": "error", "place": "get_charge", "times": 1, "seconds": 0.5}
    status, added = await client.control("POST", "/mischief", rule)
    assert (status, added["trick"], added["seconds"]) == (201, "error", 0.5)
    assert (await client.call("GET", f"/v2/charges/{CHARGE}"))[0] == 500
    assert (await client.call("GET", f"/v2/charges/{CHARGE}"))[0] == 200
    _, listed = await client.control("GET", "/mischief")
    assert listed["rules"] == [{**added, "times": 0, "used": 1, "met": 1}]
    for wrong in ({}, {"trick": "dance"}, {"trick": "drop", "times": "often"}, {"trick": "drop", "refundId": 5}):
        assert (await client.control("POST", "/mischief", wrong))[0] == 400
    assert (await client.control("DELETE", "/mischief"))[0] == 204
    assert not amazon.fault_injection.rules


async def test_a_stranger_does_not_use_up_the_plan(amazon: Simulator, client: Client) -> None:
    """An unsigned call is refused before any mischief."""
    amazon.fault_injection.add("error")
    async with client.session.get(f"{amazon.base_url}/v2/charges/{CHARGE}") as answer:
        assert answer.status == 400
    assert amazon.fault_injection.rules[0].used == 0


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("date", 400, "InvalidHeaderValue"),
        ("header", 400, "MissingHeader"),
        ("signature", 401, "InvalidRequestSignature"),
        ("key", 401, "InvalidAuthentication"),
        ("hold", 403, "InvalidAccountStatus"),
        ("field", 400, "UnrecognizedField"),
        ("value", 400, "InvalidParameterValue"),
        ("conflict", 409, "RequestNotSupported"),
        ("amount", 422, "TransactionAmountExceeded"),
        ("count", 422, "TransactionCountExceeded"),
        ("charge", 422, "InvalidChargeStatus"),
        ("page", 403, ""),
        ("proxy", 407, ""),
        ("tls", 426, ""),
    ],
)
async def test_refuse_refuses_the_request_and_does_nothing(
    amazon: Simulator, client: Client, kind: str, status: int, code: str
) -> None:
    """Without a code it is a page of HTML, which has no request id of Amazon's."""
    amazon.fault_injection.add("refuse", place="create_refund", kind=kind)
    if code:
        found = await client.create(CHARGE, "1.00", key="a")
        assert (found[0], found[1]["reasonCode"]) == (status, code)
    else:
        with pytest.raises(aiohttp.ContentTypeError) as caught:
            await client.create(CHARGE, "1.00", key="a")
        assert caught.value.status == status
    assert ("x-amz-pay-request-id" in client.headers) == bool(code)
    assert not amazon.refunds
    assert (await client.create(CHARGE, "1.00", key="a"))[0] == 201


async def test_every_uses_a_rule_in_each_so_many_th_case(amazon: Simulator, client: Client) -> None:
    amazon.fault_injection.add("refuse", place="get_charge", kind="hold", every=3, times=None)
    assert [(await client.call("GET", f"/v2/charges/{CHARGE}"))[0] for _ in range(7)] == [
        200,
        200,
        403,
        200,
        200,
        403,
        200,
    ]


@pytest.mark.parametrize("seconds", [-2, -3600, 5, 3600])
async def test_a_host_has_a_clock_of_its_own(
    amazon: Simulator, client: Client, clock: ManualClock, seconds: int
) -> None:
    """Its Date says so. It refuses what is dated in its future, and what is too old for it."""
    amazon.fault_injection.add("clock", place="get_charge", seconds=seconds, times=None)
    status, found = await client.call("GET", f"/v2/charges/{CHARGE}")
    theirs = parsedate_to_datetime(client.headers["date"]).timestamp()
    assert abs(theirs - (clock() / 1000 + seconds)) <= 1
    if seconds < 0:
        assert (status, found["reasonCode"]) == (400, "InvalidHeaderValue")
        assert "should not be in future" in str(found["message"])
    else:
        assert status == (200 if seconds < 900 else 401)
    amazon.fault_injection.clear()
    assert (await client.call("GET", f"/v2/charges/{CHARGE}"))[0] == 200
