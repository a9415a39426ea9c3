"""Edge: Redis. Requested refunds, saved before Amazon is called and kept for 400 days.

For open requests see `store/requests/open_requests.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import msgspec

from receiver.ledger.charge import Charge
from receiver.ledger.charge_book import MOST_REFUNDS, Entry, Guard, read_entry, reservation
from receiver.ledger.dispute import permission_of
from receiver.ledger.refund_request import PreparedRefund, Progress, RefundRequestRecord, RequestState
from receiver.runtime.rounds import Claim
from receiver.store.redis.base import AccountRepository, Args
from receiver.store.redis.damage import WrongType

KEPT_FOR = 400 * 86_400_000
"""ms. Afterwards the key is free here, but not at Amazon, which keeps idempotency keys for ever."""
CHARGE_KEPT = 3_600_000
"""How old (ms) a stored charge may be for uses that move no money, such as reading its order number."""


@dataclass(frozen=True, slots=True)
class NotReserved:
    """Other refunds of the charge prevent it; nothing was written. `spent` is the amount already used up (minor
    units)."""

    reason: str
    """`too_many_refunds`, `charge_in_conflict`, `same_amount_refunded` or `allowance_exceeded`."""
    spent: int
    entries: Mapping[str, Entry]
    """Those refunds (by id) and reservations (`request:…`)."""


@dataclass(frozen=True, slots=True)
class Disputed:
    """A dispute guards the charge: the buyer may already have the money. Nothing was written."""


@dataclass(frozen=True, slots=True)
class CaseClosed:
    """The case of the declined refund is closed, so it is not reissued. Nothing was written."""


Obstacle = NotReserved | Disputed | CaseClosed
"""What prevents a refund."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A claimed request, order or job. The claim is ours until `token` (ms)."""

    id: str
    token: int


Record = TypeVar("Record")
P = TypeVar("P", bound=Progress)


class Claims(AccountRepository, Generic[Record]):
    """Requests, orders or jobs: a hash for each, and a schedule in which what is due is claimed."""

    kind: ClassVar[str]
    """The kind of the keys of the hashes."""
    schedule: ClassVar[str]
    """The kind of the key of the schedule."""
    noun: ClassVar[str]
    """The name of one record in messages for people."""

    async def get(self, id_: str) -> Record | None:
        """One record; None if it does not exist. Raises `RecordUnreadable`."""
        raw: dict[bytes, bytes] = await self._read("HGETALL", self.keys(self.kind, id_))
        return self._of_hash(id_, raw) if raw else None

    def _of_hash(self, id_: str, raw: Mapping[bytes, bytes]) -> Record:
        what = f"{self.noun} that this version cannot read"
        return self._whole(self.keys(self.kind, id_), what, self._record, id_, raw)

    def _record(self, id_: str, raw: Mapping[bytes, bytes]) -> Record:
        raise NotImplementedError

    async def claim(self, *, lease: int, limit: int) -> Claim[Attempt]:
        """Claim at most `limit` due ones for `lease` ms."""
        keys = [self.keys(self.schedule), self.keys("aside", self.schedule)]
        wait, *rest = await self._run("claim_request", keys, [self.now(), lease, limit], repeatable=False)
        found = [Attempt(each.decode(), int(token)) for each, token in zip(rest[::2], rest[1::2], strict=True)]
        return Claim(found, None if wait < 0 else int(wait))

    async def release(self, attempt: Attempt) -> None:
        """Remove a claimed one that needs nothing more from the schedule."""
        await self._run("release", [self.keys(self.schedule)], [attempt.id, attempt.token])


class Requests(Claims[RefundRequestRecord]):
    kind, schedule, noun = "requests", "issuing", "a refund request"

    async def reserve(
        self, order: PreparedRefund, *, owner: str, guard: Guard, lease: int
    ) -> Attempt | Obstacle | RefundRequestRecord:
        """Reserve the amount and hold the request for `lease` ms; or return what prevents it.

        `owner` is a new random word. It distinguishes a repetition of this very call from another caller's. Who
        requested it is written to the audit trail in the same step.
        """
        token = self.now() + lease
        answer = await self._script(
            "reserve",
            [
                order.id,
                owner,
                order.digest,
                token,
                guard.most,
                guard.refunded,
                order.money.minor_units,
                order.money.currency_code,
                self.now(),
                KEPT_FOR,
                order.charge_id,
                *_guard_args(guard),
                "order",
                msgspec.json.encode(order),
                "state",
                RequestState.RESERVED,
            ],
            audit=order.request_act,
            request=order.id,
            charge=order.charge_id,
            permission=permission_of(order.charge_id),
            first=order.retry_root,
        )
        if answer[0] == b"reserved":
            return Attempt(order.id, token)
        if answer[0] == b"closed":
            return CaseClosed()
        if found := _in_the_way(answer):
            return found
        flat = answer[1]
        return self._of_hash(order.id, dict(zip(flat[::2], flat[1::2], strict=True)))

    def _record(self, id_: str, raw: Mapping[bytes, bytes]) -> RefundRequestRecord:
        return record_of(raw, RefundRequestRecord, PreparedRefund)

    async def begin(self, attempt: Attempt, order: PreparedRefund) -> bool | NotReserved | Disputed:
        """Record that an attempt is about to be sent. False: the claim is no longer ours, and nothing may be sent.

        Returns what prevents it, if that appeared after the amount was reserved. Then nothing may be sent either.
        """
        money, charge = order.money, order.charge_id
        answer = await self._script(
            "begin_try",
            [attempt.id, attempt.token, charge, money.minor_units, money.currency_code, *order.besides],
            repeatable=False,
            request=attempt.id,
            charge=charge,
            permission=permission_of(charge),
        )
        return _in_the_way(answer) or bool(answer[0] == b"send")

    async def retry(
        self, attempt: Attempt, order: PreparedRefund, at: int, *, unknown: bool | None, fields: Mapping[str, str]
    ) -> bool:
        """Try again at `at` (ms). `unknown`: whether the attempt may have reached Amazon; None: no attempt was made.

        `fields` record how it failed.
        """
        written = await self._finish_request(attempt, order, "retry", at=at, unknown=unknown, fields=fields)
        return bool(written)

    async def done(self, attempt: Attempt, order: PreparedRefund, refund_id: str, state: str) -> bool:
        """Amazon issued the refund: the reservation becomes the refund, whatever state the request was in.

        False if that contradicts how a person resolved this request, or another request that was given this refund.
        """
        entry = Entry(order.money.minor_units, state, self.now(), order.money.currency_code)
        written = await self._finish_request(attempt, order, "done", refund_id=refund_id, entry=entry)
        return written != "contradicted"

    async def refuse(self, attempt: Attempt, order: PreparedRefund, fields: Mapping[str, str]) -> RequestState | None:
        """Amazon refused it. Returns the new state of the request; None if the claim is no longer ours."""
        written = await self._finish_request(attempt, order, "refused", fields=fields)
        return RequestState(written) if written else None

    async def _finish_request(
        self,
        attempt: Attempt,
        order: PreparedRefund,
        outcome: str,
        *,
        at: int | str = "",
        unknown: bool | None = False,
        refund_id: str = "",
        entry: Entry | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> str:
        flat = [text for pair in (fields or {}).items() for text in pair]
        answer = await self._script(
            "finish_request",
            [
                order.id,
                attempt.token,
                outcome,
                at,
                "" if unknown is None else int(unknown),
                reservation(order.id),
                refund_id,
                entry.line() if entry else "",
                KEPT_FOR,
                self.now(),
                *(("refund_id", refund_id) if refund_id else ()),
                *flat,
            ],
            request=order.id,
            charge=order.charge_id,
        )
        self._written()
        return str(answer.decode())

    async def take_token(self, call: str, burst: float, per_second: float, leave: int = 0) -> int:
        """Take one token of a call's throttle, if `leave` are left. Returns 0, or in how many ms there will be one."""
        args: Args = [self.now(), str(burst), str(per_second), leave]
        return int(await self._script("take", args, repeatable=False, call=call))

    async def kept_charge(self, charge_id: str) -> Charge | None:
        """The charge as Amazon last described it; None if that is not stored or is unreadable."""
        try:
            kept: bytes | None = await self._read("GET", self.keys("charges", charge_id))
            return msgspec.json.decode(kept, type=Charge) if kept else None
        except (WrongType, msgspec.MsgspecError, RecursionError):
            return None

    async def keep_charge(self, charge: Charge, *, for_advice: bool) -> None:
        """Store Amazon's description of a charge.

        With `for_advice`, it is kept as long as refunds, and is durable when this returns. Otherwise it is written in
        the background and kept for an hour, or longer if it already was; if Redis refuses it, it is lost.
        """
        key, value = self.keys("charges", charge.charge_id), msgspec.json.encode(charge)
        if not for_advice:
            self._writes.forget(("SET", key, value, "KEEPTTL", "GET"))
            self._writes.forget(("PEXPIRE", key, CHARGE_KEPT, "NX"))
            return
        with contextlib.suppress(WrongType):
            await self._write("SET", key, value, "PX", KEPT_FOR, "GET")


def _guard_args(guard: Guard) -> Args:
    besides = list(dict.fromkeys(guard.besides))
    times = ["" if each is None else each for each in (guard.since, guard.reserved_since)]
    return [*times, MOST_REFUNDS, len(besides), *besides]


def _in_the_way(answer: Sequence[bytes]) -> NotReserved | Disputed | None:
    if answer[0] == b"disputed":
        return Disputed()
    if answer[0] != b"refused":
        return None
    _, reason, spent, *flat = answer
    entries = {name.decode(): read_entry(line.decode()) for name, line in zip(flat[::2], flat[1::2], strict=True)}
    return NotReserved(reason.decode(), int(spent), entries)


def record_of(raw: Mapping[bytes, bytes], kind: type[P], order: type) -> P:
    """A request or an order with its progress. Raises `KeyError` without a state."""
    text = {name.decode(): value.decode() for name, value in raw.items() if value}
    renamed = {"amazon_request_id": text.get("request_id", ""), "changed_at": text.get("at", "0")}
    parsed = {"state": text["state"], "order": msgspec.json.decode(text["order"], type=order)}
    return msgspec.convert({**text, **renamed, **parsed}, kind, strict=False)
