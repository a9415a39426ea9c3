"""The commands as separate processes, as a user or a supervisor runs them; nothing they start outlives the test."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.kit.forks import FORKS, Forked
from tests.store.embedded_kit import kill_servers

PROJECT = Path(__file__).resolve().parents[2]
BOUND = 60.0
"""Seconds after which a condition that should come true never will."""
STEP = 0.02
"""Seconds between two checks of a condition that cannot be awaited."""
GRACE = 10.0
"""Seconds in which a stopping service must end: after these Docker kills it."""


async def until(
    condition: Callable[[], object] | Callable[[], Awaitable[object]], what: str, bound: float = BOUND
) -> Any:
    """The first true value of the condition, which may be a coroutine function."""
    try:
        async with asyncio.timeout(bound):
            while True:
                found = condition()
                if isinstance(found, Awaitable):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(STEP)
    except TimeoutError:
        raise AssertionError(f"not within {bound} s: {what}") from None


@dataclass(slots=True)
class Command:
    """One running `receiver …`. Its output goes to files: a full pipe would block it."""

    process: asyncio.subprocess.Process | Forked
    out: Path
    err: Path

    @property
    def said(self) -> str:
        """Its standard output so far."""
        return self.out.read_text("utf-8")

    @property
    def complaint(self) -> str:
        """Its standard error so far, as it stands."""
        return self.err.read_text("utf-8")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log so far. Anything but a JSON line of the log, such as a traceback, is an error."""
        return [json.loads(line) for line in self.complaint.splitlines(keepends=True) if line.endswith("\n")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of this event."""
        return [line for line in self.lines if line["event"] == event]

    async def line(self, event: str) -> dict[str, Any]:
        """The first log line of this event, when it comes."""
        over = False

        def there() -> list[dict[str, Any]]:
            nonlocal over
            found = self.logged(event)
            assert found or not over, f"ended with {self.process.returncode}:\n{self.complaint[-3000:]}"
            over = self.process.returncode is not None
            return found

        lines: list[dict[str, Any]] = await until(there, event)
        return lines[0]

    async def ended(self, bound: float = BOUND) -> int:
        """The exit code; negative is the number of the signal that ended it."""
        try:
            return await asyncio.wait_for(self.process.wait(), bound)
        except TimeoutError:
            raise AssertionError(f"not ended within {bound} s:\n{self.complaint[-3000:]}") from None

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to stop; the exit code, `GRACE` seconds later at most."""
        self.process.send_signal(number)
        return await self.ended(GRACE)

    async def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        await self.process.wait()


@dataclass(slots=True)
class Desk:
    """Starts commands in a separate folder with a short path, because the path of a socket must be short.

    `module` is what is started, forked from a process that has imported the service: its command line, or a module that
    wraps it."""

    folder: Path
    started: list[Command] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    module: str = "receiver.commands.cli"

    async def start(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Command:
        """Start `receiver` with these arguments in the folder, with no settings but those in `env`."""
        number = next(self.numbers)
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = await self._process(arguments, env or {}, stdout.fileno(), stderr.fileno())
        command = Command(process, out, err)
        self.started.append(command)
        return command

    async def _process(
        self, arguments: Sequence[str | Path], env: Mapping[str, str], stdout: int, stderr: int
    ) -> asyncio.subprocess.Process | Forked:
        changes_imports = "PYTHONPATH" in env
        if not changes_imports:
            streams = {"stdout": stdout, "stderr": stderr}
            return await FORKS.start(self.module, *arguments, cwd=self.folder, env=environment(env), **streams)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "receiver", *arguments),
            cwd=self.folder,
            env=environment(env),
            stdin=DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    async def run(self, *arguments: str | Path, env: Mapping[str, str] | None = None, bound: float = 60.0) -> Command:
        """Start it, and return when it has ended."""
        command = await self.start(*arguments, env=env)
        await command.ended(bound)
        return command

    async def serve(self, config: Path, *more: str, env: Mapping[str, str] | None = None) -> Command:
        """Start `receiver serve` and return when it answers."""
        command = await self.start("serve", "--config", config, *more, env=env)
        await command.line("serve.ready")
        return command


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without the receiver's settings, with the project to import from, and `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECEIVER_")}
    return {**kept, "PYTHONPATH": str(PROJECT), "COLUMNS": "100", **more}


def short_folder() -> Path:
    """A new folder under its real name: by that Valkey's command line names it."""
    return Path(tempfile.mkdtemp(prefix="rc-")).resolve()


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    """A desk in a new folder. Nothing is left at the end: no command, no Valkey, no file."""
    folder = short_folder()
    found = Desk(folder)
    try:
        yield found
    finally:
        for command in found.started:
            with suppress(ProcessLookupError):
                command.process.kill()
            await command.process.wait()
        kill_servers(folder)
        shutil.rmtree(folder, ignore_errors=True)
