"""HTTP. The bodies that requests bring, as schemas. The code reads them by hand, strictly; limits come from there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from receiver.amazon.calls import MAX_SOFT_DESCRIPTOR
from receiver.amazon.fps.calls import CURRENCY, MAX_DESCRIPTION, TRANSACTION_ID, Policy
from receiver.http.api.deliveries import MOST_IDS, STREAM_ID
from receiver.http.api.issuing import MOST_NAMED
from receiver.ledger.money import AMOUNT
from receiver.ledger.money import CURRENCY as CURRENCY_CODE
from receiver.ledger.order_reference import MAX_ORDER_REFERENCE
from receiver.ledger.refund import REFUND_ID
from receiver.outbox.events.event import EVENT_ID
from receiver.outbox.formats.alertmanager import LONGEST_AUTHORIZATION
from receiver.outbox.formats.format import LONGEST_LINK
from receiver.outbox.formats.pagerduty import ROUTING_KEY
from receiver.outbox.formats.registry import FORMATS
from receiver.outbox.subscribers.changes import NEW
from receiver.outbox.subscribers.fields import MOST_REASONS, NAME, REASON, VALID_TYPES
from receiver.outbox.subscribers.limits import FASTEST, MOST_AMOUNTS, MOST_AT_ONCE, SLOWEST
from receiver.outbox.subscribers.secrets import FORM, LONGEST, MOST_SECRETS, SHORTEST
from receiver.outbox.subscribers.url import LONGEST_URL

Schema = dict[str, Any]


def whole(*patterns: re.Pattern[str]) -> str:
    """A pattern of JSON Schema for texts that one of these matches wholly."""
    return "|".join(f"^(?:{pattern.pattern})$" for pattern in patterns)


def fields(about: str, required: tuple[str, ...], properties: Mapping[str, Schema], example: object) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "description": about,
        "required": list(required),
        "properties": dict(properties),
        "additionalProperties": False,
        "examples": [example],
    }


def nullable(schema: Schema) -> Schema:
    """It, or null."""
    return {**schema, "type": [schema["type"], "null"]} if "type" in schema else {"anyOf": [schema, {"type": "null"}]}


def time(about: str) -> Schema:
    """A moment: RFC 3339, or Amazon's basic form."""
    return {
        "type": "string",
        "format": "date-time",
        "description": f"{about} RFC 3339; Amazon's basic form (20260131T120000Z) is taken as well.",
        "examples": ["2026-01-31T12:00:00Z"],
    }


ACCOUNT: Final[Schema] = {
    "type": ["string", "null"],
    "description": "Our name of the account; needed where the token sees several.",
}
REFUND: Final[Schema] = {"type": "string", "pattern": whole(REFUND_ID)}


def money(currency: Schema, about: str) -> Schema:
    """An amount with its currency."""
    return {
        "type": "object",
        "description": about,
        "required": ["amount", "currencyCode"],
        "properties": {
            "amount": {
                "type": "string",
                "pattern": whole(AMOUNT),
                "description": "Decimal, more than zero, with no more places than the currency has. A JSON number "
                "without an exponent is taken as well, and its digits are.",
            },
            "currencyCode": currency,
        },
        "additionalProperties": False,
    }


BESIDES: Final = {
    "type": "array",
    "maxItems": MOST_NAMED,
    "items": {"type": "string", "pattern": whole(REFUND_ID)},
    "description": "Ids of refunds and refund requests of the same charge that the caller knows of: this refund is "
    "wanted beside them. The answer 409 same_amount_refunded or charge_in_conflict lists those that have to be named. "
    "An id that stands in no way is passed over. It is no part of what the Idempotency-Key stands for.",
}
RETRY_REFUND: Final = fields(
    "Nothing, or the other refunds of the charge that this one is wanted beside.",
    (),
    {"besides": BESIDES},
    {"besides": ["S01-5105180-3221187-R022311"]},
)
USD: Final = {"amount": "14.00", "currencyCode": "USD"}
CREATE_REFUND: Final = fields(
    "A refund to issue.",
    ("chargeId", "refundAmount"),
    {
        "account": ACCOUNT,
        "chargeId": {**REFUND, "description": "Amazon's id of a captured charge."},
        "refundAmount": money({"type": "string", "pattern": whole(CURRENCY_CODE), "description": "ISO 4217."}, ""),
        "softDescriptor": {
            "type": "string",
            "maxLength": MAX_SOFT_DESCRIPTOR,
            "description": "What the buyer sees on the statement. Printable characters.",
        },
        "orderReference": {
            "type": "string",
            "maxLength": MAX_ORDER_REFERENCE,
            "description": "Your own order number, kept unaltered. Left out: the charge's. No control characters.",
        },
        "besides": BESIDES,
    },
    {"chargeId": "S01-5105180-3221187-C056351", "refundAmount": USD},
)
CREATE_FPS_REFUND: Final = fields(
    "A refund by Flexible Payments.",
    ("transactionId", "refundTransactionReference"),
    {
        "account": ACCOUNT,
        "transactionId": {"type": "string", "pattern": whole(TRANSACTION_ID), "description": "What is refunded."},
        "refundTransactionReference": {
            **REFUND,
            "description": "Your own, unique for ever: the refund's id here, and the key. The same values again are "
            "the same refund.",
        },
        "refundAmount": money({"type": "string", "enum": [CURRENCY]}, "Left out: all that is left."),
        "description": {"type": "string", "maxLength": MAX_DESCRIPTION, "description": "Printable characters."},
        "marketplaceRefundPolicy": {"type": "string", "enum": ["", *Policy]},
    },
    {
        "transactionId": "14GKSIMULATOR0000000000000000000001",
        "refundTransactionReference": "order-4711-refund-1",
        "refundAmount": {"amount": "14.01", "currencyCode": "USD"},
    },
)
SETTLEMENT: Final[Schema] = {
    "description": "What somebody found out about an unclear request.",
    "oneOf": [
        fields("Amazon made this refund.", ("refundId",), {"refundId": REFUND}, {"refundId": "S01-1-2-R000001"}),
        fields("Amazon made none.", ("notIssued",), {"notIssued": {"const": True}}, {"notIssued": True}),
    ],
}

SECRET: Final[Schema] = {
    "type": "string",
    "pattern": r"^whsec_[A-Za-z0-9+/]+={0,2}$",
    "minLength": 6 + -(-SHORTEST * 4 // 3),
    "maxLength": 6 + -(-LONGEST // 3) * 4,
    "description": f"Signs deliveries, as Standard Webhooks has it: {FORM}.",
}
AMOUNT_TEXT: Final[Schema] = {"type": "string", "pattern": rf"^{AMOUNT.pattern} {CURRENCY_CODE.pattern}$"}
LINK: Final[Schema] = {"type": "string", "format": "uri", "maxLength": LONGEST_LINK}
SPAN: Final[Schema] = {
    "type": ["string", "integer", "null"],
    "pattern": r"^([0-9]{1,5}(\.[0-9]{1,6})?s?|[0-9]{1,3}h|[0-7]d)$",
    "minimum": 0,
    "maximum": 604_800,
    "description": "How long the secrets of before go on signing: a span such as 24h (the default), or seconds; at "
    "most 7d. Minutes and sums such as 1h30m are taken as well.",
}
CHANGEABLE: Final[Mapping[str, Schema]] = {
    "url": {"type": "string", "format": "uri", "maxLength": LONGEST_URL, "description": "https, to the public net."},
    "types": {
        "type": "array",
        "items": {"type": "string", "enum": [*VALID_TYPES]},
        "minItems": 1,
        "description": "`*`: all about refunds. Left out: what the format is told by default.",
    },
    "reasons": {
        "type": "array",
        "items": {"type": "string", "pattern": whole(REASON)},
        "minItems": 1,
        "maxItems": MOST_REASONS,
        "description": "Reason codes such as AmazonRejected. Left out: all.",
    },
    "minAmount": {
        "description": "Not told of refunds of less: one amount for each currency. Left out: of all.",
        "anyOf": [AMOUNT_TEXT, {"type": "array", "items": AMOUNT_TEXT, "minItems": 1, "maxItems": MOST_AMOUNTS}],
        "examples": ["100.00 USD"],
    },
    "rate": {"type": "number", "minimum": SLOWEST, "maximum": FASTEST, "description": "Messages a second at most."},
    "concurrency": {
        "type": "integer",
        "minimum": 1,
        "maximum": MOST_AT_ONCE,
        "description": "Messages under way at once in each process.",
    },
    "backfill": {
        "type": "boolean",
        "description": "Whether it is told of refunds that Amazon settled over 7 days before they were first seen "
        "here, such as imported ones. Left out: true for cloudevents, false for formats that call people.",
    },
    "routingKey": {"type": "string", "pattern": whole(ROUTING_KEY), "description": "Of PagerDuty."},
    "authorization": {
        "type": "string",
        "maxLength": LONGEST_AUTHORIZATION,
        "description": "The header of that name for an Alertmanager, such as Bearer TOKEN.",
    },
    "publicUrl": {**LINK, "description": "Where people reach this service, for links in messages."},
    "sellerCentral": {**LINK, "description": "Where people reach Seller Central."},
}
ADD_SUBSCRIBER: Final = fields(
    "Somebody to tell. Which fields there may be depends on the format.",
    ("name",),
    {
        "account": ACCOUNT,
        "name": {"type": "string", "pattern": whole(NAME)},
        "format": {"type": ["string", "null"], "enum": [*FORMATS, None], "description": "Left out: cloudevents."},
        "secret": {**SECRET, "description": f"{SECRET['description']} Left out: one is made, and shown once."},
        "secrets": {
            "type": "array",
            "items": SECRET,
            "minItems": 1,
            "maxItems": MOST_SECRETS,
            "description": "Instead of `secret`: several that sign.",
        },
        "start": {
            "description": "From when on it is told what the stream still holds. Left out: from now on.",
            "anyOf": [{"enum": ["now", "beginning", None]}, time("From then on.")],
        },
        **{name: nullable(schema) for name, schema in CHANGEABLE.items()},
    },
    {"name": "finance", "url": "https://finance.example/hooks", "types": ["amazonpay.refund.declined"]},
)
CHANGE_SUBSCRIBER: Final = {
    **fields(
        "The fields that are to change; null is the default again. Fields of other formats are refused.",
        (),
        {
            **{name: nullable(schema) for name, schema in CHANGEABLE.items()},
            "secret": {
                "description": "Only together with `url`; needed where that has another scheme, host or port. It "
                f"replaces all secrets at once. `{NEW}`: one is made, and shown once.",
                "anyOf": [SECRET, {"const": NEW}],
            },
        },
        {"rate": 10},
    ),
    "minProperties": 1,
}
ROTATE: Final = fields(
    "Another secret.",
    (),
    {"secret": {**SECRET, "description": "Left out: one is made, and shown once."}, "oldValidFor": SPAN},
    {"oldValidFor": "24h"},
)
DRY_RUN: Final[Schema] = {"type": "boolean", "description": "Only say what would be sent."}
REDRIVE: Final[Schema] = {
    "description": "Which events are sent again: `ids` about any that is kept; a time range and `all` about dead ones.",
    "oneOf": [
        fields(
            "These.",
            ("ids",),
            {
                "ids": {
                    "type": "array",
                    "items": {"type": "string", "pattern": whole(EVENT_ID, STREAM_ID)},
                    "minItems": 1,
                    "maxItems": MOST_IDS,
                    "description": "Ids of events (webhook-id), or in the stream (streamId).",
                },
                "dryRun": DRY_RUN,
                "all": {"const": False},
            },
            {"ids": ["evt_0123456789abcdef0123456789abcdef"], "dryRun": True},
        ),
        {
            **fields(
                "Dead ones of a time.",
                (),
                {
                    "since": time("Written at or after it."),
                    "until": time("Written at or before it."),
                    "dryRun": DRY_RUN,
                    "all": {"const": False},
                },
                {"since": "2026-01-31T12:00:00Z", "dryRun": True},
            ),
            "anyOf": [{"required": ["since"]}, {"required": ["until"]}],
        },
        fields("All dead ones.", ("all",), {"all": {"const": True}, "dryRun": DRY_RUN}, {"all": True, "dryRun": True}),
    ],
}
