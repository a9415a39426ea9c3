"""A deliverer by itself, with real listeners to send to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import msgspec

from receiver.amazon.account import Account
from receiver.deliver.dispatcher import Deliverer
from receiver.ledger.refund import Source
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.runtime.metrics import Metrics
from receiver.service import system_clock
from receiver.store import Store
from receiver.track.record import Recorder
from receiver.transport.client import Transport
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.service.kit import LEASE, trust
from tests.service.stage import Hook
from tests.store.makers import seen


def make_deliverer(store: Store, transport: Transport, metrics: Metrics, **more: Any) -> Deliverer:
    """A deliverer of "us" without jitter."""
    settings: dict[str, Any] = {"timeout": 10.0, "random": lambda: 0.0, "system_clock": system_clock, **more}
    return Deliverer(
        store=store.of("us"),
        send=transport.send,
        metrics=metrics,
        lease=LEASE / 1000,
        connect_timeout=3.0,
        **settings,
    )


@dataclass
class Depot:
    """A deliverer and all that it needs, on a store whose clock the test moves."""

    store: Store
    redis: Any
    clock: ManualClock
    transport: Transport
    metrics: Metrics
    deliverer: Deliverer
    account: Account = field(default_factory=make_account)

    async def subscribe(self, hook: Hook, **more: Any) -> Subscriber:
        """Add the hook as a subscriber to everything."""
        fields = {"url": hook.url, "secrets": (Secret(hook.secret),), "types": ("*",), **more}
        subscriber = Subscriber(name=hook.name, **fields)
        await self.store.of("us").subscribers.put(subscriber)
        return subscriber

    async def owe(self, count: int = 1, first: int = 1) -> None:
        """Have so many refunds declined: every subscriber is owed an event of each, and nothing else: three that
        Amazon rejected would raise an alarm."""
        recorder = Recorder(self.store, lambda: 0.0)
        for number in range(first, first + count):
            await recorder.record(self.account, seen("Declined", number, "ProcessingFailure"), source=Source.POLL)

    async def deliver(self, name: str = "all") -> ClaimedDelivery:
        """Claim the one event that is due in this lane, deliver it, and settle."""
        (delivery,) = await self.claim(name)
        await self.deliverer.deliver([delivery], (await self.store.of("us").subscribers.read()).subscribers[name])
        return delivery

    async def claim(self, name: str = "all") -> list[ClaimedDelivery]:
        """What is due in this lane."""
        return list((await self.store.of("us").deliveries.claim(name, lease=LEASE, limit=100)).items)

    async def due(self, name: str = "all") -> int | None:
        """When the next event of the lane is to be sent, in ms from now; None if none is owed."""
        scores = await self.redis.zrange(f"refunds:{{us}}:lane:{name}", 0, 0, withscores=True)
        return int(scores[0][1]) - self.clock() if scores else None

    async def attempts(self, name: str = "all") -> DeliveryAttempts:
        """What is kept of the attempts for the one event of the lane."""
        (stored,) = await self.redis.hvals(f"refunds:{{us}}:attempts:{name}")
        return msgspec.json.decode(stored, type=DeliveryAttempts)

    async def empty(self, name: str = "all", *kinds: str) -> bool:
        """Whether nothing is left of this subscriber's lane."""
        keys = [f"refunds:{{us}}:{kind}:{name}" for kind in kinds or ("lane", "owed", "attempts", "dead")]
        return not await self.redis.exists(*keys)

    def counted(self, outcome: str) -> float:
        """How many tries have ended so."""
        return self.metrics.registry.get_sample_value("receiver_deliveries_total", {"outcome": outcome}) or 0.0


@asynccontextmanager
async def depot(store: Store, redis: Any, clock: ManualClock, **more: Any) -> AsyncIterator[Depot]:
    """A deliverer that may reach loopback, unless `allow_networks` says otherwise."""
    networks = more.pop("allow_networks", ("127.0.0.0/8",))
    allowed, servers = [ip_network(each) for each in networks], more.pop("name_servers", ())
    transport, metrics = Transport(allow_networks=allowed, name_servers=servers, tls=trust()), Metrics()
    try:
        yield Depot(store, redis, clock, transport, metrics, make_deliverer(store, transport, metrics, **more))
    finally:
        await transport.close()
