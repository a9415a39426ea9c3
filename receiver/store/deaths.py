"""Edge: Redis. What waits for a subscriber and what was given up, page by page, and sending it again.

dead:<sub>      stream id → the event with the reason, the attempts and the last answer
deaths:<sub>    the same ids in the order of the stream, so that they can be read in pages and the oldest found
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import structlog

from receiver.outbox.delivery import Attempts
from receiver.store.lanes import Copy, DeadEvent, copied, fixed_width, plain_id, read_attempts, texts_of
from receiver.store.part import Part, scored

log = structlog.get_logger()

BATCH = 200
"""Events that one script moves."""
LAST_SEQ = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that is still owed. `at` is when it is sent next, or until when somebody is sending it (ms)."""

    stream_id: str
    at: int
    attempts: Attempts
    fields: dict[str, str]


class Redriven(NamedTuple):
    """How many events are sent again, and how many were not."""

    dead: int = 0
    """Had been given up."""
    again: int = 0
    """Had been delivered, or were never owed."""
    waiting: int = 0
    """Wait already: nothing was changed."""
    missing: int = 0
    """Are nowhere any more."""

    def plus(self, other: Sequence[int]) -> Redriven:
        """Both together."""
        return Redriven(*(one + two for one, two in zip(self, other, strict=True)))


class Deaths(Part):
    """Waiting and dead events of a subscriber."""

    async def dead_events(self, account: str, name: str) -> list[DeadEvent]:
        """All that was given up for this subscriber, oldest first."""
        raw: list[bytes] = await self._read("HVALS", self._keys(account)("dead", name))
        found = [dead for value in raw if (dead := _dead(value)) is not None]
        return sorted(found, key=lambda dead: fixed_width(dead.stream_id))

    async def dead_page(
        self, account: str, name: str, *, before: str = "", since: int = 0, until: int = 0, limit: int = 50
    ) -> list[DeadEvent]:
        """Dead events of events from `since` to `until` (ms, 0: no bound), newest first, older than the id `before`."""
        keys = self._keys(account)
        top = f"({fixed_width(before)}" if before else f"[{fixed_width(f'{until}-{LAST_SEQ}')}" if until else "+"
        low = f"[{fixed_width(f'{since}-0')}" if since else "-"
        ids = await self._read("ZRANGE", keys("deaths", name), top, low, "BYLEX", "REV", "LIMIT", 0, limit)
        return await self.dead_of(account, name, [plain_id(each) for each in ids])

    async def dead_of(self, account: str, name: str, stream_ids: Sequence[str]) -> list[DeadEvent]:
        """Those of these events that were given up for this subscriber."""
        if not stream_ids:
            return []
        raw = await self._read("HMGET", self._keys(account)("dead", name), *stream_ids)
        return [dead for value in raw if value and (dead := _dead(value)) is not None]

    async def waiting_page(
        self, account: str, name: str, *, after: tuple[int, str] | None = None, limit: int = 50
    ) -> list[Waiting]:
        """What is owed, by the time of the next try, after a place that a page before has ended at."""
        keys = self._keys(account)
        least, offset = after[0] if after else "-inf", 0
        found: list[tuple[int, str]] = []
        while len(found) < limit:
            flat = await self._read(
                "ZRANGE", keys("lane", name), least, "+inf", "BYSCORE", "LIMIT", offset, limit, "WITHSCORES"
            )
            pairs = [(int(float(score)), member.decode()) for member, score in scored(flat)]
            found += [pair for pair in pairs if after is None or pair > after]
            offset += limit
            if len(pairs) < limit:
                break
        return await asyncio.gather(*(self._waiting(account, name, at, each) for at, each in found[:limit]))

    async def _waiting(self, account: str, name: str, at: int, stream_id: str) -> Waiting:
        keys = self._keys(account)
        stored, copy, entry = await asyncio.gather(
            self._read("HGET", keys("attempts", name), stream_id),
            self._read("HGET", keys("copies", name), stream_id),
            self._read("XRANGE", keys("events"), stream_id, stream_id),
        )
        fields = texts_of(_flat(entry[0][1])) if entry and entry[0][1] else copied(copy or b"")
        return Waiting(stream_id, at, read_attempts(stored or b""), fields)

    async def lane_sizes(self, account: str, name: str) -> tuple[int, int, int]:
        """How many events wait and are dead, and when (ms) the oldest was written that waits; 0: none.

        Events that are sent again on request have no part in the age.
        """
        keys = self._keys(account)
        waiting, dead, oldest = await asyncio.gather(
            self._read("ZCARD", keys("lane", name)),
            self._read("HLEN", keys("dead", name)),
            self._read("ZRANGE", keys("owed", name), 0, 0),
        )
        return int(waiting), int(dead), int(plain_id(oldest[0]).partition("-")[0]) if oldest else 0

    async def redrive(self, account: str, name: str, stream_ids: Sequence[str]) -> Redriven:
        """Send these events again: dead ones, and others that the stream still holds. Their attempts begin anew.

        They go at the lane's rate, with the same ids as before.
        """
        keys, total = self._keys(account), Redriven()
        own = [keys(kind, name) for kind in ("lane", "owed", "attempts", "dead", "deaths", "copies")]
        for start in range(0, len(stream_ids), BATCH):
            batch = stream_ids[start : start + BATCH]
            pairs = [text for each in batch for text in (each, fixed_width(each))]
            counts = await self._run("redrive", [*own, keys("events"), keys("subscribers")], [self.now(), name, *pairs])
            total = total.plus(counts)
            self._written(account)
        return total

    async def known(self, account: str, name: str, stream_ids: Sequence[str]) -> list[str]:
        """Those of the ids that are dead, wait, or stand in the stream."""
        keys = self._keys(account)
        lane, dead, events = keys("lane", name), keys("dead", name), keys("events")
        found = await asyncio.gather(
            *(self._read("HEXISTS", dead, each) for each in stream_ids),
            *(self._read("ZSCORE", lane, each) for each in stream_ids),
            *(self._read("XRANGE", events, each, each) for each in stream_ids),
        )
        count = len(stream_ids)
        dead_ones, waiting, kept = found[:count], found[count : 2 * count], found[2 * count :]
        rows = zip(stream_ids, dead_ones, waiting, kept, strict=True)
        return [each for each, is_dead, at, entry in rows if is_dead or at is not None or entry]

    async def try_out(self, account: str, name: str, stream_id: str, fields: dict[str, str]) -> bool:
        """Put a test at the head of the lane; False if there is no such subscriber."""
        keys = self._keys(account)
        held = await self._run(
            "try_out",
            [keys("subscribers"), keys("lane", name), keys("copies", name)],
            [name, stream_id, msgspec.json.encode(Copy(fields))],
        )
        self._written(account)
        return bool(held)

    async def tried_out(self, account: str, stream_id: str) -> bytes:
        """The outcome of a test; empty while there is none."""
        return await self._read("GET", self._keys(account)("tested", stream_id)) or b""

    async def stream_page(self, account: str, after: str, limit: int = 500) -> list[tuple[str, dict[str, str]]]:
        """Entries of the stream after this id, oldest first."""
        entries = await self._read("XRANGE", self._keys(account)("events"), f"({after}", "+", "COUNT", limit)
        return [(stream_id.decode(), texts_of(_flat(fields))) for stream_id, fields in entries if fields]


def _flat(fields: Any) -> list[bytes]:
    """The fields of an entry as the server sends them, whichever way the client has read them."""
    return [each for pair in fields.items() for each in pair] if isinstance(fields, dict) else list(fields)


def _dead(value: bytes) -> DeadEvent | None:
    try:
        return msgspec.json.decode(value, type=DeadEvent)
    except msgspec.MsgspecError:
        log.error("store.dead_unreadable")
        return None
