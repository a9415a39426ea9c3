"""Verb. Due disputes → the ledger: claim, ask Amazon, record with the event of a reminder."""

from __future__ import annotations

import asyncio
from dataclasses import InitVar, dataclass, field

import structlog

from receiver.amazon.calls import get_dispute, read_dispute
from receiver.amazon.throttle import Call
from receiver.errors import AmazonError, AmazonNotFound, AmazonRefused, AmazonRefusesUs, StoreEmptied, StoreUnavailable
from receiver.ledger.dispute import Dispute, DisputeObservation, standing
from receiver.ledger.next_look import DisputeLook, DueDispute, after_dispute
from receiver.outbox.events.dispute_event import DisputeEvent, dispute_event
from receiver.runtime.metrics import Metrics
from receiver.runtime.rounds import Claim, Rounds
from receiver.store.redis.wakeups import News
from receiver.store.refunds.disputes import Finished
from receiver.store.refunds.refunds import MOST_COLLISIONS
from receiver.track.amazon_client import AmazonClient, OfAccount
from receiver.track.record import Recorder, owed

log = structlog.get_logger()


@dataclass(slots=True)
class DisputeTracker(OfAccount):
    """Asks Amazon about one account's disputes. `lease` is in seconds."""

    amazon_client: AmazonClient
    recorder: Recorder
    """Its `random` and `declared` apply to disputes, too."""
    metrics: Metrics
    lease: float = 30.0
    concurrency: InitVar[int] = 4
    rounds: Rounds[DueDispute] = field(init=False)

    def __post_init__(self, concurrency: int) -> None:
        self.rounds = Rounds(
            name="dispute",
            account=self.account.name,
            claim=self._claim,
            work=self._work,
            about=_about,
            concurrency=concurrency,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        await self.rounds.run(self.store.change_signal(News.DISPUTED))

    async def _claim(self, room: int) -> Claim[DueDispute]:
        bucket = self.account.throttle[Call.GET_DISPUTE]
        return await self.store.disputes.claim(bucket, lease=int(self.lease * 1000), limit=room)

    async def _work(self, due: DueDispute) -> None:
        with structlog.contextvars.bound_contextvars(**_about(due)):
            await self.look(due)

    async def look(self, due: DueDispute) -> None:
        """Ask Amazon about one claimed dispute, and finish the claim. Raises `StoreUnavailable`; the lease then
        expires."""
        result: DisputeObservation | AmazonError
        try:
            result = await self.ask(due.dispute_id)
        except AmazonError as error:
            result = error
        await self._record(due, result)

    async def ask(self, dispute_id: str) -> DisputeObservation:
        """Call Get Dispute. Raises the `AmazonError` tree; a dispute of the other environment counts as not found."""
        request = get_dispute(self.account.endpoint, dispute_id)
        seen = await self.amazon_client.ask(
            Call.GET_DISPUTE, request, lambda response: read_dispute(response, dispute_id)
        )
        if self.amazon_client.is_foreign(seen.environment):
            raise AmazonNotFound(
                f"The dispute is of the environment {seen.environment}.", reason_code="OtherEnvironment"
            )
        return seen

    async def _record(self, due: DueDispute, result: DisputeObservation | AmazonError) -> None:
        disputes = self.store.disputes
        for _ in range(MOST_COLLISIONS):
            stored, subscriber_list = await asyncio.gather(disputes.stored(due), self.store.subscribers.read())
            if stored is None:
                await disputes.drop(due)
                return
            look = after_dispute(stored.dispute, result, self.store.now(), self.recorder.random())
            event = self._event(look)
            if event and self.recorder.declared and not subscriber_list.version:
                raise StoreEmptied()
            to_send = owed(event, subscriber_list) if event else None
            match await disputes.finish(due, stored, look, to_send, subscriber_list.version):
                case Finished.OK:
                    self._report(stored.dispute, look, result, event)
                    return
                case Finished.LOST:
                    return
        raise StoreUnavailable("Others kept writing the same dispute.", reason="store_collision")

    def _event(self, look: DisputeLook) -> DisputeEvent | None:
        if look.reminder is None:
            return None
        region = self.account.endpoint.region.value
        return dispute_event(self.account.name, look.dispute, look.reminder, self.store.now(), region)

    def _report(
        self,
        before: Dispute,
        look: DisputeLook,
        result: DisputeObservation | AmazonError,
        event: DisputeEvent | None,
    ) -> None:
        if event:
            self.metrics.dispute_event(event.type)
            log.warning("dispute.action_required", reminder=event.reminder, deadline=look.dispute.deadline)
        if isinstance(result, AmazonError):
            _log_failure(before, look, result)
        elif look.dispute.changes != before.changes:
            log.warning("dispute.changed", standing=standing(look.dispute), state=look.dispute.state)
        else:
            log.info("dispute.unchanged", state=look.dispute.state, next_at=look.at)


def _log_failure(before: Dispute, look: DisputeLook, error: AmazonError) -> None:
    """Log the failure, the first one at level warning: with a key that lacks the right, every question fails."""
    is_refusal = isinstance(error, AmazonRefused | AmazonRefusesUs)
    (log.info if before.failure == error.reason else log.warning)(
        "dispute.not_read" if is_refusal else "dispute.amazon_failed",
        reason=error.reason,
        amazon_status=error.amazon_status,
        reason_code=error.reason_code or None,
        amazon_request_id=error.amazon_request_id,
        retry_at=look.at,
        **({"fix": "allow the key to use Get Dispute; until then it guards its charge"} if is_refusal else {}),
    )


def _about(due: DueDispute) -> dict[str, object]:
    return {"account": due.account, "dispute_id": due.dispute_id}
