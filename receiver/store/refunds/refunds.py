"""Edge: Redis. Reads, lists and commits refunds. A commit writes state, history, next poll and owed events in one
step."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from receiver.ledger.audit import AuditEntry
from receiver.ledger.charge_book import entry_of
from receiver.ledger.lifecycle import Change
from receiver.ledger.order_reference import searchable
from receiver.ledger.query import Page, Place, Query, place_of, read_cursor, write_cursor
from receiver.ledger.refund import Refund, Revision
from receiver.store.redis.base import AccountRepository, Args, scored
from receiver.store.redis.damage import RecordUnreadable, WrongType
from receiver.store.redis.keys import STATES, Keys
from receiver.store.refunds.codec import from_hash, from_line, open_details, to_hash, to_line
from receiver.store.refunds.waves import OUTSIDE_WAVES, WaveWrite

MOST_COLLISIONS = 16
"""How often a change is decided again because another writer came first."""
HISTORY_CAP = 200
"""Revisions kept of one refund; real ones have two to four."""
MOST_EXAMINED = 1_000
"""Refunds that one page may examine. A page that reaches this is shorter than requested, and has a cursor to
continue."""
CHUNK = 50
"""Refunds to read at once. Answers to Amazon are delayed by at most one such chunk."""


@dataclass(frozen=True, slots=True)
class Owed:
    """One event to write, as the fields of its stream entry, and the subscribers that are owed it."""

    fields: Mapping[str, str]
    subscribers: Sequence[str]


@dataclass(frozen=True, slots=True)
class CaseGuard:
    """What a person's closing or reopening of a case depends on, in addition to the revision of the refund."""

    request_id: str = ""
    """The request that would reissue the refund: it must not be open. Empty when a case is reopened."""
    request_state: str = ""
    """Its state as it was read, empty if there is none. Any other state means that a reissue began meanwhile."""
    takes: str = ""
    """The refund that closes the case. It can close no other case."""
    releases: str = ""
    """The refund that has closed the case until now, and can close another one from now on."""


NO_REQUEST = "-"
"""Stands for a missing state in `commit.lua`."""
UNGUARDED = CaseGuard()


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that one change writes.

    `also` are changes of other refunds that belong to it: that of the first refund of the chain of retries.
    `subscribers_version` is the version of the subscriber list from which `owed` was determined. `token` is the token
    of the claim, 0 if there was no claim. `next_look` (ms) is when to ask Amazon again, None for never. `audit` is the
    act of a person who caused the change.
    """

    known: Refund | None
    refund: Refund
    owed: Sequence[Owed]
    subscribers_version: int
    token: int
    next_look: int | None
    second_look: int | None = None
    """When (ms) to take a second look at the refund, which is final. Only without a `next_look`."""
    also: Sequence[Change] = ()
    guard: CaseGuard = UNGUARDED
    wave: WaveWrite = OUTSIDE_WAVES
    audit: AuditEntry | None = None


class Committed(StrEnum):
    """The result of a commit. All but OK write nothing."""

    OK = "ok"
    REVISION = "revision"
    """The refund was changed meanwhile: read and decide again."""
    SUBSCRIBERS = "subscribers"
    """The subscriber list was changed meanwhile: read and decide again."""
    REISSUING = "reissuing"
    """The refund is being reissued, so a person cannot close its case now."""
    WAVE = "wave"
    """The wave of declines was changed meanwhile: read and decide again."""
    USED = "used"
    """The refund with which a person closes the case has closed another one."""


class Refunds(AccountRepository):
    async def get(self, refund_id: str) -> Refund | None:
        """One refund; None if it is not known. Raises `RecordUnreadable`."""
        key = self.keys("refund", refund_id)
        raw = await self._read("HGETALL", key)
        return self._whole(key, "a refund that this version cannot read", from_hash, self.account, refund_id, raw)

    async def reissues(self, refund: Refund) -> list[Refund]:
        """The refunds that repeat this one, one after the other, as far as they are known and readable."""
        found, names = list[Refund](), {refund.refund_id}
        while refund.retried_by and refund.retried_by not in names:
            names.add(refund.retried_by)
            following = await self.get_or_id(refund.retried_by)
            if not isinstance(following, Refund):
                break
            refund = following
            found.append(refund)
        return found

    async def history(self, refund_id: str) -> list[Revision]:
        """Every revision, oldest first; damaged ones are left out."""
        key = self.keys("history", refund_id)
        return self._lines(key, await self._read("LRANGE", key, 0, -1), "no revision", from_line)

    async def commit(self, commit: Commit) -> Committed:
        """Write a change, completely or not at all."""
        refund, guard = commit.refund, commit.guard
        changes = [Change(commit.known, refund), *commit.also]
        names = list(dict.fromkeys(name for owed in commit.owed for name in owed.subscribers))
        args: Args = [
            commit.subscribers_version,
            commit.token or "",
            "" if commit.next_look is None else commit.next_look,
            HISTORY_CAP,
            (guard.request_state or NO_REQUEST) if guard.request_id else "",
            guard.takes,
            guard.releases,
            *commit.wave.args(),
            "" if commit.second_look is None else commit.second_look,
            len(changes),
            *(arg for change in changes for arg in _refund_args(change)),
            len(commit.owed),
        ]
        for owed in commit.owed:
            flat = [text for field in owed.fields.items() for text in field]
            numbers = [names.index(name) + 1 for name in owed.subscribers]
            args += [len(flat), *flat, len(numbers), *numbers]
        more = [key for change in changes for key in _refund_keys(self.keys, change)]
        more += [self.keys(kind, name) for name in names for kind in ("lane", "owed")]
        answer = await self._script(
            "commit", args, more=more, without=("lane", "owed"), audit=commit.audit, request=guard.request_id
        )
        committed = Committed(answer[0].decode())
        if committed is Committed.OK:
            self._written()
        return committed

    async def closed_with(self, refund_id: str) -> str:
        """The declined refund whose case a person closed with this refund; empty if there is none."""
        found: bytes | None = await self._read("HGET", self.keys("closes"), refund_id)
        return found.decode() if found else ""

    async def page(self, query: Query, cursor: str = "", limit: int = 50, examine: int = MOST_EXAMINED) -> Page:
        """Matching refunds, newest change first. Raises `BadRequest` for an invalid cursor.

        Examines at most `examine` refunds, rounded up to whole chunks. If filters exclude most of them, the page is
        shorter than `limit` and has a cursor to continue.
        """
        if query.charge:
            return await self._page_of_charge(query, cursor, limit)
        found, bad = list[Refund](), list[str]()
        place = read_cursor(cursor) or query.top
        for examined in range(0, examine, CHUNK):
            size = CHUNK if examined else min(limit, CHUNK)
            batch = await self._batch(query, place, size)
            if not batch:
                return Page(tuple(found), "", unreadable=tuple(bad))
            for changed_at, refund_id, refund in batch:
                place = (changed_at, refund_id)
                if isinstance(refund, str):
                    bad.append(refund)
                elif refund is not None and query.matches(refund):
                    found.append(refund)
                    if len(found) == limit:
                        return Page(tuple(found), write_cursor(place), unreadable=tuple(bad))
        return Page(tuple(found), write_cursor(place), cut=True, unreadable=tuple(bad))

    async def _batch(self, query: Query, place: Place | None, limit: int) -> list[tuple[int, str, Refund | str | None]]:
        if query.open:
            indexes = [self.keys("open")]
        elif query.order:
            indexes = [self.keys("order", query.order)]
        elif query.reason:
            indexes = [self.keys("reason", query.reason)]
        elif query.state:
            indexes = [self.keys.state(query.state)]
        else:
            indexes = [self.keys.state(state) for state in STATES]
        runs = await asyncio.gather(*(self._run_of(index, place, query.since, limit) for index in indexes))
        entries = heapq.nlargest(limit, (entry for run in runs for entry in run))
        refunds = await asyncio.gather(*(self.get_or_id(refund_id) for _, refund_id in entries))
        return [(*entry, refund) for entry, refund in zip(entries, refunds, strict=True)]

    async def get_or_id(self, refund_id: str) -> Refund | str | None:
        """One refund of a list. If it is unreadable, its id, so that the rest of the list can be returned."""
        try:
            return await self.get(refund_id)
        except (RecordUnreadable, WrongType):
            return refund_id

    async def readable(self, refund_ids: Iterable[str]) -> list[Refund]:
        """Those of these refunds that are known and readable, in the given order."""
        found = await asyncio.gather(*map(self.get_or_id, refund_ids))
        return [refund for refund in found if isinstance(refund, Refund)]

    async def _run_of(self, index: str, place: Place | None, since: int, limit: int) -> list[tuple[int, str]]:
        """The next entries of one index after `place`, in descending order of (time, id)."""
        found: list[tuple[int, str]] = []
        offset, size = 0, limit + 1
        top = "+inf" if place is None else str(place[0])
        while len(found) < limit:
            limits = ("BYSCORE", "REV", "LIMIT", offset, size, "WITHSCORES")
            flat = await self._read("ZRANGE", index, top, since or "-inf", *limits)
            pairs = [(at, member) for member, at in self._scored(index, flat)]
            found += [pair for pair in pairs if place is None or pair < place]
            if len(scored(flat)) < size:
                break
            offset += size
        return found[:limit]

    async def _page_of_charge(self, query: Query, cursor: str, limit: int) -> Page:
        key = self.keys("charge", query.charge)
        members = self._texts(key, await self._read("HKEYS", key))
        refunds = await asyncio.gather(*(self.get_or_id(member) for member in members))
        bad = tuple(each for each in refunds if isinstance(each, str))
        place = read_cursor(cursor)
        matching = sorted(
            (refund for refund in refunds if isinstance(refund, Refund) and query.matches(refund)),
            key=place_of,
            reverse=True,
        )
        rest = [refund for refund in matching if place is None or place_of(refund) < place]
        last = rest[limit - 1] if len(rest) > limit else None
        return Page(tuple(rest[:limit]), write_cursor(place_of(last) if last else None), unreadable=bad)


def _refund_keys(keys: Keys, change: Change) -> list[str]:
    refund = change.refund
    before = change.known or refund
    return [
        keys("refund", refund.refund_id),
        keys("history", refund.refund_id),
        keys.state(before.state),
        keys.state(refund.state),
        keys("reason", before.reason_code),
        keys("reason", refund.reason_code),
        keys("charge", refund.charge_id),
        keys("order", searchable(refund.order_reference)),
    ]


def _refund_args(change: Change) -> Args:
    refund, fields, entry = change.refund, to_hash(change.refund), entry_of(change.refund)
    return [
        refund.refund_id,
        change.known.revision if change.known else 0,
        refund.changed_at,
        to_line(refund),
        entry.line() if entry else "",
        1 if refund.reason_code else 0,
        1 if refund.order_reference else 0,
        open_details(refund),
        len(fields),
        *fields,
    ]
