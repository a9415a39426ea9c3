"""The waits after failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.ledger.backoff import backoff


@pytest.mark.parametrize(
    ("failures", "random", "asked", "expected"),
    [
        (0, 0.0, 0, 2_500),
        (0, 0.5, 0, 3_750),
        (1, 0.0, 0, 5_000),
        (7, 0.0, 0, 300_000),
        (10_000, 0.0, 0, 300_000),
        (0, 0.0, 2_499, 2_500),
        (0, 0.0, 2_501, 2_501),
        (0, 0.0, 86_400_000, 86_400_000),
    ],
)
def test_a_wait_is_doubled_up_to_a_bound_and_no_shorter_than_asked(
    failures: int, random: float, asked: int, expected: int
) -> None:
    assert backoff(failures, random, first=5_000, most=600_000, asked=asked) == expected


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_the_spread_is_the_upper_half(failures: int, random: float) -> None:
    whole = backoff(failures, 0.0, first=5_000, most=600_000) * 2
    assert whole // 2 <= backoff(failures, random, first=5_000, most=600_000) < whole
