"""Pure. AWS Signature Version 2, used by Flexible Payments: an HMAC over host, path and sorted query.

The rules are those of "Signature Version 2 Signing Process" in AWS's General Reference, which also publishes an example
with its signature. AWS itself has moved to Version 4; only the retired Flexible Payments needs this.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote, urlsplit

from receiver.errors import BadRequest

ACCESS_KEY_ID = re.compile(r"[A-Za-z0-9_]{16,128}")
"""IAM's API reference, AccessKey."""
SECRET_ACCESS_KEY = re.compile(r"[!-~]{1,256}")
"""No document gives a pattern; every secret seen is 40 characters of base64."""
DEFAULT_PORTS = {"http": 80, "https": 443}


class SignatureMethod(StrEnum):
    """The hash of the HMAC. AWS recommends SHA-256."""

    HMAC_SHA256 = "HmacSHA256"
    HMAC_SHA1 = "HmacSHA1"

    @property
    def digest(self) -> str:
        """The hash name for `hmac`."""
        return "sha1" if self is SignatureMethod.HMAC_SHA1 else "sha256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An AWS access key. Raises `BadRequest` that says what is wrong, without revealing the secret."""

    access_key_id: str
    secret_access_key: str = field(repr=False)

    def __post_init__(self) -> None:
        if not ACCESS_KEY_ID.fullmatch(self.access_key_id):
            raise BadRequest("AWSAccessKeyId has 16 to 128 letters and digits.", reason="bad_access_key_id")
        if not SECRET_ACCESS_KEY.fullmatch(self.secret_access_key):
            raise BadRequest(
                "The secret access key is one line of visible ASCII characters.", reason="bad_secret_access_key"
            )


def signed_url(
    url: str,
    parameters: Mapping[str, str],
    credentials: Credentials,
    method: SignatureMethod = SignatureMethod.HMAC_SHA256,
) -> str:
    """The URL of a signed GET: `url` (without a query), then `parameters` in signed order and their `Signature`.

    Adds AWSAccessKeyId, SignatureMethod and SignatureVersion.
    """
    whole = {
        **parameters,
        "AWSAccessKeyId": credentials.access_key_id,
        "SignatureMethod": method.value,
        "SignatureVersion": "2",
    }
    proof = signature(string_to_sign("GET", url, whole), credentials.secret_access_key, method)
    root = url if urlsplit(url).path else f"{url}/"
    return f"{root}?{canonical_query(whole)}&Signature={_encode(proof)}"


def string_to_sign(verb: str, url: str, parameters: Mapping[str, str]) -> str:
    """Verb, lower-case Host header, path (`/` if empty) and canonical query, one per line.

    The Host header contains the port only if it is not the scheme's default (RFC 9110 7.2); so does this text.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower().removesuffix(f":{DEFAULT_PORTS.get(parts.scheme)}")
    return "\n".join((verb, host, parts.path or "/", canonical_query(parameters)))


def canonical_query(parameters: Mapping[str, str]) -> str:
    """Names and values encoded by RFC 3986 (a space is %20, never +), sorted by name in byte order."""
    ordered = sorted(parameters.items(), key=lambda pair: pair[0].encode())
    return "&".join(f"{_encode(name)}={_encode(value)}" for name, value in ordered)


def signature(text: str, secret_access_key: str, method: SignatureMethod = SignatureMethod.HMAC_SHA256) -> str:
    """The HMAC of the text, base64."""
    return b64encode(hmac.digest(secret_access_key.encode(), text.encode(), method.digest)).decode("ascii")


def _encode(text: str) -> str:
    return quote(text, safe="-._~")
