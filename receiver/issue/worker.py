"""Verb. Resumes refund requests, or orders of Flexible Payments, whose lease expired or whose next attempt is due."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import InitVar, dataclass, field
from typing import Generic, TypeVar

from receiver.ledger.refund_request import Progress, RequestState
from receiver.runtime.rounds import Claim, Rounds
from receiver.store.account import AccountStore
from receiver.store.requests.requests import Attempt, Claims

Record = TypeVar("Record", bound=Progress)


@dataclass(slots=True)
class Worker(Generic[Record]):
    """Resumes the requests of one account. `name` and `label` name the work and one request in the log. A lease is in
    seconds."""

    name: str
    label: str
    store: AccountStore
    requests: Claims[Record]
    send: Callable[[Attempt, Record], Awaitable[None]]
    lease: float = 30.0
    concurrency: InitVar[int] = 4
    rounds: Rounds[Attempt] = field(init=False)

    def __post_init__(self, concurrency: int) -> None:
        account = self.store.account
        self.rounds = Rounds(
            name=self.name,
            account=account,
            claim=self._claim,
            work=self._work,
            about=lambda attempt: {"account": account, self.label: attempt.id},
            concurrency=concurrency,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        await self.rounds.run(self.store.change_signal())

    async def _claim(self, room: int) -> Claim[Attempt]:
        return await self.requests.claim(lease=int(self.lease * 1000), limit=room)

    async def _work(self, attempt: Attempt) -> None:
        """Send a claimed request if it is still open."""
        record = await self.requests.get(attempt.id)
        if record is None or record.state is not RequestState.RESERVED:
            await self.requests.release(attempt)
            return
        await self.send(attempt, record)
