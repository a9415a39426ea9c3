"""The case of a declined refund: open exactly while the buyer has not been paid and no person has closed it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import Conflict
from receiver.ledger.audit import Actor
from receiver.ledger.lifecycle import Change, EventType, decide
from receiver.ledger.refund import How, Observation, Refund, Source
from receiver.ledger.resolution import closed, reopened, with_case, with_reissue

T0, DAY = 1_760_000_000_000, 86_400_000
ANN = Actor("desk", "ann@example.com")
ROOT, REISSUES = "R0", ("R1", "R2", "R3")


def observe(known: Refund | None, refund_id: str, state: str, at: int, **facts: Any) -> Change:
    seen = Observation(refund_id=refund_id, state=state, updated_at=T0 + at)
    return with_case(decide("us", known, seen, source=Source.POLL, now=T0 + at, details=facts), T0 + at)


def declined(at: int = 0) -> Refund:
    return observe(None, ROOT, "Declined", at).refund


def reissue(state: str, at: int, name: str = "R1") -> Refund:
    return observe(None, name, state, at, retry_of=ROOT, retry_root=ROOT).refund


def types(change: Change) -> list[EventType]:
    return [each.type for each in change.emissions]


def test_a_decline_opens_a_case_without_a_further_event() -> None:
    change = observe(None, ROOT, "Declined", 0)
    assert types(change) == [EventType.DECLINED]
    assert change.refund.resolution is not None
    assert change.refund.resolution.is_open
    assert change.refund.resolution.at == T0


@pytest.mark.parametrize("state", ["Refunded", "RefundInitiated", "Unknown"])
def test_no_other_refund_has_a_case(state: str) -> None:
    assert observe(None, ROOT, state, 0).refund.resolution is None


def test_a_decline_from_before_the_window_is_not_tracked() -> None:
    """By Amazon's time: the machine may have learned of it a moment ago."""
    for days, how in ((30, None), (31, How.NOT_TRACKED)):
        seen = Observation(refund_id=ROOT, state="Declined", updated_at=T0 - days * DAY)
        change = with_case(decide("us", None, seen, source=Source.POLL, now=T0), T0)
        assert change.refund.resolution is not None
        assert change.refund.resolution.how is how


def test_a_reissue_has_no_case_and_closes_that_of_the_first_refund() -> None:
    root, paid = declined(), reissue("Refunded", 5)
    assert paid.resolution is None
    change = with_reissue(root, paid, T0 + 9)
    assert types(change) == [EventType.RESOLVED]
    case = change.refund.resolution
    assert case is not None
    assert (case.how, case.refund_id, case.at, case.by) == (How.REISSUED, "R1", T0 + 9, "")
    assert change.refund.revision == root.revision + 1


def test_a_declined_reissue_keeps_it_open() -> None:
    assert with_reissue(declined(), reissue("Declined", 5), T0 + 9).is_nothing


def test_a_refund_that_becomes_known_as_a_reissue_loses_its_own_case() -> None:
    """Amazon's answer to Create Refund can come after the poll that found the refund."""
    alone = observe(None, "R1", "Declined", 0).refund
    assert alone.resolution is not None
    change = with_case(Change(alone, msgspec.structs.replace(alone, retry_root=ROOT)), T0)
    assert change.refund.resolution is None
    assert types(change) == []


def test_a_conflict_that_ends_as_refunded_closes_it_and_a_new_decline_reopens_it() -> None:
    change = observe(declined(), ROOT, "Refunded", 5)
    assert EventType.RESOLVED in types(change)
    assert change.refund.resolution is not None
    assert change.refund.resolution.how is How.REFUNDED
    again = observe(change.refund, ROOT, "Declined", 9)
    assert EventType.REOPENED in types(again)
    assert again.refund.resolution is not None
    assert again.refund.resolution.is_open


def test_a_persons_closing_is_a_revision_with_actor_and_note() -> None:
    root = declined()
    change = closed(root, How.COMPENSATED, T0 + 1, ANN, note="gift card")
    case = change.refund.resolution
    assert case is not None
    assert (case.how, case.by, case.user, case.note) == (How.COMPENSATED, "desk", "ann@example.com", "gift card")
    assert (change.refund.revision, change.refund.source) == (root.revision + 1, Source.PERSON)
    assert types(change) == [EventType.RESOLVED]
    assert closed(change.refund, How.COMPENSATED, T0 + 2, Actor("other"), note="gift card").is_nothing


def test_another_closing_says_by_whom_it_was_closed() -> None:
    root = closed(declined(), How.COMPENSATED, T0 + 1, ANN, note="gift card").refund
    with pytest.raises(Conflict, match=r"ann@example.com.*paid another way") as caught:
        closed(root, How.NOT_OWED, T0 + 2, Actor("other"), note="returned")
    assert caught.value.reason == "already_closed"


def test_only_a_persons_closing_can_be_undone() -> None:
    root = closed(declined(), How.NOT_OWED, T0 + 1, ANN, note="returned").refund
    change = reopened(root, T0 + 2, ANN)
    assert types(change) == [EventType.REOPENED]
    assert reopened(change.refund, T0 + 3, ANN).is_nothing
    paid = with_reissue(declined(), reissue("Refunded", 5), T0 + 9).refund
    with pytest.raises(Conflict) as caught:
        reopened(paid, T0 + 10, ANN)
    assert caught.value.reason == "already_paid"
    with pytest.raises(Conflict) as caught:
        closed(paid, How.NOT_OWED, T0 + 11, ANN, note="returned")
    assert "reopen" not in caught.value.detail, "that would be refused"


@pytest.mark.parametrize("state", ["Refunded", "RefundInitiated"])
def test_what_is_not_declined_has_nothing_to_close(state: str) -> None:
    refund = observe(None, ROOT, state, 0).refund
    with pytest.raises(Conflict) as caught:
        closed(refund, How.NOT_OWED, T0, ANN, note="x")
    assert caught.value.reason == "not_declined"
    with pytest.raises(Conflict) as caught:
        reopened(refund, T0, ANN)
    assert caught.value.reason == "not_declined"


STEPS = st.one_of(
    st.tuples(st.sampled_from([ROOT, *REISSUES]), st.sampled_from(["Refunded", "Declined", "RefundInitiated"])),
    st.tuples(st.just("person"), st.sampled_from([How.COMPENSATED, How.NOT_OWED, None])),
)


@given(st.lists(st.tuples(STEPS, st.integers(0, 40)), max_size=30))
def test_a_case_is_open_exactly_while_the_buyer_is_unpaid_and_no_person_has_closed_it(steps: list[Any]) -> None:
    """Whatever the order of answers, closings and reissues; and its events tell when that changes."""
    root, members, by_person, told = declined(), dict[str, Refund](), False, True
    for now, ((who, what), at) in enumerate(steps, T0 + 100):
        change = Change(root, root)
        try:
            if who == ROOT:
                change = observe(root, ROOT, what, at)
            elif who != "person":
                found = observe(members.get(who), who, what, at, retry_of=ROOT, retry_root=ROOT).refund
                members[who] = found
                change = with_reissue(root, found, now)
            elif what is None:
                change = reopened(root, now, ANN)
                by_person = False
            else:
                change = closed(root, what, now, ANN, note="x")
                by_person = True
        except Conflict:
            assert root.resolution is not None
            assert not root.resolution.is_open
        root = change.refund
        for each in change.emissions:
            if each.type in (EventType.RESOLVED, EventType.REOPENED):
                assert told is (each.type is EventType.RESOLVED)
                told = not told
        is_paid = any(each.state == "Refunded" for each in (root, *members.values()))
        assert root.resolution is not None
        assert root.resolution.is_open is (not is_paid and not by_person)
        assert told is root.resolution.is_open
