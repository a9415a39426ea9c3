"""Edge: Redis. Refunds: read, list, and the commit that writes state, history, next look, events and what is owed."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from receiver.ledger.charge_book import entry_of
from receiver.ledger.query import Page, Place, Query, place_of, read_cursor, write_cursor
from receiver.ledger.refund import Refund, Revision
from receiver.store.codec import from_hash, from_line, to_hash, to_line
from receiver.store.keys import STATES
from receiver.store.part import Part, scored

HISTORY_CAP = 200
"""Revisions kept of one refund; real ones have two to four."""
MOST_EXAMINED = 1_000
"""Refunds that one page may look at before it is returned, shorter than asked for, with a cursor to go on."""
CHUNK = 50
"""Refunds that are read at once. An answer to Amazon waits for no more than these."""


@dataclass(frozen=True, slots=True)
class Owed:
    """One event to write, as the fields of its stream entry, and the subscribers that are owed it."""

    fields: Mapping[str, str]
    subscribers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that one change writes.

    `roster_version` is the version of the subscriber list that `owed` was worked out with. `token` is the claim's, 0
    where nothing was claimed; `next_look` (ms) is when to ask Amazon again, None for never.
    """

    known: Refund | None
    refund: Refund
    owed: Sequence[Owed]
    roster_version: int
    token: int
    next_look: int | None


class Committed(StrEnum):
    """What became of a commit."""

    OK = "ok"
    REVISION = "revision"
    """Somebody else wrote the refund meanwhile: read and decide again."""
    SUBSCRIBERS = "subscribers"
    """The subscriber list has changed meanwhile: read and decide again."""


class Refunds(Part):
    """What is known about refunds."""

    async def refund(self, account: str, refund_id: str) -> Refund | None:
        """One refund; None if nobody ever told us about it."""
        raw = await self._read("HGETALL", self._keys(account)("refund", refund_id))
        return from_hash(account, refund_id, raw)

    async def history(self, account: str, refund_id: str) -> list[Revision]:
        """Every revision, oldest first."""
        lines = await self._read("LRANGE", self._keys(account)("history", refund_id), 0, -1)
        return [from_line(line) for line in lines]

    async def commit(self, commit: Commit) -> Committed:
        """Write a change, all of it or nothing."""
        known, refund = commit.known, commit.refund
        names = list(dict.fromkeys(name for owed in commit.owed for name in owed.subscribers))
        fields, entry = to_hash(refund), entry_of(refund)
        args: list[str | int | bytes] = [
            refund.refund_id,
            known.revision if known else 0,
            commit.roster_version,
            commit.token or "",
            "" if commit.next_look is None else commit.next_look,
            refund.changed_at,
            to_line(refund),
            HISTORY_CAP,
            entry.line() if entry else "",
            1 if refund.reason_code else 0,
            1 if refund.order_reference else 0,
            len(fields),
            *fields,
            len(commit.owed),
        ]
        for owed in commit.owed:
            flat = [text for field in owed.fields.items() for text in field]
            numbers = [names.index(name) + 1 for name in owed.subscribers]
            args += [len(flat), *flat, len(numbers), *numbers]
        answer = await self._run("commit", self._commit_keys(known, refund, names), args)
        committed = Committed(answer[0].decode())
        if committed is Committed.OK:
            self._written(refund.account)
        return committed

    def _commit_keys(self, known: Refund | None, refund: Refund, names: Iterable[str]) -> list[str]:
        keys = self._keys(refund.account)
        before = known or refund
        lanes = [keys(kind, name) for name in names for kind in ("lane", "owed")]
        return [
            keys("refund", refund.refund_id),
            keys("history", refund.refund_id),
            keys("due"),
            keys("hinted"),
            keys("hints"),
            keys("subscribers"),
            keys("events"),
            keys.state(before.state),
            keys.state(refund.state),
            keys("reason", before.reason_code),
            keys("reason", refund.reason_code),
            keys("charge", refund.charge_id),
            keys("order", refund.order_reference),
            keys("refreshed"),
            *lanes,
        ]

    async def page(
        self, account: str, query: Query, cursor: str = "", limit: int = 50, examine: int = MOST_EXAMINED
    ) -> Page:
        """Refunds that match, newest change first. Raises `BadRequest` for a cursor that no page gave.

        At most `examine` refunds are looked at (rounded up to whole chunks). Where filters leave most of them out, a
        page is cut: shorter than `limit`, with a next one.
        """
        if query.charge:
            return await self._page_of_charge(account, query, cursor, limit)
        found: list[Refund] = []
        place = read_cursor(cursor)
        for examined in range(0, examine, CHUNK):
            size = CHUNK if examined else min(limit, CHUNK)
            batch = await self._batch(account, query, place, size)
            if not batch:
                return Page(tuple(found), "")
            for changed_at, refund_id, refund in batch:
                place = (changed_at, refund_id)
                if refund is not None and query.matches(refund):
                    found.append(refund)
                    if len(found) == limit:
                        return Page(tuple(found), write_cursor(place))
        return Page(tuple(found), write_cursor(place), cut=True)

    async def _batch(
        self, account: str, query: Query, place: Place | None, limit: int
    ) -> list[tuple[int, str, Refund | None]]:
        keys = self._keys(account)
        if query.order:
            indexes = [keys("order", query.order)]
        elif query.reason:
            indexes = [keys("reason", query.reason)]
        elif query.state:
            indexes = [keys.state(query.state)]
        else:
            indexes = [keys.state(state) for state in STATES]
        runs = await asyncio.gather(*(self._run_of(index, place, query.since, limit) for index in indexes))
        entries = heapq.nlargest(limit, (entry for run in runs for entry in run))
        refunds = await asyncio.gather(*(self.refund(account, refund_id) for _, refund_id in entries))
        return [(*entry, refund) for entry, refund in zip(entries, refunds, strict=True)]

    async def _run_of(self, index: str, place: Place | None, since: int, limit: int) -> list[tuple[int, str]]:
        """The next entries of one index after `place`, greatest (time, id) first."""
        found: list[tuple[int, str]] = []
        offset, size = 0, limit + 1
        top = "+inf" if place is None else str(place[0])
        while len(found) < limit:
            flat = await self._read("ZRANGE", index, top, since, "BYSCORE", "REV", "LIMIT", offset, size, "WITHSCORES")
            pairs = [(int(float(score)), member.decode()) for member, score in scored(flat)]
            found += [pair for pair in pairs if place is None or pair < place]
            if len(pairs) < size:
                break
            offset += size
        return found[:limit]

    async def _page_of_charge(self, account: str, query: Query, cursor: str, limit: int) -> Page:
        members = await self._read("HKEYS", self._keys(account)("charge", query.charge))
        refunds = await asyncio.gather(*(self.refund(account, member.decode()) for member in members))
        place = read_cursor(cursor)
        matching = sorted(
            (refund for refund in refunds if refund is not None and query.matches(refund)),
            key=place_of,
            reverse=True,
        )
        rest = [refund for refund in matching if place is None or place_of(refund) < place]
        last = rest[limit - 1] if len(rest) > limit else None
        return Page(tuple(rest[:limit]), write_cursor(place_of(last) if last else None))
