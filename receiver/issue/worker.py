"""Verb. Resumes refund requests whose lease expired or whose next attempt is due."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

import structlog

from receiver.exchange import in_the_log
from receiver.issue.attempts import RefundAttempts
from receiver.ledger.refund_request import RequestState
from receiver.runtime.rounds import Claim, Rounds
from receiver.store.account import AccountStore
from receiver.store.requests.requests import Attempt


@dataclass(slots=True)
class Worker:
    """Resumes the requests of one account. A lease is in seconds."""

    attempts: RefundAttempts
    lease: float = 30.0
    concurrency: InitVar[int] = 4
    rounds: Rounds[Attempt] = field(init=False)

    def __post_init__(self, concurrency: int) -> None:
        self.rounds = Rounds(
            name="issue",
            account=self._name,
            claim=self._claim,
            work=self._work,
            about=lambda attempt: {"account": self._name, "request": attempt.id},
            concurrency=concurrency,
        )

    @property
    def _name(self) -> str:
        return self.attempts.account

    @property
    def _store(self) -> AccountStore:
        return self.attempts.store

    async def run(self) -> None:
        """Work until cancelled."""
        await self.rounds.run(self._store.change_signal())

    async def _claim(self, room: int) -> Claim[Attempt]:
        return await self._store.requests.claim(lease=int(self.lease * 1000), limit=room)

    async def _work(self, attempt: Attempt) -> None:
        """Send a claimed request if it is still open."""
        record = await self._store.requests.get(attempt.id)
        if record is None or record.state is not RequestState.RESERVED:
            await self._store.requests.release(attempt)
            return
        with structlog.contextvars.bound_contextvars(**in_the_log(record.order.traceparent)):
            await self.attempts.when_admitted(attempt, record.order)
