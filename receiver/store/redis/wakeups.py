"""Edge: Redis. Notifies workers in all processes about writes to an account, so that they need not poll often."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from enum import StrEnum
from secrets import token_hex
from typing import Any

import structlog
from redis.exceptions import RedisError

from receiver.runtime.rounds import ChangeSignal
from receiver.store.redis.client import Client
from receiver.store.redis.keys import WAKE

log = structlog.get_logger()

SILENCE_TIMEOUT = 3.0
"""Seconds without a message after which the server is pinged. After as many again, the connection is replaced."""


class News(StrEnum):
    """What was written. Only workers that can act on the change are woken."""

    DUE = "due"
    """A refund became due."""
    DISPUTED = "disputed"
    """A dispute became due."""
    JOB = "job"
    """A job became due."""
    CHANGED = "changed"
    """Anything else."""


class ChangeNotifier:
    """Delivers change notifications. A lost one costs at most a second, because every worker also polls."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._me = token_hex(8)
        self._waiting: defaultdict[str, set[ChangeSignal]] = defaultdict(set)
        self._listener: asyncio.Task[None] | None = None

    def word(self, account: str, news: News) -> str:
        """The message to other processes. It names the sender, so that a process can ignore its own messages."""
        return f"{account} {self._me} {news}"

    def notify(self, account: str, news: News | None = None) -> None:
        """Set the signals in this process that wait for this kind of change of this account; None: for any kind."""
        for signal in self._waiting.get(account, ()):
            if news is None or signal.kind == news:
                signal.set()

    @contextlib.contextmanager
    def change_signal(self, account: str, kind: News = News.CHANGED) -> Iterator[ChangeSignal]:
        """A signal that is set whenever a change of this kind is written to the account."""
        signal = ChangeSignal(kind)
        self._waiting[account].add(signal)
        try:
            yield signal
        finally:
            self._waiting[account].discard(signal)
            if not self._waiting[account]:
                del self._waiting[account]

    async def wait(self, account: str, timeout: float) -> None:
        """Return when the account was written to, or after `timeout` seconds."""
        with self.change_signal(account) as signal:
            await signal.rest(timeout)

    def start(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def stop(self) -> None:
        # asyncio.wait_for of Python 3.11, which redis-py uses, can swallow a cancellation: repeat it until the task
        # ends.
        while self._listener is not None and not self._listener.done():
            self._listener.cancel()
            await asyncio.wait({self._listener}, timeout=0.1)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(WAKE)
                    await self._hear(channel)
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("store.wakes_lost", error=type(error).__name__)
                await asyncio.sleep(0.5)

    async def _hear(self, channel: Any) -> None:
        """Read messages until the connection breaks. The server is pinged, as its machine may be gone."""
        asked = False
        while True:
            message = await channel.get_message(timeout=SILENCE_TIMEOUT)
            if message is None and asked:
                raise TimeoutError
            asked = message is None
            if message is None:
                await channel.ping()
            elif message["type"] == "message":
                account, sender, news = [*message["data"].decode(errors="replace").split(" "), "", ""][:3]
                if sender != self._me:
                    self.notify(account, News(news) if news in set(News) else None)
