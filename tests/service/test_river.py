"""End to end over real sockets: signed notification → Get Refund → ledger → webhook."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from receiver.ledger.dispute import Dispute, permission_of
from receiver.ledger.timestamps import parse_time
from receiver.service import system_clock
from receiver.simulator.notifications.forgeries import Forgery
from receiver.simulator.notifications.notices import Unfamiliar
from receiver.simulator.notifications.sender import Verdict
from receiver.simulator.outcomes import STEPS, Outcome
from tests.kit.processes import until
from tests.kit.sns import SnsSigner
from tests.service.kit import without_advice
from tests.service.stage import Amazon, Hook, Says, Stage, account, notice, running

DAY = 86_400_000
POLL = ["1s", "every 1s"]

EVENTS: dict[Outcome, list[str]] = {
    Outcome.REFUNDED: ["initiated", "refunded"],
    Outcome.AMAZON_REJECTED: ["initiated", "declined"],
    Outcome.PROCESSING_FAILURE: ["initiated", "declined"],
    Outcome.PENDING: ["initiated"],
    Outcome.UNKNOWN_STATE: ["initiated", "refunded"],
    Outcome.UNKNOWN_REASON: ["initiated", "declined"],
    Outcome.REFUNDED_AT_ONCE: ["refunded"],
    Outcome.DECLINED_AT_ONCE: ["declined"],
    Outcome.CONTRADICTED: ["initiated", "refunded", "declined", "conflict"],
    Outcome.SLOW: ["initiated", "refunded"],
}
"""Outcome of a refund of the simulator → the events that it gives rise to."""


@pytest.fixture
async def shop() -> AsyncIterator[Amazon]:
    """Amazon Pay of one merchant, in the sandbox of North America."""
    async with Amazon() as found:
        yield found


@pytest.fixture
async def audit() -> AsyncIterator[Hook]:
    """A subscriber to everything."""
    async with Hook("audit").listening() as found:
        yield found


@pytest.fixture
async def stage(shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """The service for that shop, on an empty Valkey."""
    async with running(valkey_url, [account(shop, tmp_path, poll=POLL)], [audit]) as found:
        shop.post_to = f"{found.url}/ipn"
        yield found


async def moved(stage: Stage, shop: Amazon, steps: int = 1) -> None:
    """Let the refunds take a step, and the service learn of it."""
    await until(lambda: stage.agrees(shop), "the service knows where every refund stands")
    shop.move(steps)
    await until(lambda: stage.agrees(shop), "the service knows where every refund has got to")
    await shop.idle()
    await until(stage.quiet, "nothing is under way")


async def test_every_outcome_ends_as_it_should_and_is_told_once(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """State, reason, history, events and webhooks of all ten outcomes; a subscriber to declines alone gets these
    alone, and a subscriber to one reason only that one."""
    async with AsyncExitStack() as stack:
        finance = await stack.enter_async_context(Hook("finance", types=None).listening())
        fraud = await stack.enter_async_context(Hook("fraud", types=None, reasons=["AmazonRejected"]).listening())
        tables = [account(shop, tmp_path)]
        stage = await stack.enter_async_context(running(valkey_url, tables, [audit, finance, fraud]))
        shop.post_to = f"{stage.url}/ipn"
        refunds = {outcome: shop.start_refund("12.00", "USD", outcome) for outcome in Outcome}
        for steps in (1, 1, 8):
            await moved(stage, shop, steps)

        for outcome, refund_id in refunds.items():
            assert await stage.states(refund_id) == [step.state for step in STEPS[outcome]], outcome
        owed = sorted((refund_id, kind) for outcome, refund_id in refunds.items() for kind in EVENTS[outcome])
        assert await stage.events() == audit.told == owed
        declines = [each for each in owed if each[1] == "declined"]
        assert finance.told == declines
        assert fraud.told == [each for each in declines if shop.truth[each[0]][1] == "AmazonRejected"]
        assert (await stage.refund(refunds[Outcome.CONTRADICTED]))["conflict"]
        pending = {refunds[Outcome.PENDING], refunds[Outcome.CONTRADICTED]}
        assert await stage.members("due") == pending


async def test_what_a_subscriber_is_told_of_a_decline(stage: Stage, shop: Amazon, audit: Hook) -> None:
    """The refund in Amazon's spelling, as the API shows it, and what the merchant can do about it."""
    refund_id = shop.start_refund("14.00", "USD", Outcome.DECLINED_AT_ONCE)
    await until(lambda: audit.posts, "the webhook")
    (event,) = audit.events
    assert (event.get_type(), event.get_subject()) == ("amazonpay.refund.declined", refund_id)
    assert event.get_source() == "/amazonpay/us"
    data = event.get_data()
    assert isinstance(data, dict)
    assert data["refundAmount"] == {"amount": "14.00", "currencyCode": "USD"}
    assert data["statusDetails"]["reasonCode"] == "AmazonRejected"
    assert data["advice"]["actions"]
    shown = await stage.refund(refund_id)
    at_each_reading = {"advice": None, "asOf": None}
    assert shown | at_each_reading == data | at_each_reading


async def test_who_waits_for_the_end_of_a_refund_gets_it(stage: Stage, shop: Amazon) -> None:
    """`?wait=` answers as soon as the refund is final, long before the time is over."""
    refund_id = shop.start_refund("14.00", "USD", Outcome.PROCESSING_FAILURE)
    await until(lambda: stage.agrees(shop), "it is known")
    waiting = asyncio.create_task(stage.get(f"/v1/refunds/{refund_id}?wait=60"))
    shop.move()
    async with asyncio.timeout(30):
        status, found = await waiting
    assert (status, found["statusDetails"]["state"]) == (200, "Declined")


ALGORITHMS = ("AMZN-PAY-RSASSA-PSS-V2", "AMZN-PAY-RSASSA-PSS")
KINDS = [
    (region, environment, prefixed, ALGORITHMS[(number + row) % 2], 1 + (number // 2 + row) % 2)
    for row, region in enumerate(("na", "eu", "jp"))
    for number, (environment, prefixed) in enumerate(
        [("live", True), ("live", False), ("sandbox", True), ("sandbox", False)]
    )
]
MONEY = {"na": ("12.07", "USD"), "eu": ("12.07", "EUR"), "jp": ("1207", "JPY")}
"""An amount that is declined at once."""


@asynccontextmanager
async def shops() -> AsyncIterator[dict[str, tuple[Amazon, str]]]:
    """A shop of every kind, with the algorithm of its requests."""
    found = {}
    for number, (region, environment, prefixed, algorithm, version) in enumerate(KINDS):
        one = Amazon(
            region=region,
            environment=environment,
            merchant_id=f"A2KIND0000{number:03d}",
            public_key_id=f"{f'{environment.upper()}-' if prefixed else ''}KEY{number:020d}",
            signature_version=version,
        )
        found[f"{region}-{environment}-{number}"] = (one, algorithm)
    try:
        await asyncio.gather(*(shop.start() for shop, _ in found.values()))
        yield found
    finally:
        await asyncio.gather(*(shop.stop() for shop, _ in found.values()))


def test_the_kinds_of_account_meet_in_every_pair() -> None:
    """Every region, environment and form of key id is tried with both algorithms and both signature versions."""
    for here in range(3):
        for there in (3, 4):
            pairs = {(kind[here], kind[there]) for kind in KINDS}
            assert len(pairs) == len({kind[here] for kind in KINDS}) * 2


async def test_every_kind_of_account(redis: Redis, valkey_url: str, tmp_path: Path) -> None:
    """Three regions, live and sandbox, key ids with and without the prefix, both algorithms of our requests and both
    signature versions of notifications: twelve accounts in one service, which do not mix."""
    async with shops() as found:
        tables = [account(shop, tmp_path, name, algorithm=algorithm) for name, (shop, algorithm) in found.items()]
        async with running(valkey_url, tables) as stage:
            refunds = {}
            for number, (name, (shop, _)) in enumerate(found.items()):
                shop.post_to = f"{stage.url}/ipn{f'/{name}' if number % 3 else ''}"
                refunds[name] = shop.start_refund(*MONEY[shop.region])
            for name, (shop, _) in found.items():
                await until(lambda one=shop: stage.agrees(one), f"the refund of {name} is known")
                assert shop.truth == {refunds[name]: ("Declined", "AmazonRejected")}
                assert (await stage.refund(refunds[name]))["account"] == name
                assert await stage.events(name) == [(refunds[name], "declined")]
                assert [(each.object_id, each.status) for each in shop.asked] == [(refunds[name], 200)]
                assert {each.status for each in shop.calls} == {200}


async def test_duplicates_delay_and_disorder_change_nothing(stage: Stage, shop: Amazon, audit: Hook) -> None:
    """Each event is delivered once, whatever happens to the notifications on their way."""
    shop.fault_injection.add("reorder", state="RefundInitiated", seconds=60)
    shop.fault_injection.add("duplicate", state="RefundInitiated", copies=5)
    late, doubled = (shop.start_refund("12.00", "USD", Outcome.PROCESSING_FAILURE) for _ in range(2))
    shop.fault_injection.add("delay", state="Declined", seconds=0.5, refund_id=doubled)
    await until(lambda: stage.state(doubled), "the first notification has come")
    shop.move()
    await until(lambda: stage.agrees(shop), "both are declined")
    await until(stage.quiet, "nothing is under way")
    await until(lambda: len([each for each in shop.posted if each.about == late]) == 2, "the late one has come")
    await until(stage.quiet, "nothing is under way")

    assert [each.state for each in shop.posted if each.about == late] == ["Declined", "RefundInitiated"]
    assert await stage.state(late) == ("Declined", "ProcessingFailure")
    owed = sorted([(late, "declined"), (doubled, "declined"), (doubled, "initiated")])
    assert await stage.events() == audit.told == owed
    assert stage.counted("notifications", outcome="repeated", reason="") == 4
    assert {each.status for each in shop.posted} == {200}


async def test_a_decline_that_is_told_in_an_unfamiliar_way_is_pushed(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """Proven, and not understood: 200, kept, and the refund that it names is asked about. No poll helps here."""
    async with running(valkey_url, [account(shop, tmp_path, poll=["every 1d"])], [audit]) as stage:
        shop.post_to = f"{stage.url}/ipn"
        shop.fault_injection.add("unfamiliar", times=None)
        refunds = [shop.start_refund("14.00", "USD", Outcome.DECLINED_AT_ONCE) for _ in Unfamiliar]
        await until(lambda: len(audit.posts) == len(refunds), "every decline is pushed")
        await shop.idle()
        assert {post.status for post in shop.posted} == {200}
        assert stage.counted("notifications", outcome="unrecognized", reason="") == len(refunds)
        assert audit.told == sorted((refund_id, "declined") for refund_id in refunds)
        kept = await stage.service.store.of("us").notifications.latest(10)
        assert sorted(each.details.refund_ids for each in kept) == sorted((refund_id,) for refund_id in refunds)


async def test_a_lost_notification_is_found_by_polling(stage: Stage, shop: Amazon, audit: Hook) -> None:
    """No notification comes; the poll finds the end, and the metrics say that it was the poll. A state that no document
    knows is kept, shown, and polled on."""
    strange, lost, told = (
        shop.start_refund("12.00", "USD", each)
        for each in (Outcome.UNKNOWN_STATE, Outcome.AMAZON_REJECTED, Outcome.AMAZON_REJECTED)
    )
    for refund_id in (strange, lost):
        shop.fault_injection.add("drop", refund_id=refund_id, times=None)
    await moved(stage, shop)
    assert await stage.state(strange) == ("RefundUnderReview", "")
    assert await stage.members("due") == {strange}
    await moved(stage, shop)
    assert await stage.states(strange) == ["RefundInitiated", "RefundUnderReview", "Refunded"]
    assert [each.verdict for each in shop.posted if each.about in (strange, lost)].count(Verdict.DROPPED) == 3

    owed = sorted([*((each, kind) for each in (lost, told) for kind in ("initiated", "declined"))])
    assert audit.told == await stage.events() == sorted([*owed, (strange, "initiated"), (strange, "refunded")])
    declined = {"state": "Declined", "reason": "AmazonRejected"}
    assert stage.counted("refunds_final", **declined, found_by="poll") == 1
    assert stage.counted("refunds_final", **declined, found_by="notification") == 1
    assert stage.counted("refunds_final", state="Refunded", reason="", found_by="poll") == 1


async def test_a_contradiction_is_told_once(stage: Stage, shop: Amazon, audit: Hook) -> None:
    """However often Amazon is asked afterwards."""
    refund_id = shop.start_refund("12.00", "USD", Outcome.CONTRADICTED)
    for _ in range(2):
        await moved(stage, shop)
    before = len(shop.asked)
    for number in range(3):
        async with stage.session.post(
            f"{stage.url}/v1/refunds/{refund_id}/refresh", headers={"Authorization": "Bearer token-of-the-test"}
        ) as answer:
            assert answer.status == 202
        await until(lambda asked=before + number + 1: len(shop.asked) >= asked, "Amazon is asked again")
    await until(stage.quiet, "nothing is under way")
    assert audit.told == [(refund_id, kind) for kind in sorted(EVENTS[Outcome.CONTRADICTED])]
    (conflict,) = [each for each in audit.events if each.get_type() == "amazonpay.refund.conflict"]
    data = conflict.get_data()
    assert isinstance(data, dict)
    assert data["conflict"] is True


FORGERIES = {
    Forgery.OTHER_TOPIC: (403, "wrong_topic"),
    Forgery.CHANGED_MESSAGE: (403, "bad_signature"),
    Forgery.WRONG_KEY: (403, "bad_signature"),
    Forgery.STRANGERS_ADDRESS: (403, "wrong_certificate_address"),
    Forgery.RELABELLED: (403, "bad_signature"),
    Forgery.RESPLIT: (400, "bad_message_id"),
    Forgery.TOO_OLD: (403, "too_old"),
    Forgery.FROM_FUTURE: (503, "dated_in_future"),
    Forgery.OTHER_MERCHANT: (503, "unconfigured_merchant"),
    Forgery.RAW: (400, "raw_delivery"),
    Forgery.CONFIRMATION: (403, "wrong_topic"),
}
"""Forgery → answer and reason. The future may be a fault of our own clock, and the merchant one of our settings."""


@pytest.mark.parametrize("version", [1, 2])
async def test_forgeries_are_refused_and_leave_no_trace(stage: Stage, shop: Amazon, audit: Hook, version: int) -> None:
    """Every kind gets its answer, and is counted under its reason; nothing at all is written to Redis, and Amazon is
    asked about nothing but the genuine refund that comes after them."""
    assert set(FORGERIES) == set(Forgery)
    shop.sign_with(version)
    known = shop.start_refund("12.00", "USD", Outcome.REFUNDED_AT_ONCE)
    await moved(stage, shop, 0)
    shop.calls.clear()
    before = await stage.dump()
    for kind, (status, reason) in FORGERIES.items():
        for refund_id in (known, "S01-0000000-0000000-R000000"):
            assert (await shop.forge(kind, refund_id)).status == status, kind
        outcome = "unavailable" if status == 503 else "refused"
        assert stage.counted("notifications", outcome=outcome, reason=reason) >= 2, kind
    assert await stage.dump() == before
    genuine = shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
    await moved(stage, shop, 0)
    assert {each.object_id for each in shop.asked} == {genuine}
    assert {each.object_id for each in shop.calls} <= {genuine, shop.refunds[genuine].order.charge_id}
    assert audit.told == sorted([(known, "refunded"), (genuine, "declined")])


@asynccontextmanager
async def with_sns(
    shop: Amazon,
    valkey_url: str,
    folder: Path,
    *more: dict[str, object],
    hooks: Sequence[Hook] = (),
    workers: bool = True,
) -> AsyncIterator[tuple[Stage, SnsSigner]]:
    """The service, and a certificate of SNS whose key the test has: to say what the simulator never says."""
    signer = SnsSigner(not_before=system_clock() - 30 * DAY, not_after=system_clock() + 300 * DAY)
    (folder / "sns.pem").write_bytes(signer.pem)
    table = account(shop, folder)
    pinned = {**table["signing_certificates"], signer.url: str(folder / "sns.pem")}
    tables = [{**table, "signing_certificates": pinned}, *more]
    async with running(valkey_url, tables, hooks, workers=workers) as stage:
        yield stage, signer


XML = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<RefundNotification xmlns="https://mws.amazonservices.com/ipn/OffAmazonPayments/2013-01-01"><RefundDetails>'
    "<AmazonRefundId>{}</AmazonRefundId><RefundType>{}</RefundType>"
    "<RefundAmount><Amount>12.0</Amount><CurrencyCode>USD</CurrencyCode></RefundAmount>"
    "<RefundStatus><State>Completed</State></RefundStatus></RefundDetails></RefundNotification>"
)


def xml_notice(shop: Amazon, refund_id: str, refund_type: str, **more: object) -> str:
    """The text of a notice of the older generation. What it says of the refund's state is not what Amazon says."""
    fields = {
        "ReleaseEnvironment": "Sandbox",
        "Version": "2013-01-01",
        "NotificationType": "PaymentRefund",
        "SellerId": shop.merchant_id,
        "NotificationReferenceId": "f021fa22-bc5f-48d6-a5fa-91e1272eec51",
        "NotificationData": XML.format(refund_id, refund_type),
    }
    return json.dumps({**fields, **more})


@pytest.mark.parametrize("refund_type", ["AmazonA-ZRefund", "Chargeback"])
@pytest.mark.parametrize("xml_first", [True, False])
async def test_a_refund_that_the_merchant_did_not_start_says_so(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path, refund_type: str, xml_first: bool
) -> None:
    """Amazon tells of it by both generations of notifications, on one address. The older one alone says who started it:
    that ends in the ledger, in the API and in the one event, whichever came first; the state is Amazon's answer."""
    refund_id = shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
    texts = [xml_notice(shop, refund_id, refund_type), notice(shop, refund_id)]
    async with with_sns(shop, valkey_url, tmp_path, workers=False) as (stage, signer):
        for text in texts if xml_first else reversed(texts):
            body = signer.post_body(text, topic_arn=shop.topic_arn, timestamp_ms=system_clock())
            assert await stage.post("/ipn", body) == 200
        assert await stage.members("hinted") == {refund_id}
    async with with_sns(shop, valkey_url, tmp_path, hooks=[audit]) as (stage, _):
        await until(lambda: audit.posts, "the webhook")
        (event,) = audit.events
        data = event.get_data()
        assert isinstance(data, dict)
        assert (event.get_type(), data["refundType"]) == ("amazonpay.refund.declined", refund_type)
        shown = await stage.refund(refund_id)
        assert (shown["refundType"], shown["statusDetails"]["state"]) == (refund_type, "Declined")
        assert await stage.redis.hget(f"refunds:{{us}}:refund:{refund_id}", "type") == refund_type.encode()
        ((_, written),) = await stage.redis.xrange("refunds:{us}:events")
        assert written[b"refundType"] == refund_type.encode()


async def test_who_started_a_refund_is_learned_also_when_it_is_long_known(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """The XML comes after the event went out: the ledger has it as a new revision, and no event is sent twice. A later
    notification that does not say it takes nothing away."""
    refund_id = shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
    async with with_sns(shop, valkey_url, tmp_path, hooks=[audit]) as (stage, signer):

        async def told(text: str) -> None:
            asked = len(shop.asked)
            body = signer.post_body(text, topic_arn=shop.topic_arn, timestamp_ms=system_clock())
            assert await stage.post("/ipn", body) == 200
            await until(lambda: len(shop.asked) > asked, "Amazon is asked")

        await told(notice(shop, refund_id))
        await until(lambda: audit.posts, "the webhook")
        assert (await stage.refund(refund_id))["refundType"] is None
        await told(xml_notice(shop, refund_id, "AmazonA-ZCancel"))

        async def with_details() -> bool:
            return bool((await stage.refund(refund_id))["refundType"] == "AmazonA-ZCancel")

        await until(with_details, "the type is known")
        await told(notice(shop, refund_id, NotificationId="later"))
        await until(stage.quiet, "nothing is under way")
        assert await with_details()
        assert audit.told == await stage.events() == [(refund_id, "declined")]


@pytest.mark.parametrize("generation", [1, 2])
async def test_a_test_message_of_seller_central_is_seen_and_never_tracked(
    shop: Amazon, redis: Redis, valkey_url: str, tmp_path: Path, generation: int
) -> None:
    """200, a line in the log with topic and account, and a counter; Amazon is not asked and nothing is written. Sandbox
    and live share the address here: the invented id looks like a live one, but the message says where it is from."""
    invented = "P01-0000000-0000000-000000" if generation == 1 else "S01-0000000-0000000-R000000"
    text = (
        xml_notice(shop, invented, "SellerInitiated", IsSample=True)
        if generation == 1
        else notice(shop, invented, IsSample=True, ReleaseEnvironment="Sandbox")
    )
    async with Amazon(environment="live") as live:
        other = account(live, tmp_path, "live", topic_arns=[shop.topic_arn])
        async with with_sns(shop, valkey_url, tmp_path, other) as (stage, signer):
            await until(stage.ready, "all that is written at the start is written")
            before = await stage.dump()
            body = signer.post_body(text, topic_arn=shop.topic_arn, timestamp_ms=system_clock())
            with capture_logs() as logs:
                assert await stage.post("/ipn", body) == 200
            (line,) = [each for each in logs if each["event"] == "notification.test_message"]
            assert (line["log_level"], line["topic"], line["accounts"]) == ("warning", shop.topic_arn, ("us",))
            (line,) = [each for each in logs if each["event"] == "ipn.answered"]
            assert (line["outcome"], line["accounts"]) == ("sample", ("us",))
            assert stage.counted("notifications", outcome="sample", reason="") == 1
            assert await stage.dump() == before
            assert not shop.calls
            assert not live.calls


@pytest.mark.parametrize("version", [1, 2])
async def test_what_is_not_about_a_refund_is_acknowledged_and_counted(
    shop: Amazon, redis: Redis, valkey_url: str, tmp_path: Path, version: int
) -> None:
    """Charges and charge permissions: 200, counted, nothing written."""
    kinds = ["CHARGE", "CHARGE_PERMISSION"]
    async with with_sns(shop, valkey_url, tmp_path) as (stage, signer):
        await until(stage.ready, "all that is written at the start is written")
        before = await stage.dump()
        for kind in kinds:
            message = notice(shop, "S01-0000001-0000001-C000001", ObjectType=kind)
            body = signer.post_body(message, topic_arn=shop.topic_arn, timestamp_ms=system_clock(), version=version)
            assert await stage.post("/ipn", body) == 200
        assert stage.counted("notifications", outcome="not_a_refund", reason="") == len(kinds)
        assert await stage.dump() == before
        assert not shop.calls


async def test_live_and_sandbox_of_one_merchant_share_an_address(
    shop: Amazon, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """The id tells which of the two is asked; one that does not tell is asked in both, and known to neither."""
    async with Amazon(environment="live") as live:
        topics = [shop.topic_arn, live.topic_arn]
        other = account(live, tmp_path, "live", topic_arns=topics)
        async with with_sns(shop, valkey_url, tmp_path, other) as (stage, signer):
            refunds = {}
            for one in (shop, live):
                one.post_to = f"{stage.url}/ipn"
                refunds[one.environment] = one.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
            await until(lambda: stage.agrees(shop, live), "both are known")
            assert await stage.events() == [(refunds["sandbox"], "declined")]
            assert await stage.events("live") == [(refunds["live"], "declined")]
            for one in (shop, live):
                assert [each.object_id for each in one.asked] == [refunds[one.environment]]

            untold = "X01-0000000-0000000-R000000"
            message = notice(shop, untold)
            body = signer.post_body(message, topic_arn=shop.topic_arn, timestamp_ms=system_clock())
            assert await stage.post("/ipn", body) == 200
            for one in (shop, live):
                await until(lambda it=one: it.asked[-1].object_id == untold, f"{one.environment} is asked")
                assert one.asked[-1].status == 404
            assert await stage.refund(untold) is None


async def test_whatever_amazon_answers_the_end_is_reached(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """Each trick on calls once, all at the same time: the refund is asked about again, and comes out right."""
    tricks = ["error", "lost_answer", "garbage", "half", "wrong_refund", "hang"]
    tables = [account(shop, tmp_path)]
    async with running(valkey_url, tables, [audit], track={"request_timeout": "1s"}) as stage:
        refunds = {
            trick: shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE) for trick in (*tricks, "throttle")
        }
        for trick, refund_id in refunds.items():
            shop.fault_injection.add(
                trick, place="get_refund", refund_id=refund_id, seconds=1 if trick == "throttle" else 0
            )
        shop.post_to = f"{stage.url}/ipn"
        await moved(stage, shop, 0)
        assert audit.told == sorted((refund_id, "declined") for refund_id in refunds.values())
        assert {each.trick for each in shop.asked} == {*refunds, ""}
        assert len(shop.asked) == 2 * len(refunds)
        assert stage.counted("amazon_requests", call="get_refund", outcome="amazon_throttled") == 1
        unknown = stage.counted("amazon_requests", call="get_refund", outcome="amazon_unknown")
        assert unknown == len(tricks)


async def test_a_subscriber_that_fails_at_first_is_told_in_the_end(stage: Stage, shop: Amazon, audit: Hook) -> None:
    """With the same id and the same facts, the advice of each attempt's time, and a new signature."""
    audit.answers = [Says(429, {"Retry-After": "1"}), Says(500), Says(200)]
    refund_id = shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
    await until(lambda: len(audit.posts) == 3, "the third attempt")
    await until(stage.quiet, "nothing is under way")
    assert audit.told == [(refund_id, "declined")] * 3
    assert len({each.headers["webhook-id"] for each in audit.posts}) == 1
    first, second, third = (without_advice(each.body) for each in audit.posts)
    assert first == second == third
    assert len({each.headers["webhook-signature"] for each in audit.posts}) == 3
    assert [stage.counted("deliveries", outcome=each) for each in ("delivered", "retry", "dead")] == [1, 2, 0]


async def test_a_repeated_webhook_carries_the_advice_of_its_own_time(stage: Stage, shop: Amazon, audit: Hook) -> None:
    """A dispute comes between two attempts: the second says so, and so do the API's answers and the feed."""
    audit.answers = [Says(429, {"Retry-After": "1"}), Says(200)]
    refund_id = shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
    await until(lambda: len(audit.posts) == 1, "the first attempt")
    permission = permission_of(refund_id)
    dispute = Dispute(dispute_id=f"{permission}-B000001", charge_permission_id=permission, told_at=system_clock())
    await stage.service.store.of("us").disputes.record(dispute, message_id="m1", digest="d")
    await until(lambda: len(audit.posts) == 2, "the second attempt")
    first, second = (json.loads(each.body)["data"] for each in audit.posts)
    assert (first["retryable"], first["retryableReasons"]) == (True, [])
    assert (second["retryable"], second["retryableReasons"]) == (False, ["buyer_may_be_paid"])
    assert parse_time(second["asOf"]) >= parse_time(first["asOf"]) > 0
    assert "check_dispute" in [each["action"] for each in second["advice"]["actions"]]
    _, one = await stage.get(f"/v1/refunds/{refund_id}")
    _, listed = await stage.get("/v1/refunds?state=Declined")
    _, feed = await stage.get("/v1/events?type=declined")
    for found in (one, *listed["refunds"], *(each["data"] for each in feed["events"])):
        assert (found["retryable"], found["retryableReasons"]) == (False, ["buyer_may_be_paid"])


async def test_one_process_takes_and_another_works(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """Without workers a notification is only written down; a process with workers on the same Redis does the rest, and
    events from before it started as well."""
    tables = [account(shop, tmp_path)]
    async with running(valkey_url, tables, workers=False) as front:
        shop.post_to = f"{front.url}/ipn"
        early = shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
        await until(lambda: shop.posted, "it is told")
        await shop.idle()
        assert not shop.calls
        async with running(valkey_url, tables, [audit]) as back:
            await until(lambda: front.agrees(shop), "the early one is known")
            later = shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
            await moved(front, shop, 0)
            assert await front.events() == sorted([(early, "declined"), (later, "declined")])
            assert back.counted("notifications", outcome="noted", reason="") == 0
