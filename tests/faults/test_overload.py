"""Ten times as many requests as the machine can process, for a second. `python -m tests.faults overload --seconds 30`
measures it."""

from __future__ import annotations

from tests.faults.overload import AFTER, run

LINES, CONNECTIONS, AT_ONCE = 60, 40, 4
LIMITS = f"connections = {CONNECTIONS}\n[ingest]\nconcurrency = {AT_ONCE}"


def test_overload_sheds_and_is_over_at_once() -> None:
    """Requests over the limits get 503 with Retry-After, connections over the limit are closed, memory does not grow,
    work continues, and right afterwards everything is accepted again. Rates are only measured on a quiet machine.
    """
    found = run(1.0, LINES, 0.5, limits=LIMITS, calm=AT_ONCE)
    assert found.shed > 0, found
    assert found.closed > 0, found
    assert (found.without_time, found.others) == (0, {}), found
    assert found.goodput > found.most / 8, found
    assert found.memory[2] < found.memory[0] + 30, found
    # A request that a sender left behind takes one of the four places until it is judged.
    assert set(found.after.statuses) <= {200, 503}, found
    assert found.after.statuses[200] > len(found.after.times) / 2, found
    assert len(found.after.times) == int(AFTER * found.most * 0.3), found
    assert found.recovered < 10, found
