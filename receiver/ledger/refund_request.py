"""Pure. A request to issue a refund, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from receiver.ledger.charge_book import RESERVATION, SKEW, Entry, reservation
from receiver.ledger.money import Money
from receiver.ledger.refund import Refund


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """What a caller wants refunded. `order_reference` is the merchant's own order number."""

    charge_id: str
    money: Money
    soft_descriptor: str = ""
    order_reference: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """How a refund was asked for: what is no part of the refund."""

    by: str = ""
    """The name of the caller's token."""
    besides: Collection[str] = ()
    """Ids of refunds and requests of the charge that the caller knows of: this refund is wanted beside them."""
    traceparent: str = ""
    """W3C Trace Context; empty for none."""


NOBODY = Asked()


class RequestState(StrEnum):
    """What became of a request."""

    RESERVED = "reserved"
    """Amazon has not answered yet; a worker goes on trying the stored bytes under the stored key."""
    DONE = "done"
    REFUSED = "refused"
    """Amazon refused it, and no try can have succeeded; or a person found that none had (`settled_by`)."""
    UNCLEAR = "unclear"
    """Amazon refused it after a try whose end nobody knows: a person has to look. The amount stays reserved."""


KEY_TAKEN = "DuplicateIdempotencyKey"
"""Amazon's reason code for a key that was used with other values."""
REFUSES_US = "amazon_refuses_us"
"""Our word for a try that Amazon refused without a word about the refund."""
OPEN = (RequestState.RESERVED, RequestState.UNCLEAR)
"""The states that hold money back: a reservation on the charge."""


class PreparedRefund(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    generation: int = 1
    """Of a retry: its number among the tries to issue the refund again, each of which has a key of its own."""
    traceparent: str = ""
    """What the request that began it sent along (W3C Trace Context); empty where there was none."""
    issued_by: str = ""
    """The name of the token with which it was asked for; empty in requests of older versions."""
    besides: tuple[str, ...] = ()
    """Ids of refunds and requests of the charge that the caller named: this refund is wanted beside them."""


class RefundRequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An order and what became of it so far."""

    order: PreparedRefund
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
    created_at: int = 0
    """When it was written down (ms)."""
    changed_at: int = 0
    """When the last try ended, or a person settled it (ms)."""
    last_error: str = ""
    """Our word for how the last try failed, such as `amazon_timeout`; empty where none did."""
    settled_by: str = ""
    """The name of the token with which a person settled it; empty where Amazon did."""

    @property
    def proves_nothing_issued(self) -> bool:
        """Whether nothing can have been issued under its key: it is refused, and no try had an unknown end.

        Amazon's word that the key has other values proves the opposite: something was issued under it.
        """
        return self.state is RequestState.REFUSED and not self.unknown and self.reason_code != KEY_TAKEN


def too_old(refund_created_at: int, record: RefundRequestRecord) -> bool:
    """Whether a refund that Amazon made then (ms; 0: not known) is older than the request, and so not of it.

    Amazon's clock may be behind ours.
    """
    return 0 < refund_created_at < record.created_at - SKEW


def candidate(
    record: RefundRequestRecord, entries: Mapping[str, Entry], taken: Iterable[str], refunds: Iterable[Refund | None]
) -> str:
    """The one refund that an unclear request may have made, or empty: a hint for a person, not a proof.

    `entries` is the charge's book, `taken` the refunds that are known to be of a request, `refunds` those of the book.
    Empty as soon as there is another explanation: another open request over the same amount, several such refunds, one
    that is older than the request, or one that Amazon or a bank has made (`refund_type`).

    Why a person decides: Get Refund tells no idempotency key. A clerk who saw the request fail may have made the same
    refund in Seller Central, and the one that the request made may not have been told yet. Taking the first for the
    second would free a reservation that still stands for money.
    """
    amount = record.order.money.minor_units
    open_ones = [name for name, each in entries.items() if name.startswith(RESERVATION) and each.minor_units == amount]
    if record.state is not RequestState.UNCLEAR or open_ones != [reservation(record.order.id)]:
        return ""
    taken = set(taken)
    fitting = [
        refund.refund_id
        for refund in refunds
        if refund is not None
        and refund.refund_id not in taken
        and refund.charge_id == record.order.charge_id
        and refund.amount == record.order.money
        and refund.refund_type in ("", "SellerInitiated")
        and not too_old(refund.created_at or refund.first_seen_at, record)
    ]
    return fitting[0] if len(fitting) == 1 else ""
