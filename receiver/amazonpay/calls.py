"""Pure. Get Refund, Get Charge and Create Refund as requests, and their answers as values.

`answers.py` judges an answer by its HTTP class before anything is read here. Reading is tolerant of what is absent
(null, or no such key) and of keys nobody told us about; what is there and garbled makes the whole answer
unintelligible, because nothing about money is guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

from receiver.amazonpay.answers import WORD, JsonObject, clean, judge, request_id_of, unintelligible
from receiver.errors import AmazonUnknown, BadRequest, Unreadable
from receiver.exchange import Request, Response
from receiver.ledger.allowance import Charge
from receiver.ledger.refund import ALIASES, REFUND_ID, Money, Observation, parse_time

IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9_-]{1,32}")
"""Amazon's idempotency page. A UUID with its dashes is too long: strip them."""

MAX_SOFT_DESCRIPTOR = 16

Value = TypeVar("Value")


class Region(StrEnum):
    """The three regions of Amazon Pay: Americas, Europe with the United Kingdom, Japan."""

    NA = "na"
    EU = "eu"
    JP = "jp"


HOSTS = {
    Region.NA: "https://pay-api.amazon.com",
    Region.EU: "https://pay-api.amazon.eu",
    Region.JP: "https://pay-api.amazon.jp",
}


def key_environment(public_key_id: str) -> str | None:
    """The environment that a public key id is bound to by its prefix: "live", "sandbox", or None for one without."""
    upper = public_key_id.upper()
    return next((name for name in ("live", "sandbox") if upper.startswith(name.upper())), None)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an account's calls go. `environment` is "live" or "sandbox".

    `override` replaces scheme, host and port (a simulator, a proxy); the path below it is as ever. What is then
    signed as `x-amz-pay-host` is the host that is addressed, as Amazon's SDKs do with an address of one's own.
    """

    region: Region
    environment: str
    public_key_id: str
    override: str | None = None
    auth_token: str = field(default="", repr=False)
    """Delegated access: what a merchant gave to a solution provider; sent as `x-amz-pay-authtoken`."""

    @property
    def base(self) -> str:
        """The address up to the resource, without a slash at its end.

        The path holds the environment only for keys without a LIVE or SANDBOX prefix (Amazon's SDKs; with such a key
        and a `/sandbox/` path Amazon refuses the call).
        """
        root = (self.override or HOSTS[self.region]).rstrip("/")
        return f"{root}/v2" if key_environment(self.public_key_id) else f"{root}/{self.environment}/v2"

    @property
    def host(self) -> str:
        """The host name addressed, without a port: the value of `x-amz-pay-host`."""
        return urlsplit(self.base).hostname or ""


def get_refund(endpoint: Endpoint, refund_id: str) -> Request:
    """`GET /refunds/{id}`, not yet signed. Raises `BadRequest` for an id that is not safe in a path."""
    return _request(endpoint, "GET", f"refunds/{_id(refund_id, 'refund')}")


def get_charge(endpoint: Endpoint, charge_id: str) -> Request:
    """`GET /charges/{id}`, not yet signed. Raises `BadRequest` for an id that is not safe in a path."""
    return _request(endpoint, "GET", f"charges/{_id(charge_id, 'charge')}")


def create_refund(
    endpoint: Endpoint, charge_id: str, money: Money, idempotency_key: str, soft_descriptor: str = ""
) -> Request:
    """`POST /refunds`, not yet signed. The amount is a text with the currency's decimals: JPY has none.

    The body is the same bytes for the same values: Amazon refuses other values under a used idempotency key.
    Raises `BadRequest` for an id, a key or a soft descriptor (16 characters) that Amazon would not take.
    """
    if not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise BadRequest(
            "An idempotency key has 1 to 32 of the characters A-Z, a-z, 0-9, _ and -.", reason="bad_idempotency_key"
        )
    if len(soft_descriptor) > MAX_SOFT_DESCRIPTOR:
        raise BadRequest("A soft descriptor has at most 16 characters.", reason="bad_soft_descriptor")
    values: JsonObject = {
        "chargeId": _id(charge_id, "charge"),
        "refundAmount": {"amount": money.text, "currencyCode": money.currency_code},
    }
    if soft_descriptor:
        values["softDescriptor"] = soft_descriptor
    body = json.dumps(values, separators=(",", ":")).encode("ascii")
    return post_refund(endpoint, body, idempotency_key)


def post_refund(endpoint: Endpoint, body: bytes, idempotency_key: str) -> Request:
    """`POST /refunds` with a body that `create_refund` once made, not yet signed: a repetition sends the same bytes."""
    return _request(endpoint, "POST", "refunds", body).with_headers(x_amz_pay_idempotency_key=idempotency_key)


def read_refund(response: Response, refund_id: str | None = None) -> Observation:
    """The refund in an answer to Get Refund or Create Refund (`refund_id` None: any).

    Raises what `answers.judge` raises; and `AmazonUnknown` with `amazon_unintelligible` for a body that does not tell
    id and state, or `amazon_wrong_refund` for the answer about another refund.
    """
    read = _Reader(response, judge(response))
    found = read.required("refundId", _as_id)
    if refund_id not in (None, found):
        _wrong(response, "amazon_wrong_refund", "refund")
    status = read.part("statusDetails", "statusDetail")
    created_at = read.optional("creationTimestamp", parse_time, 0)
    reason_code = status.optional("reasonCode", _as_word, "")
    state = status.required("state", _as_word)
    return Observation(
        refund_id=found,
        state=ALIASES.get(state, state),
        updated_at=status.optional("lastUpdatedTimestamp", parse_time, created_at),
        charge_id=read.optional("chargeId", _as_id, ""),
        amount=read.optional("refundAmount", _as_money, None),
        reason_code="" if reason_code == "None" else reason_code,
        reason_description=status.optional("reasonDescription", _as_text, ""),
        soft_descriptor=read.optional("softDescriptor", _as_text, ""),
        created_at=created_at,
        environment=read.optional("releaseEnvironment", _as_word, ""),
    )


def read_charge(response: Response, charge_id: str | None = None) -> Charge:
    """The charge in an answer to Get Charge (`charge_id` None: any).

    Raises as `read_refund` does; the answer about another charge is `amazon_wrong_charge`.
    """
    read = _Reader(response, judge(response))
    found = read.required("chargeId", _as_id)
    if charge_id not in (None, found):
        _wrong(response, "amazon_wrong_charge", "charge")
    return Charge(
        charge_id=found,
        state=read.part("statusDetails", "statusDetail").required("state", _as_word),
        charge_permission_id=read.optional("chargePermissionId", _as_id, ""),
        captured=read.optional("captureAmount", _as_money, None),
        refunded=read.optional("refundedAmount", _as_money, None),
        merchant_reference_id=read.part("merchantMetadata").optional("merchantReferenceId", _as_text, ""),
        environment=read.optional("releaseEnvironment", _as_word, ""),
    )


def _request(endpoint: Endpoint, method: str, resource: str, body: bytes = b"") -> Request:
    headers = {
        "accept": "application/json",
        "content-type": "application/json",
        "x-amz-pay-host": endpoint.host,
        "x-amz-pay-region": endpoint.region.value,
    }
    if endpoint.auth_token:
        headers["x-amz-pay-authtoken"] = endpoint.auth_token
    return Request(method, f"{endpoint.base}/{resource}", headers, body)


def _id(text: str, kind: str) -> str:
    if not REFUND_ID.fullmatch(text):
        raise BadRequest(f"A {kind} id has at most 64 letters, digits and dashes.", reason=f"bad_{kind}_id")
    return text


def _wrong(response: Response, reason: str, kind: str) -> NoReturn:
    raise AmazonUnknown(
        f"Amazon's answer is about another {kind} than the one that was asked for.",
        reason=reason,
        amazon_status=response.status,
        request_id=request_id_of(response),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """One JSON object of an answer; null and the empty text are the same as absent."""

    response: Response
    values: JsonObject

    def required(self, name: str, convert: Callable[[object], Value]) -> Value:
        value = self.values.get(name)
        if value in (None, ""):
            unintelligible(self.response, f"it has no {name}")
        return self._converted(name, value, convert)

    def optional(self, name: str, convert: Callable[[object], Value], default: Value) -> Value:
        value = self.values.get(name)
        return default if value in (None, "") else self._converted(name, value, convert)

    def part(self, *names: str) -> _Reader:
        """The first of these members that is there; an empty one where none is."""
        found: object = next((self.values[name] for name in names if self.values.get(name) is not None), {})
        if not isinstance(found, dict):
            unintelligible(self.response, f"its {names[0]} is not an object")
        return _Reader(self.response, found)

    def _converted(self, name: str, value: object, convert: Callable[[object], Value]) -> Value:
        try:
            return convert(value)
        except Unreadable:
            unintelligible(self.response, f"its {name} is garbled")


def _as_id(value: object) -> str:
    if not isinstance(value, str) or not REFUND_ID.fullmatch(value):
        raise Unreadable
    return value


def _as_word(value: object) -> str:
    if not isinstance(value, str) or not WORD.fullmatch(value):
        raise Unreadable
    return value


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        raise Unreadable
    return clean(value)


def _as_money(value: object) -> Money | None:
    if not isinstance(value, dict):
        raise Unreadable
    if value.get("amount") in (None, ""):
        return None
    return Money.parse(value["amount"], value.get("currencyCode"))
