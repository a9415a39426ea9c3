"""The disk of the embedded store is full. A limit on the size of files simulates that: the write fails in the same
place, halfway through a command, and setting the limit needs no privileges."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.processes import Desk, desk, until
from tests.service.crash_kit import FINAL_EVENT, World, world
from tests.store.embedded_kit import servers

ROOM = 20_000
"""Bytes that may still be written; a notification takes about 1 KB."""
MOST = 200
LOOKS = 60
"""Enough that the log, which is on the same disk, reaches the limit too."""


@pytest.fixture
async def place() -> AsyncIterator[Desk]:
    """Where commands are started."""
    async with desk() as found:
        yield found
        assert not [command.complaint for command in found.started if "Traceback" in command.complaint]


async def test_a_full_disk(place: Desk) -> None:
    """Valkey ends at the first write that fails, and so does the next one: the service answers 503 and is not ready
    while the disk is full, and nothing acknowledged is lost. When there is room again, everything resumes by itself."""
    async with world() as around:
        command = await around.at(await place.serve(around.configure(place.folder), "--no-worker"))
        (valkey,) = servers(place.folder)
        room = written(place.folder) + ROOM
        for pid in (command.process.pid, valkey):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        acknowledged, refused = await fill(around)
        assert acknowledged
        await until(lambda: unready(around), "/readyz says that the store is not well")
        seen = Counter[bool]()
        for _ in range(LOOKS):
            status, headers = await around.post(around.body(refused))
            assert (status, headers["retry-after"].isdigit()) == (503, True)
            seen[await unready(around)] += 1
        assert seen[True] >= LOOKS - 1, "a restart that can write nothing is no recovery"
        resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for pid in servers(place.folder):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await until(lambda: taken(around, refused), "it is taken")
        worker = await place.start("work", "--config", place.folder / "receiver.toml")
        wanted = {(refund_id, FINAL_EVENT["Declined"]) for refund_id in (*acknowledged, refused)}
        await until(lambda: wanted <= around.told(), "everything acknowledged is known and told")
        assert "store.died" in command.complaint
        assert await worker.stop() == 0
        assert await command.stop() == 0


def written(folder: Path) -> int:
    """Bytes of the store's longest file."""
    return max(path.stat().st_size for path in folder.rglob("*.aof"))


async def fill(around: World) -> tuple[list[str], str]:
    """The refunds whose notifications were acknowledged, and the first that was not."""
    acknowledged: list[str] = []
    for _ in range(MOST):
        refund_id = around.refund()
        status, _ = await around.post(around.body(refund_id))
        if status != 200:
            assert status == 503
            return acknowledged, refund_id
        acknowledged.append(refund_id)
    raise AssertionError("the disk never fills")


async def unready(around: World) -> bool:
    """Whether readiness names the store."""
    status, found = await around.get("/readyz")
    return status == 503 and found["checks"]["store"] != "ok"


async def taken(around: World, refund_id: str) -> bool:
    """Whether the notification is acknowledged now; until then 503."""
    status, _ = await around.post(around.body(refund_id))
    assert status in (200, 503)
    return status == 200
