"""Edge: Redis. The audit trail of an account: the acts of people and programs, in order.

A script appends an act to the trail in the same step in which it does it (`append_to_audit` in `redis/helpers.lua`), so
nothing is done without its entry. Nothing changes an entry; `receiver prune` removes old ones. The id of an entry
contains its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from receiver.ledger.audit import AuditEntry, AuditQuery
from receiver.store.redis.base import AccountRepository
from receiver.store.redis.stream_ids import Fields, pairs_of, parts_of

CHUNK = 500
"""Entries to read at once."""
KEPT_FOR = 400 * 86_400_000
"""ms. No younger entry is ever removed: refunds that were issued here are kept as long."""

StreamId = tuple[int, int]
"""The ms of the Redis server, and a number among the entries of one ms."""


class Audited(NamedTuple):
    """An entry of the trail, in the order of all accounts."""

    id: StreamId
    account: str
    entry: AuditEntry | None
    """None if it is damaged."""

    @property
    def place(self) -> tuple[StreamId, str]:
        """Its place in the list of several accounts."""
        return self.id, self.account


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries that pass the filters, newest first. `end` is the last one examined; None if no older one is left."""

    entries: Sequence[Audited]
    end: StreamId | None


class AuditTrail(AccountRepository):
    """Reads the trail, and removes its old entries."""

    async def page(
        self, query: AuditQuery, ids: frozenset[str], below: tuple[StreamId, str] | None, limit: int, examine: int
    ) -> AuditPage:
        """At most `limit` entries below a place, newest first.

        `ids` are the refund and the refund requests that the entries must concern; empty for any. About `examine`
        entries are read at most.
        """
        found: list[Audited] = []
        top = self._top(query, below)
        size = CHUNK if ids or query.actor else min(limit, CHUNK)
        for _ in range(max(examine // size, 1)):
            entries = await self._read("XREVRANGE", self.keys("audit"), top, query.since or "-", "COUNT", size)
            for number, (stream_id, fields) in enumerate(entries, 1):
                each = Audited(parts_of(stream_id), self.account, self._entry(stream_id, fields))
                if each.entry is None or query.matches(each.entry, ids):
                    found.append(each)
                if len(found) == limit:
                    is_last = number == len(entries) < size
                    return AuditPage(found, None if is_last else each.id)
            if len(entries) < size:
                return AuditPage(found, None)
            top = f"({entries[-1][0].decode()}"
        return AuditPage(found, parts_of(entries[-1][0]))

    def _top(self, query: AuditQuery, below: tuple[StreamId, str] | None) -> str:
        if below is None:
            return f"({query.until}-0" if query.until else "+"
        (ms, number), account = below
        return f"{ms}-{number}" if self.account < account else f"({ms}-{number}"

    def _entry(self, stream_id: bytes, fields: Fields) -> AuditEntry | None:
        """The entry; None for a damaged one."""
        return self._part(self.keys("audit"), stream_id, "not an entry of the audit trail", _read, fields)

    async def check(self) -> None:
        """Read every entry, so that damaged ones are reported."""
        below: tuple[StreamId, str] | None = None
        while (page := await self.page(AuditQuery(), frozenset(), below, CHUNK, CHUNK)).end is not None:
            below = page.end, self.account

    async def count_before(self, before: int) -> int:
        """How many entries are older than `before` (ms)."""
        count, after = 0, "-"
        while ids := await self._read("XRANGE", self.keys("audit"), after, f"({before}-0", "COUNT", CHUNK):
            count, after = count + len(ids), f"({ids[-1][0].decode()}"
        return count

    async def trim(self, before: int) -> int:
        """Remove the entries that are older than `before` (ms). Returns how many there were."""
        return int(await self._write("XTRIM", self.keys("audit"), "MINID", "=", f"{before}-0"))


def _read(fields: Fields) -> AuditEntry:
    return msgspec.json.decode(dict(pairs_of(fields))[b"entry"], type=AuditEntry)
