"""Pure. Checks a certificate before it is used to verify SNS signatures.

SNS signs with ordinary public web certificates. The file at `SigningCertURL` holds one certificate in PEM and no chain.
Its name contains the MD5 of the DER bytes (true of every certificate seen since 2010; documented nowhere).
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from receiver.amazon.sns import regions
from receiver.errors import VerificationFailed

MAX_PEM: Final = 16 * 1024
"""Bytes; real ones have about 2 KB."""

SKEW_MS: Final = 5 * 60_000

_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n((?:[A-Za-z0-9+/=]{1,76}\r?\n){1,400})-----END CERTIFICATE-----[\r\n]{0,4}"
)
_SMALLEST_KEY, _LARGEST_KEY, _SMALLEST_EXPONENT = 2048, 8192, 65537


@dataclass(frozen=True, slots=True)
class SigningCertificate:
    """A certificate that may sign for SNS: an end entity's, with a sound RSA key. Name and dates are checked later."""

    name: str
    """MD5 of `der`, 32 lower-case hex digits: the expected file name."""
    dns_names: frozenset[str]
    not_before: int
    """ms since the epoch, UTC."""
    not_after: int
    public_key: RSAPublicKey
    der: bytes


def decode_pem(pem: bytes) -> bytes:
    """The DER bytes of exactly one PEM block with nothing around it.

    Raises `VerificationFailed` (`certificate_not_pem`) on anything else: many tools accept a block inside XML, or one
    of two blocks.
    """
    match = _PEM.fullmatch(pem) if len(pem) <= MAX_PEM else None
    try:
        if match is None:
            raise ValueError
        text = match[1].translate(None, b"\r\n")
        der = binascii.a2b_base64(text)
        if b64encode(der) != text:
            raise ValueError
    except ValueError as error:
        raise VerificationFailed(
            "The certificate file is not exactly one PEM block.", reason="certificate_not_pem"
        ) from error
    return der


def read_certificate(pem: bytes) -> SigningCertificate:
    """Parse the file that `SigningCertURL` names.

    Raises only `VerificationFailed`, with a reason `certificate_…`: not one PEM block, not X.509 v3, not RSA of 2048 to
    8192 bits with an odd exponent from 65537, a certificate authority, or not for use by a web server.
    """
    return read_der(decode_pem(pem))


def read_der(der: bytes) -> SigningCertificate:
    """The same for DER bytes."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        extensions = certificate.extensions
        names = _dns_names(certificate, extensions)
        dates = _milliseconds(certificate.not_valid_before_utc), _milliseconds(certificate.not_valid_after_utc)
        end_entity = _is_end_entity(extensions)
        for_servers = _is_for_servers(extensions)
        version = certificate.version
    # The bytes are hostile, and the library rejects them in many ways (ValueError, UnsupportedAlgorithm,
    # DuplicateExtension, deprecation warnings under -W error, ...). Each of them means the same here.
    except Exception as error:
        raise VerificationFailed("The certificate cannot be read.", reason="certificate_unreadable") from error
    if version is not x509.Version.v3:
        raise VerificationFailed("The certificate is not X.509 version 3.", reason="certificate_version")
    if not isinstance(key, RSAPublicKey) or not _is_sound(key):
        raise VerificationFailed(
            "The certificate's key is not RSA of 2048 to 8192 bits.", reason="certificate_weak_key"
        )
    if not end_entity:
        raise VerificationFailed("The certificate is a certificate authority's.", reason="certificate_is_ca")
    if not for_servers:
        raise VerificationFailed("The certificate is not for a server's signatures.", reason="certificate_wrong_use")
    return SigningCertificate(file_hash(der), names, *dates, key, der)


def file_hash(der: bytes) -> str:
    """The 32 hex digits in the certificate's file name."""
    return hashlib.md5(der, usedforsecurity=False).hexdigest()


def check_certificate(certificate: SigningCertificate, partition: str, region: str, at: int, now: int) -> None:
    """Check that the certificate names SNS in that region, and is valid at the message's time or now (ms), with a
    tolerance of 5 minutes.

    A notification that is redelivered for days can outlive its certificate. A message older than its certificate was
    signed again: SNS repeats it with its original `Timestamp`, but with the current certificate. Raises
    `VerificationFailed`.
    """
    if regions.signing_name(partition, region) not in certificate.dns_names:
        raise VerificationFailed(
            "The certificate bears another name than SNS of that region.", reason="certificate_wrong_name"
        )
    if not (_is_valid(certificate, at) or _is_valid(certificate, now)):
        raise VerificationFailed(
            "The certificate was not valid when the message was signed, and is not valid now.",
            reason="certificate_dates",
        )


def _is_valid(certificate: SigningCertificate, at: int) -> bool:
    return certificate.not_before - SKEW_MS <= at <= certificate.not_after + SKEW_MS


def _is_sound(key: RSAPublicKey) -> bool:
    exponent = key.public_numbers().e
    return _SMALLEST_KEY <= key.key_size <= _LARGEST_KEY and exponent >= _SMALLEST_EXPONENT and exponent % 2 == 1


def _dns_names(certificate: x509.Certificate, extensions: x509.Extensions) -> frozenset[str]:
    """The subject alternative names, or the common name if there are none (certificates before 2015)."""
    try:
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return frozenset(str(attribute.value) for attribute in attributes)
    return frozenset(alternatives.get_values_for_type(x509.DNSName))


def _is_end_entity(extensions: x509.Extensions) -> bool:
    try:
        return not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return True


def _is_for_servers(extensions: x509.Extensions) -> bool:
    """RFC 5280, 4.2.1.3 and 4.2.1.12: without the extension, any use is allowed."""
    try:
        if not extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return False
    except x509.ExtensionNotFound:
        pass
    try:
        uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in uses


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000
