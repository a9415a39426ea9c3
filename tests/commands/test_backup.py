"""What is backed up is found again after a restore, in the embedded store and in a plain Valkey."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from receiver.errors import ConfigurationError
from receiver.ledger.money import Money
from receiver.ledger.refund import Observation, Refund, Source
from receiver.store import Store
from receiver.store.embedded.store import EmbeddedStore
from receiver.store.maintenance.backup import restore, save
from receiver.store.redis.keys import RESTORED
from receiver.store.redis.pipeline import connect
from receiver.track.record import Recorder
from tests.kit.accounts import make_account
from tests.kit.clock import T0
from tests.kit.processes import PROJECT, Desk
from tests.kit.valkey import start_valkey, stop_valkey
from tests.store.embedded_kit import kill_servers

IDS = [f"S01-5105180-3221187-R02231{number}" for number in range(8)]
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def folder(place: Desk) -> Iterator[Path]:
    """A short folder; no server of it outlives the test."""
    yield place.folder
    kill_servers(place.folder)


async def said(place: Desk, *words: str | Path, store: str | Path) -> str:
    """What the command prints; it must succeed. `store` is a folder with data, or an address."""
    ran = await place.run(*words, env=environment(store))
    assert (ran.process.returncode, ran.complaint) == (0, "")
    return ran.said


async def refusal(place: Desk, *words: str | Path, store: str | Path = "") -> str:
    """The error output of a command that must be refused."""
    ran = await place.run(*words, env=environment(store))
    assert (ran.process.returncode, ran.said) == (2, "")
    return ran.complaint


def environment(store: str | Path) -> dict[str, str]:
    return {"RECEIVER_DATA_DIR" if isinstance(store, Path) else "RECEIVER_REDIS__URL": str(store)}


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = Store(connect(url))
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def settle(store: Store, refund_id: str, state: str) -> None:
    """Record this as an answer of Amazon's."""
    seen = Observation(
        refund_id=refund_id,
        state=state,
        updated_at=T0,
        charge_id="S01-5105180-3221187-C056351",
        amount=Money.parse("14.00", "USD"),
        reason_code="AmazonRejected" if state == "Declined" else "",
    )
    await Recorder(store, lambda: 0.5).record(make_account(), seen, source=Source.NOTIFICATION)


async def fill(store: Store) -> dict[str, Refund | None]:
    """Write refunds, alternately pending and declined. Returns them as the store has them."""
    for number, refund_id in enumerate(IDS):
        await settle(store, refund_id, "Declined" if number % 2 else "RefundInitiated")
    return await known(store)


async def known(store: Store) -> dict[str, Refund | None]:
    return {refund_id: await store.of("us").refunds.get(refund_id) for refund_id in IDS}


async def marked(store: Store) -> bytes | None:
    """The text that identifies a restore."""
    found: bytes | None = await store._read("GET", RESTORED)
    return found


async def test_the_embedded_store_is_backed_up_while_it_runs_and_restored(place: Desk, folder: Path) -> None:
    """Into a folder that never had data. What was written after the backup is not there, all else is as it was."""
    backup, data = folder / "refunds.rdb", folder / "data"
    embedded = EmbeddedStore(data)
    url = await embedded.start()
    async with opened(url) as store:
        before = await fill(store)
        assert "bytes" in await said(place, "backup", backup, store=data)
        assert "a Valkey is running there" in await refusal(place, "restore", backup, store=data)
        await settle(store, "S01-5105180-3221187-R999999", "Refunded")
    await embedded.stop()
    assert backup.stat().st_mode & 0o777 == 0o600
    assert "holds data already" in await refusal(place, "restore", backup, store=data)

    shutil.rmtree(data)
    data.mkdir(mode=0o700)
    assert f"for {data.owner()}" in await said(place, "restore", backup, store=data)
    again = EmbeddedStore(data)
    async with opened(await again.start()) as store:
        assert await known(store) == before
        assert None not in before.values()
        assert await store.of("us").refunds.get("S01-5105180-3221187-R999999") is None
        await settle(store, IDS[0], "Declined")
    await again.stop()
    third = EmbeddedStore(data)
    async with opened(await third.start()) as store:
        changed = await store.of("us").refunds.get(IDS[0])
        assert changed is not None
        assert changed.state == "Declined"
    await third.stop()


async def test_a_plain_valkey_is_backed_up_and_restored(place: Desk, folder: Path) -> None:
    """With appendonly, as a server to which refunds are entrusted has it; the lanes and the schedule come along."""
    backup = folder / "refunds.rdb"
    process, url = start_valkey(folder / "old", *DURABLE)
    try:
        async with opened(url) as store:
            before, sizes = await fill(store), await store.of("us").gauges.measure()
        await said(place, "backup", backup, store=url)
        await said(place, "backup", backup, store=url)
    finally:
        stop_valkey(process)
    (folder / "new").mkdir()
    assert "FOLDER is missing" in await refusal(place, "restore", backup, store=url)
    await said(place, "restore", backup, folder / "new", store=url)
    process, url = start_valkey(folder / "new", *DURABLE)
    try:
        async with opened(url) as store:
            assert await known(store) == before
            found = await store.of("us").gauges.measure()
            marks = [await marked(store)]
            assert "Marked" in await said(place, "restore", "--mark-only", store=url)
            marks.append(await marked(store))
        assert len({*marks, None}) == 3
    finally:
        stop_valkey(process)
    sizes.pop("oldest_pending_seconds")
    assert found.items() >= sizes.items()
    assert sizes["pending"] == len(IDS) / 2


IMPORTS = """
import asyncio
from pathlib import Path
from receiver.store.maintenance.backup import restore, save
from receiver.store.redis.pipeline import connect
"""
PEEP = """
import os, sys
def peep(event, args):
    if event == "open" and isinstance(args[0], str) and args[2] & os.O_CREAT:
        made.append(args[0])
    for path in made:
        try:
            mode = os.stat(path).st_mode & 0o777
        except OSError:
            continue
        if mode != 0o600:
            sys.stderr.write(f"{path} was {mode:o}\\n")
made = []
os.umask(0)
sys.addaudithook(peep)
"""
"""Looks at the mode of every file that is made from here on, at everything that is done."""


def peeped(code: str, *words: str | Path) -> str:
    """The forbidden reads of the code."""
    command = [sys.executable, "-B", "-c", PEEP + code, *words]
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True, timeout=60)
    assert "bytes" in done.stdout
    return done.stderr


SAVE = f"{IMPORTS}print(asyncio.run(save(connect(sys.argv[1]), Path(sys.argv[2]), 60)), 'bytes')"
RESTORE = f"{IMPORTS}print(restore(Path(sys.argv[1]), Path(sys.argv[2])), 'bytes')"
CARELESS = "with open(sys.argv[1], 'wb') as file:\n    os.chmod(file.name, 0o600)\nprint('bytes')"


async def saved(url: str, file: Path) -> None:
    async with opened(url) as store:
        await save(store.connection.client, file, 60)


def test_what_is_saved_and_restored_is_never_open_to_others(folder: Path) -> None:
    """Whatever the umask is, only the owner may read it, from the first byte on."""
    process, url = start_valkey(folder / "old", *DURABLE)
    backup = folder / "refunds.rdb"
    (folder / "refunds.rdb.part").write_bytes(b"left by one that was cut, and open to all")
    (folder / "refunds.rdb.part").chmod(0o666)
    try:
        assert peeped(SAVE, url, backup) == ""
        with pytest.raises(ConfigurationError, match="cannot be written"):
            asyncio.run(saved(url, folder / "old"))
        assert not (folder / "old.part").exists(), "half a copy has secrets, too"
    finally:
        stop_valkey(process)
    (folder / "new").mkdir()
    assert peeped(RESTORE, backup, folder / "new") == ""
    place = folder / "new" / "appendonlydir"
    assert place.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (backup, *place.iterdir())} == {0o600}
    assert len(list(place.iterdir())) == 3


def test_the_peep_sees_a_file_that_is_closed_afterwards(folder: Path) -> None:
    """Else the test before would prove nothing."""
    assert "was 666" in peeped(CARELESS, folder / "made")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_restored_files_belong_to_the_owner_of_the_folder(folder: Path) -> None:
    """As after `sudo receiver restore`. A new folder belongs to the owner of its parent folder."""
    (folder / "file").write_bytes(b"REDIS0011\xff" + bytes(8))
    os.chown(folder, 10001, 10002)
    restore(folder / "file", folder / "new" / "data")
    made = [folder / "new", *(folder / "new").rglob("*")]
    assert len(made) == 6
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(10001, 10002)}
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir()} == {0o700}


async def test_what_is_no_snapshot_is_refused(place: Desk, folder: Path) -> None:
    """A log or an append-only file must not become a store."""
    (folder / "file").write_text("*2\r\n$6\r\nSELECT\r\n")
    assert "not a snapshot" in await refusal(place, "restore", folder / "file", store=folder / "data")
    (folder / "file").write_bytes(b"REDIS0011\xff" + bytes(7))
    assert "was cut off" in await refusal(place, "restore", folder / "file", store=folder / "data")
    assert not (folder / "data").exists()


async def test_only_the_place_of_the_store_is_read_of_the_settings(place: Desk, folder: Path) -> None:
    """Root's timer can read the settings file, but not the secrets that systemd gives only to the service."""
    config = folder / "receiver.toml"
    config.write_text('data_dir = "data"\n[[accounts]]\nprivate_key_file = "/run/credentials/none.pem"\n')
    commands: list[list[str | Path]] = [["backup", folder / "refunds.rdb"], ["restore", "--mark-only"]]
    for words in commands:
        assert f"{folder / 'data'}: no Valkey is running there" in await refusal(
            place, *words, "-c", config, store=folder / "data"
        )
    assert "redis.url: " in await refusal(place, "backup", "--config", config, folder / "x", store="localhost")
