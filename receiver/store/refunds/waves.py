"""Edge: Redis. The wave of AmazonRejected declines of an account (`ledger/declines/wave.py`). `commit.lua` writes it.

rejected        refund → when its decline was recorded; those of the last hour
wave            when the last decline was recorded (`last`), and the alarm that the wave has raised (`alarm`)
wave:cases      first refund of a chain → the alarm of its wave, while its case is open
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from receiver.ledger.declines.wave import WITHIN, Wave, WaveStep
from receiver.store.redis.base import AccountRepository, Args

NO_STEP = WaveStep(0)


@dataclass(frozen=True, slots=True)
class WaveWrite:
    """How a commit changes the wave of AmazonRejected declines. Written only if the wave has not changed since it was
    read."""

    step: WaveStep = NO_STEP
    raised: str = ""
    """The id of the alarm that is raised; empty if there is none."""
    roots: Sequence[str] = ()
    """The first refunds of the chains that belong to the alarm."""

    def args(self) -> Args:
        """For the script: counts, since, alarm before, alarm raised, its other refunds, their roots, closed, ended."""
        step = self.step
        others = "" if step.raises is None else len(step.raises)
        counts = "1" if step.declined else ""
        return [counts, step.since, step.alarm, self.raised, others, " ".join(self.roots), step.closed, step.ends]


OUTSIDE_WAVES = WaveWrite()


class Waves(AccountRepository):
    async def read(self) -> Wave:
        """The wave as it is. Raises `StoreUnavailable`."""
        rejected = self.keys("rejected")
        since = self.now() - WITHIN
        recent, wave, cases = await asyncio.gather(
            self._read("ZRANGE", rejected, since, "+inf", "BYSCORE", "WITHSCORES"),
            self._read("HMGET", self.keys("wave"), "last", "alarm"),
            self._read("HGETALL", self.keys("wave:cases")),
        )
        last, alarm = (part or b"" for part in wave)
        return Wave(
            recent=dict(self._scored(rejected, recent)),
            last=int(last) if last.isdigit() else 0,
            alarm=alarm.decode(errors="replace"),
            open_cases={root.decode(): its.decode() for root, its in cases.items()},
        )
