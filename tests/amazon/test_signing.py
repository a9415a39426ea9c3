"""The request signature: canonical text against literals and the SDKs' own vectors, signatures against cryptography."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from receiver.amazon.signing import (
    Algorithm,
    Signer,
    canonical_path,
    canonical_query,
    canonical_request,
    signed_headers,
    string_to_sign,
)
from receiver.errors import ConfigurationError
from receiver.exchange import Request
from tests.kit.canonical import CASES, HOST, Canonical
from tests.kit.outside import sample

NOW = 1_563_119_580_000  # 20190714T155300Z

GET = Request(
    "GET",
    "https://pay-api.amazon.eu/sandbox/v2/refunds/S01-5105180-3221187-R022311",
    {
        "x-amz-pay-region": "eu",
        "accept": "application/json",
        "x-amz-pay-host": "pay-api.amazon.eu",
        "content-type": "application/json",
    },
)
POST = Request(
    "POST",
    "https://pay-api.amazon.com/v2/refunds",
    {
        "accept": "application/json",
        "content-type": "application/json",
        "x-amz-pay-host": "pay-api.amazon.com",
        "x-amz-pay-region": "na",
        "x-amz-pay-idempotency-key": "0123456789abcdef0123456789abcdef",
        "x-amz-pay-simulation-code": "Declined",
        "user-agent": "somebody",
    },
    b'{"chargeId":"S01-5105180-3221187-C056351"}',
)


@cache
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any, style: str = "PKCS8", passphrase: bytes = b"") -> bytes:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    found: bytes = key.private_bytes(
        serialization.Encoding.PEM, getattr(serialization.PrivateFormat, style), encryption
    )
    return found


def vectors(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(sample("signing.json").read_text())[name]
    return rows


def check(signed: Request, algorithm: Algorithm, salt_length: int) -> None:
    """Verify with cryptography alone; the text to sign is rebuilt here by hand."""
    match = re.fullmatch(
        r"(AMZN-PAY-RSASSA-PSS(?:-V2)?) PublicKeyId=([^,]+), SignedHeaders=([a-z;-]+), Signature=([A-Za-z0-9+/=]{344})",
        signed.headers["authorization"],
    )
    assert match is not None
    assert match[1] == algorithm
    lines = [signed.method, signed.url.split("/", 3)[3].join(["/", ""]), ""]
    lines += [f"{name}:{signed.headers[name]}" for name in match[3].split(";")]
    lines += ["", match[3], sha256(signed.body).hexdigest()]
    text = match[1] + "\n" + sha256("\n".join(lines).encode()).hexdigest()
    private_key().public_key().verify(
        base64.b64decode(match[4]),
        text.encode(),
        padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=salt_length),
        hashes.SHA256(),
    )


def test_the_canonical_get_is_this_text() -> None:
    """Method, path, empty query, sorted headers, blank line, their names, the hash of nothing."""
    dated = GET.with_headers(x_amz_pay_date="20190714T155300Z")
    assert canonical_request(dated, signed_headers(dated)) == (
        "GET\n"
        "/sandbox/v2/refunds/S01-5105180-3221187-R022311\n"
        "\n"
        "accept:application/json\n"
        "content-type:application/json\n"
        "x-amz-pay-date:20190714T155300Z\n"
        "x-amz-pay-host:pay-api.amazon.eu\n"
        "x-amz-pay-region:eu\n"
        "\n"
        "accept;content-type;x-amz-pay-date;x-amz-pay-host;x-amz-pay-region\n"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def test_the_canonical_post_signs_the_idempotency_key_and_nothing_else_of_the_callers() -> None:
    """Neither the simulation code nor the user agent is signed."""
    dated = POST.with_headers(x_amz_pay_date="20190714T155300Z")
    assert canonical_request(dated, signed_headers(dated)) == (
        "POST\n"
        "/v2/refunds\n"
        "\n"
        "accept:application/json\n"
        "content-type:application/json\n"
        "x-amz-pay-date:20190714T155300Z\n"
        "x-amz-pay-host:pay-api.amazon.com\n"
        "x-amz-pay-idempotency-key:0123456789abcdef0123456789abcdef\n"
        "x-amz-pay-region:na\n"
        "\n"
        "accept;content-type;x-amz-pay-date;x-amz-pay-host;x-amz-pay-idempotency-key;x-amz-pay-region\n"
        "BODY_HASH"
    ).replace("BODY_HASH", sha256(POST.body).hexdigest())


def test_the_string_to_sign_is_the_algorithm_and_the_hash() -> None:
    """The hash of the empty text, pinned."""
    assert string_to_sign(Algorithm.V2, "") == (
        "AMZN-PAY-RSASSA-PSS-V2\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("", "/"),
        ("//", "/"),
        ("///foo//", "/foo/"),
        ("sandbox/v2", "/sandbox/v2"),
        ("/ /foo", "/%20/foo"),
        ("/a%2fb", "/a%2Fb"),
        ("/%7Ea%41", "/~aA"),
        ("/ሴ", "/%E1%88%B4"),
        ("/%ff", "/%FF"),
    ],
)
def test_a_path_has_one_canonical_form(path: str, canonical: str) -> None:
    """Several slashes are one; RFC 3986 encoding, once."""
    assert canonical_path(path) == canonical


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("", ""),
        ("b=1&a=2", "a=2&b=1"),
        ("A.1=x&A.2=x&A.10=x", "A.1=x&A.10=x&A.2=x"),
        ("foo=aha&foo=Zoo", "foo=Zoo&foo=aha"),
        ("name", "name="),
        ("a=1+1&b=%20", "a=1%2B1&b=%20"),
        ("a=b=c&&", "a=b%3Dc"),
    ],
)
def test_a_query_is_sorted_in_byte_order_after_encoding(query: str, canonical: str) -> None:
    """Names first, then values; capitals before small letters; a plus sign is a plus sign."""
    assert canonical_query(query) == canonical


def test_white_space_in_header_values_is_collapsed() -> None:
    """Runs become one space, ends are trimmed."""
    request = Request("GET", "https://h/", {"accept": "  a \t b  "})
    assert "\naccept:a b\n" in canonical_request(request, ["accept"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path}?{case.canonical_query}"[:40])
def test_the_canonical_request_is_that_of_amazons_sdks(case: Canonical) -> None:
    """Text and string to sign, to the byte, in the spelling of both SDKs and with both algorithms."""
    for region, hashed in case.hashes:
        headers = case.headers(region)
        canonical = canonical_request(
            Request(case.method, f"https://{HOST}{case.path}?{case.query}", headers), list(headers)
        )
        assert canonical == case.text(region)
        for algorithm in Algorithm:
            assert string_to_sign(algorithm, canonical) == f"{algorithm}\n{hashed}"


def test_sdk_vectors_of_canonical_requests_and_strings_to_sign() -> None:
    """58 rows of the Java and .NET SDKs agree to the byte (two are the quirk of one SDK)."""
    rows = [row for row in vectors("string_to_sign") if row["plain_rfc3986_canonicaliser_agrees"]]
    assert len(rows) == 58
    for row in rows:
        query = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}"
            for name, values in row["parameters"].items()
            for value in values
        )
        request = Request(row["method"], f"{row['url']}?{query}", row["headers"], row["payload"].encode())
        canonical = canonical_request(request, row["headers"])
        assert canonical == row["canonicalRequest"], row["name"]
        assert string_to_sign(Algorithm(row["algorithm"]), canonical) == row["stringToSign"]


def test_sdk_vectors_of_paths() -> None:
    """The SDKs' canonical paths."""
    for row in vectors("canonical_path"):
        if not row["in"].startswith("http"):
            assert canonical_path(row["in"]) == row["out"]


def test_sdk_vectors_of_the_authorization_header() -> None:
    """Name, spaces and commas of the header are those of the Java SDK."""
    for row in vectors("authorization_header"):
        for algorithm in Algorithm:
            signed = Signer(row["publicKeyId"], pem(private_key()), algorithm).sign(POST, NOW)
            expected = row["expected"][algorithm].replace(row["signature"], "")
            assert signed.headers["authorization"].startswith(expected)


@pytest.mark.parametrize(("algorithm", "salt_length"), [(Algorithm.V1, 20), (Algorithm.V2, 32)])
@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
def test_signatures_verify_with_exactly_the_algorithms_salt(
    request_: Request, algorithm: Algorithm, salt_length: int
) -> None:
    """20 bytes in the first algorithm, 32 in the second; any other length is refused."""
    signed = Signer("SANDBOX-AEXAMPLE", pem(private_key()), algorithm).sign(request_, NOW)
    check(signed, algorithm, salt_length)
    for other in {0, 20, 32, 222} - {salt_length}:
        with pytest.raises(InvalidSignature):
            check(signed, algorithm, other)


def test_signing_adds_date_and_authorization_and_changes_nothing_else() -> None:
    """Address, body and the caller's headers stay as they were; the date is Amazon's basic form."""
    signed = Signer("LIVE-AEXAMPLE", pem(private_key())).sign(POST, NOW)
    assert (signed.method, signed.url, signed.body) == (POST.method, POST.url, POST.body)
    assert signed.headers["x-amz-pay-date"] == "20190714T155300Z"
    assert {**signed.headers, **POST.headers} == signed.headers
    assert set(signed.headers) - set(POST.headers) == {"x-amz-pay-date", "authorization"}


@given(body=st.binary(max_size=64), changed=st.binary(max_size=64))
def test_another_body_is_another_text(body: bytes, changed: bytes) -> None:
    """The hash is of exactly the bytes that are sent."""
    texts = {canonical_request(Request("POST", "https://h/", {}, one), []) for one in (body, changed)}
    assert len(texts) == len({body, changed})


@given(path=st.text(max_size=40), query=st.text(max_size=40))
def test_canonical_forms_are_stable(path: str, query: str) -> None:
    """Canonicalising what is canonical changes nothing, whatever the text."""
    once = canonical_path(path.encode("utf-8", "replace").decode())
    assert canonical_path(once) == once
    again = canonical_query(query.encode("utf-8", "replace").decode())
    assert canonical_query(again) == again


def public_pem() -> bytes:
    return (
        private_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


WRONG_KEYS: dict[str, Callable[[], bytes]] = {
    "is empty": lambda: b" \n",
    "is a public key": public_pem,
    "is a certificate": lambda: b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "is encrypted": lambda: pem(private_key(), passphrase=b"x"),
    "is encrypted: ": lambda: pem(private_key(), "TraditionalOpenSSL", b"x"),
    "has lost its line breaks": lambda: pem(private_key()).replace(b"\n", b"\\n"),
    "is in OpenSSH's format": lambda: pem(private_key(), "OpenSSH"),
    "is in DER": lambda: private_key().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ),
    "is not PEM": lambda: b"amazon-pay.pem",
    "Give the .pem file": lambda: b"Some notes.\nNo key is among them.\n",
    "is damaged": lambda: pem(private_key())[:600],
    "of the kind EC": lambda: pem(ec.generate_private_key(ec.SECP256R1())),
    "has 1024 bits": lambda: pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
}


@pytest.mark.parametrize("said", WRONG_KEYS)
def test_a_wrong_key_is_explained_in_a_sentence(said: str) -> None:
    """What was given instead, and the fix; never a byte of it."""
    with pytest.raises(ConfigurationError) as caught:
        Signer("LIVE-AEXAMPLE", WRONG_KEYS[said]())
    (sentence,) = caught.value.problems
    assert sentence.startswith("The private key ")
    assert said in sentence
    assert sentence.endswith((".", ")."))


def test_key_files_of_any_usual_making_are_read() -> None:
    """PKCS#8 and PKCS#1; Windows line ends; a byte order mark."""
    for text in (
        pem(private_key()),
        pem(private_key(), "TraditionalOpenSSL"),
        pem(private_key()).replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + pem(private_key()),
    ):
        check(Signer("LIVE-AEXAMPLE", text).sign(GET, NOW), Algorithm.V2, 32)


@pytest.mark.parametrize("public_key_id", ["", "LIVE A", "LIVE-A, SignedHeaders=accept", "LIVE-A\r\n", "ä", "A" * 129])
def test_a_wrong_public_key_id_is_a_configuration_error_beside_the_keys_own(public_key_id: str) -> None:
    """Both problems are reported at once."""
    with pytest.raises(ConfigurationError) as caught:
        Signer(public_key_id, b"")
    assert [problem.split(" is ")[0].split(" must ")[0] for problem in caught.value.problems] == [
        "The public key id",
        "The private key",
    ]


@given(st.binary(max_size=200))
def test_no_bytes_make_the_key_reader_fail_otherwise(text: bytes) -> None:
    """Any bytes are a configuration error."""
    with pytest.raises(ConfigurationError):
        Signer("LIVE-AEXAMPLE", text)
