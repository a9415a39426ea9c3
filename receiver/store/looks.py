"""Edge: Redis. When to ask Amazon about which refund: hints, the schedule, claims and the throttle."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from receiver.ledger.hint import Hint, Noted
from receiver.ledger.refund import Source
from receiver.store.part import Part

SEEN_FOR = 16 * 86_400_000
"""Accepted age and future, and a day (ms): what is older is refused before anybody asks whether it was seen."""


class Echo(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a hint until it has brought something new. Of a poll, only how often it has failed."""

    source: Source
    at: int
    sent_at: int = 0
    refund_type: str = ""
    step: int = 0
    """How often Amazon had nothing new."""
    failures: int = 0
    """How often Amazon did not answer."""


@dataclass(frozen=True, slots=True)
class Look:
    """A claimed refund: ask Amazon, and settle with the token before the lease ends."""

    account: str
    refund_id: str
    token: int
    echo: Echo | None

    @property
    def source(self) -> Source:
        """Who made us look."""
        return self.echo.source if self.echo else Source.POLL


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim took. `wait` is when (ms from now) there is more to take; None when nothing is scheduled."""

    looks: tuple[Look, ...]
    wait: int | None


class Looks(Part):
    """The schedule of one account's questions to Amazon."""

    seen_for: int = SEEN_FOR

    async def hint(self, account: str, hint: Hint) -> Noted:
        """Make the refund due now. Durable when this returns; safe to repeat."""
        keys = self._keys(account)
        echo = Echo(hint.source, hint.at, hint.sent_at, hint.refund_type)
        answer = await self._run(
            "hint",
            [keys("seen", hint.message_id), keys("hinted"), keys("hints")],
            [hint.refund_id, hint.at, hint.digest, self.seen_for, msgspec.json.encode(echo)],
        )
        self._written(account)
        return Noted(answer.decode())

    async def claim(
        self, account: str, call: str, *, lease: int, burst: float, per_second: float, limit: int
    ) -> Claimed:
        """Take at most `limit` refunds that are due, as many as the throttle of `call` allows, for `lease` ms."""
        keys = self._keys(account)
        answer = await self._run(
            "claim",
            [keys("throttle", call), keys("hinted"), keys("due"), keys("hints")],
            [self.now(), lease, str(burst), str(per_second), limit],
            repeatable=False,
        )
        wait, *rest = answer
        looks = tuple(
            Look(account, refund_id.decode(), int(token), msgspec.json.decode(echo, type=Echo) if echo else None)
            for refund_id, token, echo in zip(rest[::3], rest[1::3], rest[2::3], strict=True)
        )
        return Claimed(looks, None if wait < 0 else int(wait))

    async def reschedule(self, look: Look, at: int | None, echo: Echo | None = None) -> bool:
        """Settle a look that brought no change: look again at `at` (ms; None: not scheduled), and remember `echo`.

        False if the lease has run out and somebody else has the refund: then nothing is written.
        """
        keys = self._keys(look.account)
        held = await self._run(
            "reschedule",
            [keys("due"), keys("hinted"), keys("hints")],
            [look.refund_id, look.token, "" if at is None else at, msgspec.json.encode(echo) if echo else ""],
        )
        return bool(held)

    async def block(self, account: str, call: str, until: int) -> None:
        """Amazon answered 429: take no token of `call` before `until` (ms)."""
        await self._run("block", [self._keys(account)("throttle", call)], [self.now(), until])
