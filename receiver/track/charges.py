"""Verb. A charge → its state at Amazon, and the details that it adds to its refunds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import msgspec
import structlog

from receiver.amazon.calls import get_charge, read_charge
from receiver.amazon.throttle import Call
from receiver.errors import AmazonError, AmazonThrottled
from receiver.ledger.charge import Charge, has_more_to_tell
from receiver.ledger.lifecycle import UNREAD, Details
from receiver.ledger.next_look import THROTTLED_PAUSE
from receiver.ledger.refund import FPS, Refund, RetryRefused, State
from receiver.ledger.retryability import as_text, judge
from receiver.store.account import AccountStore
from receiver.store.redis.damage import StoreDamaged, WrongType
from receiver.store.requests.requests import CHARGE_KEPT
from receiver.track.amazon_client import AmazonClient

log = structlog.get_logger()

DETAILS_WITHIN = 2.0
"""The longest time in seconds that an event waits for details of the charge."""
CHARGE_PATIENCE = 2.0
"""The longest time in seconds that an urgent read of a charge waits for a throttle token."""


@dataclass(frozen=True, slots=True)
class Charges:
    """Reads the charges of one account."""

    amazon_client: AmazonClient

    @property
    def _name(self) -> str:
        return self.amazon_client.account.name

    @property
    def _store(self) -> AccountStore:
        return self.amazon_client.store

    async def charge(self, charge_id: str, *, fresh: bool = False, patience: float = CHARGE_PATIENCE) -> Charge:
        """Get Charge, or a copy from the last hour unless it must be `fresh`.

        Raises the `AmazonError` tree; `AmazonThrottled` also where our own throttle has no token within `patience` (s).
        """
        kept = None if fresh else await self._store.requests.kept_charge(charge_id)
        if kept and self._store.now() - kept.read_at < CHARGE_KEPT:
            return kept
        if not await self._token(patience):
            raise AmazonThrottled("Too many charges are being read just now.", retry_after=THROTTLED_PAUSE)
        request = get_charge(self.amazon_client.account.endpoint, charge_id)
        found = await self.amazon_client.ask(
            Call.GET_CHARGE, request, lambda response: read_charge(response, charge_id)
        )
        self.amazon_client.check_environment(found.environment)
        found = msgspec.structs.replace(found, read_at=self._store.now())
        await self._store.requests.keep_charge(found, for_advice=fresh)
        return found

    async def _token(self, patience: float) -> bool:
        """A token for Get Charge. If the throttle's key is damaged, urgent reads go without: Amazon throttles too."""
        try:
            return await self.amazon_client.token(Call.GET_CHARGE, patience)
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
                self._store.charges.known(refund.charge_id if declined else ""),
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
            judged = judge(msgspec.structs.replace(refund, retryable=""), known, self._store.now())
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
