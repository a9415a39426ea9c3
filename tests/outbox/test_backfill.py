"""Imported old refunds: programs get their events, people do not, unless the subscriber says otherwise."""

from __future__ import annotations

import msgspec
import pytest

from receiver.errors import BadRequest
from receiver.ledger.lifecycle import EventType
from receiver.outbox.events.event import Event, from_fields, to_fields
from receiver.outbox.formats.cloudevents import cloud_event
from receiver.outbox.formats.registry import FORMATS, wants
from receiver.outbox.subscribers.reading import as_fields, read_subscriber
from receiver.outbox.subscribers.schema import public_json
from receiver.outbox.subscribers.subscriber import Subscriber, decode, encode
from tests.kit.wire import as_json
from tests.outbox.examples import NOW, SECRET, a_subscriber, an_event
from tests.outbox.tellers import FIELDS, RULES, teller

PEOPLE = [name for name in FORMATS if name != "cloudevents"]


def old(event_type: EventType = EventType.DECLINED) -> Event:
    return an_event(event_type, backfill=True)


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("kind", [EventType.DECLINED, EventType.CONFLICT])
def test_people_are_not_called_for_old_refunds(name: str, kind: EventType) -> None:
    """Nor are they notified of the end of an incident that was never opened. Of new refunds they are."""
    subscriber = teller(name)
    assert not wants(subscriber, old(kind))
    assert not FORMATS[name].asks(subscriber, old(kind))
    assert FORMATS[name].skips(subscriber, old(kind))
    assert wants(subscriber, an_event(kind))
    assert not wants(subscriber, old(EventType.REFUNDED))


@pytest.mark.parametrize("name", PEOPLE)
def test_people_who_ask_are_told(name: str) -> None:
    """`backfill = true`."""
    assert wants(teller(name, backfill=True), old())


def test_programs_are_told_with_a_flag() -> None:
    """As an extension of CloudEvents, in the data, and in the stream."""
    assert wants(a_subscriber(), old())
    assert not wants(a_subscriber(backfill=False), old())
    body = as_json(cloud_event(old()))
    assert (body["backfill"], body["data"]["backfill"]) == (True, True)
    news = as_json(cloud_event(an_event()))
    assert "backfill" not in news
    assert news["data"]["backfill"] is False
    assert to_fields(old())["backfill"] == "true"
    assert "backfill" not in to_fields(an_event())
    assert from_fields("us", to_fields(old())) == old()


@pytest.mark.parametrize("chosen", [None, True, False])
def test_the_choice_is_kept_and_shown(chosen: bool | None) -> None:
    """Read, stored, written and shown; without one the format's own is shown."""
    data = {"name": "chat", "url": "https://x.example/hook", "secret": SECRET, "backfill": chosen}
    subscriber = read_subscriber(data, RULES, origin="api", now=NOW)
    assert decode(encode(subscriber)) == subscriber
    assert as_fields(subscriber)["backfill"] is chosen
    assert public_json(subscriber).backfill is (chosen is not False)
    assert public_json(teller("slack")).backfill is False


def test_a_subscriber_that_an_older_version_wrote_is_read() -> None:
    """Without the field, which is left out where nothing was chosen."""
    stored = encode(a_subscriber())
    assert b"backfill" not in stored
    assert msgspec.json.decode(stored, type=Subscriber).backfill is None


@pytest.mark.parametrize("value", ["yes", 1, 0, "true", []])
def test_anything_but_true_and_false_is_refused(value: object) -> None:
    """With the field's name."""
    with pytest.raises(BadRequest, match="backfill: is neither true nor false"):
        read_subscriber({**FIELDS["slack"], "backfill": value}, RULES, origin="api", now=NOW)
