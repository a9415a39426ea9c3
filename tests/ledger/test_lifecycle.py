"""The lifecycle: a total table, and a join that does not care about order or repetition."""

from __future__ import annotations

import itertools
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.ledger.age import DAY
from receiver.ledger.lifecycle import TABLE, Change, EventType, Move, Phase, decide, phase
from receiver.ledger.money import Money
from receiver.ledger.refund import Observation, Refund, Source

T = 1_760_000_000_000


def seen(state: str, updated_at: int = T, reason: str = "") -> Observation:
    return Observation(
        refund_id="S01-5105180-3221187-R022311",
        charge_id="S01-5105180-3221187-C056351",
        amount=Money(Decimal("14.00"), "USD"),
        created_at=T,
        state=state,
        updated_at=updated_at,
        reason_code=reason,
    )


def run(*observations: Observation, now: int = T) -> tuple[Refund, list[EventType]]:
    known: Refund | None = None
    events: list[EventType] = []
    for observation in observations:
        change = decide("us", known, observation, source=Source.POLL, now=now)
        known = change.refund
        events += [emission.type for emission in change.emissions]
    assert known is not None
    return known, events


def test_the_table_answers_every_pair_of_known_and_seen() -> None:
    observable = set(Phase) - {Phase.UNSEEN}
    assert {known: set(row) for known, row in TABLE.items()} == dict.fromkeys(Phase, observable)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, Phase.UNSEEN),
        ("RefundInitiated", Phase.PENDING),
        ("Refunded", Phase.REFUNDED),
        ("Declined", Phase.DECLINED),
        ("SomethingNew", Phase.PENDING),
        ("declined", Phase.PENDING),
        ("", Phase.PENDING),
    ],
)
def test_only_the_two_words_of_amazon_are_final(state: str | None, expected: Phase) -> None:
    assert phase(state) is expected


@pytest.mark.parametrize(
    ("story", "state", "events"),
    [
        (["RefundInitiated"], "RefundInitiated", [EventType.INITIATED]),
        (["RefundInitiated", "RefundInitiated"], "RefundInitiated", [EventType.INITIATED]),
        (["RefundInitiated", "Refunded"], "Refunded", [EventType.INITIATED, EventType.REFUNDED]),
        (["RefundInitiated", "Declined"], "Declined", [EventType.INITIATED, EventType.DECLINED]),
        (["Declined"], "Declined", [EventType.DECLINED]),
        (["Declined", "RefundInitiated"], "Declined", [EventType.DECLINED]),
        (["Refunded", "Refunded"], "Refunded", [EventType.REFUNDED]),
        (["Novel"], "Novel", []),
        (["Novel", "Declined"], "Declined", [EventType.DECLINED]),
        (["Refunded", "Declined"], "Declined", [EventType.REFUNDED, EventType.CONFLICT, EventType.DECLINED]),
        (["Declined", "Refunded"], "Declined", [EventType.DECLINED, EventType.CONFLICT]),
        (["Declined", "Refunded", "Refunded"], "Declined", [EventType.DECLINED, EventType.CONFLICT]),
    ],
)
def test_stories_with_one_timestamp(story: list[str], state: str, events: list[EventType]) -> None:
    refund, emitted = run(*(seen(word) for word in story))
    assert (refund.state, emitted) == (state, events)


def test_a_decline_keeps_amazons_reason() -> None:
    refund, _ = run(seen("RefundInitiated"), seen("Declined", T + 1000, "AmazonRejected"))
    assert (refund.reason_code, refund.revision) == ("AmazonRejected", 2)


def test_a_refund_that_turns_from_refunded_to_declined_tells_the_subscribers_of_declines() -> None:
    refund, events = run(seen("Refunded", T), seen("Declined", T + 1000, "ProcessingFailure"))
    assert refund.conflict
    assert events == [EventType.REFUNDED, EventType.CONFLICT, EventType.DECLINED]


def test_each_new_contradicting_final_is_told_once() -> None:
    story = [seen("Refunded", T), seen("Declined", T + 1000), seen("Refunded", T + 2000), seen("Declined", T + 1000)]
    refund, events = run(*story)
    assert events.count(EventType.CONFLICT) == 2
    assert refund.state == "Refunded"


def test_nothing_new_writes_nothing() -> None:
    refund, _ = run(seen("Declined", T, "AmazonRejected"))
    change = decide("us", refund, seen("Declined", T, "AmazonRejected"), source=Source.NOTIFICATION, now=T + 5)
    assert change == Change(refund, refund)
    assert change.is_nothing


def test_where_amazon_tells_no_time_the_same_again_is_not_newer() -> None:
    """Two looks at once, by Flexible Payments: both see the same end, a moment apart."""

    def undated(state: str, at: int) -> Observation:
        return msgspec.structs.replace(seen(state, at), is_dated=False)

    refund, _ = run(undated("RefundInitiated", T), undated("Refunded", T + 10))
    assert (refund.state, refund.updated_at, refund.revision) == ("Refunded", T + 10, 2)
    assert decide("us", refund, undated("Refunded", T + 20), source=Source.NOTIFICATION, now=T + 20).is_nothing
    assert decide("us", refund, undated("Declined", T + 20), source=Source.NOTIFICATION, now=T + 20).refund.conflict


def test_a_refund_pending_for_over_a_day_is_stuck_and_told_once() -> None:
    refund, _ = run(seen("RefundInitiated"))
    change = decide("us", refund, seen("RefundInitiated"), source=Source.POLL, now=T + DAY + 1)
    assert [emission.type for emission in change.emissions] == [EventType.STUCK]
    again = decide("us", change.refund, seen("RefundInitiated"), source=Source.POLL, now=T + DAY + 2)
    assert again.is_nothing


def test_what_an_xml_notification_said_of_the_kind_of_refund_is_kept() -> None:
    refund, _ = run(seen("Refunded"))
    change = decide(
        "us", refund, seen("Refunded"), source=Source.NOTIFICATION, now=T, details={"refund_type": "Chargeback"}
    )
    assert (change.refund.refund_type, change.refund.revision, change.emissions) == ("Chargeback", 2, ())


def test_the_conflict_move_stands_for_every_pair_of_different_finals() -> None:
    finals = (Phase.REFUNDED, Phase.DECLINED)
    for known, other in itertools.product(finals, finals):
        assert (TABLE[known][other] is Move.CONTRADICT) == (known is not other)


OBSERVATIONS = st.builds(
    seen,
    st.sampled_from(["RefundInitiated", "Refunded", "Declined", "Novel"]),
    st.integers(0, 3).map(lambda seconds: T + 1000 * seconds),
    st.sampled_from(["", "AmazonRejected", "ProcessingFailure"]),
)


@given(st.lists(OBSERVATIONS, min_size=1, max_size=7), st.data())
def test_any_order_and_repetition_ends_in_the_same_state(story: list[Observation], data: st.DataObject) -> None:
    other = data.draw(st.permutations(story)) + data.draw(st.lists(st.sampled_from(story), max_size=3))
    one, first_events = run(*story)
    two, second_events = run(*other)
    for field in ("state", "updated_at", "reason_code", "conflict", "finals"):
        assert getattr(one, field) == getattr(two, field), field
    for events in (first_events, second_events):
        for kind in set(EventType) - {EventType.CONFLICT}:
            assert events.count(kind) <= 1
        assert events.count(EventType.CONFLICT) <= len(one.finals)
    assert (EventType.CONFLICT in first_events) == one.conflict


@given(st.lists(OBSERVATIONS, min_size=1, max_size=9))
def test_a_settled_refund_never_reopens_and_its_final_event_was_told(story: list[Observation]) -> None:
    known: Refund | None = None
    told: set[EventType] = set()
    for observation in story:
        change = decide("us", known, observation, source=Source.POLL, now=T)
        told |= {emission.type for emission in change.emissions}
        if known is not None:
            assert change.refund.revision == known.revision + (not change.is_nothing)
            assert not (
                phase(known.state) in (Phase.REFUNDED, Phase.DECLINED) and phase(change.refund.state) is Phase.PENDING
            )
        known = change.refund
    assert known is not None
    final = {"Refunded": EventType.REFUNDED, "Declined": EventType.DECLINED}.get(known.state)
    assert final is None or final in told
