"""Edge: Redis. Everything known about a charge, read at once: its book, its disputes, and Amazon's last description."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from receiver.ledger.charge import OVER
from receiver.ledger.dispute import permission_of
from receiver.ledger.retryability import KnownCharge
from receiver.store.redis.base import AccountRepository, Connection
from receiver.store.redis.damage import StoreDamaged
from receiver.store.redis.keys import Keys
from receiver.store.refunds.disputes import Disputes
from receiver.store.requests.open_requests import OpenRequestStore

CHUNK = 25
"""Charges to read at once. Answers to Amazon are delayed by at most one such chunk."""


class KnownCharges(AccountRepository):
    def __init__(self, connection: Connection, keys: Keys, requests: OpenRequestStore, disputes: Disputes) -> None:
        super().__init__(connection, keys)
        self._requests, self._disputes = requests, disputes
        self.over: Mapping[str, int] = OVER
        """What may be refunded beyond the captured amount, by currency."""

    async def known(self, charge_id: str) -> KnownCharge:
        """One charge. If its records are damaged, the result says so and contains none of them."""
        if not charge_id:
            return KnownCharge(over=self.over)
        try:
            entries, taken, disputes, kept = await asyncio.gather(
                self._requests.charge_entries(charge_id),
                self._requests.refund_owner(charge_id),
                self._disputes.of_permission(permission_of(charge_id)),
                self._requests.kept_charge(charge_id),
            )
        except StoreDamaged:
            return KnownCharge(over=self.over, readable=False)
        return KnownCharge(entries, taken, disputes, kept, self.over)

    async def known_all(self, charge_ids: Iterable[str]) -> dict[str, KnownCharge]:
        """All of these charges, with one round trip for every `CHUNK` of them."""
        wanted, found = list(dict.fromkeys(charge_ids)), dict[str, KnownCharge]()
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            charges = await asyncio.gather(*(self.known(charge_id) for charge_id in chunk))
            found |= dict(zip(chunk, charges, strict=True))
        return found
