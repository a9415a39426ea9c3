"""Edge: Redis. The only folder that speaks Redis; scripts stand beside it as .lua files.

keys → connection (pipelines, scripts) → sentinel · cluster → topology (the client for an address)
                                         refunds · requests · unsettled · looks · disputes · feed · format → Store
                                         restored → format
                                         notifications                          → Store
                                         roster → lanes → deaths → keeping · overview   → Store
                                         trail → looks · lanes · overview
pruning                                  takes old refunds out of all of them
clock, wakes                             what all processes agree on, and how they wake each other
embedded                                 a Valkey of our own where no Redis is configured
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import structlog

from receiver.errors import StoreUnavailable
from receiver.runtime.rounds import ChangeSignal
from receiver.store.dashboard import AlertingProblem
from receiver.store.deliveries.feed import Feed
from receiver.store.deliveries.queues import Health
from receiver.store.deliveries.subscribers import SubscriberList
from receiver.store.maintenance.data_version import Format
from receiver.store.maintenance.inspection import Inspection
from receiver.store.redis.client import Client, pipelines
from receiver.store.redis.clock import Clock
from receiver.store.redis.damage import Damage, WrongType
from receiver.store.redis.keys import CERTIFICATES, PROBE, SEALS
from receiver.store.redis.wakeups import ChangeNotifier, News

log = structlog.get_logger()
CLOCK_EVERY, CLOCK_RETRY = 30.0, 1.0
MOST_OLD = 200
AGES = MappingProxyType({"1h": 3_600_000, "1d": 86_400_000, "7d": 604_800_000})
"""ms for which pending refunds have not changed, by the label of the metric."""


class Store(Inspection, Feed, Format):
    """Everything that is kept. Every method raises `StoreUnavailable` when Redis does not confirm."""

    def __init__(
        self,
        client: Client,
        *,
        clock: Clock | None = None,
        wait_replicas: int = 0,
        wait_timeout: float = 0.5,
        on_error: Callable[[str], None] = lambda kind: None,
        gone: Callable[[], bool] = lambda: False,
        on_dropped: Callable[[int], None] = lambda count: None,
        on_record: Callable[[str], None] = lambda kind: None,
    ) -> None:
        self._client: Any = client
        self.damage = Damage(on_record)
        self._names: dict[str, list[str]] = {}
        self._reads = pipelines(client, on_error=on_error)
        self._writes = pipelines(client, wait_replicas, int(wait_timeout * 1000), on_error, gone)
        self.now = clock or Clock()
        self.change_notifier = ChangeNotifier(client)
        self.on_dropped = on_dropped
        self._timekeeper: asyncio.Task[None] | None = None
        self._clock_is_right = False

    async def start(self) -> None:
        """Listen to other processes, and go by Redis's clock. Redis need not be there yet."""
        with contextlib.suppress(StoreUnavailable):
            await self.correct_clock()
        self.change_notifier.start()
        self._timekeeper = asyncio.get_running_loop().create_task(self._keep_time())

    async def close(self) -> None:
        """Let what is under way end, then close the connections."""
        if self._timekeeper is not None:
            self._timekeeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._timekeeper
        await self.change_notifier.stop()
        await self._writes.close()
        await self._reads.close()
        await self._client.aclose()

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_EVERY if self._clock_is_right else CLOCK_RETRY)
            with contextlib.suppress(StoreUnavailable):
                await self.correct_clock()

    async def correct_clock(self) -> None:
        """Go by Redis's `TIME`."""
        self._clock_is_right = False
        asked_at = self.now.monotonic()
        seconds, micros = await self._read("TIME")
        self.now.correct(int(seconds) + int(micros) / 1e6, asked_at, self.now.monotonic())
        self._clock_is_right = True

    async def ping(self) -> None:
        """Raise `StoreUnavailable` unless Redis answers."""
        await self._read("PING")

    async def check_writes(self, accounts: Iterable[str] = ()) -> None:
        """Raise `StoreUnavailable` unless Redis takes writes just now, for one of these accounts at least.

        A Redis that is full or a replica answers PING all the same. SETRANGE with nothing makes no key, and is refused
        as every write is: https://valkey.io/commands/setrange/. In a cluster accounts live on several nodes: as long as
        one of them does, the work of its accounts goes on.
        """
        keys = [self._keys(account)("probe") for account in accounts] or [PROBE]
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
        """The seals of those certificates."""
        raw: dict[bytes, bytes] = await self._read("HGETALL", SEALS)
        return {name.decode(errors="replace"): seal for name, seal in raw.items()}

    async def keep_certificates(
        self, files: Mapping[str, bytes], seals: Mapping[str, bytes] = MappingProxyType({})
    ) -> None:
        """Add signing certificates that have verified a message, with their seals."""
        await self._write("HSET", CERTIFICATES, *(each for pair in files.items() for each in pair))
        if seals:
            await self._write("HSET", SEALS, *(each for pair in seals.items() for each in pair))

    async def changed(self, account: str, timeout: float) -> None:
        """Return when something of the account was written, or after `timeout` seconds."""
        await self.change_notifier.wait(account, timeout)

    def change_signal(self, account: str, kind: News = News.CHANGED) -> AbstractContextManager[ChangeSignal]:
        """A waker that rings whenever such a thing is written to the account."""
        return self.change_notifier.change_signal(account, kind)

    async def gauges(self, account: str) -> dict[str, float]:
        """Sizes: `pending`, `hinted`, `due`, `refreshed`, `events`, `queues`; and per subscriber, as `waiting:<name>`,
        …: `waiting`, `owed` (what holds the stream), `dead`, `failures` in a row, `paused` (1 or 0),
        `oldest_waiting` in seconds. And what `request_sizes` tells.

        `oldest_pending_seconds` is the age of the refund that is pending longest, looked for among the `MOST_OLD` that
        changed least recently: to tell that one is stuck is a change too. `pending_unchanged:<age>` counts those that
        have not changed for so long.
        """
        keys = self._keys(account)
        subscriber_list = await self.subscriber_list(account)
        names = subscriber_list.names
        commands = {
            "pending": ("ZCARD", keys.state("RefundInitiated")),
            "unknown": ("ZCARD", keys.state("")),
            "hinted": ("ZCARD", keys("hinted")),
            "due": ("ZCARD", keys("due")),
            "refreshed": ("ZCARD", keys("refreshed")),
            "events": ("XLEN", keys("events")),
            **{
                f"pending_unchanged:{age}{state}": ("ZCOUNT", keys.state(state), "-inf", self.now() - ms)
                for age, ms in AGES.items()
                for state in ("RefundInitiated", "")
            },
            **{f"waiting:{name}": ("ZCARD", keys("lane", name)) for name in names},
            **{f"owed:{name}": ("ZCARD", keys("owed", name)) for name in names},
            **{f"dead:{name}": ("HLEN", keys("dead", name)) for name in names},
        }
        answers = await asyncio.gather(*(self._size(*command) for command in commands.values()))
        sizes = dict(zip(commands, answers, strict=True))
        sizes["pending"] += sizes.pop("unknown")
        for age in AGES:
            sizes[f"pending_unchanged:{age}"] += sizes.pop(f"pending_unchanged:{age}RefundInitiated")
        sizes["lanes"] = len(names)
        for name in names:
            sizes |= await self._health_sizes(account, name, subscriber_list)
        sizes["oldest_pending_seconds"] = await self._oldest_pending_age(account) / 1000
        sizes["wrong_type_keys"] = sum(each.account in ("", account) for each in self.damage.foreign)
        return sizes | await self.request_sizes(account)

    async def alerting_problems(self, account: str) -> list[AlertingProblem]:
        """The subscribers of the account that are paused, failing or damaged, or have dead events; by name."""
        subscriber_list = await self.subscriber_list(account)
        names = sorted(subscriber_list.names)
        dead = await asyncio.gather(*(self._size("HLEN", self._keys(account)("dead", name)) for name in names))
        health = await asyncio.gather(*(self._health(account, name) for name in names))
        found = [
            AlertingProblem(
                name,
                paused=name in subscriber_list.subscribers and subscriber_list.subscribers[name].paused,
                failing=each.probing,
                dead=int(count),
                unreadable=name not in subscriber_list.subscribers,
            )
            for name, count, each in zip(names, dead, health, strict=True)
        ]
        return [each for each in found if each.paused or each.failing or each.dead or each.unreadable]

    async def _health(self, account: str, name: str) -> Health:
        """None known where the key is foreign: the check of the keys says so."""
        with contextlib.suppress(WrongType):
            return await self.health(account, name)
        return Health()

    async def _size(self, *command: str | int) -> float:
        """The size of a key; 0 for a foreign one, which costs no other its size."""
        with contextlib.suppress(WrongType):
            return float(await self._read(*command))
        return 0.0

    async def _health_sizes(self, account: str, name: str, subscriber_list: SubscriberList) -> dict[str, float]:
        oldest, health = 0, Health()
        with contextlib.suppress(WrongType):
            (_, _, oldest), health = await asyncio.gather(self.queue_sizes(account, name), self.health(account, name))
        found = subscriber_list.subscribers.get(name)
        return {
            f"failures:{name}": health.streak,
            f"paused:{name}": float(found is not None and found.paused),
            f"oldest_waiting:{name}": max(self.now() - oldest, 0) / 1000 if oldest else 0.0,
        }

    async def _oldest_pending_age(self, account: str) -> int:
        """ms; 0 where none is pending. A damaged record is passed over."""
        keys, now = self._keys(account), self.now()
        ids = await self.pending_longest(account, MOST_OLD)
        found = await asyncio.gather(*(self._times(keys("refund", each)) for each in ids))
        ages = [
            now - int(at) for pair in found for at in pair if at and at.isdigit() and len(at) < 16 and int(at) <= now
        ]
        return max(ages, default=0)

    async def _times(self, key: str) -> Sequence[bytes | None]:
        with contextlib.suppress(WrongType):
            return list(await self._read("HMGET", key, "created", "seen"))
        return ()
