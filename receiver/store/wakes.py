"""Edge: Redis. Who wrote to which account just now, in this process and in others: so that nobody has to poll fast."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from receiver.store.keys import WAKE

log = structlog.get_logger()


class Wakes:
    """A lost wake-up costs a second at most: everybody who waits also looks by himself."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._listener: asyncio.Task[None] | None = None

    def notify(self, account: str) -> None:
        """Wake whoever waits for this account in this process."""
        for future in self._waiting.pop(account, ()):
            if not future.done():
                future.set_result(None)

    async def wait(self, account: str, timeout: float) -> None:
        """Return when the account was written to, or after `timeout` seconds."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[account].add(future)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            pass
        finally:
            waiting = self._waiting.get(account)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[account]

    def start(self) -> None:
        """Listen to other processes."""
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def stop(self) -> None:
        """Listen no more."""
        # asyncio.wait_for of Python 3.11, which redis-py uses, can swallow a cancellation: say it until it is heard.
        while self._listener is not None and not self._listener.done():
            self._listener.cancel()
            await asyncio.wait({self._listener}, timeout=0.1)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(WAKE)
                    while True:
                        message = await channel.get_message(timeout=3.0)
                        if message is not None:
                            self.notify(message["data"].decode())
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("store.wakes_lost", error=type(error).__name__)
                await asyncio.sleep(0.5)
