"""`kill -9` of the server, a worker, Redis or all of them, drawn from a seed, under load; then quiescence, and a count.

`python -m tests.faults kill --cycles 100`. What is killed is started again, as a supervisor would: the server and the
worker by this program, Redis by its owner where it is embedded, else by this program too.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.benchmarks.machine import free_port
from tests.kit.processes import Command, Desk, desk, until
from tests.kit.valkey import start_valkey, stop_valkey
from tests.service.crash_kit import FINAL_EVENT, Load, World, world
from tests.store.embedded_kit import servers

DECLINED = FINAL_EVENT["Declined"]
LINES, PAUSE = 4, 0.1
"""Connections under load, and how long each rests after an acknowledgement: about 35 notifications a second."""
QUIET = 120.0
"""Seconds in which everything has come right after the last kill: some leases of 22 s, one after the other."""
MOST_WAIT, MOST_NEW = 0.3, 25
"""Before each kill: so many seconds, and so many new acknowledgements."""
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class Victim(StrEnum):
    """What is killed."""

    SERVER = "server"
    WORKER = "worker"
    REDIS = "redis"
    ALL = "all"


@dataclass
class Report:
    """The result."""

    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    answers: Counter[int] = field(default_factory=Counter)
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    """Refunds whose notification was acknowledged, but whose true state the service does not know."""
    owed: int = 0
    """Decline events."""
    untold: list[tuple[str, str]] = field(default_factory=list)
    """Final events that the subscriber never got; declines among them."""
    deliveries: int = 0
    repeated: int = 0
    renamed: list[tuple[str, str]] = field(default_factory=list)
    """Events that came under more than one id."""
    tracebacks: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing is lost, no event has two ids, nothing is answered but 200 and 503."""
        return not (self.lost or self.untold or self.renamed or self.tracebacks or set(self.answers) - {0, 200, 503})

    def __str__(self) -> str:
        declines = sum(kind == DECLINED for _, kind in self.untold)
        good, put_off, nowhere = (self.answers[status] for status in (200, 503, 0))
        others = self.answers.total() - good - put_off - nowhere
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} cycles in {self.seconds:.0f} s ({kills})\n"
            f"acknowledged notifications: {self.acknowledged}, lost: {len(self.lost)}\n"
            f"decline events owed: {self.owed}, lost: {declines}; other final events lost: "
            f"{len(self.untold) - declines}\n"
            f"deliveries: {self.deliveries}, repeated: {self.repeated}, under another id: {len(self.renamed)}\n"
            f"answers to notifications: 200 {good}, 503 {put_off}, no connection {nowhere}, others {others}; "
            f"tracebacks: {len(self.tracebacks)}"
        )


@dataclass
class Town:
    """The installation: `serve --no-worker` and `work` side by side, on one store."""

    place: Desk
    around: World
    config: Path
    external: bool
    server: Command
    worker: Command
    valkey: subprocess.Popen[bytes] | None = None

    @classmethod
    async def start(cls, place: Desk, around: World, *, external: bool) -> Town:
        valkey, url = (await asyncio.to_thread(start_valkey, place.folder / "v", *DURABLE)) if external else (None, "")
        config = around.configure(place.folder, url, port=free_port())
        try:
            server = await around.at(await place.serve(config, "--no-worker"))
            worker = await place.start("work", "--config", config)
        except BaseException:
            if valkey:
                stop_valkey(valkey)
            raise
        return cls(place, around, config, external, server, worker, valkey)

    async def kill(self, victim: Victim) -> None:
        """At once, and start it again."""
        if victim in (Victim.REDIS, Victim.ALL):
            self._kill_redis()
        if victim in (Victim.SERVER, Victim.ALL):
            await self.server.kill()
        if victim in (Victim.WORKER, Victim.ALL):
            await self.worker.kill()
        if victim in (Victim.REDIS, Victim.ALL) and self.external:
            self.valkey, _ = await asyncio.to_thread(start_valkey, self.place.folder / "v", *DURABLE)
        if victim in (Victim.WORKER, Victim.ALL):
            self.worker = await self.place.start("work", "--config", self.config)
        if victim in (Victim.SERVER, Victim.ALL):
            self.server = await self.around.at(await self.place.serve(self.config, "--no-worker"))
        await until(self._ready, f"ready again after {victim}")

    def _kill_redis(self) -> None:
        if self.valkey:
            stop_valkey(self.valkey)
        for pid in [] if self.external else servers(self.place.folder):
            os.kill(pid, signal.SIGKILL)

    async def _ready(self) -> bool:
        return (await self.around.get("/readyz"))[0] == 200

    def end(self) -> None:
        """What is not the desk's."""
        if self.valkey:
            stop_valkey(self.valkey)


@asynccontextmanager
async def town(*, external: bool) -> AsyncIterator[Town]:
    """Everything is up; in the end nothing of it is left."""
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(desk())
        around = await stack.enter_async_context(world())
        found = await Town.start(place, around, external=external)
        stack.callback(found.end)
        yield found


async def run(victims: Sequence[Victim], seed: int, *, external: bool = False) -> Report:
    """Kill these one after the other under load, wait until nothing more happens, and count."""
    source, report, began = random.Random(seed), Report(), time.monotonic()
    async with town(external=external) as place:
        load = Load(place.around, 1_000_000, PAUSE)
        async with load.running(LINES):
            for victim in victims:
                enough = len(load.acknowledged) + source.randint(1, MOST_NEW)
                await until(lambda enough=enough: len(load.acknowledged) >= enough, "notifications are taken")
                await asyncio.sleep(source.uniform(0, MOST_WAIT))
                await place.kill(victim)
                report.kills[victim] += 1
            load.stop()
        await at_rest(place.around)
        await count(report, place, load)
    report.seconds = time.monotonic() - began
    return report


async def at_rest(around: World) -> None:
    """Wait until everything expected has arrived, or for `QUIET`; the count then says what is missing."""

    def told() -> bool:
        over = all(state in FINAL_EVENT for state, _ in around.truth().values())
        return over and around.owed() <= around.told()

    deadline = time.monotonic() + QUIET
    while time.monotonic() < deadline:
        if told() and await around.settled():
            return
        await asyncio.sleep(0.5)


async def count(report: Report, place: Town, load: Load) -> None:
    """Compare Amazon's state with that of the service and with what the subscriber got."""
    around = place.around
    truth, known = around.truth(), await around.known()
    report.answers, report.acknowledged = load.answers, len(load.acknowledged)
    report.lost = sorted(each for each in load.acknowledged if known.get(each) != truth[each])
    report.owed = sum(kind == DECLINED for _, kind in around.owed())
    report.untold = sorted(around.owed() - around.told())
    report.deliveries, report.repeated = len(around.deliveries), around.repeats()
    report.renamed = sorted(each for each, ids in around.ids().items() if len(ids) > 1)
    report.tracebacks = [each.complaint for each in place.place.started if "Traceback" in each.complaint]


def drawn(cycles: int, seed: int) -> list[Victim]:
    """So many victims from a seed."""
    source = random.Random(seed)
    return [source.choice(list(Victim)) for _ in range(cycles)]
