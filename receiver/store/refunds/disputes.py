"""Edge: Redis. Disputes by charge permission. They are never removed.

    disputes:<charge permission>    hash: dispute → `open` or `over`, the charge or `-`, and everything known as JSON

Scripts read the first two words (`store/requests/reserve.lua`): a dispute guards its charge unless it is `over`, and so
does a value in any other form.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from receiver.errors import StoreUnavailable
from receiver.ledger.dispute import Dispute, joined
from receiver.ledger.hint import HintResult
from receiver.store.redis.base import RedisRepository
from receiver.store.redis.wakeups import News

MOST_COLLISIONS = 16


class Disputes(RedisRepository):
    """The disputes of one account."""

    async def record(self, account: str, dispute: Dispute, *, message_id: str, digest: str) -> HintResult:
        """Record what a notification says about a dispute. Durable when this returns; safe to repeat."""
        keys = self._keys(account)
        key = keys("disputes", dispute.charge_permission_id)
        for _ in range(MOST_COLLISIONS):
            held: bytes = await self._read("HGET", key, dispute.dispute_id) or b""
            known = self._dispute(key, dispute.dispute_id.encode(), held) if held else dispute
            value = to_value(joined(known, dispute))
            answer = await self._run(
                "dispute",
                [keys("seen", message_id), key],
                [dispute.dispute_id, held, value, digest, self.connection.seen_for],
            )
            if answer != b"collision":
                self._written(account, News.CHANGED)
                return HintResult(answer.decode())
        raise StoreUnavailable("Other processes kept writing the same dispute.", reason="store_collision")

    async def of_permission(self, account: str, charge_permission_id: str) -> tuple[Dispute, ...]:
        """All disputes of a charge permission, in the order in which they were first reported."""
        key = self._keys(account)("disputes", charge_permission_id)
        raw: Mapping[bytes, bytes] = await self._read("HGETALL", key)
        found = (self._dispute(key, name, value) for name, value in raw.items())
        return tuple(sorted(found, key=lambda each: (each.first_told_at, each.dispute_id)))

    def _dispute(self, key: str, dispute_id: bytes, value: bytes) -> Dispute:
        """A stored dispute. If the record is damaged, its details are lost, but the dispute still counts."""
        try:
            return msgspec.json.decode(value.split(b" ", 2)[2], type=Dispute)
        except (IndexError, msgspec.MsgspecError, RecursionError):
            self.damage.record(key, dispute_id, "unreadable dispute")
            permission = key.rpartition(":")[2]
            shown = dispute_id.decode(errors="replace")
            return Dispute(dispute_id=shown, charge_permission_id=permission, kind="dispute")


def to_value(dispute: Dispute) -> bytes:
    """The dispute as stored in Redis."""
    words = f"{'open' if dispute.guards else 'over'} {dispute.charge_id or '-'} "
    return words.encode() + msgspec.json.encode(dispute)
