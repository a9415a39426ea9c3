"""The body of a POST by SNS: what is an envelope, and what Amazon signed in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.amazon.sns.envelope import Envelope, read_envelope
from receiver.errors import Malformed
from tests.kit.sns import NOW, TOPIC, SnsSigner, headers, signed_text

SIGNER = SnsSigner()
SIGNED = ["Type", "MessageId", "TopicArn", "Message", "Timestamp"]
REQUIRED = [*SIGNED, "SignatureVersion", "Signature", "SigningCertURL"]
CONFIRMATION = ["Token", "SubscribeURL"]


def read(fields: dict[str, Any], sent: dict[str, str] | None = None) -> Envelope:
    return read_envelope(json.dumps(fields).encode(), sent or {})


def reason_of(fields: dict[str, Any], sent: dict[str, str] | None = None) -> str:
    with pytest.raises(Malformed) as caught:
        read(fields, sent)
    return caught.value.reason


def test_the_signed_text_of_a_notification_is_pinned() -> None:
    """Six names and values, each ended by a line feed; Subject only where it is there (SNS developer guide)."""
    fields = {
        "Type": "Notification",
        "MessageId": "17bf00c4-8bf8-5f70-9f25-51097f9450e5",
        "TopicArn": "arn:aws:sns:eu-west-1:291180941288:A1G8446IYHA4MRAOPZVV2STP28T",
        "Subject": "My First Message",
        "Message": 'Hello\n"world" \N{BANANA}',
        "Timestamp": "2017-06-28T18:15:08.017Z",
        "SignatureVersion": "1",
        "Signature": "A" * 342 + "==",
        "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-x.pem",
        "UnsubscribeURL": "not signed",
    }
    expected = (
        'Message\nHello\n"world" \N{BANANA}\nMessageId\n17bf00c4-8bf8-5f70-9f25-51097f9450e5\n'
        "Subject\nMy First Message\nTimestamp\n2017-06-28T18:15:08.017Z\n"
        "TopicArn\narn:aws:sns:eu-west-1:291180941288:A1G8446IYHA4MRAOPZVV2STP28T\nType\nNotification\n"
    )
    envelope = read(fields)
    assert envelope.signed_text == expected.encode()
    assert envelope.timestamp == 1_498_673_708_017
    assert (envelope.partition, envelope.region, envelope.aws_account) == ("aws", "eu-west-1", "291180941288")
    assert (envelope.signature, envelope.signature_version) == (bytes(256), 1)
    del fields["Subject"]
    assert read(fields).signed_text == expected.replace("Subject\nMy First Message\n", "").encode()


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_the_signed_text_of_a_confirmation_is_pinned(kind: str) -> None:
    """Seven names and values, with SubscribeURL and Token, and never a Subject."""
    token = "0a" * 112
    topic = "arn:aws:sns:us-west-2:123456789012:MyTopic"
    url = f"https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token={token}"
    fields = {
        "Type": kind,
        "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "Token": token,
        "TopicArn": topic,
        "Subject": "ignored",
        "Message": "You have chosen",
        "SubscribeURL": url,
        "Timestamp": "2012-04-26T20:45:04.751Z",
        "SignatureVersion": "2",
        "Signature": "A" * 342 + "==",
        "SigningCertURL": "",
    }
    assert (
        read(fields).signed_text
        == (
            "Message\nYou have chosen\nMessageId\n165545c9-2a5c-472c-8df2-7ff2be2b3b1b\n"
            f"SubscribeURL\n{url}\nTimestamp\n2012-04-26T20:45:04.751Z\nToken\n{token}\n"
            f"TopicArn\n{topic}\nType\n{kind}\n"
        ).encode()
    )


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], {}, ["Notification"], "…missing…"])
def test_a_required_field_is_there_and_is_a_text(name: str, value: object) -> None:
    """Nothing is ever signed as `None`, and no type is coerced."""
    fields = SIGNER.envelope()
    fields[name] = value
    if value == "…missing…":
        del fields[name]
    assert reason_of(fields).startswith("bad_")


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
@pytest.mark.parametrize("name", CONFIRMATION)
@pytest.mark.parametrize("value", [None, 1, [], "", "…missing…"])
def test_a_confirmation_has_token_and_address(kind: str, name: str, value: object) -> None:
    """Both are signed, so both are required."""
    fields = SIGNER.envelope(kind=kind)
    fields[name] = value
    if value == "…missing…":
        del fields[name]
    assert reason_of(fields) in ("bad_token", "bad_subscribe_url")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Type", "notification"),
        ("Type", "Foo"),
        ("Type", "Notification\n"),
        ("Type", ""),
        ("MessageId", "17BF00C4-8bf8-5f70-9f25-51097f9450e5"),
        ("MessageId", "17bf00c4-8bf8-5f70-9f25-51097f9450e5\n"),
        ("MessageId", "real\nMessageId\nreal"),
        ("MessageId", "17bf00c48bf85f709f2551097f9450e5"),
        ("TopicArn", "topic"),
        ("TopicArn", TOPIC + "\n"),
        ("TopicArn", TOPIC + "\nType\nNotification"),
        ("TopicArn", TOPIC + ".fifo"),
        ("TopicArn", "arn:aws:sns:eu-west-2:12345:name"),
        ("TopicArn", "arn:evil:sns:us-east-1:291180941288:name"),
        ("TopicArn", "arn:aws:sqs:us-east-1:291180941288:name"),
        ("TopicArn", "arn:aws:sns:us-east-1:\u0661\u0661\u0661180941288:name"),
        ("TopicArn", "arn:aws:sns:us-east-1:291180941288:a:b"),
        ("TopicArn", "arn:aws:sns:us-east-1:291180941288:" + "a" * 257),
        ("Timestamp", "2026-01-01T00:00:00Z"),
        ("Timestamp", "2026-01-01T00:00:00.000+00:00"),
        ("Timestamp", "2026-01-01T00:00:00.000Z\n"),
        ("Timestamp", "2026-01-01 00:00:00.000Z"),
        ("Timestamp", "2026-02-30T00:00:00.000Z"),
        ("Timestamp", "2026-01-01T00:00:61.000Z"),
        ("Timestamp", "0000-01-01T00:00:00.000Z"),
        ("Timestamp", "\u0662026-01-01T00:00:00.000Z"),
        ("SignatureVersion", "3"),
        ("SignatureVersion", "0"),
        ("SignatureVersion", "1 "),
        ("SignatureVersion", "01"),
        ("SignatureVersion", "\u0661"),
        ("SignatureVersion", "12"),
        ("SignatureVersion", ""),
        ("Subject", None),
        ("Subject", 1),
        ("Subject", "x" * 101),
        ("Subject", "a\nTimestamp\nb"),
        ("Subject", "a\x7fb"),
        ("Subject", "a\u2028b"),
    ],
)
def test_every_short_field_has_one_form(name: str, value: object) -> None:
    """A line feed, another case, another digit: no field that is signed leaves room for it."""
    assert reason_of({**SIGNER.envelope(), name: value}).startswith("bad_")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:100] + "\n" + text[100:],
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text[:100] + "*" + text[101:],
        lambda text: "-_" + text[2:],
        lambda text: text.rstrip("="),
        lambda text: text + "=",
        lambda text: text[:-3] + "B==",
        lambda text: text[:-4] + "====",
        lambda _: "",
        lambda _: "A" * 1_000_000,
        lambda _: "XXXX",
        lambda _: "A" * 172,
        lambda _: "A" * 340,
        lambda _: "A" * 688,
    ],
)
def test_a_signature_has_one_base64_text(spoil: Any) -> None:
    """Junk, the other alphabet, missing padding, spare bits and other lengths are not what SNS sends."""
    fields = SIGNER.envelope()
    fields["Signature"] = spoil("A" * 342 + "==")
    assert reason_of(fields) in ("bad_signature_encoding", "bad_signature_length")


@pytest.mark.parametrize(
    "change",
    [
        {"messageid": "x"},
        {"MESSAGEID": "x"},
        {"SigningCertUrl": "https://evil.example/x.pem"},
        {"UnsubscribeUrl": None},
        {"Me\u017f\u017fage": "x"},
        {"other": 1, "Other": 2},
    ],
)
def test_a_field_has_one_spelling(change: dict[str, Any]) -> None:
    """Case twins, and Lambda's spelling: a lenient reader would take the other value."""
    assert reason_of({**SIGNER.envelope(), **change}) == "field_spelling"


def test_lambda_spelling_alone_is_refused() -> None:
    """An envelope in the form that Lambda gets never comes over HTTP."""
    fields = SIGNER.envelope()
    fields["SigningCertUrl"] = fields.pop("SigningCertURL")
    assert reason_of(fields) == "field_spelling"


@pytest.mark.parametrize("name", [*REQUIRED, "UnsubscribeURL"])
def test_no_field_comes_twice(name: str) -> None:
    """Two readers of a duplicate key see two values."""
    fields = SIGNER.envelope()
    body = json.dumps(fields)[:-1] + f", {json.dumps(name)}: {json.dumps(fields[name])}}}"
    with pytest.raises(Malformed) as caught:
        read_envelope(body.encode())
    assert caught.value.reason == "duplicate_key"


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"1", b"[{}]"])
def test_the_top_is_an_object(body: bytes) -> None:
    """A raw message, or any other JSON, is no envelope."""
    with pytest.raises(Malformed) as caught:
        read_envelope(body)
    assert caught.value.reason == "not_an_object"


def test_headers_agree_with_the_body_where_they_are_there() -> None:
    """Headers are not signed: they can only contradict."""
    fields = SIGNER.envelope()
    assert read(fields, headers(fields)) == read(fields)
    for name, value in [
        ("x-amz-sns-message-type", "SubscriptionConfirmation"),
        ("x-amz-sns-message-id", "17bf00c4-8bf8-5f70-9f25-51097f9450e5"),
        ("x-amz-sns-topic-arn", TOPIC + "x"),
        ("x-amz-sns-topic-arn", ""),
    ]:
        assert reason_of(fields, {**headers(fields), name: value}) == "header_mismatch"


def test_raw_delivery_is_refused() -> None:
    """A raw message carries no signature at all."""
    with pytest.raises(Malformed) as caught:
        read_envelope(b'{"MerchantID": "x"}', {"x-amz-sns-rawdelivery": "true"})
    assert caught.value.reason == "raw_delivery"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&TopicArn={topic}&Token={token}",
        "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}x&Token={token}",
        "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token={token}",
        "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token={token}&x=1",
        "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token={token}\n",
        "https://sns.us-east-1.amazonaws.com@evil.example/?Action=ConfirmSubscription&TopicArn={topic}&Token={token}",
    ],
)
def test_a_subscribe_address_is_exactly_the_one_of_topic_and_token(url: str) -> None:
    """Another action, topic, region or host is refused before anything is verified."""
    fields = SIGNER.envelope(kind="SubscriptionConfirmation")
    fields["SubscribeURL"] = url.format(topic=TOPIC, token=fields["Token"])
    assert reason_of(fields) == "bad_subscribe_url"


@pytest.mark.parametrize("escaped", ['"\\ud800"', '"\\udfff x"', '"\\ud83d"'])
def test_half_a_surrogate_pair_is_unreadable(escaped: str) -> None:
    """It parses as JSON, and has no UTF-8 form that could have been signed."""
    body = json.dumps({**SIGNER.envelope(), "Message": "…"}, ensure_ascii=False).replace('"…"', escaped)
    with pytest.raises(Malformed) as caught:
        read_envelope(body.encode())
    assert caught.value.reason == "lone_surrogate"


def test_unsigned_fields_change_nothing() -> None:
    """UnsubscribeURL and MessageAttributes may say anything."""
    fields = SIGNER.envelope()
    changed = {**fields, "UnsubscribeURL": ["http://evil.example"], "MessageAttributes": {"a": {"b": None}}, "New": 1}
    assert read(changed) == read(fields)


def test_neither_repr_nor_error_shows_what_the_body_says() -> None:
    """Token and signature are secrets, and an unverified body proves nothing."""
    fields = SIGNER.envelope(kind="SubscriptionConfirmation")
    envelope = read(fields)
    assert fields["Token"] not in repr(envelope)
    assert fields["Signature"] not in repr(envelope)
    for name in (*REQUIRED, *CONFIRMATION):
        with pytest.raises(Malformed) as caught:
            read({**fields, name: {"needle-in-value": 1}})
        assert "needle" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_unreadable(body: bytes) -> None:
    """Nothing but `Malformed` escapes."""
    with pytest.raises(Malformed):
        read_envelope(body)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from(["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]),
    st.dictionaries(st.sampled_from([*REQUIRED, *CONFIRMATION, "Subject", "MessageAttributes"]) | st.text(), ANYTHING),
    st.sets(st.sampled_from([*REQUIRED, *CONFIRMATION])),
)
def test_any_mutation_is_an_envelope_or_unreadable(kind: str, changes: dict[str, Any], gone: set[str]) -> None:
    """Structured nonsense: right names, wrong values, missing parts."""
    fields = {**SIGNER.envelope(kind=kind, Signature="A" * 342 + "=="), **changes}
    for name in gone:
        fields.pop(name, None)
    try:
        read(fields)
    except Malformed:
        return


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=100),
)
def test_the_signed_text_is_what_sns_signs(message: str, subject: str | None) -> None:
    """Any message, NUL, non-BMP, U+2028 and all, however it is escaped, comes out as it was signed."""
    extra: dict[str, Any] = {} if subject is None else {"Subject": subject}
    fields = SIGNER.envelope(message, timestamp_ms=NOW, Signature="A" * 342 + "==", **extra)
    for text in (json.dumps(fields), json.dumps(fields, ensure_ascii=False), json.dumps(fields).replace("/", "\\/")):
        envelope = read_envelope(text.encode())
        assert envelope.signed_text == signed_text(fields)
        assert envelope.message == message
