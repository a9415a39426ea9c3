"""Edge: Redis. Requests that are not settled: lists, what an unclear one may have made, and its settling by hand.

`reserved` and `unclear` are sorted sets by since when; `taken` of a charge says which refund is which request's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from receiver.ledger.refund import Refund
from receiver.ledger.request import OPEN, RESERVATION, Order, Record, RequestState, candidate, reservation
from receiver.store.part import scored
from receiver.store.refunds import Refunds
from receiver.store.requests import KEPT_FOR, Requests

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OpenRequests:
    """The requests that have been in a state longest, and how many there are in it in all."""

    records: Sequence[Record]
    total: int


@dataclass(frozen=True, slots=True)
class NotUnclear:
    """The request is not unclear, but this (None: there is none); nothing was written."""

    state: RequestState | None


@dataclass(frozen=True, slots=True)
class Taken:
    """The refund is this request's; nothing was written."""

    request_id: str


class Unsettled(Refunds, Requests):
    """What requests and the book of their charge tell together."""

    async def open_requests(self, account: str, state: RequestState, limit: int) -> OpenRequests:
        """At most `limit` requests in an open state, those that have been in it longest first."""
        index = self._keys(account)(state)
        ids, total = await asyncio.gather(self._read("ZRANGE", index, 0, limit - 1), self._read("ZCARD", index))
        found = await asyncio.gather(*(self._readable(account, each.decode()) for each in ids))
        return OpenRequests([record for record in found if record is not None and record.state is state], int(total))

    async def _readable(self, account: str, request_id: str) -> Record | None:
        try:
            return await self.request(account, request_id)
        except (KeyError, ValueError, msgspec.MsgspecError):
            log.error("store.request_unreadable", account=account, request=request_id)
            return None

    async def taken(self, account: str, charge_id: str) -> dict[str, str]:
        """Refund → request, of the refunds on a charge that requests have become."""
        raw: dict[bytes, bytes] = await self._read("HGETALL", self._keys(account)("taken", charge_id))
        return {refund_id.decode(): request_id.decode() for refund_id, request_id in raw.items()}

    async def request_sizes(self, account: str) -> dict[str, float]:
        """`requests:<state>` and `request_age:<state>` (seconds of the oldest) of the open states."""
        sizes: dict[str, float] = {}
        for state in OPEN:
            index = self._keys(account)(state)
            total, first = await asyncio.gather(
                self._read("ZCARD", index), self._read("ZRANGE", index, 0, 0, "WITHSCORES")
            )
            pairs = scored(first)
            sizes[f"requests:{state}"] = float(total)
            sizes[f"request_age:{state}"] = max(self.now() - float(pairs[0][1]), 0) / 1000 if pairs else 0.0
        return sizes

    async def candidate_of(self, account: str, record: Record) -> str:
        """The one refund that the request may have made (see `ledger.request.candidate`), or empty."""
        if record.state is not RequestState.UNCLEAR:
            return ""
        order = record.order
        entries, taken = await asyncio.gather(
            self.charge_entries(account, order.charge_id), self.taken(account, order.charge_id)
        )
        alike = [name for name, entry in entries.items() if entry.minor_units == order.money.minor_units]
        names = [name for name in alike if not name.startswith(RESERVATION) and name not in taken]
        refunds = await asyncio.gather(*(self.refund(account, name) for name in names))
        return candidate(record, entries, taken, refunds)

    async def unclear_with(self, refund: Refund) -> Record | None:
        """The unclear request that this refund is the candidate of, if there is one."""
        if refund.amount is None or not refund.charge_id:
            return None
        entries = await self.charge_entries(refund.account, refund.charge_id)
        minor = refund.amount.minor_units
        open_ones = [
            name for name, entry in entries.items() if name.startswith(RESERVATION) and entry.minor_units == minor
        ]
        if len(open_ones) != 1:
            return None
        record = await self.request(refund.account, open_ones[0].removeprefix(RESERVATION))
        if record is None or await self.candidate_of(refund.account, record) != refund.refund_id:
            return None
        return record

    async def settle_unclear(
        self, account: str, order: Order, fields: Mapping[str, str], *, refund_id: str = "", state: str = ""
    ) -> NotUnclear | Taken | None:
        """What a person has found out of an unclear request: done, with a refund in `state`; or refused, without one.

        The reservation is swapped for the refund, or released. Returns what stands in the way, None if nothing did.
        """
        keys = self._keys(account)
        outcome = RequestState.DONE if refund_id else RequestState.REFUSED
        answer = await self._run(
            "settle_unclear",
            [
                keys("requests", order.id),
                keys("charge", order.charge_id),
                keys(RequestState.UNCLEAR),
                keys("taken", order.charge_id),
            ],
            [
                order.id,
                outcome,
                reservation(order.id),
                refund_id,
                f"{order.money.minor_units} {state}" if refund_id else "",
                KEPT_FOR,
                *(("refund_id", refund_id) if refund_id else ()),
                "at",
                self.now(),
                *(text for pair in fields.items() for text in pair),
            ],
        )
        match answer[0]:
            case b"taken":
                return Taken(answer[1].decode())
            case b"state":
                return NotUnclear(RequestState(answer[1].decode()) if answer[1] else None)
        self._written(account)
        return None
