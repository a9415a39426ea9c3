"""Edge: Redis. The only folder that talks to Redis. Each Lua script is stored beside the module that runs it.

redis/         connections, pipelines, clusters, keys, scripts, the shared clock, change notifications
refunds/       refunds, their schedule, timeline and disputes, and notifications that were not understood
requests/      refund requests, FPS orders and what is known of a charge
deliveries/    subscribers, their delivery queues and dead letters, and the stream of events
maintenance/   the version of the data, restores, inspection, repair and pruning
embedded/      a Valkey of our own, used when no Redis is configured
account.py     all repositories of an account, bound to it
audit.py       who did what
dashboard.py   read-only queries for people
gauges.py      sizes for the metrics
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import structlog

from receiver.errors import StoreUnavailable
from receiver.store.account import AccountStores
from receiver.store.maintenance.data_version import DataVersion
from receiver.store.maintenance.inspection import Inspection
from receiver.store.redis.base import Connection
from receiver.store.redis.client import Client, pipelines
from receiver.store.redis.clock import Clock
from receiver.store.redis.damage import Damage
from receiver.store.redis.keys import CERTIFICATES, PROBE, SEALS, Keys
from receiver.store.redis.outage import Outage
from receiver.store.redis.wakeups import ChangeNotifier

log = structlog.get_logger()
CLOCK_EVERY, CLOCK_RETRY = 30.0, 1.0


class Store(AccountStores):
    """All stored data. Every method raises `StoreUnavailable` when Redis does not confirm.

    `address` (without secrets) is shown in the log when Redis is unavailable; without one, nothing is logged.
    """

    def __init__(
        self,
        client: Client,
        *,
        clock: Clock | None = None,
        wait_replicas: int = 0,
        wait_timeout: float = 0.5,
        on_error: Callable[[str], None] = lambda kind: None,
        address: str = "",
        gone: Callable[[], bool] = lambda: False,
        on_dropped: Callable[[int], None] = lambda count: None,
        on_record: Callable[[str], None] = lambda kind: None,
    ) -> None:
        self._outage = Outage(address, lambda: self.check_writes(self.connection.accounts))

        def failed(kind: str) -> None:
            on_error(kind)
            self._outage.failed(kind)

        reads = pipelines(client, on_error=failed)
        writes = pipelines(client, wait_replicas, int(wait_timeout * 1000), failed, gone)
        notifier = ChangeNotifier(client)
        damage = Damage(on_record)
        super().__init__(Connection(client, reads, writes, clock or Clock(), notifier, damage, on_dropped=on_dropped))
        self.inspection = Inspection(self)
        self.format = DataVersion(self)
        self._timekeeper: asyncio.Task[None] | None = None
        self._clock_is_right = False

    async def start(self) -> None:
        """Subscribe to other processes' notifications and adopt Redis's clock. Redis may still be down."""
        with contextlib.suppress(StoreUnavailable):
            await self.correct_clock()
        self.connection.change_notifier.start()
        self._timekeeper = asyncio.get_running_loop().create_task(self._keep_time())

    async def close(self) -> None:
        """Wait for commands in flight, then close the connections."""
        if self._timekeeper is not None:
            self._timekeeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._timekeeper
        await self._outage.stop()
        await self.connection.change_notifier.stop()
        await self._writes.close()
        await self._reads.close()
        await self.connection.client.aclose()

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_EVERY if self._clock_is_right else CLOCK_RETRY)
            with contextlib.suppress(StoreUnavailable):
                await self.correct_clock()

    async def correct_clock(self) -> None:
        """Set the clock from Redis's `TIME`."""
        self._clock_is_right = False
        asked_at = self.now.monotonic()
        seconds, micros = await self._read("TIME")
        self.now.correct(int(seconds) + int(micros) / 1e6, asked_at, self.now.monotonic())
        self._clock_is_right = True

    async def ping(self) -> None:
        """Raise `StoreUnavailable` unless Redis answers."""
        await self._read("PING")

    async def check_writes(self, accounts: Iterable[str] = ()) -> None:
        """Raise `StoreUnavailable` unless Redis accepts writes for at least one of these accounts.

        A full Redis and a replica still answer PING. SETRANGE with an empty value creates no key, and is refused
        whenever other writes are: https://valkey.io/commands/setrange/. In a cluster, accounts live on several nodes.
        As long as one node accepts writes, work for its accounts continues.
        """
        keys = [Keys(account)("probe") for account in accounts] or [PROBE]
        tasks = [asyncio.ensure_future(self._write("SETRANGE", key, 0, b"")) for key in keys]
        try:
            for number, answer in enumerate(asyncio.as_completed(tasks), 1):
                try:
                    await answer
                except StoreUnavailable:
                    if number == len(tasks):
                        raise
                else:
                    return
        finally:
            for task in tasks:
                task.add_done_callback(lambda done: done.cancelled() or done.exception())
                task.cancel()

    async def certificates(self) -> dict[str, bytes]:
        """The signing certificates that have verified a message: `<partition>/<file hash>` → DER."""
        raw: dict[bytes, bytes] = await self._read("HGETALL", CERTIFICATES)
        return {name.decode(errors="replace"): der for name, der in raw.items()}

    async def certificate_seals(self) -> dict[str, bytes]:
        """The seals of the signing certificates, by the same names."""
        raw: dict[bytes, bytes] = await self._read("HGETALL", SEALS)
        return {name.decode(errors="replace"): seal for name, seal in raw.items()}

    async def keep_certificates(
        self, files: Mapping[str, bytes], seals: Mapping[str, bytes] = MappingProxyType({})
    ) -> None:
        """Add signing certificates that have verified a message, with their seals."""
        await self._write("HSET", CERTIFICATES, *(each for pair in files.items() for each in pair))
        if seals:
            await self._write("HSET", SEALS, *(each for pair in seals.items() for each in pair))
