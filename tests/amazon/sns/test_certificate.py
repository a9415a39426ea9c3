"""What a signing certificate must be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from receiver.amazon.sns.certificate import check_certificate, read_certificate, read_der
from receiver.amazon.sns.regions import SIGNING_NAMES, signing_name
from receiver.errors import VerificationFailed
from tests.kit.sns import NOW, SnsSigner, rsa_key

SIGNER = SnsSigner()
DAY = 86_400_000


def reason_of(pem: bytes) -> str:
    with pytest.raises(VerificationFailed) as caught:
        read_certificate(pem)
    return caught.value.reason


def test_a_certificate_of_amazons_shape_is_read() -> None:
    """Name, dates and key come out, and the hash that the file is named after."""
    certificate = read_certificate(SIGNER.pem)
    assert certificate.name == SIGNER.name
    assert certificate.dns_names == {"sns.amazonaws.com"}
    assert (certificate.not_before, certificate.not_after) == (NOW - 30 * DAY, NOW + 300 * DAY)
    assert certificate.der == SIGNER.der
    assert certificate.public_key.public_numbers() == rsa_key().public_key().public_numbers()


@pytest.mark.parametrize(
    "change",
    [
        {"eku": None},
        {"eku": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]},
        {"ca": None},
        {"san": None},
        {"key": rsa_key(3072)},
        {"issuer": "VeriSign Class 3 Secure Server CA - G2"},
    ],
)
def test_all_shapes_that_amazon_has_used_are_read(change: dict[str, Any]) -> None:
    """Client authentication stopped in 2025; the oldest have a common name alone; issuers changed four times."""
    assert read_certificate(SnsSigner(**change).pem).dns_names == {"sns.amazonaws.com"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key": rsa_key(1024)}, "certificate_weak_key"),
        ({"key": rsa_key(2048, 3)}, "certificate_weak_key"),
        ({"key": ec.generate_private_key(ec.SECP256R1())}, "certificate_weak_key"),
        ({"key": ed25519.Ed25519PrivateKey.generate()}, "certificate_weak_key"),
        ({"ca": True}, "certificate_is_ca"),
        ({"eku": [ExtendedKeyUsageOID.CLIENT_AUTH]}, "certificate_wrong_use"),
        ({"eku": [ExtendedKeyUsageOID.CODE_SIGNING]}, "certificate_wrong_use"),
        ({"digital_signature": False}, "certificate_wrong_use"),
    ],
)
def test_an_unfit_certificate_is_refused(change: dict[str, Any], reason: str) -> None:
    """Weak or other keys, authorities, and certificates for other uses."""
    assert reason_of(SnsSigner(**change).pem) == reason


def test_exponent_1_is_refused() -> None:
    """With exponent 1 every text signs itself; the library makes no such key, so the bytes are altered."""
    der = SIGNER.der.replace(b"\x02\x03\x01\x00\x01", b"\x02\x03\x00\x00\x01")
    assert der != SIGNER.der
    with pytest.raises(VerificationFailed):
        read_der(der)


def version_1() -> bytes:
    """A certificate without extensions, from which the version is cut out: absent means 1 (RFC 5280, 4.1.2.1)."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder(name, name, rsa_key().public_key(), 1)
    builder = builder.not_valid_before(datetime(2025, 1, 1, tzinfo=UTC)).not_valid_after(
        datetime(2027, 1, 1, tzinfo=UTC)
    )
    der = builder.sign(rsa_key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    outer, inner = int.from_bytes(der[2:4], "big"), int.from_bytes(der[6:8], "big")
    assert der[8:13] == b"\xa0\x03\x02\x01\x02"
    return b"\x30\x82" + (outer - 5).to_bytes(2, "big") + b"\x30\x82" + (inner - 5).to_bytes(2, "big") + der[13:]


def test_version_1_is_refused() -> None:
    """X.509 version 1 cannot say that it is not an authority's."""
    with pytest.raises(VerificationFailed) as caught:
        read_der(version_1())
    assert caught.value.reason == "certificate_version"


PRIVATE = rsa_key().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"<Response><v>" + SIGNER.pem + b"</v></Response>",
        SIGNER.pem + SIGNER.pem,
        b"\xef\xbb\xbf" + SIGNER.pem,
        b"\n" + SIGNER.pem,
        b"Bag Attributes\n" + SIGNER.pem,
        SIGNER.pem + b"x",
        SIGNER.pem.replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
        SIGNER.pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        PRIVATE,
        PRIVATE + SIGNER.pem,
        SIGNER.pem.replace(b"\n", b"\n\n"),
        SIGNER.pem.replace(b"M", b"*", 1),
        SIGNER.pem.replace(b"-----END", b"=\n-----END"),
        SIGNER.pem + b"\n" * 20_000,
        SIGNER.der,
        b"-----BEGIN CERTIFICATE-----\n" + b"A" * 64 * 1000 + b"\n-----END CERTIFICATE-----\n",
    ],
)
def test_a_file_is_exactly_one_pem_block(pem: bytes) -> None:
    """Nothing before, behind or between: many libraries pick a certificate out of anything."""
    assert reason_of(pem) == "certificate_not_pem"


def test_line_ends_of_either_kind_are_fine() -> None:
    """The file may have been through Windows."""
    assert read_certificate(SIGNER.pem.replace(b"\n", b"\r\n")).name == SIGNER.name
    assert read_certificate(SIGNER.pem.rstrip(b"\n")).name == SIGNER.name


@given(st.binary(max_size=400))
def test_any_bytes_are_a_certificate_or_not_proven(body: bytes) -> None:
    """Nothing but `VerificationFailed` escapes, from the PEM layer or from the DER layer."""
    with pytest.raises(VerificationFailed):
        read_certificate(body)
    with pytest.raises(VerificationFailed):
        read_der(body)


@given(st.integers(0, len(SIGNER.der) - 1), st.integers(0, 255))
def test_any_changed_byte_is_a_certificate_or_not_proven(place: int, value: int) -> None:
    """A certificate with one byte altered is read or refused, and has another name."""
    der = SIGNER.der[:place] + bytes([value]) + SIGNER.der[place + 1 :]
    try:
        assert (read_der(der).name == SIGNER.name) is (der == SIGNER.der)
    except VerificationFailed:
        assert der != SIGNER.der


@pytest.mark.parametrize(
    ("partition", "region", "name"),
    [
        ("aws", "us-east-1", "sns.amazonaws.com"),
        ("aws", "us-west-2", "sns.amazonaws.com"),
        ("aws", "eu-west-1", "sns.amazonaws.com"),
        ("aws", "eu-south-1", "sns-signing.eu-south-1.amazonaws.com"),
        ("aws-cn", "cn-north-1", "sns-cn-north-1.amazonaws.com.cn"),
        ("aws-us-gov", "us-gov-east-1", "sns-us-gov-west-1.amazonaws.com"),
        ("aws-eusc", "eusc-de-east-1", "sns-signing.eusc-de-east-1.amazonaws.eu"),
    ],
)
def test_the_name_is_the_regions(partition: str, region: str, name: str) -> None:
    """AWS's own table (aws-sdk-java-v2, SnsHostProvider): the name of one region does not do for another."""
    certificate = read_certificate(SnsSigner(common_name=name, san=[name]).pem)
    check_certificate(certificate, partition, region, NOW, NOW)
    for other_partition, other_region in SIGNING_NAMES:
        if signing_name(other_partition, other_region) != name:
            with pytest.raises(VerificationFailed) as caught:
                check_certificate(certificate, other_partition, other_region, NOW, NOW)
            assert caught.value.reason == "certificate_wrong_name"


@pytest.mark.parametrize(
    "change",
    [
        {"common_name": "evil.example", "san": ["evil.example"]},
        {"common_name": "sns.amazonaws.com", "san": ["evil.example"]},
        {"common_name": "evil.example", "san": None},
        {"common_name": "*.amazonaws.com", "san": ["*.amazonaws.com"]},
        {"common_name": "sns.us-east-1.amazonaws.com", "san": ["sns.us-east-1.amazonaws.com"]},
        {"common_name": "x", "san": ["sns.amazonaws.com.evil.example", "xsns.amazonaws.com"]},
    ],
)
def test_another_name_is_refused(change: dict[str, Any]) -> None:
    """Names are compared whole; a common name counts only where there is no alternative name."""
    with pytest.raises(VerificationFailed) as caught:
        check_certificate(read_certificate(SnsSigner(**change).pem), "aws", "us-east-1", NOW, NOW)
    assert caught.value.reason == "certificate_wrong_name"


def test_an_unknown_region_has_no_name() -> None:
    """A name is never guessed."""
    assert signing_name("aws", "us-east-9") is None
    with pytest.raises(VerificationFailed):
        check_certificate(read_certificate(SIGNER.pem), "aws", "us-east-9", NOW, NOW)


FIRST, LAST = NOW - 30 * DAY - 300_000, NOW + 300 * DAY + 300_000
"""The dates of `SIGNER`, with five minutes of skew at both ends."""


@pytest.mark.parametrize(
    ("at", "now"),
    [
        *((moment, moment) for moment in (FIRST, NOW, LAST)),
        (LAST, LAST + 14 * DAY),
        (FIRST - 14 * DAY, FIRST),
        (FIRST - 1, FIRST),
        (FIRST - 14 * DAY, LAST),
    ],
)
def test_a_certificate_is_valid_at_the_messages_time_or_now(at: int, now: int) -> None:
    """Delivered again after the certificate's end, or signed anew after a rotation: both are genuine."""
    check_certificate(read_certificate(SIGNER.pem), "aws", "us-east-1", at, now)


@pytest.mark.parametrize(
    ("at", "now"),
    [
        (FIRST - 1, FIRST - 1),
        (LAST + 1, LAST + 1),
        (LAST + 1, LAST + 14 * DAY),
        (FIRST - 14 * DAY, FIRST - 1),
        (FIRST - 1, LAST + 1),
    ],
)
def test_a_certificate_that_is_valid_at_neither_time_is_refused(at: int, now: int) -> None:
    """Not a millisecond more, and not because the two times lie on both sides of its dates."""
    with pytest.raises(VerificationFailed) as caught:
        check_certificate(read_certificate(SIGNER.pem), "aws", "us-east-1", at, now)
    assert caught.value.reason == "certificate_dates"
