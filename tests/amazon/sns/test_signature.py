"""Which envelopes are believed: address, age, signature."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from hypothesis import given
from hypothesis import strategies as st

from receiver.amazon.sns import known_answers
from receiver.amazon.sns.certificate import read_certificate
from receiver.amazon.sns.envelope import Envelope, read_envelope
from receiver.amazon.sns.signature import check_address, check_age, check_signature, read_address, self_test
from receiver.errors import CertificateUnavailable, ConfigurationError, DatedInFuture, Malformed, VerificationFailed
from tests.kit.sns import NOW, TOPIC, SnsSigner, rsa_key, signed_text

SIGNER = SnsSigner()
CERTIFICATE = read_certificate(SIGNER.pem)
HASH = "7506a1e35b36ef5a444dd1a8e7cc3ed8"
GOOD = f"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{HASH}.pem"
FILE = f"SimpleNotificationService-{HASH}.pem"


def envelope_of(fields: dict[str, Any]) -> Envelope:
    return read_envelope(json.dumps(fields).encode())


def addressed(url: str, topic: str = TOPIC) -> Envelope:
    return envelope_of(SIGNER.envelope(topic_arn=topic, SigningCertURL=url, Signature="A" * 342 + "=="))


def test_the_one_address_of_a_region_gives_the_hash() -> None:
    """The file hash is what certificates are kept under."""
    assert check_address(addressed(GOOD)) == HASH
    eu = "arn:aws:sns:eu-west-1:291180941288:name"
    assert check_address(addressed(GOOD.replace("us-east-1", "eu-west-1"), eu)) == HASH
    cn = "arn:aws-cn:sns:cn-north-1:291180941288:name"
    assert check_address(addressed(f"https://sns.cn-north-1.amazonaws.com.cn/{FILE}", cn)) == HASH


@pytest.mark.parametrize(
    "url",
    [
        f"https://sns.s3-us-west-2.amazonaws.com/{FILE}",
        f"https://attacker.s3.amazonaws.com/{FILE}",
        f"https://sns.elb.amazonaws.com/{FILE}",
        f"https://sns.execute-api.us-east-1.amazonaws.com/{FILE}",
        f"https://sns.us-east-9.amazonaws.com/{FILE}",
        f"https://sns-x-amazonaws.com/{FILE}",
        f"https://evilsns.us-east-1.amazonaws.com/{FILE}",
        f"https://evil.sns.us-east-1.amazonaws.com/{FILE}",
        f"https://snsxus-east-1.amazonaws.com/{FILE}",
        f"https://sns.us-east-1.amazonaws.com.evil.example/{FILE}",
        f"https://sns.us-east-1.amazonaws.com.com/{FILE}",
        f"https://sns.x.amazonaws.com/{FILE}",
        f"https://sns.us-east-1.amazonaws.com@evil.example/{FILE}",
        f"https://sns.us-east-1.amazonaws.com\\@evil.example/{FILE}",
        f"https://user@sns.us-east-1.amazonaws.com/{FILE}",
        f"https://sns.us-east-1.amazonaws.com:8443/{FILE}",
        f"https://sns.us-east-1.amazonaws.com:443/{FILE}",
        f"http://sns.us-east-1.amazonaws.com/{FILE}",
        f"HTTPS://sns.us-east-1.amazonaws.com/{FILE}",
        f"//sns.us-east-1.amazonaws.com/{FILE}",
        "file:///etc/passwd",
        "gopher://sns.us-east-1.amazonaws.com/",
        "https://sns.us-east-1.amazonaws.com/?Action=GetTopicAttributes&TopicArn=x.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService.pem",
        f"{GOOD}?x=.pem",
        f"{GOOD}#.pem",
        f"{GOOD};x.pem",
        f"{GOOD}/../../evil.pem",
        f"https://sns.us-east-1.amazonaws.com/a/../{FILE}",
        f"https://sns.us-east-1.amazonaws.com/%2e%2e/{FILE}",
        f"https://sns.us-east-1.amazonaws.com//{FILE}",
        f"{GOOD}%00",
        f"{GOOD}\x00",
        GOOD.replace(HASH, HASH.upper()),
        GOOD.replace(HASH, HASH[:-1]),
        GOOD.replace(HASH, HASH + "0"),
        GOOD.replace(HASH, "\u0661" * 32),
        GOOD.replace(".pem", ".exe"),
        "https://SNS.US-EAST-1.AMAZONAWS.COM/" + FILE,
        f"https://sns.us-east-1.amazonaws.com./{FILE}",
        f"https://sns.us-east-1%2eamazonaws.com/{FILE}",
        f"https://\uff53ns.us-east-1.amazonaws.com/{FILE}",
        f"https://xn--sns.us-east-1.amazonaws.com/{FILE}",
        GOOD + "\n",
        "\t" + GOOD,
        " " + GOOD,
        GOOD.replace("sns.", "sns\t."),
        GOOD.replace("sns.", "sns\n."),
        f"https://169.254.169.254/{FILE}",
        f"https://[::ffff:169.254.169.254]/{FILE}",
        f"https://2852039166/{FILE}",
        f"https://sns.eu-west-1.amazonaws.com/{FILE}",
        f"https://sns.us-east-1.amazonaws.com.cn/{FILE}",
        "https://" + "a" * 100_000,
        "",
    ],
)
def test_every_other_address_is_refused(url: str) -> None:
    """The attacks on address checks that verifiers have fallen for, and their relatives."""
    with pytest.raises(VerificationFailed) as caught:
        check_address(addressed(url))
    assert (caught.value.reason, caught.value.status) == ("wrong_certificate_address", 403)
    assert read_address(url) is None or "eu-west-1" in url


@given(st.text(max_size=80) | st.text().map(lambda text: GOOD + text) | st.text().map(lambda text: text + GOOD))
def test_no_other_text_is_an_address(url: str) -> None:
    """One exact string for each hash."""
    fields = SIGNER.envelope(SigningCertURL=url, Signature="A" * 342 + "==")
    if url == GOOD:
        return
    with pytest.raises(VerificationFailed):
        check_address(envelope_of(fields))


def test_a_region_that_we_do_not_know_is_our_lack() -> None:
    """The settings allow the topic: 503, so that nothing is lost until the table is fixed."""
    url = GOOD.replace("us-east-1", "us-east-9")
    with pytest.raises(CertificateUnavailable) as caught:
        check_address(addressed(url, "arn:aws:sns:us-east-9:291180941288:name"))
    assert caught.value.reason == "unknown_region"


def test_an_address_tells_partition_and_hash() -> None:
    """Pinned certificates are configured by address."""
    assert read_address(GOOD) == ("aws", HASH)
    assert read_address(f"https://sns.cn-north-1.amazonaws.com.cn/{FILE}") == ("aws-cn", HASH)


def test_age_is_15_days_back_and_5_minutes_ahead() -> None:
    """Older is final (403), from the future is our trouble (503): the clock that is wrong may be ours."""
    envelope = addressed(GOOD)
    day = 86_400_000
    for now in (NOW, NOW + 15 * day, NOW - 300_000):
        check_age(envelope, now)
    with pytest.raises(VerificationFailed) as old:
        check_age(envelope, NOW + 15 * day + 1)
    assert old.value.reason == "too_old"
    with pytest.raises(DatedInFuture) as ahead:
        check_age(envelope, NOW - 300_001)
    assert ahead.value.status == 503
    check_age(envelope, NOW + 60_000, past_ms=60_000)
    with pytest.raises(VerificationFailed):
        check_age(envelope, NOW + 60_001, past_ms=60_000)


def test_the_known_answers_verify() -> None:
    """Both hashes work on this machine, and the two pinned signatures are what they were when they were made."""
    self_test()
    texts = "".join(known_answers.SIGNATURES.values()) + known_answers.CERTIFICATE.decode()
    assert (
        hashlib.sha256(texts.encode()).hexdigest() == "f9e2ef5b82bcedbc6cbd6381ebaf70b30bf4897c4b7e5321be3e907677613e00"
    )


@pytest.mark.parametrize("version", [1, 2])
def test_a_wrong_known_answer_stops_the_service(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that cannot verify a hash is found at start, with the fix."""
    wrong = base64.b64encode(bytes(256)).decode()
    monkeypatch.setitem(known_answers.SIGNATURES, version, wrong)
    with pytest.raises(ConfigurationError) as caught:
        self_test()
    assert len(caught.value.problems) == 1
    assert f"SignatureVersion {version}" in caught.value.problems[0]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_what_sns_signs_verifies(version: int, kind: str) -> None:
    """Each type, with each version."""
    check_signature(envelope_of(SIGNER.envelope(version=version, kind=kind)), CERTIFICATE)


@pytest.mark.parametrize("subject", ["", "Amazon", "ÄÖ🍌"])
def test_a_subject_is_signed_where_it_is_there(subject: str) -> None:
    """Also an empty one: what is present counts."""
    fields = SIGNER.envelope(Subject=subject)
    check_signature(envelope_of(fields), CERTIFICATE)
    del fields["Subject"]
    with pytest.raises(VerificationFailed):
        check_signature(envelope_of(fields), CERTIFICATE)


@pytest.mark.parametrize("version", [1, 2])
def test_a_relabelled_version_fails(version: int) -> None:
    """`SignatureVersion` is not signed, and need not be."""
    fields = {**SIGNER.envelope(version=version), "SignatureVersion": str(3 - version)}
    with pytest.raises(VerificationFailed) as caught:
        check_signature(envelope_of(fields), CERTIFICATE)
    assert caught.value.reason == "bad_signature"


def raw_signature(text: bytes, *, encode: str) -> str:
    """What a forger without PKCS#1's strictness would send, made with the real key."""
    numbers = rsa_key().private_numbers()
    n, d, size = numbers.public_numbers.n, numbers.d, 256
    digest_info = bytes.fromhex("3021300906052b0e03021a05000414") + hashlib.sha1(text).digest()
    if encode == "without NULL":
        digest_info = bytes.fromhex("301f300706052b0e03021a0414") + hashlib.sha1(text).digest()
    block = b"\x00\x01" + b"\xff" * (size - 3 - len(digest_info)) + b"\x00" + digest_info
    if encode == "garbage behind":
        block = b"\x00\x01" + b"\xff" * 8 + b"\x00" + digest_info + bytes(size - 11 - len(digest_info))
    if encode == "type 2":
        block = b"\x00\x02" + block[2:]
    number = pow(int.from_bytes(block, "big"), d, n)
    number = {"zero": 0, "one": 1, "n": n, "plus n": number + n, "negated": n - number}.get(encode, number)
    return base64.b64encode((number % (1 << (8 * size))).to_bytes(size, "big")).decode()


@pytest.mark.parametrize("encode", ["without NULL", "garbage behind", "type 2", "zero", "one", "n", "negated"])
def test_forged_blocks_fail(encode: str) -> None:
    """Bleichenbacher's shapes, missing parameters, and numbers outside the range."""
    fields = SIGNER.envelope()
    fields["Signature"] = raw_signature(signed_text(fields), encode="good")
    check_signature(envelope_of(fields), CERTIFICATE)
    fields["Signature"] = raw_signature(signed_text(fields), encode=encode)
    with pytest.raises(VerificationFailed):
        check_signature(envelope_of(fields), CERTIFICATE)


def test_pss_and_other_lengths_fail() -> None:
    """The padding is PKCS#1 v1.5, and the length is the key's."""
    fields = SIGNER.envelope()
    text = signed_text(fields)
    pss = rsa_key().sign(text, padding.PSS(padding.MGF1(hashes.SHA1()), 20), hashes.SHA1())
    longer = rsa_key(3072).sign(text, padding.PKCS1v15(), hashes.SHA1())
    good = base64.b64decode(fields["Signature"])
    for signature in (pss, longer, good + b"\x00", b"\x00" + good):
        fields["Signature"] = base64.b64encode(signature).decode()
        with pytest.raises(VerificationFailed):
            check_signature(envelope_of(fields), CERTIFICATE)


def test_another_key_fails() -> None:
    """A certificate of the same name with another key proves nothing."""
    other = SnsSigner(key=rsa_key(number=1))
    with pytest.raises(VerificationFailed):
        check_signature(envelope_of(other.envelope()), CERTIFICATE)
    check_signature(envelope_of(other.envelope()), read_certificate(other.pem))


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        (
            {"Message": "A\nMessageId\nfake-1"},
            {"Message": "A", "MessageId": "fake-1\nMessageId\n17bf00c4-8bf8-5f70-9f25-51097f9450e5"},
        ),
        (
            {"Message": f"A\nMessageId\nI\nTimestamp\nT\nTopicArn\n{TOPIC}\nType\nNotification"},
            {"Message": "A", "MessageId": "I", "Timestamp": "T", "TopicArn": f"{TOPIC}\nType\nNotification\n…"},
        ),
        ({"Message": "A\nSubject\nB"}, {"Message": "A", "Subject": "B"}),
    ],
)
def test_borders_cannot_be_moved(signed: dict[str, Any], sent: dict[str, str]) -> None:
    """The signed text has no escaping; an old signature over a message with line feeds must not fit other fields."""
    fields = SIGNER.envelope(**signed)
    with pytest.raises((Malformed, VerificationFailed)):
        check_signature(envelope_of({**fields, **sent}), CERTIFICATE)


ENVELOPES = {
    (kind, version): SIGNER.envelope("line one\nline two", kind=kind, version=version)
    for kind in ("Notification", "SubscriptionConfirmation")
    for version in (1, 2)
}
SIGNED_FIELDS = {
    "Notification": ["Type", "MessageId", "TopicArn", "Message", "Timestamp", "Signature"],
    "SubscriptionConfirmation": [
        *("Type", "MessageId", "TopicArn", "Message", "Timestamp", "Signature", "Token", "SubscribeURL")
    ],
}


@given(st.sampled_from(sorted(ENVELOPES)), st.data())
def test_any_change_of_a_signed_field_is_refused(which: tuple[str, int], data: st.DataObject) -> None:
    """One character replaced, added or taken away, anywhere in what is signed."""
    fields = dict(ENVELOPES[which])
    name = data.draw(st.sampled_from(SIGNED_FIELDS[which[0]]))
    old = fields[name]
    place = data.draw(st.integers(0, len(old)))
    new = data.draw(st.sampled_from(["", "\n", " ", "a", "0", "A", "\x00", "é"]) | st.characters())
    fields[name] = old[:place] + new + old[place + data.draw(st.integers(0, 1)) :]
    if fields[name] == old:
        return
    with pytest.raises((Malformed, VerificationFailed)):
        check_signature(envelope_of(fields), CERTIFICATE)
