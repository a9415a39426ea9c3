"""Pure. A subscriber: its filters, address, secrets and pauses, and its stored form."""

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
LATER = ("min_amount", "rate", "concurrency", "credential", "backfill", "public_url", "seller_central", "undeclared_at")
"""Fields added by later versions. The stored form omits them if they are empty, because the store compares its
bytes."""


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver of one account's events. The same name in another account is another subscriber."""

    name: str
    url: str
    secrets: tuple[Secret, ...]
    types: tuple[str, ...] = (EventType.DECLINED.value,)
    """Event types. `*` means every refund type, including future ones. All others are named explicitly; people
    who get declines also get balance events."""
    reasons: tuple[str, ...] = ()
    """Reason codes; empty: all."""
    min_amount: tuple[Money, ...] = ()
    """The minimum amount for each currency. Events of smaller refunds are not sent; empty: all amounts."""
    rate: float | None = None
    """The most messages a second; None: `delivery.rate`."""
    concurrency: int | None = None
    """The most messages in flight in each process; None: `delivery.per_subscriber`."""
    format: str = CLOUDEVENTS
    backfill: bool | None = None
    """Whether it gets events of refunds that were final long before they were first seen; None: the format's
    default."""
    credential: Secret | None = None
    """PagerDuty's routing key, or the `authorization` header for an Alertmanager."""
    public_url: str = ""
    """The address of this service for people, used in links."""
    seller_central: str = ""
    paused: bool = False
    paused_reason: str = ""
    """Why it is paused: `gone` (it answered 410), `failing` (nothing succeeded for days), `operator`."""
    paused_at: int = 0
    """When the current pause began, ms."""
    paused_ms: int = 0
    """The sum of all ended pauses, ms. This time does not count towards the expiry of waiting events."""
    origin: str = "config"
    """`config` or `api`."""
    undeclared_at: int = 0
    """When the settings no longer named it, ms. It still gets events, until a person removes it. 0: they
    name it, or it was added through the API."""
    created_at: int = 0

    def __repr__(self) -> str:
        return f"Subscriber({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> Any:
        for name in self.__struct_fields__:
            yield name, host_only(self.url) if name == "url" else getattr(self, name)


def pause(subscriber: Subscriber, reason: str, now: int) -> Subscriber:
    """The subscriber, paused at `now` (ms). An earlier pause keeps its time and reason."""
    if subscriber.paused:
        return subscriber
    return msgspec.structs.replace(subscriber, paused=True, paused_reason=reason, paused_at=now)


def resume(subscriber: Subscriber, now: int) -> Subscriber:
    """The subscriber, active again. The pause is added to `paused_ms`."""
    if not subscriber.paused:
        return subscriber
    rested = subscriber.paused_ms + max(0, now - subscriber.paused_at)
    return msgspec.structs.replace(subscriber, paused=False, paused_reason="", paused_at=0, paused_ms=rested)


def carry_over(configured: Subscriber, stored: Subscriber | None) -> Subscriber:
    """The configured subscriber with the history of the stored one: its creation time and pauses.

    So a restart does not resume a paused subscriber, unless its address or credential has changed.
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
    """The subscriber that `encode` wrote. Fields of later versions are ignored.

    Raises `Malformed` (`bad_subscriber`) only.
    """
    try:
        subscriber = msgspec.json.decode(stored, type=Subscriber)
        for secret in subscriber.secrets:
            read_secret(secret.value)
    except (msgspec.MsgspecError, Malformed, UnicodeError, RecursionError) as error:
        raise Malformed("The stored subscriber cannot be read.", reason="bad_subscriber") from error
    return subscriber
