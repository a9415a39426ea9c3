"""Pure. A subscriber: who wants which events, where, and signed with what; read from people, and kept in the store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import msgspec

from receiver.errors import BadRequest, Malformed
from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import Money
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.subscribers.fields import ALL, OPERATOR_TYPES, key, name_problems, reason_problems, type_problems
from receiver.outbox.subscribers.formats import CLOUDEVENTS, LINKS, format_problems, format_spec
from receiver.outbox.subscribers.limits import (
    amount_problems,
    backfill_problems,
    concurrency_problems,
    rate_problems,
    read_amounts,
)
from receiver.outbox.subscribers.schema import CredentialJson, PublicJson, SecretJson
from receiver.outbox.subscribers.secrets import Secret, read_secret, secret_problems
from receiver.outbox.subscribers.url import UrlPolicy, url_problems

FIELDS = (
    *("name", "url", "secret", "secrets", "types", "reasons", "min_amount", "rate", "concurrency", "format"),
    "backfill",
    *("routing_key", "authorization", *LINKS),
)
LATER = ("min_amount", "rate", "concurrency", "credential", "backfill", *LINKS)
"""Fields that the first subscribers did not have: left out of the stored form where they are empty, because the store
compares its bytes."""


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """Someone to tell. It belongs to one account; the same name in another account is another subscriber."""

    name: str
    url: str
    secrets: tuple[Secret, ...]
    types: tuple[str, ...] = (EventType.DECLINED.value,)
    """Event types, or `*` for every type about refunds, also those to come; operator events are asked for by name."""
    reasons: tuple[str, ...] = ()
    """Reason codes; none: every one."""
    min_amount: tuple[Money, ...] = ()
    """Refunds of less are not told, currency by currency; none: every amount."""
    rate: float | None = None
    """Messages a second at most; None: `delivery.rate`."""
    concurrency: int | None = None
    """Messages under way at once in each process; None: `delivery.per_subscriber`."""
    format: str = CLOUDEVENTS
    backfill: bool | None = None
    """Whether it is told of refunds that were settled long before they were first seen; None: as its format is."""
    credential: Secret | None = None
    """PagerDuty's routing key, or what goes to an Alertmanager as `authorization`."""
    public_url: str = ""
    """Where people reach this service, for links in messages."""
    seller_central: str = ""
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

    def __repr__(self) -> str:
        return f"Subscriber({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> Any:
        for name in self.__struct_fields__:
            yield name, shown_url(self) if name == "url" else getattr(self, name)


def shown_url(subscriber: Subscriber) -> str:
    """The address as people may see it: only the host where the rest is a credential."""
    if format_spec(subscriber.format).credential != "url":
        return subscriber.url
    parts = urlsplit(subscriber.url)
    return f"{parts.scheme}://{parts.netloc}/…"


def most_in_one(subscriber: Subscriber) -> int:
    """How many events one message may tell."""
    return format_spec(subscriber.format).most_in_one


def window(subscriber: Subscriber) -> int:
    """How long to wait after a message before the next of the same lane, ms: a burst gathers meanwhile."""
    return format_spec(subscriber.format).window


def told_of_old(subscriber: Subscriber) -> bool:
    """Whether the subscriber is told of refunds that were settled long before they were first seen."""
    return format_spec(subscriber.format).backfill if subscriber.backfill is None else subscriber.backfill


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
    if (stored.url, stored.credential) != (configured.url, configured.credential):
        return msgspec.structs.replace(kept, paused_ms=resume(stored, configured.created_at).paused_ms)
    return msgspec.structs.replace(kept, paused=True, paused_reason=stored.paused_reason, paused_at=stored.paused_at)


def read_subscriber(data: object, rules: UrlPolicy, *, origin: str, now: int) -> Subscriber:
    """Read what a person wrote, as TOML or JSON gave it to us: `FIELDS`, of which each format has its own.

    Raises `BadRequest` (`bad_subscriber`), whose detail names every problem, one a line.
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
        reasons=tuple(dict.fromkeys(data.get("reasons") or ())),
        min_amount=read_amounts(data["min_amount"]) if data.get("min_amount") is not None else (),
        rate=None if data.get("rate") is None else float(data["rate"]),
        concurrency=data.get("concurrency"),
        backfill=data.get("backfill"),
        format=data.get("format") or CLOUDEVENTS,
        credential=Secret(credential) if credential else None,
        public_url="" if chosen.signed else data.get("public_url") or rules.public_url,
        seller_central="" if chosen.signed else data.get("seller_central") or rules.seller_central,
        origin=origin,
        created_at=now,
    )


def subscriber_problems(data: object, rules: UrlPolicy) -> list[str]:
    """Everything wrong with what a person wrote, a sentence each: the field, what is wrong with it, the mend."""
    if not isinstance(data, Mapping):
        return ["subscriber: is not a table of fields; write name, url and secret"]
    return [
        *(
            f"{key(field)}: is not a field of a subscriber; known are {', '.join(FIELDS)}"
            for field in data
            if field not in FIELDS
        ),
        *(f"name: {problem}" for problem in name_problems(data.get("name"))),
        *(f"url: {problem}" for problem in url_problems(data.get("url") or format_spec(data.get("format")).url, rules)),
        *(secret_problems(data) if format_spec(data.get("format")).signed else ()),
        *(f"types: {problem}" for problem in type_problems(data.get("types"))),
        *(f"reasons: {problem}" for problem in reason_problems(data.get("reasons"))),
        *(f"min_amount: {problem}" for problem in amount_problems(data.get("min_amount"))),
        *(f"rate: {problem}" for problem in rate_problems(data.get("rate"))),
        *(f"concurrency: {problem}" for problem in concurrency_problems(data.get("concurrency"))),
        *(f"backfill: {problem}" for problem in backfill_problems(data.get("backfill"))),
        *format_problems(data),
    ]


def written(subscriber: Subscriber) -> dict[str, Any]:
    """The fields as a person would write them, for `read_subscriber`: None where there is nothing to write."""
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


def public_json(subscriber: Subscriber) -> PublicJson:
    """The subscriber as people may see it: of a secret only its fingerprint and its end."""
    return PublicJson(
        name=subscriber.name,
        url=shown_url(subscriber),
        types=list(subscriber.types),
        reasons=list(subscriber.reasons) or None,
        min_amount=[str(amount) for amount in subscriber.min_amount] or None,
        rate=subscriber.rate,
        concurrency=subscriber.concurrency,
        backfill=told_of_old(subscriber),
        format=subscriber.format,
        credential=_credential_json(subscriber),
        public_url=subscriber.public_url or None,
        paused=subscriber.paused,
        paused_reason=subscriber.paused_reason or None,
        paused_at=format_rfc3339(subscriber.paused_at) if subscriber.paused else None,
        origin=subscriber.origin,
        created_at=format_rfc3339(subscriber.created_at) if subscriber.created_at else None,
        secrets=[
            SecretJson(
                fingerprint=secret.fingerprint,
                expires_at=None if secret.expires_at is None else format_rfc3339(secret.expires_at),
            )
            for secret in subscriber.secrets
        ],
    )


def encode(subscriber: Subscriber) -> bytes:
    """The stored form: JSON, with the secrets."""
    fields = msgspec.to_builtins(subscriber)
    return msgspec.json.encode(
        {name: value for name, value in fields.items() if value or value is False or name not in LATER}
    )


@lru_cache(maxsize=128)
def decode(stored: bytes) -> Subscriber:
    """The subscriber that `encode` wrote; fields of a later version are passed over.

    Raises `Malformed` (`bad_subscriber`) only.
    """
    try:
        subscriber = msgspec.json.decode(stored, type=Subscriber)
        for secret in subscriber.secrets:
            read_secret(secret.value)
    except (msgspec.MsgspecError, Malformed, UnicodeError, RecursionError) as error:
        raise Malformed("The stored subscriber cannot be read.", reason="bad_subscriber") from error
    return subscriber


def _credential_json(subscriber: Subscriber) -> CredentialJson | None:
    """The field that is a credential, and a fingerprint of it; of signing secrets, `secrets` tells."""
    field = format_spec(subscriber.format).credential
    kept = Secret(subscriber.url) if field == "url" else subscriber.credential
    return CredentialJson(field=field, fingerprint=kept.fingerprint) if field and kept else None


def _types(given: Any, default: tuple[EventType, ...]) -> tuple[str, ...]:
    if given is None:
        return tuple(each.value for each in default)
    kept = [each for each in given if each in OPERATOR_TYPES] if ALL in given else given
    return tuple(dict.fromkeys([ALL, *kept] if ALL in given else kept))
