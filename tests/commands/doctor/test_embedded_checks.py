"""The embedded store as the doctor sees it: running, removed, orphaned, ended."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.commands.doctor.finding import Status
from receiver.commands.doctor.store import check_store
from receiver.store.embedded.store import EmbeddedStore
from tests.commands.doctor.kit import only, site, words
from tests.kit.processes import short_folder, until
from tests.store.embedded_kit import kill_servers, lives


@pytest.fixture
def folder() -> Iterator[Path]:
    path = short_folder()
    yield path
    kill_servers(path)
    shutil.rmtree(path, ignore_errors=True)


async def test_a_running_one_is_right_and_a_removed_one_is_not(folder: Path) -> None:
    """It is durable by default; its folder can still be removed while it runs."""
    store = EmbeddedStore(folder / "data")
    await store.start()
    try:
        here = site(data_dir=str(folder / "data"))
        found = await check_store(here)
        assert words(found) == {"subscribers.lane": "not_written_yet"}
        assert f"supervised by process {os.getpid()}" in only(found, "embedded.valkey").found
        shutil.rmtree(folder / "data" / "appendonlydir")
        gone = [each for each in await check_store(here) if each.reason == "data_dir_gone"]
        assert [each.status for each in gone] == [Status.FAIL]
    finally:
        await store.stop()


async def test_one_that_was_killed_is_not_running(folder: Path) -> None:
    """Its socket is still there."""
    data = folder / "data"
    store = EmbeddedStore(data)
    await store.start()
    pid = store.pid
    await store.stop()
    await until(lambda: not lives(pid), "Valkey has ended")
    (data / "valkey.sock").touch()
    found = await check_store(site(data_dir=str(data)))
    assert words(found) == {"embedded.valkey": "not_running"}


async def test_one_whose_service_was_killed_is_an_orphan(folder: Path) -> None:
    """The next start takes it over."""
    store = EmbeddedStore(folder / "data")
    await store.start()
    try:
        (folder / "data" / "owner.lock").write_text("999999999\n")
        found = only(await check_store(site(data_dir=str(folder / "data"))), "embedded.valkey")
        assert (found.status, found.reason) == (Status.WARN, "orphan")
        assert store.pid is not None
        os.kill(store.pid, signal.SIGSTOP)
        hung = await check_store(site(data_dir=str(folder / "data"), redis={"timeout": "300ms"}))
        assert words(hung)["redis.reachable"] == "store_timeout"
        os.kill(store.pid, signal.SIGCONT)
    finally:
        await store.stop()
