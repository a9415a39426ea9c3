"""When to ask about a refund again, for every end of a question to Amazon."""

from __future__ import annotations

from decimal import Decimal

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
FAILED_POLL = FollowUp(Source.POLL, T, failures=2)


def due(follow_up: FollowUp | None) -> DueRefund:
    return DueRefund("us", "R", 7, follow_up)


def known(state: str = "RefundInitiated", revision: int = 3) -> Refund:
    return Refund(
        account="us", refund_id="R", state=state, revision=revision, updated_at=T, first_seen_at=T, changed_at=T,
        source=Source.POLL, created_at=T, amount=Money(Decimal(1), "USD"),
    )  # fmt: skip


def step(follow_up: FollowUp, number: int, **more: int) -> FollowUp:
    """The follow-up after `number` looks that brought nothing new."""
    return FollowUp(
        follow_up.source, follow_up.at, follow_up.sent_at, follow_up.refund_type, number,
        **{"due": T + FOLLOW_UPS[number - 1], **more}, traceparent=follow_up.traceparent,
    )  # fmt: skip


OTHER_FIELDS = {"revision": 3, "outcome": "unchanged"}
NOT_FOUND = "amazon_not_found"

TABLE = {
    # Nothing new
    "a poll": (None, None, known(), NextLook(T + H, None, **OTHER_FIELDS)),
    "a poll that had failed": (FAILED_POLL, None, known(), NextLook(T + H, None, **OTHER_FIELDS)),
    "a hint": (HINT, None, known(), NextLook(T + 5 * S, step(HINT, 1), **OTHER_FIELDS)),
    "the second time": (step(HINT, 1, due=T), None, known(), NextLook(T + 30 * S, step(HINT, 2), **OTHER_FIELDS)),
    "before its time": (
        step(HINT, 1, due=T + S, failures=3), None, known(), NextLook(T + S, step(HINT, 1, due=T + S), **OTHER_FIELDS)
    ),
    "the last time": (step(HINT, 4, due=T), None, known(), NextLook(T + H, None, **OTHER_FIELDS)),
    "a refresh": (REFRESH, None, known(), NextLook(T + 5 * S, step(REFRESH, 1), **OTHER_FIELDS)),
    "a final state": (None, None, known("Refunded"), NextLook(None, None, **OTHER_FIELDS)),
    "a hint of a final state": (HINT, None, known("Refunded"), NextLook(T + 5 * S, step(HINT, 1), **OTHER_FIELDS)),
    # Not found
    "not found": (HINT, AmazonNotFound(), None, NextLook(T + 5 * S, step(HINT, 1), 0, NOT_FOUND)),
    "not found for the last time": (step(HINT, 4, due=T), AmazonNotFound(), None, NextLook(None, None, 0, NOT_FOUND)),
    "not found, but known": (step(HINT, 4, due=T), AmazonNotFound(), known(), NextLook(T + H, None, 3, NOT_FOUND)),
    "not found, polled": (None, AmazonNotFound(), known(), NextLook(T + H, None, 3, NOT_FOUND)),
    "not found, neither known nor hinted at": (None, AmazonNotFound(), None, NextLook(None, None, 0, NOT_FOUND)),
    "not found, refreshed": (REFRESH, AmazonNotFound(), None, NextLook(None, None, 0, NOT_FOUND)),
    "not found, known and refreshed": (
        REFRESH, AmazonNotFound(), known(), NextLook(T + 5 * S, step(REFRESH, 1), 3, NOT_FOUND)
    ),
    # Nothing to ask
    "nothing to ask": (HINT, NothingToAsk("", revision=4), None, NextLook(None, None, 4)),
    # Throttled
    "429": (HINT, AmazonThrottled(), None, NextLook(T + 5 * S, HINT, None, "amazon_throttled")),
    "429 with a time": (None, AmazonThrottled(retry_after=90), known(), NextLook(T + 90 * S, None, None, "amazon_throttled")),
    "429 to a refresh": (REFRESH, AmazonThrottled(), known(), NextLook(T + 5 * S, REFRESH, None, "amazon_throttled")),
    "429 to a refresh of what nobody knows": (
        REFRESH, AmazonThrottled(), None, NextLook(T + 5 * S, REFRESH, None, "amazon_throttled", patient=True)
    ),
    # Failed
    "no answer": (HINT, AmazonOutcomeUnknown(), None, NextLook(T + 2_500, step(HINT, 0, due=0, failures=1), None, "amazon_unknown")),
    "no answer to a poll": (
        None, AmazonOutcomeUnknown(), known(), NextLook(T + 2_500, FollowUp(Source.POLL, T, failures=1), None, "amazon_unknown")
    ),
    "the third time": (
        FAILED_POLL, AmazonRefusesUs(), known(), NextLook(T + 10 * S, FollowUp(Source.POLL, T, failures=3), None, "amazon_refuses_us")
    ),
    "in the middle of a follow-up": (
        step(HINT, 2, due=T), AmazonOutcomeUnknown(), known(), NextLook(T + 2_500, step(HINT, 2, due=T, failures=1), None, "amazon_unknown")
    ),
    "many times": (
        FollowUp(Source.POLL, T, failures=99), AmazonOutcomeUnknown(), known(),
        NextLook(T + 5 * M, FollowUp(Source.POLL, T, failures=100), None, "amazon_unknown"),
    ),
    "with a Retry-After": (
        None, AmazonOutcomeUnknown(retry_after=120), known(), NextLook(T + 2 * M, FollowUp(Source.POLL, T, failures=1), None, "amazon_unknown")
    ),
    "with a Retry-After of a day": (
        None, AmazonOutcomeUnknown(retry_after=86_400), known(), NextLook(T + 10 * M, FollowUp(Source.POLL, T, failures=1), None, "amazon_unknown")
    ),
    "a refusal": (None, AmazonRefused(), known(), NextLook(T + 2_500, FollowUp(Source.POLL, T, failures=1), None, "amazon_refused")),
    "no answer to a refresh of what nobody knows": (
        REFRESH, AmazonOutcomeUnknown(), None,
        NextLook(T + 2_500, FollowUp(Source.REFRESH, T, failures=1), None, "amazon_unknown", patient=True),
    ),
    # Damaged
    "a damaged record": (HINT, StoreUnavailable(reason="store_unreadable"), None, NextLook(T + M, HINT, None, "store_unreadable")),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_every_end_of_a_question_has_one_answer(case: str) -> None:
    follow_up, error, refund, expected = TABLE[case]
    assert after(due(follow_up), error, refund, T, PLAN, 0.0) == expected


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
