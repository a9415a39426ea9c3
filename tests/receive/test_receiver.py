"""The verb: what is believed, for which accounts it is written, and what each refusal costs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from receiver.amazon.account import Account, Environment
from receiver.amazon.sns.envelope import MAX_BODY
from receiver.amazon.sns.topic import TopicPattern
from receiver.errors import (
    CertificateUnavailable,
    DatedInFuture,
    Malformed,
    NotFound,
    ReceiverError,
    StoreUnavailable,
    TooLarge,
    TransportError,
    Unavailable,
    Unconfigured,
    VerificationFailed,
)
from receiver.ledger.dispute import Dispute
from receiver.ledger.notification import (
    UNASSIGNED,
    Hint,
    HintResult,
    NotificationOutcome,
    PostedNotification,
    Receipt,
    UnrecognizedNotification,
)
from receiver.ledger.timestamps import parse_time
from receiver.receive.certificates import CertificateStore
from receiver.receive.receiver import Receiver
from receiver.receive.unconfigured import UNCONFIGURED_MAX, UnconfiguredNames
from receiver.store import Store
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.sns import MERCHANT, NOW, REFUND_ID, TOPIC, SnsSigner, headers, notice, rsa_key

SIGNER = SnsSigner()
FORGER = SnsSigner(key=rsa_key(number=1))
DAY = 86_400_000
FOREIGN_TOPIC = "arn:aws:sns:us-east-1:666666666666:x"


class Paper:
    """A store that keeps hints in memory, by the rules of the real one; `torn` accounts cannot be written."""

    def __init__(self) -> None:
        self.hints: list[tuple[str, Hint]] = []
        self.disputed: list[tuple[str, Dispute]] = []
        self.seen: dict[tuple[str, str], str] = {}
        self.torn: set[str] = set()
        self.kept: list[tuple[str, UnrecognizedNotification, str]] = []

    def of(self, account: str) -> Sheet:
        return Sheet(self, account)


def posted(fields: dict[str, Any], account: str | None = None) -> PostedNotification:
    return PostedNotification(json.dumps(fields).encode(), headers(fields), account)


@dataclass
class Sheet:
    """What the store keeps of one account."""

    paper: Paper
    account: str

    @property
    def schedule(self) -> Sheet:
        """The part that keeps hints; so are `disputes` and `notifications`."""
        return self

    disputes = notifications = schedule

    async def hint(self, hint: Hint) -> HintResult:
        await asyncio.sleep(0)
        if self.account in self.paper.torn:
            raise StoreUnavailable()
        known = self.paper.seen.get((self.account, hint.message_id)) if hint.digest else None
        if known and known == hint.digest:
            return HintResult.REPEATED
        self.paper.hints.append((self.account, hint))
        if hint.digest:
            self.paper.seen[self.account, hint.message_id] = hint.digest
        return HintResult.ALTERED if known else HintResult.NEW

    async def record(self, dispute: Dispute, *, message_id: str, digest: str) -> HintResult:
        await asyncio.sleep(0)
        if self.account in self.paper.torn:
            raise StoreUnavailable()
        known = self.paper.seen.setdefault((self.account, message_id), digest)
        if (self.account, dispute) in self.paper.disputed:
            return HintResult.REPEATED if known == digest else HintResult.ALTERED
        self.paper.disputed.append((self.account, dispute))
        return HintResult.NEW

    async def keep(self, kept: UnrecognizedNotification, message: str) -> HintResult:
        await asyncio.sleep(0)
        if self.account in self.paper.torn:
            raise StoreUnavailable()
        self.paper.kept.append((self.account, kept, message))
        return HintResult.NEW


class Bench:
    """A receiver on paper, with a certificate host that counts."""

    def __init__(self, *accounts: Account, signer: SnsSigner = SIGNER, **settings: Any) -> None:
        self.paper, self.fetched, self.clock = Paper(), list[str](), ManualClock(NOW)
        self.files = {signer.url: signer.pem}
        store = CertificateStore(self._fetch, self.clock)
        self.receiver = Receiver(accounts or (make_account(),), store, cast(Store, self.paper), self.clock, **settings)

    async def _fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if url not in self.files:
            raise CertificateUnavailable(reason="certificate_not_found")
        return self.files[url]

    async def post(self, fields: dict[str, Any], account: str | None = None) -> Receipt:
        return await self.receiver.receive(posted(fields, account))

    async def refuse(self, fields: dict[str, Any], kind: type[ReceiverError], *, fetched: int = 0) -> ReceiverError:
        """It is refused so; nothing was written, and no more than `fetched` files were asked for."""
        with pytest.raises(kind) as caught:
            await self.post(fields)
        assert self.paper.hints == []
        assert len(self.fetched) == fetched
        return caught.value


async def test_a_genuine_refund_notification_becomes_a_hint() -> None:
    """Everything that the later steps need, and nothing that was not signed."""
    bench = Bench()
    fields = SIGNER.envelope(timestamp_ms=NOW - 1500)
    receipt = await bench.post(fields)
    assert receipt == Receipt(
        outcome=NotificationOutcome.NOTED,
        age=1500,
        signature_version=1,
        topic=TOPIC,
        object_type="REFUND",
        refund_id=REFUND_ID,
        accounts=("us",),
        noted=(HintResult.NEW,),
    )
    [(account, hint)] = bench.paper.hints
    assert (account, hint.refund_id, hint.at, hint.sent_at) == ("us", REFUND_ID, NOW, NOW - 1500)
    assert (hint.message_id, len(hint.digest), hint.source) == (fields["MessageId"], 64, "notification")
    assert bench.fetched == [SIGNER.url]


async def test_a_hint_reaches_the_real_store(store: Store, clock: ManualClock) -> None:
    """On a real Valkey: new, repeated, and the same id with another text."""
    clock.ms = NOW
    receiver = Receiver([make_account()], CertificateStore(Bench()._fetch, clock), store, clock)
    fields = SIGNER.envelope()
    altered = SIGNER.envelope(notice(NotificationId="other"), MessageId=fields["MessageId"])
    outcomes = [(await receiver.receive(posted(body))).outcome for body in (fields, fields, altered)]
    assert outcomes == [NotificationOutcome.NOTED, NotificationOutcome.REPEATED, NotificationOutcome.ALTERED]


@pytest.mark.parametrize("version", [1, 2])
async def test_both_signature_versions_are_believed(version: int) -> None:
    """Topics use 1 unless their owner says otherwise, and may change."""
    assert (await Bench().post(SIGNER.envelope(version=version))).signature_version == version


async def test_an_xml_notice_is_a_hint_with_its_refund_type() -> None:
    """The older generation says who started the refund; nothing later tells."""
    xml = "<RefundNotification><RefundDetails><AmazonRefundId>S01-1-1-R1</AmazonRefundId><RefundType>Chargeback\
</RefundType></RefundDetails></RefundNotification>"
    message = {"SellerId": MERCHANT, "NotificationType": "PaymentRefund", "NotificationData": xml}
    bench = Bench()
    await bench.post(SIGNER.envelope(json.dumps(message)))
    [(_, hint)] = bench.paper.hints
    assert (hint.refund_id, hint.refund_type) == ("S01-1-1-R1", "Chargeback")


async def test_a_stranger_topic_is_final_and_costs_nothing() -> None:
    """It is signed by Amazon all the same, because SNS signs for all its customers. No fetch, no write."""
    bench = Bench()
    error = await bench.refuse(SIGNER.envelope(topic_arn=FOREIGN_TOPIC), VerificationFailed)
    assert (error.status, error.reason) == (403, "wrong_topic")


@pytest.mark.parametrize(
    "topic", [TOPIC + "x", TOPIC[:-1], TOPIC.swapcase().replace("ARN:AWS:SNS:US-EAST-1", "arn:aws:sns:us-east-1")]
)
async def test_an_exact_topic_is_compared_whole(topic: str) -> None:
    """Neither a longer one, nor a shorter, nor another case."""
    bench = Bench(make_account(topics=(TopicPattern(TOPIC),)))
    await bench.refuse(SIGNER.envelope(topic_arn=topic), Unconfigured)
    await bench.post(SIGNER.envelope())


async def test_the_header_does_not_make_a_topic_allowed() -> None:
    """The header is not signed; the body's topic counts, and contradiction is refused."""
    bench = Bench()
    fields = SIGNER.envelope(topic_arn=FOREIGN_TOPIC)
    with pytest.raises(Malformed):
        await bench.receiver.receive(PostedNotification(json.dumps(fields).encode(), {"x-amz-sns-topic-arn": TOPIC}))
    assert (bench.fetched, bench.paper.hints) == ([], [])


async def test_a_topic_of_amazon_pay_that_nobody_configured_is_kept_coming() -> None:
    """A forgotten setting must not lose notifications: 503 without a fetch, and counted for the operator."""
    bench = Bench()
    topic = "arn:aws:sns:eu-west-1:291180941288:A1G8446IYHA4MRAOPZVV2STP28T"
    for _ in range(2):
        bench.clock.tick(5)
        error = await bench.refuse(SIGNER.envelope(topic_arn=topic), Unconfigured)
        assert (error.status, error.reason) == (503, "unconfigured_topic")
    [(found, sighting)] = bench.receiver.unconfigured_topics.listed().items()
    assert (found, sighting.count, sighting.last_seen) == (topic, 2, NOW + 10)


def test_the_table_of_unknown_names_is_bounded_and_keeps_the_frequent() -> None:
    """A stranger's thousand topics do not push out the one that comes again and again."""
    table = UnconfiguredNames()
    for number in range(5):
        table.count("forgotten", number)
    for number in range(1000):
        table.count(f"made up {number}", number)
    assert len(table.listed()) == UNCONFIGURED_MAX
    assert table.listed()["forgotten"].count == 5


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/SimpleNotificationService-{hash}.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-{hash}.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{hash}.pem?x",
    ],
)
async def test_a_wrong_certificate_address_causes_no_fetch(url: str) -> None:
    """403, and no request was sent."""
    bench = Bench()
    error = await bench.refuse(SIGNER.envelope(SigningCertURL=url.format(hash=SIGNER.name)), VerificationFailed)
    assert (error.status, error.reason) == (403, "wrong_certificate_address")


async def test_age_is_judged_before_a_certificate_is_fetched() -> None:
    """Too old is final; from the future is our own trouble."""
    bench = Bench()
    old = await bench.refuse(SIGNER.envelope(timestamp_ms=NOW - 15 * DAY - 1), VerificationFailed)
    assert (old.status, old.reason) == (403, "too_old")
    ahead = await bench.refuse(SIGNER.envelope(timestamp_ms=NOW + 300_001), DatedInFuture)
    assert ahead.status == 503
    await bench.post(SIGNER.envelope(timestamp_ms=NOW - 15 * DAY))


async def test_the_accepted_age_is_a_setting() -> None:
    """Both directions."""
    bench = Bench(past_ms=1000, future_ms=0)
    await bench.refuse(SIGNER.envelope(timestamp_ms=NOW - 1001), VerificationFailed)
    await bench.refuse(SIGNER.envelope(timestamp_ms=NOW + 1), DatedInFuture)


@pytest.mark.parametrize(
    ("spoil", "kind", "reason"),
    [
        ({"TopicArn": TOPIC, "Signature": "x", "SigningCertURL": "x"}, Malformed, "bad_signature_encoding"),
        ({"TopicArn": FOREIGN_TOPIC, "Signature": "x"}, VerificationFailed, "wrong_topic"),
        ({"TopicArn": FOREIGN_TOPIC, "SigningCertURL": "x"}, VerificationFailed, "wrong_topic"),
        (
            {"SigningCertURL": "x", "Timestamp": "2001-01-01T00:00:00.000Z"},
            VerificationFailed,
            "wrong_certificate_address",
        ),
        ({"Timestamp": "2001-01-01T00:00:00.000Z", "Message": "altered"}, VerificationFailed, "too_old"),
    ],
)
async def test_the_order_of_checks(spoil: dict[str, str], kind: type[ReceiverError], reason: str) -> None:
    """The topic in the header, form, topic, address, age: a message with two faults is refused for the earlier one."""
    assert (await Bench().refuse({**SIGNER.envelope(), **spoil}, kind)).reason == reason


async def test_a_bad_signature_is_final() -> None:
    """One fetch at most, and nothing written."""
    bench = Bench()
    fields = {**SIGNER.envelope(), "Message": notice(ObjectId="S01-0000000-0000000-R000000")}
    error = await bench.refuse(fields, VerificationFailed, fetched=1)
    assert (error.status, error.reason) == (403, "bad_signature")


async def test_a_certificate_that_forged_is_not_proven() -> None:
    """Only a signature that verifies promotes a certificate."""
    bench = Bench()
    await bench.refuse({**SIGNER.envelope(), "Message": "x"}, VerificationFailed, fetched=1)
    bench.files.clear()
    bench.clock.tick(60_000)
    await bench.refuse(SIGNER.envelope(), CertificateUnavailable, fetched=2)


async def test_a_forger_with_a_key_of_his_own_is_refused() -> None:
    """The forger's certificate is not on Amazon's host, whatever its name."""
    bench = Bench()
    error = await bench.refuse(FORGER.envelope(), CertificateUnavailable, fetched=1)
    assert error.status == 503
    relabelled = {**FORGER.envelope(), "SigningCertURL": SIGNER.url}
    assert (await bench.refuse(relabelled, VerificationFailed, fetched=2)).reason == "bad_signature"


async def test_the_floor_for_signature_versions_is_the_accounts() -> None:
    """Refused before a fetch; another account that takes SHA-1 still gets the hint."""
    strict = make_account("strict", min_signature_version=2)
    error = await Bench(strict).refuse(SIGNER.envelope(), VerificationFailed)
    assert error.reason == "signature_version_too_low"
    assert (await Bench(strict, make_account()).post(SIGNER.envelope())).accounts == ("us",)
    assert (await Bench(strict, make_account()).post(SIGNER.envelope(version=2))).accounts == ("strict", "us")


async def test_a_fall_back_to_sha_1_is_an_alarm_once() -> None:
    """Both are believed; the operator hears of it."""
    bench = Bench()
    with capture_logs() as logs:
        for version in (1, 2, 1, 1):
            await bench.post(SIGNER.envelope(version=version))
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "notification.signature_downgraded"
    ]


async def test_a_merchant_that_nobody_configured_is_kept_coming() -> None:
    """On an allowed topic and proven: 503, and counted."""
    bench = Bench()
    error = await bench.refuse(SIGNER.envelope(notice(MerchantID="A2OTHER")), Unconfigured, fetched=1)
    assert (error.status, error.reason) == (503, "unconfigured_merchant")
    assert bench.receiver.unconfigured_merchants.listed()["A2OTHER"].count == 1
    forged = {**SIGNER.envelope(), "Message": notice(MerchantID="A2FORGED")}
    await bench.refuse(forged, VerificationFailed, fetched=1)
    assert "A2FORGED" not in bench.receiver.unconfigured_merchants.listed()


def pair() -> list[Account]:
    return [make_account("test"), make_account("shop", environment=Environment.LIVE)]


@pytest.mark.parametrize(
    ("refund_id", "accounts"),
    [
        ("S01-5105180-3221187-R022311", ("test",)),
        ("P01-5105180-3221187-R022311", ("shop",)),
        ("B01-5105180-3221187-R022311", ("test", "shop")),
    ],
)
async def test_the_id_tells_sandbox_from_live(refund_id: str, accounts: tuple[str, ...]) -> None:
    """S is sandbox, P is live, others go to all that match; the message itself does not say."""
    bench = Bench(*pair())
    receipt = await bench.post(SIGNER.envelope(notice(ObjectId=refund_id)))
    assert receipt.accounts == accounts
    assert tuple(name for name, _ in bench.paper.hints) == accounts


async def test_a_hint_finds_somebody_also_where_the_id_fits_nobody() -> None:
    """A live id with only a sandbox account: asking once too often is cheap, losing is not."""
    receipt = await Bench(make_account("test")).post(SIGNER.envelope(notice(ObjectId="P01-1-1-R1")))
    assert receipt.accounts == ("test",)


async def test_two_hundred_only_after_all_writes() -> None:
    """One account cannot be written: 503, and the repetition finds the other one written already."""
    bench = Bench(make_account("one"), make_account("two"))
    bench.paper.torn = {"two"}
    fields = SIGNER.envelope()
    with pytest.raises(StoreUnavailable):
        await bench.post(fields)
    assert [name for name, _ in bench.paper.hints] == ["one"]
    bench.paper.torn = set()
    receipt = await bench.post(fields)
    assert (receipt.outcome, receipt.noted) == (NotificationOutcome.NOTED, (HintResult.REPEATED, HintResult.NEW))


async def test_a_store_that_is_down_is_503() -> None:
    """The same for a single account."""
    bench = Bench()
    bench.paper.torn = {"us"}
    await bench.refuse(SIGNER.envelope(), StoreUnavailable, fetched=1)


async def test_the_path_names_the_account() -> None:
    """`/ipn/{account}` is that account alone; an unknown one does not exist."""
    bench = Bench(make_account("one"), make_account("two"))
    assert (await bench.post(SIGNER.envelope(), "two")).accounts == ("two",)
    with pytest.raises(NotFound):
        await bench.post(SIGNER.envelope(), "three")


async def test_repeated_and_altered_are_told_apart() -> None:
    """The same id with another proven text counts, and is an alarm."""
    bench = Bench()
    fields = SIGNER.envelope()
    altered = SIGNER.envelope(notice(ObjectId="S01-2-2-R2"), MessageId=fields["MessageId"])
    with capture_logs() as logs:
        outcomes = [(await bench.post(each)).outcome for each in (fields, fields, altered)]
    assert outcomes == [NotificationOutcome.NOTED, NotificationOutcome.REPEATED, NotificationOutcome.ALTERED]
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["notification.altered_duplicate"]
    assert [hint.refund_id for _, hint in bench.paper.hints] == [REFUND_ID, "S01-2-2-R2"]


@pytest.mark.parametrize("object_type", ["CHARGE", "CHARGE_PERMISSION"])
async def test_other_objects_are_acknowledged(object_type: str) -> None:
    """Believed, counted in the metrics, not written."""
    bench = Bench()
    receipt = await bench.post(SIGNER.envelope(notice(ObjectType=object_type)))
    assert (receipt.outcome, receipt.object_type, receipt.refund_id) == (
        NotificationOutcome.NOT_A_REFUND,
        object_type,
        "",
    )
    assert bench.paper.hints == []


async def test_test_messages_are_acknowledged_shown_and_never_tracked() -> None:
    """Their refunds do not exist. Who had one sent reads in the log that it came, on which topic, for which account."""
    bench = Bench()
    fields = SIGNER.envelope(notice(IsSample=True))
    with capture_logs() as logs:
        receipt = await bench.post(fields)
    assert (receipt.outcome, receipt.accounts, bench.paper.hints) == (NotificationOutcome.SAMPLE, ("us",), [])
    assert [line for line in logs if line["event"] != "certificate.proven"] == [
        {
            "event": "notification.test_message",
            "log_level": "warning",
            "topic": TOPIC,
            "accounts": ("us",),
            "notification_type": "STATE_CHANGE",
            "message_id": fields["MessageId"],
            "sent_at": NOW,
        }
    ]


@pytest.mark.parametrize(
    ("kind", "outcome", "level"),
    [
        ("SubscriptionConfirmation", NotificationOutcome.SUBSCRIPTION, "warning"),
        ("UnsubscribeConfirmation", NotificationOutcome.UNSUBSCRIBE, "error"),
    ],
)
async def test_confirmations_are_believed_logged_and_never_visited(
    kind: str, outcome: NotificationOutcome, level: str
) -> None:
    """The one file that is fetched is the certificate; the token is nowhere in the log."""
    bench = Bench()
    fields = SIGNER.envelope(kind=kind)
    with capture_logs() as logs:
        assert (await bench.post(fields)).outcome is outcome
    assert bench.fetched == [SIGNER.url]
    assert [entry["log_level"] for entry in logs if entry["event"].startswith("notification.")] == [level]
    assert fields["Token"] not in json.dumps(logs)
    forged = {**fields, "Message": "x"}
    with pytest.raises(VerificationFailed):
        await bench.post(forged)


async def test_where_it_is_configured_the_address_of_a_proven_subscription_is_visited_and_no_other() -> None:
    """It is the one that SNS answers for this topic and token; an end of a subscription is never visited."""
    visited: list[str] = []

    async def confirm(url: str) -> None:
        visited.append(url)

    bench = Bench(confirm=confirm)
    fields = SIGNER.envelope(kind="SubscriptionConfirmation")
    assert (await bench.post(fields)).outcome is NotificationOutcome.CONFIRMED
    assert (
        await bench.post(SIGNER.envelope(kind="UnsubscribeConfirmation"))
    ).outcome is NotificationOutcome.UNSUBSCRIBE
    with pytest.raises(VerificationFailed):
        await bench.post({**fields, "Message": "x"})
    expected = "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TopicArn}&Token={Token}"
    assert visited == [expected.format(**fields)]


async def test_a_subscription_that_sns_does_not_confirm_is_offered_again() -> None:
    """503: the offer comes again."""

    async def confirm(url: str) -> None:
        raise TransportError("SNS answered 500.", reason="not_confirmed")

    with pytest.raises(Unavailable) as caught:
        await Bench(confirm=confirm).post(SIGNER.envelope(kind="SubscriptionConfirmation"))
    assert caught.value.reason == "confirmation_failed"


ONE, TWO = "S01-5105180-3221187-R000001", "P01-0000000-0000001-R000002"
XML_OF_ONE = f"<RefundNotification><RefundDetails><AmazonRefundId>{ONE}</AmazonRefundId></RefundDetails>"


def xml_notice(data: object, **more: object) -> str:
    fields = {"SellerId": MERCHANT, "NotificationType": "PaymentRefund", "NotificationData": data}
    return json.dumps({**fields, **more})


@pytest.mark.parametrize(
    ("message", "refund_ids"),
    [
        ("new generation", ()),
        ("", ()),
        ("null", ()),
        ("[" * 5000, ()),
        (f"Refunds {ONE}, {TWO} and {ONE} again; {ONE}.", (ONE, TWO)),
        (f"<xml>{TWO}</xml>", (TWO,)),
        (f'["{ONE}", 1e999]', (ONE,)),
        (notice()[:-1] + f', "ObjectId": "{ONE}"}}', (REFUND_ID, ONE)),
        (notice(merchantID="A2OTHER"), (REFUND_ID,)),
        (notice(MerchantID="A2Z-ABC"), (REFUND_ID,)),
        (notice(MerchantID=None), (REFUND_ID,)),
        (notice(ObjectId="amzn1.refund.0123456789"), ()),
        (notice(ObjectId="x" * 100_000), ()),
        (notice(ObjectId={"id": ONE}), (ONE,)),
        (notice(ObjectType="PAYOUT", RefundId=ONE), (REFUND_ID, ONE)),
        (notice(ObjectType=["REFUND"]), (REFUND_ID,)),
        (notice(ObjectType="PAYOUT", ObjectId=ONE.replace("-", "\\u002d")).replace("\\\\", "\\"), (ONE,)),
        (xml_notice(XML_OF_ONE), (ONE,)),
        (xml_notice(f"<!DOCTYPE x>{XML_OF_ONE}</RefundNotification>"), (ONE,)),
        (xml_notice(f"<RefundNotification>{ONE} {TWO}</RefundNotification>"), (ONE, TWO)),
        (xml_notice(None), ()),
        (xml_notice(XML_OF_ONE, NotificationType="PaymentReversal"), (ONE,)),
        (xml_notice(XML_OF_ONE, NotificationType=7), (ONE,)),
        (f"charge {ONE.replace('R', 'C')}, x{ONE}, {ONE}1, {ONE[:-1]}, {ONE.lower()}", ()),
        (" ".join(f"S01-5105180-3221187-R{number:06d}" for number in range(5000)), None),
    ],
)
async def test_what_is_amazons_and_not_understood_is_kept(message: str, refund_ids: tuple[str, ...] | None) -> None:
    """Never a 4xx: 200 once it is kept, and every refund that it names is asked about. None of it is in the log."""
    bench = Bench()
    fields = SIGNER.envelope(message)
    with capture_logs() as logs:
        receipt = await bench.post(fields)
    assert (receipt.outcome, receipt.accounts, receipt.noted) == (
        NotificationOutcome.UNRECOGNIZED,
        ("us",),
        (HintResult.NEW,),
    )
    [(account, kept, text)] = bench.paper.kept
    assert (account, text, kept.size) == ("us", message, len(message))
    assert (kept.message_id, kept.topic_arn, kept.received_at) == (fields["MessageId"], TOPIC, NOW)
    if refund_ids is None:
        refund_ids = tuple(f"S01-5105180-3221187-R{number:06d}" for number in range(5000))
    assert (kept.refund_ids, kept.refund_count) == (refund_ids[:100], len(refund_ids))
    assert [(name, hint.refund_id, hint.source) for name, hint in bench.paper.hints] == [
        ("us", refund_id, "notification") for refund_id in refund_ids
    ]
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["notification.unrecognized"]
    assert message in ("", "null") or message[:60] not in json.dumps(logs)


@pytest.mark.parametrize("kind", ["CHARGE", "CHARGE_PERMISSION"])
async def test_a_known_type_that_is_no_refund_is_acknowledged_and_not_kept(kind: str) -> None:
    """It is understood: it is not about refunds. An odd id of another object changes nothing."""
    bench = Bench()
    receipt = await bench.post(SIGNER.envelope(notice(ObjectType=kind, ObjectId={"odd": ONE})))
    assert (receipt.outcome, bench.paper.kept, bench.paper.hints) == (NotificationOutcome.NOT_A_REFUND, [], [])


@pytest.mark.parametrize(
    "odd",
    [
        {"MerchantID": f"amzn1.merchant.{MERCHANT}"},
        {"MerchantID": None},
        {"objectid": "of another"},
        {"ObjectType": "CHARGE BACK!"},
        {"ObjectType": 7, "NotificationType": "CHARGEBACK"},
    ],
)
async def test_a_dispute_in_a_message_that_is_not_understood_counts(odd: dict[str, Any]) -> None:
    """The buyer may have the money, whatever else the message says. A test message tells of none."""
    bench = Bench()
    message = notice(**{"ObjectType": "CHARGEBACK", "ObjectId": f"{REFUND_ID[:19]}-B000001", **odd})
    receipt = await bench.post(SIGNER.envelope(message))
    assert (receipt.outcome, len(bench.paper.kept)) == (NotificationOutcome.UNRECOGNIZED, 1)
    [(account, dispute)] = bench.paper.disputed
    assert (account, dispute.charge_permission_id, dispute.kind) == ("us", REFUND_ID[:19], "chargeback")
    assert dispute.told_at == NOW
    await bench.post(SIGNER.envelope(message[:-1] + ', "IsSample": true}'))
    assert len(bench.paper.disputed) == 1


async def test_a_test_message_that_is_not_understood_makes_no_hint() -> None:
    """Its ids are invented. That it is not understood still matters: a real one would not be either."""
    bench = Bench()
    receipt = await bench.post(SIGNER.envelope(xml_notice(XML_OF_ONE, IsSample=True)))
    assert (receipt.outcome, len(bench.paper.kept), bench.paper.hints) == (NotificationOutcome.UNRECOGNIZED, 1, [])


async def test_a_stranger_cannot_have_anything_kept() -> None:
    """Another's topic, another's key, an altered text, an old message: refused before anything is written."""
    bench = Bench()
    await bench.refuse(SIGNER.envelope("text", topic_arn=FOREIGN_TOPIC), VerificationFailed)
    await bench.refuse({**SIGNER.envelope("text"), "Message": "other"}, VerificationFailed, fetched=1)
    await bench.refuse({**FORGER.envelope("text"), "SigningCertURL": SIGNER.url}, VerificationFailed, fetched=1)
    await bench.refuse(SIGNER.envelope("text", timestamp_ms=NOW - 16 * DAY), VerificationFailed, fetched=1)
    assert bench.paper.kept == []


async def test_a_merchant_that_nobody_configured_is_kept_coming_also_if_not_understood() -> None:
    """The message says whose it is: 503 as ever, since the setting may be forgotten."""
    bench = Bench()
    message = notice(MerchantID="A2OTHER", ObjectType="PAYOUT")
    assert (await bench.refuse(SIGNER.envelope(message), Unconfigured, fetched=1)).reason == "unconfigured_merchant"
    message = notice(MerchantID="A2OTHER", ObjectId="odd id")
    assert (await bench.refuse(SIGNER.envelope(message), Unconfigured, fetched=1)).reason == "unconfigured_merchant"
    assert bench.paper.kept == []


OTHER_MERCHANT = "A3OTHERMERCHANT"


def neighbours() -> list[Account]:
    """Two accounts of one merchant, and one of another who shares the topic."""
    return [*pair(), make_account("other", merchant_id=OTHER_MERCHANT)]


@pytest.mark.parametrize(
    ("message", "places"),
    [
        (notice(ObjectType="PAYOUT"), {"test", "shop"}),
        (notice(ObjectType="PAYOUT", MerchantID=OTHER_MERCHANT), {"other"}),
        (f"a word to {OTHER_MERCHANT}!", {"other"}),
        (f"a word to {MERCHANT} and {OTHER_MERCHANT}", {UNASSIGNED}),
        ("a word to everybody", {"test", "shop"}),
    ],
)
async def test_the_merchant_of_a_message_keeps_it(message: str, places: set[str]) -> None:
    """Who is named in it, or at the end of the topic. What may be of several merchants none of them may read."""
    bench = Bench(*neighbours())
    await bench.post(SIGNER.envelope(message))
    assert {account for account, _, _ in bench.paper.kept} == places


async def test_a_message_of_a_topic_that_names_no_merchant_belongs_to_none() -> None:
    """It is kept apart, with the accounts that it may be for; all of them ask about the refunds that it names."""
    topic = "arn:aws:sns:us-east-1:291180941288:Everybody"
    bench = Bench(*neighbours())
    receipt = await bench.post(SIGNER.envelope(f"look at {TWO}", topic_arn=topic))
    assert [(account, kept.accounts) for account, kept, _ in bench.paper.kept] == [
        (UNASSIGNED, ("test", "shop", "other"))
    ]
    assert [(account, hint.refund_id) for account, hint in bench.paper.hints] == [("shop", TWO)]
    assert receipt.accounts == ("test", "shop", "other")


async def test_a_path_with_an_account_is_for_that_account_alone() -> None:
    """`/ipn/other` says whose it is, where the message does not."""
    topic = "arn:aws:sns:us-east-1:291180941288:Everybody"
    bench = Bench(*neighbours())
    await bench.post(SIGNER.envelope(f"look at {TWO}", topic_arn=topic), "other")
    assert [account for account, _, _ in bench.paper.kept] == ["other"]
    assert [account for account, _ in bench.paper.hints] == ["other"]


@pytest.mark.parametrize("torn", ["test", "shop"])
async def test_no_200_before_all_of_it_is_written(torn: str) -> None:
    """A hint or a copy that Redis did not confirm is a 503: the same message comes again."""
    bench = Bench(*pair())
    bench.paper.torn.add(torn)
    with pytest.raises(StoreUnavailable):
        await bench.post(SIGNER.envelope(f"look at {TWO}"))


async def test_a_body_over_the_limit_is_not_even_parsed() -> None:
    """413, for calls without the HTTP layer."""
    bench = Bench()
    with pytest.raises(TooLarge):
        await bench.receiver.receive(PostedNotification(b" " * (MAX_BODY + 1), {}))


async def test_refusals_log_nothing() -> None:
    """Only the HTTP layer logs a request, in one line. A stranger can neither cause alarms nor write text to the
    log."""
    bench = Bench()
    spoiled: list[dict[str, Any]] = [
        {"Type": "Foo"},
        {"TopicArn": FOREIGN_TOPIC},
        {"SigningCertURL": "http://needle.example"},
        {"Timestamp": "2001-01-01T00:00:00.000Z"},
        {"Message": "needle"},
    ]
    with capture_logs() as logs:
        for change in spoiled:
            with pytest.raises(ReceiverError) as caught:
                await bench.post({**SIGNER.envelope(), **change})
            assert "needle" not in str(caught.value)
    assert logs == []


async def test_two_hundred_copies_at_once_are_one_hint() -> None:
    """And one fetch."""
    bench = Bench()
    fields = SIGNER.envelope()
    receipts = await asyncio.gather(*(bench.post(fields) for _ in range(200)))
    assert [receipt.outcome for receipt in receipts].count(NotificationOutcome.NOTED) == 1
    assert len(bench.paper.hints) == len(bench.fetched) == 1


async def test_a_wrong_name_on_the_certificate_is_final() -> None:
    """The file on Amazon's host is the one named, and is not the region's signing certificate."""
    evil = SnsSigner(san=["evil.example"])
    error = await Bench(signer=evil).refuse(evil.envelope(), VerificationFailed, fetched=1)
    assert (error.status, error.reason) == (403, "certificate_wrong_name")


def chargeback(**more: object) -> str:
    fields = {
        "ObjectType": "CHARGEBACK",
        "ObjectId": "S01-5105180-3221187-B000001",
        "ChargePermissionId": "S01-5105180-3221187",
    }
    return notice(**{**fields, **more})


async def test_a_dispute_is_written_before_it_is_acknowledged() -> None:
    """With the times at which Amazon signed. A repetition with the same id changes nothing. The log has one line about
    it."""
    bench = Bench()
    fields = SIGNER.envelope(chargeback())
    with capture_logs() as logs:
        found = [await bench.post(fields), await bench.post(fields)]
    assert [each.outcome for each in found] == [NotificationOutcome.DISPUTE, NotificationOutcome.REPEATED]
    ((account, dispute),) = bench.paper.disputed
    assert (account, dispute.dispute_id) == ("us", "S01-5105180-3221187-B000001")
    assert dispute.told_at == dispute.first_told_at == parse_time(fields["Timestamp"])
    assert bench.paper.hints == []
    (line,) = [line for line in logs if line["event"] == "dispute.notified"]
    assert (line["account"], line["dispute"]["dispute_id"]) == ("us", dispute.dispute_id)


async def test_a_dispute_that_cannot_be_written_is_told_again() -> None:
    """503, not 200."""
    bench = Bench()
    bench.paper.torn.add("us")
    with pytest.raises(StoreUnavailable):
        await bench.post(SIGNER.envelope(chargeback()))


@pytest.mark.parametrize(("first", "account"), [("S", "sandbox"), ("P", "live")])
async def test_the_charge_permission_says_of_which_environment_a_dispute_is(first: str, account: str) -> None:
    """The dispute's own id may begin with any letter."""
    live, sandbox = (
        make_account("live", environment=Environment.LIVE),
        make_account("sandbox", environment=Environment.SANDBOX),
    )
    bench = Bench(live, sandbox)
    message = chargeback(ObjectId="PX7", ChargePermissionId=f"{first}01-5105180-3221187")
    await bench.post(SIGNER.envelope(message))
    assert [name for name, _ in bench.paper.disputed] == [account]


@pytest.mark.parametrize("object_type", ["A_TO_Z_CLAIM", "DISPUTE"])
async def test_a_type_that_says_claim_is_a_dispute(object_type: str) -> None:
    """Amazon does not document these types, but their meaning is clear."""
    bench = Bench()
    assert (
        await bench.post(SIGNER.envelope(chargeback(ObjectType=object_type)))
    ).outcome is NotificationOutcome.DISPUTE


async def test_a_dispute_that_names_no_charge_permission_is_kept_for_a_person() -> None:
    """As every message that is proven and not understood."""
    bench = Bench()
    receipt = await bench.post(SIGNER.envelope(chargeback(ObjectId="B1", ChargePermissionId=None)))
    assert (receipt.outcome, len(bench.paper.kept), bench.paper.disputed) == (NotificationOutcome.UNRECOGNIZED, 1, [])
