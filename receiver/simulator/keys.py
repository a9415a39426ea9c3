"""Edge: the system's randomness. The simulator's keys: a self-issued signing certificate, and the merchant's key
pair."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SIGNER_NAME = "sns.amazonaws.com"
"""CN and SAN of the signing certificate in every region with topics of Amazon Pay."""

_BEFORE, _AFTER = timedelta(days=60), timedelta(days=335)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs notifications, and its certificate."""

    private_key: RSAPrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        """The certificate in the form that SNS serves: one PEM block."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def file_name(self) -> str:
        """`SimpleNotificationService-<md5 of the DER>.pem`, as all of SNS's signing certificates are named."""
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        return f"SimpleNotificationService-{hashlib.md5(der, usedforsecurity=False).hexdigest()}.pem"

    def url(self, region: str) -> str:
        """The `SigningCertURL` in an AWS region."""
        return f"https://sns.{region}.amazonaws.com/{self.file_name}"


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys of one simulator."""

    signing: SigningKey
    merchant: RSAPrivateKey
    """The client's half signs requests; the simulator only uses the public half."""

    @property
    def merchant_public_key(self) -> RSAPublicKey:
        """The half that Amazon would hold."""
        return self.merchant.public_key()

    @property
    def merchant_private_key_pem(self) -> bytes:
        """The half for the client's configuration, PKCS#8 as Seller Central provides it."""
        return private_pem(self.merchant)


def private_pem(key: RSAPrivateKey) -> bytes:
    """A private key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_keys(now: int) -> Keys:
    """New RSA-2048 keys, like Amazon's; the certificate is valid from 60 days before `now` (ms) to 335 days after."""
    return Keys(signing=make_signing_key(now), merchant=make_rsa_key())


def make_rsa_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def make_signing_key(now: int, *, common_name: str = SIGNER_NAME) -> SigningKey:
    """A new key with a self-issued certificate of the form that SNS uses, a DV web certificate."""
    key = make_rsa_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    at = datetime.fromtimestamp(now // 1000, UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _BEFORE)
        .not_valid_after(at + _AFTER)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return SigningKey(key, builder.sign(key, hashes.SHA256()))


def read_keys(signing_key: bytes, certificate: bytes, merchant_key: bytes) -> Keys:
    """Keys from three PEM texts; raises ValueError unless they are RSA keys and the certificate fits the first."""
    signing, merchant = (serialization.load_pem_private_key(pem, password=None) for pem in (signing_key, merchant_key))
    if not isinstance(signing, RSAPrivateKey) or not isinstance(merchant, RSAPrivateKey):
        raise ValueError("the keys are not RSA keys")
    found = x509.load_pem_x509_certificate(certificate)
    if found.public_key() != signing.public_key():
        raise ValueError("the certificate is not that of the signing key")
    return Keys(SigningKey(signing, found), merchant)
