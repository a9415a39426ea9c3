"""Verb. A person has an unclear request sent once more; or settles it, where only a person can find out its end.

Amazon has no call that lists a charge's refunds, and Get Refund tells no idempotency key: that a refund is of this
request and no other is somebody's word. What can be proven of it is: it exists, it is of this charge, amount and
environment, not older than the request, and of no other request that we know.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from receiver.amazon.calls import get_refund, read_refund
from receiver.amazon.throttle import Call
from receiver.errors import AmazonThrottled, Conflict, NotFound
from receiver.issue.attempts import PATIENCE, RefundAttempts, facts_of
from receiver.ledger.refund import Observation, Source
from receiver.ledger.refund_request import OPEN, REFUSES_US, RefundRequestRecord, RequestState, too_old
from receiver.store.requests.open_requests import Busy, NotUnclear, Taken
from receiver.track.amazon_client import THROTTLED_PAUSE

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ByHand:
    """Settles requests of one account at the word of somebody."""

    tries: RefundAttempts

    async def as_done(self, request_id: str, refund_id: str, *, by: str) -> RefundRequestRecord:
        """Amazon did make it, and this is the refund. It is looked at first; then the reservation becomes the refund.

        `by` is who says so. Saying it twice is no fault. Raises `NotFound`, `Conflict` (`request_pending`,
        `request_settled`, `refund_mismatch`, `refund_taken`), the `AmazonError` tree (`AmazonNotFound` for a refund
        that there is not) and `StoreUnavailable`.
        """
        account, store = self.tries.account, self.tries.store
        record = await self._record(request_id)
        if record.state is not RequestState.DONE or record.refund_id != refund_id:
            _check_unclear(record)
            await self._check_free(record, refund_id)
            seen = await self._look(refund_id)
            self._check_fits(record, seen)
            settled = await self.tries.enter(record.order, seen, Source.REFRESH, {})
            refused = await store.resolve_request(
                account, record.order, {"settled_by": by}, refund_id=refund_id, state=settled.change.refund.state
            )
            if isinstance(refused, Taken):
                raise _taken(refused.request_id)
            if isinstance(refused, Busy):
                raise _pending()
            if refused is not None:
                return await self.as_done(request_id, refund_id, by=by)
            self.tries.metrics.refund_attempt("settled_done")
            log.warning("refund.settled_by_hand", account=account, request=request_id, refund_id=refund_id, by=by)
        # Also the second time: whoever said it first may have died before this.
        await self.tries.settler.annotate(account, refund_id, facts_of(record.order))
        if record.order.retry_of:
            await self.tries.settler.annotate(account, record.order.retry_of, {"retried_by": refund_id})
        return await self._record(request_id)

    async def as_not_issued(self, request_id: str, *, by: str) -> RefundRequestRecord:
        """Amazon made no refund: the reservation is released, and nothing is ever tried again under that key.

        Saying it twice is no fault. Raises `NotFound`, `Conflict` (`request_pending`, `request_settled`) and
        `StoreUnavailable`.
        """
        account, store = self.tries.account, self.tries.store
        record = await self._record(request_id)
        if record.state is RequestState.REFUSED and record.settled_by:
            return record
        _check_unclear(record)
        candidate = await store.candidate_of(account, record)
        detail = f"Settled by hand as not issued. Before that: {record.detail}"
        hindrance = await store.resolve_request(account, record.order, {"settled_by": by, "detail": detail})
        if isinstance(hindrance, Busy):
            raise _pending()
        if hindrance is not None:
            return await self.as_not_issued(request_id, by=by)
        self.tries.metrics.refund_attempt("settled_not_issued")
        log.warning(
            "refund.settled_by_hand",
            account=account,
            request=request_id,
            refund_id=None,
            candidate_refund_id=candidate or None,
            by=by,
        )
        return await self._record(request_id)

    async def repeat(self, request_id: str, *, by: str, lease: int) -> RefundRequestRecord:
        """Send an unclear request once more, under the same key of Amazon's: what Amazon did before, it tells again.

        `by` is who wants it; `lease` is in ms. A request that is being tried, or done, is returned as it is. Raises
        `NotFound`, `Conflict` (`request_settled`) and `StoreUnavailable`.
        """
        account, store = self.tries.account, self.tries.store
        record = await self._record(request_id)
        if record.state in (RequestState.RESERVED, RequestState.DONE):
            return record
        _check_unclear(record)
        claimed = await store.reopen_request(account, record.order, lease=lease)
        if isinstance(claimed, NotUnclear):
            return await self.repeat(request_id, by=by, lease=lease)
        self.tries.metrics.refund_attempt("repeated")
        log.warning("refund.repeated_by_hand", account=account, request=request_id, by=by)
        await self.tries.when_admitted(claimed, record.order)
        return await self._record(request_id)

    async def _record(self, request_id: str) -> RefundRequestRecord:
        record = await self.tries.store.request(self.tries.account, request_id)
        if record is None:
            raise NotFound("There is no such refund request.", reason="no_such_request")
        return record

    async def _look(self, refund_id: str) -> Observation:
        amazon_client = self.tries.amazon_client
        if not await amazon_client.token(Call.GET_REFUND, PATIENCE):
            raise AmazonThrottled("Too many refunds are being asked about just now.", retry_after=THROTTLED_PAUSE)
        request = get_refund(amazon_client.account.endpoint, refund_id)
        return await amazon_client.ask(Call.GET_REFUND, request, lambda response: read_refund(response, refund_id))

    async def _check_free(self, record: RefundRequestRecord, refund_id: str) -> None:
        holder = (await self.tries.store.refund_owner(self.tries.account, record.order.charge_id)).get(refund_id)
        if holder not in (None, record.order.id):
            raise _taken(str(holder))

    def _check_fits(self, record: RefundRequestRecord, seen: Observation) -> None:
        order = record.order
        wrong = [
            text
            for fits, text in (
                (seen.charge_id == order.charge_id, f"it is of the charge {seen.charge_id}, not {order.charge_id}"),
                (seen.amount == order.money, f"it is about {seen.amount}, not {order.money}"),
                (
                    not self.tries.amazon_client.is_foreign(seen.environment),
                    f"it is of the environment {seen.environment}",
                ),
                (not too_old(seen.created_at, record), "it was made before the request"),
            )
            if not fits
        ]
        if wrong:
            raise Conflict(f"This refund is not of this request: {'; '.join(wrong)}.", reason="refund_mismatch")


def _check_unclear(record: RefundRequestRecord) -> None:
    if record.state is RequestState.RESERVED and record.last_error != REFUSES_US:
        raise _pending()
    if record.state not in OPEN:
        became = f" with the refund {record.refund_id}" if record.refund_id else ""
        raise Conflict(f"This request is settled: {record.state}{became}.", reason="request_settled")


def _pending() -> Conflict:
    return Conflict("This request is still being tried, and only Amazon's answer settles it.", reason="request_pending")


def _taken(request_id: str) -> Conflict:
    return Conflict(f"This refund is of another request: {request_id}.", reason="refund_taken")
