"""Pure. A subscriber's fields in TOML or JSON ↔ a subscriber. All problems are reported at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from receiver.errors import BadRequest, Malformed
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import reason_of
from receiver.ledger.timestamps import parse_any_time
from receiver.outbox.events.dispute_event import DisputeEventType
from receiver.outbox.events.incident import OPENING
from receiver.outbox.events.mismatch_event import MismatchEventType
from receiver.outbox.formats.format import LINKS, Format, link_problems
from receiver.outbox.formats.registry import FORMATS, format_spec
from receiver.outbox.subscribers.fields import (
    ALL,
    BESIDE_REFUNDS,
    OTHER_TYPES,
    VALID_TYPES,
    describe,
    key,
    name_problems,
    reason_problems,
    spelled_type,
    type_problems,
)
from receiver.outbox.subscribers.limits import (
    amount_problems,
    backfill_problems,
    concurrency_problems,
    rate_problems,
    read_amounts,
)
from receiver.outbox.subscribers.secrets import Secret, secret_problems
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import UrlPolicy, url_problems

CREDENTIALS = tuple(each.credential for each in FORMATS.values() if each.credential not in ("", "url"))
FIELDS = (
    *("name", "url", "secret", "secrets", "types", "reasons", "min_amount", "rate", "concurrency", "format"),
    "backfill",
    *CREDENTIALS,
    *LINKS,
)


def read_subscriber(data: object, rules: UrlPolicy, *, origin: str, now: int) -> Subscriber:
    """Read `FIELDS`. Some of them belong to certain formats only.

    Raises `BadRequest` (`bad_subscriber`), whose detail lists every problem, one per line.
    """
    problems = subscriber_problems(data, rules)
    if problems or not isinstance(data, Mapping):
        raise BadRequest("\n".join(problems), reason="bad_subscriber")
    chosen = format_spec(data.get("format"))
    values = (data["secrets"] if "secrets" in data else [data["secret"]]) if chosen.signed else []
    credential = data.get(chosen.credential) if chosen.credential != "url" else None
    return Subscriber(
        name=data["name"],
        url=data.get("url") or chosen.url,
        secrets=tuple(Secret(value) for value in dict.fromkeys(values)),
        types=_types(data.get("types"), chosen.types),
        reasons=tuple(dict.fromkeys(map(reason_of, data.get("reasons") or ()))),
        min_amount=read_amounts(data["min_amount"]) if data.get("min_amount") is not None else (),
        rate=None if data.get("rate") is None else float(data["rate"]),
        concurrency=data.get("concurrency"),
        backfill=data.get("backfill"),
        format=chosen.name,
        credential=Secret(credential) if credential else None,
        public_url="" if chosen.signed else data.get("public_url") or rules.public_url,
        seller_central="" if chosen.signed else data.get("seller_central") or rules.seller_central,
        origin=origin,
        created_at=now,
    )


def subscriber_problems(data: object, rules: UrlPolicy, *, also: Sequence[str] = ()) -> list[str]:
    """All problems of the fields, one sentence each: the field, the problem, the fix.

    A misspelt field may be meant as one of `also`, which are read elsewhere.
    """
    if not isinstance(data, Mapping):
        return ["subscriber: is not a table of fields; write name, url and secret"]
    chosen = format_spec(data.get("format"))
    return [
        *(f"{key(field)}: {_unknown(field, (*FIELDS, *also))}" for field in data if field not in FIELDS),
        *(f"name: {problem}" for problem in name_problems(data.get("name"))),
        *(f"url: {problem}" for problem in url_problems(data.get("url") or chosen.url, rules, chosen.example)),
        *(secret_problems(data) if chosen.signed else ()),
        *(f"types: {problem}" for problem in type_problems(data.get("types"))),
        *(f"reasons: {problem}" for problem in reason_problems(data.get("reasons"))),
        *(f"min_amount: {problem}" for problem in amount_problems(data.get("min_amount"))),
        *(f"rate: {problem}" for problem in rate_problems(data.get("rate"))),
        *(f"concurrency: {problem}" for problem in concurrency_problems(data.get("concurrency"))),
        *(f"backfill: {problem}" for problem in backfill_problems(data.get("backfill"))),
        *format_problems(data),
    ]


def _unknown(field: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(field), known, n=1)
    meant = f"did you mean {near[0]}? Known" if near else "known"
    return f"is not a field of a subscriber; {meant} are {', '.join(known)}"


def read_start(given: object) -> int | None:
    """The time (ms) from which a new subscriber is owed events; None: now. Raises `Malformed` (`bad_start`)."""
    if given in (None, "now"):
        return None
    if given == "beginning":
        return 0
    try:
        return max(parse_any_time(given if isinstance(given, str) else ""), 0)
    except Malformed:
        raise Malformed(
            'must be "now", "beginning", or a time such as "2026-01-31T12:00:00Z".', reason="bad_start"
        ) from None


def as_fields(subscriber: Subscriber) -> dict[str, Any]:
    """An existing subscriber as the fields that `read_subscriber` reads; None for those that are not set."""
    chosen = format_spec(subscriber.format)
    credential = {chosen.credential: subscriber.credential.value} if subscriber.credential else {}
    return {
        "name": subscriber.name,
        "url": subscriber.url,
        **({"secrets": [secret.value for secret in subscriber.secrets]} if chosen.signed else {}),
        "types": list(subscriber.types),
        "reasons": list(subscriber.reasons) or None,
        "min_amount": [str(amount) for amount in subscriber.min_amount] or None,
        "rate": subscriber.rate,
        "concurrency": subscriber.concurrency,
        "backfill": subscriber.backfill,
        "format": subscriber.format,
        "public_url": subscriber.public_url or None,
        "seller_central": subscriber.seller_central or None,
        **credential,
    }


def format_problems(data: Mapping[str, object]) -> Iterator[str]:
    """All problems of `format` and of the fields that only some formats have, one sentence each."""
    name = data.get("format")
    if name is not None and str(name).lower() not in FORMATS:
        yield f"format: {describe(name)} is not a format; known are {', '.join(FORMATS)}"
    known = format_spec(name)
    for field in ("secret", "secrets") if not known.signed else ():
        if data.get(field) is not None:
            yield f"{field}: is not used by {known.name}, which is not signed; leave it out"
    for field in CREDENTIALS:
        if field != known.credential and data.get(field) is not None:
            yield f"{field}: is not used by {known.name}; leave it out"
    for field in LINKS:
        if known.signed and data.get(field) is not None:
            yield f"{field}: is not used by {known.name}, whose receivers make their own links; leave it out"
        elif data.get(field) is not None:
            yield from (f"{field}: {problem}" for problem in link_problems(data[field]))
    for problem in known.credential_problems(data.get(known.credential)):
        yield f"{known.credential}: {problem}"
    yield from _type_problems(known, data.get("types"))


def _type_problems(known: Format, types: object) -> Iterator[str]:
    if not known.incidents or not isinstance(types, list | tuple):
        return
    choice = (*OPENING, *OTHER_TYPES)
    wrong = [each for each in map(spelled_type, types) if isinstance(each, str) and each not in choice]
    if any(each in VALID_TYPES for each in wrong):
        yield f"types: {known.name} has incidents; choose among {', '.join(choice)}"


def _types(given: Any, default: tuple[EventType | DisputeEventType | MismatchEventType, ...]) -> tuple[str, ...]:
    if given is None:
        return tuple(each.value for each in default)
    words = [str(spelled_type(each)) for each in given]
    kept = [each for each in words if each in BESIDE_REFUNDS] if ALL in words else words
    return tuple(dict.fromkeys([ALL, *kept] if ALL in words else kept))
