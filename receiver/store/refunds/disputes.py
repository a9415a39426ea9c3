"""Edge: Redis. Disputes by charge permission, and when to ask Amazon about each. They are never removed.

    disputes:<charge permission>    hash: dispute → `open` or `over`, the charge or `-`, and everything known as JSON
    disputes_due                    sorted set: charge permission and dispute → when to ask Amazon
    disputes_to_answer              sorted set: the same → until when the merchant has to answer it

Scripts read the first two words (`store/requests/reserve.lua`): a dispute guards its charge unless it is `over`, and so
does a value in any other form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from receiver.amazon.throttle import Bucket
from receiver.errors import StoreUnavailable
from receiver.ledger.age import DAY
from receiver.ledger.dispute import Dispute, joined
from receiver.ledger.next_look import DisputeLook, DueDispute
from receiver.ledger.notification import HintResult
from receiver.ledger.refund import REFUND_ID
from receiver.runtime.rounds import Claim
from receiver.store.redis.base import AccountRepository, Args
from receiver.store.redis.wakeups import News
from receiver.store.refunds.refunds import MOST_COLLISIONS, Owed

ASKED_LATELY = 60_000
"""ms for which refused refunds and refreshes do not make the same disputes due again."""


@dataclass(frozen=True, slots=True)
class StoredDispute:
    """A dispute, and its record in Redis."""

    dispute: Dispute
    value: bytes
    readable: bool = True


class Finished(StrEnum):
    """The result of finishing a claim."""

    OK = "ok"
    LOST = "lost"
    """The claim is no longer ours: a notification or another worker has taken the dispute."""
    RECORD = "record"
    """The record was changed meanwhile: read and decide again."""
    SUBSCRIBERS = "subscribers"
    """The subscriber list was changed meanwhile: read and decide again."""


class Disputes(AccountRepository):
    async def record(self, dispute: Dispute, *, message_id: str, digest: str) -> HintResult:
        """Record what a notification says about a dispute, and make it due now. Durable when this returns; safe to
        repeat."""
        key = self.keys("disputes", dispute.charge_permission_id)
        for _ in range(MOST_COLLISIONS):
            held: bytes = await self._read("HGET", key, dispute.dispute_id) or b""
            known = self._dispute(key, dispute.dispute_id.encode(), held).dispute if held else dispute
            answer = await self._script(
                "dispute",
                [
                    *(dispute.dispute_id, held, to_value(joined(known, dispute)), digest, self.connection.seen_for),
                    *(self.now(), member(dispute) if dispute.can_be_asked else ""),
                ],
                message=message_id,
                permission=dispute.charge_permission_id,
            )
            if answer != b"collision":
                self._written(News.CHANGED)
                self._written(News.DISPUTED)
                return HintResult(answer.decode())
        raise StoreUnavailable("Other processes kept writing the same dispute.", reason="store_collision")

    async def of_permission(self, charge_permission_id: str) -> tuple[Dispute, ...]:
        """All disputes of a charge permission, in the order in which they were first reported."""
        key = self.keys("disputes", charge_permission_id)
        raw: Mapping[bytes, bytes] = await self._read("HGETALL", key)
        found = (self._dispute(key, name, value).dispute for name, value in raw.items())
        return tuple(sorted(found, key=lambda each: (each.first_told_at, each.dispute_id)))

    async def to_answer(self, limit: int) -> list[Dispute]:
        """At most `limit` disputes that Amazon waits for the merchant to answer, the next deadline first. A deadline
        that passed over a day ago is left out."""
        key = self.keys("disputes_to_answer")
        names: list[bytes] = await self._read("ZRANGE", key, self.now() - DAY, "+inf", "BYSCORE", "LIMIT", 0, limit)
        pairs = [name.decode(errors="replace").partition(" ")[::2] for name in names]
        keys = [self.keys("disputes", permission) for permission, _ in pairs]
        places = [*zip(keys, (id_ for _, id_ in pairs), strict=True)]
        values = await asyncio.gather(*(self._read("HGET", *place) for place in places))
        found = [
            self._dispute(key, id_.encode(), value).dispute
            for (key, id_), value in zip(places, values, strict=True)
            if value
        ]
        return [each for each in found if each.wants_answer]

    async def ask_again(self, disputes: Sequence[Dispute]) -> None:
        """Make these disputes of one charge permission due now, at most once a minute: this ends a claim of them."""
        members = [member(each) for each in disputes if each.can_be_asked]
        if not members:
            return
        permission = disputes[0].charge_permission_id
        if await self._script("ask_disputes", [self.now(), ASKED_LATELY, *members], permission=permission):
            self._written(News.DISPUTED)

    async def claim(self, bucket: Bucket, *, lease: int, limit: int) -> Claim[DueDispute]:
        """Claim due disputes for `lease` ms: at most `limit`, and no more than the throttle of Get Dispute allows."""
        key = self.keys("disputes_due")
        args: Args = [self.now(), lease, str(bucket.burst), str(bucket.per_second), limit]
        wait, *claimed = await self._script("claim_disputes", args, repeatable=False)
        found = []
        for name, token in zip(claimed[::2], claimed[1::2], strict=True):
            permission, _, dispute_id = name.decode(errors="backslashreplace").partition(" ")
            if REFUND_ID.fullmatch(permission) and REFUND_ID.fullmatch(dispute_id):
                found.append(DueDispute(self.account, permission, dispute_id, int(token)))
            else:
                await self.set_aside(key, name, "not a dispute; set aside")
        return Claim(found, None if wait < 0 else int(wait))

    async def stored(self, due: DueDispute) -> StoredDispute | None:
        """A claimed dispute; None if there is no record of it."""
        key = self.keys("disputes", due.charge_permission_id)
        held: bytes | None = await self._read("HGET", key, due.dispute_id)
        return None if held is None else self._dispute(key, due.dispute_id.encode(), held)

    async def finish(
        self, due: DueDispute, stored: StoredDispute, look: DisputeLook, owed: Owed | None, version: int
    ) -> Finished:
        """Write the result of a claim, completely or not at all: the record, when to ask again, and the event `owed`.

        `version` is the version of the subscriber list from which `owed` was determined. An unreadable record is only
        replaced by an answer of Amazon's.
        """
        dispute = look.dispute
        keeps = not stored.readable and dispute.asked_at == stored.dispute.asked_at
        queues = [self.keys(kind, name) for name in owed.subscribers for kind in ("lane", "owed")] if owed else []
        answer = await self._script(
            "finish_dispute",
            [
                *(_member(due.charge_permission_id, due.dispute_id), due.token, due.dispute_id, stored.value),
                *("" if keeps else to_value(dispute), "" if look.at is None else look.at),
                *(dispute.deadline if dispute.wants_answer else "", version if owed else "", self.now()),
                *(text for pair in (owed.fields.items() if owed else ()) for text in pair),
            ],
            more=queues,
            without=("lane", "owed"),
            permission=due.charge_permission_id,
        )
        finished = Finished(answer.decode())
        if finished is Finished.OK:
            self._written(News.CHANGED)
        return finished

    async def drop(self, due: DueDispute) -> None:
        """Stop asking about a dispute of which there is no record."""
        nothing = StoredDispute(Dispute(dispute_id=due.dispute_id, charge_permission_id=""), b"", readable=False)
        await self.finish(due, nothing, DisputeLook(nothing.dispute, None), None, 0)

    def _dispute(self, key: str, dispute_id: bytes, value: bytes) -> StoredDispute:
        """A stored dispute. If the record is damaged, its details are lost, but the dispute still counts."""
        if found := self._part(key, dispute_id, "unreadable dispute", _of_value, value):
            return StoredDispute(found, value)
        permission, shown = key.rpartition(":")[2], dispute_id.decode(errors="replace")
        lost = Dispute(dispute_id=shown, charge_permission_id=permission, kind="dispute")
        return StoredDispute(lost, value, readable=False)


def member(dispute: Dispute) -> str:
    """How the schedule names a dispute."""
    return _member(dispute.charge_permission_id, dispute.dispute_id)


def _member(charge_permission_id: str, dispute_id: str) -> str:
    return f"{charge_permission_id} {dispute_id}"


def to_value(dispute: Dispute) -> bytes:
    """The dispute as stored in Redis."""
    words = f"{'open' if dispute.guards else 'over'} {dispute.charge_id or '-'} "
    return words.encode() + msgspec.json.encode(dispute)


def _of_value(value: bytes) -> Dispute:
    return msgspec.json.decode(value.split(b" ", 2)[2], type=Dispute)
