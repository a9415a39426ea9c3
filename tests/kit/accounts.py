"""An account for tests, with a merchant key made once per test process."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from receiver.amazon.account import Account, Environment
from receiver.amazon.calls import Endpoint, Region
from receiver.amazon.signing import Signer
from receiver.amazon.sns.topic import TopicPattern
from receiver.amazon.throttle import SANDBOX_THROTTLE
from receiver.ledger.polling import DEFAULT_POLL, PollPlan

MERCHANT = "A2ZABCDEFGHIJ"
TOPIC = f"arn:aws:sns:us-east-1:291180941288:A3BXB0YN3XH17H{MERCHANT}"


@cache
def merchant_key_pem() -> bytes:
    """A fresh 2048-bit RSA key, PKCS #8."""
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@cache
def merchant_signer() -> Signer:
    """Signs with that key; to read it takes a tenth of a second."""
    return Signer("SANDBOX-TESTKEY", merchant_key_pem())


def make_account(name: str = "us", **more: object) -> Account:
    """A sandbox account of one merchant; any field can be replaced."""
    fields: dict[str, object] = {
        "name": name,
        "merchant_id": MERCHANT,
        "environment": Environment.SANDBOX,
        "topics": (TopicPattern("arn:aws:sns:us-east-1:291180941288:*"),),
        "endpoint": Endpoint(Region.NA, "sandbox", "SANDBOX-TESTKEY"),
        "signer": merchant_signer(),
        "throttle": SANDBOX_THROTTLE,
        "poll": PollPlan.parse(DEFAULT_POLL),
    }
    return Account(**{**fields, **more})  # type: ignore[arg-type]
