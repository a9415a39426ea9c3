"""Commands as real processes without a second of imports: a process that has imported everything forks (`fork.py`)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kit.fork import NUMBER, ask

PROGRAM = Path(__file__).resolve().with_name("fork.py")


class Forked:
    """A process that was forked, as `asyncio.subprocess.Process` has it."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.ensure_future(self._end(line))

    async def _end(self, line: socket.socket) -> int:
        reader, writer = await asyncio.open_unix_connection(sock=line)
        self.returncode = int(NUMBER.unpack(await reader.readexactly(NUMBER.size))[0])
        writer.close()
        return self.returncode

    async def wait(self) -> int:
        """The exit code; negative is the number of the signal that ended it."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError if it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """`kill -9`."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """The server that forks; it starts with the first command and ends with this process."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()

    def path(self) -> str:
        """Where it listens."""
        with self._starting:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="rf-")).resolve()
                self._server = subprocess.Popen(
                    [sys.executable, "-P", PROGRAM, "serve", self._folder / "sock"],
                    env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                assert self._server.stdout is not None
                assert self._server.stdout.readline() == b"listening\n"
            return str(self._folder / "sock")

    def command(self) -> tuple[str, ...]:
        """The command that replaces `python -m receiver`."""
        return (sys.executable, "-I", "-S", str(PROGRAM), "run", self.path())

    async def start(
        self, module: str, *arguments: str | Path, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int
    ) -> Forked:
        """`main` of the module with these arguments, in its own session, without input."""
        given = {"argv": [str(each) for each in arguments], "env": dict(env), "cwd": str(cwd)}
        wanted = {"module": module, "session": True, **given}
        return await _start(await asyncio.to_thread(self.path), wanted, [stdout, stderr])

    def end(self) -> None:
        """The server also ends if this process is killed."""
        if self._server is not None and self._folder is not None:
            self._server.communicate()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = self._server = None


async def _start(path: str, wanted: dict[str, object], streams: Sequence[int]) -> Forked:
    line = socket.socket(socket.AF_UNIX)
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        line.connect(path)
        pid = await asyncio.to_thread(ask, line, wanted, [nothing, *streams])
    except BaseException:
        line.close()
        raise
    finally:
        os.close(nothing)
    line.setblocking(False)
    return Forked(pid, line)


FORKS = Forks()
"""Of this test process."""
