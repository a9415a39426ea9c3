"""Backfills and stuck refunds, by Amazon's times and ours."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.ledger.age import BACKFILL_AFTER, DAY
from receiver.ledger.lifecycle import EventType, decide
from receiver.ledger.refund import Observation, Refund, Source

NOW = 1_760_000_000_000


def seen(state: str = "Declined", updated_at: int = NOW, **more: Any) -> Observation:
    return Observation(refund_id="S01-5105180-3221187-R022311", state=state, updated_at=updated_at, **more)


def first(*observations: Observation, at: int = NOW) -> Refund:
    known: Refund | None = None
    for each in observations:
        known = decide("us", known, each, source=Source.REFRESH, now=at).refund
    assert known is not None
    return known


@pytest.mark.parametrize("state", ["Declined", "Refunded"])
def test_a_refund_that_was_settled_over_a_week_before_it_was_first_seen_is_old(state: str) -> None:
    """To the millisecond."""
    assert not first(seen(state, NOW - BACKFILL_AFTER)).backfill
    assert first(seen(state, NOW - BACKFILL_AFTER - 1)).backfill


@pytest.mark.parametrize(
    "more",
    [
        {"updated_at": 0},
        {"updated_at": 86_400_000},
        {"updated_at": -62_135_596_800_000},
        {"updated_at": NOW - 30 * DAY, "created_at": NOW - 29 * DAY},
        {"updated_at": NOW + DAY},
        {"state": "RefundInitiated", "updated_at": NOW - 30 * DAY},
        {"state": "UnderReview", "updated_at": NOW - 30 * DAY},
    ],
)
def test_what_is_not_certain_to_be_old_is_news(more: dict[str, Any]) -> None:
    """An unknown or an impossible time, and a refund that is pending, hide no decline."""
    assert not first(seen(**more)).backfill


def test_a_refund_that_was_seen_pending_is_never_old() -> None:
    """Whatever time Amazon gives to its end."""
    assert not first(seen("RefundInitiated", NOW - 40 * DAY), seen("Declined", NOW - 30 * DAY)).backfill


def test_a_new_end_of_an_old_refund_is_news() -> None:
    """Amazon contradicts itself today: that is for people. A contradiction as old as the refund is not."""
    old = seen("Declined", NOW - 30 * DAY)
    assert first(old, old).backfill
    assert first(old, seen("Refunded", NOW - 20 * DAY)).backfill
    contradicted = first(old, seen("Refunded", NOW))
    assert contradicted.conflict
    assert not contradicted.backfill


@pytest.mark.parametrize(("age", "after", "told"), [(59, 60, False), (61, 60, True), (90_000, 100_000, False)])
def test_stuck_is_told_after_the_time_that_the_account_sets(age: int, after: int, told: bool) -> None:
    """In place of a day."""
    pending = seen("RefundInitiated", NOW, created_at=NOW)
    known = decide("us", None, pending, source=Source.CREATE, now=NOW).refund
    change = decide("us", known, pending, source=Source.POLL, now=NOW + age, stuck_after=after)
    assert (EventType.STUCK in [each.type for each in change.emissions]) is told


@pytest.mark.parametrize("reason", ["AmazonA-ZRefund", "BuyerCanceled"])
def test_a_reason_of_refunded_says_who_began_the_refund(reason: str) -> None:
    """Amazon's older pages for the EU."""
    assert first(seen("Refunded", reason_code=reason)).refund_type == reason
    assert first(seen("Declined", reason_code=reason)).refund_type == ""
    assert first(seen("Refunded", reason_code="Other")).refund_type == ""
