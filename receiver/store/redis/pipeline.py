"""Edge: Redis. Sends all commands issued in the same turn of the event loop as one pipeline; also runs scripts.

With `appendfsync always`, Redis syncs its file once for all commands that it reads together. Commands that are sent
together therefore share the cost of durability (group commit).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import hiredis
import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from receiver.errors import StoreUnavailable
from receiver.runtime.deadline import Deadline
from receiver.runtime.loop import running_loop
from receiver.store.redis.address import RedisAddress, read_address
from receiver.store.redis.errors import error_code, store_error
from receiver.store.redis.keys import PROBE, Keys
from receiver.store.redis.scripts import Command, Script

log = structlog.get_logger()

MOST_BATCHES = 2
"""Pipelines in flight at once. Commands that arrive meanwhile share the next one."""
TIMEOUT = 5.0
"""Seconds for one exchange, if the client sets no time-out."""
COMMAND_ERRORS = frozenset({"error", "wrong_type", "record_unreadable"})
"""Errors that concern one command only: Redis itself is fine."""
WAIT_MARKER_TTL = 86_400_000
"""ms: the key expires when an account is no longer written to."""


@dataclass(slots=True)
class _Call:
    command: Command
    script: Script | None
    repeatable: bool
    answer: asyncio.Future[Any]
    moves: int = 0
    """How often a cluster has redirected it."""


@dataclass(slots=True)
class Pipeline:
    """Sends the commands of one turn of the event loop as one pipeline. Reads and writes have one each."""

    client: Redis
    wait_replicas: int = 0
    wait_ms: int = 500
    on_error: Callable[[str], None] = lambda kind: None
    gone: Callable[[], bool] = lambda: False
    """Whether writes would be lost although Redis confirms them: then nothing is sent."""
    held: Callable[[], str] = lambda: ""
    """The error code for why nothing may be sent yet, such as an unknown data format; empty if it may."""
    _waiting: list[_Call] = field(default_factory=list)
    _batches: set[asyncio.Task[None]] = field(default_factory=set)
    _scheduled: bool = False
    _once: set[Command] = field(default_factory=set)
    _last_failed: bool = False
    """Whether the previous command failed."""

    async def call(self, command: Command, script: Script | None = None, *, repeatable: bool = True) -> Any:
        """Send one command together with all others of this turn.

        A `repeatable` command is sent once more if the connection breaks. A claim is not: if its answer is lost, its
        lease has to expire. After a failure, a claim is preceded by a write that changes nothing; otherwise, for
        example while replicas are missing, claims would lease everything that is due without any worker learning of it.
        Raises `StoreUnavailable` for every failure; the command may or may not have run.
        """
        if self._last_failed and not repeatable:
            await self.call(("SETRANGE", wait_marker_key(command), 0, b""))
        # No name of this frame holds the future: an error's traceback has the frame, and the future has the error.
        return await self._submit(_Call(command, script, repeatable, running_loop().create_future()))

    def _submit(self, call: _Call) -> asyncio.Future[Any]:
        if kind := self.held():
            self._refuse(call, kind)
        else:
            self._waiting.append(call)
            self._schedule()
        return call.answer

    def forget(self, command: Command) -> None:
        """Send one command with the next pipeline, without waiting for its answer. Duplicates are sent once."""
        if command in self._once:
            return
        self._once.add(command)
        answer: asyncio.Future[Any] = running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append(_Call(command, None, False, answer))
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if not self._waiting or len(self._batches) >= MOST_BATCHES:
            return
        calls, self._waiting, self._once = self._waiting, [], set()
        batch = running_loop().create_task(self._send_batch(calls))
        self._batches.add(batch)
        batch.add_done_callback(self._batch_done)

    def _batch_done(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        self._flush()

    async def _send_batch(self, calls: list[_Call]) -> None:
        if self.gone():
            for call in calls:
                self._fail(call, ResponseError("NODATADIR"))
            return
        try:
            answers = await self._send([call.command for call in calls])
        except RedisConnectionError as error:
            # Most likely a pooled connection that was closed unnoticed.
            for call in calls:
                if not call.repeatable:
                    self._fail(call, error)
            await self._again([call for call in calls if call.repeatable])
        except Exception as error:
            self._fail_all(calls, error)
        except asyncio.CancelledError:
            for call in calls:
                call.answer.cancel()
            raise
        else:
            await self._judge(calls, answers)

    async def _again(self, calls: list[_Call]) -> None:
        if not calls:
            return
        try:
            answers = await self._send([call.command for call in calls])
        except Exception as error:
            self._fail_all(calls, error)
        else:
            await self._judge(calls, answers)

    def _fail_all(self, calls: list[_Call], error: Exception) -> None:
        """Fail all calls, whatever the error: uvloop raises `RuntimeError` for a closed transport."""
        if not isinstance(error, RedisError | OSError | TimeoutError):
            log.error("store.failed", exc_info=error)
        for call in calls:
            self._fail(call, error)

    async def _judge(self, calls: list[_Call], answers: list[Any]) -> None:
        unknown = []
        for call, answer in zip(calls, answers, strict=True):
            if isinstance(answer, NoScriptError) and call.script is not None:
                _, _, *rest = call.command
                call.command, call.script = ("EVAL", call.script.source, *rest), None
                unknown.append(call)
            elif isinstance(answer, Exception):
                self._fail(call, answer)
            elif not call.answer.done():
                self._last_failed = False
                call.answer.set_result(answer)
        await self._again(unknown)

    async def _send(self, commands: list[Command]) -> list[Any]:
        if self.wait_replicas:
            wait_marker: Command = ("SET", wait_marker_key(commands[0]), 1, "PX", WAIT_MARKER_TTL, "GET")
            commands = [*commands, wait_marker, ("WAIT", self.wait_replicas, self.wait_ms)]
        answers = await self._exchange(commands)
        return self._confirmed(answers) if self.wait_replicas else answers

    def _confirmed(self, answers: list[Any]) -> list[Any]:
        """The answers without those to `SET` and `WAIT`. If too few replicas confirmed, they become errors."""
        *answers, wait_marker, reached = answers
        if (
            not isinstance(wait_marker, Exception)
            and not isinstance(reached, Exception)
            and reached >= self.wait_replicas
        ):
            return answers
        error = (
            wait_marker
            if isinstance(wait_marker, ResponseError)
            else ResponseError(f"NOREPLICAS {reached} of {self.wait_replicas} replicas confirmed the write")
        )
        return [each if isinstance(each, Exception) else error for each in answers]

    async def _exchange(self, commands: list[Command]) -> list[Any]:
        """redis-py's own pipeline takes three times as long: it packs in Python and sets a timer for every answer."""
        pool = self.client.connection_pool
        connection: Connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py
        try:
            with Deadline(connection.socket_timeout or TIMEOUT):
                # hiredis takes a tuple of any length, although its types say one item.
                packed = b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]
                await connection.send_packed_command(packed)
                return [await self._answer(connection, command) for command in commands]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    async def _answer(self, connection: Connection, command: Command) -> Any:
        try:
            answer = await connection.read_response(timeout=math.inf)
        except ResponseError as error:
            return error
        shape = self.client.response_callbacks.get(str(command[0]))
        return answer if shape is None else shape(answer)

    def _fail(self, call: _Call, error: Exception) -> None:
        self._refuse(call, error_code(error), store_error(error, key_of(call.command)))

    def _refuse(self, call: _Call, kind: str, error: StoreUnavailable | None = None) -> None:
        self.on_error(kind)
        self._last_failed = kind not in COMMAND_ERRORS
        if not call.answer.done():
            call.answer.set_exception(error or StoreUnavailable(f"Redis: {kind}.", reason=f"store_{kind}"))

    async def close(self) -> None:
        while self._batches:
            await asyncio.wait(self._batches)


WAKE_AT = 2
"""The position of the account in `PUBLISH`; the sender follows it."""


def key_of(command: Command) -> str:
    """What determines the command's slot: its first key, or the account of a notification; a fixed key for `TIME`."""
    at = {"EVALSHA": 3, "EVAL": 3, "PUBLISH": WAKE_AT}.get(str(command[0]), 1)
    found = str(command[at]) if len(command) > at else PROBE
    return found.partition(" ")[0] if at == WAKE_AT else found


def wait_marker_key(command: Command) -> str:
    """A key in the command's slot, to write before `WAIT`.

    `WAIT` only waits for the last write of its own connection. An answer such as "repeated" may depend on a write made
    over another connection, which no replica may have received yet.
    """
    key = key_of(command)
    start, end = key.find("{"), key.find("}")
    return _pulse(key[start + 1 : end] if 0 <= start < end else key)


@lru_cache(1_000)
def _pulse(account: str) -> str:
    return Keys(account)("pulse")


def connect(address: RedisAddress | str, *, timeout: float = TIMEOUT, connect_timeout: float = 2.0) -> Redis:
    """A client for a single Redis, by its address or its URL; time-outs in seconds. It never retries on its own.

    By default, redis-py repeats a command up to 10 times after a broken connection: a claim would lease twice.
    """
    address = read_address(address) if isinstance(address, str) else address
    options: dict[str, Any] = {**address.sign_in, **address.tls_options, **limits(timeout, connect_timeout)}
    if address.path:
        return Redis(unix_socket_path=address.path, db=address.database, **options)
    ((host, port),) = address.hosts
    return Redis(host=host, port=port, db=address.database, **options)


def limits(timeout: float, connect_timeout: float) -> dict[str, Any]:
    """The limits of every client, as arguments of redis-py; seconds."""
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout,
        "socket_connect_timeout": connect_timeout,
        "max_connections": 64,
    }
