"""A running service for commands to talk to, in its own thread, and the commands as processes."""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import subprocess
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import IO, Any, TypeVar

from receiver.http.server import server
from receiver.ledger.money import Money
from receiver.ledger.refund import Observation, Source
from receiver.service import Service
from receiver.settings import Settings, check
from receiver.store.redis.pipeline import connect
from receiver.track.record import Recorder
from tests.http.kit import ADMIN, READER, REFUNDER, token
from tests.kit.accounts import MERCHANT, TOPIC, make_account, merchant_key_pem
from tests.kit.clock import T0
from tests.kit.forks import FORKS

REFUND = "S01-5105180-3221187-R022311"
BOUND = 20.0
"""Seconds that a test waits for what must happen."""
REPOSITORY = Path(__file__).resolve().parents[2]

T = TypeVar("T")


def settings(valkey_url: str) -> Settings:
    """Two accounts, us and eu, on this Valkey; a token for each scope."""
    accounts = [
        {
            "name": name,
            "merchant_id": MERCHANT,
            "region": "na",
            "environment": environment,
            "public_key_id": "TESTKEY",
            "private_key": merchant_key_pem().decode(),
            "topic_arns": [TOPIC],
        }
        for name, environment in (("us", "sandbox"), ("eu", "live"))
    ]
    tokens = [token(READER, "read"), token(REFUNDER, "refund"), token(ADMIN, "admin")]
    tree = {
        "accounts": accounts,
        "tokens": tokens,
        "redis": {"url": valkey_url},
        "http": {"shutdown_timeout": "1s"},
    }
    return check(tree, Path("/"))


async def _emptied(valkey_url: str) -> None:
    """Other tests leave data, also of formats that this version does not know."""
    client = connect(valkey_url)
    await client.flushall()
    await client.aclose()


class Server:
    """The service without workers, on one loopback port, with an empty store. It can be stopped, and started again on
    that port."""

    def __init__(self, valkey_url: str) -> None:
        self._settings = settings(valkey_url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self.run(_emptied(valkey_url))
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BOUND)

    def start(self) -> None:
        self.run(self._start())

    def stop(self) -> None:
        self.run(self._stop())

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(BOUND)
        self._loop.close()

    def empty(self) -> None:
        """Forget everything."""

        async def flush() -> None:
            await self.service.store.connection.client.flushall()
            for account in self.service.accounts:
                await self.service.store.of(account.name).subscribers.open()

        self.run(flush())

    def seen(
        self,
        refund_id: str = REFUND,
        state: str = "RefundInitiated",
        *,
        account: str = "us",
        updated_at: int = T0,
        **more: str,
    ) -> None:
        """Record this as an answer of Amazon's."""
        observation = Observation(
            refund_id=refund_id,
            state=state,
            updated_at=updated_at,
            charge_id=more.get("charge", "S01-5105180-3221187-C056351"),
            amount=Money.parse("14.00", "USD"),
            reason_code=more.get("reason", ""),
            reason_description=more.get("description", ""),
        )
        recorder = Recorder(self.service.store, lambda: 0.5)
        self.run(recorder.record(make_account(account), observation, source=Source.NOTIFICATION))

    async def _start(self) -> None:
        self.service = Service(self._settings, workers=False)
        await self.service.start()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._web = server(self.service.app(), self._settings.http)
        self._serving = asyncio.get_running_loop().create_task(self._web.serve(sockets=[listener]))
        async with asyncio.timeout(BOUND):
            while not self._web.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.005)

    async def _stop(self) -> None:
        self._web.should_exit = True
        async with asyncio.timeout(BOUND):
            await self._serving
        self._listener.close()
        await self.service.stop()


class Process:
    """`receiver …` as a process, whose lines can be waited for."""

    def __init__(self, *args: str, stdin: int = subprocess.DEVNULL, **environment: str) -> None:
        self._process = subprocess.Popen(
            [*FORKS.command(), *args],
            cwd=REPOSITORY,
            env={**os.environ, "COLUMNS": "80", **environment},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.out, self.err = _Lines(self._process.stdout), _Lines(self._process.stderr)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        return self._process.wait(BOUND)

    def end(self) -> None:
        """Whatever state it is in."""
        self._process.kill()
        self._process.wait(BOUND)
        self.out.close()
        self.err.close()


class _Lines:
    """Lines of a pipe, as they come."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def next(self) -> str | None:
        """The next line; None at the end."""
        return self._lines.get(timeout=BOUND)

    def until(self, text: str) -> str:
        """The next line with this text; those before it are passed over."""
        passed = []
        while (line := self.next()) is not None:
            if text in line:
                return line
            passed.append(line)
        raise AssertionError(f"{text!r} never came; there was {passed}")

    def rest(self) -> list[str]:
        """Everything up to the end."""
        return list(iter(self.next, None))

    def close(self) -> None:
        self._thread.join(BOUND)
        self._pipe.close()

    def _read(self) -> None:
        for line in self._pipe:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)
