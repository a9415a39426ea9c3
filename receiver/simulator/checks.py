"""Pure. Checks whether a request is signed as Amazon Pay requires: a strict second implementation of the signing rule.

Written from Amazon's page "Signing requests" and the behaviour of its four SDKs, and kept separate from the code that
signs our own requests: a simulator that shared it would share its mistakes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from receiver.simulator.faults import Fault

SALTS = {"AMZN-PAY-RSASSA-PSS": 20, "AMZN-PAY-RSASSA-PSS-V2": 32}
"""Bytes; the salt must have exactly this length."""

HOSTS = {"na": "pay-api.amazon.com", "eu": "pay-api.amazon.eu", "jp": "pay-api.amazon.jp"}
REGIONS = {"na": {"na", "us"}, "eu": {"eu", "de", "uk"}, "jp": {"jp"}}
"""Allowed values of `x-amz-pay-region`, in any case: the SDKs differ, and all of them work."""

REQUIRED = ("accept", "content-type", "x-amz-pay-date", "x-amz-pay-host", "x-amz-pay-region")
"""Headers that every SDK signs. For POST, the idempotency key too."""

IDEMPOTENCY_KEY = "x-amz-pay-idempotency-key"
NEVER_SIGNED = "x-amz-pay-simulation-code"

_AUTHORIZATION = re.compile(
    r"(?P<algorithm>AMZN-PAY-RSASSA-PSS(?:-V2)?) PublicKeyId=(?P<key>[A-Za-z0-9-]{1,64}), "
    r"SignedHeaders=(?P<signed>[a-z0-9;-]{1,1024}), Signature=(?P<signature>[A-Za-z0-9+/]{1,1024}={0,2})"
)
_DATE = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)T(\d\d):?(\d\d):?(\d\d)(?:\.\d{1,3})?Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Asked:
    """A received request. Header names are lower case, and a name may repeat. Path and query are not decoded."""

    method: str
    path: str
    query: str = ""
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""

    def header(self, name: str) -> str:
        """The value of a header; empty if it is missing."""
        return next((value for found, value in self.headers if found == name), "")


@dataclass(frozen=True, slots=True)
class Checks:
    """The rules of one simulator. `public_keys`: id → key. `skew`: seconds; Amazon's is not documented."""

    public_keys: Mapping[str, RSAPublicKey]
    region: str
    skew: float = 900.0

    def check(self, asked: Asked, now: int, *, strict: bool = False) -> None:
        """Return if the holder of a known key signed this at about `now` (ms); otherwise raise `Fault`.

        `strict`: reject any date after `now`.
        """
        parts = _AUTHORIZATION.fullmatch(asked.header("authorization"))
        if parts is None:
            raise _bad_authorization(asked)
        names = _signed_names(asked, parts["signed"])
        text = string_to_sign(parts["algorithm"], canonical_request(asked, names))
        self._check_date(asked.header("x-amz-pay-date"), text, now, strict=strict)
        self._check_place(asked)
        key = self.public_keys.get(parts["key"])
        if key is None:
            raise Fault(401, "InvalidAuthentication", f"Unknown public key id '{parts['key']}'.", "public_key_id")
        _check_signature(key, parts["signature"], text, SALTS[parts["algorithm"]])

    def _check_date(self, date: str, text: str, now: int, *, strict: bool) -> None:
        at = read_date(_DATE, date)
        if at is None:
            raise Fault(400, "InvalidHeaderValue", "x-amz-pay-date is not like 20190714T155300Z.", "date_format")
        if strict and at > now:
            message = f"The value {date} provided for x-amz-pay-date should not be in future"
            raise Fault(400, "InvalidHeaderValue", message, "date_future")
        if abs(at - now) > self.skew * 1000:
            raise _unverified(text, "date_skew")

    def _check_place(self, asked: Asked) -> None:
        # A client that is pointed at the simulator may name Amazon's host, or the host that it really connects to.
        own = asked.header("host")
        if asked.header("x-amz-pay-host") not in {HOSTS[self.region], own, own.partition(":")[0]}:
            raise Fault(400, "InvalidHeaderValue", f"x-amz-pay-host is not {HOSTS[self.region]}.", "host")
        if asked.header("x-amz-pay-region").lower() not in REGIONS[self.region]:
            raise Fault(400, "InvalidHeaderValue", f"x-amz-pay-region is not {self.region}.", "region")


def read_date(pattern: re.Pattern[str], text: str) -> int | None:
    """A date in ms, from year to second as the groups of the pattern; None if it is none."""
    found = pattern.fullmatch(text)
    try:
        return int(datetime(*map(int, found.groups()), tzinfo=UTC).timestamp()) * 1000 if found else None  # type: ignore[misc,arg-type]  # every group of the pattern is there
    except ValueError:
        return None


def canonical_request(asked: Asked, signed: Sequence[str]) -> str:
    """Method, path, query, signed headers, their names, and the hash of the body; without a final line feed."""
    headers = "".join(f"{name}:{' '.join(asked.header(name).split())}\n" for name in signed)
    return "\n".join(
        (
            asked.method,
            canonical_path(asked.path),
            canonical_query(asked.query),
            headers,
            ";".join(signed),
            hashlib.sha256(asked.body).hexdigest(),
        )
    )


def string_to_sign(algorithm: str, canonical: str) -> str:
    """The algorithm's name, followed by the hash of the canonical request on the next line."""
    return f"{algorithm}\n{hashlib.sha256(canonical.encode()).hexdigest()}"


def canonical_path(path: str) -> str:
    """Repeated slashes become one; each segment is encoded by RFC 3986; an empty path is `/`."""
    segments = [_encode(segment) for segment in path.split("/") if segment]
    closing = "/" if path.endswith("/") and segments else ""
    return "/" + "/".join(segments) + closing


def canonical_query(query: str) -> str:
    """Names and values encoded by RFC 3986, sorted by name and then value in byte order; an empty value becomes
    `name=`."""
    pairs = [part.partition("=") for part in query.split("&") if part]
    return "&".join(
        f"{name}={value}" for name, value in sorted((_encode(name), _encode(value)) for name, _, value in pairs)
    )


def _encode(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="")


def _signed_names(asked: Asked, text: str) -> list[str]:
    names = text.split(";")
    required = {*REQUIRED, IDEMPOTENCY_KEY} if asked.method == "POST" else {*REQUIRED}
    present = [name for name, _ in asked.headers]
    for name in sorted(required):
        if name not in present:
            raise Fault(400, "MissingHeader", f"The header {name} is missing.", "header_missing")
        if not asked.header(name).strip():
            raise Fault(400, "MissingHeaderValue", f"The header {name} has no value.", "header_empty")
    if names != sorted(set(names)) or "" in names:
        raise Fault(
            400, "InvalidHeaderValue", "SignedHeaders is not sorted, or names one twice.", "signed_headers_order"
        )
    wrong = (required - {*names}) or ({*names} & {NEVER_SIGNED}) or ({*names} - {*present})
    if wrong:
        seen = string_to_sign(
            asked.header("authorization").split(" ")[0], canonical_request(asked, _expected(asked, names))
        )
        raise _unverified(seen, "header_not_signed" if wrong <= required else "header_wrongly_signed")
    if any(present.count(name) > 1 for name in names):
        raise Fault(400, "InvalidHeaderValue", "A signed header came more than once.", "header_twice")
    return names


def _expected(asked: Asked, names: Sequence[str]) -> list[str]:
    post = {IDEMPOTENCY_KEY} if asked.method == "POST" else set()
    return sorted({name for name in names if asked.header(name)} - {NEVER_SIGNED} | {*REQUIRED} | post)


def _check_signature(key: RSAPublicKey, text: str, signed: str, salt: int) -> None:
    try:
        signature = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise _unverified(signed, "signature_encoding") from None
    if _fits(key, signature, signed, PSS(MGF1(SHA256()), salt)):
        return
    any_salt = _fits(key, signature, signed, PSS(MGF1(SHA256()), PSS.AUTO))
    raise _unverified(signed, "salt_length" if any_salt else "signature")


def _fits(key: RSAPublicKey, signature: bytes, signed: str, padding: PSS) -> bool:
    try:
        key.verify(signature, signed.encode(), padding, SHA256())
    except InvalidSignature:
        return False
    return True


def _unverified(text: str, word: str) -> Fault:
    return Fault(401, "InvalidRequestSignature", f"Unable to verify signature, signing String [{text}]", word)


def _bad_authorization(asked: Asked) -> Fault:
    if not asked.header("authorization"):
        return Fault(400, "MissingHeader", "The header authorization is missing.", "header_missing")
    return Fault(
        400,
        "InvalidHeaderValue",
        "authorization is not '<algorithm> PublicKeyId=<id>, SignedHeaders=<a;b>, Signature=<base64>'.",
        "authorization_format",
    )
