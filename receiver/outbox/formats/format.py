"""Pure. What a format of messages is. Each format's module ends in its `FORMAT`; `registry.py` lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from receiver.exchange import Request
from receiver.ledger.lifecycle import EventType
from receiver.outbox.events.event import Event
from receiver.outbox.events.incident import closes
from receiver.outbox.events.operator_event import OperatorEvent
from receiver.outbox.subscribers.filters import matches
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import FORBIDDEN_CHARACTERS, URL_TEXT

USER_AGENT = "amazon-pay-refund-receiver"
LINKS = ("public_url", "seller_central")
"""The fields with links for people. Formats that are not signed have them."""
LONGEST_LINK = 512
NEEDS_A_PERSON = (EventType.DECLINED, EventType.STUCK, EventType.CONFLICT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format: what it sends by default, which fields it has, how many events it takes, how it is rendered."""

    name: str
    types: tuple[EventType, ...]
    """The events that are sent by default."""
    render: Callable[[Sequence[Event], Subscriber, int], Request]
    """The request for at least one and at most `most_in_one` events, at a time in ms. Raises `TransportError`."""
    render_operator: Callable[[Sequence[OperatorEvent], Subscriber, int], Request] | None = None
    """The same for operator events; None: the format cannot express them."""
    signed: bool = False
    backfill: bool = False
    """Whether events of refunds that were settled long before they were first seen are sent by default. Programs need
    them; people must not be called for them."""
    incidents: bool = False
    """Whether it opens and closes incidents: it takes only events that open one, and is sent those that close one."""
    credential: str = ""
    """The field that is a credential beside signing secrets. It is never shown."""
    credential_problems: Callable[[object], list[str]] = lambda _: []
    """Everything wrong with that field's value, a sentence each."""
    url: str = ""
    """The address to use if the subscriber has none."""
    most_in_one: int = 1
    """Events that one message can hold."""
    window: int = 0
    """How long to wait after a message before the next to the same subscriber, ms. Bursts gather meanwhile."""

    def takes_backfill(self, subscriber: Subscriber) -> bool:
        """Whether the subscriber is sent events of refunds that were settled long before they were first seen."""
        return self.backfill if subscriber.backfill is None else subscriber.backfill

    def skips(self, subscriber: Subscriber, event: Event) -> bool:
        """Whether the event is skipped because its refund is old (`backfill`)."""
        return event.refund.backfill and not self.takes_backfill(subscriber)

    def asks(self, subscriber: Subscriber, event: Event) -> bool:
        """Whether the subscriber's own filters let the event pass."""
        return not self.skips(subscriber, event) and matches(subscriber, event)

    def wants(self, subscriber: Subscriber, event: Event) -> bool:
        """Whether the subscriber is owed the event: its filters let it pass, or it closes an incident that was opened.

        A paused subscriber is owed as much as any other: its events wait.
        """
        if self.asks(subscriber, event):
            return True
        if self.skips(subscriber, event):
            return False
        return self.incidents and any(kind.value in subscriber.types for kind in closes(event))


def post_json(url: str, body: object, **headers: str) -> Request:
    """A request with a JSON body."""
    named = {"content-type": "application/json", "user-agent": USER_AGENT, **headers}
    return Request("POST", url, named, msgspec.json.encode(body))


def link_problems(url: object) -> list[str]:
    """Everything wrong with an address that people are sent to, a sentence each. The address is not repeated."""
    if not isinstance(url, str) or not URL_TEXT.fullmatch(url) or FORBIDDEN_CHARACTERS.search(url):
        return ["is not an address; write for example https://refunds.example"]
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return ["cannot be taken apart into host and path; write for example https://refunds.example"]
    if parts.scheme not in ("http", "https") or not host:
        return ["must begin with https:// or http:// and a host; write for example https://refunds.example"]
    if "@" in parts.netloc or "?" in url or "#" in url or len(url) > LONGEST_LINK:
        return [f"must hold no user, query or fragment, and at most {LONGEST_LINK} characters"]
    return []
