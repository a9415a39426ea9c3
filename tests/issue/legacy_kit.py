"""Refunds by Flexible Payments on a real Valkey, with Amazon's stand-in on a real socket, all on the test's clock."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from receiver.amazon.account import Account, FpsAccess
from receiver.amazon.calls import Endpoint, Region
from receiver.amazon.fps.calls import FpsRefundRequest
from receiver.amazon.fps.signing import Credentials
from receiver.amazon.signing import Signer
from receiver.issue.fps import FpsIssuer
from receiver.ledger.money import Money
from receiver.ledger.refund import Refund
from receiver.ledger.refund_request import RequestState
from receiver.runtime.metrics import Metrics
from receiver.simulator.app import Simulator
from receiver.simulator.fps.checks import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from receiver.store import Store
from receiver.track.amazon_client import AmazonClient
from receiver.track.record import Recorder
from receiver.track.tracker import Tracker
from receiver.transport.client import Transport
from tests.issue.kit import FAST
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.shared import keys
from tests.service.kit import one_round, trust
from tests.store.makers import claim

T1, T2, RESERVED = (f"14GKSIMULATOR000000000000000000000{number}" for number in (1, 2, 3))
DAY = 86_400_000
DELAY = 3600
"""Seconds from one step of a refund to the next."""


@dataclass
class Office:
    """One process that makes such refunds, and everything around it."""

    simulator: Simulator
    store: Store
    legacy: FpsIssuer
    clock: ManualClock
    numbers: Any

    def another(self, account: Account | None = None) -> FpsIssuer:
        """That of a process that was started after this one."""
        amazon_client = self.legacy.amazon_client
        return make_legacy(account or amazon_client.account, self.store, amazon_client.send, self.clock, self.numbers)

    def order(
        self, reference: str = "R-1", amount: str = "14.00", transaction_id: str = T2, **more: str
    ) -> FpsRefundRequest:
        money = Money.parse(amount, "USD") if amount else None
        return FpsRefundRequest(transaction_id, reference, money, **more)

    def made(self, reference: str = "R-1") -> int:
        """How many refunds Amazon has made under the reference."""
        return sum(each.order.reference == reference for each in self.simulator.fps_refunds)

    @property
    def sent(self) -> int:
        """How many requests have reached Amazon."""
        return len(self.simulator.calls)

    async def work(self, rounds: int = 4) -> None:
        """What the workers do once the leases have run out."""
        for _ in range(rounds):
            self.clock.tick(1_000_000)
            await one_round(self.another().worker().rounds)

    async def state(self, reference: str = "R-1") -> RequestState | None:
        record = await self.store.of("us").fps.get(reference)
        return record.state if record else None

    async def refund(self, reference: str = "R-1") -> Refund:
        found = await self.store.of("us").refunds.get(reference)
        assert found is not None
        return found

    async def due(self, reference: str = "R-1") -> int | None:
        """When the refund is to be asked about, in ms from now."""
        score = await self.store._read("ZSCORE", "refunds:{us}:due", reference)
        return None if score is None else int(float(score)) - self.clock()

    async def look(self, account: Account | None = None) -> None:
        """What a tracker does with all that is due now."""
        legacy = self.another(account)
        tracker = Tracker(legacy.amazon_client, legacy.recorder, Metrics(), lambda: 0.0, observe_fps=legacy.observe)
        for look in (await claim(self.store)).items:
            await tracker.look(look)


def make_legacy(account: Account, store: Store, send: Any, clock: ManualClock, numbers: Any) -> FpsIssuer:
    amazon_client = AmazonClient(account, store.of(account.name), send, Metrics(), clock, timeout=5.0)
    return FpsIssuer(amazon_client, Recorder(store, lambda: 0.0), lambda: 0.0, lambda: str(next(numbers)))


@asynccontextmanager
async def office(store: Store, clock: ManualClock) -> AsyncIterator[Office]:
    """Everything, on loopback."""
    transport = Transport(tls=trust())
    async with Simulator(now=clock, keys=keys(), throttle={}, outcome_delay=DELAY) as simulator:
        account = make_account(
            endpoint=Endpoint(Region.NA, "sandbox", simulator.public_key_id, simulator.base_url),
            signer=Signer(simulator.public_key_id, simulator.merchant_private_key_pem),
            throttle=FAST,
            fps=FpsAccess(simulator.fps_endpoint, Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)),
        )
        numbers = itertools.count()
        legacy = make_legacy(account, store, transport.send, clock, numbers)
        try:
            yield Office(simulator, store, legacy, clock, numbers)
        finally:
            await transport.close()
