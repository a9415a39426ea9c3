"""Pure. Signs requests to Amazon Pay: canonical request, string to sign, RSASSA-PSS.

The rules are those of Amazon's "Signing requests" page and its four SDKs. A signature takes about a millisecond of
processor time; callers that sign many requests can do it in a thread.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote, unquote_to_bytes, urlsplit

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from receiver.errors import ConfigurationError
from receiver.exchange import Request
from receiver.ledger.timestamps import format_basic

SIGNED_HEADERS = (
    "accept",
    "content-type",
    "x-amz-pay-date",
    "x-amz-pay-host",
    "x-amz-pay-idempotency-key",
    "x-amz-pay-region",
)
"""Signed if the request has them, as in every SDK. `x-amz-pay-simulation-code` must not be signed."""

PUBLIC_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""No document gives a pattern; this keeps the `Authorization` header unambiguous."""

MIN_KEY_BITS = 2048
"""The key size that Seller Central generates."""


class Algorithm(StrEnum):
    """The signature algorithms of Amazon Pay. They differ only in the length of the salt."""

    V1 = "AMZN-PAY-RSASSA-PSS"
    V2 = "AMZN-PAY-RSASSA-PSS-V2"

    @property
    def salt_length(self) -> int:
        """Bytes of PSS salt. Amazon refuses any other length."""
        return 20 if self is Algorithm.V1 else 32


class Signer:
    __slots__ = ("_key", "algorithm", "public_key_id")

    def __init__(self, public_key_id: str, private_key_pem: bytes, algorithm: Algorithm = Algorithm.V2) -> None:
        """Read an unencrypted PEM with an RSA key of at least 2048 bits.

        Raises `ConfigurationError` with a sentence per problem: what was found, and how to fix it.
        """
        key, found = _read_key(private_key_pem)
        problems = list(found)
        if not PUBLIC_KEY_ID.fullmatch(public_key_id):
            problems.insert(0, "The public key id must be the one that Seller Central shows, like LIVE-AEXAMPLE.")
        if key is None or problems:
            raise ConfigurationError(problems)
        self.public_key_id = public_key_id
        self.algorithm = algorithm
        self._key = key

    def sign(self, request: Request, now: int) -> Request:
        """The request with `x-amz-pay-date` (from `now`, ms UTC) and `authorization`.

        Signs those of `SIGNED_HEADERS` that the request has, and the exact bytes of its body.
        """
        dated = request.with_headers(x_amz_pay_date=format_basic(now))
        names = signed_headers(dated)
        text = string_to_sign(self.algorithm, canonical_request(dated, names))
        signature = b64encode(self._key.sign(text.encode(), self._padding, SHA256())).decode("ascii")
        return dated.with_headers(
            authorization=f"{self.algorithm} PublicKeyId={self.public_key_id}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )

    def verifies(self, signed: Request) -> bool:
        """Whether our public key verifies what `sign` returned, as Amazon will do with its copy."""
        text = string_to_sign(self.algorithm, canonical_request(signed, signed_headers(signed)))
        _, _, signature = signed.headers.get("authorization", "").rpartition("Signature=")
        try:
            self._key.public_key().verify(b64decode(signature), text.encode(), self._padding, SHA256())
        except (InvalidSignature, ValueError):
            return False
        return True

    def derived_key(self, purpose: str) -> bytes:
        """A 32-byte secret that only the holder of the private key can derive; different for each purpose."""
        private = self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return sha256(purpose.encode() + b"\0" + private).digest()

    @property
    def bits(self) -> int:
        """The size of the key in bits."""
        return self._key.key_size

    @property
    def _padding(self) -> PSS:
        return PSS(mgf=MGF1(SHA256()), salt_length=self.algorithm.salt_length)


def signed_headers(request: Request) -> list[str]:
    """The names of the headers to sign, sorted. Empty headers are left out, as the PHP SDK does."""
    return [name for name in SIGNED_HEADERS if request.headers.get(name, "").strip()]


def canonical_request(request: Request, signed_headers: Iterable[str]) -> str:
    """The text whose hash goes into the string to sign. `signed_headers` are lower-case names, in any order."""
    names = sorted(signed_headers)
    parts = urlsplit(request.url)
    return "\n".join(
        [
            request.method,
            canonical_path(parts.path),
            canonical_query(parts.query),
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in names),
            "",
            ";".join(names),
            sha256(request.body).hexdigest(),
        ]
    )


def string_to_sign(algorithm: Algorithm, canonical: str) -> str:
    """The text that RSASSA-PSS signs."""
    return f"{algorithm}\n{sha256(canonical.encode()).hexdigest()}"


ECHOED = re.compile(r"signing String \[\s*(AMZN-PAY-RSASSA-PSS(?:-V2)?)\s+([0-9a-f]{64})\s*\]")
"""Amazon's error message about a wrong signature contains the string that it expected to be signed."""


def diagnose(message: str, signed: Request, algorithm: Algorithm) -> str:
    """Why Amazon rejected our signature of this request: one sentence, or empty if its message does not say.

    The same text on both sides means that the key is wrong. A different text means that the request was changed on the
    way, or that we built it wrongly.
    """
    echoed = ECHOED.search(message)
    if echoed is None:
        return ""
    theirs = f"{echoed[1]}\n{echoed[2]}"
    ours = string_to_sign(algorithm, canonical_request(signed, signed_headers(signed)))
    if theirs == ours:
        return (
            "Amazon signs the same text as we do, so the key is wrong: private_key_file does not belong to "
            "public_key_id, or the key is for another region or environment."
        )
    if echoed[1] != algorithm:
        return f"Amazon reads the algorithm as {echoed[1]}, we signed with {algorithm}: a proxy changes the header."
    return (
        f"Amazon signs another text ({echoed[2][:12]}…) than we do ({ours[-64:-52]}…), so the key is not the cause: "
        "something between us and Amazon changes the request (path, signed headers or body)."
    )


def canonical_path(path: str) -> str:
    """The path with repeated slashes collapsed and each segment encoded by RFC 3986. An empty path becomes `/`.

    Existing encoding is decoded first, so that nothing is encoded twice (as in the Java SDK).
    """
    slashed = re.sub(r"/+", "/", f"/{path}")
    return "/".join(_encode(segment) for segment in slashed.split("/"))


def canonical_query(query: str) -> str:
    """The query encoded by RFC 3986 and sorted by encoded name, then encoded value, in byte order.

    A name without a value gets an empty one. Repeated names stay repeated. A plus sign is a plus sign.
    """
    pairs = (field.partition("=") for field in query.split("&") if field)
    encoded = sorted((_encode(name), _encode(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def _encode(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-._~")


@lru_cache(maxsize=32)
def _read_key(pem: bytes) -> tuple[RSAPrivateKey | None, Sequence[str]]:
    """The key, or what is wrong with the text. OpenSSL takes 0.1 s to check a key, and a start reads each key twice: to
    check the settings, and to make the account."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None, (_explain(pem),)
    if not isinstance(key, RSAPrivateKey):
        kind = type(key).__name__.removesuffix("PrivateKey").lstrip("_")
        return None, (f"The private key is of the kind {kind}; Amazon Pay accepts only RSA keys.",)
    if key.key_size < MIN_KEY_BITS:
        return None, (f"The private key has {key.key_size} bits; Amazon Pay's keys have {MIN_KEY_BITS} or more.",)
    return key, ()


def _explain(pem: bytes) -> str:
    """Why the text is not a usable private key, in one sentence that reveals nothing of it."""
    text = pem.decode("utf-8", "replace")
    begins = re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----", text)
    if not text.strip():
        return "The private key is empty: it must be the PEM file that was made with the public key."
    if "ENCRYPTED" in text:
        return "The private key is encrypted: give it without a passphrase (`openssl pkey -in KEY -out PLAIN`)."
    if any("CERTIFICATE" in name for name in begins):
        return "The private key is a certificate: give the PEM that begins with BEGIN PRIVATE KEY."
    if any("PUBLIC KEY" in name for name in begins) or text.startswith("ssh-"):
        return "The private key is a public key: give the other half of the pair, which begins with BEGIN PRIVATE KEY."
    if any("OPENSSH" in name for name in begins):
        return "The private key is in OpenSSH's format: convert it (`ssh-keygen -p -m PKCS8 -f KEY`)."
    if pem[:1] == b"\x30":
        return "The private key is in DER: convert it to PEM (`openssl pkey -inform DER -in KEY -out PEM`)."
    if not begins:
        return (
            "The private key is not PEM: it has no line -----BEGIN PRIVATE KEY-----. Give the .pem file that was made "
            "with the public key (private_key_file), or its whole text (private_key)."
        )
    if "\\n" in text or len(text.strip().splitlines()) < 3:
        return "The private key has lost its line breaks: PEM needs real ones, no spaces and no `\\n` in their place."
    return "The private key is damaged: its PEM cannot be read."
