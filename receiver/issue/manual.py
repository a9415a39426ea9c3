"""Verb. A person has an unclear request sent once more, or resolves it when only a person can find out its outcome.

Amazon has no call that lists a charge's refunds, and Get Refund returns no idempotency key. So only a person can say
that a refund belongs to this request and no other. The rest is checked: the refund exists; its charge, amount and
environment match the request; it is not older than the request; and it belongs to no other known request.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from receiver.errors import Conflict, NotFound
from receiver.issue.attempts import RefundAttempts, details_of
from receiver.ledger.audit import Action, Actor, AuditEntry, Outcome
from receiver.ledger.refund import Observation, Source
from receiver.ledger.refund_request import OPEN, REFUSES_US, PreparedRefund, RefundRequestRecord, RequestState, too_old
from receiver.store.requests.open_requests import Busy, NotUnclear, Taken

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ManualResolver:
    """Resolves unclear requests of one account on a person's decision."""

    attempts: RefundAttempts
    lease: int
    """ms."""

    async def as_done(self, refund_request_id: str, refund_id: str, *, by: Actor) -> RefundRequestRecord:
        """Amazon made this refund. It is fetched and checked first; then it replaces the reservation.

        `by` is who says so. Safe to repeat. Raises `NotFound`, `Conflict` (`request_pending`,
        `request_settled`, `refund_mismatch`, `refund_taken`), the `AmazonError` tree (`AmazonNotFound` if there is
        no such refund) and `StoreUnavailable`.
        """
        account, store = self.attempts.account.name, self.attempts.store
        record = await self._record(refund_request_id)
        if record.state is not RequestState.DONE or record.refund_id != refund_id:
            _check_unclear(record)
            await self._check_free(record, refund_id)
            seen = await self.attempts.amazon_client.fetch_refund(refund_id)
            self._check_fits(record, seen)
            recorded = await self.attempts.record(record.order, seen, Source.REFRESH, {})
            entry = _audited(Action.REQUEST_SETTLE, record.order, by, Outcome.ISSUED, refund_id)
            state = recorded.change.refund.state
            refused = await store.requests.resolve(
                record.order, _settled(by), refund_id=refund_id, state=state, audit=entry
            )
            if isinstance(refused, Taken):
                raise _taken(refused.refund_request_id)
            if isinstance(refused, Busy):
                raise _pending()
            if refused is not None:
                return await self.as_done(refund_request_id, refund_id, by=by)
            self.attempts.metrics.refund_attempt("settled_done")
            log.warning(
                "refund.settled_by_hand", account=account, request=refund_request_id, refund_id=refund_id, by=str(by)
            )
        # Also when repeated: the first call may have been interrupted before this.
        await self.attempts.recorder.annotate(account, refund_id, details_of(record.order))
        if record.order.retry_of:
            await self.attempts.recorder.annotate(account, record.order.retry_of, {"retried_by": refund_id})
        return await self._record(refund_request_id)

    async def as_not_issued(self, refund_request_id: str, *, by: Actor) -> RefundRequestRecord:
        """Amazon made no refund: the reservation is released, and the key is never used again.

        Safe to repeat. Raises `NotFound`, `Conflict` (`request_pending`, `request_settled`) and
        `StoreUnavailable`.
        """
        account, store = self.attempts.account.name, self.attempts.store
        record = await self._record(refund_request_id)
        if record.state is RequestState.REFUSED and record.settled_by:
            return record
        _check_unclear(record)
        candidate = await store.requests.candidate_of(record)
        detail = f"Settled by hand as not issued. Before that: {record.detail}"
        entry = _audited(Action.REQUEST_SETTLE, record.order, by, Outcome.NOT_ISSUED)
        hindrance = await store.requests.resolve(record.order, {**_settled(by), "detail": detail}, audit=entry)
        if isinstance(hindrance, Busy):
            raise _pending()
        if hindrance is not None:
            return await self.as_not_issued(refund_request_id, by=by)
        self.attempts.metrics.refund_attempt("settled_not_issued")
        log.warning(
            "refund.settled_by_hand",
            account=account,
            request=refund_request_id,
            refund_id=None,
            candidate_refund_id=candidate or None,
            by=str(by),
        )
        return await self._record(refund_request_id)

    async def repeat(self, refund_request_id: str, *, by: Actor) -> RefundRequestRecord:
        """Send an unclear request once more, under the same key: Amazon answers with its earlier result.

        `by` is who asks for it. A request that is open or done is returned unchanged.
        Raises `NotFound`, `Conflict` (`request_settled`) and `StoreUnavailable`.
        """
        account, store = self.attempts.account.name, self.attempts.store
        record = await self._record(refund_request_id)
        if record.state in (RequestState.RESERVED, RequestState.DONE):
            return record
        _check_unclear(record)
        entry = _audited(Action.REQUEST_REPEAT, record.order, by, Outcome.ACCEPTED)
        claimed = await store.requests.reopen(record.order, lease=self.lease, audit=entry)
        if isinstance(claimed, NotUnclear):
            return await self.repeat(refund_request_id, by=by)
        self.attempts.metrics.refund_attempt("repeated")
        log.warning("refund.repeated_by_hand", account=account, request=refund_request_id, by=str(by))
        await self.attempts.when_admitted(claimed, record.order)
        return await self._record(refund_request_id)

    async def _record(self, refund_request_id: str) -> RefundRequestRecord:
        record = await self.attempts.store.requests.get(refund_request_id)
        if record is None:
            raise NotFound("There is no such refund request.", reason="no_such_request")
        return record

    async def _check_free(self, record: RefundRequestRecord, refund_id: str) -> None:
        holder = (await self.attempts.store.requests.refund_owner(record.order.charge_id)).get(refund_id)
        if holder not in (None, record.order.id):
            raise _taken(str(holder))

    def _check_fits(self, record: RefundRequestRecord, seen: Observation) -> None:
        prepared = record.order
        wrong = [
            text
            for fits, text in (
                (
                    seen.charge_id == prepared.charge_id,
                    f"it belongs to the charge {seen.charge_id}, not {prepared.charge_id}",
                ),
                (seen.amount == prepared.money, f"it is about {seen.amount}, not {prepared.money}"),
                (
                    not self.attempts.amazon_client.is_foreign(seen.environment),
                    f"it belongs to the environment {seen.environment}",
                ),
                (not too_old(seen.created_at, record), "it was made before the request"),
            )
            if not fits
        ]
        if wrong:
            raise Conflict(
                f"This refund does not belong to this request: {'; '.join(wrong)}.", reason="refund_mismatch"
            )


def _check_unclear(record: RefundRequestRecord) -> None:
    if record.state is RequestState.RESERVED and record.last_error != REFUSES_US:
        raise _pending()
    if record.state not in OPEN:
        became = f" with the refund {record.refund_id}" if record.refund_id else ""
        raise Conflict(f"This request is settled: {record.state}{became}.", reason="request_settled")


def _audited(action: Action, prepared: PreparedRefund, by: Actor, outcome: Outcome, refund_id: str = "") -> AuditEntry:
    return AuditEntry(
        action=action,
        actor=by,
        refund_id=refund_id or prepared.retry_of,
        refund_request_id=prepared.id,
        charge_id=prepared.charge_id,
        outcome=outcome,
    )


def _settled(by: Actor) -> dict[str, str]:
    return {"settled_by": by.token, "settled_by_user": by.user}


def _pending() -> Conflict:
    return Conflict("This request is still open, and only Amazon's answer settles it.", reason="request_pending")


def _taken(refund_request_id: str) -> Conflict:
    return Conflict(f"This refund belongs to another request: {refund_request_id}.", reason="refund_taken")
