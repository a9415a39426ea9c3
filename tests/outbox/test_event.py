"""Events: their ids, and the fields that other services read from the stream."""

from __future__ import annotations

import contextlib
import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import Malformed
from receiver.ledger.lifecycle import EventType, PendingEvent
from receiver.outbox.events.event import Event, event_id, event_of, from_fields, to_fields
from tests.outbox.examples import NOW, a_refund, an_event, any_text, events, long_text, tidy_text

FIELDS = {
    "id": "evt_a0b1dbf5ddba89abbeed14ef890d0517",
    "type": "amazonpay.refund.declined",
    "time": "2019-07-14T16:00:00.250Z",
    "refundId": "S01-5105180-3221187-R022311",
    "state": "Declined",
    "reasonCode": "AmazonRejected",
    "reasonDescription": "The refund was rejected.",
    "lastUpdatedTimestamp": "20190714T155500Z",
    "chargeId": "S01-5105180-3221187-C056351",
    "amount": "14.00",
    "currencyCode": "USD",
    "softDescriptor": "Descriptor",
    "creationTimestamp": "20190714T155300Z",
    "releaseEnvironment": "Sandbox",
    "finals": "Declined@1563119700000",
    "revision": "2",
    "source": "notification",
    "firstSeenAt": "2019-07-14T15:53:01.000Z",
    "changedAt": "2019-07-14T16:00:00.250Z",
}


def test_the_id_is_the_same_whoever_computes_it() -> None:
    """Pinned against `printf 'us\\nS01-…\\namazonpay.refund.declined' | sha256sum`: ids must never change."""
    known = event_id("us", "S01-5105180-3221187-R022311", EventType.DECLINED)
    assert known == "evt_a0b1dbf5ddba89abbeed14ef890d0517"


def test_a_conflict_is_identified_by_the_state_that_contradicts() -> None:
    """Pinned against sha256sum over account, refund, type, state and lastUpdatedTimestamp in ms."""
    known = event_id("us", "S01-5105180-3221187-R022311", EventType.CONFLICT, "Refunded", 1_563_119_580_000)
    assert known == "evt_c10b28264cc954d93f84c0874d33961d"
    assert known != event_id("us", "S01-5105180-3221187-R022311", EventType.CONFLICT, "Refunded", 1_563_119_581_000)


@given(st.integers(1, 10**6), st.integers(0, 10**13), st.sampled_from(["Declined", "Refunded"]), st.integers(0, 10**13))
def test_the_id_does_not_depend_on_revision_or_time(revision: int, at: int, state: str, updated_at: int) -> None:
    """A store that was emptied counts revisions from 1 again; the decline must still be the same event."""
    refund = a_refund(revision=revision, changed_at=at, updated_at=updated_at)
    assert event_of(PendingEvent(EventType.DECLINED, state, updated_at), refund, at).id == FIELDS["id"]


def test_events_of_different_things_have_different_ids() -> None:
    """Account, refund and type each make another event."""
    ids = {
        event_id(account, refund, event_type)
        for account in ("us", "eu")
        for refund in ("R1", "R2")
        for event_type in EventType
    }
    assert len(ids) == 2 * 2 * len(EventType)


def test_the_stream_holds_flat_texts_under_documented_names() -> None:
    """The whole entry of a decline: a public contract. What has no value is not written."""
    assert to_fields(an_event()) == FIELDS


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_is_one_field_more_and_read_back() -> None:
    """It is no part of what happened: the id stays."""
    event = msgspec.structs.replace(an_event(), traceparent=PARENT)
    assert to_fields(event) == {**FIELDS, "traceparent": PARENT}
    assert from_fields("us", to_fields(event)) == event


@pytest.mark.parametrize("text", ["", "x", PARENT.upper(), f"{PARENT}-more", f"{PARENT}\n", "00-0-0-00"])
def test_a_trace_that_is_none_costs_nobody_the_event(text: str) -> None:
    """Entries of other programs are passed over."""
    assert from_fields("us", {**FIELDS, "traceparent": text}) == an_event()


def test_the_ledgers_own_notes_stay_behind() -> None:
    """`emitted` is bookkeeping: no reader of events has a use for it."""
    assert an_event().refund.emitted == ()


@given(events(tidy_text))
def test_what_is_written_is_read_back_whole(event: Event) -> None:
    """Fields → event is the inverse of event → fields, advice included."""
    assert from_fields(event.account, to_fields(event)) == event


@given(events(any_text | long_text))
def test_any_text_of_amazons_can_be_written_and_read(event: Event) -> None:
    """Unprintable and endless texts are tidied once, then stay as they are; no field is empty, all of it is UTF-8."""
    fields = to_fields(event)
    assert all(value and value.encode() for value in fields.values())
    assert to_fields(from_fields(event.account, fields)) == fields


@given(st.dictionaries(st.sampled_from([*FIELDS, "refundType", "unknown"]), any_text))
def test_reading_fails_in_one_way_only(fields: dict[str, str]) -> None:
    """Any fields give an event or `Malformed`."""
    with contextlib.suppress(Malformed):
        from_fields("us", fields)


@given(st.sampled_from(list(FIELDS)), any_text | st.from_regex(r"-?[0-9]{1,30}", fullmatch=True))
def test_reading_an_entry_with_one_odd_field_fails_in_one_way_only(name: str, value: str) -> None:
    """Near misses too; and what could be read can be written again."""
    with contextlib.suppress(Malformed):
        to_fields(from_fields("us", {**FIELDS, name: value}))


@pytest.mark.parametrize("name", ["id", "type", "time", "refundId", "state", "revision", "source", "changedAt"])
def test_an_entry_without_a_required_field_is_unreadable(name: str) -> None:
    """Half an event is none."""
    fields = {key: value for key, value in FIELDS.items() if key != name}
    with pytest.raises(Malformed) as caught:
        from_fields("us", fields)
    assert caught.value.reason == "bad_event"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amount", "14,00"),
        ("currencyCode", ""),
        ("finals", "Declined@9999999999999999"),
        ("finals", "Declined@999999999999999"),
        ("finals", "Declined"),
        ("id", "evt_1"),
        ("refundId", "../x"),
        ("revision", "-1"),
        ("revision", "٣"),
        ("type", "amazonpay.refund.lost"),
        ("creationTimestamp", ""),
    ],
)
def test_a_field_in_another_form_is_unreadable(name: str, value: str) -> None:
    """What stands in a field must have the documented form."""
    with pytest.raises(Malformed):
        from_fields("us", {**FIELDS, name: value})


def test_fields_of_a_later_version_are_passed_over() -> None:
    """An older reader of the stream survives an upgrade of the writer."""
    assert from_fields("us", {**FIELDS, "somethingNew": "x"}) == an_event()


def test_event_ids_are_a_prefix_and_half_a_sha256() -> None:
    """128 bits are enough that no two events share an id."""
    digest = hashlib.sha256(b"us\nR1\namazonpay.refund.stuck").hexdigest()
    assert event_id("us", "R1", EventType.STUCK) == f"evt_{digest[:32]}"
    assert an_event().at == NOW
