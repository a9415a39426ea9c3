"""Pure. Proves that an envelope is genuine, whether live or captured. The order of the checks:

    the caller          the account allows the topic
    check_claims        the certificate's address and the age; returns the certificate's file hash
    the caller          obtains the certificate: fetched, cached, or given
    prove               the certificate is SNS's and valid, the signature is right

The signature proves that SNS sent this text for this topic. SNS signs for every AWS customer with the same
certificates, so only the pinned `TopicArn` shows that it comes from Amazon Pay. No certificate may be fetched before
topic and claims are checked: otherwise a stranger could choose the address.
"""

from __future__ import annotations

import re
from base64 import b64decode
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from receiver.amazon.sns import known_answers, regions
from receiver.amazon.sns.certificate import SigningCertificate, check_certificate, read_certificate
from receiver.amazon.sns.envelope import Envelope
from receiver.errors import CertificateUnavailable, ConfigurationError, DatedInFuture, Unavailable, VerificationFailed

PAST_MS: Final = 15 * 86_400_000
"""Amazon's IPN page promises deliveries for 14 days."""

FUTURE_MS: Final = 5 * 60_000

_PADDING = PKCS1v15()
_HASHES: dict[int, HashAlgorithm] = {1: SHA1(), 2: SHA256()}  # noqa: S303 - SNS signs with SHA-1 by default


def check_claims(envelope: Envelope, now: int, past_ms: int = PAST_MS, future_ms: int = FUTURE_MS) -> str:
    """Check the claims of an envelope before its certificate is looked up. Returns the certificate's file hash.

    Raises like `check_address` and `check_age`.
    """
    name = check_address(envelope)
    check_age(envelope, now, past_ms, future_ms)
    return name


def prove(envelope: Envelope, certificate: SigningCertificate, now: int) -> None:
    """Prove that SNS signed the envelope with this certificate. Its file hash and claims must be checked already.

    Raises `VerificationFailed`, or `Unavailable` if this machine cannot verify.
    """
    check_certificate(certificate, envelope.partition, envelope.region, envelope.timestamp, now)
    check_signature(envelope, certificate)


@lru_cache(maxsize=64)
def _address(partition: str, region: str) -> re.Pattern[str]:
    host = re.escape(regions.host(partition, region))
    return re.compile(f"https://{host}/SimpleNotificationService-([0-9a-f]{{32}})\\.pem")


def check_address(envelope: Envelope) -> str:
    """Check that the certificate's address is the one of the topic's region. Returns its file hash, 32 hex digits.

    The address is compared as text and never parsed: URL parsers disagree on tabs, backslashes and user names.
    Raises `VerificationFailed` (`wrong_certificate_address`), or `CertificateUnavailable` (`unknown_region`) if our
    table lacks the region of an allowed topic.
    """
    if regions.signing_name(envelope.partition, envelope.region) is None:
        raise CertificateUnavailable("The topic's AWS region is not known to this version.", reason="unknown_region")
    match = _address(envelope.partition, envelope.region).fullmatch(envelope.signing_cert_url)
    if match is None:
        raise VerificationFailed("SigningCertURL is not the address of Amazon SNS.", reason="wrong_certificate_address")
    return match[1]


def read_address(url: str) -> tuple[str, str] | None:
    """(partition, file hash) of a certificate address in any known region; None if the text is not one."""
    for partition, region in regions.SIGNING_NAMES:
        if match := _address(partition, region).fullmatch(url):
            return partition, match[1]
    return None


def check_age(envelope: Envelope, now: int, past_ms: int = PAST_MS, future_ms: int = FUTURE_MS) -> None:
    """Check that the envelope claims to be signed within the last `past_ms`; `now` is ms.

    Raises `VerificationFailed` (`too_old`), or `DatedInFuture` if it is more than `future_ms` ahead.
    """
    if envelope.timestamp < now - past_ms:
        raise VerificationFailed("The notification is too old: Amazon would no longer deliver it.", reason="too_old")
    if envelope.timestamp > now + future_ms:
        raise DatedInFuture()


def check_signature(envelope: Envelope, certificate: SigningCertificate) -> None:
    """Verify RSA PKCS#1 v1.5 over the signed text, with the hash given by `SignatureVersion`.

    `SignatureVersion` itself is not signed, but changing it only makes the signature wrong. Raises `VerificationFailed`
    (`bad_signature`).
    """
    _verify(certificate.public_key, envelope.signature, envelope.signed_text, envelope.signature_version)


def _verify(key: RSAPublicKey, signature: bytes, text: bytes, version: int) -> None:
    try:
        key.verify(signature, text, _PADDING, _HASHES[version])
    except InvalidSignature as error:
        raise VerificationFailed("The signature is wrong.", reason="bad_signature") from error
    except UnsupportedAlgorithm as error:
        raise Unavailable("This machine's OpenSSL refuses the hash.", reason="hash_forbidden") from error


def self_test() -> None:
    """Check that known signatures, one for each version, verify, and fail for another text.

    Raises `ConfigurationError`. Some crypto policies forbid SHA-1 signatures. Then no notification of a topic with
    `SignatureVersion` 1 could be verified, and every Amazon Pay topic ever seen uses it.
    """
    key = read_certificate(known_answers.CERTIFICATE).public_key
    problems = []
    for version, signature in known_answers.SIGNATURES.items():
        name = _HASHES[version].name
        try:
            _verify(key, b64decode(signature), known_answers.TEXT, version)
        except (VerificationFailed, Unavailable):
            problems.append(
                f"RSA with {name} does not verify here, so SignatureVersion {version} cannot be judged: "
                "allow it in the system's crypto policy (OpenSSL's rh-allow-sha1-signatures, or DEFAULT:SHA1)."
            )
        try:
            _verify(key, b64decode(signature), known_answers.TEXT + b"\n", version)
        except (VerificationFailed, Unavailable):
            continue
        problems.append(f"RSA with {name} accepts a wrong signature on this machine: do not run the service here.")
    if problems:
        raise ConfigurationError(problems)
