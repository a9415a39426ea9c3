"""What becomes of a dispute after every end of a question to Amazon: its record, the next question, the reminder."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import (
    AmazonError,
    AmazonNotFound,
    AmazonOutcomeUnknown,
    AmazonRefused,
    AmazonRefusesUs,
    AmazonThrottled,
)
from receiver.ledger.age import DAY
from receiver.ledger.dispute import Dispute, DisputeObservation, Reminder
from receiver.ledger.next_look import DisputeLook, after_dispute

T = 1_760_000_000_000
S, M, H = 1_000, 60_000, 3_600_000
KNOWN = Dispute(
    dispute_id="S01-5105180-3221187-B000001",
    charge_permission_id="S01-5105180-3221187",
    first_told_at=T - 90 * DAY,
    told_at=T - 1_000,
)
FIRST, SECOND = Reminder.KNOWN, Reminder.DAY_BEFORE


def old(age: int, **more: Any) -> Dispute:
    return msgspec.structs.replace(KNOWN, told_at=T - age, **more)


def seen(state: str, **more: Any) -> DisputeObservation:
    return DisputeObservation(dispute_id=KNOWN.dispute_id, state=state, **more)


def waiting(left: int, *reminded: Reminder, age: int = 20 * DAY) -> Dispute:
    """One that has to be answered within `left` ms, and whose reminders were sent."""
    marks = tuple(f"{each}@{T + left}" for each in reminded)
    return old(age, state="ActionRequired", deadline=T + left, reminded=marks)


def due(left: int) -> DisputeObservation:
    return seen("ActionRequired", deadline=T + left)


DOWN = AmazonOutcomeUnknown("down")
NO_RIGHT = AmazonRefusesUs("401")
Case = tuple[Dispute, DisputeObservation | AmazonError, int | None, Reminder | None]
TABLE: dict[str, Case] = {
    # Open
    "just notified": (KNOWN, seen("UnderReview"), 4 * S, None),
    "followed up": (old(5 * S), seen("UnderReview"), 25 * S, None),
    "an hour later": (old(H), seen("UnderReview"), 5 * H, None),
    "a month later": (old(30 * DAY), seen("UnderReview"), DAY, None),
    "a year later": (old(364 * DAY), seen("UnderReview"), 7 * DAY, None),
    "in a state of a later version": (old(H), seen("Escalated"), 5 * H, None),
    "signed in our future": (old(-DAY), seen("UnderReview"), 5 * S, None),
    # Ended
    "won, just notified": (KNOWN, seen("Resolved", resolution="MerchantWon"), 4 * S, None),
    "won": (old(10 * M), seen("Resolved", resolution="MerchantWon"), None, None),
    "lost": (old(H), seen("Closed", resolution="BuyerWon"), None, None),
    "without a fault": (old(H), seen("Closed", resolution="NoFault"), None, None),
    "ended, nobody says how": (old(H), seen("Closed"), 5 * H, None),
    # Has to be answered
    "a deadline becomes known": (old(30 * DAY), due(11 * DAY), DAY, FIRST),
    "on the last day": (old(30 * DAY), due(DAY), DAY, FIRST),
    "when it is over": (old(30 * DAY), due(-DAY), DAY, FIRST),
    "without a deadline": (old(H), seen("ActionRequired"), 5 * H, None),
    "a deadline, but nothing to answer": (old(H), seen("UnderReview", deadline=T + 11 * DAY), 5 * H, None),
    "it is known already": (waiting(11 * DAY, FIRST), due(11 * DAY), DAY, None),
    "the second is nearer than the poll": (waiting(DAY + H, FIRST), due(DAY + H), H, None),
    "the second": (waiting(DAY, FIRST), due(DAY), DAY, SECOND),
    "the second, late": (waiting(-H, FIRST), due(-H), DAY, SECOND),
    "after both": (waiting(H, FIRST, SECOND), due(H), DAY, None),
    "another deadline": (waiting(H, FIRST, SECOND), due(11 * DAY), DAY, FIRST),
    "answered in time": (waiting(DAY, FIRST), seen("UnderReview"), DAY, None),
    "a deadline of another century": (old(400 * DAY), due(10**14), 6 * DAY, FIRST),
    # No answer
    "down": (KNOWN, DOWN, int(2.5 * S), None),
    "down again": (old(H, failures=1), DOWN, 5 * S, None),
    "down for long": (old(H, failures=30), DOWN, 5 * M, None),
    "down with a wish": (KNOWN, AmazonOutcomeUnknown("down", retry_after=60), 60 * S, None),
    "down with a great wish": (KNOWN, AmazonOutcomeUnknown("down", retry_after=86_400), 10 * M, None),
    "down on the last day": (waiting(DAY, FIRST), DOWN, int(2.5 * S), SECOND),
    "throttled": (KNOWN, AmazonThrottled("slow"), 5 * S, None),
    "throttled for long": (KNOWN, AmazonThrottled("slow", retry_after=86_400), H, None),
    # No right
    "no right": (KNOWN, NO_RIGHT, 29 * S, None),
    "no right, an hour later": (old(H), NO_RIGHT, 23 * H, None),
    "no right, a month later": (old(30 * DAY), NO_RIGHT, None, None),
    "not found": (KNOWN, AmazonNotFound("404"), 29 * S, None),
    "not found, a month later": (old(30 * DAY), AmazonNotFound("404"), None, None),
    "refused": (old(H), AmazonRefused("422", reason_code="InvalidChargeStatus"), 23 * H, None),
    "no right any more": (waiting(2 * DAY, FIRST, age=30 * DAY), NO_RIGHT, DAY, None),
    "no right on the last day": (waiting(DAY, FIRST), NO_RIGHT, DAY, SECOND),
}


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE.keys())
def test_every_end_of_a_question(case: Case) -> None:
    """Without jitter."""
    known, result, wait, reminder = case
    look = after_dispute(known, result, T, 0.0)
    assert (look.at, look.reminder) == (None if wait is None else T + wait, reminder)


ERRORS = (DOWN, NO_RIGHT, AmazonThrottled("slow"), AmazonNotFound("404"), AmazonRefused("422"))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
def test_what_amazon_says_about_our_request_says_nothing_about_the_dispute(error: AmazonError) -> None:
    """Its state stays, and so does its guard; it is only known why nothing was learned."""
    known = waiting(11 * DAY, FIRST)
    told = ("failure", "failures")
    for each in (known, KNOWN, old(H, state="Resolved", resolution="MerchantWon")):
        look = after_dispute(each, error, T, 0.5)
        assert look.dispute.failure == error.reason
        assert msgspec.structs.replace(look.dispute, **{name: getattr(each, name) for name in told}) == each


RESULTS = st.one_of(
    st.sampled_from(ERRORS),
    st.builds(
        DisputeObservation,
        dispute_id=st.just(KNOWN.dispute_id),
        state=st.sampled_from(["UnderReview", "ActionRequired", "ActionRequired", "Resolved", "Closed", "Odd"]),
        resolution=st.sampled_from(["", "BuyerWon", "MerchantWon", "NoFault"]),
        deadline=st.sampled_from([0, T + 2 * DAY, T + 11 * DAY]),
        updated_at=st.integers(0, 5),
    ),
)


@given(st.lists(st.tuples(RESULTS, st.integers(0, 3 * DAY), st.floats(0, 0.999)), max_size=30))
def test_no_reminder_is_sent_twice_and_the_next_look_is_always_ahead(
    story: list[tuple[DisputeObservation | AmazonError, int, float]],
) -> None:
    """Whatever Amazon answers in whatever order: at most two for each deadline, the first one first."""
    known, now, sent = KNOWN, T, list[tuple[int, Reminder]]()
    for result, later, random in story:
        now += later
        look: DisputeLook = after_dispute(known, result, now, random)
        known = look.dispute
        assert look.at is None or now <= look.at <= now + 8 * DAY
        if look.reminder:
            assert known.state == "ActionRequired"
            sent.append((known.deadline, look.reminder))
    assert len(sent) == len(set(sent))
    assert all(sent.index((deadline, FIRST)) < at for at, (deadline, which) in enumerate(sent) if which is SECOND)
