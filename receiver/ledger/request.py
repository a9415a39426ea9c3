"""Pure. A request to issue a refund, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from receiver.ledger.refund import Money


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants refunded. `order_reference` is the merchant's own order number."""

    charge_id: str
    money: Money
    soft_descriptor: str = ""
    order_reference: str = ""


class RequestState(StrEnum):
    """What became of a request."""

    RESERVED = "reserved"
    """Amazon has not answered yet; a worker goes on trying the stored bytes under the stored key."""
    DONE = "done"
    REFUSED = "refused"
    """Amazon refused it, and no try can have succeeded."""
    UNCLEAR = "unclear"
    """Amazon refused it after a try whose end nobody knows: a person has to look. The amount stays reserved."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A refund to issue, with the exact bytes that every try sends."""

    id: str
    """SHA-256 (hex) of the caller's key."""
    digest: str
    """SHA-256 (hex) of the values: the same key with other values is a mistake of the caller."""
    amazon_key: str
    """`x-amz-pay-idempotency-key`."""
    body: bytes
    charge_id: str
    money: Money
    order_reference: str = ""
    retry_of: str = ""
    """The declined refund that this one repeats."""
    retry_root: str = ""
    """The refund that the chain of retries began with."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An order and what became of it so far."""

    order: Order
    state: RequestState = RequestState.RESERVED
    refund_id: str = ""
    tries: int = 0
    unknown: bool = False
    """Whether a try has ended without a whole answer: from then on only a 2xx settles it."""
    reason_code: str = ""
    detail: str = ""
    amazon_status: int = 0
    request_id: str = ""
    """Amazon's `X-Amz-Pay-Request-Id` of the last refusal."""
