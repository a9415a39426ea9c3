"""Ten times what the machine takes, for a second. `python -m tests.faults overload --seconds 30` measures it."""

from __future__ import annotations

from tests.faults.overload import AFTER, run

LINES, CONNECTIONS, AT_ONCE = 60, 40, 4
LIMITS = f"connections = {CONNECTIONS}\n[ingest]\nconcurrency = {AT_ONCE}"


def test_overload_sheds_and_is_over_at_once() -> None:
    """What is over the bounds gets 503 with a time to come back, connections over the limit are closed, memory stays,
    work goes on, and right afterwards everything is taken again. How much and how fast is for a quiet machine to say.
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
