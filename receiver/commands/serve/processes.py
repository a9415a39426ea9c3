"""Command. `receiver serve --workers N`: several processes on the same ports, supervised by one more.

Each does everything that `receiver serve` does. They share the listening sockets, the store, a folder for metrics, and
one for dashboard sessions. The supervisor owns the embedded Valkey, which ends last. A process that dies is restarted.
If the supervisor dies, the others stop in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvloop

from receiver.amazon.sns.signature import self_test
from receiver.commands.serve.reload import at_each, log_reload, read_again, reloading
from receiver.commands.serve.serve import Stopped, addressed, close, listen, running, servers, until_stopped
from receiver.commands.serve.serve import serve as serve_alone
from receiver.commands.serve.traces import traced
from receiver.commands.signals import at_signal
from receiver.errors import ConfigurationError
from receiver.http.dashboard.shared import SharedSessions
from receiver.runtime import logs
from receiver.runtime.metrics import FOLDER, process_died
from receiver.runtime.serving import base_url, serving_all
from receiver.service import Service
from receiver.settings import Settings, load
from receiver.settings.reloading import Reloaded
from receiver.store.embedded.store import EmbeddedStore

log = structlog.get_logger()

START = """\
import signal
early = []
if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
    signal.signal(signal.SIGHUP, lambda number, frame: early.append(number))
from receiver.commands.serve.processes import child
child(early)
"""
"""A SIGHUP that comes early would end the process: Python takes a second to import all."""
FIRST_WAIT, LAST_WAIT, SETTLED = 0.5, 30.0, 30.0
"""Seconds before a process that died is restarted, by the number of restarts. After a run as long as the last of them,
the first applies again."""
GRACE = 5.0
"""Seconds beyond `http.shutdown_timeout` after which a stopping process is killed."""
WRONG_CONFIGURATION = 2


async def serve(settings: Settings, config: Path | None, *, workers: bool = True, processes: int = 1) -> None:
    """Serve in this many processes until a signal ends them. Raises `ConfigurationError`."""
    if processes == 1:
        await serve_alone(settings, config, workers=workers)
        return
    self_test()
    listeners, hung_up = listen(settings), asyncio.Event()
    stopped = at_signal(hung_up.set)
    try:
        async with contextlib.AsyncExitStack() as stack:
            if not settings.redis.address:
                embedded = EmbeddedStore(settings.data_dir)
                stack.push_async_callback(embedded.stop)
                await embedded.start()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="receiver-")))
            found = ProcessPool(settings, config, workers, listeners, folder)
            pool = await stack.enter_async_context(found.running(processes))
            await stack.enter_async_context(at_each(hung_up, pool.reload))
            await pool.wait(stopped)
            log.info("serve.stopping")
    finally:
        close(listeners)


class ProcessPool:
    """The processes. They inherit the listeners, a pipe that closes when the supervisor ends, and a pipe on which each
    reports that it is ready."""

    def __init__(
        self, settings: Settings, config: Path | None, workers: bool, listeners: list[socket.socket], folder: Path
    ) -> None:
        self._settings, self._config, self._listeners = settings, config, listeners
        self._counts, self._sessions = folder / "metrics", folder / "sessions"
        self._given = {"config": str(config.absolute()) if config else "", "workers": workers}
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._alive, self._ready = os.pipe(), os.pipe()
        self._answering = 0
        self._was_ready = False
        """Whether all processes have run with the settings. If these are wrong later, the others go on."""
        self._wrong = asyncio.Event()
        self._stopping = False

    @contextlib.asynccontextmanager
    async def running(self, count: int) -> AsyncIterator[ProcessPool]:
        """This many processes, restarted until the block ends; then stopped and awaited."""
        for folder in (self._counts, self._sessions):
            folder.mkdir(0o700)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._ready[0], self._hear, count)
        keepers = [loop.create_task(self._keep(number), name=f"process:{number}") for number in range(count)]
        try:
            yield self
        finally:
            await self._stop(keepers)
            loop.remove_reader(self._ready[0])
            for end in (self._alive[0], *self._ready):
                os.close(end)

    async def reload(self) -> None:
        """Have each process read the settings again. What changes, or why they are invalid, is logged here, once."""
        found = await read_again(self._settings, self._config)
        log_reload(found)
        if isinstance(found, Reloaded):
            self._settings = found.settings
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)

    async def wait(self, stopped: asyncio.Event) -> None:
        """Waits for a signal. Raises `ConfigurationError` if a process cannot work with the settings."""
        waits = [asyncio.ensure_future(each.wait()) for each in (stopped, self._wrong)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        if self._wrong.is_set():
            raise ConfigurationError(
                ["a process of `receiver serve --workers` cannot run with these settings. See above."]
            )

    def _hear(self, count: int) -> None:
        self._answering += len(os.read(self._ready[0], 4096))
        if self._answering >= count:
            self._was_ready = True
        if self._answering == count:
            names = [account.name for account in self._settings.accounts]
            pids = sorted(process.pid for process in self._processes.values())
            addresses = addressed([base_url(each) for each in self._listeners])
            log.info("serve.ready", **addresses, accounts=names, processes=pids)

    async def _keep(self, number: int) -> None:
        clock, wait = asyncio.get_running_loop().time, FIRST_WAIT
        while not self._stopping:
            began = clock()
            process = self._processes[number] = await self._start()
            code = await process.wait()
            process_died(str(self._counts), process.pid)
            if self._stopping:
                return
            log.error("serve.process_died", process=process.pid, exit_status=code)
            if code == WRONG_CONFIGURATION and not self._was_ready:
                self._wrong.set()
                return
            if clock() - began > SETTLED:
                wait = FIRST_WAIT
            await asyncio.sleep(wait)
            wait = min(wait * 2, LAST_WAIT)

    async def _start(self) -> asyncio.subprocess.Process:
        listeners = [each.fileno() for each in self._listeners]
        ends = {"alive": self._alive[0], "ready": self._ready[1]}
        here = {"supervisor": os.getpid(), "sessions": str(self._sessions)}
        given = json.dumps({**self._given, **ends, **here, "listeners": listeners})
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            START,
            given,
            env={**os.environ, FOLDER: str(self._counts)},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(*listeners, *ends.values()),
        )

    async def _stop(self, keepers: list[asyncio.Task[None]]) -> None:
        """Closes the pipe and sends no signal: an init system may have signalled all, and a second signal kills."""
        self._stopping = True
        os.close(self._alive[1])
        ends = [asyncio.ensure_future(process.wait()) for process in self._processes.values()]
        if ends:
            bound = self._settings.http.shutdown_timeout.total_seconds() + GRACE
            await asyncio.wait(ends, timeout=bound)
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*ends)
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


def child(early: Sequence[int]) -> None:
    """The main function of one process. Its only argument is JSON. `early`: the SIGHUPs that came before."""
    given = json.loads(sys.argv[1])
    try:
        settings = load(Path(given["config"]) if given["config"] else None, os.environ)
        logs.configure(level=settings.log.level, format=settings.log.format)
        uvloop.run(_serve_member(settings, given, early))
    except ConfigurationError as error:
        sys.stderr.writelines(f"receiver: {problem}\n" for problem in error.problems)
        sys.exit(WRONG_CONFIGURATION)
    finally:
        if os.getppid() != given["supervisor"]:  # It was killed, and could not remove the shared folder.
            shutil.rmtree(Path(given["sessions"]).parent, ignore_errors=True)


async def _serve_member(settings: Settings, given: dict[str, Any], early: Sequence[int]) -> None:
    hung_up = asyncio.Event()
    stopped = at_signal(hung_up.set)
    if early:
        hung_up.set()
    alive, ready = int(given["alive"]), int(given["ready"])
    loop = asyncio.get_running_loop()

    def leave() -> None:
        loop.remove_reader(alive)
        stopped.set()

    loop.add_reader(alive, leave)
    listeners = [socket.socket(fileno=each) for each in given["listeners"]]
    try:
        async with (
            traced(os.environ),
            running(Service(settings, workers=bool(given["workers"])), stopped) as service,
        ):
            sessions = SharedSessions(service.store.now, Path(given["sessions"]))
            async with (
                serving_all(servers(service.app(sessions), settings, listeners)),
                reloading(service, Path(given["config"]) if given["config"] else None, hung_up, logs=False),
            ):
                os.write(ready, b".")
                await until_stopped(service, stopped)
    except Stopped:
        log.info("serve.stopped_before_ready")
    finally:
        loop.remove_reader(alive)
        close(listeners)
