"""Refunds, events and subscribers to test with; strategies that make any of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import strategies as st

from receiver.ledger.lifecycle import EventType, PendingEvent
from receiver.ledger.money import Money
from receiver.ledger.refund import Reason, Refund, Source, State
from receiver.ledger.schema import DESCRIPTION_LIMIT, TEXT_LIMIT, tidy
from receiver.outbox.events.event import Event, event_of
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber

NOW = 1_563_120_000_250
"""2019-07-14T16:00:00.250Z"""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

DECLINED = Refund(
    account="us",
    refund_id="S01-5105180-3221187-R022311",
    state=State.DECLINED,
    revision=2,
    updated_at=1_563_119_700_000,
    first_seen_at=1_563_119_581_000,
    changed_at=NOW,
    source=Source.NOTIFICATION,
    charge_id="S01-5105180-3221187-C056351",
    amount=Money(Decimal("14.00"), "USD"),
    reason_code=Reason.AMAZON_REJECTED,
    reason_description="The refund was rejected.",
    soft_descriptor="Descriptor",
    created_at=1_563_119_580_000,
    environment="Sandbox",
    finals=("Declined@1563119700000",),
    emitted=(EventType.DECLINED, EventType.INITIATED),
)


def a_refund(**changes: Any) -> Refund:
    """The declined refund, changed."""
    return msgspec.structs.replace(DECLINED, **changes)


def an_event(event_type: EventType = EventType.DECLINED, **changes: Any) -> Event:
    """An event of the declined refund, changed."""
    refund = a_refund(**changes)
    return event_of(PendingEvent(event_type, refund.state, refund.updated_at), refund, NOW)


def a_subscriber(**changes: Any) -> Subscriber:
    """A subscriber to every event."""
    plain = Subscriber(
        name="finance", url="https://finance.example/hooks", secrets=(Secret(SECRET),), types=("*",), created_at=NOW
    )
    return msgspec.structs.replace(plain, **changes)


any_text = st.text(st.characters())
"""Any text that Python can hold, halves of surrogate pairs included: JSON can smuggle them in."""
times = st.integers(-62_135_596_800_000, 253_402_300_799_999)
our_times = st.integers(1_400_000_000_000, 4_100_000_000_000)
moneys = st.builds(
    Money,
    st.decimals(0, 999_999_999_999, allow_nan=False, allow_infinity=False, places=2),
    st.sampled_from(["USD", "EUR", "GBP", "JPY", "KWD"]),
)
finals = st.lists(
    st.builds(lambda state, at: f"{state}@{at}", st.sampled_from(["Refunded", "Declined"]), times), max_size=16
).map(tuple)


def refunds(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Refund]:
    """Any refund whose texts from outside are of the given kind."""
    return st.builds(
        Refund,
        account=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,30}", fullmatch=True),
        refund_id=st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True),
        state=st.sampled_from(list(State)) | texts.filter(lambda text: bool(tidy(text))),
        revision=st.integers(1, 10**9),
        updated_at=times,
        first_seen_at=our_times,
        changed_at=our_times,
        source=st.sampled_from(Source),
        charge_id=texts,
        amount=st.none() | moneys,
        reason_code=st.sampled_from(["", *Reason]) | texts,
        reason_description=texts,
        soft_descriptor=texts,
        created_at=times,
        environment=texts,
        order_reference=texts,
        refund_type=texts,
        conflict=st.booleans(),
        finals=finals,
        emitted=st.lists(st.sampled_from(EventType).map(str), max_size=5).map(tuple),
    )


def events(texts: st.SearchStrategy[str] = any_text) -> st.SearchStrategy[Event]:
    """Any event."""
    emissions = st.builds(PendingEvent, st.sampled_from(EventType), st.sampled_from(State), times)
    return st.builds(event_of, emissions, refunds(texts), our_times)


tidy_text = any_text.map(lambda text: tidy(text, TEXT_LIMIT))
long_text = st.integers(0, 3 * DESCRIPTION_LIMIT).flatmap(
    lambda size: st.text(st.characters(), min_size=1, max_size=5).map(lambda text: (text * size)[:size])
) | st.sampled_from(["😀" * 5000, '"\\' * 5000, "\x00" * 5000, "\ud800" * 5000])
