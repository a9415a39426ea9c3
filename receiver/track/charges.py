"""Verb. A charge → its state at Amazon, and the details that it adds to its refunds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import structlog

from receiver.amazon.calls import get_charge, read_charge
from receiver.amazon.throttle import Call
from receiver.errors import AmazonError, AmazonOutcomeUnknown, AmazonThrottled
from receiver.ledger.charge import Charge, has_more_to_tell
from receiver.ledger.lifecycle import UNREAD, Details
from receiver.ledger.next_look import THROTTLED_PAUSE
from receiver.ledger.refund import FPS, Refund, RetryRefused, State
from receiver.ledger.retryability import as_text, judge
from receiver.store.redis.damage import StoreDamaged, WrongType
from receiver.store.requests.requests import CHARGE_KEPT
from receiver.track.amazon_client import AmazonClient, OfAccount

log = structlog.get_logger()

DETAILS_WITHIN = 2.0
"""The longest time in seconds that an event waits for details of the charge."""
CHARGE_PATIENCE = 2.0
"""The longest time in seconds that an urgent read of a charge waits for a throttle token."""
RECENT = 60_000
"""ms. For a person who looks at a charge, it is not read again within this time."""
RECENT_PATIENCE, RECENT_WITHIN = 1.0, 3.0
"""Seconds that such a read waits for a throttle token, and that its caller waits for its result."""


@dataclass(frozen=True, slots=True)
class Charges(OfAccount):
    amazon_client: AmazonClient

    async def charge(
        self,
        charge_id: str,
        *,
        fresh: bool = False,
        within: int = CHARGE_KEPT,
        patience: float = CHARGE_PATIENCE,
        is_urgent: bool = True,
    ) -> Charge:
        """Get Charge, or a copy from the last hour (`within`, ms) unless it must be `fresh`.

        A read that is not urgent leaves a quarter of the throttle's burst to those that are. Raises the `AmazonError`
        tree; `AmazonThrottled` also where our own throttle has no token within `patience` (s).
        """
        kept = None if fresh else await self.store.requests.kept_charge(charge_id)
        if kept and self.store.now() - kept.read_at < within:
            return kept
        if not await self._token(patience, is_urgent):
            raise AmazonThrottled("Too many charges are being read just now.", retry_after=THROTTLED_PAUSE)
        request = get_charge(self.account.endpoint, charge_id)
        found = await self.amazon_client.ask(
            Call.GET_CHARGE, request, lambda response: read_charge(response, charge_id)
        )
        self.amazon_client.check_environment(found.environment)
        found = msgspec.structs.replace(found, read_at=self.store.now())
        await self.store.requests.keep_charge(found, for_advice=fresh)
        return found

    async def _token(self, patience: float, is_urgent: bool) -> bool:
        """A token for Get Charge. If the throttle's key is damaged, reads that may wait go without: Amazon throttles
        too."""
        try:
            return await self.amazon_client.token(Call.GET_CHARGE, patience, is_urgent=is_urgent)
        except WrongType:
            return patience > 0

    async def details(self, refund: Refund, *, besides: str = "", again: bool = False) -> Details:
        """The details that the charge adds to a refund: its order number, and whether a declined refund can be issued
        again.

        Empty if the charge has nothing to add (unless `again` forces a read) or cannot be read now. `besides` is the
        reservation on the charge that belongs to this refund. `retryable` depends on the charge's other refunds, and is
        left out while they cannot be read. Raises `StoreUnavailable`.
        """
        if not (has_more_to_tell(refund) or (again and refund.charge_id and refund.refund_type != FPS)):
            return {}
        declined = refund.state == State.DECLINED
        try:
            # A copy from before the decline would still count the declined amount as refunded.
            charge, known = await asyncio.gather(
                self.charge(refund.charge_id, fresh=declined, patience=CHARGE_PATIENCE if declined else 0),
                self.store.charges.known(refund.charge_id if declined else ""),
            )
        except (AmazonError, StoreDamaged) as error:
            log.info("charge.not_read", charge_id=refund.charge_id, reason=error.reason)
            return {}
        details: dict[str, str | bool | tuple[str, ...] | RetryRefused] = {
            "charge_read": True,
            "order_reference": charge.merchant_reference_id,
        }
        if charge.has_unread("merchantReferenceId", "merchantMetadata"):
            details[UNREAD] = ("orderReference",)
        if declined and known.readable:
            entries = {name: entry for name, entry in known.entries.items() if name != besides}
            known = replace(known, entries=entries, charge=charge)
            judged = judge(msgspec.structs.replace(refund, retryable=""), known, self.store.now())
            details["retryable"] = as_text(judged)
        return details

    async def details_in_time(self, refund: Refund, *, besides: str = "") -> Details:
        """The `details` if they arrive within two seconds, else nothing: advice must not delay a known decline."""
        try:
            async with asyncio.timeout(DETAILS_WITHIN):
                return await self.details(refund, besides=besides)
        except TimeoutError:
            log.info("charge.not_read", charge_id=refund.charge_id, reason="too_slow")
            return {}


@dataclass(slots=True)
class ChargeReader:
    """Reads charges of one account for callers who look at them: soon, and once for all who look at the same time."""

    charges: Charges
    _reading: dict[str, asyncio.Task[Charge]] = field(default_factory=dict)

    async def recent(self, charge_id: str, kept: Charge | None, admit: Callable[[], None]) -> Charge:
        """The stored charge if it was read within the last minute, else Get Charge.

        `admit` is called before Amazon is asked, and may raise. If the answer takes more than three seconds, this
        raises `AmazonOutcomeUnknown` (`amazon_timeout`), and the answer is stored when it comes. Raises the
        `AmazonError` tree and `StoreUnavailable`.
        """
        if kept and self.charges.amazon_client.store.now() - kept.read_at < RECENT:
            return kept
        reading = self._reading.get(charge_id)
        if reading is None:
            admit()
            read = self.charges.charge(charge_id, within=RECENT, patience=RECENT_PATIENCE, is_urgent=False)
            reading = self._reading[charge_id] = asyncio.get_running_loop().create_task(read)
            reading.add_done_callback(lambda ended: self._end(charge_id, ended))
        await asyncio.wait({reading}, timeout=RECENT_WITHIN)
        if not reading.done():
            raise AmazonOutcomeUnknown("Amazon has not described the charge yet.", reason="amazon_timeout")
        return await reading

    def _end(self, charge_id: str, ended: asyncio.Task[Charge]) -> None:
        self._reading.pop(charge_id, None)
        if not ended.cancelled() and (error := ended.exception()):
            log.info("charge.not_read", charge_id=charge_id, reason=getattr(error, "reason", "internal_error"))
