"""`receiver verify`: captured notifications, judged offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from receiver.commands.verify import verify_files
from receiver.errors import ConfigurationError
from tests.kit.outside import sample
from tests.kit.sns import NOW, REFUND_ID, TOPIC, SnsSigner, notice, rsa_key

SIGNER = SnsSigner()
PATTERN = "arn:aws:sns:us-east-1:291180941288:*"


def judge(path: Path, at: str = "now", topic: str = PATTERN, cert: Path | None = None) -> dict[str, str | None]:
    [verdict] = verify_files([path], cert=cert, at=at, topics=[topic], now=lambda: NOW)
    assert verdict.pop("file") == str(path)
    return verdict


@pytest.fixture
def pair(tmp_path: Path) -> Any:
    """Writes a file of the form {message, cert_pem}."""

    def write(message: dict[str, Any], pem: bytes = SIGNER.pem) -> Path:
        path = tmp_path / "pair.json"
        path.write_text(json.dumps({"message": message, "cert_pem": pem.decode(), "source": "test"}))
        return path

    return write


def accepted(refund_id: str | None) -> dict[str, str | None]:
    return {"verdict": "accepted", "reason": None, "refund_id": refund_id}


def refused(reason: str) -> dict[str, str | None]:
    return {"verdict": "refused", "reason": reason, "refund_id": None}


def test_a_genuine_refund_notification_is_accepted(pair: Any, tmp_path: Path) -> None:
    """In either form, with its refund id."""
    assert judge(pair(SIGNER.envelope())) == accepted(REFUND_ID)
    bare, pem = tmp_path / "envelope.json", tmp_path / "sns.pem"
    bare.write_bytes(SIGNER.post_body())
    pem.write_bytes(SIGNER.pem)
    assert judge(bare, cert=pem) == accepted(REFUND_ID)
    assert judge(bare) == refused("certificate_missing")


def test_a_certificate_that_was_handed_over_goes_first(pair: Any, tmp_path: Path) -> None:
    """What a file brings along proves only that the file agrees with itself."""
    forger = SnsSigner(key=rsa_key(number=1))
    pem = tmp_path / "sns.pem"
    pem.write_bytes(SIGNER.pem)
    path = pair(forger.envelope(), forger.pem)
    assert judge(path) == accepted(REFUND_ID)
    assert judge(path, cert=pem) == refused("certificate_not_as_named")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Type": "Foo"}, "bad_type"),
        ({"messageid": "x"}, "field_spelling"),
        ({"TopicArn": "arn:aws:sns:us-east-1:666666666666:x"}, "wrong_topic"),
        ({"SigningCertURL": "https://evil.example/x.pem"}, "wrong_certificate_address"),
        ({"Timestamp": "2001-01-01T00:00:00.000Z"}, "too_old"),
        ({"Timestamp": "2031-01-01T00:00:00.000Z"}, "dated_in_future"),
        ({"Message": "altered"}, "bad_signature"),
        ({"Message": "\ud800"}, "lone_surrogate"),
        ({"Message": "x" * 300_000}, "too_large"),
    ],
)
def test_every_rule_holds(pair: Any, change: dict[str, str], reason: str) -> None:
    """The same reasons as over HTTP."""
    assert judge(pair({**SIGNER.envelope(), **change})) == refused(reason)


@pytest.mark.parametrize(
    ("signer", "reason"),
    [
        (SnsSigner(key=rsa_key(1024)), "certificate_weak_key"),
        (SnsSigner(san=["evil.example"]), "certificate_wrong_name"),
        (SnsSigner(not_after=NOW - 86_400_000), "certificate_dates"),
    ],
)
def test_the_certificate_is_judged(pair: Any, signer: SnsSigner, reason: str) -> None:
    """Offline as online."""
    assert judge(pair({**signer.envelope(), "Signature": "A" * 342 + "=="}, signer.pem)) == refused(reason)


def test_the_moment_can_be_chosen(pair: Any) -> None:
    """Now, the message's own time, or any other."""
    path = pair(SIGNER.envelope(timestamp_ms=NOW - 20 * 86_400_000))
    assert judge(path) == refused("too_old")
    assert judge(path, at="message") == accepted(REFUND_ID)
    assert judge(path, at="2025-12-20T12:00:00+02:00") == accepted(REFUND_ID)
    assert judge(path, at="2026-02-01T00:00:00Z") == refused("too_old")
    assert judge(path, at="2020-01-01T00:00:00Z") == refused("dated_in_future")


@pytest.mark.parametrize("at", ["", "yesterday", "2026-01-01T00:00:00", "1", "9999999999"])
def test_an_unusable_moment_is_a_configuration_error(pair: Any, at: str) -> None:
    """A time without a zone could mean anything."""
    with pytest.raises(ConfigurationError):
        judge(pair(SIGNER.envelope()), at=at)


def test_a_certificate_file_that_is_missing_is_a_configuration_error(pair: Any, tmp_path: Path) -> None:
    """It is the caller's slip, not the notification's."""
    with pytest.raises(ConfigurationError):
        judge(pair(SIGNER.envelope()), cert=tmp_path / "none.pem")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"\xff", "not_utf8"),
        (b"[]", "not_an_object"),
        (b"[" * 5000, "too_deep"),
        (b" " * 2_000_000, "too_large"),
    ],
)
def test_any_file_gets_a_verdict(tmp_path: Path, body: bytes, reason: str) -> None:
    """Also one that is not a notification."""
    path = tmp_path / "file"
    path.write_bytes(body)
    assert judge(path) == refused(reason)
    assert judge(tmp_path) == refused("file_unreadable")
    assert judge(tmp_path / "none") == refused("file_unreadable")


@pytest.mark.parametrize("message", ["text", notice(ObjectType="PAYOUT"), notice(ObjectId="amzn1.refund.1")])
def test_a_proven_message_that_is_not_understood(pair: Any, message: str) -> None:
    """Accepted, as /ipn answers 200; and so called on a topic of Amazon Pay. Another topic's may say anything."""
    foreign = "arn:aws:sns:us-east-1:666666666666:x"
    unrecognized = {**accepted(None), "reason": "unrecognized"}
    assert judge(pair(SIGNER.envelope(message))) == unrecognized
    assert judge(pair(SIGNER.envelope(message)), topic="*") == unrecognized
    assert judge(pair(SIGNER.envelope(message, topic_arn=foreign)), topic="*") == accepted(None)
    assert judge(pair(SIGNER.envelope(message, topic_arn=foreign)), topic=foreign) == unrecognized


def test_a_certificate_may_be_valid_at_the_messages_time_or_at_the_moment(pair: Any) -> None:
    """A repetition that was signed again after a rotation is judged by the time of its arrival, not by its
    timestamp."""
    rotated = SnsSigner(serial=2, not_before=NOW - 86_400_000)
    path = pair(rotated.envelope(timestamp_ms=NOW - 10 * 86_400_000), rotated.pem)
    assert judge(path) == accepted(REFUND_ID)
    assert judge(path, at="2026-01-01T00:00:00Z") == accepted(REFUND_ID)
    assert judge(path, at="2025-12-30T00:00:00Z") == refused("certificate_dates")
    assert judge(path, at="message") == refused("certificate_dates")


def test_only_refunds_that_exist_have_an_id(pair: Any) -> None:
    """Other objects, confirmations and test messages are genuine, and name none."""
    assert judge(pair(SIGNER.envelope(notice(ObjectType="CHARGE")))) == accepted(None)
    assert judge(pair(SIGNER.envelope(notice(IsSample=True)))) == accepted(None)
    assert judge(pair(SIGNER.envelope(kind="SubscriptionConfirmation"))) == accepted(None)


def test_merchants_are_not_judged(pair: Any) -> None:
    """No account is known here."""
    assert judge(pair(SIGNER.envelope(notice(MerchantID="A2OTHER")))) == accepted(REFUND_ID)


def test_a_topic_has_to_be_given(pair: Any) -> None:
    """No pattern allows nothing."""
    [verdict] = verify_files([pair(SIGNER.envelope(topic_arn=TOPIC))], cert=None, at="now", topics=[], now=lambda: NOW)
    assert verdict["reason"] == "wrong_topic"


def test_real_notifications_are_judged_as_expected() -> None:
    """Real AWS messages of 2012 to 2026, each at its own time; the key of 2012 is too short; two name refunds."""
    paths = sorted(sample("notifications").glob("*/*.json"))
    assert len(paths) >= 45
    verdicts = list(verify_files(paths, cert=None, at="message", topics=["*"], now=lambda: NOW))
    for path, verdict in zip(paths, verdicts, strict=True):
        expected = json.loads(path.read_text())["expected"] == "valid" and not path.name.startswith("001-2012")
        assert (verdict["verdict"] == "accepted") is expected, path.name
    assert {verdict["refund_id"] for verdict in verdicts} == {
        None,
        "S01-0414412-1503685-R092574",
        "S02-8274313-3487267-R019346",
    }


def test_real_notifications_of_amazon_pay_are_old_by_now() -> None:
    """At today's time all of them are too old."""
    for verdict in verify_files(
        sorted(sample("notifications").glob("*/*amazonpay.json")), cert=None, at="now", topics=["*"], now=lambda: NOW
    ):
        assert verdict["reason"] == "too_old"
