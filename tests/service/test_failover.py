"""A Redis that fails over, under a service in its own process: by Sentinels, with `wait_replicas`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.fleet import Fleet, Server, fleet
from tests.kit.processes import Desk, until
from tests.service.crash_kit import Load, World
from tests.service.test_crash import LANE_WIDTH, LEASE, looked_after, ready, watch_readiness


@pytest.fixture
async def servers() -> AsyncIterator[Fleet]:
    """Room for Valkeys."""
    async with fleet() as found:
        yield found


def on_redis(config: Path, url: str, **more: int) -> Path:
    """The configuration, on this Redis."""
    lines = [f'url = "{url}"', *(f"{name} = {value}" for name, value in more.items())]
    config.write_text("\n".join([config.read_text("utf-8"), "[redis]", *lines, ""]), "utf-8")
    return config


async def master_of(servers: list[Server]) -> Server | None:
    """The server whose role is master."""
    roles = [await each.role() for each in servers]
    return next((each for each, role in zip(servers, roles, strict=True) if role == "master"), None)


async def test_a_master_that_dies_under_load_takes_nothing_acknowledged_along(
    place: Desk, around: World, servers: Fleet
) -> None:
    """`kill -9` while notifications are acknowledged and events delivered. Until a replica is promoted, the service is
    not ready and answers 503; then everything resumes by itself, and what was acknowledged is on the new master. Claims
    of a process that was killed together with the master are done by the other one when their lease has expired."""
    master, replicas = await servers.replicated(2)
    url = await servers.sentinels(master)
    command = await around.at(await place.serve(on_redis(around.configure(place.folder), url, wait_replicas=1)))
    helping = await place.start("work", "--config", place.folder / "receiver.toml")
    await helping.line("work.ready")
    seen: list[int] = []
    looking = asyncio.create_task(watch_readiness(around, seen))
    async with Load(around, 240).running() as load:
        await until(lambda: len(load.acknowledged) >= 80, "80 acknowledged")
        await until(lambda: helping.logged("refund.changed"), "both processes work")
        acknowledged = set(load.acknowledged)
        await asyncio.gather(asyncio.to_thread(master.kill), helping.kill())
        promoted = await until(lambda: master_of(replicas), "a replica is master")
        assert acknowledged <= await looked_after(promoted.url)
    await until(lambda: ready(around), "ready again")
    looking.cancel()
    assert set(seen) == {200, 503}
    assert set(load.answers) == {200, 503}
    assert load.acknowledged <= await looked_after(promoted.url)
    await until(around.settled, "every refund is known, every final event told", 2 * LEASE)
    assert all(len(ids) == 1 for ids in around.ids().values())
    # Of each process, what it was sending when the master died, and what it sent before the next replica followed.
    assert around.repeats() <= 4 * LANE_WIDTH
    assert await command.stop() == 0


async def test_processes_side_by_side_share_the_work(place: Desk, around: World, servers: Fleet) -> None:
    """Two that serve and one that only works, on one Redis: each does some of it, nothing is delivered twice."""
    redis = await servers.start()
    config = on_redis(around.configure(place.folder), redis.url)
    one, two = await asyncio.gather(place.serve(config), place.serve(config))
    hands = [one, two, await place.start("work", "--config", config)]
    await hands[2].line("work.ready")
    urls = [(await each.line("serve.ready"))["address"] for each in (one, two)]
    around.url = urls[0]
    for number in range(60):
        assert (await around.post(around.body(around.refund()), urls[number % 2]))[0] == 200
    await until(around.settled, "everything is known")
    assert await around.known(urls[0]) == await around.known(urls[1]) == around.truth()
    assert around.repeats() == 0
    changed = [len(each.logged("refund.changed")) for each in hands]
    told = [len(each.logged("delivery.delivered")) for each in hands]
    assert sum(changed) == sum(told) == len(around.deliveries)
    assert all(changed), changed
    assert all(told), told
    for each in hands:
        assert await each.stop() == 0
