"""Edge: Redis. Open requests: lists, the refunds that unclear requests may have made, and resolving them by hand.

`reserved` and `unclear` are sorted sets, scored by since when. `taken` of a charge maps refunds to requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from receiver.ledger.audit import AuditEntry
from receiver.ledger.charge_book import RESERVATION, RESERVED, Entry, entry_of, read_entry, reservation
from receiver.ledger.refund import Refund, State
from receiver.ledger.refund_request import OPEN, PreparedRefund, RefundRequestRecord, RequestState, candidate
from receiver.store.redis.base import Args, Connection
from receiver.store.redis.damage import RecordUnreadable, WrongType, unreadable
from receiver.store.redis.keys import Keys
from receiver.store.refunds.findings import Findings
from receiver.store.refunds.refunds import Refunds
from receiver.store.requests.requests import KEPT_FOR, Attempt, Requests


@dataclass(frozen=True, slots=True)
class OpenRequests:
    """The requests that have been in a state longest, and how many are in it in total."""

    records: Sequence[RefundRequestRecord]
    total: int
    unreadable: Sequence[str] = ()
    """Ids of requests with records that are damaged or of a later version."""


@dataclass(frozen=True, slots=True)
class NotUnclear:
    """The request is in this state (None: it does not exist), not unclear; nothing was written."""

    state: RequestState | None


@dataclass(frozen=True, slots=True)
class Taken:
    """The refund belongs to this request; nothing was written."""

    refund_request_id: str


@dataclass(frozen=True, slots=True)
class Busy:
    """An attempt is in progress; nothing was written."""


class OpenRequestStore(Requests):
    """Refund requests, with queries that also need refunds and the book of their charge."""

    def __init__(self, connection: Connection, keys: Keys, refunds: Refunds, findings: Findings) -> None:
        super().__init__(connection, keys)
        self._refunds, self._findings = refunds, findings

    async def charge_entries(self, charge_id: str) -> dict[str, Entry]:
        """The known refunds (by id) and reservations (`request:…`) of a charge.

        A declined one that a report of Amazon's lists as paid is in conflict.
        """
        entries = {name: entry for name, (_, entry) in (await self._book(charge_id)).items()}
        declined = [name for name, entry in entries.items() if entry.state == State.DECLINED and not entry.conflict]
        paid = await self._findings.paid_in_reports(declined)
        return entries | {name: replace(entries[name], conflict=True) for name in declined if name in paid}

    async def upgrade_charge_book(self, charge_id: str) -> None:
        """Add the start time to entries that an older version wrote without one, before amounts are compared."""
        book = await self._book(charge_id)
        old: Args = [
            text
            for name, (line, entry) in book.items()
            if entry.began is not None and entry.line() != line
            for text in (name, line, entry.line())
        ]
        if old:
            await self._script("upgrade_charge_book", old, charge=charge_id)

    async def _book(self, charge_id: str) -> dict[str, tuple[str, Entry]]:
        """The lines of a charge's book and their entries; old ones are completed from the refund or request."""
        key = self.keys("charge", charge_id)
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        lines, read = {}, {}
        for member, line in raw.items():
            try:
                name = member.decode()
                lines[name], read[name] = line.decode(), read_entry(line.decode())
            except ValueError as error:
                # The damaged entry may have used up the charge, so no decision is made without it.
                self.damage.record(key, member, "unreadable entry of a charge's book")
                raise unreadable(key, member) from error
        entries = await asyncio.gather(*(self._entry(name, entry) for name, entry in read.items()))
        return {name: (line, entry) for (name, line), entry in zip(lines.items(), entries, strict=True)}

    async def _entry(self, name: str, entry: Entry) -> Entry:
        if entry.began is not None:
            return entry
        if not name.startswith(RESERVATION):
            refund = await self._refunds.get_or_id(name)
            return (entry_of(refund) if isinstance(refund, Refund) else None) or entry
        record = await self._readable(name.removeprefix(RESERVATION))
        if not isinstance(record, RefundRequestRecord) or not record.created_at:
            return entry
        return Entry(entry.minor_units, RESERVED, record.created_at, record.order.money.currency_code)

    async def open(self, state: RequestState, limit: int) -> OpenRequests:
        """At most `limit` requests in an open state, those that have been in it longest first."""
        index = self.keys(state)
        ids, total = await asyncio.gather(self._read("ZRANGE", index, 0, limit - 1), self._read("ZCARD", index))
        names = self._texts(index, ids)
        found = await asyncio.gather(*(self._readable(each) for each in names))
        bad = [each for each, record in zip(names, found, strict=True) if isinstance(record, str)]
        records = [record for record in found if isinstance(record, RefundRequestRecord) and record.state is state]
        return OpenRequests(records, int(total), bad)

    async def _readable(self, refund_request_id: str) -> RefundRequestRecord | str | None:
        """One request of a list. If it is unreadable, its id, so that the rest of the list can be returned."""
        try:
            return await self.get(refund_request_id)
        except (RecordUnreadable, WrongType):
            return refund_request_id

    async def refund_owner(self, charge_id: str) -> dict[str, str]:
        """Refund → request, for the refunds of a charge that were made by requests."""
        key = self.keys("taken", charge_id)
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        return self._whole(key, "not ids of refunds and requests", _owners, raw)

    async def request_sizes(self) -> dict[str, float]:
        """`requests:<state>` and `request_age:<state>` (age of the oldest, in seconds) for the open states."""
        sizes: dict[str, float] = {}
        for state in OPEN:
            index = self.keys(state)
            total, first = await asyncio.gather(
                self._read("ZCARD", index), self._read("ZRANGE", index, 0, 0, "WITHSCORES")
            )
            pairs = self._scored(index, first)
            sizes[f"requests:{state}"] = float(total)
            sizes[f"request_age:{state}"] = max(self.now() - pairs[0][1], 0) / 1000 if pairs else 0.0
        return sizes

    async def candidate_of(self, record: RefundRequestRecord) -> str:
        """The one refund that the request may have made (see `ledger.refund_request.candidate`), or empty."""
        if record.state is not RequestState.UNCLEAR:
            return ""
        order = record.order
        entries, taken = await asyncio.gather(self.charge_entries(order.charge_id), self.refund_owner(order.charge_id))
        alike = [name for name, entry in entries.items() if entry.minor_units == order.money.minor_units]
        names = [name for name in alike if not name.startswith(RESERVATION) and name not in taken]
        refunds = await asyncio.gather(*(self._refunds.get(name) for name in names))
        return candidate(record, entries, taken, refunds)

    async def unclear_with(self, refund: Refund) -> RefundRequestRecord | None:
        """The unclear request that may have made this refund, if there is exactly one."""
        if refund.amount is None or not refund.charge_id:
            return None
        entries = await self.charge_entries(refund.charge_id)
        minor = refund.amount.minor_units
        open_ones = [
            name for name, entry in entries.items() if name.startswith(RESERVATION) and entry.minor_units == minor
        ]
        if len(open_ones) != 1:
            return None
        record = await self.get(open_ones[0].removeprefix(RESERVATION))
        if record is None or await self.candidate_of(record) != refund.refund_id:
            return None
        return record

    async def reopen(
        self, order: PreparedRefund, *, lease: int, audit: AuditEntry | None = None
    ) -> Attempt | NotUnclear:
        """Hold an unclear request for `lease` ms, to send it once more; or return the state that prevents it.

        `audit` is written with it.
        """
        now = self.now()
        args: Args = [order.id, now + lease, now]
        answer = await self._script("reopen_request", args, audit=audit, request=order.id)
        if answer != b"reopened":
            return NotUnclear(RequestState(answer.decode()) if answer else None)
        self._written()
        return Attempt(order.id, now + lease)

    async def suspend(self, refund_request_id: str, fields: Mapping[str, str]) -> bool:
        """Make a reserved request unclear; `fields` say why. False if it is not reserved."""
        args: Args = [refund_request_id, self.now(), *(text for pair in fields.items() for text in pair)]
        return bool(await self._script("suspend_request", args, request=refund_request_id))

    async def resolve(
        self,
        order: PreparedRefund,
        fields: Mapping[str, str],
        *,
        refund_id: str = "",
        state: str = "",
        audit: AuditEntry | None = None,
    ) -> NotUnclear | Taken | Busy | None:
        """Resolve a request by hand that is unclear, or that Amazon keeps refusing without naming the refund.

        It becomes done, with a refund in `state`; or refused, without one. The reservation becomes the refund, or is
        released; `audit` is written with it. Returns what prevents this, or None if it was written.
        """
        outcome = RequestState.DONE if refund_id else RequestState.REFUSED
        entry = Entry(order.money.minor_units, state, self.now(), order.money.currency_code)
        answer = await self._script(
            "resolve_request",
            [
                order.id,
                outcome,
                reservation(order.id),
                refund_id,
                entry.line() if refund_id else "",
                KEPT_FOR,
                *(("refund_id", refund_id) if refund_id else ()),
                "at",
                self.now(),
                *(text for pair in fields.items() for text in pair),
            ],
            audit=audit,
            request=order.id,
            charge=order.charge_id,
        )
        match answer[0]:
            case b"busy":
                return Busy()
            case b"taken":
                return Taken(answer[1].decode())
            case b"state":
                return NotUnclear(RequestState(answer[1].decode()) if answer[1] else None)
        self._written()
        return None


def _owners(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    return {refund_id.decode(): refund_request_id.decode() for refund_id, refund_request_id in raw.items()}
