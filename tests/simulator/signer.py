"""A third, tiny signer of Amazon Pay requests, written from the published rule with `cryptography` alone."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

SALT = {"AMZN-PAY-RSASSA-PSS": 20, "AMZN-PAY-RSASSA-PSS-V2": 32}
V1, V2 = SALT


def signed(
    key: RSAPrivateKey,
    key_id: str,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    at: int,
    algorithm: str = V2,
    salt: int | None = None,
    host: str = "pay-api.amazon.com",
    region: str = "na",
    idempotency_key: str = "",
    leave_unsigned: str = "",
    sign_too: str = "",
    query: str = "",
) -> dict[str, str]:
    """The headers of a signed request; each option makes one thing different."""
    headers = {
        "accept": "application/json",
        "content-type": "application/json",
        "x-amz-pay-date": datetime.fromtimestamp(at // 1000, UTC).strftime("%Y%m%dT%H%M%SZ"),
        "x-amz-pay-host": host,
        "x-amz-pay-region": region,
    }
    if idempotency_key:
        headers["x-amz-pay-idempotency-key"] = idempotency_key
    if sign_too:
        headers[sign_too] = "AmazonRejected"
    names = sorted(set(headers) - {leave_unsigned})
    canonical = f"{method}\n{path}\n{query}\n"
    canonical += "".join(f"{name}:{headers[name]}\n" for name in names)
    canonical += "\n" + ";".join(names) + "\n" + hashlib.sha256(body).hexdigest()
    text = f"{algorithm}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), SALT[algorithm] if salt is None else salt)
    signature = base64.b64encode(key.sign(text.encode(), pss, hashes.SHA256())).decode()
    headers["authorization"] = (
        f"{algorithm} PublicKeyId={key_id}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return headers


def private_key(pem: bytes) -> RSAPrivateKey:
    """The key in a PEM text."""
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, RSAPrivateKey)
    return key
