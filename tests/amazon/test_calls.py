"""What we ask Amazon, byte for byte."""

from __future__ import annotations

import json

import pytest

from receiver.amazon.calls import Endpoint, Region, create_refund, get_charge, get_refund, key_environment
from receiver.errors import BadRequest
from receiver.exchange import Request
from receiver.ledger.money import Money
from tests.kit.outside import sample

REFUND_ID = "S01-5105180-3221187-R022311"
CHARGE_ID = "S01-5105180-3221187-C056351"
SANDBOX = Endpoint(Region.EU, "sandbox", "AEXAMPLE")
LIVE = Endpoint(Region.NA, "live", "LIVE-AEXAMPLE")


def test_get_refund_is_this_request() -> None:
    """Accept and content-type stand on a GET as well; the host is signed without scheme."""
    assert get_refund(SANDBOX, REFUND_ID) == Request(
        "GET",
        "https://pay-api.amazon.eu/sandbox/v2/refunds/S01-5105180-3221187-R022311",
        {
            "accept": "application/json",
            "content-type": "application/json",
            "x-amz-pay-host": "pay-api.amazon.eu",
            "x-amz-pay-region": "eu",
        },
        b"",
    )


def test_get_charge_names_the_charge() -> None:
    """A prefixed key: no environment in the path."""
    assert get_charge(LIVE, CHARGE_ID).url == f"https://pay-api.amazon.com/v2/charges/{CHARGE_ID}"


def test_create_refund_is_this_request() -> None:
    """The amount is a text; the idempotency key is a header; no soft descriptor unless given."""
    money = Money.parse("14", "USD")
    request = create_refund(LIVE, CHARGE_ID, money, "k" * 32)
    assert (request.method, request.url) == ("POST", "https://pay-api.amazon.com/v2/refunds")
    assert request.headers["x-amz-pay-idempotency-key"] == "k" * 32
    assert request.body == (
        b'{"chargeId":"S01-5105180-3221187-C056351","refundAmount":{"amount":"14.00","currencyCode":"USD"}}'
    )
    described = json.loads(create_refund(LIVE, CHARGE_ID, money, "k", "Shoes").body)
    assert described["softDescriptor"] == "Shoes"


def test_a_yen_amount_has_no_decimals() -> None:
    """The service may refuse one that has."""
    body = json.loads(create_refund(LIVE, CHARGE_ID, Money.parse("1200.00", "JPY"), "k").body)
    assert body["refundAmount"] == {"amount": "1200", "currencyCode": "JPY"}


@pytest.mark.parametrize("wrong", ["", "..", "a/b", "a?b", "a b", "x" * 65, "ä", "a\n"])
def test_an_id_that_is_not_safe_in_a_path_is_refused(wrong: str) -> None:
    """Before anything is sent."""
    with pytest.raises(BadRequest):
        get_refund(LIVE, wrong)
    with pytest.raises(BadRequest):
        get_charge(LIVE, wrong)


@pytest.mark.parametrize(("key", "descriptor"), [("", ""), ("k" * 33, ""), ("a b", ""), ("k", "x" * 17)])
def test_values_that_amazon_would_not_take_are_refused(key: str, descriptor: str) -> None:
    """A dashed UUID is 36 characters: over the limit."""
    with pytest.raises(BadRequest):
        create_refund(LIVE, CHARGE_ID, Money.parse("14", "USD"), key, descriptor)


@pytest.mark.parametrize(
    ("key", "environment", "path"),
    [
        ("LIVE-AEXAMPLE", "live", "/v2"),
        ("SANDBOX-AEXAMPLE", "sandbox", "/v2"),
        ("live-aexample", "live", "/v2"),
        ("Sandbox-AEXAMPLE", "sandbox", "/v2"),
        ("AEXAMPLE", "live", "/live/v2"),
        ("AEXAMPLE", "sandbox", "/sandbox/v2"),
        ("A-LIVE-EXAMPLE", "sandbox", "/sandbox/v2"),
    ],
)
def test_the_kind_of_key_decides_the_path(key: str, environment: str, path: str) -> None:
    """A prefix of any case takes the environment out of the path."""
    assert Endpoint(Region.NA, environment, key).base == f"https://pay-api.amazon.com{path}"
    assert Endpoint(Region.JP, environment, key).base == f"https://pay-api.amazon.jp{path}"
    assert Endpoint(Region.EU, environment, key).base == f"https://pay-api.amazon.eu{path}"


def test_a_prefix_binds_a_key_to_an_environment() -> None:
    """So that the settings can detect a key of the other environment."""
    assert [key_environment(key) for key in ("LIVE-A", "sandbox-a", "AEXAMPLE")] == ["live", "sandbox", None]


def test_sdk_vectors_of_addresses() -> None:
    """Base and full addresses of the PHP and Java SDKs (a trailing slash is the .NET dialect)."""
    rows = json.loads(sample("signing.json").read_text())
    for row in rows["base_url"] + rows["full_url"]:
        region = Region("na" if row["region"] == "us" else row["region"])
        base = Endpoint(region, row["environment"] or "live", row["publicKeyId"]).base
        expected = row.get("url", row.get("base_url", "") + "v2/").rstrip("/")
        assert f"{base}/{row.get('resource', '')}".rstrip("/") == expected


def test_an_address_of_ones_own_replaces_the_host_and_is_the_host_signed() -> None:
    """Scheme, host and port change, the path does not; the signed host has no port."""
    endpoint = Endpoint(Region.JP, "sandbox", "AEXAMPLE", "http://127.0.0.1:9100/")
    request = get_refund(endpoint, REFUND_ID)
    assert request.url == f"http://127.0.0.1:9100/sandbox/v2/refunds/{REFUND_ID}"
    assert (request.headers["x-amz-pay-host"], request.headers["x-amz-pay-region"]) == ("127.0.0.1", "jp")
