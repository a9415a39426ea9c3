"""When to ask about a refund again, for every end of a question to Amazon."""

from __future__ import annotations

from decimal import Decimal

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
    NothingToAsk,
    StoreEmptied,
    StoreUnavailable,
)
from receiver.ledger.money import Money
from receiver.ledger.next_look import DueRefund, FollowUp, NextLook, after
from receiver.ledger.polling import FOLLOW_UPS, PollPlan
from receiver.ledger.refund import Refund, Source

T = 1_760_000_000_000
S, M, H = 1_000, 60_000, 3_600_000
PLAN = PollPlan.parse(["every 1h"])
HINT = FollowUp(Source.NOTIFICATION, T - 5, T - 7, "Refund", traceparent="00-a-b-01")
REFRESH = FollowUp(Source.REFRESH, T)


DAY = 24 * H
AGES = (DAY, 7 * DAY)


def due(follow_up: FollowUp | None, *, second: bool = False) -> DueRefund:
    return DueRefund("us", "R", 7, follow_up, second, second)


def known(state: str = "RefundInitiated", revision: int = 3) -> Refund:
    return Refund(
        account="us", refund_id="R", state=state, revision=revision, updated_at=T, first_seen_at=T, changed_at=T,
        source=Source.POLL, created_at=T, amount=Money(Decimal(1), "USD"),
    )  # fmt: skip


def step(follow_up: FollowUp, number: int, *, due: int | None = None, failures: int = 0) -> FollowUp:
    """The follow-up after `number` looks that brought nothing new."""
    due = T + FOLLOW_UPS[number - 1] if due is None else due
    return msgspec.structs.replace(follow_up, step=number, due=due, failures=failures)


def unchanged(wait: int | None, follow_up: FollowUp | None = None) -> NextLook:
    return NextLook(None if wait is None else T + wait, follow_up, 3, "unchanged")


def not_found(wait: int | None, follow_up: FollowUp | None = None, revision: int = 0) -> NextLook:
    return NextLook(None if wait is None else T + wait, follow_up, revision, "amazon_not_found")


def later(wait: int, follow_up: FollowUp | None, outcome: str = "amazon_unknown", *, patient: bool = False) -> NextLook:
    return NextLook(T + wait, follow_up, None, outcome, patient)


def failed(failures: int, source: Source = Source.POLL) -> FollowUp:
    return FollowUp(source, T, failures=failures)


Case = tuple[FollowUp | None, AmazonError | NothingToAsk | StoreUnavailable | None, Refund | None, NextLook]
TABLE: dict[str, Case] = {
    # Nothing new
    "a poll": (None, None, known(), unchanged(H)),
    "a poll that had failed": (failed(2), None, known(), unchanged(H)),
    "a hint": (HINT, None, known(), unchanged(5 * S, step(HINT, 1))),
    "the second time": (step(HINT, 1, due=T), None, known(), unchanged(30 * S, step(HINT, 2))),
    "before its time": (
        step(HINT, 1, due=T + S, failures=3), None, known(), unchanged(S, step(HINT, 1, due=T + S))
    ),
    "the last time": (step(HINT, 4, due=T), None, known(), unchanged(H)),
    "a refresh": (REFRESH, None, known(), unchanged(5 * S, step(REFRESH, 1))),
    "a final state": (None, None, known("Refunded"), unchanged(None)),
    "a hint of a final state": (HINT, None, known("Refunded"), unchanged(5 * S, step(HINT, 1))),
    # Not found
    "not found": (HINT, AmazonNotFound(), None, not_found(5 * S, step(HINT, 1))),
    "not found for the last time": (step(HINT, 4, due=T), AmazonNotFound(), None, not_found(None)),
    "not found, but known": (step(HINT, 4, due=T), AmazonNotFound(), known(), not_found(H, revision=3)),
    "not found, polled": (None, AmazonNotFound(), known(), not_found(H, revision=3)),
    "not found, neither known nor hinted at": (None, AmazonNotFound(), None, not_found(None)),
    "not found, refreshed": (REFRESH, AmazonNotFound(), None, not_found(None)),
    "not found, known and refreshed": (REFRESH, AmazonNotFound(), known(), not_found(5 * S, step(REFRESH, 1), 3)),
    # Nothing to ask
    "nothing to ask": (HINT, NothingToAsk("", revision=4), None, NextLook(None, None, 4)),
    # Throttled
    "429": (HINT, AmazonThrottled(), None, later(5 * S, HINT, "amazon_throttled")),
    "429 with a time": (None, AmazonThrottled(retry_after=90), known(), later(90 * S, None, "amazon_throttled")),
    "429 with a day": (None, AmazonThrottled(retry_after=86_400), known(), later(60 * M, None, "amazon_throttled")),
    "429 to a refresh": (REFRESH, AmazonThrottled(), known(), later(5 * S, REFRESH, "amazon_throttled")),
    "429 to a refresh of an unknown refund": (
        REFRESH, AmazonThrottled(), None, later(5 * S, REFRESH, "amazon_throttled", patient=True)
    ),
    # Failed
    "no answer": (HINT, AmazonOutcomeUnknown(), None, later(2_500, step(HINT, 0, due=0, failures=1))),
    "no answer to a poll": (None, AmazonOutcomeUnknown(), known(), later(2_500, failed(1))),
    "the third time": (failed(2), AmazonRefusesUs(), known(), later(10 * S, failed(3), "amazon_refuses_us")),
    "in the middle of a follow-up": (
        step(HINT, 2, due=T), AmazonOutcomeUnknown(), known(), later(2_500, step(HINT, 2, due=T, failures=1))
    ),
    "many times": (failed(99), AmazonOutcomeUnknown(), known(), later(5 * M, failed(100))),
    "with a Retry-After": (None, AmazonOutcomeUnknown(retry_after=120), known(), later(2 * M, failed(1))),
    "with a Retry-After of a day": (None, AmazonOutcomeUnknown(retry_after=86_400), known(), later(10 * M, failed(1))),
    "a refusal": (None, AmazonRefused(), known(), later(2_500, failed(1), "amazon_refused")),
    "no answer to a refresh of an unknown refund": (
        REFRESH, AmazonOutcomeUnknown(), None, later(2_500, failed(1, Source.REFRESH), patient=True)
    ),
    # Damaged
    "a damaged record": (HINT, StoreUnavailable(reason="store_unreadable"), None, later(M, HINT, "store_unreadable")),
    "an emptied store": (HINT, StoreEmptied(), None, later(2 * S, HINT, "store_emptied")),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_every_end_of_a_question_has_one_answer(case: str) -> None:
    follow_up, error, refund, expected = TABLE[case]
    assert after(due(follow_up), error, refund, T, PLAN, 0.0) == expected


SETTLED = known("Refunded")
SECOND: dict[str, tuple[int, AmazonError | None, NextLook]] = {
    "nothing new": (DAY, None, NextLook(T + 7 * DAY, None, 3, "unchanged", second=True)),
    "the last": (7 * DAY, None, NextLook(None, None, 3, "unchanged")),
    "not found": (DAY, AmazonNotFound(), NextLook(T + 7 * DAY, None, 3, "amazon_not_found", second=True)),
    "429": (DAY, AmazonThrottled(), NextLook(T + DAY + 5 * S, None, None, "amazon_throttled", second=True)),
    "no answer": (DAY, AmazonOutcomeUnknown(), NextLook(T + DAY + H, None, None, "amazon_unknown", second=True)),
    "refused": (8 * DAY, AmazonRefusesUs(), NextLook(T + 8 * DAY + H, None, None, "amazon_refuses_us", second=True)),
    "given up": (8 * DAY + 1, AmazonRefusesUs(), NextLook(None, None, None, "amazon_refuses_us")),
}


@pytest.mark.parametrize("case", SECOND)
def test_every_end_of_a_second_look(case: str) -> None:
    """It stays among the second looks, and never becomes a poll."""
    age, error, expected = SECOND[case]
    assert after(due(None, second=True), error, SETTLED, T + age, PLAN, 0.0, AGES) == expected


def test_a_hint_of_a_settled_refund_is_followed_up_and_then_looked_at_as_planned() -> None:
    assert after(due(HINT), None, SETTLED, T, PLAN, 0.0, AGES) == unchanged(5 * S, step(HINT, 1))
    last = after(due(step(HINT, 4, due=T)), None, SETTLED, T, PLAN, 0.0, AGES)
    assert last == NextLook(T + DAY, None, 3, "unchanged", second=True)


ERRORS = st.sampled_from(
    [AmazonError(), AmazonNotFound(), AmazonRefused(), AmazonRefusesUs(), AmazonThrottled(), AmazonOutcomeUnknown()]
)
FOLLOWED = st.builds(
    FollowUp, st.sampled_from(Source), st.just(T), step=st.integers(0, 9), failures=st.integers(0, 99), due=st.just(T)
)


@given(st.none() | FOLLOWED, st.none() | ERRORS, st.floats(0, 1, exclude_max=True))
def test_a_pending_refund_is_always_asked_about_again_and_within_its_plan(
    follow_up: FollowUp | None, error: AmazonError | None, random: float
) -> None:
    found = after(due(follow_up), error, known(), T, PLAN, random)
    assert found.at is not None
    assert T < found.at <= T + H * 1.1


@given(st.none() | FOLLOWED, ERRORS, st.floats(0, 1, exclude_max=True))
def test_an_unknown_refund_is_dropped_only_when_amazon_does_not_know_it_either(
    follow_up: FollowUp | None, error: AmazonError, random: float
) -> None:
    found = after(due(follow_up), error, None, T, PLAN, random)
    assert isinstance(error, AmazonNotFound) or found.at is not None


@given(FOLLOWED, st.floats(0, 1, exclude_max=True))
def test_a_failure_is_no_step_of_a_follow_up(follow_up: FollowUp, random: float) -> None:
    found = after(due(follow_up), AmazonOutcomeUnknown(), known(), T, PLAN, random).follow_up
    assert found is not None
    assert (found.step, found.failures) == (follow_up.step, follow_up.failures + 1)
