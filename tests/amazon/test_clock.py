"""The time to sign with: never ahead of a host, and not misled by a wrong `Date`."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.amazon.clock import KEPT, LOWEST, MARGIN, STEP, UNLEARNED, HostClocks, date_of
from receiver.exchange import Response

HOST, NOW = "pay-api.amazon.com", 1_760_000_000_000
FUTURE = b'{"reasonCode":"InvalidHeaderValue","message":"The value X for x-amz-pay-date should not be in future"}'


def says(at: int | None, status: int = 200, body: bytes = b"") -> Response:
    """An answer of a host whose clock shows `at`; None: without a Date."""
    if at is None:
        return Response(status, {}, body)
    return Response(status, {"date": format_datetime(datetime.fromtimestamp(at // 1000, UTC), usegmt=True)}, body)


def test_before_anything_is_heard_a_host_some_seconds_behind_takes_the_date() -> None:
    assert HostClocks().date_for(HOST, NOW) == NOW + UNLEARNED
    assert UNLEARNED <= -2_000


@pytest.mark.parametrize("off", [-7_200_000, -90_000, -2_000, 0, 2_000, 90_000, 7_200_000])
def test_the_date_follows_the_hosts_clock(off: int) -> None:
    """Less a margin, and also when this machine's clock is hours off."""
    clocks = HostClocks()
    clocks.heard(HOST, says(NOW + off), NOW)
    assert clocks.date_for(HOST, NOW + 5_000) == NOW + 5_000 + off - MARGIN
    assert clocks.date_for("another.host", NOW) == NOW + UNLEARNED


@given(
    st.lists(st.tuples(st.integers(-8_000, 8_000), st.integers(0, 3_000)), min_size=1, max_size=40),
    st.integers(-3_600_000, 3_600_000),
)
def test_the_date_is_never_ahead_of_any_of_a_names_hosts(hosts: list[tuple[int, int]], ours: int) -> None:
    """The host that is furthest behind counts, however far apart the clocks are and however slow the answers."""
    clocks = HostClocks()
    now = NOW
    for off, latency in hosts:
        now += 1_000 + latency
        clocks.heard(HOST, says(now - latency + off), now + ours)
    lowest = min(off for off, _ in hosts[-32:])
    if max(off for off, _ in hosts) - lowest <= 10_000:
        assert clocks.date_for(HOST, now + ours) <= now + lowest


def test_what_was_heard_is_forgotten_in_time() -> None:
    clocks = HostClocks()
    clocks.heard(HOST, says(NOW - 60_000), NOW)
    assert clocks.date_for(HOST, NOW + KEPT) == NOW + KEPT - 60_000 - MARGIN
    assert clocks.date_for(HOST, NOW + KEPT + 1) == NOW + KEPT + 1 + UNLEARNED


@pytest.mark.parametrize(
    "date",
    [
        *("", "now", "0", "-1", "x" * 10_000, "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"),
        *("Sat, 01 Jan 0000 00:00:00 GMT", "Mon, 32 Foo 2025 99:99:99 GMT", "Sun, 06 Nov 1994 08:49:37 +9999"),
    ],
)
def test_a_date_that_is_none_or_absurd_changes_nothing(date: str) -> None:
    clocks = HostClocks()
    clocks.heard(HOST, Response(200, {"date": date}), NOW)
    assert clocks.date_for(HOST, NOW) == NOW + UNLEARNED
    assert not clocks.refused(HOST, Response(403, {"date": date}), NOW, dated=NOW + UNLEARNED)


def test_one_absurd_date_among_others_changes_nothing() -> None:
    """Hours behind, from a cache on the way."""
    clocks = HostClocks()
    for number in range(5):
        clocks.heard(HOST, says(NOW - (7_200_000 if number == 2 else 0)), NOW)
    assert clocks.date_for(HOST, NOW) == NOW - MARGIN


@given(st.text(max_size=40))
def test_no_text_makes_reading_a_date_fail(text: str) -> None:
    found = date_of({"date": text})
    assert found is None or isinstance(found, int)


def test_a_refusal_with_another_date_is_worth_repeating_with_it() -> None:
    """This machine is an hour ahead of Amazon, whether the refusal says so or not."""
    for body in (FUTURE, b"", b'{"reasonCode":"InvalidRequestSignature"}'):
        clocks = HostClocks()
        dated = clocks.date_for(HOST, NOW)
        assert clocks.refused(HOST, says(NOW - 3_600_000, 401, body), NOW, dated=dated)
        assert clocks.date_for(HOST, NOW) == NOW - 3_600_000 - MARGIN


def test_a_refusal_whose_date_agrees_is_not_of_the_date() -> None:
    """Unless it says so."""
    clocks = HostClocks()
    clocks.heard(HOST, says(NOW), NOW)
    dated = clocks.date_for(HOST, NOW)
    assert not clocks.refused(HOST, says(NOW, 401, b"InvalidRequestSignature"), NOW, dated=dated)
    assert not clocks.refused(HOST, says(None, 403), NOW, dated=dated)
    assert clocks.date_for(HOST, NOW) == dated


def test_a_host_that_refuses_its_own_date_is_not_believed_for_a_while() -> None:
    """Its `Date` is twelve hours ahead of the clock by which it judges requests."""
    clocks = HostClocks()
    clocks.heard(HOST, says(NOW + 43_200_000), NOW)
    dated = clocks.date_for(HOST, NOW)
    assert clocks.refused(HOST, says(NOW + 43_200_000, 400, FUTURE), NOW, dated=dated)
    assert clocks.date_for(HOST, NOW) == NOW + UNLEARNED
    clocks.heard(HOST, says(NOW + 43_200_000), NOW + 1_000)
    assert clocks.date_for(HOST, NOW + KEPT) == NOW + KEPT + UNLEARNED
    clocks.heard(HOST, says(NOW + 2 * KEPT), NOW + 2 * KEPT)
    assert clocks.date_for(HOST, NOW + 2 * KEPT) == NOW + 2 * KEPT - MARGIN


@pytest.mark.parametrize("date", [NOW, None])
def test_a_host_that_is_far_behind_and_does_not_say_so_gets_earlier_dates(date: int | None) -> None:
    """Step by step, within five minutes; then this machine's clock counts again."""
    clocks, offsets = HostClocks(), []
    for _ in range(12):
        dated = clocks.date_for(HOST, NOW)
        offsets.append(dated - NOW)
        assert clocks.refused(HOST, says(date, 400, FUTURE), NOW, dated=dated)
    assert offsets[:3] == [UNLEARNED, UNLEARNED - STEP, UNLEARNED - 2 * STEP]
    assert all(LOWEST <= each <= UNLEARNED for each in offsets)
    assert offsets.count(UNLEARNED) == 2


def test_a_step_of_this_machines_clock_is_made_good_by_the_next_answer() -> None:
    """It was an hour ahead and is corrected. What was learned before is then an hour old, and is forgotten."""
    clocks = HostClocks()
    clocks.heard(HOST, says(NOW), NOW + 3_600_000)
    assert clocks.date_for(HOST, NOW + 3_600_000) == NOW - MARGIN
    assert clocks.date_for(HOST, NOW) == NOW + UNLEARNED
