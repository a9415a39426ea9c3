"""An issuer on a real Valkey, with Amazon's stand-in on a real socket."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from types import coroutine
from typing import Any, TypeVar

from receiver.amazon.account import Account
from receiver.amazon.calls import Endpoint, Region
from receiver.amazon.signing import Signer
from receiver.amazon.throttle import LIVE_THROTTLE, Bucket
from receiver.issue.issuer import Issuer
from receiver.ledger.money import Money
from receiver.ledger.refund_request import RefundRequest
from receiver.runtime.metrics import Metrics
from receiver.service import system_clock
from receiver.simulator.app import Simulator
from receiver.store import Store
from receiver.track.amazon_client import AmazonClient
from receiver.track.record import Recorder
from receiver.transport.client import Transport
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.shared import keys
from tests.service.kit import one_round

T = TypeVar("T")
FAST = dict.fromkeys(LIVE_THROTTLE, Bucket(1000, 1000))


@dataclass
class Desk:
    """One process that issues refunds, and everything around it."""

    simulator: Simulator
    store: Store
    issuer: Issuer
    account: Account
    clock: ManualClock
    numbers: Any

    def another(self) -> Issuer:
        """The issuer of a process that was started after this one."""
        return make_issuer(self.account, self.store, self.issuer.amazon_client.send, self.numbers)

    def wish(self, charge_id: str, amount: str = "14.00", currency: str = "USD", **more: str) -> RefundRequest:
        return RefundRequest(charge_id, Money(Decimal(amount), currency), **more)

    def charge(self, amount: str = "100.00", currency: str = "USD", **more: str) -> str:
        return self.simulator.open_charge(amount, currency, **more)

    def issued(self, charge_id: str) -> list[str]:
        """The refunds that Amazon has made on the charge."""
        return [each.refund_id for each in self.simulator.refunds.values() if each.order.charge_id == charge_id]

    async def work(self, issuer: Issuer | None = None, rounds: int = 4) -> None:
        """What the workers do once the leases have run out."""
        for _ in range(rounds):
            self.clock.tick(1_000_000)
            await self.round(issuer)

    async def round(self, issuer: Issuer | None = None) -> None:
        """Run one round of a worker, and wait for what it started."""
        await one_round((issuer or self.another()).worker().rounds)

    async def reserved(self, charge_id: str) -> list[str]:
        """The members of the charge's book that are only reservations."""
        book = await self.store._read("HGETALL", f"refunds:{{us}}:charge:{charge_id}")
        return [name.decode() for name in book if name.startswith(b"request:")]


def make_issuer(account: Account, store: Store, send: Any, numbers: Any) -> Issuer:
    metrics = Metrics()
    return Issuer(
        amazon_client=AmazonClient(account, store.of(account.name), send, metrics, system_clock, timeout=5.0),
        metrics=metrics,
        recorder=Recorder(store, lambda: 0.0),
        random=lambda: 0.0,
        new_owner=lambda: str(next(numbers)),
    )


@asynccontextmanager
async def desk(store: Store, clock: ManualClock, **more: Any) -> AsyncIterator[Desk]:
    """Everything, on loopback."""
    transport = Transport()
    async with Simulator(keys=keys(), throttle={}, outcome_delay=3600.0) as simulator:
        account = make_account(
            endpoint=Endpoint(Region.NA, "sandbox", simulator.public_key_id, simulator.base_url),
            signer=Signer(simulator.public_key_id, simulator.merchant_private_key_pem),
            throttle=FAST,
            **more,
        )
        numbers = itertools.count()
        issuer = make_issuer(account, store, transport.send, numbers)
        try:
            yield Desk(simulator, store, issuer, account, clock, numbers)
        finally:
            await transport.close()


@contextmanager
def waiting(client: AmazonClient, seconds: float) -> Iterator[None]:
    """The client waits this long for Amazon's answer."""
    before, client.timeout = client.timeout, seconds
    try:
        yield
    finally:
        client.timeout = before


class Killed(Exception):
    """The process died here."""


@coroutine
def dying(work: Coroutine[Any, Any, T], after: int) -> Generator[Any, Any, T]:
    """Run `work`, and let it die at its await point number `after`, from 0. Raises `Killed`."""
    error: BaseException | None = None
    for number in itertools.count():
        try:
            waits_for = work.send(None) if error is None else work.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if number == after:
            work.close()
            raise Killed
        try:
            yield waits_for
            error = None
        except BaseException as caught:
            error = caught
    raise AssertionError
