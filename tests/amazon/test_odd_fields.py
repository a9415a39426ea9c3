"""One field of a complete answer gets any value: the decline is still read, stored, and rendered in every format."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.amazon.calls import read_refund
from receiver.exchange import Response
from receiver.ledger.lifecycle import EventType, decide
from receiver.ledger.refund import Source, is_theirs
from receiver.outbox.events.event import event_of, from_fields, to_fields
from receiver.outbox.formats.registry import FORMATS, render, wants
from receiver.store.refunds.codec import from_hash, to_hash
from tests.outbox.examples import a_subscriber
from tests.outbox.tellers import teller

NOW = 1_563_200_000_000

WHOLE: dict[str, Any] = {
    "refundId": "S01-5105180-3221187-R022311",
    "chargeId": "S01-5105180-3221187-C056351",
    "refundAmount": {"amount": "14.00", "currencyCode": "USD"},
    "softDescriptor": "Descriptor",
    "creationTimestamp": "20190714T155300Z",
    "statusDetails": {
        "state": "Declined",
        "reasonCode": "AmazonRejected",
        "reasonDescription": "It was rejected.",
        "lastUpdatedTimestamp": "20190714T155301Z",
    },
    "releaseEnvironment": "Sandbox",
    "disbursementDetails": None,
}
PLACES: list[tuple[str, ...]] = [
    *((name,) for name in WHOLE if name not in ("refundId", "statusDetails")),
    *(("statusDetails", name) for name in WHOLE["statusDetails"] if name != "state"),
    *(("refundAmount", name) for name in WHOLE["refundAmount"]),
    ("more",),
    ("statusDetails", "more"),
]
TEXTS = st.one_of(
    st.text(st.characters(codec=None), max_size=300),
    st.text("0123456789.eE+-TZ: ", max_size=30),
    st.sampled_from(
        ["", " ", "None", "null", "usd", "1e9", "0x1", "9" * 5_000, "\ud800", "\x00", "2019-02-30T00:00:00Z"]
    ),
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**12, -1, 1e300]))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def changed(place: tuple[str, ...], value: Any) -> bytes:
    """A complete answer with one field changed."""
    body = copy.deepcopy(WHOLE)
    inner = body
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return json.dumps(body).encode()


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(PLACES), VALUES)
def test_a_change_of_any_one_field_never_hides_a_decline(place: tuple[str, ...], value: Any) -> None:
    """The state is read, the record is stored and read back, and every format renders the event."""
    seen = read_refund(Response(200, {}, changed(place, value)), WHOLE["refundId"])
    assert seen.state == "Declined"
    change = decide("us", None, seen, source=Source.POLL, now=NOW)
    assert [each.type for each in change.emissions] == [EventType.DECLINED]
    event = event_of(change.emissions[0], change.refund, NOW)
    flat = to_hash(change.refund)
    stored = {name.encode(): text.encode() for name, text in zip(flat[::2], flat[1::2], strict=True)}
    assert from_hash("us", change.refund.refund_id, stored) == change.refund
    read = from_fields("us", {name: text.encode().decode() for name, text in to_fields(event).items()})
    assert (read.refund.state, read.refund.unread) == ("Declined", change.refund.unread)
    for name in FORMATS:
        subscriber = a_subscriber(types=(EventType.DECLINED.value,)) if name == "cloudevents" else teller(name)
        assert wants(subscriber, read)
        assert render([read], subscriber, NOW).body


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(PLACES), VALUES)
def test_a_field_that_cannot_be_read_never_loses_a_refund_that_was_made(place: tuple[str, ...], value: Any) -> None:
    """Of an answer to Create Refund the id is enough."""
    assert read_refund(Response(201, {}, changed(place, value)), is_new=True).refund_id == WHOLE["refundId"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Amazon A to Z Refund", "Amazon-A-to-Z-Refund"),
        ("Charge\u2011Back", "Charge-Back"),
        ("Buyer Cancelled", "Buyer-Cancelled"),
        ("Amazon Rejected", ""),
    ],
)
def test_a_reason_that_says_whose_refund_it_is_is_kept_in_any_spelling(said: str, kept: str) -> None:
    """Without the reason, the refund could be retried, although Amazon is collecting the money for a claim."""
    status = {**WHOLE["statusDetails"], "reasonCode": said}
    body = json.dumps({**WHOLE, "statusDetails": status}).encode()
    found = read_refund(Response(200, {}, body))
    assert (found.reason_code, is_theirs(found.reason_code)) == (kept, bool(kept))
