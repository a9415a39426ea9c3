"""Pure. A request to issue a refund, and its progress."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from receiver.errors import AmazonRefused
from receiver.ledger.audit import THE_SERVICE, Action, Actor, AuditEntry, Outcome
from receiver.ledger.charge_book import RESERVATION, SKEW, Entry, reservation
from receiver.ledger.money import Money
from receiver.ledger.refund import Refund


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """The refund that a caller wants. `order_reference` is the merchant's order number."""

    charge_id: str
    money: Money | None
    """None: all that is left of the captured amount."""
    soft_descriptor: str = ""
    order_reference: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """The circumstances of a refund request, which are not part of the refund."""

    by: Actor = THE_SERVICE
    besides: Collection[str] = ()
    """Ids of refunds and requests on the charge that the caller has named. They do not block this refund."""
    traceparent: str = ""
    """W3C Trace Context; empty for none."""


NOBODY = Asked()


class RequestState(StrEnum):
    RESERVED = "reserved"
    """Amazon has not answered yet. A worker repeats the stored bytes under the stored key."""
    DONE = "done"
    REFUSED = "refused"
    """Amazon refused it, and no attempt can have succeeded; or a person confirmed that none did (`settled_by`)."""
    UNCLEAR = "unclear"
    """Amazon refused it after an attempt with an unknown outcome: a person must check. The amount stays reserved."""


KEY_TAKEN = "DuplicateIdempotencyKey"
"""Amazon's reason code for a key that was used with other values."""
REFUSES_US = "amazon_refuses_us"
"""Our code for an attempt that Amazon refused without saying anything about the refund."""
OPEN = (RequestState.RESERVED, RequestState.UNCLEAR)
"""The states in which the request holds a reservation on the charge."""


class PreparedRefund(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A refund to issue, with the exact bytes that every attempt sends."""

    id: str
    """SHA-256 (hex) of the caller's key."""
    digest: str
    """SHA-256 (hex) of the values. The same key with other values is a caller error. The amount of a `full` refund is
    not one of them."""
    amazon_key: str
    """`x-amz-pay-idempotency-key`."""
    body: bytes
    charge_id: str
    money: Money
    order_reference: str = ""
    retry_of: str = ""
    """The declined refund that this one repeats."""
    retry_root: str = ""
    """The first refund in the chain of retries."""
    generation: int = 1
    """For a retry: its number among the attempts to issue the refund again. Each has its own key."""
    traceparent: str = ""
    """The W3C Trace Context of the original request; empty if there was none."""
    issued_by: str = ""
    """The name of the token that requested it; empty in requests of older versions."""
    issued_by_user: str = ""
    """The person who requested it with that token; empty if no proxy named one."""
    http_request_id: str = ""
    """The `X-Request-Id` of that call."""
    besides: tuple[str, ...] = ()
    """Ids of refunds and requests on the charge that the caller has named. They do not block this refund."""
    full: bool = False
    """The caller asked for all that was left of the captured amount; `money` is what was left then."""

    @property
    def requested_by(self) -> Actor:
        return Actor(self.issued_by, self.issued_by_user, self.http_request_id)

    @property
    def request_act(self) -> AuditEntry:
        """The act of requesting it."""
        return AuditEntry(
            action=Action.REFUND_RETRY if self.retry_of else Action.REFUND_CREATE,
            actor=self.requested_by,
            refund_id=self.retry_of,
            refund_request_id=self.id,
            charge_id=self.charge_id,
            outcome=Outcome.ACCEPTED,
        )


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a request so far."""

    state: RequestState = RequestState.RESERVED
    tries: int = 0
    unknown: bool = False
    """Whether an attempt ended without a complete answer: then a later refusal proves nothing."""
    reason_code: str = ""
    detail: str = ""
    amazon_status: int = 0
    amazon_request_id: str = ""
    """Amazon's id of the last refusal."""
    last_error: str = ""
    """Our code for the last attempt's failure, such as `amazon_timeout`; empty if it did not fail."""

    @property
    def refusal(self) -> AmazonRefused:
        """Amazon's refusal, as the error for the caller."""
        return AmazonRefused(
            self.detail,
            reason_code=self.reason_code,
            amazon_status=self.amazon_status or None,
            amazon_request_id=self.amazon_request_id or None,
        )


class RefundRequestRecord(Progress, frozen=True, kw_only=True):
    """A refund request and its progress so far. Once an attempt's outcome is `unknown`, only a 2xx resolves it."""

    order: PreparedRefund
    refund_id: str = ""
    created_at: int = 0
    """When it was recorded (ms)."""
    changed_at: int = 0
    """When the last attempt ended, or a person resolved it (ms)."""
    settled_by: str = ""
    """The name of the token with which a person resolved it; empty if Amazon's answer did."""
    settled_by_user: str = ""
    """That person; empty if no proxy named one."""

    @property
    def proves_nothing_issued(self) -> bool:
        """Whether nothing can have been issued under its key: it is refused, and every attempt had a known outcome.

        A `DuplicateIdempotencyKey` from Amazon proves the opposite: something was issued under the key.
        """
        return self.state is RequestState.REFUSED and not self.unknown and self.reason_code != KEY_TAKEN


def too_old(refund_created_at: int, record: RefundRequestRecord) -> bool:
    """Whether Amazon created the refund (ms; 0: unknown) before the request was made, so it is another refund.

    Allows for an Amazon clock behind ours.
    """
    return 0 < refund_created_at < record.created_at - SKEW


def candidate(
    record: RefundRequestRecord, entries: Mapping[str, Entry], taken: Iterable[str], refunds: Iterable[Refund | None]
) -> str:
    """The only refund that an unclear request can have made, or empty. It is a suggestion for a person, not a proof.

    `entries` is the charge's book, `taken` the refunds that belong to known requests, `refunds` those of the book.
    Empty if there is another explanation: another open request over the same amount, several matching refunds, one
    older than the request, or one started by Amazon or a bank (`refund_type`).

    A person decides because Get Refund returns no idempotency key. A clerk who saw the request fail may have made the
    same refund in Seller Central, while the request's own refund has not been reported yet. Confusing the two would
    release a reservation for money that was really paid.
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
