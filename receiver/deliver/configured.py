"""Verb. Configured subscribers → the store, at the start and whenever they are missing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from msgspec import structs

from receiver.errors import StoreUnavailable
from receiver.outbox.subscribers.subscriber import Subscriber, carry_over
from receiver.store import Store
from receiver.store.redis.damage import WrongType

log = structlog.get_logger()

EVERY = 5.0
"""Seconds between two checks."""


@dataclass(slots=True)
class ConfiguredSubscribers:
    """Keeps the `declared` subscribers, by account, in the store. `done` is set when all have been written once.

    `starts` by account and name: from what time (ms) a new one is owed events of the stream; None: from now on.
    """

    store: Store
    declared: Mapping[str, Sequence[Subscriber]]
    starts: Mapping[tuple[str, str], int | None] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    written: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """By account: set when its subscribers have been written once."""
    blocked: dict[str, WrongType] = field(default_factory=dict)
    """Accounts whose subscribers cannot be written because a key has the wrong type."""
    _stale: set[str] = field(default_factory=set)
    """Accounts whose stored subscribers may still be those of earlier settings."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._stale |= set(self.declared)

    def declare(
        self, declared: Mapping[str, Sequence[Subscriber]], starts: Mapping[tuple[str, str], int | None]
    ) -> None:
        """Keep these from now on, as at a start: stored ones are changed, and those no longer declared are marked."""
        self.declared, self.starts = declared, starts
        self._stale |= set(declared)
        self._changed.set()

    async def run(self) -> None:
        """Write them, and again whenever the store was emptied. Runs until cancelled."""
        while True:
            try:
                for account, subscribers in self.declared.items():
                    await self._declare_alone(account, subscribers)
                if not self.blocked:
                    self.done.set()
                await self._rest(1.0 if self.blocked else EVERY)
            except StoreUnavailable as error:
                log.debug("subscribers.not_written_yet", reason=error.reason)
                await asyncio.sleep(1.0)

    async def _rest(self, seconds: float) -> None:
        """Return after this time, or when others are declared."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    async def ready(self, account: str) -> None:
        """Return when the subscribers of this account have been written once."""
        await self.written[account].wait()

    async def _declare_alone(self, account: str, subscribers: Sequence[Subscriber]) -> None:
        """A key of the wrong type blocks only its own account."""
        try:
            await self._declare(account, subscribers)
            if self.declared.get(account) is subscribers:
                self._stale.discard(account)
            self.written[account].set()
            self.blocked.pop(account, None)
        except WrongType as error:
            self.blocked[account] = error
            log.warning("subscribers.not_written_yet", account=account, key=error.key, reason=error.reason)

    async def _declare(self, account: str, subscribers: Sequence[Subscriber]) -> None:
        for subscriber in subscribers:
            await self._write(account, subscriber)
        if await self.store.of(account).subscribers.open() and self.written[account].is_set():
            log.error("store.emptied", account=account)
        names = {subscriber.name for subscriber in subscribers}
        for each in await self.store.of(account).subscribers.readable() if account in self._stale else ():
            if each.origin == "config" and each.name not in names:
                await self._let_go(account, each)

    async def _let_go(self, account: str, subscriber: Subscriber) -> None:
        """Keep the subscriber and its events, as if it had been added through the API: it can then be removed there.

        Until then the dashboard and the doctor show it.
        """
        now = self.store.now()
        updated = await self.store.of(account).subscribers.update(
            subscriber.name,
            lambda stored, _: (
                structs.replace(stored, origin="api", undeclared_at=now) if stored.origin == "config" else stored
            ),
        )
        if updated is None or not updated.changed:
            return
        fix = f"receiver subscriber remove {subscriber.name}, or declare it again"
        log.warning("subscriber.no_longer_declared", account=account, subscriber=subscriber.name, fix=fix)

    async def _write(self, account: str, subscriber: Subscriber) -> None:
        """Add the subscriber if it is missing. At the start and after a reload, also change the stored one.

        Later nothing is changed: during a rolling update, a process with another configuration would change it back.
        """
        updated = await self.store.of(account).subscribers.update(
            subscriber.name,
            lambda stored, _: carry_over(subscriber, stored) if account in self._stale else stored,
        )
        if updated is None:
            start = self.starts.get((account, subscriber.name))
            await self.store.of(account).subscribers.put(carry_over(subscriber, None), start)
            log.info("subscriber.added", account=account, subscriber=subscriber.name)
        elif updated.changed:
            log.info("subscriber.changed", account=account, subscriber=subscriber.name)
