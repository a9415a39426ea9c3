"""Verb. What is due → the ledger: claim, ask Amazon, settle. Notifications, polls and operators all end here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Protocol

import msgspec
import structlog

from receiver.amazon.account import Account
from receiver.amazon.calls import get_refund, read_refund
from receiver.amazon.throttle import Call
from receiver.errors import (
    AmazonError,
    AmazonNotFound,
    AmazonOutcomeUnknown,
    AmazonThrottled,
    NothingToAsk,
    StoreUnavailable,
)
from receiver.exchange import in_the_log
from receiver.ledger.lifecycle import as_observation, is_overdue
from receiver.ledger.polling import backoff, next_follow_up, next_look
from receiver.ledger.refund import Observation, Refund, Source, State, is_final
from receiver.outbox.events.event import Settled
from receiver.runtime.metrics import Metrics
from receiver.runtime.rounds import in_rounds
from receiver.store import Store
from receiver.store.redis.damage import StoreDamaged
from receiver.store.redis.wakeups import ChangeSignal, News
from receiver.store.refunds.schedule import DueRefund, FollowUp
from receiver.track.amazon_client import THROTTLED_PAUSE, AmazonClient
from receiver.track.record import Settler

log = structlog.get_logger()

RETRY_FIRST, RETRY_MOST = 5_000, 600_000
DAMAGED_PAUSE = 60_000


class Observes(Protocol):
    """Who knows refunds that are not Amazon Pay's (`issue/fps.py`)."""

    async def observe(self, refund_id: str) -> Observation | None:
        """What Amazon says of it; None: not one of those. Raises the `AmazonError` tree, or `NothingToAsk`."""


@dataclass(slots=True)
class Tracker:
    """Asks Amazon about one account's refunds. A lease is in seconds."""

    amazon_client: AmazonClient
    settler: Settler
    metrics: Metrics
    random: Callable[[], float]
    concurrency: int = 8
    lease: float = 30.0
    legacy: Observes | None = None
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _waker: ChangeSignal = field(default_factory=ChangeSignal)
    _reading: int = 0
    _patient: int = 0

    @property
    def account(self) -> Account:
        """Whose refunds."""
        return self.amazon_client.account

    @property
    def store(self) -> Store:
        """Where they are kept."""
        return self.amazon_client.store

    async def run(self) -> None:
        """Work until cancelled; then let go of what is under way: its leases run out and others take it."""
        with self.store.change_signal(self.account.name, News.DUE) as self._waker:
            await in_rounds(self._waker, self._round, self._running)

    async def _round(self) -> float:
        """Claim what there is room for. Returns the seconds until there is more to claim; `inf`: nobody knows."""
        room = self.concurrency - len(self._running)
        if room <= 0:
            return inf
        bucket = self.account.throttle[Call.GET_REFUND]
        # Where Amazon is slow, a quarter of the places stays free for what notifications tell.
        patient = max(1, self.concurrency * 3 // 4) - self._patient
        try:
            claimed = await self.store.schedule.claim(
                self.account.name,
                Call.GET_REFUND,
                lease=int(self.lease * 1000),
                burst=bucket.burst,
                per_second=bucket.per_second,
                limit=room,
                patient=patient,
            )
        except StoreUnavailable as error:
            log.warning("track.store_unavailable", account=self.account.name, reason=error.reason)
            return inf
        for look in claimed.refunds:
            task = asyncio.get_running_loop().create_task(self._look(look))
            self._running.add(task)
            self._patient += look.patient
            task.add_done_callback(partial(self._done, look))
        return inf if claimed.wait is None else claimed.wait / 1000

    def _done(self, look: DueRefund, task: asyncio.Task[None]) -> None:
        if len(self._running) >= self.concurrency or look.patient:
            self._waker.set()
        self._running.discard(task)
        self._patient -= look.patient

    async def _look(self, look: DueRefund) -> None:
        traced = in_the_log(look.traceparent)
        with structlog.contextvars.bound_contextvars(account=look.account, refund_id=look.refund_id, **traced):
            try:
                await self.look(look)
            except StoreDamaged as error:
                await self._damaged(look, error)
            except StoreUnavailable as error:
                log.warning("track.not_settled", reason=error.reason)
            except Exception:
                log.exception("track.failed")

    async def _damaged(self, look: DueRefund, error: StoreDamaged) -> None:
        """What is kept of this refund is damaged: the others have their turn, and it is asked about again later."""
        log.error("track.damaged", key=error.key, reason=error.reason)
        with contextlib.suppress(StoreUnavailable):
            await self.store.schedule.reschedule(
                look, self.store.now() + DAMAGED_PAUSE, look.follow_up, outcome=error.reason
            )

    async def look(self, look: DueRefund) -> None:
        """Ask Amazon about one claimed refund, and settle. Raises `StoreUnavailable`: then the lease runs out."""
        try:
            seen = await self.ask(look.refund_id, look.traceparent)
        except NothingToAsk as error:
            await self.store.schedule.reschedule(look, None, revision=error.revision)
        except AmazonNotFound:
            await self._not_found(look)
        except AmazonThrottled as error:
            await self._throttled(look, error)
        except AmazonError as error:
            await self._failed(look, error)
        else:
            await self._seen(look, seen)

    async def ask(self, refund_id: str, traceparent: str = "") -> Observation:
        """Get Refund, signed. Raises the `AmazonError` tree; a refund of the other environment is not found here.

        A refund that is not Amazon Pay's is asked about by `legacy`, which may also raise `NothingToAsk`.
        """
        if self.legacy is not None and (told := await self.legacy.observe(refund_id)) is not None:
            return told
        request = get_refund(self.account.endpoint, refund_id)
        amazon_client = self.amazon_client.tracing(traceparent)
        seen = await amazon_client.ask(Call.GET_REFUND, request, lambda response: read_refund(response, refund_id))
        if self.amazon_client.is_foreign(seen.environment):
            raise AmazonNotFound(
                f"The refund is of the environment {seen.environment}.", reason_code="OtherEnvironment"
            )
        return seen

    async def _seen(self, look: DueRefund, seen: Observation) -> None:
        follow_up = look.follow_up
        settled = await self.settler.settle(
            self.account,
            seen,
            source=look.source,
            token=look.token,
            facts={"refund_type": follow_up.refund_type} if follow_up else {},
            learn=self.amazon_client.tracing(look.traceparent).facts_in_time,
            traceparent=look.traceparent,
        )
        if settled.change.is_nothing:
            await self._nothing_new(look, settled)
            return
        refund = settled.change.refund
        self.metrics.observation(settled, look.source, follow_up.at if follow_up else 0, self.store.now())
        log.info(
            "refund.changed",
            state=refund.state,
            reason_code=refund.reason_code or None,
            revision=refund.revision,
            source=look.source,
            events=[event.type for event in settled.events],
            backfill=refund.backfill or None,
        )
        if settled.change.known is None:
            await self._explains(refund)

    async def _explains(self, refund: Refund) -> None:
        """A refund that nobody here issued may be what an unclear request has made: a person decides."""
        with contextlib.suppress(StoreUnavailable):
            if unclear := await self.store.requests.unclear_with(refund):
                log.error(
                    "refund.unclear_candidate",
                    request=unclear.order.id,
                    charge_id=refund.charge_id,
                    candidate_refund_id=refund.refund_id,
                    mend="compare with Seller Central, then `receiver refund settle-request`",
                )

    async def _nothing_new(self, look: DueRefund, settled: Settled) -> None:
        """A notification can be ahead of Get Refund: ask again soon a few times, then by the refund's own schedule."""
        refund = await self._more_of(look, settled.change.refund)
        now = self.store.now()
        own = next_look(refund, now, self.account.poll, self.random())
        again, follow_up = self._echo(look, now)
        at = min((time for time in (own, again) if time is not None), default=None)
        log.info("refund.unchanged", state=refund.state, source=look.source, next_at=at)
        await self.store.schedule.reschedule(look, at, follow_up, revision=refund.revision, outcome="unchanged")

    async def _more_of(self, look: DueRefund, refund: Refund) -> Refund:
        """The refund with what the charge had not told in time, or tells now that somebody wants to know.

        A quarter of the looks at most read charges here: where these hang, news is not to wait for them.
        """
        asked = look.source is Source.REFRESH and refund.state == State.DECLINED
        if self._reading >= max(1, self.concurrency // 4) and not asked:
            return refund
        self._reading += 1
        try:
            facts = await self.amazon_client.tracing(look.traceparent).facts(refund, again=asked)
        finally:
            self._reading -= 1
        return (await self.settler.annotate(refund.account, refund.refund_id, facts)) or refund if facts else refund

    def _echo(self, look: DueRefund, now: int) -> tuple[int | None, FollowUp | None]:
        follow_up = look.follow_up
        if follow_up is None or follow_up.source is Source.POLL:
            return None, None
        if now < follow_up.due:
            return follow_up.due, msgspec.structs.replace(follow_up, failures=0)
        again = next_follow_up(follow_up.step, now)
        if again is None:
            return None, None
        return again, msgspec.structs.replace(follow_up, step=follow_up.step + 1, failures=0, due=again)

    async def _overdue(self, look: DueRefund) -> Refund | None:
        """Tell that a refund is stuck also where Amazon tells nothing of it. Returns what is known then."""
        known = await self.store.refunds.get(look.account, look.refund_id)
        if known is None or not is_overdue(known, self.store.now(), self.account.stuck_after):
            return known
        settled = await self.settler.settle(
            self.account, as_observation(known), source=look.source, traceparent=look.traceparent
        )
        self.metrics.observation(settled, look.source, 0, self.store.now())
        log.warning("refund.stuck", state=known.state, events=[event.type for event in settled.events])
        return settled.change.refund

    async def _not_found(self, look: DueRefund) -> None:
        """A notification can be ahead of Get Refund. Who asks for a refresh can ask again."""
        now = self.store.now()
        known = await self._overdue(look)
        again, follow_up = self._echo(look, now) if known or look.source is not Source.REFRESH else (None, None)
        own = next_look(known, now, self.account.poll, self.random()) if known else None
        at = min((time for time in (own, again) if time is not None), default=None)
        revision = known.revision if known else 0
        held = await self.store.schedule.reschedule(look, at, follow_up, revision=revision, outcome="amazon_not_found")
        if at is None and known is None and held:
            self.metrics.hint_dropped()
            log.warning("track.hint_dropped", reason="amazon_not_found")
        elif known is not None and not is_final(known.state) and follow_up is None:
            log.warning("track.known_refund_not_found")
        else:
            log.info("track.not_found", source=look.source, next_at=at)

    async def _throttled(self, look: DueRefund, error: AmazonThrottled) -> None:
        known = await self._overdue(look)
        until = self.store.now() + (error.retry_after or THROTTLED_PAUSE) * 1000
        log.warning("track.throttled", until=until, request_id=error.request_id)
        await self.store.schedule.reschedule(
            look, until, look.follow_up, outcome=error.reason, patient=_only_asked(look, known)
        )

    async def _failed(self, look: DueRefund, error: AmazonError) -> None:
        """No answer, or a refusal of our request: the refund stays scheduled, further and further apart."""
        known = await self._overdue(look)
        follow_up = look.follow_up or FollowUp(Source.POLL, self.store.now())
        unknown = isinstance(error, AmazonOutcomeUnknown)
        wait = backoff(RETRY_FIRST, RETRY_MOST, follow_up.failures, self.random())
        asked = min((error.retry_after or 0) * 1000, RETRY_MOST)
        at = self.store.now() + max(wait, asked)
        (log.warning if unknown else log.error)(
            "track.amazon_failed",
            reason=error.reason,
            amazon_status=error.amazon_status,
            reason_code=error.reason_code or None,
            request_id=error.request_id,
            retry_at=at,
        )
        follow_up = msgspec.structs.replace(follow_up, failures=follow_up.failures + 1)
        await self.store.schedule.reschedule(
            look, at, follow_up, outcome=error.reason, patient=_only_asked(look, known)
        )


def _only_asked(look: DueRefund, known: Refund | None) -> bool:
    """Whether nobody knows of the refund but who asked to refresh it: it may be invented."""
    return known is None and look.source is Source.REFRESH
