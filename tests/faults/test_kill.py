"""`kill -9` of each part under load. `python -m tests.faults kill --cycles 100` draws them at random for longer."""

from __future__ import annotations

from tests.faults.kill import Victim, run


async def test_whatever_is_killed_nothing_acknowledged_is_lost() -> None:
    """Each part is killed once; in the end, no acknowledged notification and no decline is lost, and anything delivered
    twice has the same id."""
    report = await run([Victim.REDIS, Victim.WORKER, Victim.ALL, Victim.SERVER], seed=5)
    assert report.good, report
    assert report.kills.total() == len(Victim)
    assert report.acknowledged > 0
    assert report.owed > 0
