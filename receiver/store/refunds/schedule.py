"""Edge: Redis. The schedule of refunds to ask Amazon about: hints, due times, claims and the throttle."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import msgspec

from receiver.ledger.hint import Hint, HintResult
from receiver.ledger.refund import REFUND_ID, Source
from receiver.store.redis.base import RedisRepository
from receiver.store.redis.damage import WrongType
from receiver.store.redis.wakeups import News
from receiver.store.refunds.timeline import CAP, KEPT_FOR, LOOK, timeline_line

NO_LIMIT = 1_000_000


class FollowUp(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a hint until it leads to something new. For a poll, only the number of failures."""

    source: Source
    at: int
    sent_at: int = 0
    refund_type: str = ""
    step: int = 0
    """How often Amazon had nothing new."""
    failures: int = 0
    """How often Amazon did not answer."""
    due: int = 0
    """When (ms) to ask again because there was nothing new. Regular polls before that time do not count as a step."""
    traceparent: str = ""
    """The traceparent of the hint. It is the last field because it is only written if there is one."""

    def written(self) -> bytes:
        """The form stored in Redis."""
        values = msgspec.structs.astuple(self)
        return msgspec.json.encode(values if self.traceparent else values[:-1])


@dataclass(frozen=True, slots=True)
class DueRefund:
    """A claimed refund. Ask Amazon about it, and finish the claim with the token before the lease ends."""

    account: str
    refund_id: str
    token: int
    follow_up: FollowUp | None
    patient: bool = False
    """Whether it came from the schedule or from the refreshes, which wait behind notifications."""

    @property
    def source(self) -> Source:
        """What made the refund due."""
        return self.follow_up.source if self.follow_up else Source.POLL

    @property
    def traceparent(self) -> str:
        """The traceparent of the hint that made the refund due; empty if there is none."""
        return self.follow_up.traceparent if self.follow_up else ""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claimed refunds. `wait` is in how many ms more will be due; None if nothing is scheduled."""

    refunds: tuple[DueRefund, ...]
    wait: int | None


class RefundSchedule(RedisRepository):
    """The schedule of one account."""

    async def hint(self, account: str, hint: Hint) -> HintResult:
        """Make the refund due now. Durable when this returns; safe to repeat."""
        keys = self._keys(account)
        queue = "refreshed" if hint.patient or hint.source is Source.REFRESH else "hinted"
        follow_up = FollowUp(hint.source, hint.at, hint.sent_at, hint.refund_type, traceparent=hint.traceparent)
        answer = await self._run(
            "hint",
            [
                keys("seen", hint.message_id),
                keys(queue),
                keys("hints"),
                keys("trail", hint.refund_id),
                keys("refund", hint.refund_id),
            ],
            [
                hint.refund_id,
                hint.at,
                hint.digest,
                self.connection.seen_for,
                follow_up.written(),
                timeline_line(hint.at, hint.source.value),
                CAP,
                KEPT_FOR,
            ],
            without=("trail", "refund"),
        )
        self._written(account, News.DUE)
        return HintResult(answer.decode())

    async def claim(
        self,
        account: str,
        call: str,
        *,
        lease: int,
        burst: float,
        per_second: float,
        limit: int,
        patient: int | None = None,
    ) -> Claimed:
        """Claim due refunds for `lease` ms: at most `limit`, and no more than the throttle of `call` allows.

        At most `patient` of them have no hint from a notification; None: no such limit.
        """
        keys = self._keys(account)
        answer = await self._run(
            "claim",
            [keys("throttle", call), keys("hinted"), keys("due"), keys("hints"), keys("refreshed")],
            [self.now(), lease, str(burst), str(per_second), limit, NO_LIMIT if patient is None else patient],
            repeatable=False,
        )
        wait, *rest = answer
        refunds = []
        for member, token, follow_up, patient in zip(rest[::4], rest[1::4], rest[2::4], rest[3::4], strict=True):
            if not REFUND_ID.fullmatch(refund_id := member.decode(errors="backslashreplace")):
                await self.set_aside(keys("due"), member, "not a refund id; set aside")
                continue
            refunds.append(
                DueRefund(
                    account,
                    refund_id,
                    int(token),
                    self.read_follow_up(keys("hints"), refund_id, follow_up),
                    bool(patient),
                )
            )
        return Claimed(tuple(refunds), None if wait < 0 else int(wait))

    def read_follow_up(self, key: str, refund_id: str, stored: bytes) -> FollowUp | None:
        """What is remembered of the hint. If the record is damaged, only its details are lost."""
        if not stored:
            return None
        try:
            return msgspec.json.decode(stored, type=FollowUp)
        except (msgspec.MsgspecError, RecursionError):
            self.damage.record(key, refund_id, "unreadable hint; treated as a notification")
            return FollowUp(Source.NOTIFICATION, self.now())

    async def reschedule(
        self,
        due: DueRefund,
        at: int | None,
        follow_up: FollowUp | None = None,
        *,
        revision: int | None = None,
        outcome: str = "",
        patient: bool = False,
    ) -> bool:
        """Finish a claim that brought no change: ask again at `at` (ms; None: never), and remember `follow_up`.

        With `patient`, it waits among the refreshes: no notification named it, only a request for a refresh.

        `outcome` is for the timeline: `unchanged`, or the reason of an error; empty if Amazon was not asked.

        `revision` is the revision of the refund from which `at` was computed (0: the refund was not known). Returns
        False, and writes nothing, if the lease expired and another worker claimed the refund, or if the refund has
        changed since.
        """
        keys = self._keys(due.account)
        held = await self._run(
            "reschedule",
            [
                keys("due"),
                keys("hinted"),
                keys("hints"),
                keys("refund", due.refund_id),
                keys("trail", due.refund_id),
                keys("refreshed"),
            ],
            [
                due.refund_id,
                due.token,
                "" if at is None else at,
                follow_up.written() if follow_up else "",
                "" if revision is None else revision,
                timeline_line(self.now(), LOOK, due.source.value, outcome) if outcome else "",
                CAP,
                KEPT_FOR,
                int(patient),
            ],
            without=("trail", "refund"),
        )
        return bool(held)

    async def block(self, account: str, call: str, until: int) -> None:
        """Amazon answered 429: take no token of `call` before `until` (ms). A damaged throttle is ignored here."""
        with contextlib.suppress(WrongType):
            await self._run("block", [self._keys(account)("throttle", call)], [self.now(), until])
