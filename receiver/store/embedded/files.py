"""Edge: files. The directory of the embedded store: its locks, the socket's path, Valkey's options and log.

    server.lock    held by Valkey itself: it inherits the descriptor, so the lock is free exactly when no Valkey
                   (and no child of one that rewrites the append-only file) works in the directory
    owner.lock     held by the service that supervises Valkey; contains its process id, for people
    valkey.sock    where Valkey listens, unless the path is too long (`DataDir.socket`)
    valkey.log     Valkey's own log, cut to its last MiB at a start if it is over 10 MiB
    valkey.pid     Valkey's process id
    appendonlydir  the data
    damaged-*      bytes cut off the end of the data because they were garbled (`store/embedded/process.py`)

The lock files are never removed: a lock on a removed file excludes no process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from receiver.errors import ConfigurationError

SOCKET_PATH_LIMIT = 100
"""Bytes. `sun_path` is 108 on Linux and 104 on macOS, including the closing NUL, and Valkey truncates longer paths."""

TEMPORARY = Path("/tmp")  # noqa: S108 - checked in `_make_socket_dir`; TMPDIR differs between a shell and a daemon
LOG_LIMIT = 10 * 1024 * 1024
LOG_KEPT = 1024 * 1024

DURABLE = {
    # A write is answered only once it is on disk, even while the file is being rewritten.
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "aof-load-truncated": "yes",
    "save": "",
    "stop-writes-on-bgsave-error": "yes",
    # Nothing is ever evicted: there is no maxmemory, and every store of ours must have this policy.
    "maxmemory-policy": "noeviction",
}

COMPACT = {
    # Refunds are hashes of about twenty fields, some of which contain a sentence.
    "hash-max-listpack-entries": "64",
    "hash-max-listpack-value": "512",
}


class FileLock:
    """An exclusive `flock`. It belongs to the open file, so a process that inherits the descriptor also holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    @property
    def descriptor(self) -> int:
        """The descriptor to pass on. Only while held."""
        if self._descriptor is None:
            raise ValueError(f"{self.path} is not held")
        return self._descriptor

    def take(self) -> bool:
        """Try to take the lock without waiting; whether it is held now."""
        if self._descriptor is not None:
            return True
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return False
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Close our descriptor. `LOCK_UN` would also free the lock for processes that inherited it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def sign(self) -> None:
        """Write our process id into the file, for people. Errors such as a full disk are ignored. Only while held."""
        with suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, f"{os.getpid()}\n".encode(), 0)

    def signed_by(self) -> int | None:
        """The process id that the last holder wrote; None if there is none."""
        return read_pid(self.path)


@dataclass(frozen=True, slots=True)
class DataDir:
    """The data directory, with its path resolved, so that two names of one directory mean one store."""

    path: Path

    @property
    def log(self) -> Path:
        return self.path / "valkey.log"

    @property
    def pid_file(self) -> Path:
        """Where Valkey writes its process id. It removes the file on a clean exit."""
        return self.path / "valkey.pid"

    @property
    def socket(self) -> Path:
        """Where Valkey listens: in the directory; or, if that path is too long for a socket or is not UTF-8 (which no
        URL can express), in `/tmp/receiver-<hash of the directory>/`, which only its owner may enter."""
        near = self.path / "valkey.sock"
        encoded = os.fsencode(near)
        if len(encoded) <= SOCKET_PATH_LIMIT and _is_utf8(encoded):
            return near
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:32]
        return TEMPORARY / f"receiver-{name}" / "valkey.sock"

    @property
    def url(self) -> str:
        """The socket as a `unix://` URL."""
        return f"unix://{quote(str(self.socket))}"

    def intact(self) -> bool:
        """Whether the data still exists where Valkey writes it. Valkey keeps writing to files that were removed."""
        return (self.path / "appendonlydir").is_dir()

    def prepare(self) -> None:
        """Create what is missing.

        Raises:
            ConfigurationError: the directory or that of a socket in `/tmp` is unusable, or other users can write to it.
        """
        try:
            if "\n" in str(self.path) or "\r" in str(self.path):
                raise OSError("a line break in the path")
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError("permission denied")
            self._refuse_writers()
            for name in ("server.lock", "owner.lock"):
                os.close(os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except (FileExistsError, NotADirectoryError):
            raise _refused(self.path, "is not a directory") from None
        except OSError as error:
            raise _refused(self.path, f"cannot be used ({reason_of(error)})") from None
        if self.socket.parent != self.path:
            self._make_socket_dir()

    def _refuse_writers(self) -> None:
        """Other users who can write to the directory could replace our data."""
        if trouble := self.open_to_others():
            raise ConfigurationError([f"data_dir: {self.path} {trouble}: chmod go-w {self.path}"])

    def open_to_others(self) -> str:
        """Who else may write to the directory, as the end of a sentence; empty if no other user may. It must exist."""
        found = stat.S_IMODE(self.path.stat().st_mode)
        who = "all users" if found & stat.S_IWOTH else "its group" if found & stat.S_IWGRP else ""
        return f"can be written by {who} (mode {found:04o})" if who else ""

    def _make_socket_dir(self) -> None:
        """Any user may write to `/tmp`: an existing entry must be a real directory that only its owner may enter."""
        place = self.socket.parent
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            found = place.lstat()
            ours = found.st_uid in (os.geteuid(), self.path.stat().st_uid)
        except OSError as error:
            raise _refused(self.path, f"is too deep for a socket, and {place}: {reason_of(error)}") from None
        if not stat.S_ISDIR(found.st_mode) or not ours or found.st_mode & 0o077:
            raise _refused(self.path, f"is too deep for a socket, and others may enter {place}")

    def options(self, *, hide_user_data: bool = True) -> list[str]:
        """Valkey's command line. `hide_user_data`: whether it can keep commands out of its log.

        There is no configuration file: Valkey takes a path containing `*`, `?` or `[` for a pattern. If nothing
        matches, it starts with its defaults, which means on TCP and without an append-only file (9.1).
        """
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.path),
            "databases": "1",
            "daemonize": "no",
            "set-proc-title": "no",
            "pidfile": str(self.pid_file),
            "logfile": str(self.log),
            "loglevel": "notice",
            **({"hide-user-data-from-log": "yes"} if hide_user_data else {}),
            **DURABLE,
            **COMPACT,
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    def trim_log(self) -> None:
        """Keep the last MiB of a log over 10 MiB. Only while no server writes to it."""
        try:
            size = self.log.stat().st_size
        except FileNotFoundError:
            return
        if size > LOG_LIMIT:
            with self.log.open("r+b") as log:
                log.seek(size - LOG_KEPT)
                kept = log.read().partition(b"\n")[2]
                log.seek(0)
                log.write(kept)
                log.truncate()

    def log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def complaint(self, since: int) -> str:
        """Valkey's last complaint in its log after byte `since`."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(since, self.log_size() - 4096))
            lines = log.read().decode(errors="replace").splitlines()
        said = [line.rpartition(" # ")[2].strip() for line in lines if " * " not in line and "overcommit" not in line]
        return " ".join(said[-4:])[-300:].strip()

    def newest_increment(self) -> Path | None:
        """The append-only file that Valkey writes to: the last line of type `i` in the manifest."""
        return self._newest("i")

    def needs_valkey_9(self) -> bool:
        """Whether the data begins as Valkey 9.0 and newer write it. Older servers and Redis call such a file broken."""
        base = self._newest("b")
        try:
            with open(base or "", "rb") as file:
                return file.read(6) == b"VALKEY"
        except OSError:
            return False

    def _newest(self, kind: str) -> Path | None:
        folder = self.path / "appendonlydir"
        try:
            lines = (folder / "appendonly.aof.manifest").read_text().splitlines()
        except OSError:
            return None
        names = [line.split()[1] for line in lines if line.startswith("file ") and line.endswith(f" type {kind}")]
        return folder / names[-1] if names else None


def private(path: str, flags: int) -> int:
    """An opener for `open`: a file that it creates is readable by its owner only, from the first byte."""
    return os.open(path, flags, 0o600)


def read_pid(path: Path) -> int | None:
    """The process id in the file; None if there is none."""
    try:
        pid = int(path.read_text())
    except (OSError, ValueError):
        return None
    return pid if pid > 1 else None


def reason_of(error: OSError) -> str:
    """The system's error message, in lower case."""
    return (error.strerror or str(error)).lower()


def _refused(path: Path, trouble: str) -> ConfigurationError:
    fix = "name a directory that this user may create and write to, or set redis.url"
    return ConfigurationError([f"data_dir: {path} {trouble}: {fix}."])


def _is_utf8(encoded: bytes) -> bool:
    try:
        encoded.decode()
    except UnicodeDecodeError:
        return False
    return True
