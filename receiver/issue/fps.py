"""Verb. A refund by Flexible Payments, which Amazon retired in 2015 → Amazon → the ledger, never twice.

The merchant's own reference is the refund's id in the ledger. The order is recorded with all its values first, and
every attempt sends those values. For seven days Amazon treats the same values under the same reference as the same
refund, and repeats its answer ("Important Values to Store in Your Database", FPS Basic Guide). An order with an unknown
outcome is therefore repeated, by a worker if the original process died. It is never repeated after `WINDOW`: Amazon has
then forgotten the reference, and would refund a second time.

A pending refund is polled by the same repetition. GetTransactionStatus needs the id of the refund's own transaction,
but the answer to a Refund names only the original one ("Response Elements", API reference). It is not documented
whether a repeated answer gives the current state or repeats the first answer. In the latter case the refund stays
pending until it is reported as `stuck`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from receiver.amazon.account import FpsAccess
from receiver.amazon.attempt import Made, RefusedByAmazon, TryAgain
from receiver.amazon.fps import calls
from receiver.amazon.fps.orders import FpsOrder, FpsRecord, judge
from receiver.errors import AmazonError, AmazonRefusesUs, Conflict, NotFound, NothingToAsk
from receiver.issue.worker import Worker
from receiver.ledger.audit import THE_SERVICE, Action, Actor, AuditEntry, Outcome
from receiver.ledger.lifecycle import EventType, as_observation
from receiver.ledger.notification import Hint
from receiver.ledger.refund import FPS, Observation, Refund, Source, is_final
from receiver.ledger.refund_request import RequestState
from receiver.store.requests.fps_orders import Begin, NotSaved
from receiver.store.requests.requests import Attempt
from receiver.track.amazon_client import DATE_REFUSED, REDATED_LEAST, AmazonClient, OfAccount
from receiver.track.record import Recorder

log = structlog.get_logger()

WINDOW = (7 * 24 - 1) * 3_600_000
"""ms from the first attempt in which an order can be repeated: Amazon's seven days, minus an hour for clock differences
and for a request in transit, which Amazon accepts for 15 minutes."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order's progress: its record, and the refund; None until Amazon answers."""

    record: FpsRecord
    refund: Refund | None


@dataclass(slots=True)
class FpsIssuer(OfAccount):
    """Flexible Payments refunds of one account.

    `new_owner` returns a fresh random name for a claim; a lease is in seconds. Every account has an `FpsIssuer`: an
    order outlives its settings, and must not then be mistaken for an Amazon Pay refund.
    """

    amazon_client: AmazonClient
    recorder: Recorder
    random: Callable[[], float]
    new_owner: Callable[[], str]
    lease: float = 30.0

    @property
    def is_configured(self) -> bool:
        """Whether the account can issue such refunds."""
        return self.account.fps is not None

    async def create(self, values: calls.FpsRefundRequest, by: Actor = THE_SERVICE) -> Ordered:
        """Issue a refund under the merchant's reference, or return its progress.

        Raises `NotFound` (not configured), `Conflict` (the reference has other values, or belongs to another refund;
        unclear; never sent), `AmazonRefused` with Amazon's code, or `StoreUnavailable`. Repeating the same order is
        always safe.
        """
        access = self.account.fps
        if access is None:
            raise NotFound("This account has no Flexible Payments.", reason="no_fps")
        order = FpsOrder(values=values, version=access.version)
        lease = int(self.lease * 1000)
        entry = AuditEntry(action=Action.REFUND_CREATE, actor=by, refund_id=values.reference, outcome=Outcome.ACCEPTED)
        reserved = await self.store.fps.reserve(order, owner=self.new_owner(), lease=lease, audit=entry)
        match reserved:
            case NotSaved():
                raise Conflict("The ledger has another refund under this reference.", reason="reference_taken")
            case Attempt():
                await self._try(reserved, order)
                record = await self.store.fps.get(values.reference)
                return await self._known(record or FpsRecord(order=order), values)
        return await self._known(reserved, values)

    async def _known(self, record: FpsRecord, values: calls.FpsRefundRequest) -> Ordered:
        """The progress of a recorded order."""
        if not record.order.means(values):
            raise Conflict(
                "This reference was used with other values. Use a new one for another refund.",
                reason="reference_reused",
            )
        refund = await self.store.refunds.get(values.reference)
        if refund is not None or record.state not in (RequestState.REFUSED, RequestState.UNCLEAR):
            return Ordered(record, refund)
        if record.state is RequestState.UNCLEAR:
            raise Conflict(
                "The outcome is unknown, so the refund may have been made, and it is not sent again. Look for it in "
                f"the account's activity before you use a new reference. Last message: {record.detail}",
                reason="refund_unclear",
            )
        if not record.reason_code:
            raise Conflict(record.detail, reason="refund_not_sent")
        raise record.refusal

    async def hint(self, reference: str) -> bool:
        """Make the refund due now, because it may have changed. False if there is no order for it."""
        if await self.store.fps.get(reference) is None:
            return False
        now = self.store.now()
        # Anyone can post such a form, so it waits behind notifications signed by Amazon.
        hint = Hint(refund_id=reference, at=now, source=Source.NOTIFICATION, refund_type=FPS, patient=True)
        await self.store.schedule.hint(hint)
        return True

    async def observe(self, refund_id: str) -> Observation | None:
        """Ask Amazon about the refund by repeating its order. None if it is not a Flexible Payments refund.

        After `WINDOW` it returns the known state, so that a missing `stuck` event is still sent. Raises the
        `AmazonError` tree, or `NothingToAsk` if no question is left.
        """
        signed_at = self.amazon_client.system_clock()
        record = await self.store.fps.get(refund_id)
        if record is None:
            return None
        known = await self.store.refunds.get(refund_id)
        if known is None:
            if record.state is RequestState.RESERVED:
                await self.store.fps.expedite(refund_id)
            raise NothingToAsk("Amazon has not accepted this order yet.", revision=0)
        if self.store.now() - record.first_at < WINDOW:
            return await self._send(record.order, signed_at)
        if is_final(known.state) or EventType.STUCK in known.emitted:
            log.warning("fps.not_asked_any_more", account=self.account.name, refund_id=refund_id, state=known.state)
            raise NothingToAsk("Asking again would refund a second time.", revision=known.revision)
        return as_observation(known)

    async def _try(self, attempt: Attempt, order: FpsOrder) -> None:
        """Send the stored values once, and record the outcome."""
        signed_at = self.amazon_client.system_clock()
        begun = await self.store.fps.begin(attempt, WINDOW)
        if begun is Begin.LOST:
            return
        result: Observation | AmazonError | None = None
        if begun is Begin.SEND:
            try:
                result = await self._send(order, signed_at)
            except AmazonError as failed:
                result = failed
        record = None if isinstance(result, Observation) else await self.store.fps.get(attempt.id)
        match judge(result, record, self.store.now(), self.random()):
            case Made(refund=seen):
                await self._done(attempt, order, seen)
            case TryAgain(error=error, at=at, unknown=unknown, fields=fields):
                _log_failure(self.account.name, attempt, error, at - self.store.now())
                await self.store.fps.retry(attempt, at, unknown=unknown, fields=fields)
            case RefusedByAmazon(fields=fields):
                await self._refused(attempt, order, fields)

    async def _send(self, order: FpsOrder, signed_at: int) -> Observation:
        """Send the signed request and read the answer. Raises the `AmazonError` tree.

        `signed_at` (ms) was taken before the check of `WINDOW`: if the process slept in between, Amazon refuses it.
        """
        amazon_client, access = self.amazon_client, self._access()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + amazon_client.timeout
        how = {"version": order.version, "method": access.method}
        for repeats in (True, False):
            began, outcome, host = loop.time(), "unknown", urlsplit(access.endpoint).netloc.lower()
            dated = amazon_client.clocks.date_for(host, signed_at)
            request = calls.refund(access.endpoint, access.credentials, order.values, dated, **how)
            try:
                response = await amazon_client.sent(request, timeout=deadline - began)
                environment = amazon_client.account.environment.capitalize()
                answer = calls.read_refund(response, order.values, self.store.now(), environment=environment)
                amazon_client.note_unread("fps_refund", answer.observation)
                outcome = "ok"
                return answer.observation
            except AmazonRefusesUs as error:
                outcome = error.reason
                again = amazon_client.clocks.refused(host, response, amazon_client.system_clock(), dated=dated)
                if not (again and repeats and loop.time() + REDATED_LEAST < deadline):
                    raise
                outcome = DATE_REFUSED
            except AmazonError as error:
                outcome = error.reason
                raise
            finally:
                amazon_client.metrics.amazon_call("fps_refund", outcome, loop.time() - began)
        raise AssertionError

    def _access(self) -> FpsAccess:
        access = self.account.fps
        if access is None:
            raise AmazonRefusesUs(
                "The settings of this account's Flexible Payments are gone.", reason_code="NotConfigured"
            )
        return access

    async def _done(self, attempt: Attempt, order: FpsOrder, seen: Observation) -> None:
        details = {"refund_type": FPS}
        recorded = await self.recorder.record(self.account, seen, source=Source.CREATE, details=details)
        await self.store.fps.done(attempt, order)
        refund = recorded.change.refund
        log.info("fps.refund_made", account=self.account.name, refund_id=refund.refund_id, state=refund.state)

    async def _refused(self, attempt: Attempt, order: FpsOrder, fields: Mapping[str, str]) -> None:
        """Refused, or too late to be sent: no worker tries again."""
        state = await self.store.fps.refuse(attempt, fields)
        unclear = state is RequestState.UNCLEAR
        (log.error if unclear else log.warning)(
            "fps.unclear" if unclear else "fps.refused",
            account=self.account.name,
            refund_id=attempt.id,
            charge_id=order.values.transaction_id,
            reason_code=fields.get("reason_code") or None,
            amazon_request_id=fields.get("request_id") or None,
        )

    def worker(self) -> Worker[FpsRecord]:
        """Resumes interrupted orders."""
        return Worker("fps", "refund_id", self.store, self.store.fps, self._resume, self.lease)

    async def _resume(self, attempt: Attempt, record: FpsRecord) -> None:
        await self._try(attempt, record.order)

    async def run(self) -> None:
        """Resume interrupted orders. Runs until cancelled."""
        if self.is_configured:
            await self.worker().run()


def _log_failure(account: str, attempt: Attempt, error: AmazonError, wait: int) -> None:
    log.warning(
        "fps.not_made_yet",
        account=account,
        refund_id=attempt.id,
        again_in_ms=wait,
        reason=error.reason,
        reason_code=error.reason_code or None,
        amazon_status=error.amazon_status,
        amazon_request_id=error.amazon_request_id,
    )
