"""When a refund is looked at again."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.ledger.money import Money
from receiver.ledger.polling import (
    DEFAULT_POLL,
    FOLLOW_UPS,
    SECOND_LOOK_SPREAD,
    PollPlan,
    backoff,
    next_follow_up,
    next_look,
    second_look,
)
from receiver.ledger.refund import FPS, Refund, Source

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
T = 1_760_000_000_000
PLAN = PollPlan.parse(DEFAULT_POLL)


def refund(state: str, **more: object) -> Refund:
    fields: dict[str, object] = {
        "account": "us", "refund_id": "R", "revision": 1, "updated_at": T, "first_seen_at": T, "changed_at": T,
        "source": Source.POLL, "created_at": T, "amount": Money(Decimal(1), "USD"),
    }  # fmt: skip
    return Refund(state=state, **{**fields, **more})  # type: ignore[arg-type]


def test_the_default_plan_is_the_documented_one() -> None:
    ages: list[int] = []
    age = 0
    while len(ages) < 33:
        age = PLAN.next_after(age)
        ages.append(age)
    minutes = [MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE]
    assert ages[:4] == minutes
    assert ages[4:28] == [HOUR * n for n in range(1, 25)]
    assert ages[28:33] == [30 * HOUR, 36 * HOUR, 42 * HOUR, 48 * HOUR, 54 * HOUR]


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (13 * DAY + 20 * HOUR, 14 * DAY),
        (14 * DAY, 15 * DAY),
        (29 * DAY + 1, 30 * DAY),
        (30 * DAY, 35 * DAY),
        (400 * DAY, 406 * DAY),
    ],
)
def test_old_refunds_are_asked_daily_then_weekly_and_never_given_up(age: int, expected: int) -> None:
    assert PLAN.next_after(age) == expected


@pytest.mark.parametrize(
    ("entries", "part"),
    [
        ([], "at least one"),
        (["1m"], "last entry"),
        (["5m", "1m", "every 1d"], "ascending"),
        (["every 1d", "5m"], "neither"),
        (["every 1h", "every 1d"], "until"),
        (["every 1h until 1d"], "until"),
        (["0m", "every 1d"], "greater than zero"),
        (["soon", "every 1d"], "neither"),
    ],
)
def test_a_plan_that_cannot_work_says_why(entries: list[str], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        PollPlan.parse(entries)


@given(st.integers(0, 1000 * DAY), st.floats(0, 1, exclude_max=True))
def test_a_pending_refund_is_always_looked_at_again_later_and_within_eight_days(age: int, random: float) -> None:
    look = next_look(refund("RefundInitiated"), T + age, PLAN, random)
    assert look is not None
    assert T + age < look <= T + age + int(7 * DAY * 1.1) + 1


def test_an_unknown_state_is_polled_on() -> None:
    assert next_look(refund("Novel"), T, PLAN, 0) == T + MINUTE


def test_a_final_state_is_not_asked_again() -> None:
    assert next_look(refund("Refunded"), T, PLAN, 0) is None
    assert next_look(refund("Declined"), T + DAY, PLAN, 0.5) is None


def test_a_contradiction_is_asked_again_after_one_and_ten_minutes_then_no_more() -> None:
    contradicted = refund("Declined", conflict=True)
    assert next_look(contradicted, T, PLAN, 0.9) == T + MINUTE
    assert next_look(contradicted, T + MINUTE, PLAN, 0.9) == T + 10 * MINUTE
    assert next_look(contradicted, T + 10 * MINUTE, PLAN, 0.9) is None


AGES = (DAY, 7 * DAY, 30 * DAY)


@pytest.mark.parametrize(
    ("age", "random", "expected"),
    [
        (0, 0.0, DAY),
        (DAY - 1, 0.9, DAY),
        (DAY, 0.0, 7 * DAY),
        (7 * DAY + 5, 0.5, 30 * DAY + SECOND_LOOK_SPREAD // 2),
        (30 * DAY, 0.0, None),
        (400 * DAY, 0.0, None),
    ],
)
def test_a_settled_refund_is_asked_about_once_more_at_each_age(age: int, random: float, expected: int | None) -> None:
    settled = refund("Refunded", updated_at=T, changed_at=T)
    found = second_look(settled, T + age, AGES, random)
    assert found == (None if expected is None else T + expected)


def test_the_age_is_that_of_amazons_state_and_not_of_our_knowledge_of_it() -> None:
    """So old refunds that are imported are not asked about again. A time in the future is not believed."""
    assert second_look(refund("Declined", updated_at=T - 40 * DAY, changed_at=T), T, AGES, 0) is None
    assert second_look(refund("Declined", updated_at=0, changed_at=T), T, AGES, 0) == T + DAY
    assert second_look(refund("Declined", updated_at=T + 9 * DAY, changed_at=T), T, AGES, 0) == T + DAY
    assert second_look(refund("RefundInitiated"), T, AGES, 0) is None
    assert second_look(refund("Declined"), T, (), 0) is None
    assert second_look(refund("Declined", refund_type=FPS), T, AGES, 0) is None


def test_a_creation_time_in_our_future_is_not_believed() -> None:
    assert next_look(refund("RefundInitiated", created_at=T + DAY), T, PLAN, 0) == T + MINUTE


def test_a_hint_that_brought_nothing_new_is_echoed_four_times() -> None:
    assert [next_follow_up(step, T) for step in range(5)] == [T + 5_000, T + 30_000, T + 120_000, T + 600_000, None]
    assert len(FOLLOW_UPS) == 4


@pytest.mark.parametrize(
    ("failures", "random", "expected"),
    [(0, 0.0, 2_500), (0, 0.5, 3_750), (1, 0.0, 5_000), (7, 0.0, 300_000), (10_000, 0.0, 300_000)],
)
def test_a_wait_is_doubled_up_to_a_bound(failures: int, random: float, expected: int) -> None:
    assert backoff(5_000, 600_000, failures, random) == expected


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_the_spread_is_the_upper_half(failures: int, random: float) -> None:
    whole = backoff(5_000, 600_000, failures, 0.0) * 2
    assert whole // 2 <= backoff(5_000, 600_000, failures, random) <= whole
