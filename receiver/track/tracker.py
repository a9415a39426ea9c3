"""Verb. Due refunds → the ledger: claim, ask Amazon, record. Notifications, polls and refreshes all use it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import InitVar, dataclass, field

import structlog

from receiver.amazon.calls import get_refund, read_refund
from receiver.amazon.throttle import Call
from receiver.errors import (
    AmazonError,
    AmazonNotFound,
    AmazonOutcomeUnknown,
    AmazonThrottled,
    NothingToAsk,
    StoreEmptied,
    StoreUnavailable,
)
from receiver.exchange import in_the_log
from receiver.ledger.dispute import permission_of
from receiver.ledger.lifecycle import as_observation, is_overdue
from receiver.ledger.next_look import DueRefund, NextLook, after
from receiver.ledger.refund import Observation, Refund, Source, State, is_final
from receiver.runtime.metrics import Metrics
from receiver.runtime.rounds import Claim, Rounds
from receiver.store.redis.damage import StoreDamaged
from receiver.store.redis.wakeups import News
from receiver.track.amazon_client import AmazonClient, OfAccount
from receiver.track.charges import Charges
from receiver.track.record import Recorder

log = structlog.get_logger()

FIX_LOST = (
    "Amazon Pay notified about this refund, and says that it does not exist: is the key of another merchant account? "
    "Look the refund up in Seller Central; `receiver refund refresh ID` asks again"
)


@dataclass(slots=True)
class Tracker(OfAccount):
    """Asks Amazon about one account's refunds. `lease` is in seconds.

    `observe_fps` gives Amazon's answer about a Flexible Payments refund, and None for any other refund. It raises the
    `AmazonError` tree, or `NothingToAsk`.
    """

    amazon_client: AmazonClient
    recorder: Recorder
    metrics: Metrics
    random: Callable[[], float]
    concurrency: InitVar[int] = 8
    lease: float = 30.0
    observe_fps: Callable[[str], Awaitable[Observation | None]] | None = None
    rounds: Rounds[DueRefund] = field(init=False)
    _reading: int = 0
    """Claims that are reading a charge because nothing else is new."""

    def __post_init__(self, concurrency: int) -> None:
        self.rounds = Rounds(
            name="track",
            account=self.account.name,
            claim=self._claim,
            work=self._work,
            about=_about,
            concurrency=concurrency,
            unblocks=lambda due: due.patient,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        await self.rounds.run(self.store.change_signal(News.DUE))

    async def _claim(self, room: int) -> Claim[DueRefund]:
        bucket = self.account.throttle[Call.GET_REFUND]
        # If Amazon is slow, a quarter of the slots stays free for refunds named by notifications.
        patient = max(1, self.rounds.concurrency * 3 // 4) - sum(due.patient for due in self.rounds.under_way.values())
        # At most a quarter of the slots is for second looks, so that they do not delay polls.
        second = max(1, self.rounds.concurrency // 4) - sum(due.second for due in self.rounds.under_way.values())
        return await self.store.schedule.claim(
            Call.GET_REFUND,
            lease=int(self.lease * 1000),
            burst=bucket.burst,
            per_second=bucket.per_second,
            limit=room,
            patient=patient,
            second=second,
        )

    async def _work(self, due: DueRefund) -> None:
        """Process one claimed refund. A damaged record is postponed, so that it does not block the others.

        After the store was emptied, the refund is asked about again as soon as the subscribers are back.
        """
        with structlog.contextvars.bound_contextvars(**_about(due)):
            try:
                await self.look(due)
            except StoreDamaged as error:
                log.error("track.damaged", key=error.key, reason=error.reason)
                await self._put_off(due, error)
            except StoreEmptied as error:
                await self._put_off(due, error)

    async def _put_off(self, due: DueRefund, error: StoreUnavailable) -> None:
        """Ask again later. If the store is unavailable, the lease expires instead."""
        with contextlib.suppress(StoreUnavailable):
            await self._reschedule(due, error, None)

    async def look(self, due: DueRefund) -> None:
        """Ask Amazon about one claimed refund, and finish the claim. Raises `StoreUnavailable`; the lease then
        expires."""
        try:
            seen = await self.ask(due.refund_id, due.traceparent)
        except NothingToAsk as error:
            await self._reschedule(due, error, None)
        except AmazonError as error:
            await self._reschedule(due, error, await self._without_an_answer(due))
        else:
            await self._ask_about_disputes(due, seen)
            if (unchanged := await self._record(due, seen)) is not None:
                await self._reschedule(due, None, await self._more_of(due, unchanged))

    async def _ask_about_disputes(self, due: DueRefund, seen: Observation) -> None:
        """A refresh also asks about the disputes of the refund's charge."""
        if due.source is not Source.REFRESH:
            return
        with contextlib.suppress(StoreUnavailable):
            disputes = await self.store.disputes.of_permission(permission_of(seen.charge_id or seen.refund_id))
            await self.store.disputes.ask_again(disputes)

    async def ask(self, refund_id: str, traceparent: str = "") -> Observation:
        """Call Get Refund. Raises the `AmazonError` tree; a refund of the other environment counts as not found.

        For a Flexible Payments refund it calls `observe_fps`, which may also raise `NothingToAsk`.
        """
        if self.observe_fps is not None and (seen := await self.observe_fps(refund_id)) is not None:
            return seen
        request = get_refund(self.account.endpoint, refund_id)
        amazon_client = self.amazon_client.tracing(traceparent)
        seen = await amazon_client.ask(Call.GET_REFUND, request, lambda response: read_refund(response, refund_id))
        if self.amazon_client.is_foreign(seen.environment):
            raise AmazonNotFound(
                f"The refund is of the environment {seen.environment}.", reason_code="OtherEnvironment"
            )
        return seen

    async def _record(self, due: DueRefund, seen: Observation) -> Refund | None:
        """Record Amazon's answer, which finishes the claim. Returns the refund if there was nothing new to record."""
        follow_up = due.follow_up
        recorded = await self.recorder.record(
            self.account,
            seen,
            source=due.source,
            token=due.token,
            details={"refund_type": follow_up.refund_type} if follow_up else {},
            more_details=self._charges(due).details_in_time,
            traceparent=due.traceparent,
        )
        refund = recorded.change.refund
        if recorded.change.is_nothing:
            return refund
        self.metrics.observation(recorded, due.source, follow_up.at if follow_up else 0, self.store.now())
        log.info(
            "refund.changed",
            state=refund.state,
            reason_code=refund.reason_code or None,
            revision=refund.revision,
            source=due.source,
            events=[event.type for event in recorded.events],
            backfill=refund.backfill or None,
        )
        if recorded.change.known is None:
            await self._explains(refund)
        return None

    def _charges(self, due: DueRefund) -> Charges:
        return Charges(self.amazon_client.tracing(due.traceparent))

    async def _explains(self, refund: Refund) -> None:
        """Log that a refund not issued here may be the outcome of an unclear request: a person decides."""
        with contextlib.suppress(StoreUnavailable):
            if unclear := await self.store.requests.unclear_with(refund):
                log.error(
                    "refund.unclear_candidate",
                    request=unclear.order.id,
                    charge_id=refund.charge_id,
                    candidate_refund_id=refund.refund_id,
                    fix="compare with Seller Central, then `receiver refund settle-request`",
                )

    async def _more_of(self, due: DueRefund, refund: Refund) -> Refund:
        """The refund with details that the charge did not give in time, or that an operator requested now.

        At most a quarter of the claims read charges here, so that slow charges do not delay new states.
        """
        asked = due.source is Source.REFRESH and refund.state == State.DECLINED
        if self._reading >= max(1, self.rounds.concurrency // 4) and not asked:
            return refund
        self._reading += 1
        try:
            details = await self._charges(due).details(refund, again=asked)
        finally:
            self._reading -= 1
        if not details:
            return refund
        return await self.recorder.annotate(refund.account, refund.refund_id, details) or refund

    async def _without_an_answer(self, due: DueRefund) -> Refund | None:
        """The ledger's refund when Amazon gave no answer. If it is stuck by now, that is recorded."""
        known = await self.store.refunds.get(due.refund_id)
        if known is None or not is_overdue(known, self.store.now(), self.account.stuck_after):
            return known
        recorded = await self.recorder.record(
            self.account, as_observation(known), source=due.source, traceparent=due.traceparent
        )
        self.metrics.observation(recorded, due.source, 0, self.store.now())
        log.warning("refund.stuck", state=known.state, events=[event.type for event in recorded.events])
        return recorded.change.refund

    async def _reschedule(
        self, due: DueRefund, error: AmazonError | NothingToAsk | StoreUnavailable | None, known: Refund | None
    ) -> None:
        """Finish a claim that changed nothing: decide the next poll and write it."""
        account, now = self.account, self.store.now()
        next_look = after(due, error, known, now, account.poll, self.random(), account.second_looks)
        if error is None and known is not None:
            log.info("refund.unchanged", state=known.state, source=due.source, next_at=next_look.at)
        elif isinstance(error, AmazonError) and not isinstance(error, AmazonNotFound):
            _log_failure(error, next_look)
        held = await self.store.schedule.reschedule(due, next_look)
        if isinstance(error, AmazonNotFound):
            await self._log_not_found(due, known, next_look, held)

    async def _log_not_found(self, due: DueRefund, known: Refund | None, next_look: NextLook, held: bool) -> None:
        if next_look.at is None and known is None and held:
            is_lost = due.source is Source.NOTIFICATION and not await self._is_elsewhere(due.refund_id)
            self.metrics.hint_dropped(is_lost=is_lost)
            (log.error if is_lost else log.warning)(
                "track.hint_dropped", reason="amazon_not_found", source=due.source, fix=FIX_LOST if is_lost else None
            )
        elif known is not None and not is_final(known.state) and next_look.follow_up is None:
            log.warning("track.known_refund_not_found")
        else:
            log.info("track.not_found", source=due.source, next_at=next_look.at)

    async def _is_elsewhere(self, refund_id: str) -> bool:
        """Whether another account knows the refund: a notification can be meant for several of them."""
        others = [each for each in self.store.connection.accounts if each != self.account.name]
        with contextlib.suppress(StoreUnavailable):
            found = [await self.recorder.store.of(each).refunds.get_or_id(refund_id) for each in others]
            return any(found)
        return False


def _log_failure(error: AmazonError, next_look: NextLook) -> None:
    if isinstance(error, AmazonThrottled):
        log.warning("track.throttled", until=next_look.at, amazon_request_id=error.amazon_request_id)
        return
    (log.warning if isinstance(error, AmazonOutcomeUnknown) else log.error)(
        "track.amazon_failed",
        reason=error.reason,
        amazon_status=error.amazon_status,
        reason_code=error.reason_code or None,
        amazon_request_id=error.amazon_request_id,
        retry_at=next_look.at,
    )


def _about(due: DueRefund) -> dict[str, str]:
    return {"account": due.account, "refund_id": due.refund_id, **in_the_log(due.traceparent)}
