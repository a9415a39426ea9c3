"""One signed exchange with Amazon, shared by all calls: signature, date, throttle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import structlog

from receiver.amazon.account import Account
from receiver.amazon.calls import get_refund, read_refund
from receiver.amazon.clock import HostClocks
from receiver.amazon.signing import diagnose
from receiver.amazon.throttle import Call
from receiver.errors import (
    AmazonError,
    AmazonOutcomeUnknown,
    AmazonRefusesUs,
    AmazonThrottled,
    StoreUnavailable,
    TransportError,
)
from receiver.exchange import Request, Response
from receiver.ledger.charge import Charge
from receiver.ledger.dispute import DisputeObservation
from receiver.ledger.next_look import THROTTLED_PAUSE
from receiver.ledger.refund import Observation
from receiver.runtime.metrics import Metrics
from receiver.store.account import AccountStore

log = structlog.get_logger()

Value = TypeVar("Value")

PATIENCE = 3.0
"""Seconds that a caller waits for a throttle token."""
REDATED = 2
"""How often a request refused for its date is repeated immediately with another date."""
REDATED_PATIENCE, REDATED_LEAST = 1.0, 0.5
"""Seconds: how long such a repetition may wait for a throttle token, and how much time it needs for its answer."""
DATE_REFUSED = "amazon_date_refused"
"""The outcome of an exchange that was repeated with another date."""


class Send(Protocol):
    """Sends a request to Amazon: `Transport.send`."""

    async def __call__(self, request: Request, *, timeout: float) -> Response:
        """The whole answer. Raises `TransportError`."""


@dataclass(slots=True)
class AmazonClient:
    """Calls Amazon for one account. `system_clock` is the machine's clock (ms); `timeout` is in seconds.

    `traceparent` is sent with every call, outside the signature, unless it is empty. `clocks` may be shared by all
    clients of the same hosts.
    """

    account: Account
    store: AccountStore
    send: Send
    metrics: Metrics
    system_clock: Callable[[], int]
    timeout: float = 10.0
    traceparent: str = ""
    clocks: HostClocks = field(default_factory=HostClocks)

    def tracing(self, traceparent: str) -> AmazonClient:
        """The same client with this `traceparent` (empty: none)."""
        return replace(self, traceparent=traceparent)

    async def ask(self, call: Call, request: Request, read: Callable[[Response], Value]) -> Value:
        """Sign, send, and read the answer. Raises the `AmazonError` tree, or what `read` raises.

        A 429 also pauses the account: no process takes a token for this call before Amazon allows it. A request refused
        for its date is repeated immediately with another date. All of this happens within `timeout`.
        """
        if self.traceparent:
            request = request.with_headers(traceparent=self.traceparent)
        loop = asyncio.get_running_loop()
        deadline, left = loop.time() + self.timeout, self.timeout
        for repeats in reversed(range(REDATED + 1)):
            began, dated = loop.time(), self.clocks.date_for(host_of(request), self.system_clock())
            outcome = "unknown"
            try:
                # RSA takes half a millisecond or more, and would block the event loop.
                signed = await asyncio.to_thread(self.account.signer.sign, request, dated)
                response = await self.sent(signed, timeout=left)
                value = self._judged(read, response, signed)
                self.note_unread(call, value)
                outcome = "ok"
                return value
            except AmazonThrottled as error:
                outcome = error.reason
                until = self.store.now() + (error.retry_after or THROTTLED_PAUSE) * 1000
                await self.store.schedule.block(call, until)
                raise
            except AmazonRefusesUs as error:
                outcome = error.reason
                again = self.clocks.refused(host_of(request), response, self.system_clock(), dated=dated)
                if not (again and repeats and await self._may_repeat(call, deadline)):
                    raise
                outcome, left = DATE_REFUSED, deadline - loop.time()
            except AmazonError as error:
                outcome = error.reason
                raise
            finally:
                self.metrics.amazon_call(call, outcome, loop.time() - began)
        raise AssertionError

    def note_unread(self, call: str, value: object) -> None:
        """Count and log the fields of an answer that could not be read. Their values are never logged."""
        if not isinstance(value, Observation | Charge | DisputeObservation):
            return
        about = {"refund_id": value.refund_id} if isinstance(value, Observation) else {}
        about |= {"dispute_id": value.dispute_id} if isinstance(value, DisputeObservation) else {}
        for each in value.unread:
            self.metrics.unread_field(call, each.field)
            log.error(
                "amazon.field_unread",
                account=self.account.name,
                **{"charge_id": value.charge_id or None, **about},
                call=call,
                field=each.field,
                reason=each.reason,
            )

    async def _may_repeat(self, call: Call, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        patience = min(REDATED_PATIENCE, deadline - REDATED_LEAST - loop.time())
        try:
            return patience > 0 and await self.token(call, patience)
        except StoreUnavailable:
            return False

    async def sent(self, signed: Request, *, timeout: float) -> Response:
        """The answer to a signed request; its `Date` updates Amazon's clock. Raises `AmazonOutcomeUnknown` if there is
        no answer."""
        try:
            response = await self.send(signed, timeout=timeout)
        except TransportError as error:
            raise AmazonOutcomeUnknown(
                f"Amazon did not answer: {error.detail}", reason=f"amazon_{error.reason}"
            ) from error
        self.clocks.heard(host_of(signed), response, self.system_clock())
        return response

    def _judged(self, read: Callable[[Response], Value], response: Response, signed: Request) -> Value:
        try:
            return read(response)
        except AmazonRefusesUs as error:
            found = diagnose(error.detail, signed, self.account.signer.algorithm)
            if found:
                error.detail = f"{error.detail} {found}"
            raise

    async def token(self, call: Call, patience: float, *, is_urgent: bool = True) -> bool:
        """Take a token from the call's throttle, waiting at most `patience` seconds.

        Calls that are not urgent leave a quarter of the burst for those that are.
        """
        bucket = self.account.throttle[call]
        leave = 0 if is_urgent else int(bucket.burst // 4)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            wait = await self.store.requests.take_token(call, bucket.burst, bucket.per_second, leave)
            if not wait:
                return True
            if loop.time() + wait / 1000 > deadline:
                return False
            await asyncio.sleep(wait / 1000)

    async def fetch_refund(self, refund_id: str) -> Observation:
        """Ask Amazon about one refund now, for a caller who waits. Raises the `AmazonError` tree and
        `StoreUnavailable`."""
        if not await self.token(Call.GET_REFUND, PATIENCE):
            raise AmazonThrottled("Too many refunds are being looked up at the moment.", retry_after=THROTTLED_PAUSE)
        request = get_refund(self.account.endpoint, refund_id)
        return await self.ask(Call.GET_REFUND, request, lambda response: read_refund(response, refund_id))

    def is_foreign(self, environment: str) -> bool:
        """Whether an answer's `releaseEnvironment` is not this account's: both environments notify one address."""
        return bool(environment) and environment.lower() != self.account.environment

    def check_environment(self, environment: str) -> None:
        """Raise `AmazonOutcomeUnknown` (`amazon_other_environment`) if the answer is from the other environment."""
        if self.is_foreign(environment):
            raise AmazonOutcomeUnknown(
                f"The answer is of the environment {environment}, not of this account's.",
                reason="amazon_other_environment",
            )


class OfAccount:
    """The base of classes that work for the account of their client."""

    __slots__ = ()
    amazon_client: AmazonClient

    @property
    def account(self) -> Account:
        return self.amazon_client.account

    @property
    def store(self) -> AccountStore:
        return self.amazon_client.store


def host_of(request: Request) -> str:
    """The host whose clock the request's date is checked against."""
    return urlsplit(request.url).netloc.lower()
