"""The simulator's notifications: signed by the published rule, shaped like captured ones, and forged as promised."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from receiver.simulator.ids import Ids
from receiver.simulator.keys import Keys, SigningKey, make_signing_key
from receiver.simulator.notifications.forgeries import Forger, Forgery
from receiver.simulator.notifications.notices import Envelope, Publisher, refund_message, sns_time, topic_arn
from tests.kit.clock import T0

REFUND = "S01-1234567-1234567-R012345"
TOPIC = "arn:aws:sns:us-east-1:291180941288:A3BXB0YN3XH17HA2SIMULATOR01"


def publisher(keys: Keys, version: int = 1) -> Publisher:
    return Publisher(TOPIC, keys.signing.private_key, keys.signing.url("us-east-1"), "sub", version)


@functools.cache
def stranger() -> SigningKey:
    return make_signing_key(T0)


def forger(keys: Keys, version: int = 1) -> Forger:
    return Forger(publisher(keys, version), "A2SIMULATOR01", stranger, Ids(lambda: 0.5).uuid)


def notice(keys: Keys, version: int = 1) -> Envelope:
    message = refund_message("A2SIMULATOR01", REFUND, "nid")
    return publisher(keys, version).publish(message, "17bf00c4-8bf8-5f70-9f25-51097f9450e5", T0)


def verifies(fields: Mapping[str, str], keys: Keys) -> bool:
    """AWS's rule, written out for a Notification and a SubscriptionConfirmation."""
    names = ["Message", "MessageId", "Timestamp", "TopicArn", "Type"]
    if fields["Type"] == "SubscriptionConfirmation":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(name + "\n" + fields[name] + "\n" for name in names).encode()
    digest = {"1": hashes.SHA1(), "2": hashes.SHA256()}[fields["SignatureVersion"]]
    public = x509.load_pem_x509_certificate(keys.signing.pem.encode()).public_key()
    assert isinstance(public, RSAPublicKey)
    try:
        public.verify(base64.b64decode(fields["Signature"], validate=True), text, PKCS1v15(), digest)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("version", [1, 2])
def test_a_notification_verifies_with_its_certificate(keys: Keys, version: int) -> None:
    """SHA-1 for version 1, SHA-256 for version 2; the signature has 256 bytes."""
    fields = notice(keys, version).fields
    assert fields["SignatureVersion"] == str(version)
    assert len(fields["Signature"]) == 344
    assert verifies(fields, keys)
    for name in ("Message", "MessageId", "Timestamp", "TopicArn"):
        assert not verifies({**fields, name: fields[name] + "x"}, keys)


def test_the_envelope_has_the_nine_fields_of_captured_ones(keys: Keys) -> None:
    """And their forms."""
    fields = notice(keys).fields
    assert set(fields) == {
        "Type", "MessageId", "TopicArn", "Message", "Timestamp",
        "SignatureVersion", "Signature", "SigningCertURL", "UnsubscribeURL",
    }  # fmt: skip
    assert fields["Timestamp"] == "2025-10-09T08:53:20.000Z"
    assert sns_time(1_498_673_708_017) == "2017-06-28T18:15:08.017Z"
    assert fields["UnsubscribeURL"] == (
        f"https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={TOPIC}:sub"
    )
    assert json.loads(fields["Message"]) == {
        "MerchantID": "A2SIMULATOR01",
        "ObjectType": "REFUND",
        "ObjectId": REFUND,
        "ChargePermissionId": "S01-1234567-1234567",
        "NotificationType": "STATE_CHANGE",
        "NotificationId": "nid",
        "NotificationVersion": "V2",
    }


def test_the_post_has_the_headers_of_sns(keys: Keys) -> None:
    """text/plain, though it is JSON."""
    request = notice(keys).request("http://receiver/ipn")
    assert (request.method, request.url) == ("POST", "http://receiver/ipn")
    assert dict(request.headers) == {
        "content-type": "text/plain; charset=UTF-8",
        "user-agent": "Amazon Simple Notification Service Agent",
        "accept-encoding": "gzip,deflate",
        "x-amz-sns-message-type": "Notification",
        "x-amz-sns-message-id": "17bf00c4-8bf8-5f70-9f25-51097f9450e5",
        "x-amz-sns-topic-arn": TOPIC,
        "x-amz-sns-subscription-arn": f"{TOPIC}:sub",
    }
    assert json.loads(request.body) == notice(keys).fields


def test_the_certificate_is_like_those_of_sns(keys: Keys) -> None:
    """Named for SNS, no CA, for servers, RSA-2048, and its file is called by the MD5 of its DER bytes."""
    certificate = keys.signing.certificate
    pem = "".join(keys.signing.pem.splitlines()[1:-1])
    assert keys.signing.url("eu-west-1") == (
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-"
        + hashlib.md5(base64.b64decode(pem)).hexdigest()
        + ".pem"
    )
    assert certificate.version is x509.Version.v3
    assert certificate.subject.rfc4514_string() == "CN=sns.amazonaws.com"
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["sns.amazonaws.com"]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert [usage.dotted_string for usage in usages] == ["1.3.6.1.5.5.7.3.1"]
    assert keys.signing.private_key.key_size == 2048
    assert certificate.not_valid_before_utc.timestamp() * 1000 < T0 < certificate.not_valid_after_utc.timestamp() * 1000


def test_topics_are_named_as_in_captured_notifications() -> None:
    """Japan's is in us-west-2."""
    assert topic_arn("na", "live", "A2UOU742KT49DA") == "arn:aws:sns:us-east-1:291180941288:AGWSWK15IEJJ7A2UOU742KT49DA"
    assert (
        topic_arn("eu", "sandbox", "AOPZVV2STP28T") == "arn:aws:sns:eu-west-1:291180941288:A1G8446IYHA4MRAOPZVV2STP28T"
    )
    assert topic_arn("jp", "sandbox", "A3G30QK8ZESA0D").startswith("arn:aws:sns:us-west-2:")


PROPERLY_SIGNED = {
    Forgery.OTHER_TOPIC, Forgery.RESPLIT, Forgery.TOO_OLD, Forgery.FROM_FUTURE, Forgery.OTHER_MERCHANT,
    Forgery.CONFIRMATION, Forgery.RAW,
}  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", list(Forgery))
def test_forgeries_are_wrong_in_one_way_only(keys: Keys, kind: Forgery, version: int) -> None:
    """Those whose fault is not the signature have a good one; the others do not."""
    forged = forger(keys, version).forge(kind, REFUND, T0)
    assert verifies(forged.fields, keys) == (kind in PROPERLY_SIGNED)
    assert (forged.kind, forged.about) == (f"forged:{kind}", REFUND)
    assert (forged.fields["TopicArn"] != TOPIC) == (kind in (Forgery.OTHER_TOPIC, Forgery.CONFIRMATION))
    genuine_address = forged.fields["SigningCertURL"] == keys.signing.url("us-east-1")
    assert genuine_address == (kind is not Forgery.STRANGERS_ADDRESS)


def test_forgeries_do_what_their_names_say(keys: Keys) -> None:
    """The details that a receiver has to notice."""
    made = {kind: forger(keys).forge(kind, REFUND, T0) for kind in Forgery}
    assert ":666666666666:" in made[Forgery.OTHER_TOPIC].fields["TopicArn"]
    assert json.loads(made[Forgery.CHANGED_MESSAGE].fields["Message"])["ObjectId"] != REFUND
    assert made[Forgery.TOO_OLD].fields["Timestamp"] == "2025-09-23T08:53:20.000Z"
    assert made[Forgery.FROM_FUTURE].fields["Timestamp"] == "2025-10-09T09:53:20.000Z"
    assert json.loads(made[Forgery.OTHER_MERCHANT].fields["Message"])["MerchantID"] == "A1SOMEBODYELSE"
    assert "\nMessageId\n" in made[Forgery.RESPLIT].fields["MessageId"]
    assert json.loads(made[Forgery.RESPLIT].fields["Message"])["ObjectId"] == REFUND
    raw = made[Forgery.RAW].request("http://receiver/ipn")
    assert raw.headers["x-amz-sns-rawdelivery"] == "true"
    assert "Signature" not in json.loads(raw.body)
    trap = made[Forgery.CONFIRMATION].request("http://receiver/ipn")
    assert json.loads(trap.body)["SubscribeURL"].startswith("http://169.254.169.254/")
    assert "x-amz-sns-subscription-arn" not in trap.headers
    bucket = made[Forgery.STRANGERS_ADDRESS].fields["SigningCertURL"]
    assert bucket.startswith("https://sns.s3-us-west-2.amazonaws.com/SimpleNotificationService-")


def test_every_id_is_new_even_without_chance() -> None:
    """UUIDs of version 5, lower case."""
    ids = Ids(lambda: 0.0)
    made = {ids.uuid() for _ in range(1000)}
    assert len(made) == 1000
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one) for one in made
    )
