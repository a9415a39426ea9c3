"""Pure. The definition of a message format. Each format's module ends in its `FORMAT`; `registry.py` lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from receiver.exchange import Request
from receiver.ledger.dispute import Reminder
from receiver.ledger.lifecycle import EventType
from receiver.outbox.events.dispute_event import DisputeEventType
from receiver.outbox.events.envelope import AnEvent
from receiver.outbox.events.event import Event
from receiver.outbox.events.incident import closes
from receiver.outbox.events.mismatch_event import MismatchEventType
from receiver.outbox.subscribers.filters import matches
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import EXAMPLE, FORBIDDEN_CHARACTERS, URL_TEXT

USER_AGENT = "amazon-pay-refund-receiver"
LINKS = ("public_url", "seller_central")
"""The fields with links for people. Only unsigned formats have them."""
LONGEST_LINK = 512
NEEDS_A_PERSON = (
    *(EventType.DECLINED, EventType.STUCK, EventType.CONFLICT),
    *(DisputeEventType.ACTION_REQUIRED, MismatchEventType.MISMATCH),
)
REMINDED = {Reminder.KNOWN: "warning", Reminder.DAY_BEFORE: "critical"}
"""The severity of each reminder of a dispute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format: its default events, its fields, how many events a message holds, and its renderers."""

    name: str
    types: tuple[EventType | DisputeEventType | MismatchEventType, ...]
    """The event types that are sent by default."""
    renderers: Mapping[type[AnEvent], Callable[[Sequence[Any], Subscriber, int], Request]]
    """For each kind of event that the format can express: makes the request for 1 to `most_in_one` of them at a time in
    ms. Raises `TransportError`."""
    signed: bool = False
    backfill: bool = False
    """Whether it sends by default the events of refunds that were final long before they were first seen. Programs need
    them; people must not be paged for them."""
    incidents: bool = False
    """Whether it has incidents. It accepts only event types that open one, and also gets the events that close one."""
    credential: str = ""
    """The field that holds a credential other than a signing secret. It is never shown."""
    credential_problems: Callable[[object], list[str]] = lambda _: []
    """All problems of that field's value, one sentence each."""
    url: str = ""
    """The default address."""
    example: str = EXAMPLE
    """What its address looks like."""
    most_in_one: int = 1
    """The most events in one message."""
    window: int = 0
    """The shortest time between two messages to one subscriber, ms. Bursts are collected meanwhile."""

    def takes_backfill(self, subscriber: Subscriber) -> bool:
        """Whether the subscriber gets events of refunds that were final long before they were first seen."""
        return self.backfill if subscriber.backfill is None else subscriber.backfill

    def skips(self, subscriber: Subscriber, event: Event) -> bool:
        """Whether the event is skipped because it is a backfill event."""
        return event.refund.backfill and not self.takes_backfill(subscriber)

    def asks(self, subscriber: Subscriber, event: Event) -> bool:
        """Whether the event passes the subscriber's filters."""
        return not self.skips(subscriber, event) and matches(subscriber, event)

    def wants(self, subscriber: Subscriber, event: Event) -> bool:
        """Whether the subscriber is owed the event: it passes the filters, or it closes an incident that was opened.

        A pause makes no difference: the events wait.
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
    """All problems of an address for people, one sentence each. The address is not repeated."""
    if not isinstance(url, str) or not URL_TEXT.fullmatch(url) or FORBIDDEN_CHARACTERS.search(url):
        return ["is not an address; write for example https://refunds.example"]
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return ["cannot be split into host and path; write for example https://refunds.example"]
    if parts.scheme not in ("http", "https") or not host:
        return ["must begin with https:// or http:// and a host; write for example https://refunds.example"]
    if "@" in parts.netloc or "?" in url or "#" in url or len(url) > LONGEST_LINK:
        return [f"must hold no user, query or fragment, and at most {LONGEST_LINK} characters"]
    return []
