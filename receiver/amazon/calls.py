"""Pure. Builds Get Refund, Get Charge, Get Dispute and Create Refund, and reads their answers.

`amazon/answers.py` judges an answer by its HTTP status before anything is read here. Only an unreadable id or state
makes an answer unintelligible. Any other unreadable field is null and listed in `unread` (`amazon/fields.py`). So
nothing about money is guessed, and no bad field hides a decline.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from receiver.amazon.answers import JsonObject, judge, wrong_object
from receiver.amazon.fields import Fields, as_id, as_money, as_reason, as_reference, as_text, as_word
from receiver.errors import BadRequest
from receiver.exchange import Request, Response
from receiver.ledger.charge import Charge
from receiver.ledger.dispute import DisputeObservation
from receiver.ledger.money import Money
from receiver.ledger.refund import REFUND_ID, UNKNOWN_STATE, Observation, state_of
from receiver.ledger.timestamps import parse_time

IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9_-]{1,32}")
"""Amazon's idempotency page. A UUID with dashes is too long: remove them."""

MAX_SOFT_DESCRIPTOR = 16


class Region(StrEnum):
    """The three regions of Amazon Pay: Americas, Europe including the United Kingdom, Japan."""

    NA = "na"
    EU = "eu"
    JP = "jp"


HOSTS = {
    Region.NA: "https://pay-api.amazon.com",
    Region.EU: "https://pay-api.amazon.eu",
    Region.JP: "https://pay-api.amazon.jp",
}


def key_environment(public_key_id: str) -> str | None:
    """The environment given by a public key id's prefix: "live", "sandbox", or None without a prefix."""
    upper = public_key_id.upper()
    return next((name for name in ("live", "sandbox") if upper.startswith(name.upper())), None)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an account's calls go. `environment` is "live" or "sandbox".

    `override` replaces scheme, host and port (a simulator, a proxy); the path stays the same. `x-amz-pay-host` is then
    signed with the overriding host, as in Amazon's SDKs.
    """

    region: Region
    environment: str
    public_key_id: str
    override: str | None = None
    auth_token: str = field(default="", repr=False)
    """Delegated access: a token that a merchant gave to a solution provider; sent as `x-amz-pay-authtoken`."""

    @property
    def base(self) -> str:
        """The URL up to the resource, without a trailing slash.

        The path contains the environment only for keys without a LIVE or SANDBOX prefix (as in Amazon's SDKs; Amazon
        refuses a key with a prefix together with a `/sandbox/` path).
        """
        root = (self.override or HOSTS[self.region]).rstrip("/")
        return f"{root}/v2" if key_environment(self.public_key_id) else f"{root}/{self.environment}/v2"

    @property
    def host(self) -> str:
        """The host name, without a port: the value of `x-amz-pay-host`."""
        return urlsplit(self.base).hostname or ""


def get_refund(endpoint: Endpoint, refund_id: str) -> Request:
    """`GET /refunds/{id}`, unsigned. Raises `BadRequest` for an id that is not safe in a path."""
    return request_to(endpoint, "GET", f"refunds/{_id(refund_id, 'refund')}")


def get_charge(endpoint: Endpoint, charge_id: str) -> Request:
    """`GET /charges/{id}`, unsigned. Raises `BadRequest` for an id that is not safe in a path."""
    return request_to(endpoint, "GET", f"charges/{_id(charge_id, 'charge')}")


def get_dispute(endpoint: Endpoint, dispute_id: str) -> Request:
    """`GET /disputes/{id}`, unsigned. Raises `BadRequest` for an id that is not safe in a path."""
    return request_to(endpoint, "GET", f"disputes/{_id(dispute_id, 'dispute')}")


def create_refund(
    endpoint: Endpoint, charge_id: str, money: Money, idempotency_key: str, soft_descriptor: str = ""
) -> Request:
    """`POST /refunds`, unsigned. The amount is a text with the currency's decimals: JPY has none.

    The same values always give the same bytes: Amazon refuses other values under a used idempotency key.
    Raises `BadRequest` for an id, a key or a soft descriptor (16 characters) that Amazon would not accept.
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
    """`POST /refunds` with a body from `create_refund`, unsigned: a repetition sends the same bytes."""
    return request_to(endpoint, "POST", "refunds", body).with_headers(x_amz_pay_idempotency_key=idempotency_key)


def read_refund(response: Response, refund_id: str | None = None, *, is_new: bool = False) -> Observation:
    """The refund in an answer to Get Refund or Create Refund (`refund_id` None: any).

    `is_new` is for Create Refund: its 2xx means that the refund exists, so the id alone is enough. An unreadable state
    is then `UNKNOWN_STATE` until Get Refund returns it.
    Raises like `answers.judge`; also `AmazonOutcomeUnknown` with `amazon_unintelligible` for a body without id and
    state, or `amazon_wrong_refund` for an answer about another refund.
    """
    read, found = _read(response, "refund", refund_id)
    status = read.part("statusDetails", "statusDetail")
    state = status.optional("state", as_word, UNKNOWN_STATE) if is_new else status.required("state", as_word)
    reason_code = status.optional("reasonCode", as_reason, "")
    return Observation(
        refund_id=found,
        state=state_of(state),
        updated_at=status.optional("lastUpdatedTimestamp", parse_time, 0),
        charge_id=read.optional("chargeId", as_id, ""),
        amount=read.optional("refundAmount", as_money, None),
        reason_code="" if reason_code == "None" else reason_code,
        reason_description=status.optional("reasonDescription", as_text, ""),
        soft_descriptor=read.optional("softDescriptor", as_text, ""),
        created_at=read.optional("creationTimestamp", parse_time, 0),
        environment=read.optional("releaseEnvironment", as_word, ""),
        unread=read.unread,
    )


def read_charge(response: Response, charge_id: str | None = None) -> Charge:
    """The charge in an answer to Get Charge (`charge_id` None: any).

    Raises like `read_refund`; an answer about another charge is `amazon_wrong_charge`.
    """
    read, found = _read(response, "charge", charge_id)
    captured = read.optional("captureAmount", as_money, None)
    refunded = read.optional("refundedAmount", as_money, None)
    if captured and refunded and captured.currency_code != refunded.currency_code:
        read.note("refundedAmount", "bad_currency")
        refunded = None
    return Charge(
        charge_id=found,
        state=read.part("statusDetails", "statusDetail").required("state", as_word),
        charge_permission_id=read.optional("chargePermissionId", as_id, ""),
        captured=captured,
        refunded=refunded,
        merchant_reference_id=read.part("merchantMetadata").optional("merchantReferenceId", as_reference, ""),
        environment=read.optional("releaseEnvironment", as_word, ""),
        unread=read.unread,
    )


def read_dispute(response: Response, dispute_id: str | None = None) -> DisputeObservation:
    """The dispute in an answer to Get Dispute (`dispute_id` None: any).

    Raises like `read_refund`; an answer about another dispute is `amazon_wrong_dispute`. An unreadable resolution is
    null: then it is unknown who won.
    """
    read, found = _read(response, "dispute", dispute_id)
    status = read.part("statusDetails")
    return DisputeObservation(
        dispute_id=found,
        state=status.required("state", as_word),
        resolution=status.optional("resolution", as_word, ""),
        reason_code=status.optional("reasonCode", as_word, ""),
        updated_at=status.optional("lastUpdatedTimestamp", parse_time, 0),
        charge_id=read.optional("chargeId", as_id, ""),
        amount=read.optional("disputeAmount", as_money, None),
        reason=read.optional("filingReason", as_text, ""),
        deadline=read.optional("merchantResponseDeadline", parse_time, 0),
        created_at=read.optional("creationTimestamp", parse_time, 0),
        environment=read.optional("releaseEnvironment", as_word, ""),
        unread=read.unread,
    )


def request_to(endpoint: Endpoint, method: str, resource: str, body: bytes = b"") -> Request:
    """A call, unsigned. `resource` is the part of the URL after the version: the rest of the path, and the query."""
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


def _read(response: Response, kind: str, wanted: str | None) -> tuple[Fields, str]:
    """The fields of an answer about one object, and its id, which must be `wanted` (None: any)."""
    read = Fields(response, judge(response))
    found = read.required(f"{kind}Id", as_id)
    if wanted not in (None, found):
        wrong_object(response, kind)
    return read, found
