"""Pure. Checks a Flexible Payments request's AWS Signature Version 2: a strict second implementation.

Written from AWS's page "Signature Version 2 Signing Process", and kept separate from the code that signs our requests.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from receiver.simulator.checks import Asked, read_date
from receiver.simulator.faults import Fault

ACCESS_KEY_ID = "AKIASIMULATOR0000001"
SECRET_ACCESS_KEY = "the/secret+of/the+simulator/FPS0000001=="  # noqa: S105 - known to everybody, opens the simulator alone
"""The secret of the only known access key."""

DIGESTS = {"HmacSHA256": "sha256", "HmacSHA1": "sha1"}
SKEW = 900.0
"""Seconds that a Timestamp may be off: AWS's 15 minutes."""

_FIELD = re.compile(r"(?:[!-$'-<>-~]|%[0-9A-Fa-f]{2})+=(?:[!-$'-~]|%[0-9A-Fa-f]{2})*")
_TIMESTAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{1,3})?Z", re.ASCII)


def check(
    asked: Asked, secrets: Mapping[str, str], now: int, skew: float = SKEW, *, strict: bool = False
) -> dict[str, str]:
    """The parameters, if the holder of a known key signed them at about `now` (ms); otherwise raises `Fault`.

    `secrets`: access key id → secret access key. `strict`: reject any date after `now`.
    """
    found = read_query(asked.query)
    for name in ("AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "Timestamp"):
        if name not in found:
            raise Fault(400, "MissingParameter", f"The request must contain the parameter {name}.", name)
    digest = DIGESTS.get(found["SignatureMethod"])
    if digest is None or found["SignatureVersion"] != "2":
        raise Fault(400, "InvalidParameterValue", "Signatures are of version 2, HmacSHA256 or HmacSHA1.", "method")
    secret = secrets.get(found["AWSAccessKeyId"])
    if secret is None:
        raise Fault(403, "InvalidClientTokenId", "There is no such access key.", "access_key_id")
    proof = found.pop("Signature")
    text = string_to_sign(asked, found)
    expected = base64.b64encode(hmac.new(secret.encode(), text.encode(), digest).digest())
    if not hmac.compare_digest(expected, proof.encode()):
        raise Fault(403, "SignatureDoesNotMatch", f"The string to sign should have been {text!r}.", "signature")
    _check_timestamp(found["Timestamp"], now, 0.0 if strict else skew, skew)
    return found


def read_query(query: str) -> dict[str, str]:
    """Name → value. A plus sign is a plus sign. Amazon's own example begins with an `&`, so empty fields are skipped.

    Raises `Fault` 400 for a field without `=`, a percent sign without two hex digits, a repeated name, or invalid
    UTF-8.
    """
    found: dict[str, str] = {}
    for field in filter(None, query.split("&")):
        if not _FIELD.fullmatch(field):
            raise Fault(400, "MalformedQueryString", "A field of the query is malformed.", "query")
        try:
            name, value = (unquote_to_bytes(part).decode() for part in field.split("=", 1))
        except UnicodeDecodeError:
            raise Fault(400, "MalformedQueryString", "The query is not UTF-8.", "query") from None
        if name in found:
            raise Fault(400, "MalformedQueryString", f"The parameter {name[:64]!r} comes twice.", "query")
        found[name] = value
    return found


def string_to_sign(asked: Asked, parameters: Mapping[str, str]) -> str:
    """The input of the HMAC: method, Host, path, and all parameters except Signature."""
    encoded = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in parameters.items())
    query = "&".join(f"{name}={value}" for name, value in encoded)
    return f"{asked.method}\n{asked.header('host').lower()}\n{asked.path or '/'}\n{query}"


def _check_timestamp(text: str, now: int, ahead: float, behind: float) -> None:
    at = read_date(_TIMESTAMP, text)
    if at is None:
        raise Fault(400, "InvalidParameterValue", "Timestamp is not like 2007-05-10T05:11:41Z.", "timestamp")
    if not -behind * 1000 <= at - now <= ahead * 1000:
        raise Fault(400, "RequestExpired", "Timestamp is more than 15 minutes off.", "date_skew")
