"""Edge: Redis and files. Saves the store to a file, and makes the data of a stopped server from such a file.

`save` works while the service runs: the server writes a snapshot of one moment (BGSAVE), which is copied from its
folder. A server with `appendonly yes` does not read dump.rdb: `restore` makes the snapshot the base of an append-only
file, which the embedded store and a Valkey or Redis 7 load at their next start. The file also sets
`refunds:restored`: the service then asks at once about every refund that is not final (`restored.py`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from receiver.errors import ConfigurationError, StoreUnavailable
from receiver.store.embedded.files import FileLock, private, reason_of
from receiver.store.redis.client import Client
from receiver.store.redis.cluster import Cluster
from receiver.store.redis.errors import store_error
from receiver.store.redis.keys import RESTORED

MANIFEST = b"file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
STEP = 0.1
"""Seconds between two checks of the server."""
MAGIC = (b"REDIS", b"VALKE")
"""How a snapshot begins."""
END, END_WITHIN = b"\xff", 9
"""How it ends: with this byte, and a checksum of eight bytes."""


async def save(store: Client, file: Path, bound: float) -> int:
    """Have the server write a snapshot, and copy it to `file`, which only its owner may read; returns its bytes.

    `bound`: seconds that the snapshot may take. Raises `StoreUnavailable`; and `ConfigurationError` for a cluster, if
    the server's files are not on this machine, or if `file` cannot be written.
    """
    client = _single(store)
    with _answers():
        source = await _place(client)
        before = (await client.info("persistence"))["rdb_saves"]
        await client.bgsave(schedule=True)
        try:
            async with asyncio.timeout(bound):
                await _written(client, source, before)
        except TimeoutError:
            raise StoreUnavailable(f"no snapshot after {bound:g} s. Allow more with --bound.") from None
    try:
        reader = source.open("rb")
    except OSError as error:
        raise ConfigurationError(
            [
                f"{source}: the server's snapshot cannot be read ({reason_of(error)}). Run this on its machine, as a "
                "user who may read it, or use valkey-cli --rdb FILE."
            ]
        ) from error
    try:
        with reader:
            return _copied(reader, file)
    except OSError as error:
        raise ConfigurationError([f"{file}: cannot be written ({reason_of(error)})."]) from error


def _single(store: Client) -> Redis:
    if isinstance(store, Cluster):
        each = "RECEIVER_REDIS__URL=redis://NODE:6379 for each master"
        raise ConfigurationError([f"redis.url: is a cluster, whose masters have a backup each. Set {each}."])
    return store


async def _place(client: Redis) -> Path:
    """Where the server writes its snapshots."""
    found = await client.config_get("dir", "dbfilename")
    told = {os.fsdecode(name or b""): os.fsdecode(value or b"") for name, value in found.items()}
    return Path(told["dir"]) / told["dbfilename"]


async def _written(client: Redis, source: Path, before: Any) -> None:
    while (now := await client.info("persistence"))["rdb_saves"] == before or now["rdb_bgsave_in_progress"]:
        if now["rdb_last_bgsave_status"] != "ok" and not now["rdb_bgsave_in_progress"]:
            raise StoreUnavailable(f"the server could not write {source}: look into its log.")
        await asyncio.sleep(STEP)


def _copied(reader: BinaryIO, file: Path) -> int:
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)
    try:
        _fill(part, reader)
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return file.stat().st_size


def restore(file: Path, folder: Path, database: int = 0) -> int:
    """Make the append-only file of a stopped server in `folder` from a snapshot; returns the snapshot's bytes.

    The files get the owner of the folder; a new folder gets the owner of its parent folder. Raises
    `ConfigurationError` if the file is no snapshot, or the folder holds data, is in use or cannot be written.
    """
    place = folder / "appendonlydir"
    try:
        with file.open("rb") as reader:
            if reader.read(5) not in MAGIC:
                raise ConfigurationError([f"{file}: is not a snapshot of Redis or Valkey."])
            reader.seek(-min(END_WITHIN, file.stat().st_size), os.SEEK_END)
            if reader.read(1) != END:
                raise ConfigurationError([f"{file}: was cut off: its end is missing. Restore another backup."])
        with _stopped(folder):
            if place.exists():
                raise ConfigurationError(
                    [f"{place}: holds data already. Stop the server, and move that folder away: mv {place} {place}.old"]
                )
            _lay(file, folder, place, database)
        return file.stat().st_size
    except OSError as error:
        raise ConfigurationError([f"{error.filename or folder}: {reason_of(error)}."]) from error


def _lay(file: Path, folder: Path, place: Path, database: int) -> None:
    _make_folder(folder)
    fresh = folder / "appendonlydir.restoring"
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    mark = _command("SELECT", str(database)) + _command("SET", RESTORED, secrets.token_hex(8))
    with file.open("rb") as reader:
        _fill(fresh / "appendonly.aof.1.base.rdb", reader)
    for name, content in {"1.incr.aof": mark, "manifest": MANIFEST}.items():
        _fill(fresh / f"appendonly.aof.{name}", BytesIO(content))
    for path in (fresh, *fresh.iterdir()):
        _give(path, folder)
    fresh.rename(place)


def _make_folder(folder: Path) -> None:
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700)
        _give(each, each.parent)


def _give(path: Path, like: Path) -> None:
    owner = like.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def _stopped(folder: Path) -> Iterator[None]:
    """Keep an embedded store from starting in the folder. Raises `ConfigurationError` if one runs there."""
    lock = FileLock(folder / "server.lock")
    if not lock.path.exists():
        yield
        return
    if not lock.take():
        raise ConfigurationError([f"{folder}: a Valkey is running there. Stop the service first."])
    try:
        yield
    finally:
        lock.release()


def _fill(path: Path, reader: BinaryIO) -> None:
    """Copy to a new file on disk, which only its owner may read from its first moment. Raises `OSError`."""
    with open(path, "xb", opener=private) as writer:
        shutil.copyfileobj(reader, writer)
        writer.flush()
        os.fsync(writer.fileno())


def _command(*words: str) -> bytes:
    """A command in the form of an append-only file: https://valkey.io/topics/protocol/."""
    text = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{text}".encode()


@contextmanager
def _answers() -> Iterator[None]:
    """Errors of Redis as `StoreUnavailable`."""
    try:
        yield
    except ResponseError as error:
        if str(error).startswith(("unknown command", "ERR unknown", "NOPERM")):
            text = "The server refuses CONFIG or BGSAVE. Use its own backups, or valkey-cli --rdb FILE."
            raise StoreUnavailable(text, reason="store_not_permitted") from error
        raise store_error(error, "") from error
    except RedisError as error:
        raise store_error(error, "") from error
