"""Pure. The JSON of a refund, shared by events and the HTTP API: Amazon's names first, then ours.

A value that Amazon did not report is `null`, never a missing key. Texts from outside are made printable and bounded
here, so the JSON can always be encoded and stays small.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from receiver.ledger.money import Money
from receiver.ledger.order_reference import whole_reference
from receiver.ledger.refund import How, Refund, Resolution, Retryability, RetryRefused, Source, is_final
from receiver.ledger.timestamps import format_basic, format_rfc3339

TEXT_LIMIT = 128
"""Maximum length of a code or an id. The longest that Amazon documents are far shorter."""
DESCRIPTION_LIMIT = 1024
"""Maximum length of `reasonDescription`, for which Amazon documents none."""

MAX_TEXT = 500
"""Maximum length of a person's note, and of free text in general."""

YES_NO: Final = MappingProxyType({"yes": True, "no": False})
AMAZON_TIME: Final = r"^[0-9]{8}T[0-9]{6}(\.[0-9]{3})?Z$"
Rfc3339 = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, examples=["2019-07-14T15:53:00.000Z"])]
"""UTC, milliseconds."""
AmazonTime = Annotated[
    str,
    Meta(
        description="Amazon's basic form, UTC.",
        extra_json_schema={"pattern": AMAZON_TIME},
        examples=["20190714T155300Z"],
    ),
]
IssuedBy = Annotated[
    str | None,
    Meta(description="The name of the token that requested the refund here; null for every other refund."),
]
IssuedByUser = Annotated[
    str | None,
    Meta(description="The person who requested it with that token, if a signing-in proxy named one."),
]
RefundState = Annotated[
    str, Meta(description="RefundInitiated, Refunded or Declined. Other values from Amazon are passed through.")
]
ReasonCode = Annotated[
    str | None, Meta(description="Why it was declined: AmazonRejected or ProcessingFailure; the set is open.")
]
Account = Annotated[str, Meta(description="Our name for the merchant's account.", examples=["us"])]


class Json(msgspec.Struct, rename="camel"):
    """The base of every answer: encoded by the service, decoded by its clients, and the schema in OpenAPI.

    A field with a default is always sent; the default serves clients of a service that does not know the field yet.
    Only `UNSET` is left out. Patterns and bounds are documentation: clients do not check them.
    """


J = TypeVar("J", bound=Json)


def extended(kind: type[J], base: Json, **more: Any) -> J:
    """An answer with all fields of `base`, and more."""
    return kind(**msgspec.structs.asdict(base), **more)


class MoneyJson(Json, kw_only=True):
    """An amount with its currency."""

    amount: Annotated[
        str,
        Meta(
            description="Decimal, with the currency's number of decimal places.",
            extra_json_schema={"pattern": r"^[0-9]+(\.[0-9]+)?$"},
        ),
    ]
    currency_code: Annotated[str, Meta(description="ISO 4217.", extra_json_schema={"pattern": "^[A-Z]{3}$"})]

    def __str__(self) -> str:
        return f"{self.amount} {self.currency_code}"


class StatusDetailsJson(Json, kw_only=True):
    """The state of a refund."""

    state: RefundState
    reason_code: ReasonCode = None
    reason_description: str | None = None
    last_updated_timestamp: AmazonTime | None = None


class RetryRefusedJson(Json, kw_only=True):
    """Amazon's verdict on an attempt to issue a declined refund again. The attempt issued nothing."""

    generation: Annotated[
        int, Meta(description="The number of the attempt. Each has its own key.", extra_json_schema={"minimum": 1})
    ]
    at: Rfc3339
    status: int
    reason_code: str | None = None
    request_id: Annotated[str | None, Meta(description="X-Amz-Pay-Request-Id.")] = None
    detail: str | None = None


class ResolutionJson(Json, kw_only=True):
    """The case of a declined refund. It is open while the buyer may still be owed the money."""

    state: Annotated[str, Meta(extra_json_schema={"enum": ["open", "closed"]})]
    at: Annotated[Rfc3339, Meta(description="Since when.")]
    how: Annotated[
        str | None,
        Meta(description="How it was closed; null while it is open.", extra_json_schema={"enum": [None, *How]}),
    ] = None
    by: Annotated[
        str | None,
        Meta(description="The token of the person who closed or reopened it; null if it closed by itself."),
    ] = None
    user: Annotated[str | None, Meta(description="That person, as named by a signing-in proxy.")] = None
    note: str | None = None
    refund_id: Annotated[str | None, Meta(description="The refund with which the buyer was paid.")] = None


class RefundJson(Json, kw_only=True):
    """A refund: Amazon's names first, then ours. A value that Amazon did not report is null."""

    refund_id: Annotated[str, Meta(examples=["S01-5105180-3221187-R022311"])]
    charge_id: str | None = None
    refund_amount: MoneyJson | None = None
    soft_descriptor: str | None = None
    creation_timestamp: AmazonTime | None = None
    status_details: StatusDetailsJson
    release_environment: Annotated[str | None, Meta(description="Sandbox or Live, as reported by Amazon.")] = None
    account: Account
    revision: Annotated[
        int,
        Meta(
            description="Counts our writes from 1. If you already have a higher revision, ignore this one.",
            extra_json_schema={"minimum": 1},
        ),
    ]
    final: Annotated[bool, Meta(description="Whether the state is Refunded or Declined.")]
    conflict: Annotated[bool, Meta(description="Whether Amazon has reported two different final states.")] = False
    backfill: Annotated[
        bool, Meta(description="Whether it became final over 7 days before it was first seen here.")
    ] = False
    order_reference: Annotated[
        str | None, Meta(description="The merchant's order number, unaltered, or null if longer than 256 characters.")
    ] = None
    refund_type: Annotated[
        str | None, Meta(description="Who started it, if known: SellerInitiated, Chargeback, FPS, …")
    ] = None
    retryable: Annotated[
        bool | None,
        Meta(description="For a declined refund: whether it can be issued again, as of `asOf`. Null if unknown."),
    ] = None
    retryable_reasons: Annotated[
        list[str], Meta(description="Why not, or why it is unknown: the reasons with which a retry would be refused.")
    ] = []
    as_of: Annotated[
        Rfc3339 | None,
        Meta(description="When `retryable` and the advice were computed. Null if nothing depends on the charge."),
    ] = None
    charge_read_at: Annotated[
        Rfc3339 | None, Meta(description="For a declined refund: when Amazon last described the charge.")
    ] = None
    retry_of: Annotated[str | None, Meta(description="The declined refund that this one repeats.")] = None
    retry_root: Annotated[str | None, Meta(description="For a retry: the first refund in the chain of retries.")] = None
    retried_by: Annotated[str | None, Meta(description="The refund that repeats this declined one.")] = None
    retry_refused: Annotated[
        RetryRefusedJson | None,
        Meta(description="For a declined refund not yet reissued: Amazon's verdict on the last attempt."),
    ] = None
    resolution: Annotated[
        ResolutionJson | None,
        Meta(description="For a declined refund: its case. A reissue has that of the first refund of its chain."),
    ] = None
    issued_by: IssuedBy = None
    issued_by_user: IssuedByUser = None
    unread_fields: Annotated[
        list[str],
        Meta(description="Fields that are null because Amazon's value could not be read, such as refundAmount."),
    ] = []
    first_seen_at: Rfc3339 = ""
    changed_at: Rfc3339
    source: Annotated[str, Meta(description="What caused us to ask Amazon.", extra_json_schema={"enum": [*Source]})]


R = TypeVar("R", bound=RefundJson)


def tidy(text: str, limit: int = TEXT_LIMIT) -> str:
    """Replace unprintable characters by spaces, trim, and cut to `limit` characters with an ellipsis. Idempotent.

    Unprintable are control and format characters, and lone surrogates, which JSON can contain and UTF-8 cannot encode.
    """
    if len(text) <= limit and text.isprintable():
        return text.strip()
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * limit]).strip()
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


def amazon_time(ms: int) -> str:
    """Amazon's basic form, `20190714T155300Z`. Nonzero milliseconds are added: `20190714T155300.250Z`.

    `parse_time` reads both without loss.
    """
    whole = format_basic(ms)
    return f"{whole[:-1]}.{ms % 1000:03d}Z" if ms % 1000 else whole


def known_time(ms: int) -> str | None:
    """Amazon's time form; null for 0."""
    return amazon_time(ms) if ms else None


def money_json(money: Money | None) -> MoneyJson | None:
    """`{amount, currencyCode}`: the amount as text, with the currency's number of decimals."""
    return None if money is None else MoneyJson(amount=money.text, currency_code=money.currency_code)


def retry_refused_json(refused: RetryRefused | None) -> RetryRefusedJson | None:
    """The JSON of a verdict on a retry, with keys in the order of `RetryRefusedJson`."""
    if refused is None:
        return None
    return RetryRefusedJson(
        generation=refused.generation,
        at=format_rfc3339(refused.at),
        status=refused.status,
        reason_code=tidy(refused.reason_code) or None,
        request_id=tidy(refused.amazon_request_id) or None,
        detail=tidy(refused.detail, DESCRIPTION_LIMIT) or None,
    )


def resolution_json(case: Resolution | None) -> ResolutionJson | None:
    """The JSON of a case."""
    if case is None:
        return None
    return ResolutionJson(
        state="open" if case.is_open else "closed",
        at=format_rfc3339(case.at),
        how=case.how,
        by=tidy(case.by) or None,
        user=tidy(case.user) or None,
        note=tidy(case.note, MAX_TEXT) or None,
        refund_id=tidy(case.refund_id) or None,
    )


def refund_json(refund: Refund) -> RefundJson:
    """The JSON of a refund, with keys in the order of `RefundJson`."""
    return refund_as(RefundJson, refund)


def refund_as(kind: type[R], refund: Refund, **more: Any) -> R:
    """The JSON of a refund with more fields."""
    judged = refund.judged or Retryability(None if refund.conflict else YES_NO.get(refund.retryable))
    return kind(
        refund_id=tidy(refund.refund_id),
        charge_id=tidy(refund.charge_id) or None,
        refund_amount=money_json(refund.amount),
        soft_descriptor=tidy(refund.soft_descriptor) or None,
        creation_timestamp=known_time(refund.created_at),
        status_details=StatusDetailsJson(
            state=tidy(refund.state),
            reason_code=tidy(refund.reason_code) or None,
            reason_description=tidy(refund.reason_description, DESCRIPTION_LIMIT) or None,
            last_updated_timestamp=known_time(refund.updated_at),
        ),
        release_environment=tidy(refund.environment) or None,
        account=tidy(refund.account),
        revision=refund.revision,
        final=is_final(refund.state),
        conflict=refund.conflict,
        backfill=refund.backfill,
        order_reference=whole_reference(refund.order_reference),
        refund_type=tidy(refund.refund_type) or None,
        retryable=judged.value,
        retryable_reasons=[*judged.reasons],
        as_of=format_rfc3339(judged.as_of) if judged.as_of else None,
        charge_read_at=format_rfc3339(judged.charge_read_at) if judged.charge_read_at else None,
        retry_of=refund.retry_of or None,
        retry_root=refund.retry_root or None,
        retried_by=refund.retried_by or None,
        retry_refused=None if refund.retried_by else retry_refused_json(refund.retry_refused),
        resolution=resolution_json(refund.resolution),
        issued_by=refund.issued_by or None,
        issued_by_user=refund.issued_by_user or None,
        unread_fields=[*refund.unread],
        first_seen_at=format_rfc3339(refund.first_seen_at),
        changed_at=format_rfc3339(refund.changed_at),
        source=str(refund.source),
        **more,
    )


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Make free text safe to log, store and show: printable characters, single spaces, at most `limit` characters."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 8 * limit])
    return " ".join(printable.split())[:limit]
