#!/usr/bin/env python3
"""Save the store to a file, and lay such a file into an empty folder. Runs with the service's own Python.

    backup.py save unix:///var/lib/receiver/valkey.sock /backup/refunds.rdb
    backup.py restore /backup/refunds.rdb /var/lib/receiver
    backup.py restored redis://127.0.0.1:6379/0

`save` works while the service runs: the server writes a snapshot of one moment (BGSAVE), which is copied from its
folder, so it runs on the server's machine. `restore` wants a folder without data, whose server is stopped. A server
with `appendonly yes` does not read dump.rdb: the snapshot becomes the base of an append-only file, which both the
embedded store and a Valkey or Redis 7 of your own load at their next start. With it comes the word that this is a
restored store: the service then asks at once about every refund that is not final, and every open case. `restored`
says the same to a server that was restored in another way. The password of a server is taken from REDISCLI_AUTH.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import redis

MANIFEST = "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
RESTORED = "refunds:restored"
"""The key that says it: with a text that no other restore has."""
STEP = 0.1
"""Seconds between two looks at the server."""


def save(url: str, file: Path, bound: float) -> None:
    """Have the server at `url` write a snapshot, and copy it to `file`; `bound`: seconds that it may take.

    Raises `RuntimeError`, `OSError`, or `redis.RedisError`.
    """
    client = _client(url)
    config: dict[str, str] = {**client.config_get("dir"), **client.config_get("dbfilename")}
    source = Path(config["dir"]) / config["dbfilename"]
    before = _persistence(client)["rdb_saves"]
    client.execute_command("BGSAVE", "SCHEDULE")
    deadline = time.monotonic() + bound
    while (now := _persistence(client))["rdb_saves"] == before or now["rdb_bgsave_in_progress"]:
        if now["rdb_last_bgsave_status"] != "ok" and not now["rdb_bgsave_in_progress"]:
            raise RuntimeError(f"the server could not write {source}: look into its log.")
        if time.monotonic() > deadline:
            raise RuntimeError(f"no snapshot after {bound:g} s: give --bound more.")
        time.sleep(STEP)
    if not source.is_file():
        raise RuntimeError(f"{source} is not there: run this on the server's machine, or use valkey-cli --rdb FILE.")
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)
    with source.open("rb") as reader, _fresh(part) as writer:
        shutil.copyfileobj(reader, writer)
        writer.flush()
        os.fsync(writer.fileno())
    part.replace(file)


def restore(file: Path, folder: Path, database: int) -> None:
    """Make the append-only file of a stopped server in `folder` out of a snapshot. Raises `RuntimeError`."""
    with file.open("rb") as reader:
        if reader.read(5) not in (b"REDIS", b"VALKE"):
            raise RuntimeError(f"{file} is not a snapshot of Redis or Valkey.")
    place = folder / "appendonlydir"
    if place.exists():
        raise RuntimeError(f"{place} holds data already: stop the server, and move that folder away.")
    fresh = folder / "appendonlydir.restoring"
    fresh.mkdir(mode=0o700, parents=True)
    word = _command("SELECT", str(database)) + _command("SET", RESTORED, secrets.token_hex(8))
    with file.open("rb") as reader, _fresh(fresh / "appendonly.aof.1.base.rdb") as writer:
        shutil.copyfileobj(reader, writer)
    for name, content in {"1.incr.aof": word, "manifest": MANIFEST.encode()}.items():
        with _fresh(fresh / f"appendonly.aof.{name}") as writer:
            writer.write(content)
    owner = folder.stat()
    for path in (fresh, *fresh.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    fresh.rename(place)


def _fresh(path: Path) -> BinaryIO:
    """A new file that only its owner may read, from its first moment. Raises `OSError`: also where there is one."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def restored(url: str) -> None:
    """Say to the server at `url` that its data was restored. Raises `redis.RedisError`."""
    _client(url).set(RESTORED, secrets.token_hex(8))


def _command(*words: str) -> bytes:
    """As it stands in an append-only file: https://valkey.io/topics/protocol/."""
    text = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{text}".encode()


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, password=os.environ.get("REDISCLI_AUTH"), decode_responses=True)


def _persistence(client: redis.Redis) -> dict[str, Any]:
    found: dict[str, Any] = client.info("persistence")
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    saving = commands.add_parser("save", help="a snapshot of the running server")
    saving.add_argument("url", help="redis://, rediss:// or unix:// of the server")
    saving.add_argument("file", type=Path)
    saving.add_argument("--bound", type=float, default=600.0, help="seconds that the snapshot may take")
    restoring = commands.add_parser("restore", help="into the empty folder of a stopped server")
    restoring.add_argument("file", type=Path)
    restoring.add_argument("folder", type=Path)
    restoring.add_argument("--database", type=int, default=0, help="the number at the end of redis.url, if any")
    telling = commands.add_parser("restored", help="after a restore by other means, once the server runs")
    telling.add_argument("url", help="redis://, rediss:// or unix:// of the server")
    given = parser.parse_args()
    try:
        if given.command == "save":
            save(given.url, given.file, given.bound)
        elif given.command == "restore":
            restore(given.file, given.folder, given.database)
        else:
            restored(given.url)
    except (OSError, RuntimeError, redis.RedisError) as error:
        sys.stderr.write(f"{given.command}: {error}\n")
        return 1
    if given.command == "restored":
        sys.stdout.write("restored: the receivers see it at their next start, or within 30 s.\n")
    else:
        sys.stdout.write(f"{given.command}: {given.file} {given.file.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
