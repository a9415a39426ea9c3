"""HTTP. The JSON of subscribers: request schemas and their parser, and the form of answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from receiver.errors import BadRequest, Malformed
from receiver.http.api.bodies import ACCOUNT_FIELD, object_schema
from receiver.http.api.params import Schema, time, whole
from receiver.http.api.schema import StatsJson, SubscriberJson
from receiver.ledger.money import AMOUNT, WRITTEN_CURRENCY
from receiver.ledger.refund import REASONS
from receiver.ledger.schema import extended
from receiver.ledger.timestamps import format_rfc3339, milliseconds, parse_duration
from receiver.outbox.formats.alertmanager import LONGEST_AUTHORIZATION
from receiver.outbox.formats.format import LONGEST_LINK
from receiver.outbox.formats.pagerduty import ROUTING_KEY
from receiver.outbox.formats.registry import FORMATS, format_spec
from receiver.outbox.subscribers.changes import NEW, OLD_VALID, OLD_VALID_MOST
from receiver.outbox.subscribers.fields import MOST_REASONS, NAME, VALID_TYPES
from receiver.outbox.subscribers.limits import FASTEST, MOST_AMOUNTS, MOST_AT_ONCE, SLOWEST
from receiver.outbox.subscribers.reading import read_start, read_subscriber
from receiver.outbox.subscribers.schema import public_json
from receiver.outbox.subscribers.secrets import FORM, LONGEST, MOST_SECRETS, SHORTEST, read_secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import LONGEST_URL, UrlPolicy
from receiver.store.deliveries.queues import Health

CLOCKS_APART = 300_000
"""ms by which a client's clock may be ahead of ours."""
HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    return {**schema, "type": [schema["type"], "null"]} if "type" in schema else {"anyOf": [schema, {"type": "null"}]}


SECRET: Final[Schema] = {
    "type": "string",
    "pattern": r"^whsec_[A-Za-z0-9+/]+={0,2}$",
    "minLength": 6 + -(-SHORTEST * 4 // 3),
    "maxLength": 6 + -(-LONGEST // 3) * 4,
    "description": f"Signs deliveries, as defined by Standard Webhooks: {FORM}.",
}
AMOUNT_TEXT: Final[Schema] = {"type": "string", "pattern": rf"^{AMOUNT.pattern} {WRITTEN_CURRENCY.pattern}$"}
LINK: Final[Schema] = {"type": "string", "format": "uri", "maxLength": LONGEST_LINK}
SPAN: Final[Schema] = {
    "type": ["string", "integer", "null"],
    "pattern": r"^([0-9]{1,5}(\.[0-9]{1,6})?s?|[0-9]{1,3}h|[0-7]d)$",
    "minimum": 0,
    "maximum": 604_800,
    "description": "How long the previous secrets continue to sign: a span such as 24h (the default), or seconds; at "
    "most 7d. Minutes and sums such as 1h30m are accepted too.",
}
CHANGEABLE: Final[Mapping[str, Schema]] = {
    "url": {
        "type": "string",
        "format": "uri",
        "maxLength": LONGEST_URL,
        "description": "An https URL on the public internet.",
    },
    "types": {
        "type": "array",
        "items": {"type": "string", "enum": [*VALID_TYPES]},
        "minItems": 1,
        "description": "`*`: all refund events. Default: the default types of the format. Short names (`declined`, "
        "`all`) and other letter cases are accepted too.",
    },
    "reasons": {
        "type": "array",
        "items": {"type": "string", "enum": [*REASONS]},
        "minItems": 1,
        "maxItems": MOST_REASONS,
        "description": "Reason codes, in any letter case. Default: all.",
    },
    "minAmount": {
        "description": "Minimum refund amount, one for each currency. Default: no minimum.",
        "anyOf": [AMOUNT_TEXT, {"type": "array", "items": AMOUNT_TEXT, "minItems": 1, "maxItems": MOST_AMOUNTS}],
        "examples": ["100.00 USD"],
    },
    "rate": {"type": "number", "minimum": SLOWEST, "maximum": FASTEST, "description": "Maximum messages per second."},
    "concurrency": {
        "type": "integer",
        "minimum": 1,
        "maximum": MOST_AT_ONCE,
        "description": "Maximum concurrent messages in each process.",
    },
    "backfill": {
        "type": "boolean",
        "description": "Whether it also receives events about refunds that Amazon settled over 7 days before they were "
        "first seen here, such as imported ones. Default: true for cloudevents, false for formats that alert people.",
    },
    "routingKey": {"type": "string", "pattern": whole(ROUTING_KEY), "description": "The PagerDuty routing key."},
    "authorization": {
        "type": "string",
        "maxLength": LONGEST_AUTHORIZATION,
        "description": "The Authorization header for an Alertmanager, such as Bearer TOKEN.",
    },
    "publicUrl": {**LINK, "description": "This service's public URL, for links in messages."},
    "sellerCentral": {**LINK, "description": "URL of Seller Central, for links in messages."},
}
ADD: Final = object_schema(
    "A new subscriber. The allowed fields depend on the format.",
    ("name",),
    {
        "account": ACCOUNT_FIELD,
        "name": {"type": "string", "pattern": whole(NAME)},
        "format": {"type": ["string", "null"], "enum": [*FORMATS, None], "description": "Default: cloudevents."},
        "secret": {**SECRET, "description": f"{SECRET['description']} Default: one is generated and shown once."},
        "secrets": {
            "type": "array",
            "items": SECRET,
            "minItems": 1,
            "maxItems": MOST_SECRETS,
            "description": "Instead of `secret`: several that sign.",
        },
        "start": {
            "description": "The time from which it receives the events still in the stream. Default: now.",
            "anyOf": [{"enum": ["now", "beginning", None]}, time("From this time on.")],
        },
        **{name: nullable(schema) for name, schema in CHANGEABLE.items()},
    },
    {"name": "finance", "url": "https://finance.example/hooks", "types": ["amazonpay.refund.declined"]},
)
CHANGE: Final = {
    **object_schema(
        "The fields to change; null restores the default. Fields of other formats are rejected.",
        (),
        {
            **{name: nullable(schema) for name, schema in CHANGEABLE.items()},
            "secret": {
                "description": "Only together with `url`; required if the URL's scheme, host or port changes. It "
                f"replaces all secrets at once. `{NEW}`: one is generated and shown once.",
                "anyOf": [SECRET, {"const": NEW}],
            },
        },
        {"rate": 10},
    ),
    "minProperties": 1,
}
ROTATE: Final = object_schema(
    "A new secret.",
    (),
    {"secret": {**SECRET, "description": "Default: one is generated and shown once."}, "oldValidFor": SPAN},
    {"oldValidFor": "24h"},
)


def read_begin(given: object, now: int) -> int | None:
    """The time (ms) from which a new subscriber receives events; None: now. Raises `BadRequest` (`bad_start`)."""
    try:
        start = read_start(given)
    except Malformed as error:
        raise BadRequest(f"`start` {error.detail}", reason="bad_start") from None
    if start is not None and start > now + CLOCKS_APART:
        raise BadRequest(
            "`start` is in the future. Omit it: a new subscriber receives events from now on.",
            reason="bad_start",
        )
    return start


def read_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Maps `minAmount` to `min_amount`: JSON and settings spell names differently. A decimal is a JSON number."""
    plain = {HUMP.sub("_", key).lower(): value for key, value in body.items()}
    if len(plain) < len(body):
        raise BadRequest("The body has the same field in two spellings. Keep one.", reason="duplicate_key")
    if isinstance(plain.get("rate"), Decimal):
        plain["rate"] = float(plain["rate"])
    return plain


class NewSubscriber(NamedTuple):
    """A subscriber as a body describes it."""

    subscriber: Subscriber
    start: int | None
    """The time (ms) from which it receives events; None: now."""
    brought: bool
    """Whether the body has its secrets."""
    made: Mapping[str, str]
    """The secret that was generated for it, if it needs one."""


def read_new(fields: dict[str, Any], rules: UrlPolicy, now: int, new_secret: Callable[[], str]) -> NewSubscriber:
    """The subscriber that the fields of a body describe. Raises `BadRequest`."""
    start = read_begin(fields.pop("start", None), now)
    brought = "secret" in fields or "secrets" in fields
    made = {"secret": new_secret()} if format_spec(fields.get("format")).signed and not brought else {}
    subscriber = read_subscriber({**fields, **made}, rules, origin="api", now=now)
    return NewSubscriber(subscriber, start, brought, made)


def read_new_secret(given: object) -> str:
    try:
        if not isinstance(given, str):
            raise Malformed("is not a text.")
        read_secret(given)
    except Malformed as error:
        raise BadRequest(f"secret: {error.detail}", reason="bad_secret") from None
    return given


def read_old_valid(given: object) -> int:
    if given is None:
        return OLD_VALID
    try:
        span = milliseconds(parse_duration(given))
    except ValueError:
        span = -1
    if not 0 <= span <= OLD_VALID_MOST:
        raise BadRequest("`oldValidFor` must be a span from 0s to 7d, such as 24h.", reason="bad_parameter")
    return span


def stats_json(sizes: tuple[int, int, int], health: Health) -> StatsJson:
    """Its delivery health; `sizes`: the number waiting, the number dead, and when the oldest waiting one was
    written."""
    waiting, dead, oldest = sizes
    return StatsJson(
        waiting=waiting,
        oldest_waiting=format_rfc3339(oldest) if oldest else None,
        dead=dead,
        delivered=health.delivered,
        last_success=format_rfc3339(health.success_at) if health.success_at else None,
        last_error=health.error or None,
        last_error_at=format_rfc3339(health.error_at) if health.error_at else None,
        failures_in_a_row=health.streak,
        breaker="open" if health.probing else "closed",
    )


def subscriber_json(account: str, subscriber: Subscriber) -> SubscriberJson:
    return extended(SubscriberJson, public_json(subscriber), account=account)
