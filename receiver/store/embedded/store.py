"""Edge: the embedded store. A real Valkey in `data_dir`, run durably and supervised by the service itself.

Valkey outlives a service that is killed, and still holds the directory; a second server on the same files would
lose what the first acknowledges. So two locks (`store/embedded/files.py`) decide who does what:

    owner.lock  server.lock   then
    free        free          we own it: start Valkey, which inherits `server.lock`
    free        held          an orphan: we own it, attach, and end it when we stop; one that does not answer is ended
                              first and a new one started
    held        -             another service owns it: attach only, never end it; own it once the other is gone

The owner starts Valkey again when it dies (as it does when the disk is full), after 0.1 s doubling to 5 s. Under
systemd `KillMode=mixed` spares a restart at each stop: by default SIGTERM goes to Valkey as well.
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
from receiver.store.embedded.process import ServerProcess, find_binary
from receiver.store.embedded.socket import TROUBLE, ServerConnection, try_a_write

P = ParamSpec("P")
T = TypeVar("T")

STEP = 0.02
"""Seconds between two looks while something starts or ends."""
PING_EVERY = 1.0
"""Seconds between two PINGs of a healthy server."""
PATIENCE = 3.0
"""Seconds without an answer after which a server is not healthy."""
KILL_TIMEOUT = 5.0
"""Seconds in which a killed server is gone."""
REWRITER_TIMEOUT = 1.5
"""Seconds in which the child that rewrites the file finds out, reporting once a second, that its server is gone."""
FIRST_WAIT, LAST_WAIT = 0.1, 5.0
"""Seconds before a dead server is started again."""
STABLE_AFTER = 10.0
"""A server that lived so many seconds is started again after the first wait, not after a longer one."""


class EmbeddedStore:
    """The Valkey of one directory. `start` it, use `url`, `stop` it; both may be cancelled, and called again.

    `answer_timeout`: seconds in which a server must answer, else it hangs. Loading its data may take any time.
    `stop_timeout`: seconds in which a server must end in order (SIGTERM), else it is killed.
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
        self._version = ""
        self._opened_at, self._wait = 0.0, FIRST_WAIT
        self._stopping = False

    @property
    def url(self) -> str:
        """The address for Redis clients: `unix:///path/to/valkey.sock`, percent-encoded."""
        return self._files.url

    @property
    def healthy(self) -> bool:
        """Whether the server answered when it was last asked: each second, and when it ends."""
        return self._healthy

    @property
    def gone(self) -> bool:
        """Whether the data was removed under the server: it would confirm writes that nobody finds again."""
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
    def version(self) -> str:
        """Valkey's version, such as `9.1.2`; empty before the first start."""
        return self._version

    async def start(self) -> str:
        """Has one server up and answering, whoever started it, and returns its `url`.

        Raises `ConfigurationError` where the directory cannot be used or there is no Valkey to run, `StoreUnavailable`
        where the server does not start, or another holds the directory and does not answer.
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
        """Ends the server if we own it, else only our part. If cancelled, that goes on in the background."""
        if self._life is not None:
            if not self._stopping:
                self._stopping = True
                self._life.cancel()
            await asyncio.wait({self._life})
            self._life = None
            self._stopping = False

    async def _live(self, opened: asyncio.Future[None]) -> None:
        """From start to stop. Nobody but `stop`, or the end of the event loop, cancels this task."""
        try:
            await self._do(self._files.prepare)
            self._server = ServerProcess(self._files, await self._do(find_binary), self._log)
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
        """Has one server up and answering. Whether we started it."""
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
        """Whether the server of this directory answers. Waits while it loads."""
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
        """Whether it is the server of this directory, and not of one that was here before and is removed or moved."""
        if await line.directory() != str(self._files.path):
            return False
        info = await line.info()
        self._version = info.get("valkey_version", "")
        await self._do(self._running.met, int(info["process_id"]))
        return True

    async def _watch(self) -> None:
        """Returns when the server is gone. Until then keeps `healthy` true, and takes over from an owner that left."""
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
        """Has the server, or the next one, up again, however long that takes."""
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
        """Ends a server that holds the directory and does not answer. Whether that worked; only the owner may."""
        if not self._running.owned:
            return False
        self._log.error("store.unresponsive", data_dir=str(self._files.path), pid=self._running.server_pid)
        ended = await self._end()
        if ended:
            await self._do(self._running.forget)
        return ended

    async def _end(self) -> bool:
        """Ends the server: SIGTERM, by which Valkey finishes its writes, at last SIGKILL. Whether none is left."""
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
        """The first question waits for what the thread still does for a caller that was cancelled."""
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
        """Runs what blocks in the one thread: in order, and to its end even if the caller is cancelled."""
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

    def _log_state(self, event: str) -> None:
        where = {"data_dir": str(self._files.path), "url": self.url}
        self._log.info(event, **where, pid=self.pid, owner=self.owner, version=self._version)


def _fail(opened: asyncio.Future[None], error: Exception) -> bool:
    if not (was_open := opened.done()):
        opened.set_exception(error)
    return not was_open
