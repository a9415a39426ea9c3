"""Edge: time. The simulated Amazon Pay without its sockets: books, checks, throttle, notifications, fault injection."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from receiver.simulator.amounts import DECIMALS, Amount
from receiver.simulator.bank import Bank, Change, Charge, Order
from receiver.simulator.checks import Checks
from receiver.simulator.disputes import Disputes
from receiver.simulator.faults import Fault
from receiver.simulator.fps.book import Book, FpsChange, FpsOrder, FpsRefund, status_form
from receiver.simulator.ids import PREFIX, Ids
from receiver.simulator.keys import Keys, make_signing_key
from receiver.simulator.notifications.announce import Announcer
from receiver.simulator.notifications.fault_injection import FaultInjection
from receiver.simulator.notifications.forgeries import Forger, Forgery
from receiver.simulator.notifications.notices import Publisher, topic_arn
from receiver.simulator.notifications.sender import LOG_LENGTH, NotificationSender, Posted, Sender
from receiver.simulator.outcomes import INITIATED, Outcome
from receiver.simulator.reports.book import Reports
from receiver.simulator.throttle import LIVE, SANDBOX, Rates, Throttle

MERCHANT_ID = "A2SIMULATOR01"
KEY_IDS = {"sandbox": "SANDBOX-SIMULATOR000000000000001", "live": "LIVE-SIMULATOR000000000000000001"}
CURRENCY = {"na": "USD", "eu": "EUR", "jp": "JPY"}

SEEDS = (
    ("0000001-0000001-C000001", 100, "Captured"),
    ("0000002-0000002-C000002", 1_000, "Captured"),
    ("0000003-0000003-C000003", 10_000, "Captured"),
    ("0000004-0000004-C000004", 100, "Authorized"),
    ("0000005-0000005-C000005", 100, "Canceled"),
)
"""The initial charges: id after `S01-` or `P01-`, amount in the region's currency, state."""

LOOK_EVERY = 0.05
"""Seconds between two checks of the clock while something is due later: an injected clock may jump."""


@dataclass(slots=True)
class SimulatorConfig:
    """The settings of a simulator. Durations are seconds."""

    region: str = "na"
    """na, eu or jp."""
    environment: str = "sandbox"
    """sandbox or live."""
    merchant_id: str = MERCHANT_ID
    public_key_id: str = ""
    """With the prefix LIVE or SANDBOX, paths do not name the environment; otherwise they do. Empty: with it."""
    outcome_delay: float = 30.0
    """From one step of a refund to the next; the sandbox takes 31 to 33."""
    skew: float = 900.0
    """How far `x-amz-pay-date` may be from `now`."""
    signature_version: int = 1
    """Of notifications: 1 (SHA-1, SNS's default) or 2 (SHA-256)."""
    throttle: Rates | None = None
    """Call → (burst, per second); None means Amazon's limits for the environment, `{}` unlimited."""
    retry_waits: Sequence[float] = (20.0, 20.0, 20.0)
    """Before each further attempt to post a notification."""
    post_timeout: float = 15.0
    announce_initiated: bool = True
    """Also notify of RefundInitiated. No source says whether Amazon does."""

    def __post_init__(self) -> None:
        """Raise ValueError for impossible settings."""
        if self.region not in CURRENCY or self.environment not in PREFIX:
            raise ValueError("region is na, eu or jp; environment is sandbox or live")
        if self.signature_version not in (1, 2):
            raise ValueError("signature_version is 1 or 2")
        self.public_key_id = self.public_key_id or KEY_IDS[self.environment]
        prefix = key_prefix(self.public_key_id)
        if prefix not in ("", self.environment):
            raise ValueError(f"a {prefix} key does not open {self.environment}")


class CallRecord(msgspec.Struct, frozen=True, rename="camel"):
    """One API call: the status; for a refusal, the specific reason; the trick, if one was applied."""

    at: int
    call: str
    object_id: str
    status: int
    reason: str = ""
    trick: str = ""


def key_prefix(public_key_id: str) -> str:
    """`live` or `sandbox` for a key id with that prefix; empty for others, whose paths name the environment."""
    found = public_key_id.upper()
    return next((environment for environment in PREFIX if found.startswith(environment.upper())), "")


class Engine:
    """One merchant's Amazon Pay in one environment. `app.Simulator` adds the socket."""

    def __init__(
        self,
        config: SimulatorConfig,
        keys: Keys,
        sender: Sender,
        post_to: str | None,
        now: Callable[[], int],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self.config = config
        self.keys = keys
        self.now = now
        self.ids = Ids(random)
        self.bank = Bank(config.environment, random, round(config.outcome_delay * 1000))
        self.checks = Checks({config.public_key_id: keys.merchant_public_key}, config.region, config.skew)
        self.throttle = Throttle(
            (SANDBOX if config.environment == "sandbox" else LIVE) if config.throttle is None else config.throttle
        )
        self.fault_injection = FaultInjection(random)
        self.fps_book = Book(round(config.outcome_delay * 1000))
        self.sender, self.fps_sender = (
            NotificationSender(
                sender, url, now, retry_waits=config.retry_waits, timeout=config.post_timeout, sleep=sleep
            )
            for url in (post_to, None)
        )
        self.calls: deque[CallRecord] = deque(maxlen=LOG_LENGTH)
        self.topic_arn = topic_arn(config.region, config.environment, config.merchant_id)
        self.certificate_url = keys.signing.url(self.topic_arn.split(":")[3])
        self.stopping = asyncio.Event()
        self._woken = asyncio.Event()
        self.announcer = Announcer(self._forger(), self.fault_injection, self.sender, now)
        self.disputes = Disputes(self.bank, self.ids, now, self.announcer.announce_dispute)
        self._seed()
        self.reports = Reports(self.bank, self.ids, config.merchant_id, now, self.bank.delay)

    def start_refund(
        self,
        amount: Amount,
        outcome: Outcome | None = None,
        charge_id: str | None = None,
        *,
        by_api: bool = False,
        soft_descriptor: str = "",
    ) -> Change:
        """Start a refund; without a charge, on a new one of the same amount. Raises `Fault` by Amazon's rules."""
        found = charge_id or self.open_charge(amount).charge_id
        change = self.bank.start(Order(found, amount, soft_descriptor), self.now(), outcome, by_api=by_api)
        if change.state_change.state != INITIATED or self.config.announce_initiated:
            self.announcer.announce(change)
        self._woken.set()
        return change

    def open_charge(
        self, amount: Amount, *, state: str = "Captured", reference: str = "", charge_id: str = ""
    ) -> Charge:
        """Make a charge; raises `Fault` 400."""
        return self.bank.open_charge(amount, self.now(), state=state, reference=reference, charge_id=charge_id)

    def refund_fps(self, order: FpsOrder) -> FpsRefund:
        """Make a Flexible Payments refund, or return the one with this reference. Raises `Fault` by FPS's rules."""
        refund, change = self.fps_book.refund(order, self.now())
        if change is not None and (refund.status != "Pending" or self.config.announce_initiated):
            self._announce_fps(change)
        self._woken.set()
        return refund

    def tick(self) -> None:
        """Apply and announce all changes that are due."""
        for change in self.bank.advance(self.now()):
            self.announcer.announce(change)
        for fps_change in self.fps_book.advance(self.now()):
            self._announce_fps(fps_change)

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            self._woken.clear()
            self.tick()
            due = [at for at in (self.bank.next_at(), self.fps_book.next_at()) if at is not None]
            if not due:
                await self._woken.wait()
                continue
            left = max(0.001, (min(due) - self.now()) / 1000)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(left, LOOK_EVERY))

    async def forge(self, kind: Forgery, refund_id: str | None = None) -> Posted:
        """Post a forged notification about a refund, by default the latest one. Returns the attempt."""
        last = next(reversed(self.bank.refunds), f"{PREFIX[self.config.environment]}-0000000-0000000-R000000")
        return await self.announcer.forge(kind, refund_id or last)

    async def close(self) -> None:
        """Release hanging answers, and abort posts in progress."""
        self.stopping.set()
        await self.sender.close()
        await self.fps_sender.close()

    def _announce_fps(self, change: FpsChange) -> None:
        self.fps_sender.start(self.fps_sender.deliver(status_form(change)))

    def _forger(self) -> Forger:
        publisher = Publisher(
            self.topic_arn,
            self.keys.signing.private_key,
            self.certificate_url,
            self.ids.uuid(),
            self.config.signature_version,
        )
        stranger = functools.cache(lambda: make_signing_key(self.now()))
        return Forger(publisher, self.config.merchant_id, stranger, self.ids.uuid)

    def _seed(self) -> None:
        currency, prefix = CURRENCY[self.config.region], PREFIX[self.config.environment]
        for tail, units, state in SEEDS:
            minor = units * 10 ** DECIMALS[currency] * (100 if currency == "JPY" else 1)
            self.open_charge(Amount(minor, currency), state=state, charge_id=f"{prefix}-{tail}")


def check_environment(engine: Engine, named: str, object_id: str) -> None:
    """Raise `Fault` unless exactly one of the path and the public key id names the environment.

    A prefixed key with `/sandbox/` in the path is a common mistake. Objects of the other environment do not exist here.
    """
    if bool(named) == bool(key_prefix(engine.config.public_key_id)):
        where = "must not" if named else "must"
        text = f"With this public key id the path {where} name the environment."
        raise Fault(400, "InvalidRequest", text, "environment_path")
    if named and named != engine.config.environment:
        raise Fault(404, "ResourceNotFound", f"'{object_id}' does not exist in {named}.", "environment")
