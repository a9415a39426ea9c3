"""Verb. One attempt to issue a refund: the stored bytes are sent once, and the outcome is recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from receiver.amazon.attempt import Made, RefusedByAmazon, TryAgain, judge
from receiver.amazon.calls import post_refund, read_refund
from receiver.amazon.throttle import Call
from receiver.errors import AmazonError, AmazonOutcomeUnknown, StoreUnavailable
from receiver.exchange import Response, in_the_log
from receiver.issue.refusals import hindrance
from receiver.ledger.charge_book import reservation
from receiver.ledger.lifecycle import Details
from receiver.ledger.notification import Hint
from receiver.ledger.refund import Observation, Refund, RetryRefused, Source
from receiver.ledger.refund_request import PreparedRefund, RefundRequestRecord, RequestState
from receiver.outbox.events.event import Recorded
from receiver.runtime.metrics import Metrics
from receiver.store.refunds.timeline import RETRY
from receiver.store.requests.requests import Attempt, Disputed, NotReserved
from receiver.track.amazon_client import PATIENCE, AmazonClient, OfAccount
from receiver.track.charges import Charges
from receiver.track.record import Recorder

log = structlog.get_logger()

FIX_UNCLEAR = (
    "`receiver refund repeat ID` sends it once more, under the same key; if it stays unclear, look for the refund in "
    "Seller Central, then `receiver refund settle-request ID --refund-id R` or `--not-issued`"
)
FIX_REFUSES_US = (
    "the refund was not issued, and the request is kept: reason_code and amazon_says show why Amazon refuses our "
    "requests (date, key, account). Fix that; the refund is then issued automatically. `receiver doctor` finds wrong "
    "keys and clocks"
)
FIX_SETTLED_WRONGLY = (
    "Amazon now says that this refund belongs to this request, but a person had resolved this request differently, or "
    "another request with this refund. Compare the charge's refunds with Seller Central"
)
FIX_STOPPED = (
    "while the request waited, it emerged that the buyer may already be paid; nothing was issued. Check the charge in "
    "Seller Central; if the buyer is owed this refund as well, request it under a new key"
)
FIX_LATE = (
    "it will be retried; last_error shows how Amazon fails: quote amazon_request_id to Amazon's support, and check "
    "Seller Central before you refund the charge another way"
)


@dataclass(frozen=True, slots=True)
class Issued:
    """The state of a request: its record, and the refund; None until Amazon answers."""

    record: RefundRequestRecord
    refund: Refund | None
    repeated: bool = False
    """Whether an earlier call made it, so that this call has changed nothing."""


@dataclass(frozen=True, slots=True)
class RefundAttempts(OfAccount):
    """Sends the refund requests of one account."""

    amazon_client: AmazonClient
    recorder: Recorder
    metrics: Metrics
    random: Callable[[], float]

    async def when_admitted(self, attempt: Attempt, prepared: PreparedRefund) -> None:
        """Send a claimed request when the throttle has a token. If it has none in time, a worker sends it."""
        if await self.amazon_client.token(Call.CREATE_REFUND, PATIENCE):
            await self._try(attempt, prepared)
            return
        at = self.store.now() + 1_000
        detail = "Waiting for Amazon's throttle."
        await self.store.requests.retry(attempt, prepared, at, unknown=None, fields={"detail": detail})

    async def resume(self, attempt: Attempt, record: RefundRequestRecord) -> None:
        """Send a claimed request in place of the process that recorded it."""
        with structlog.contextvars.bound_contextvars(**in_the_log(record.order.traceparent)):
            await self.when_admitted(attempt, record.order)

    async def _try(self, attempt: Attempt, prepared: PreparedRefund) -> None:
        begun = await self.store.requests.begin(attempt, prepared)
        if begun is not True:
            if begun:
                await self._stopped(attempt, prepared, begun)
            return
        result = await self._send(prepared)
        record = None
        if isinstance(result, AmazonError):
            if isinstance(result, AmazonOutcomeUnknown) and result.refund_id:
                # Amazon made a refund, perhaps for another request, so its state must be fetched.
                hint = Hint(refund_id=result.refund_id, at=self.store.now(), source=Source.CREATE)
                await self.store.schedule.hint(hint)
            record = await self.store.requests.get(prepared.id)
        verdict = judge(result, record, self.store.now(), self.random())
        match verdict:
            case Made(refund=seen):
                await self._done(attempt, prepared, seen)
            case TryAgain():
                await self._again(attempt, prepared, verdict, record)
            case RefusedByAmazon():
                await self._refused(attempt, prepared, verdict)

    async def _send(self, prepared: PreparedRefund) -> Observation | AmazonError:
        request = post_refund(self.account.endpoint, prepared.body, prepared.amazon_key)
        amazon_client = self.amazon_client.tracing(prepared.traceparent)
        try:
            return await amazon_client.ask(Call.CREATE_REFUND, request, lambda response: self._read(response, prepared))
        except AmazonError as error:
            return error

    def _read(self, response: Response, prepared: PreparedRefund) -> Observation:
        """The refund in a 2xx, if it matches the request; otherwise the outcome is unknown.

        Unreadable fields do not matter: the refund has the charge and the amount that were requested.
        """
        seen = read_refund(response, is_new=True)
        try:
            self.amazon_client.check_environment(seen.environment)
            if seen.charge_id not in ("", prepared.charge_id):
                raise AmazonOutcomeUnknown("Amazon's answer is about another charge.", reason="amazon_wrong_charge")
            if seen.amount not in (None, prepared.money):
                raise AmazonOutcomeUnknown(f"Amazon's answer is about {seen.amount}.", reason="amazon_wrong_amount")
        except AmazonOutcomeUnknown as error:
            error.detail = f"{error.detail} It names the refund {seen.refund_id}."
            error.refund_id = seen.refund_id
            raise
        return msgspec.structs.replace(seen, charge_id=prepared.charge_id, amount=prepared.money)

    async def _done(self, attempt: Attempt, prepared: PreparedRefund, seen: Observation) -> None:
        """The refund enters the ledger first. Until the reservation is replaced by it, both count."""
        recorded = await self.record(
            prepared, seen, Source.CREATE, {"charge_read": bool(prepared.order_reference), **details_of(prepared)}
        )
        state = recorded.change.refund.state
        if prepared.retry_of:
            # This must precede the end of the request: afterwards no worker would repeat it.
            await self.recorder.annotate(self.account.name, prepared.retry_of, {"retried_by": seen.refund_id})
        agreed = await self.store.requests.done(attempt, prepared, seen.refund_id, state)
        about = {"account": self.account.name, "refund_id": seen.refund_id, "charge_id": prepared.charge_id}
        self.metrics.refund_attempt("done" if agreed else "contradicted")
        if agreed:
            log.info("refund.issued", **about)
        else:
            log.error("refund.settled_wrongly", request=prepared.id, fix=FIX_SETTLED_WRONGLY, **about)

    async def record(self, prepared: PreparedRefund, seen: Observation, source: Source, details: Details) -> Recorded:
        """Record the refund of a request. Its own reservation does not count as a reason against a retry."""
        charges = Charges(self.amazon_client.tracing(prepared.traceparent))
        recorded = await self.recorder.record(
            self.account,
            seen,
            source=source,
            details=details,
            more_details=partial(charges.details_in_time, besides=reservation(prepared.id)),
            traceparent=prepared.traceparent,
        )
        if not recorded.change.is_nothing:
            self.metrics.observation(recorded, source, 0, self.store.now())
        return recorded

    async def _again(
        self, attempt: Attempt, prepared: PreparedRefund, verdict: TryAgain, record: RefundRequestRecord | None
    ) -> None:
        at, unknown, fields = verdict.at, verdict.unknown, verdict.fields
        if not await self.store.requests.retry(attempt, prepared, at, unknown=unknown, fields=fields):
            return
        self.metrics.refund_attempt("again")
        now = self.store.now()
        fix = FIX_REFUSES_US if verdict.refuses_us else FIX_LATE
        (log.error if verdict.is_late else log.warning)(
            "refund.not_issued_yet",
            account=self.account.name,
            request=prepared.id,
            charge_id=prepared.charge_id,
            last_error=fields["last_error"],
            amazon_says=fields["detail"] if verdict.refuses_us else None,
            tries=record.tries if record else 0,
            age_in_ms=now - record.created_at if record else 0,
            again_in_ms=at - now,
            **_amazons(fields),
            **({"fix": fix} if verdict.is_late or verdict.refuses_us else {}),
        )

    async def _refused(self, attempt: Attempt, prepared: PreparedRefund, verdict: RefusedByAmazon) -> None:
        fields = verdict.fields
        if prepared.retry_of and verdict.is_proven:
            # This must precede the end of the request: afterwards no worker would repeat it.
            await self._show_on_declined(prepared, fields)
        state = await self.store.requests.refuse(attempt, prepared, fields)
        if state is RequestState.UNCLEAR:
            await self._alarm(prepared, fields)
        elif state is RequestState.REFUSED:
            self.metrics.refund_attempt("refused")
            if prepared.retry_of:
                said = fields["reason_code"], fields["detail"]
                await self.store.timelines.add(prepared.retry_of, RETRY, str(prepared.requested_by), *said)
            log.warning("refund.refused", account=self.account.name, charge_id=prepared.charge_id, **_amazons(fields))

    async def _stopped(self, attempt: Attempt, prepared: PreparedRefund, found: NotReserved | Disputed) -> None:
        """End a request because, while it waited, it emerged that the buyer may already be paid. Nothing is sent.

        If an earlier attempt may have made the refund, the request becomes unclear, and a person must check.
        """
        error = await hindrance(self.store, prepared, found)
        fields = {"reason_code": "", "detail": error.detail, "amazon_status": "0", "request_id": ""}
        state = await self.store.requests.refuse(attempt, prepared, {**fields, "last_error": error.reason})
        if state not in (RequestState.UNCLEAR, RequestState.REFUSED):
            return
        self.metrics.refund_attempt("unclear" if state is RequestState.UNCLEAR else "stopped")
        if prepared.retry_of:
            by, why = str(prepared.requested_by), (error.reason, error.detail)
            await self.store.timelines.add(prepared.retry_of, RETRY, by, *why)
        log.error(
            "refund.stopped",
            account=self.account.name,
            request=prepared.id,
            charge_id=prepared.charge_id,
            reason=error.reason,
            request_state=state,
            fix=FIX_UNCLEAR if state is RequestState.UNCLEAR else FIX_STOPPED,
        )

    async def _show_on_declined(self, prepared: PreparedRefund, fields: Mapping[str, str]) -> None:
        """Record on the declined refund that Amazon refused to issue it again."""
        refused = RetryRefused(
            prepared.generation,
            self.store.now(),
            fields["reason_code"],
            int(fields["amazon_status"]),
            fields["request_id"],
            fields["detail"],
        )
        await self.recorder.annotate(self.account.name, prepared.retry_of, {"retry_refused": refused})

    async def _alarm(self, prepared: PreparedRefund, fields: Mapping[str, str]) -> None:
        """Log the error for a request that has become unclear; alerts use it. Only a person can resolve the request."""
        self.metrics.refund_attempt("unclear")
        candidate = ""
        with contextlib.suppress(StoreUnavailable):
            if record := await self.store.requests.get(prepared.id):
                candidate = await self.store.requests.candidate_of(record)
        log.error(
            "refund.unclear",
            account=self.account.name,
            request=prepared.id,
            charge_id=prepared.charge_id,
            order_reference=prepared.order_reference or None,
            candidate_refund_id=candidate or None,
            fix=FIX_UNCLEAR,
            **_amazons(fields),
        )


def details_of(prepared: PreparedRefund) -> Details:
    """The fields that a request adds to its refund."""
    return {
        "order_reference": prepared.order_reference,
        "retry_of": prepared.retry_of,
        "retry_root": prepared.retry_root,
        "issued_by": prepared.issued_by,
        "issued_by_user": prepared.issued_by_user,
    }


def _amazons(fields: Mapping[str, str]) -> dict[str, object]:
    """The fields that Amazon's support asks for."""
    return {
        "reason_code": fields["reason_code"] or None,
        "amazon_status": int(fields["amazon_status"]) or None,
        "amazon_request_id": fields["request_id"] or None,
    }
