"""Standard Webhooks signatures, against published vectors and the PyPI library."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from receiver.errors import Malformed
from receiver.outbox.formats.standard_webhooks import sign, webhook_headers
from receiver.outbox.subscribers.secrets import format_secret, read_secret
from tests.outbox.examples import OTHER_SECRET, SECRET


@pytest.mark.parametrize(
    ("key", "message_id", "timestamp", "body", "signature"),
    [
        (
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "plJ3nmyCDGBKInavdOK15jsl",
            "msg_loFOjxBNrRLzqYUf",
            1_731_705_121,
            b'{"event_type":"ping","data":{"success":true}}',
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        ),
    ],
)
def test_the_signature_is_the_one_published(
    key: str, message_id: str, timestamp: int, body: bytes, signature: str
) -> None:
    """Two vectors that Svix publishes, computed once more with `openssl dgst -sha256 -mac HMAC`."""
    assert sign(base64.b64decode(key), message_id, timestamp, body) == signature


def test_every_key_signs_and_the_time_is_in_whole_seconds() -> None:
    """Signatures stand in one header with a space between, so that either secret verifies."""
    headers = webhook_headers([read_secret(SECRET), read_secret(OTHER_SECRET)], "evt_1", 1_614_265_330_999, b"{}")
    assert headers["webhook-id"] == "evt_1"
    assert headers["webhook-timestamp"] == "1614265330"
    first, second = headers["webhook-signature"].split(" ")
    assert first == sign(read_secret(SECRET), "evt_1", 1_614_265_330, b"{}")
    assert second == sign(read_secret(OTHER_SECRET), "evt_1", 1_614_265_330, b"{}")


@given(st.binary(min_size=24, max_size=64), st.text(st.characters(codec="utf-8")))
def test_the_library_signs_alike(key: bytes, text: str) -> None:
    """The PyPI library, given the same key and UTC time, writes the same signature."""
    body = json.dumps(text).encode()
    theirs = Webhook(format_secret(key)).sign("evt_1", datetime.fromtimestamp(1_614_265_330, UTC), body.decode())
    assert sign(key, "evt_1", 1_614_265_330, body) == theirs


@given(st.binary(min_size=24, max_size=64))
def test_a_secret_is_read_back_with_and_without_padding(key: bytes) -> None:
    """Some generators leave the padding out."""
    secret = format_secret(key)
    assert read_secret(secret) == key
    assert read_secret(secret.rstrip("=")) == key


@pytest.mark.parametrize(
    ("secret", "fault"),
    [
        ("", "does not begin with whsec_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
        ("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
        ("whsec_", "is too short: it holds 0 bytes"),
        (format_secret(b"x" * 23), "is too short: it holds 23 bytes"),
        (format_secret(b"x" * 65), "is too long: it holds 65 bytes"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_", "is not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", "is not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwA", "is not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LäLaSw", "is not base64"),
    ],
)
def test_a_bad_secret_is_explained_without_being_repeated(secret: str, fault: str) -> None:
    """What is wrong, the form that is wanted, and not a byte of the secret."""
    with pytest.raises(Malformed) as caught:
        read_secret(secret)
    assert fault in caught.value.detail
    assert "24 to 64 random bytes" in caught.value.detail
    assert "MfKQ" not in caught.value.detail


@given(st.text(st.characters()))
def test_reading_a_secret_fails_in_one_way_only(text: str) -> None:
    """Any text is a key or `Malformed`."""
    for secret in (text, f"whsec_{text}"):
        with contextlib.suppress(Malformed):
            assert 24 <= len(read_secret(secret)) <= 64
