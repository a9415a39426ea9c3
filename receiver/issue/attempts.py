"""Verb. One try to issue a refund: the stored bytes are sent once, and what became of it is written down."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from receiver.amazon.answers import VERDICTS
from receiver.amazon.calls import post_refund, read_refund
from receiver.amazon.throttle import Call
from receiver.errors import (
    AmazonError,
    AmazonOutcomeUnknown,
    AmazonRefused,
    AmazonRefusesUs,
    AmazonThrottled,
    StoreUnavailable,
)
from receiver.exchange import Response, never_sent
from receiver.issue.refusals import hindrance
from receiver.ledger.charge_book import reservation
from receiver.ledger.hint import Hint
from receiver.ledger.lifecycle import Facts
from receiver.ledger.polling import backoff
from receiver.ledger.refund import Observation, Refund, RetryRefused, Source
from receiver.ledger.refund_request import KEY_TAKEN, PreparedRefund, RefundRequestRecord, RequestState
from receiver.outbox.events.event import Settled
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.store.refunds.timeline import RETRY
from receiver.store.requests.requests import Attempt, Disputed, NotReserved
from receiver.track.amazon_client import AmazonClient
from receiver.track.record import Settler

log = structlog.get_logger()

PATIENCE = 3.0
"""Seconds that a caller waits for a token of the throttle; after that a worker goes on, and the caller gets 202."""
RETRY_FIRST, RETRY_MOST = 5_000, 900_000
REFUSES_US_FIRST = 2_000
"""ms. Amazon refuses requests at random for a moment: the next of its hosts may take the same one."""
ALARM_TRIES, ALARM_AFTER = 8, 3_600_000
"""A request that was tried so often, or is so old (ms), and is still without an answer, is an error in the log."""
MEND_UNCLEAR = (
    "`receiver refund repeat ID` sends it once more, under the same key; if it stays unclear, look for the refund in "
    "Seller Central, then `receiver refund settle-request ID --refund-id R` or `--not-issued`"
)
MEND_REFUSES_US = (
    "the refund was not issued, and the request is kept: reason_code and amazon_says tell what Amazon refuses of our "
    "requests (date, key, account). Correct that; it is then issued by itself. `receiver doctor` finds wrong keys and "
    "clocks"
)
MEND_STOPPED = (
    "the buyer may be paid another way, as has become known while the request waited; nothing was issued. Look at the "
    "charge in Seller Central; if the buyer is owed this refund as well, ask for it under a new key"
)
MEND_LATE = (
    "it is tried on; last_error says how Amazon fails: quote request_id to Amazon's support, and do not refund the "
    "charge another way before you have looked in Seller Central"
)


@dataclass(frozen=True, slots=True)
class Issued:
    """What became of a request so far: the refund, or None while Amazon has not answered."""

    record: RefundRequestRecord
    refund: Refund | None


@dataclass(frozen=True, slots=True)
class RefundAttempts:
    """Makes tries for one account."""

    amazon_client: AmazonClient
    store: Store
    settler: Settler
    metrics: Metrics
    random: Callable[[], float]

    @property
    def account(self) -> str:
        """The account's name."""
        return self.amazon_client.account.name

    async def when_admitted(self, attempt: Attempt, order: PreparedRefund) -> None:
        """Try, as soon as the throttle has a token; where it has none in time, a worker goes on. Holds the claim."""
        if await self.amazon_client.token(Call.CREATE_REFUND, PATIENCE):
            await self._try(attempt, order)
            return
        at = self.store.now() + 1_000
        detail = "Waiting for Amazon's throttle."
        await self.store.requests.retry(self.account, attempt, order, at, unknown=None, fields={"detail": detail})

    async def _try(self, attempt: Attempt, order: PreparedRefund) -> None:
        begun = await self.store.requests.begin(self.account, attempt, order)
        if begun is not True:
            if begun:
                await self._stopped(attempt, order, begun)
            return
        request = post_refund(self.amazon_client.account.endpoint, order.body, order.amazon_key)
        try:
            amazon_client = self.amazon_client.tracing(order.traceparent)
            seen = await amazon_client.ask(Call.CREATE_REFUND, request, lambda response: self._read(response, order))
        except (AmazonThrottled, AmazonRefusesUs) as error:
            await self._again(attempt, order, error, unknown=False)
        except AmazonOutcomeUnknown as error:
            if error.refund_id:
                # Amazon has made a refund, whosever it is: what became of it must be known.
                hint = Hint(refund_id=error.refund_id, at=self.store.now(), source=Source.CREATE)
                await self.store.schedule.hint(self.account, hint)
            await self._again(attempt, order, error, unknown=not never_sent(error.reason))
        except AmazonRefused as error:
            if error.reason_code in VERDICTS:
                await self._refused(attempt, order, error)
            else:
                # A 404 without Amazon's word for an object that it does not know.
                error.reason = AmazonRefusesUs.reason
                await self._again(attempt, order, error, unknown=False)
        else:
            await self._done(attempt, order, seen)

    def _read(self, response: Response, order: PreparedRefund) -> Observation:
        """The refund in a 2xx, if it is the one that was asked for; anything else leaves the end of the try unknown.

        Fields that cannot be read do not matter: the refund is made, and its charge and amount are those of the order.
        """
        seen = read_refund(response, is_new=True)
        try:
            self.amazon_client.check_environment(seen.environment)
            if seen.charge_id not in ("", order.charge_id):
                raise AmazonOutcomeUnknown("Amazon's answer is about another charge.", reason="amazon_wrong_charge")
            if seen.amount not in (None, order.money):
                raise AmazonOutcomeUnknown(f"Amazon's answer is about {seen.amount}.", reason="amazon_wrong_amount")
        except AmazonOutcomeUnknown as error:
            error.detail = f"{error.detail} It names the refund {seen.refund_id}."
            error.refund_id = seen.refund_id
            raise
        return msgspec.structs.replace(seen, charge_id=order.charge_id, amount=order.money)

    async def _done(self, attempt: Attempt, order: PreparedRefund, seen: Observation) -> None:
        """The refund enters the ledger first: until the reservation is swapped for it, both count."""
        settled = await self.enter(
            order, seen, Source.CREATE, {"charge_read": bool(order.order_reference), **facts_of(order)}
        )
        state = settled.change.refund.state
        if order.retry_of:
            # While the request is not done a worker repeats this; afterwards nobody would.
            await self.settler.annotate(self.account, order.retry_of, {"retried_by": seen.refund_id})
        agreed = await self.store.requests.done(self.account, attempt, order, seen.refund_id, state)
        told = {"account": self.account, "refund_id": seen.refund_id, "charge_id": order.charge_id}
        self.metrics.refund_attempt("done" if agreed else "contradicted")
        if agreed:
            log.info("refund.issued", **told)
        else:
            log.error(
                "refund.settled_wrongly",
                request=order.id,
                mend="Amazon says now that this refund is of this request: a person had settled it, or another request "
                "with the same refund, otherwise. Compare the charge's refunds with Seller Central",
                **told,
            )

    async def enter(self, order: PreparedRefund, seen: Observation, source: Source, facts: Facts) -> Settled:
        """Take the refund of an order into the ledger. Its own reservation is no reason against another try."""
        learn = partial(self.amazon_client.tracing(order.traceparent).facts_in_time, besides=reservation(order.id))
        settled = await self.settler.settle(
            self.amazon_client.account, seen, source=source, facts=facts, learn=learn, traceparent=order.traceparent
        )
        if not settled.change.is_nothing:
            self.metrics.observation(settled, source, 0, self.store.now())
        return settled

    async def _again(self, attempt: Attempt, order: PreparedRefund, error: AmazonError, *, unknown: bool) -> None:
        now = self.store.now()
        record = await self.store.requests.get(self.account, order.id) or RefundRequestRecord(
            order=order, created_at=now
        )
        refuses_us = error.reason == AmazonRefusesUs.reason
        first = REFUSES_US_FIRST if refuses_us else RETRY_FIRST
        wait = backoff(first, RETRY_MOST, max(record.tries - refuses_us, 0), self.random())
        asked = (error.retry_after or 0) * 1000
        wait = max(wait, min(asked, RETRY_MOST) if refuses_us else asked)
        written = await self.store.requests.retry(
            self.account, attempt, order, now + wait, unknown=unknown, fields=_fields(error)
        )
        if not written:
            return
        self.metrics.refund_attempt("again")
        late = record.tries >= ALARM_TRIES or now - record.created_at >= ALARM_AFTER
        (log.error if late else log.warning)(
            "refund.not_issued_yet",
            account=self.account,
            request=order.id,
            charge_id=order.charge_id,
            last_error=error.reason,
            amazon_status=error.amazon_status,
            reason_code=error.reason_code or None,
            amazon_says=error.detail if refuses_us else None,
            request_id=error.request_id,
            tries=record.tries,
            age_in_ms=now - record.created_at,
            again_in_ms=wait,
            **({"mend": MEND_REFUSES_US if refuses_us else MEND_LATE} if late or refuses_us else {}),
        )

    async def _refused(self, attempt: Attempt, order: PreparedRefund, error: AmazonRefused) -> None:
        if order.retry_of:
            # While the request is open a worker repeats this; afterwards nobody would.
            await self._show_on_declined(order, error)
        state = await self.store.requests.refuse(self.account, attempt, order, _fields(error))
        if state is RequestState.UNCLEAR:
            await self._alarm(order, error)
        elif state is RequestState.REFUSED:
            self.metrics.refund_attempt("refused")
            if order.retry_of:
                said = error.reason_code or "", error.detail
                await self.store.timelines.add(self.account, order.retry_of, RETRY, order.issued_by, *said)
            log.warning("refund.refused", account=self.account, charge_id=order.charge_id, **_told(error))

    async def _stopped(self, attempt: Attempt, order: PreparedRefund, found: NotReserved | Disputed) -> None:
        """The buyer may be paid another way, as became known while the request waited: it ends, or becomes unclear."""
        error = await hindrance(self.store, self.account, order, found)
        fields = {"reason_code": "", "detail": error.detail, "amazon_status": "0", "request_id": ""}
        fields["last_error"] = error.reason
        state = await self.store.requests.refuse(self.account, attempt, order, fields)
        if state not in (RequestState.UNCLEAR, RequestState.REFUSED):
            return
        self.metrics.refund_attempt("unclear" if state is RequestState.UNCLEAR else "stopped")
        if order.retry_of:
            await self.store.timelines.add(
                self.account, order.retry_of, RETRY, order.issued_by, error.reason, error.detail
            )
        log.error(
            "refund.stopped",
            account=self.account,
            request=order.id,
            charge_id=order.charge_id,
            reason=error.reason,
            request_state=state,
            mend=MEND_UNCLEAR if state is RequestState.UNCLEAR else MEND_STOPPED,
        )

    async def _show_on_declined(self, order: PreparedRefund, error: AmazonRefused) -> None:
        """Let the declined refund tell that Amazon has refused to repeat it, if that is proven."""
        record = await self.store.requests.get(self.account, order.id)
        if record is None or record.unknown or error.reason_code == KEY_TAKEN:
            return
        refused = RetryRefused(
            order.generation,
            self.store.now(),
            error.reason_code,
            error.amazon_status or 0,
            error.request_id or "",
            error.detail,
        )
        await self.settler.annotate(self.account, order.retry_of, {"retry_refused": refused})

    async def _alarm(self, order: PreparedRefund, error: AmazonRefused) -> None:
        """A request has become unclear, which only a person can settle. Whatever tells a person begins here."""
        self.metrics.refund_attempt("unclear")
        candidate = ""
        with contextlib.suppress(StoreUnavailable):
            if record := await self.store.requests.get(self.account, order.id):
                candidate = await self.store.requests.candidate_of(self.account, record)
        log.error(
            "refund.unclear",
            account=self.account,
            request=order.id,
            charge_id=order.charge_id,
            order_reference=order.order_reference or None,
            candidate_refund_id=candidate or None,
            mend=MEND_UNCLEAR,
            **_told(error),
        )


def facts_of(order: PreparedRefund) -> Facts:
    """What whoever asked for a refund knows of it."""
    return {
        "order_reference": order.order_reference,
        "retry_of": order.retry_of,
        "retry_root": order.retry_root,
        "issued_by": order.issued_by,
    }


def _fields(error: AmazonError) -> dict[str, str]:
    """What is kept of a try that brought no refund."""
    return {
        "reason_code": error.reason_code,
        "detail": error.detail,
        "amazon_status": str(error.amazon_status or 0),
        "request_id": error.request_id or "",
        "last_error": error.reason,
    }


def _told(error: AmazonRefused) -> dict[str, object]:
    return {
        "reason_code": error.reason_code,
        "amazon_status": error.amazon_status,
        "request_id": error.request_id,
    }
