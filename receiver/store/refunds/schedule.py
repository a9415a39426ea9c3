"""Edge: Redis. The schedule of refunds to ask Amazon about: hints, due times, claims and the throttle."""

from __future__ import annotations

import contextlib

import msgspec

from receiver.ledger.audit import Action, AuditEntry, Outcome
from receiver.ledger.next_look import DueRefund, FollowUp, NextLook
from receiver.ledger.notification import Hint, HintResult
from receiver.ledger.refund import REFUND_ID, Source
from receiver.runtime.rounds import Claim
from receiver.store.redis.base import AccountRepository, Args
from receiver.store.redis.damage import WrongType
from receiver.store.redis.wakeups import News
from receiver.store.refunds.timeline import LOOK, timeline_line

NO_LIMIT = 1_000_000
FOLLOW_UP = msgspec.json.Decoder(FollowUp)
SECOND = 2
"""How the scripts mark a second look; 1 is a patient refund."""


class RefundSchedule(AccountRepository):
    async def hint(self, hint: Hint) -> HintResult:
        """Make the refund due now. Durable when this returns; safe to repeat."""
        queue = "refreshed" if hint.patient or hint.source is Source.REFRESH else "hinted"
        by = hint.by
        follow_up = FollowUp(hint.source, hint.at, hint.sent_at, hint.refund_type, traceparent=hint.traceparent)
        answer = await self._script(
            "hint",
            [
                hint.refund_id,
                hint.at,
                hint.digest,
                self.connection.seen_for,
                follow_up.written(),
                timeline_line(hint.at, hint.source.value, *([str(by)] if by.token else [])),
            ],
            more=[self.keys(queue)],
            audit=_refresh(hint) if by.token else None,
            message=hint.message_id,
            refund=hint.refund_id,
        )
        self._written(News.DUE)
        return HintResult(answer.decode())

    async def claim(
        self,
        call: str,
        *,
        lease: int,
        burst: float,
        per_second: float,
        limit: int,
        patient: int | None = None,
        second: int | None = None,
    ) -> Claim[DueRefund]:
        """Claim due refunds for `lease` ms: at most `limit`, and no more than the throttle of `call` allows.

        At most `patient` of them have no hint from a notification, and at most `second` are second looks at final
        refunds; None: no such limit.
        """
        most = (NO_LIMIT if each is None else each for each in (patient, second))
        args: Args = [self.now(), lease, str(burst), str(per_second), limit, *most]
        wait, *rest = await self._script("claim", args, repeatable=False, call=call)
        refunds = []
        for member, token, follow_up, patient in zip(rest[::4], rest[1::4], rest[2::4], rest[3::4], strict=True):
            if not REFUND_ID.fullmatch(refund_id := member.decode(errors="backslashreplace")):
                await self.set_aside(self.keys("due"), member, "not a refund id; set aside")
                continue
            refunds.append(
                DueRefund(
                    self.account,
                    refund_id,
                    int(token),
                    self.read_follow_up(self.keys("hints"), refund_id, follow_up),
                    bool(patient),
                    patient == SECOND,
                )
            )
        return Claim(tuple(refunds), None if wait < 0 else int(wait))

    def read_follow_up(self, key: str, refund_id: str, stored: bytes) -> FollowUp | None:
        """What is remembered of the hint. If the record is damaged, only its details are lost."""
        if not stored:
            return None
        what = "unreadable hint; treated as a notification"
        found = self._part(key, refund_id, what, FOLLOW_UP.decode, stored)
        return found or FollowUp(Source.NOTIFICATION, self.now())

    async def reschedule(self, due: DueRefund, next_look: NextLook) -> bool:
        """Finish a claim that brought no change.

        Returns False, and writes nothing, if the lease expired and another worker claimed the refund, or if the refund
        has changed since.
        """
        outcome = next_look.outcome
        trace = timeline_line(self.now(), LOOK, due.source.value, outcome) if outcome else ""
        held = await self._script(
            "reschedule",
            [
                due.refund_id,
                due.token,
                "" if next_look.at is None else next_look.at,
                next_look.follow_up.written() if next_look.follow_up else "",
                "" if next_look.revision is None else next_look.revision,
                trace,
                SECOND if next_look.second else int(next_look.patient),
            ],
            refund=due.refund_id,
        )
        return bool(held)

    async def block(self, call: str, until: int) -> None:
        """Amazon answered 429: take no token of `call` before `until` (ms). A damaged throttle is ignored here."""
        with contextlib.suppress(WrongType):
            await self._script("block", [self.now(), until], call=call)


def _refresh(hint: Hint) -> AuditEntry:
    return AuditEntry(action=Action.REFUND_REFRESH, actor=hint.by, refund_id=hint.refund_id, outcome=Outcome.ACCEPTED)
