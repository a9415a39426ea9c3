"""Pure. A subscriber: who wants which events, where, and signed with what; read from people, and kept in the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from receiver.errors import BadRequest, Unreadable
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Money, format_rfc3339
from receiver.outbox.event import Event
from receiver.outbox.limits import amount_problems, concurrency_problems, large_enough, rate_problems, read_amounts
from receiver.outbox.operator_event import FAMILY, OperatorEvent, OperatorType
from receiver.outbox.secret import Secret as Secret
from receiver.outbox.secret import secret_problems
from receiver.outbox.signature import PREFIX, read_secret
from receiver.outbox.target import Rules, url_problems

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
KEY = re.compile(r"[A-Za-z0-9_-]{1,50}")
REASON = re.compile(r"[A-Za-z0-9_.-]{1,64}")
FORMATS = ("cloudevents",)
ALL = "*"
KNOWN_TYPES = tuple(each.value for each in EventType if each is not EventType.TEST)
OPERATOR_TYPES = (*(each.value for each in OperatorType), FAMILY)
VALID_TYPES = (*KNOWN_TYPES, ALL, *OPERATOR_TYPES)
DEFAULT_TYPES = (EventType.DECLINED.value,)
MOST_REASONS = 32
FIELDS = ("name", "url", "secret", "secrets", "types", "reasons", "min_amount", "format", "rate", "concurrency")


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """Someone to tell. It belongs to one account; the same name in another account is another subscriber."""

    name: str
    url: str
    secrets: tuple[Secret, ...]
    types: tuple[str, ...] = DEFAULT_TYPES
    """Event types, or `*` for every type about refunds, also those to come; operator events are asked for by name."""
    reasons: tuple[str, ...] = ()
    """Reason codes; none: every one."""
    min_amount: tuple[Money, ...] = ()
    """Refunds of less are not told, currency by currency; none: every amount."""
    rate: float | None = None
    """Messages a second at most; None: `delivery.rate`."""
    concurrency: int | None = None
    """Messages under way at once in each process; None: `delivery.per_subscriber`."""
    format: str = "cloudevents"
    paused: bool = False
    paused_reason: str = ""
    """Why, as a word: `gone` (it answered 410), `failing` (nothing succeeded for days), `operator`."""
    paused_at: int = 0
    """When the present pause began, ms."""
    paused_ms: int = 0
    """All pauses that have ended, together, ms: time that does not count against what is still owed."""
    origin: str = "config"
    """`config` or `api`."""
    created_at: int = 0


def wants(subscriber: Subscriber, event: Event) -> bool:
    """Whether the subscriber is owed the event. A refund without a reason code passes the filter of reasons, one
    without an amount, or in a currency that is not named, that of amounts.

    A paused subscriber is owed as much as any: its events wait.
    """
    if ALL not in subscriber.types and event.type.value not in subscriber.types:
        return False
    reason = event.refund.reason_code
    if reason and subscriber.reasons and reason not in subscriber.reasons:
        return False
    return large_enough(event.refund.amount, subscriber.min_amount)


def wants_operator(subscriber: Subscriber, event: OperatorEvent) -> bool:
    """Whether the subscriber has asked for operator events of this type."""
    return FAMILY in subscriber.types or event.type.value in subscriber.types


def told_of_declines(subscriber: Subscriber) -> bool:
    """Whether the subscriber is told about declines, of some kind at least."""
    return bool({ALL, EventType.DECLINED.value} & set(subscriber.types))


def guards_declines(subscriber: Subscriber, other: Subscriber) -> bool:
    """Whether `other` is told at least of every decline that `subscriber` is told of, and is awake."""
    if other.paused or not told_of_declines(other):
        return False
    reasons = not other.reasons or (bool(subscriber.reasons) and set(subscriber.reasons) <= set(other.reasons))
    return reasons and other.min_amount in ((), subscriber.min_amount)


def most_in_one(subscriber: Subscriber) -> int:
    """How many events one message to the subscriber may hold."""
    return 1


def window(subscriber: Subscriber) -> int:
    """For how many ms after a message the next one waits, so that a burst is told at once, and then summed up."""
    return 0


def pause(subscriber: Subscriber, reason: str, now: int) -> Subscriber:
    """The subscriber, paused since `now` (ms). One that is paused already stays so since when and why it was."""
    if subscriber.paused:
        return subscriber
    return msgspec.structs.replace(subscriber, paused=True, paused_reason=reason, paused_at=now)


def resume(subscriber: Subscriber, now: int) -> Subscriber:
    """The subscriber, awake again; the pause is added to `paused_ms`."""
    if not subscriber.paused:
        return subscriber
    rested = subscriber.paused_ms + max(0, now - subscriber.paused_at)
    return msgspec.structs.replace(subscriber, paused=False, paused_reason="", paused_at=0, paused_ms=rested)


def carry_over(configured: Subscriber, stored: Subscriber | None) -> Subscriber:
    """What the configuration says of a subscriber, with what happened to the stored one: its birth and its pauses.

    So a restart does not wake a subscriber that asked to be left alone, unless its address was changed since.
    """
    if stored is None:
        return configured
    kept = msgspec.structs.replace(configured, created_at=stored.created_at, paused_ms=stored.paused_ms)
    if not stored.paused:
        return kept
    if stored.url != configured.url:
        return msgspec.structs.replace(kept, paused_ms=resume(stored, configured.created_at).paused_ms)
    return msgspec.structs.replace(kept, paused=True, paused_reason=stored.paused_reason, paused_at=stored.paused_at)


def read_subscriber(data: object, rules: Rules, *, origin: str, now: int) -> Subscriber:
    """Read what a person wrote, as TOML or JSON gave it to us: name, url, secret or secrets, types, reasons, format.

    Raises `BadRequest` (`bad_subscriber`), whose detail names every problem, one a line.
    """
    problems = subscriber_problems(data, rules)
    if problems or not isinstance(data, Mapping):
        raise BadRequest("\n".join(problems), reason="bad_subscriber")
    values = data["secrets"] if "secrets" in data else [data["secret"]]
    return Subscriber(
        name=data["name"],
        url=data["url"],
        secrets=tuple(Secret(value) for value in dict.fromkeys(values)),
        types=_types(data.get("types")),
        reasons=tuple(dict.fromkeys(data.get("reasons") or ())),
        min_amount=read_amounts(data["min_amount"]) if data.get("min_amount") is not None else (),
        format=data.get("format") or FORMATS[0],
        rate=data.get("rate"),
        concurrency=data.get("concurrency"),
        origin=origin,
        created_at=now,
    )


def subscriber_problems(data: object, rules: Rules) -> list[str]:
    """Everything wrong with what a person wrote, a sentence each: the field, what is wrong with it, the mend."""
    if not isinstance(data, Mapping):
        return ["subscriber: is not a table of fields; write name, url and secret"]
    return [
        *(
            f"{_key(key)}: is not a field of a subscriber; known are {', '.join(FIELDS)}"
            for key in data
            if key not in FIELDS
        ),
        *(f"name: {problem}" for problem in _name_problems(data.get("name"))),
        *(f"url: {problem}" for problem in url_problems(data.get("url"), rules)),
        *secret_problems(data),
        *(f"types: {problem}" for problem in _type_problems(data.get("types"))),
        *(f"reasons: {problem}" for problem in _reason_problems(data.get("reasons"))),
        *(f"min_amount: {problem}" for problem in amount_problems(data.get("min_amount"))),
        *(f"rate: {problem}" for problem in rate_problems(data.get("rate"))),
        *(f"concurrency: {problem}" for problem in concurrency_problems(data.get("concurrency"))),
        *(f"format: {problem}" for problem in _format_problems(data.get("format"))),
    ]


def written(subscriber: Subscriber) -> dict[str, Any]:
    """The fields as a person would write them, for `read_subscriber`: None where there is nothing to write."""
    return {
        "name": subscriber.name,
        "url": subscriber.url,
        "secrets": [secret.value for secret in subscriber.secrets],
        "types": list(subscriber.types),
        "reasons": list(subscriber.reasons) or None,
        "min_amount": [str(amount) for amount in subscriber.min_amount] or None,
        "format": subscriber.format,
        "rate": subscriber.rate,
        "concurrency": subscriber.concurrency,
    }


def public_json(subscriber: Subscriber) -> dict[str, Any]:
    """The subscriber as people may see it: of a secret only its fingerprint and its end."""
    return {
        "name": subscriber.name,
        "url": subscriber.url,
        "types": list(subscriber.types),
        "reasons": list(subscriber.reasons) or None,
        "minAmount": [str(amount) for amount in subscriber.min_amount] or None,
        "format": subscriber.format,
        "rate": subscriber.rate,
        "concurrency": subscriber.concurrency,
        "paused": subscriber.paused,
        "pausedReason": subscriber.paused_reason or None,
        "pausedAt": format_rfc3339(subscriber.paused_at) if subscriber.paused else None,
        "origin": subscriber.origin,
        "createdAt": format_rfc3339(subscriber.created_at) if subscriber.created_at else None,
        "secrets": [
            {
                "fingerprint": secret.fingerprint,
                "expiresAt": None if secret.expires_at is None else format_rfc3339(secret.expires_at),
            }
            for secret in subscriber.secrets
        ],
    }


def encode(subscriber: Subscriber) -> bytes:
    """The stored form: JSON, with the secrets."""
    return msgspec.json.encode(subscriber)


def decode(stored: bytes) -> Subscriber:
    """The subscriber that `encode` wrote; fields of a later version are passed over.

    Raises `Unreadable` (`bad_subscriber`) only.
    """
    try:
        subscriber = msgspec.json.decode(stored, type=Subscriber)
        for secret in subscriber.secrets:
            read_secret(secret.value)
    except (msgspec.MsgspecError, Unreadable, UnicodeError, RecursionError) as error:
        raise Unreadable("The stored subscriber cannot be read.", reason="bad_subscriber") from error
    return subscriber


def _types(given: Any) -> tuple[str, ...]:
    if given is None:
        return DEFAULT_TYPES
    kept = [each for each in given if each in OPERATOR_TYPES] if ALL in given else given
    return tuple(dict.fromkeys([ALL, *kept] if ALL in given else kept))


def _name_problems(name: object) -> list[str]:
    if isinstance(name, str) and NAME.fullmatch(name):
        return []
    wrong = "is missing" if name is None else "is not a plain word"
    return [f"{wrong}; use 1 to 64 of a-z 0-9 _ -, a letter or digit first"]


def _type_problems(types: object) -> list[str]:
    if types is None:
        return []
    known = f"known are {', '.join(KNOWN_TYPES)}, {ALL} for all of them, and {', '.join(OPERATOR_TYPES)}"
    if not isinstance(types, list | tuple) or not types:
        return [f"is not a list of event types; {known}; leave it out for {DEFAULT_TYPES[0]}"]
    return [f"{_shown(each)} is not an event type; {known}" for each in types if each not in VALID_TYPES]


def _reason_problems(reasons: object) -> list[str]:
    if reasons is None:
        return []
    if not isinstance(reasons, list | tuple) or not 1 <= len(reasons) <= MOST_REASONS:
        return [f"is not a list of 1 to {MOST_REASONS} reason codes such as AmazonRejected; leave it out for all"]
    return [
        f"{_shown(each)} is not a reason code; use 1 to 64 letters, digits, _ . -"
        for each in reasons
        if not isinstance(each, str) or not REASON.fullmatch(each)
    ]


def _format_problems(given: object) -> list[str]:
    known = f"known are {', '.join(FORMATS)}"
    return [] if given is None or given in FORMATS else [f"{_shown(given)} is not a format; {known}"]


def _key(key: object) -> str:
    return key if isinstance(key, str) and KEY.fullmatch(key) else _shown(key)


def _shown(value: object) -> str:
    """What a person wrote, short and printable, as a reminder of what is meant; never a secret in the wrong place."""
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    if PREFIX in value:
        return "a secret"
    return ascii(value) if len(value) <= 50 else ascii(value[:50]) + "…"
