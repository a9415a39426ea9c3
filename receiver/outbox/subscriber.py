"""Pure. A subscriber: who wants which events, where, and signed with what; read from people, and kept in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from receiver.errors import BadRequest, Unreadable
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import format_rfc3339
from receiver.outbox.event import Event
from receiver.outbox.formats import CLOUDEVENTS, LINKS, format_problems, traits
from receiver.outbox.incident import closes
from receiver.outbox.signature import read_secret
from receiver.outbox.target import Rules, url_problems
from receiver.outbox.written import ALL, key, name_problems, reason_problems, secret_problems, type_problems

FIELDS = ("name", "url", "secret", "secrets", "types", "reasons", "format", "routing_key", "authorization", *LINKS)
LATER = ("credential", *LINKS)
"""Fields that the first subscribers did not have: left out of the stored form where they are empty, because the store
compares its bytes."""


class Secret(msgspec.Struct, frozen=True):
    """A signing secret, `whsec_…`. It is in the stored form and nowhere else: not in a repr, not in what people see."""

    value: str
    expires_at: int | None = None
    """From this ms on it no longer signs; None: it signs until it is taken away."""

    def live(self, now: int) -> bool:
        """Whether it signs at `now` (ms)."""
        return self.expires_at is None or now < self.expires_at

    @property
    def fingerprint(self) -> str:
        """Eight hex digits by which people can tell two secrets apart."""
        return hashlib.sha256(self.value.encode("utf-8", "replace")).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Secret({self.fingerprint}, expires_at={self.expires_at})"

    def __rich_repr__(self) -> Any:
        yield self.fingerprint
        yield "expires_at", self.expires_at


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """Someone to tell. It belongs to one account; the same name in another account is another subscriber."""

    name: str
    url: str
    secrets: tuple[Secret, ...]
    types: tuple[str, ...] = (EventType.DECLINED.value,)
    """Event types, or `*` for every type, also those to come."""
    reasons: tuple[str, ...] = ()
    """Reason codes; none: every one."""
    format: str = CLOUDEVENTS
    credential: Secret | None = None
    """PagerDuty's routing key, or what goes to an Alertmanager as `authorization`."""
    public_url: str = ""
    """Where people reach this service, for links in messages."""
    seller_central: str = ""
    paused: bool = False
    paused_reason: str = ""
    """Why, as a word: `gone` (it answered 410), `operator`."""
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
    if traits(subscriber.format).credential != "url":
        return subscriber.url
    parts = urlsplit(subscriber.url)
    return f"{parts.scheme}://{parts.netloc}/…"


def most_in_one(subscriber: Subscriber) -> int:
    """How many events one message may tell."""
    return traits(subscriber.format).most_in_one


def window(subscriber: Subscriber) -> int:
    """How long to wait after a message before the next of the same lane, ms: a burst gathers meanwhile."""
    return traits(subscriber.format).window


def wants(subscriber: Subscriber, event: Event) -> bool:
    """Whether the subscriber is owed the event: it asks for it, or the event ends an incident that it was told of.

    A paused subscriber is owed as much as any: its events wait.
    """
    if asks(subscriber, event):
        return True
    return traits(subscriber.format).incidents and any(kind.value in subscriber.types for kind in closes(event))


def asks(subscriber: Subscriber, event: Event) -> bool:
    """Whether type and reason are those asked for. An event whose refund has no reason code passes the filter."""
    if ALL not in subscriber.types and event.type.value not in subscriber.types:
        return False
    reason = event.refund.reason_code
    return not (reason and subscriber.reasons) or reason in subscriber.reasons


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


def read_subscriber(data: object, rules: Rules, *, origin: str, now: int) -> Subscriber:
    """Read what a person wrote, as TOML or JSON gave it to us: `FIELDS`, of which each format has its own.

    Raises `BadRequest` (`bad_subscriber`), whose detail names every problem, one a line.
    """
    problems = subscriber_problems(data, rules)
    if problems or not isinstance(data, Mapping):
        raise BadRequest("\n".join(problems), reason="bad_subscriber")
    chosen = traits(data.get("format"))
    values = (data["secrets"] if "secrets" in data else [data["secret"]]) if chosen.signed else []
    credential = data.get(chosen.credential) if chosen.credential != "url" else None
    return Subscriber(
        name=data["name"],
        url=data.get("url") or chosen.url,
        secrets=tuple(Secret(value) for value in dict.fromkeys(values)),
        types=_types(data.get("types"), chosen.types),
        reasons=tuple(dict.fromkeys(data.get("reasons") or ())),
        format=data.get("format") or CLOUDEVENTS,
        credential=Secret(credential) if credential else None,
        public_url="" if chosen.signed else data.get("public_url") or rules.public_url,
        seller_central="" if chosen.signed else data.get("seller_central") or rules.seller_central,
        origin=origin,
        created_at=now,
    )


def subscriber_problems(data: object, rules: Rules) -> list[str]:
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
        *(f"url: {problem}" for problem in url_problems(data.get("url") or traits(data.get("format")).url, rules)),
        *(secret_problems(data) if traits(data.get("format")).signed else ()),
        *(f"types: {problem}" for problem in type_problems(data.get("types"))),
        *(f"reasons: {problem}" for problem in reason_problems(data.get("reasons"))),
        *format_problems(data),
    ]


def public_json(subscriber: Subscriber) -> dict[str, Any]:
    """The subscriber as people may see it: of a secret only its fingerprint and its end."""
    return {
        "name": subscriber.name,
        "url": shown_url(subscriber),
        "types": list(subscriber.types),
        "reasons": list(subscriber.reasons) or None,
        "format": subscriber.format,
        "credential": _credential_json(subscriber),
        "publicUrl": subscriber.public_url or None,
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
    fields = msgspec.to_builtins(subscriber)
    return msgspec.json.encode({name: value for name, value in fields.items() if value or name not in LATER})


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


def _credential_json(subscriber: Subscriber) -> dict[str, str] | None:
    """The field that is a credential, and a fingerprint of it; of signing secrets, `secrets` tells."""
    field = traits(subscriber.format).credential
    kept = Secret(subscriber.url) if field == "url" else subscriber.credential
    return {"field": field, "fingerprint": kept.fingerprint} if field and kept else None


def _types(given: Any, default: tuple[EventType, ...]) -> tuple[str, ...]:
    if given is None:
        return tuple(each.value for each in default)
    return (ALL,) if ALL in given else tuple(dict.fromkeys(given))
