"""The simulator's check of request signatures: right ones pass, and every single fault is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote, urlsplit

import pytest

from receiver.amazon.calls import Endpoint, Region, create_refund, get_refund
from receiver.amazon.signing import Algorithm, Signer
from receiver.ledger.money import Money
from receiver.simulator.checks import Asked, Checks, canonical_request, string_to_sign
from receiver.simulator.faults import Fault
from receiver.simulator.keys import Keys, make_rsa_key
from tests.kit.canonical import CASES, Canonical
from tests.kit.clock import T0
from tests.kit.outside import sample
from tests.simulator.signer import V1, V2, signed

KEY_ID = "SANDBOX-AEXAMPLE"
PATH = "/v2/refunds"
BODY = b'{"chargeId":"S01-0000001-0000001-C000001"}'


@pytest.fixture
def checks(keys: Keys) -> Checks:
    return Checks({KEY_ID: keys.merchant_public_key}, "na")


def post(keys: Keys, *, body: bytes = BODY, path: str = PATH, key_id: str = KEY_ID, **options: object) -> Asked:
    """A Create Refund, signed by the tests' own signer."""
    options = {"at": T0, "idempotency_key": "k1", **options}
    headers = signed(keys.merchant, key_id, "POST", path, body, **options)  # type: ignore[arg-type]
    return Asked("POST", path, "", list(headers.items()), body)


def with_header(asked: Asked, name: str, value: str | None) -> Asked:
    """The same with a header changed or, if None, taken out."""
    rest = [(found, old) for found, old in asked.headers if found != name]
    return replace(asked, headers=rest if value is None else [*rest, (name, value)])


def refusal(checks: Checks, asked: Asked, now: int = T0) -> Fault:
    with pytest.raises(Fault) as caught:
        checks.check(asked, now)
    return caught.value


@pytest.mark.parametrize("algorithm", [V1, V2])
@pytest.mark.parametrize("skew", [-899_000, 0, 899_000])
def test_a_rightly_signed_request_is_accepted(checks: Checks, keys: Keys, algorithm: str, skew: int) -> None:
    """Both algorithms, up to a quarter of an hour off."""
    checks.check(post(keys, algorithm=algorithm), T0 + skew)


def test_get_needs_no_idempotency_key(checks: Checks, keys: Keys) -> None:
    """Only POST does."""
    headers = signed(keys.merchant, KEY_ID, "GET", f"{PATH}/S01", at=T0)
    checks.check(Asked("GET", f"{PATH}/S01", "", list(headers.items())), T0)


def test_the_query_is_signed_sorted(checks: Checks, keys: Keys) -> None:
    """Sent in one order, signed in byte order."""
    headers = signed(keys.merchant, KEY_ID, "GET", PATH, at=T0, query="A.10=x&A.2=b%20c&b=")
    checks.check(Asked("GET", PATH, "b&A.2=b%20c&A.10=x", list(headers.items())), T0)


@pytest.mark.parametrize("algorithm", [V1, V2])
@pytest.mark.parametrize("salt", [0, 19, 20, 21, 32, 222])
def test_any_other_salt_length_is_refused(checks: Checks, keys: Keys, algorithm: str, salt: int) -> None:
    """20 for the older algorithm, 32 for V2, exactly."""
    asked = post(keys, algorithm=algorithm, salt=salt)
    if salt == {V1: 20, V2: 32}[algorithm]:
        checks.check(asked, T0)
    else:
        fault = refusal(checks, asked)
        assert (fault.status, fault.reason_code, fault.word) == (401, "InvalidRequestSignature", "salt_length")


@pytest.mark.parametrize("now", [T0 - 901_000, T0 + 901_000])
def test_a_date_too_far_off_is_refused(checks: Checks, keys: Keys, now: int) -> None:
    """More than the allowed skew, early or late."""
    assert refusal(checks, post(keys), now).word == "date_skew"


@pytest.mark.parametrize(
    "name",
    ["accept", "content-type", "x-amz-pay-date", "x-amz-pay-host", "x-amz-pay-region", "x-amz-pay-idempotency-key"],
)
def test_every_required_header_has_to_be_there_and_signed(checks: Checks, keys: Keys, name: str) -> None:
    """Left out, empty, or sent but not signed: three refusals."""
    asked = post(keys)
    assert refusal(checks, with_header(asked, name, None)).reason_code == "MissingHeader"
    assert refusal(checks, with_header(asked, name, " ")).reason_code == "MissingHeaderValue"
    unsigned = refusal(checks, post(keys, leave_unsigned=name))
    assert (unsigned.reason_code, unsigned.word) == ("InvalidRequestSignature", "header_not_signed")


CHANGES: dict[str, tuple[Callable[[Asked], Asked], str]] = {
    "body": (lambda asked: replace(asked, body=asked.body + b" "), "signature"),
    "path": (lambda asked: replace(asked, path="/sandbox/v2/refunds"), "signature"),
    "slash at the end": (lambda asked: replace(asked, path="/v2/refunds/"), "signature"),
    "query": (lambda asked: replace(asked, query="a=b"), "signature"),
    "method": (lambda asked: replace(asked, method="PUT"), "signature"),
    "accept": (lambda asked: with_header(asked, "accept", "text/plain"), "signature"),
    "idempotency key": (lambda asked: with_header(asked, "x-amz-pay-idempotency-key", "k2"), "signature"),
    "region": (lambda asked: with_header(asked, "x-amz-pay-region", "eu"), "region"),
    "host": (lambda asked: with_header(asked, "x-amz-pay-host", "pay-api.amazon.eu"), "host"),
    "date": (lambda asked: with_header(asked, "x-amz-pay-date", "20260101T000000Z"), "date_skew"),
    "date form": (lambda asked: with_header(asked, "x-amz-pay-date", "yesterday"), "date_format"),
    "day": (lambda asked: with_header(asked, "x-amz-pay-date", "20261399T000000Z"), "date_format"),
    "twice": (lambda asked: replace(asked, headers=[*asked.headers, ("accept", "application/json")]), "header_twice"),
    "no authorization": (lambda asked: with_header(asked, "authorization", None), "header_missing"),
    "authorization": (lambda asked: with_header(asked, "authorization", "Bearer x"), "authorization_format"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_after_signing_is_refused(checks: Checks, keys: Keys, change: str) -> None:
    """Each change alone."""
    alter, word = CHANGES[change]
    assert refusal(checks, alter(post(keys))).word == word


def test_another_key_is_refused(checks: Checks, keys: Keys) -> None:
    """A signature of another key under a known id; and an unknown id."""
    other = replace(keys, merchant=make_rsa_key())
    assert refusal(checks, post(other)).word == "signature"
    unknown = refusal(checks, post(keys, key_id="SANDBOX-UNKNOWN"))
    assert (unknown.status, unknown.reason_code, unknown.word) == (401, "InvalidAuthentication", "public_key_id")


def test_the_other_algorithm_of_the_same_salt_is_refused(checks: Checks, keys: Keys) -> None:
    """The algorithm's name is part of what is signed."""
    asked = post(keys, algorithm=V1)
    relabelled = asked.header("authorization").replace(V1, V2, 1)
    assert refusal(checks, with_header(asked, "authorization", relabelled)).word == "signature"


def test_the_simulation_code_must_stay_out_of_the_signature(checks: Checks, keys: Keys) -> None:
    """Unsigned it passes, signed it does not."""
    checks.check(with_header(post(keys), "x-amz-pay-simulation-code", "AmazonRejected"), T0)
    assert refusal(checks, post(keys, sign_too="x-amz-pay-simulation-code")).word == "header_wrongly_signed"


@pytest.mark.parametrize("order", ["reversed", "doubled"])
def test_the_list_of_signed_headers_is_sorted_and_single(checks: Checks, keys: Keys, order: str) -> None:
    """As every SDK writes it."""
    asked = post(keys)
    value = asked.header("authorization")
    names = value.split("SignedHeaders=")[1].split(",")[0]
    wrong = ";".join(reversed(names.split(";"))) if order == "reversed" else f"accept;{names}"
    assert (
        refusal(checks, with_header(asked, "authorization", value.replace(names, wrong))).word == "signed_headers_order"
    )


@pytest.mark.parametrize("date", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z"])
def test_the_extended_date_of_one_sdk_is_read(checks: Checks, keys: Keys, date: str) -> None:
    """It gets as far as the skew: Node's SDK sends this form."""
    assert refusal(checks, with_header(post(keys), "x-amz-pay-date", date)).word == "date_skew"


def test_the_refusal_shows_the_string_to_sign_as_amazon_does(checks: Checks) -> None:
    """Pinned by hand: a developer compares the hash with his own."""
    asked = Asked(
        "POST",
        "/live/v2/checkoutSessions",
        headers=[
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("x-amz-pay-date", "20190923T231908Z"),
            ("x-amz-pay-host", "pay-api.amazon.com"),
            ("x-amz-pay-idempotency-key", "cllHyiNvS8cJ8Zas"),
            ("x-amz-pay-region", "na"),
            (
                "authorization",
                f"{V2} PublicKeyId={KEY_ID}, SignedHeaders=accept;content-type;x-amz-pay-date;x-amz-pay-host;"
                "x-amz-pay-idempotency-key;x-amz-pay-region, Signature=AAAA",
            ),
        ],
    )
    fault = refusal(checks, asked, 1_569_280_748_000)
    assert fault.message == (
        "Unable to verify signature, signing String [AMZN-PAY-RSASSA-PSS-V2\n"
        "46ca5d1f69a007bcdd8d21829830815005c75529504e9016fc14354aee0866c5]"
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path}?{case.canonical_query}"[:40])
def test_the_canonical_request_is_that_of_amazons_sdks(case: Canonical) -> None:
    """Text and string to sign, to the byte, as the Java and the .NET SDK have them."""
    for region, hashed in case.hashes:
        headers = case.headers(region)
        asked = Asked(case.method, quote(case.path, safe="/~"), case.query, list(headers.items()))
        canonical = canonical_request(asked, sorted(headers))
        assert canonical == case.text(region)
        for algorithm in (V1, V2):
            assert string_to_sign(algorithm, canonical) == f"{algorithm}\n{hashed}"


def test_every_vector_of_amazons_sdks_has_this_canonical_request() -> None:
    """The vectors of the official SDKs' unit tests, where they are at hand."""
    rows = json.loads(sample("signing.json").read_text())["string_to_sign"]
    vectors = [row for row in rows if row["plain_rfc3986_canonicaliser_agrees"]]
    assert len(vectors) > 50
    for vector in vectors:
        pairs = [(name, value) for name, values in vector["parameters"].items() for value in values]
        query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
        asked = Asked(
            vector["method"],
            quote(urlsplit(vector["url"]).path, safe="/~"),
            query,
            list(vector["headers"].items()),
            vector["payload"].encode(),
        )
        canonical = canonical_request(asked, sorted(vector["headers"]))
        assert canonical == vector["canonicalRequest"]
        assert string_to_sign(vector["algorithm"], canonical) == vector["stringToSign"]


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("override", [None, "http://127.0.0.1:9100"])
def test_the_services_own_signer_and_this_check_agree(
    checks: Checks, keys: Keys, algorithm: Algorithm, override: str | None
) -> None:
    """Signer and check were written independently, and the check accepts what the signer signs."""
    endpoint = Endpoint(Region.NA, "sandbox", KEY_ID, override)
    signer = Signer(KEY_ID, keys.merchant_private_key_pem, algorithm)
    charge = "S01-0000001-0000001-C000001"
    for request in (
        get_refund(endpoint, "S01-0000001-0000001-R000001"),
        create_refund(endpoint, charge, Money.parse("1.00", "USD"), "k1"),
    ):
        sent = signer.sign(request, T0)
        parts = urlsplit(sent.url)
        headers = [*sent.headers.items(), ("host", parts.netloc)]
        checks.check(Asked(sent.method, parts.path, parts.query, headers, sent.body), T0)
