"""Edge: Redis. Findings of the reconciliation, the refunds in the reports, and the periods that the reports covered.

findings            one index for each kind: refund → since when the finding is open
findings:details    `<kind> <refund>` → the finding; a closed one for 30 days
findings:closed     the closed ones, by when they were closed
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from receiver.ledger.age import DAY
from receiver.ledger.money import Money
from receiver.ledger.reconciliation.finding import Finding, FindingKind
from receiver.ledger.reconciliation.rows import Period, SettlementRow
from receiver.store.redis.base import AccountRepository, Args
from receiver.store.refunds.refunds import Owed

KEPT_CLOSED = 30 * DAY
"""ms for which a closed finding is kept."""
SAY_PAID = (FindingKind.SETTLED_BUT_DECLINED, FindingKind.STATE_DIFFERS)
"""The kinds that can say that a declined refund is paid: see `Finding.says_paid`."""
BATCH = 500
PERIOD = re.compile(r"(refunds|settlements) ([0-9]{1,15}) ([0-9]{1,15})")
PLAIN = re.compile(r"[!-~]{1,64}")
CREDIT = " credit"
"""The end of a settlement's row without a minus sign."""


class Opened(StrEnum):
    """The result of recording a finding. All but OK write nothing."""

    OK = "ok"
    CHANGED = "changed"
    """It was recorded or closed meanwhile."""
    SUBSCRIBERS = "subscribers"
    """The subscriber list was changed meanwhile: read and decide again."""


class StoredFinding(msgspec.Struct, frozen=True):
    """A finding, and its record in Redis."""

    finding: Finding | None
    """None if there is none, or if it is unreadable."""
    value: bytes = b""


FINDING = msgspec.json.Decoder(Finding)


class Findings(AccountRepository):
    async def stored(self, names: Sequence[str]) -> dict[str, StoredFinding]:
        """The findings with these names, closed ones included."""
        key, values = self.keys("findings:details"), await self._values("findings:details", names)
        return {name: self._finding(key, name, values.get(name, b"")) for name in names}

    async def paid_in_reports(self, declined: Iterable[str]) -> set[str]:
        """Those of these declined refunds that a report of Amazon's lists as paid."""
        names = [f"{kind} {each}" for each in declined for kind in SAY_PAID]
        stored = (await self.stored(names)).values()
        return {each.finding.refund_id for each in stored if each.finding and each.finding.says_paid}

    async def record(self, finding: Finding, before: StoredFinding, owed: Owed, version: int) -> Opened:
        """Write a new finding with its event. `version` is that of the subscriber list from which `owed` was made."""
        queues = [self.keys(kind, name) for name in owed.subscribers for kind in ("lane", "owed")]
        answer = await self._script(
            "open_finding",
            [
                *(finding.refund_id, finding.name, before.value, msgspec.json.encode(finding)),
                *(finding.since, version, self.now()),
                *(text for pair in owed.fields.items() for text in pair),
            ],
            more=queues,
            without=("lane", "owed"),
            kind=finding.kind,
        )
        opened = Opened(answer.decode())
        if opened is Opened.OK:
            self._written()
        return opened

    async def close(self, stored: StoredFinding) -> bool:
        """Close an open finding; False if it was changed meanwhile."""
        if stored.finding is None:
            return False
        now = self.now()
        closed = msgspec.json.encode(msgspec.structs.replace(stored.finding, closed_at=now))
        return await self._close(stored.finding, stored.value, closed, now)

    async def _close(self, finding: Finding, value: bytes, closed: bytes, at: int) -> bool:
        args: Args = [finding.refund_id, finding.name, value, closed, at]
        return bool(await self._script("close_finding", args, kind=finding.kind))

    async def drop_old(self) -> None:
        """Remove findings that were closed more than `KEPT_CLOSED` ago."""
        key, before = self.keys("findings:closed"), self.now() - KEPT_CLOSED
        while names := self._texts(key, await self._read("ZRANGE", key, "-inf", before, "BYSCORE", "LIMIT", 0, BATCH)):
            for name, stored in (await self.stored(names)).items():
                if stored.finding and stored.finding.closed_at:
                    await self._close(stored.finding, stored.value, b"", 0)
                await self._write("ZREM", key, name)

    async def page(self, kind: FindingKind, after: str = "", limit: int = 100) -> tuple[list[Finding], str]:
        """Open findings of one kind, the oldest first, and the cursor of the next page; empty on the last one.

        A finding that is closed meanwhile does not move another one to a different page.
        """
        index, (since, last) = self.keys("findings", kind), _place(after)
        # At most one batch of a run is found in the same millisecond.
        limits = ("BYSCORE", "LIMIT", 0, limit + BATCH + 1, "WITHSCORES")
        pairs = self._scored(index, await self._read("ZRANGE", index, since, "+inf", *limits))
        rest = [(at, name) for name, at in pairs if (at, name) > (since, last)]
        stored = await self.stored([f"{kind} {name}" for _, name in rest[:limit]])
        found = [each.finding for each in stored.values() if each.finding and not each.finding.closed_at]
        return found, f"{rest[limit - 1][0]}_{rest[limit - 1][1]}" if len(rest) > limit else ""

    async def closed(self, limit: int = 100) -> list[Finding]:
        """The findings that were closed last."""
        key = self.keys("findings:closed")
        names = self._texts(key, await self._read("ZRANGE", key, 0, limit - 1, "REV"))
        return [each.finding for each in (await self.stored(names)).values() if each.finding]

    async def every_open(self) -> AsyncIterator[list[StoredFinding]]:
        """All open findings, in batches. One that changes meanwhile may be missing or come twice."""
        for kind in FindingKind:
            key = self.keys("findings", kind)
            async for members in self._members(key):
                stored = await self.stored([f"{kind} {member}" for member in members])
                yield [each for each in stored.values() if each.finding and not each.finding.closed_at]

    async def counts(self) -> dict[str, int]:
        """How many findings of each kind are open."""
        counts = await asyncio.gather(*(self._read("ZCARD", self.keys("findings", kind)) for kind in FindingKind))
        return {kind.value: count for kind, count in zip(FindingKind, counts, strict=True)}

    async def changed_since(self, state: str, since: int) -> AsyncIterator[list[str]]:
        """The refunds in this state whose last change is at or after `since` (ms), in batches, the oldest first."""
        index, at, skipped = self.keys.state(state), since, 0
        while True:
            limits = ("BYSCORE", "LIMIT", skipped, BATCH, "WITHSCORES")
            pairs = self._scored(index, await self._read("ZRANGE", index, at, "+inf", *limits))
            if not pairs:
                return
            yield [name for name, _ in pairs]
            last = pairs[-1][1]
            same = sum(score == last for _, score in pairs)
            at, skipped = last, same + (skipped if last == at else 0)

    async def mark_reported(self, refund_ids: Iterable[str]) -> None:
        """Record that a report of refund data contains these refunds."""
        now = self.now()
        pairs = [each for refund_id in refund_ids for each in (refund_id, now)]
        if pairs:
            await self._write("HSET", self.keys("reported"), *pairs)

    async def reported(self, refund_ids: Sequence[str], since: int = 0) -> set[str]:
        """Those of these refunds that are in a report of refund data that was read since then (ms)."""
        values = await self._values("reported", refund_ids)
        return {name for name, value in values.items() if value.isdigit() and int(value) >= since}

    async def are_settled(self, refund_ids: Sequence[str]) -> set[str]:
        """Those of these refunds that are in a report of settlement data."""
        return set(await self._values("settled", refund_ids))

    async def _values(self, kind: str, refund_ids: Sequence[str]) -> dict[str, bytes]:
        values = await self._read("HMGET", self.keys(kind), *refund_ids) if refund_ids else []
        return {refund_id: value for refund_id, value in zip(refund_ids, values, strict=True) if value is not None}

    async def settled(self, refund_ids: Sequence[str]) -> dict[str, tuple[SettlementRow, ...]]:
        """All rows of settlements about each of these refunds, without their lines; damaged ones are left out."""
        key, values = self.keys("settled"), await self._values("settled", refund_ids)
        return {each: self._rows(key, each, values.get(each, b"")) for each in refund_ids}

    async def mark_settled(self, rows: Mapping[str, Iterable[SettlementRow]]) -> None:
        """Store the rows of settlements about these refunds, in place of those known before."""
        pairs = [text for refund_id, found in rows.items() for text in (refund_id, "\n".join(map(_line, found)))]
        if pairs:
            await self._write("HSET", self.keys("settled"), *pairs)

    async def add_periods(self, periods: Iterable[Period]) -> None:
        """Store the periods that reports covered."""
        now = self.now()
        pairs = [text for each in periods for text in (f"{each.report} {each.start} {each.end}", now)]
        if pairs:
            await self._write("HSET", self.keys("reports"), *pairs)

    async def periods(self) -> list[Period]:
        """All periods that reports have covered."""
        key = self.keys("reports")
        texts = self._texts(key, await self._read("HKEYS", key))
        found = (PERIOD.fullmatch(text) for text in texts)
        return [Period(report=each[1], start=int(each[2]), end=int(each[3])) for each in found if each]

    def _finding(self, key: str, name: str, value: bytes) -> StoredFinding:
        found = self._part(key, name, "unreadable finding", FINDING.decode, value) if value else None
        return StoredFinding(found, value)

    def _rows(self, key: str, refund_id: str, value: bytes) -> tuple[SettlementRow, ...]:
        return self._part(key, refund_id, "no rows of settlements", _read_rows, refund_id, value.decode()) or ()


def _place(cursor: str) -> tuple[int, str]:
    """The place that a cursor of ours names; the first one for an empty cursor."""
    since, _, refund_id = cursor.partition("_")
    return int(since) if since.isascii() and since.isdigit() and len(since) < 16 else 0, refund_id


def _line(row: SettlementRow) -> str:
    settlement = row.settlement_id if PLAIN.fullmatch(row.settlement_id) else "-"
    return (
        f"{settlement} {row.posted_at} {row.amount.amount} {row.amount.currency_code}{CREDIT if row.is_credit else ''}"
    )


def _read_rows(refund_id: str, lines: str) -> tuple[SettlementRow, ...]:
    return tuple(_row(refund_id, line) for line in lines.split("\n") if line)


def _row(refund_id: str, line: str) -> SettlementRow:
    """Parse what `_line` wrote. Raises `ValueError`, `Malformed`."""
    settlement, posted_at, amount, currency = line.removesuffix(CREDIT).split(" ")
    return SettlementRow(
        refund_id=refund_id,
        amount=Money.parse(amount, currency),
        settlement_id="" if settlement == "-" else settlement,
        posted_at=int(posted_at),
        is_credit=line.endswith(CREDIT),
    )
