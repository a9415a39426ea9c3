"""A backup that is made under load and restored into an empty folder: what it contains, and what happens to the events
since."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.processes import Desk, until
from tests.service.crash_kit import FINAL_EVENT, Load, World, world
from tests.service.test_crash import looked_after

EARLY = 12


def once_a_day(config: Path) -> Path:
    """Nothing but a notification or a restore makes a refund due while the test lasts."""
    lines = config.read_text().splitlines()
    config.write_text("\n".join('poll = ["every 1d"]' if line.startswith("poll = ") else line for line in lines))
    return config


@pytest.fixture
async def around() -> AsyncIterator[World]:
    """Refunds stay pending for as long as it takes to ask about the first of them."""
    async with world(outcome_delay=4.0) as found:
        yield found


async def test_a_backup_under_load_holds_what_was_acknowledged_and_a_restore_finds_out_the_rest(
    place: Desk, around: World
) -> None:
    """Every refund that was pending then is asked about at once. A decline that was delivered before the restore comes
    again under its id, one that was not delivered comes; by the contract, a subscriber keeps each of them once."""
    config, backup = once_a_day(around.configure(place.folder)), place.folder / "refunds.rdb"
    first = await around.at(await place.serve(config))
    store = (await first.line("store.started"))["url"]
    early = [around.refund() for _ in range(EARLY)]
    for refund_id in early:
        assert (await around.post(around.body(refund_id)))[0] == 200
    await until(lambda: pending(around, early), "the first refunds are known, and pending")

    async with Load(around, 10_000, pause=0.03).running() as load:
        await until(lambda: len(load.acknowledged) >= 60, "60 acknowledged")
        acknowledged = {*load.acknowledged, *early}
        saved = await place.run("backup", backup, env={"RECEIVER_REDIS__URL": store})
        assert saved.process.returncode == 0
        during = len(load.acknowledged)
        assert during > len(acknowledged) - EARLY
        await until(lambda: len(load.acknowledged) > during + 20, "more after the backup")
        load.stop()
    told_early = early[::2]
    for refund_id in told_early:
        await until(lambda refund_id=refund_id: declined(around, refund_id), "Amazon has declined")
        assert (await around.post(around.body(refund_id)))[0] == 200
    await until(lambda: set(told_early) <= told(around), "the first half is told")
    assert not set(early[1::2]) & told(around)
    assert await first.stop() == 0

    # What is still pending when it is asked about after the restore is asked about again only a day later.
    await until(lambda: decided(around, acknowledged), "Amazon has decided on all of them")

    shutil.move(place.folder / "data", place.folder / "old")
    (place.folder / "data").mkdir(mode=0o700)
    assert (await place.run("restore", backup, "--config", config)).process.returncode == 0
    deliveries = len(around.deliveries)
    second = await around.at(await place.serve(config))
    assert (await second.line("store.restored"))["refunds_due"] >= EARLY
    assert acknowledged <= await looked_after((await second.line("store.started"))["url"])
    await until(lambda: right(around, acknowledged), "every refund in its true state, every decline told")

    assert all(len(ids) == 1 for ids in around.ids().values())

    def again() -> set[str]:
        return {each.event["subject"] for each in around.deliveries[deliveries:]}

    await until(lambda: set(early) <= again(), "those that were pending then are told of again")
    kept = [subject for subject, kind in booked(around) if kind == FINAL_EVENT["Declined"]]
    assert sorted(kept) == sorted(set(kept))
    assert {each for each in acknowledged if declined(around, each)} <= set(kept)
    assert await second.stop() == 0


async def pending(around: World, refunds: list[str]) -> bool:
    """Whether the service knows all of these, and none as final."""
    known = await around.known()
    return all(known.get(refund_id, ("", ""))[0] == "RefundInitiated" for refund_id in refunds)


async def right(around: World, refunds: set[str]) -> bool:
    """Whether the service knows the true state of these, and the subscriber got their ends."""
    known, truth = await around.known(), around.truth()
    owed = {(refund_id, kind) for refund_id, kind in around.owed() if refund_id in refunds}
    return owed <= around.told() and all(known.get(each) == truth[each] for each in refunds)


def decided(around: World, refunds: set[str]) -> bool:
    """Whether none of these is pending at Amazon any more."""
    truth = around.truth()
    return all(truth[each][0] != "RefundInitiated" for each in refunds)


def declined(around: World, refund_id: str) -> bool:
    """Whether Amazon says so by now."""
    return around.truth()[refund_id][0] == "Declined"


def told(around: World) -> set[str]:
    """The refunds whose decline the subscriber got."""
    return {subject for subject, kind in around.told() if kind == FINAL_EVENT["Declined"]}


def booked(around: World) -> list[tuple[str, str]]:
    """What a subscriber keeps that drops ids it has seen, and older news of a refund: (refund id, type)."""
    seen: set[str] = set()
    newest: dict[str, int] = {}
    kept = []
    for each in around.deliveries:
        subject, revision = each.event["subject"], each.event["data"]["revision"]
        if each.webhook_id not in seen and revision >= newest.get(subject, 0):
            kept.append((subject, each.event["type"]))
        seen.add(each.webhook_id)
        newest[subject] = max(revision, newest.get(subject, 0))
    return kept
