"""What is backed up is found again after a restore, in the embedded store and in a plain Valkey."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from receiver.ledger.money import Money
from receiver.ledger.refund import Observation, Refund, Source
from receiver.store import Store
from receiver.store.embedded.store import EmbeddedStore
from receiver.store.redis.keys import RESTORED
from receiver.store.redis.pipeline import connect
from receiver.track.record import Recorder
from tests.deploy.tools import DEPLOY, run
from tests.kit.accounts import make_account
from tests.kit.clock import T0
from tests.kit.processes import short_folder
from tests.kit.valkey import start_valkey, stop_valkey
from tests.store.embedded_kit import kill_servers

SCRIPT = DEPLOY / "backup.py"
IDS = [f"S01-5105180-3221187-R02231{number}" for number in range(8)]
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short folder; no server of it outlives the test."""
    path = short_folder()
    yield path
    kill_servers(path)
    shutil.rmtree(path)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = Store(connect(url))
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def settle(store: Store, refund_id: str, state: str) -> None:
    """Amazon was seen to say this."""
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
    """Refunds, pending and declined by turns; what the store says of them."""
    for number, refund_id in enumerate(IDS):
        await settle(store, refund_id, "Declined" if number % 2 else "RefundInitiated")
    return await known(store)


async def known(store: Store) -> dict[str, Refund | None]:
    return {refund_id: await store.of("us").refunds.get(refund_id) for refund_id in IDS}


async def marked(store: Store) -> bytes | None:
    """What tells one restore from another."""
    found: bytes | None = await store._read("GET", RESTORED)
    return found


def refusal(file: Path, into: Path) -> str:
    """What a restore that is refused says."""
    done = subprocess.run([sys.executable, SCRIPT, "restore", file, into], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr


async def test_the_embedded_store_is_backed_up_while_it_runs_and_restored(folder: Path) -> None:
    """Into a folder that never had data. What was written after the backup is not there, all else is as it was."""
    backup, data = folder / "refunds.rdb", folder / "data"
    embedded = EmbeddedStore(data)
    url = await embedded.start()
    async with opened(url) as store:
        before = await fill(store)
        run(sys.executable, SCRIPT, "save", url, backup)
        await settle(store, "S01-5105180-3221187-R999999", "Refunded")
    await embedded.stop()
    assert backup.stat().st_mode & 0o777 == 0o600
    assert "holds data already" in refusal(backup, data)

    shutil.rmtree(data)
    data.mkdir(mode=0o700)
    run(sys.executable, SCRIPT, "restore", backup, data)
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


async def test_a_plain_valkey_is_backed_up_and_restored(folder: Path) -> None:
    """With appendonly, as a server to which refunds are entrusted has it; the lanes and the schedule come along."""
    backup = folder / "refunds.rdb"
    process, url = start_valkey(folder / "old", *DURABLE)
    try:
        async with opened(url) as store:
            before, sizes = await fill(store), await store.of("us").gauges.measure()
        run(sys.executable, SCRIPT, "save", url, backup)
        run(sys.executable, SCRIPT, "save", url, backup)
    finally:
        stop_valkey(process)
    (folder / "new").mkdir()
    run(sys.executable, SCRIPT, "restore", backup, folder / "new")
    process, url = start_valkey(folder / "new", *DURABLE)
    try:
        async with opened(url) as store:
            assert await known(store) == before
            found = await store.of("us").gauges.measure()
            marks = [await marked(store)]
            run(sys.executable, SCRIPT, "restored", url)
            marks.append(await marked(store))
        assert len({*marks, None}) == 3
    finally:
        stop_valkey(process)
    sizes.pop("oldest_pending_seconds")
    assert found.items() >= sizes.items()
    assert sizes["pending"] == len(IDS) / 2


PEEP = """
import os, runpy, sys
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
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program, and looks at the mode of every file that it makes at everything that it does."""


def peeped(*words: str | Path) -> str:
    """What the program did wrong, and says."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", PEEP, *words], check=True, capture_output=True, text=True, timeout=60
    )
    assert "bytes" in done.stdout
    return done.stderr


def test_what_is_saved_and_restored_is_never_open_to_others(folder: Path) -> None:
    """Not even for a moment, and whatever the umask is: from the first byte on, only the owner may read it."""
    process, url = start_valkey(folder / "old", *DURABLE)
    backup = folder / "refunds.rdb"
    (folder / "refunds.rdb.part").write_bytes(b"left by one that was cut, and open to all")
    (folder / "refunds.rdb.part").chmod(0o666)
    try:
        assert peeped(SCRIPT, "save", url, backup) == ""
    finally:
        stop_valkey(process)
    (folder / "new").mkdir()
    assert peeped(SCRIPT, "restore", backup, folder / "new") == ""
    place = folder / "new" / "appendonlydir"
    assert place.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (backup, *place.iterdir())} == {0o600}
    assert len(list(place.iterdir())) == 3


def test_the_peep_sees_a_file_that_is_closed_afterwards(folder: Path) -> None:
    """Else the test before would prove nothing."""
    careless = folder / "careless.py"
    careless.write_text(
        "import os, sys\nwith open(sys.argv[1], 'wb') as file:\n    os.chmod(file.name, 0o600)\nprint('bytes')\n"
    )
    assert "was 666" in peeped(careless, folder / "made")


def test_what_is_no_snapshot_is_refused(folder: Path) -> None:
    """A log or an append-only file must not become a store."""
    (folder / "file").write_text("*2\r\n$6\r\nSELECT\r\n")
    assert "not a snapshot" in refusal(folder / "file", folder / "data")
    assert not (folder / "data").exists()
