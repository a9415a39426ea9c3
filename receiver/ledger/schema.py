"""Pure. The one JSON shape of a refund, shared by events and the HTTP API: Amazon's names first, then ours.
And that of a request to issue one.

What Amazon did not tell is `null`, never a missing key. Texts from outside are made printable and bounded here, so
that whatever Amazon sends, the JSON can be encoded and stays small.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, TypedDict

from msgspec import Meta

from receiver.ledger.charge_book import RESERVATION, Entry
from receiver.ledger.money import Money
from receiver.ledger.order_reference import whole_reference
from receiver.ledger.refund import Refund, Retryability, RetryRefused, Revision, Source, is_final
from receiver.ledger.timestamps import format_basic, format_rfc3339

TEXT_LIMIT = 128
"""Characters kept of a code or an id. The longest that Amazon documents are far shorter."""
DESCRIPTION_LIMIT = 1024
"""Characters kept of `reasonDescription`, for which Amazon gives no bound."""

YES_NO: Final = MappingProxyType({"yes": True, "no": False})
AMAZON_TIME: Final = r"^[0-9]{8}T[0-9]{6}(\.[0-9]{3})?Z$"
Rfc3339 = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, examples=["2019-07-14T15:53:00.000Z"])]
"""UTC, milliseconds."""
AmazonTime = Annotated[
    str, Meta(description="Amazon's basic form, UTC.", pattern=AMAZON_TIME, examples=["20190714T155300Z"])
]
IssuedBy = Annotated[
    str | None,
    Meta(description="The name of the token with which the refund was requested here; null for every other refund."),
]
Account = Annotated[str, Meta(description="Our name of the merchant's account.", examples=["us"])]


class MoneyJson(TypedDict):
    """An amount with its currency."""

    amount: Annotated[
        str, Meta(description="Decimal, with as many places as the currency has.", pattern=r"^[0-9]+(\.[0-9]+)?$")
    ]
    currencyCode: Annotated[str, Meta(description="ISO 4217.", pattern="^[A-Z]{3}$")]


class StatusJson(TypedDict):
    """What a refund's history says of its state."""

    state: Annotated[
        str, Meta(description="RefundInitiated, Refunded or Declined. Another word of Amazon's is kept as it is.")
    ]
    reasonCode: Annotated[
        str | None, Meta(description="Why it was declined: AmazonRejected or ProcessingFailure; the set is open.")
    ]
    lastUpdatedTimestamp: AmazonTime | None


class StatusDetailsJson(StatusJson):
    """The state of a refund."""

    reasonDescription: str | None


class RetryRefusedJson(TypedDict):
    """Amazon's verdict on a try to issue a declined refund again. Nothing was issued by it."""

    generation: Annotated[int, Meta(description="The number of the try; each has a key of its own.", ge=1)]
    at: Rfc3339
    status: int
    reasonCode: str | None
    requestId: Annotated[str | None, Meta(description="X-Amz-Pay-Request-Id.")]
    detail: str | None


class RefundJson(TypedDict):
    """A refund: Amazon's names first, then ours. What Amazon did not tell is null."""

    refundId: Annotated[str, Meta(examples=["S01-5105180-3221187-R022311"])]
    chargeId: str | None
    refundAmount: MoneyJson | None
    softDescriptor: str | None
    creationTimestamp: AmazonTime | None
    statusDetails: StatusDetailsJson
    releaseEnvironment: Annotated[str | None, Meta(description="Sandbox or Live, as Amazon says it.")]
    account: Account
    revision: Annotated[
        int, Meta(description="Counts our writes from 1: whoever holds a greater one may drop this.", ge=1)
    ]
    final: Annotated[bool, Meta(description="Whether the state is Refunded or Declined.")]
    conflict: Annotated[bool, Meta(description="Whether Amazon has told two different final states.")]
    backfill: Annotated[bool, Meta(description="Whether it was settled over 7 days before it was first seen here.")]
    orderReference: Annotated[
        str | None, Meta(description="The merchant's order number, unaltered, or null if over 256.")
    ]
    refundType: Annotated[
        str | None, Meta(description="Who began it, where it was told: SellerInitiated, Chargeback, FPS, …")
    ]
    retryable: Annotated[
        bool | None,
        Meta(description="Of a declined refund: whether it can be issued again, as of `asOf`. Null: not known."),
    ]
    retryableReasons: Annotated[
        list[str], Meta(description="Why not, or why that is not known: the words that a retry would be refused with.")
    ]
    asOf: Annotated[
        Rfc3339 | None,
        Meta(description="When `retryable` and the advice were worked out. Null where nothing depends on the charge."),
    ]
    chargeReadAt: Annotated[
        Rfc3339 | None, Meta(description="Of a declined refund: when Amazon last told what the charge is.")
    ]
    retryOf: Annotated[str | None, Meta(description="The declined refund that this one repeats.")]
    retryRoot: Annotated[str | None, Meta(description="Of a retry: the refund that the chain of retries began with.")]
    retriedBy: Annotated[str | None, Meta(description="The refund that repeats this declined one.")]
    retryRefused: Annotated[
        RetryRefusedJson | None,
        Meta(description="Of a declined refund that is not repeated yet: Amazon's verdict on the last try to."),
    ]
    issuedBy: IssuedBy
    unreadFields: Annotated[
        list[str],
        Meta(description="Fields that are null because what Amazon sent could not be read, such as refundAmount."),
    ]
    firstSeenAt: Rfc3339
    changedAt: Rfc3339
    source: Annotated[str, Meta(description="Who made us look.", extra_json_schema={"enum": [*Source]})]


class RevisionJson(TypedDict):
    """One line of a refund's history."""

    statusDetails: StatusJson
    revision: Annotated[int, Meta(ge=1)]
    final: bool
    conflict: bool
    changedAt: Rfc3339
    source: Annotated[str, Meta(extra_json_schema={"enum": [*Source]})]
    issuedBy: IssuedBy


class OtherRefundJson(TypedDict):
    """Another refund of the charge, or a request for one, that stands in the way."""

    refundId: Annotated[str | None, Meta(description="Null where Amazon has not answered the request yet.")]
    refundRequestId: Annotated[str | None, Meta(description="Of a request that Amazon has not answered yet.")]
    state: Annotated[str, Meta(description="Reserved, or the state that Amazon told last.")]
    refundAmount: Annotated[MoneyJson | None, Meta(description="Null: not known.")]
    beganAt: Annotated[Rfc3339 | None, Meta(description="Null: not known.")]
    conflict: Annotated[bool, Meta(description="Whether Amazon has told both Refunded and Declined.")]


def tidy(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text with every unprintable character as a space, trimmed, and cut with an ellipsis to `limit` characters.

    Unprintable are control and format characters, and the halves of a surrogate pair that JSON can smuggle in and
    UTF-8 cannot encode. Doing it twice changes nothing.
    """
    if len(text) <= limit and text.isprintable():
        return text.strip()
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * limit]).strip()
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


def amazon_time(ms: int) -> str:
    """Amazon's basic form, `20190714T155300Z`; with milliseconds, `20190714T155300.250Z`, only where there are some.

    `parse_time` reads both back without loss.
    """
    whole = format_basic(ms)
    return f"{whole[:-1]}.{ms % 1000:03d}Z" if ms % 1000 else whole


def known_time(ms: int) -> str | None:
    """Amazon's time; null for 0."""
    return amazon_time(ms) if ms else None


def money_json(money: Money | None) -> MoneyJson | None:
    """`{amount, currencyCode}`: the amount as text, with as many decimals as the currency has."""
    return None if money is None else {"amount": money.text, "currencyCode": money.currency_code}


def retry_refused_json(refused: RetryRefused | None) -> RetryRefusedJson | None:
    """The JSON of a verdict on a retry, with its keys in the order of `RetryRefusedJson`."""
    if refused is None:
        return None
    return {
        "generation": refused.generation,
        "at": format_rfc3339(refused.at),
        "status": refused.status,
        "reasonCode": tidy(refused.reason_code) or None,
        "requestId": tidy(refused.request_id) or None,
        "detail": tidy(refused.detail, DESCRIPTION_LIMIT) or None,
    }


def refund_json(refund: Refund) -> RefundJson:
    """The JSON of a refund, with its keys in the order of `RefundJson`."""
    judged = refund.judged or Retryability(None if refund.conflict else YES_NO.get(refund.retryable))
    return {
        "refundId": tidy(refund.refund_id),
        "chargeId": tidy(refund.charge_id) or None,
        "refundAmount": money_json(refund.amount),
        "softDescriptor": tidy(refund.soft_descriptor) or None,
        "creationTimestamp": known_time(refund.created_at),
        "statusDetails": {
            "state": tidy(refund.state),
            "reasonCode": tidy(refund.reason_code) or None,
            "reasonDescription": tidy(refund.reason_description, DESCRIPTION_LIMIT) or None,
            "lastUpdatedTimestamp": known_time(refund.updated_at),
        },
        "releaseEnvironment": tidy(refund.environment) or None,
        "account": tidy(refund.account),
        "revision": refund.revision,
        "final": is_final(refund.state),
        "conflict": refund.conflict,
        "backfill": refund.backfill,
        "orderReference": whole_reference(refund.order_reference),
        "refundType": tidy(refund.refund_type) or None,
        "retryable": judged.value,
        "retryableReasons": [*judged.reasons],
        "asOf": format_rfc3339(judged.as_of) if judged.as_of else None,
        "chargeReadAt": format_rfc3339(judged.charge_read_at) if judged.charge_read_at else None,
        "retryOf": refund.retry_of or None,
        "retryRoot": refund.retry_root or None,
        "retriedBy": refund.retried_by or None,
        "retryRefused": None if refund.retried_by else retry_refused_json(refund.retry_refused),
        "issuedBy": refund.issued_by or None,
        "unreadFields": [*refund.unread],
        "firstSeenAt": format_rfc3339(refund.first_seen_at),
        "changedAt": format_rfc3339(refund.changed_at),
        "source": str(refund.source),
    }


def other_refunds_json(entries: Mapping[str, Entry]) -> list[OtherRefundJson]:
    """The JSON of refunds and reservations in a charge's book, the oldest first."""
    return [
        {
            "refundId": None if name.startswith(RESERVATION) else tidy(name),
            "refundRequestId": name.removeprefix(RESERVATION) if name.startswith(RESERVATION) else None,
            "state": tidy(entry.state),
            "refundAmount": money_json(entry.amount),
            "beganAt": None if entry.began is None else format_rfc3339(entry.began),
            "conflict": entry.conflict,
        }
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].began or 0, item[0]))
    ]


def revision_json(revision: Revision) -> RevisionJson:
    """The JSON of one line of a refund's history, with the same names, forms and order as `refund_json`."""
    return {
        "statusDetails": {
            "state": tidy(revision.state),
            "reasonCode": tidy(revision.reason_code) or None,
            "lastUpdatedTimestamp": known_time(revision.updated_at),
        },
        "revision": revision.revision,
        "final": is_final(revision.state),
        "conflict": revision.conflict,
        "changedAt": format_rfc3339(revision.at),
        "source": str(revision.source),
        "issuedBy": revision.issued_by or None,
    }


MAX_TEXT = 500


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Free text made safe to log, store and show: printable characters, single spaces, at most `limit` of them."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 8 * limit])
    return " ".join(printable.split())[:limit]
