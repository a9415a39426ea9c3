"""The simulator as a whole, on a real socket: calls are answered as Amazon does, and notifications arrive."""

from __future__ import annotations

import asyncio
import json
import socket

import aiohttp
import pytest

from receiver.simulator.app import Simulator
from receiver.simulator.bank import REFUNDABLE
from receiver.simulator.keys import Keys
from receiver.simulator.notifications.sender import Verdict
from tests.kit.clock import T0, ManualClock
from tests.simulator.conftest import Client, Inbox, until
from tests.simulator.signer import signed
from tests.simulator.test_notices import verifies

CHARGE = "S01-0000001-0000001-C000001"


async def test_a_refund_from_the_call_to_the_last_notification(
    amazon: Simulator, client: Client, clock: ManualClock, inbox: Inbox
) -> None:
    """201, RefundInitiated, then Declined 30 seconds later; each is notified, and each notification verifies."""
    status, created = await client.create(CHARGE, "14.00", key="k1", code="AmazonRejected")
    assert status == 201
    refund_id = str(created["refundId"])
    assert created == {
        "refundId": refund_id,
        "chargeId": CHARGE,
        "creationTimestamp": "20251009T085320Z",
        "refundAmount": {"amount": "14.00", "currencyCode": "USD"},
        "statusDetails": {
            "state": "RefundInitiated",
            "reasonCode": None,
            "reasonDescription": None,
            "lastUpdatedTimestamp": "20251009T085320Z",
        },
        "softDescriptor": "AMZ*Simulator pay.amazon.com",
        "releaseEnvironment": "Sandbox",
        "disbursementDetails": None,
    }
    assert client.headers["content-type"] == "application/json"
    assert client.headers["x-amz-pay-request-id"]
    clock.tick(29_999)
    assert await client.state(refund_id) == ("RefundInitiated", None)
    clock.tick(1)
    await until(lambda: len(inbox.bodies) == 2)
    assert await client.state(refund_id) == ("Declined", "AmazonRejected")
    assert inbox.objects == [refund_id, refund_id]
    assert all(verifies(envelope, amazon._engine.keys) for envelope in inbox.envelopes)
    assert len({envelope["MessageId"] for envelope in inbox.envelopes}) == 2
    assert {headers["user-agent"] for headers in inbox.headers} == {"Amazon Simple Notification Service Agent"}
    assert {headers["content-type"] for headers in inbox.headers} == {"text/plain; charset=UTF-8"}
    await amazon.idle()
    assert [(post.about, post.state, post.verdict, post.status) for post in amazon.posted] == [
        (refund_id, "RefundInitiated", Verdict.DELIVERED, 200),
        (refund_id, "Declined", Verdict.DELIVERED, 200),
    ]


async def test_both_signature_versions_can_be_had(amazon: Simulator, inbox: Inbox, keys: Keys) -> None:
    """The owner of a topic can switch at any time."""
    amazon.start_refund("1.00", "USD", "Pending")
    await amazon.idle()
    amazon.sign_with(2)
    amazon.start_refund("1.00", "USD", "Pending")
    await amazon.idle()
    assert [envelope["SignatureVersion"] for envelope in inbox.envelopes] == ["1", "2"]
    assert all(verifies(envelope, keys) for envelope in inbox.envelopes)


async def test_a_repeated_create_brings_the_stored_answer(
    amazon: Simulator, client: Client, clock: ManualClock
) -> None:
    """Also after the refund has moved on: the stored one, state and all. Other values are refused."""
    first = await client.create(CHARGE, "14.00", key="same")
    clock.tick(31_000)
    assert await client.create(CHARGE, "14.00", key="same") == first
    status, body = await client.create(CHARGE, "14.01", key="same")
    assert (status, body["reasonCode"]) == (400, "DuplicateIdempotencyKey")
    assert len(amazon.refunds) == 1
    assert (await client.create(CHARGE, "14.00", key="other"))[1]["refundId"] != first[1]["refundId"]


async def test_a_refused_create_leaves_its_key_free(client: Client) -> None:
    """Nothing came into being, so nothing is stored."""
    assert (await client.create("S01-9999999-9999999-C999999", "14.00", key="k"))[0] == 404
    assert (await client.create(CHARGE, "14.00", key="k"))[0] == 201


async def test_business_refusals_have_amazons_statuses(client: Client) -> None:
    """As the error-handling page and the SDKs name them."""
    found = [
        await client.create("S01-0000004-0000004-C000004", "1.00", key="a"),
        await client.create(CHARGE, "115.01", key="b"),
        await client.create(CHARGE, "1.00", "EUR", key="c"),
        await client.create(CHARGE, "1.00", key="d" * 33),
        await client.create(CHARGE, "1.00", key="e", code="Nonsense"),
        await client.call("GET", "/v2/refunds/S01-9999999-9999999-R999999"),
        await client.call("GET", "/v2/charges/S01-9999999-9999999-C999999"),
        await client.call("GET", "/v2/buyers/1"),
        await client.call("PUT", "/v2/refunds/1"),
    ]
    assert [(status, body["reasonCode"]) for status, body in found] == [
        (422, "InvalidChargeStatus"),
        (422, "TransactionAmountExceeded"),
        (400, "CurrencyMismatch"),
        (400, "InvalidHeaderValue"),
        (400, "InvalidSandboxSimulationSpecified"),
        (404, "ResourceNotFound"),
        (404, "ResourceNotFound"),
        (404, "ResourceNotFound"),
        (405, "UnsupportedOperation"),
    ]


async def test_get_charge_shows_what_is_refunded(client: Client, clock: ManualClock) -> None:
    """What is on its way is not yet in it."""
    await client.create(CHARGE, "14.00", key="k")
    _, before = await client.call("GET", f"/v2/charges/{CHARGE}")
    clock.tick(30_000)
    _, after = await client.call("GET", f"/v2/charges/{CHARGE}")
    assert (before["refundedAmount"], after["refundedAmount"]) == (
        {"amount": "0.00", "currencyCode": "USD"},
        {"amount": "14.00", "currencyCode": "USD"},
    )
    assert after["captureAmount"] == {"amount": "100.00", "currencyCode": "USD"}
    assert after["chargePermissionId"] == "S01-0000001-0000001"
    assert after["statusDetails"]["state"] == REFUNDABLE  # type: ignore[index]
    assert after["merchantMetadata"]["merchantReferenceId"] == "ORDER-1"  # type: ignore[index]


async def test_a_wrong_signature_is_told_as_amazon_does(amazon: Simulator, client: Client, clock: ManualClock) -> None:
    """The body was changed on the way: 401, the string to sign, and the simulator's finer reason in a header."""
    headers = signed(client.key, amazon.public_key_id, "POST", "/v2/refunds", b"{}", at=clock(), idempotency_key="k")
    async with client.session.post(amazon.base_url + "/v2/refunds", data=b"{ }", headers=headers) as answer:
        body = await answer.json()
        assert (answer.status, answer.headers["x-amz-pay-simulator-reason"]) == (401, "signature")
    assert body["reasonCode"] == "InvalidRequestSignature"
    assert body["message"].startswith("Unable to verify signature, signing String [AMZN-PAY-RSASSA-PSS-V2\n")
    assert [(call.status, call.reason) for call in amazon.calls] == [(401, "signature")]


@pytest.mark.parametrize(
    ("key_id", "path", "status"),
    [
        ("SANDBOX-A", "/v2/charges/{}", 200),
        ("SANDBOX-A", "/v2/charges/{}/", 200),
        ("SANDBOX-A", "/sandbox/v2/charges/{}", 400),
        ("AEXAMPLE", "/sandbox/v2/charges/{}", 200),
        ("AEXAMPLE", "/live/v2/charges/{}", 404),
        ("AEXAMPLE", "/v2/charges/{}", 400),
    ],
)
async def test_the_path_names_the_environment_where_the_key_does_not(
    keys: Keys, clock: ManualClock, key_id: str, path: str, status: int
) -> None:
    """A prefixed key with the environment in the path is a usual mistake."""
    async with Simulator(keys=keys, now=clock, public_key_id=key_id) as amazon, aiohttp.ClientSession() as session:
        assert (await Client(amazon, session, clock).call("GET", path.format(CHARGE)))[0] == status


async def test_the_sandbox_throttles_as_amazons(keys: Keys, clock: ManualClock) -> None:
    """Five Get Charge at once, then one a second; 429 without Retry-After."""
    async with Simulator(keys=keys, now=clock) as amazon, aiohttp.ClientSession() as session:
        client = Client(amazon, session, clock)
        found = [(await client.call("GET", f"/v2/charges/{CHARGE}"))[0] for _ in range(6)]
        assert found == [200] * 5 + [429]
        assert "retry-after" not in client.headers
        clock.tick(1_000)
        assert (await client.call("GET", f"/v2/charges/{CHARGE}"))[0] == 200


async def test_in_live_and_japan_ids_topic_and_currency_are_theirs(keys: Keys, clock: ManualClock) -> None:
    """Prefix P, no decimals in yen, the topic in us-west-2."""
    async with Simulator(keys=keys, now=clock, region="jp", environment="live", throttle={}) as amazon:
        refund_id = amazon.start_refund("1001", "JPY")
        assert refund_id.startswith("P01-")
        assert amazon.refunds[refund_id].outcome == "AmazonRejected"
        assert amazon.topic_arn.startswith("arn:aws:sns:us-west-2:291180941288:")
        assert amazon.certificate_url.startswith("https://sns.us-west-2.amazonaws.com/SimpleNotificationService-")
        seeded = amazon.charges["P01-0000001-0000001-C000001"]
        assert seeded.amount.text == "10000"


async def test_notifications_are_tried_again_as_sns_does(amazon: Simulator, inbox: Inbox) -> None:
    """After 5xx and 429, with the same MessageId; three more times, then given up."""
    inbox.answers = [503, 429]
    amazon.start_refund("1.00", "USD", "Pending")
    await amazon.idle()
    assert [post.verdict for post in amazon.posted] == [Verdict.RETRYING, Verdict.RETRYING, Verdict.DELIVERED]
    assert len({envelope["MessageId"] for envelope in inbox.envelopes}) == 1
    inbox.answers = [500] * 4
    amazon.start_refund("1.00", "USD", "Pending")
    await amazon.idle()
    assert [post.attempt for post in amazon.posted][3:] == [1, 2, 3, 4]
    assert amazon.posted[-1].verdict is Verdict.GIVEN_UP


@pytest.mark.parametrize("status", [400, 403, 404, 302])
async def test_a_4xx_or_a_redirect_is_final(amazon: Simulator, inbox: Inbox, status: int) -> None:
    """One attempt, no more."""
    inbox.answers = [status]
    amazon.start_refund("1.00", "USD", "Pending")
    await amazon.idle()
    assert [(post.verdict, post.status) for post in amazon.posted] == [(Verdict.REFUSED, status)]


async def test_a_receiver_that_is_not_there_is_tried_again(keys: Keys, clock: ManualClock) -> None:
    """Network trouble counts as 5xx."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = {"keys": keys, "now": clock, "post_to": f"http://127.0.0.1:{port}/ipn", "retry_waits": (0.01,)}
    async with Simulator(**settings) as amazon:  # type: ignore[arg-type]
        amazon.start_refund("1.00", "USD", "Pending")
        await amazon.idle()
        assert [(post.verdict, bool(post.error)) for post in amazon.posted] == [
            (Verdict.RETRYING, True),
            (Verdict.GIVEN_UP, True),
        ]


async def test_without_an_address_notifications_are_logged_only(keys: Keys, clock: ManualClock, inbox: Inbox) -> None:
    """And an address can be set later."""
    async with Simulator(keys=keys, now=clock) as amazon:
        amazon.start_refund("1.00", "USD", "Pending")
        await amazon.idle()
        assert [post.verdict for post in amazon.posted] == [Verdict.NOWHERE]
        amazon.post_to = inbox.url
        amazon.start_refund("1.00", "USD", "Pending")
        await amazon.idle()
        assert amazon.posted[-1].verdict is Verdict.DELIVERED


async def test_the_first_state_need_not_be_notified(keys: Keys, clock: ManualClock, inbox: Inbox) -> None:
    """No source says whether Amazon does; a first state that is final is always notified."""
    settings = {"keys": keys, "now": clock, "post_to": inbox.url, "announce_initiated": False}
    async with Simulator(**settings) as amazon:  # type: ignore[arg-type]
        for outcome in ("Pending", "Refunded", "DeclinedAtOnce"):
            amazon.start_refund("1.00", "USD", outcome)
        await amazon.idle()
        assert [post.state for post in amazon.posted] == ["Declined"]


async def test_without_a_socket_time_passes_by_hand(keys: Keys, clock: ManualClock) -> None:
    """`tick` does what the running simulator does by itself."""
    amazon = Simulator(keys=keys, now=clock, outcome_delay=1.0)
    refund_id = amazon.start_refund("1.02", "USD")
    clock.tick(1_000)
    amazon.tick()
    assert (amazon.refunds[refund_id].state, amazon.refunds[refund_id].reason) == ("Declined", "ProcessingFailure")
    await amazon.stop()


@pytest.mark.parametrize(
    "wrong",
    [{"region": "cn"}, {"environment": "test"}, {"signature_version": 3}, {"public_key_id": "LIVE-A"}],
)
def test_settings_that_contradict_each_other_are_refused(keys: Keys, wrong: dict[str, str]) -> None:
    """At once."""
    with pytest.raises(ValueError, match=r"\w"):
        Simulator(keys=keys, **wrong)  # type: ignore[arg-type]


async def test_a_taken_address_is_an_os_error(amazon: Simulator, keys: Keys) -> None:
    """Not a simulator that seems to run."""
    port = int(amazon.base_url.rpartition(":")[2])
    second = Simulator(keys=keys, port=port)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.stop()


async def test_stopping_ends_retries_and_hanging_answers(keys: Keys, inbox: Inbox) -> None:
    """Within seconds, whatever is under way, and nothing is left running."""
    before = asyncio.all_tasks()
    clock = ManualClock()
    settings = {"keys": keys, "now": clock, "post_to": inbox.url, "retry_waits": (3600.0,), "throttle": {}}
    async with aiohttp.ClientSession() as session:
        amazon = Simulator(**settings)  # type: ignore[arg-type]
        await amazon.start()
        inbox.answers = [500]
        amazon.start_refund("1.00", "USD", "Pending")
        amazon.fault_injection.add("hang")
        client = Client(amazon, session, clock)
        hanging = asyncio.create_task(client.call("GET", f"/v2/charges/{CHARGE}"))
        await until(lambda: len(amazon.posted) == 1 and amazon.fault_injection.rules[0].used == 1)
        async with asyncio.timeout(30):
            await amazon.stop()
        await asyncio.gather(hanging, return_exceptions=True)
    allowed = before | {asyncio.current_task()}
    await until(lambda: asyncio.all_tasks() <= allowed)  # the inbox sees the end of its connection a moment later


async def test_control_starts_refunds_and_tells_the_truth(amazon: Simulator, client: Client) -> None:
    """As Seller Central or an A-to-z claim would: the merchant's program has not asked for it."""
    status, started = await client.control("POST", "/refunds", {"amount": "12.01", "currencyCode": "USD"})
    assert (status, started["outcome"], started["startedBy"]) == (201, "AmazonRejected", "control")
    assert started["ahead"] == [{"at": T0 + 30_000, "state": "Declined", "reason": "AmazonRejected"}]
    _, listed = await client.control("GET", "/refunds")
    assert listed == {"refunds": [started]}
    explicit = {"amount": 5, "currencyCode": "USD", "outcome": "Slow", "chargeId": CHARGE}
    status, started = await client.control("POST", "/refunds", explicit)
    assert (status, started["chargeId"], started["outcome"]) == (201, CHARGE, "Slow")
    assert (await client.control("POST", "/refunds", {**explicit, "amount": "9999"}))[0] == 422
    assert (await client.control("POST", "/refunds", {**explicit, "colour": "red"}))[0] == 400
    assert len(amazon.refunds) == 2


async def test_control_makes_charges_and_repeats_notifications(amazon: Simulator, client: Client, inbox: Inbox) -> None:
    """A repeated notification has the MessageId of the first."""
    status, charge = await client.control("POST", "/charges", {"amount": "20.00", "currencyCode": "USD"})
    assert (status, charge["statusDetails"]["state"]) == (201, "Captured")  # type: ignore[index]
    _, created = await client.create(str(charge["chargeId"]), "20.00", key="k")
    await amazon.idle()
    status, posted = await client.control("POST", f"/refunds/{created['refundId']}/notify")
    assert (status, posted["kind"], posted["status"]) == (200, "repeated", 200)
    assert inbox.envelopes[0] == inbox.envelopes[1]
    assert len((await client.control("GET", "/charges"))[1]["charges"]) == 6  # type: ignore[arg-type]


async def test_while_the_balance_is_negative_refunds_are_rejected(amazon: Simulator, client: Client) -> None:
    """Whatever their amount, unless their outcome is chosen; no longer once it is repaid."""
    start = {"amount": "12.00", "currencyCode": "USD"}

    async def outcome(**more: str) -> object:
        return (await client.control("POST", "/refunds", {**start, **more}))[1]["outcome"]

    status, shown = await client.control("POST", "/balance", {"state": "negative"})
    assert (status, shown) == (200, {"balance": "negative"})
    assert (await client.control("GET", ""))[1]["balance"] == "negative"
    assert [await outcome(), await outcome(outcome="Refunded")] == ["AmazonRejected", "Refunded"]
    assert (await client.control("POST", "/balance", {"state": "odd"}))[0] == 400
    amazon.set_balance("repaid")
    assert await outcome() == "Refunded"
    with pytest.raises(ValueError, match="negative, repaid"):
        amazon.set_balance("odd")


async def test_control_shows_certificate_index_and_log(amazon: Simulator, client: Client) -> None:
    """All settings that a receiver needs."""
    async with client.session.get(f"{amazon.base_url}/simulator/certificate") as answer:
        assert await answer.text() == amazon.certificate_pem
    _, index = await client.control("GET", "")
    assert (index["topicArn"], index["signingCertUrl"]) == (amazon.topic_arn, amazon.certificate_url)
    await client.call("GET", f"/v2/charges/{CHARGE}")
    _, log = await client.control("GET", "/log?limit=1")
    assert [(line["call"], line["objectId"], line["status"]) for line in log["calls"]] == [  # type: ignore[attr-defined]
        ("get_charge", CHARGE, 200)
    ]


async def test_control_takes_json_only(amazon: Simulator, client: Client) -> None:
    """A form on some web page cannot start refunds."""
    body = json.dumps({"amount": "1.00", "currencyCode": "USD"})
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        url = f"{amazon.base_url}/simulator/refunds"
        async with client.session.post(url, data=body, headers={"content-type": kind}) as answer:
            assert answer.status == 415
    assert not amazon.refunds
