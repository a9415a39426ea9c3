"""Edge: the embedded store. A real Valkey in `data_dir`, durable and supervised by the service itself.

Valkey outlives a killed service and keeps holding the directory. A second server on the same files would lose what the
first one acknowledges. Therefore two locks (`store/embedded/files.py`) decide what to do:

    owner.lock  server.lock   then
    free        free          we own it: start Valkey, which inherits `server.lock`
    free        held          an orphan: we own it, attach, and end it when we stop; one that does not answer is ended
                              first and a new one started
    held        -             another service owns it: attach only, never end it; own it once the other is gone

The owner restarts Valkey when it dies (as it does when the disk is full), after 0.1 s doubling to 5 s. Under systemd,
`KillMode=mixed` avoids a restart at each stop: by default systemd also sends SIGTERM to Valkey.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from receiver.errors import ReceiverError, StoreUnavailable
from receiver.store.embedded.files import DataDir, reason_of
from receiver.store.embedded.process import ServerProcess
from receiver.store.embedded.program import find_program
from receiver.store.embedded.socket import TROUBLE, ServerConnection, described, try_a_write

P = ParamSpec("P")
T = TypeVar("T")

STEP = 0.02
"""Seconds between two checks while something starts or ends."""
PING_EVERY = 1.0
"""Seconds between two PINGs of a healthy server."""
PATIENCE = 3.0
"""Seconds without an answer after which a server counts as unhealthy."""
KILL_TIMEOUT = 5.0
"""Seconds to wait for a killed server."""
REWRITER_TIMEOUT = 1.5
"""Seconds until the child that rewrites the file, which reports once a second, notices that its server is gone."""
FIRST_WAIT, LAST_WAIT = 0.1, 5.0
"""Seconds before a dead server is restarted."""
STABLE_AFTER = 10.0
"""A server that lived this many seconds is restarted after the first wait instead of a longer one."""


class EmbeddedStore:
    """The Valkey of one directory. `start` it, use `url`, `stop` it. Both may be cancelled and called again.

    `answer_timeout`: seconds in which a server must answer; otherwise it hangs. Loading its data may take any time.
    `stop_timeout`: seconds for a clean exit (SIGTERM), after which it is killed.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        log: FilteringBoundLogger | None = None,
        answer_timeout: float = 10.0,
        stop_timeout: float = 10.0,
    ) -> None:
        self._files = DataDir(data_dir.resolve())
        self._log: FilteringBoundLogger = structlog.get_logger() if log is None else log
        self._answer_timeout, self._stop_timeout = answer_timeout, stop_timeout
        self._server: ServerProcess | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._life: asyncio.Task[None] | None = None
        self._healthy = False
        self._told: dict[str, str] = {}
        self._opened_at, self._wait = 0.0, FIRST_WAIT
        self._stopping = False

    @property
    def url(self) -> str:
        """The address for Redis clients: `unix:///path/to/valkey.sock`, percent-encoded."""
        return self._files.url

    @property
    def healthy(self) -> bool:
        """Whether the server answered the last check. It is checked every second, and when it ends."""
        return self._healthy

    @property
    def gone(self) -> bool:
        """Whether the data was removed while the server runs: it would confirm writes that are lost."""
        return self._healthy and not self._files.intact()

    @property
    def owner(self) -> bool:
        """Whether we supervise the server, and end it when we stop."""
        return self._server is not None and self._server.owned

    @property
    def pid(self) -> int | None:
        """The server's process id; None before the first start."""
        return None if self._server is None else self._server.pid

    @property
    def server(self) -> str:
        """Product and version, such as `Valkey 9.1.2`; empty before the first start."""
        return f"{self._told['product']} {self._told['version']}" if self._told else ""

    async def start(self) -> str:
        """Make sure that one server is up and answering, even if another process started it. Returns its `url`.

        Raises `ConfigurationError` if the directory cannot be used or there is no Valkey to run; `StoreUnavailable` if
        the server does not start, or another one holds the directory and does not answer.
        """
        if self._life is None:
            opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedded-store")
            self._life = asyncio.create_task(self._live(opened), name="embedded-store")
            self._life.add_done_callback(lambda _: _fail(opened, StoreUnavailable("Stopped while starting.")))
            try:
                await opened
            except BaseException:
                await self.stop()
                raise
        return self.url

    async def stop(self) -> None:
        """End the server if we own it; otherwise only detach. If cancelled, this continues in the background."""
        if self._life is not None:
            if not self._stopping:
                self._stopping = True
                self._life.cancel()
            await asyncio.wait({self._life})
            self._life = None
            self._stopping = False

    async def _live(self, opened: asyncio.Future[None]) -> None:
        """Runs from start to stop. Only `stop` and the end of the event loop cancel this task."""
        try:
            await self._do(self._files.prepare)
            self._server = ServerProcess(self._files, await self._do(find_program), self._log)
            self._log_state("store.started" if await self._open() else "store.attached")
            if not opened.done():
                opened.set_result(None)
            while True:
                await self._watch()
                await self._restart()
        except Exception as error:
            if not _fail(opened, error):
                self._log.exception("store.unsupervised")
        finally:
            self._healthy = False
            await self._close()

    async def _open(self) -> bool:
        """Make sure that one server is up and answering. Returns whether we started it."""
        started = evicted = False
        deadline = self._now() + self._answer_timeout
        while True:
            if await self._claim():
                started, deadline = True, self._now() + self._answer_timeout
            if await self._attach():
                self._opened_at = self._now()
                return started
            if self._now() > deadline:
                if evicted or not await self._end_unresponsive():
                    raise StoreUnavailable(self._running.why_unavailable())
                evicted, deadline = True, self._now() + self._answer_timeout
            await asyncio.sleep(STEP)

    async def _claim(self) -> bool:
        try:
            return await self._do(self._running.claim)
        except OSError as error:
            trouble = f"Valkey cannot be started in {self._files.path}: {reason_of(error)}."
            raise StoreUnavailable(trouble) from error

    async def _attach(self) -> bool:
        """Connect to this directory's server and wait while it loads. Returns whether it answers."""
        try:
            async with ServerConnection(self._files.socket, self._answer_timeout) as line:
                if not await self._identify(line):
                    return False
                while (answer := await line.ping()) == "LOADING":  # noqa: ASYNC110 - in another process
                    await asyncio.sleep(STEP)
                await self._do(self._running.loaded)
        except TROUBLE:
            return False
        self._record_answer(answer)
        return True

    async def _identify(self, line: ServerConnection) -> bool:
        """Whether it serves this directory, and not an earlier one that was removed or moved."""
        if await line.directory() != str(self._files.path):
            return False
        info = await line.info()
        self._told = described(info)
        await self._do(self._running.met, int(info["process_id"]))
        return True

    async def _watch(self) -> None:
        """Keep `healthy` current and take over from an owner that exits; return when the server is gone."""
        while True:
            try:
                async with ServerConnection(self._files.socket, min(PATIENCE, self._answer_timeout)) as line:
                    if not await self._identify(line):
                        return
                    while True:
                        self._record_answer(await line.ping())
                        await self._take_over()
                        if await line.ended_within(PING_EVERY):
                            break
            except (ConnectionRefusedError, FileNotFoundError):
                return
            except TROUBLE as error:
                self._record_answer(type(error).__name__)
            self._healthy = False
            await asyncio.sleep(STEP)

    async def _take_over(self) -> None:
        if not self._running.owned and await self._do(self._running.own):
            self._log_state("store.adopted")

    async def _restart(self) -> None:
        """Start the server again, or attach to one that another process has started. Retries until one works."""
        self._healthy = False
        self._log.error("store.died", **await self._do(self._running.exit_details))
        if self._now() - self._opened_at >= STABLE_AFTER:
            self._wait = FIRST_WAIT
        while True:
            await asyncio.sleep(self._wait)
            self._wait = min(2 * self._wait, LAST_WAIT)
            try:
                started = await self._open()
                await try_a_write(self._files.socket, self._answer_timeout)
            except ReceiverError as error:
                self._healthy = False
                self._log.error("store.restart_failed", error=error.detail)
            else:
                self._log_state("store.restarted" if started else "store.attached")
                return

    async def _end_unresponsive(self) -> bool:
        """End a server that holds the directory without answering. Returns whether that worked; only for the owner."""
        if not self._running.owned:
            return False
        self._log.error("store.unresponsive", data_dir=str(self._files.path), pid=self._running.server_pid)
        ended = await self._end()
        if ended:
            await self._do(self._running.forget)
        return ended

    async def _end(self) -> bool:
        """End the server: SIGTERM, so that Valkey finishes its writes, then SIGKILL. Returns whether it ended."""
        for number, bound in ((signal.SIGTERM, self._stop_timeout), (signal.SIGKILL, KILL_TIMEOUT)):
            if not await self._do(self._running.ended):
                sent = await self._do(self._running.send, number)
                if not await self._ended_within(bound if sent else REWRITER_TIMEOUT):
                    continue
            return True
        return False

    async def _ended_within(self, seconds: float) -> bool:
        deadline = self._now() + seconds
        while not await self._do(self._running.ended):
            if self._now() > deadline:
                return False
            await asyncio.sleep(STEP)
        return True

    async def _close(self) -> None:
        """The first call into the thread waits for work that the thread still does for a cancelled caller."""
        thread, server = self._thread, self._server
        try:
            if server is not None and await self._do(lambda: server.owned):
                ended = await self._end()
                self._log.info("store.stopped" if ended else "store.not_stopped", pid=server.server_pid)
        finally:
            if thread is not None:
                last = thread.submit(server.disown if server is not None else bool)
                thread.shutdown(wait=False)
                await asyncio.wrap_future(last)

    async def _do(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in the one thread: in order, and to its end even if the caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))

    @property
    def _running(self) -> ServerProcess:
        if self._server is None:
            raise RuntimeError("not started")
        return self._server

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _record_answer(self, answer: str) -> None:
        if self._healthy and answer != "PONG":
            self._log.warning("store.unhealthy", answer=answer)
        self._healthy = answer == "PONG"

    def _log_state(self, name: str) -> None:
        self._log.info(name, data_dir=str(self._files.path), url=self.url, pid=self.pid, owner=self.owner, **self._told)


def _fail(opened: asyncio.Future[None], error: Exception) -> bool:
    if not (was_open := opened.done()):
        opened.set_exception(error)
    return not was_open
