"""Pure. A subscriber: which events it wants, where they are sent, how they are signed. And its stored form."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from receiver.errors import Malformed
from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import Money
from receiver.outbox.subscribers.secrets import Secret, read_secret
from receiver.outbox.subscribers.url import host_only

CLOUDEVENTS = "cloudevents"
LATER = ("min_amount", "rate", "concurrency", "credential", "backfill", "public_url", "seller_central")
"""Fields that the first subscribers did not have. The stored form omits them where they are empty, because the store
compares its bytes."""


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver of events. It belongs to one account; the same name in another account is another subscriber."""

    name: str
    url: str
    secrets: tuple[Secret, ...]
    types: tuple[str, ...] = (EventType.DECLINED.value,)
    """Event types, or `*` for every type about refunds, also those to come; operator events are asked for by name."""
    reasons: tuple[str, ...] = ()
    """Reason codes; none: every one."""
    min_amount: tuple[Money, ...] = ()
    """Events of smaller refunds are not sent, currency by currency; none: every amount."""
    rate: float | None = None
    """Messages a second at most; None: `delivery.rate`."""
    concurrency: int | None = None
    """Messages under way at once in each process; None: `delivery.per_subscriber`."""
    format: str = CLOUDEVENTS
    backfill: bool | None = None
    """Whether it is sent events of refunds that were settled long before they were first seen; None: as its format has
    it."""
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
            yield name, host_only(self.url) if name == "url" else getattr(self, name)


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
