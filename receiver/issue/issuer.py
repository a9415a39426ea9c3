"""Verb. A refund request → Amazon → the ledger, never twice.

    orders.py         a request and a key → the prepared refund, which is stored; which retry is next
    attempts.py       one attempt, and its outcome
    refusals.py       why a refund is not issued
    worker.py         resumes interrupted requests
    manual.py         a person resolves an unclear request, or has it sent once more
    jobs.py           many declined refunds are reissued; candidates.py: which ones
    cases.py          a person closes the case of a declined refund, or reopens it
    fps.py            the same for Flexible Payments

The bytes to send are stored first, under one Amazon key. Every attempt sends those bytes under that key, and Amazon
answers a repetition with its earlier result. If a process dies in the middle, a worker resumes the request when the
lease ends. After an attempt without a complete answer, only a 2xx or a person can resolve the request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from receiver.errors import AmazonOutcomeUnknown, BadRequest, Conflict, RefundUnclear, StoreUnavailable
from receiver.issue.attempts import Issued, RefundAttempts
from receiver.issue.cases import Cases
from receiver.issue.manual import ManualResolver
from receiver.issue.orders import digest_of_full, generation_of, prepare, request_id_of
from receiver.issue.refusals import all_left, case_of, check_unseen, hindrance, refusal
from receiver.issue.worker import Worker
from receiver.ledger.charge import CAPTURED, Charge, balance_of, refundable_total
from receiver.ledger.charge_book import Guard, retry_guard
from receiver.ledger.money import Money
from receiver.ledger.refund import FPS, Refund, State
from receiver.ledger.refund_request import (
    NOBODY,
    Asked,
    PreparedRefund,
    RefundRequest,
    RefundRequestRecord,
    RequestState,
)
from receiver.ledger.resolution import not_reissued
from receiver.ledger.retryability import BUYER_MAY_BE_PAID, check_itself, in_conflict, judge
from receiver.runtime.metrics import Metrics
from receiver.store.requests.requests import Attempt, CaseClosed, Disputed, NotReserved, Obstacle
from receiver.track.amazon_client import AmazonClient, OfAccount
from receiver.track.charges import Charges
from receiver.track.current import current_refunds
from receiver.track.record import Recorder

__all__ = ["Issued", "Issuer"]


@dataclass(slots=True)
class Issuer(OfAccount):
    """Issues refunds of one account. `new_owner` returns a fresh random name for a claim.

    A lease is in seconds; `concurrency` is the number of requests that the workers process in parallel. Within
    `same_amount_within` ms of the start of a refund, another one of the same amount is issued only if the caller names
    the first. 0 turns this check off.
    """

    amazon_client: AmazonClient
    recorder: Recorder
    metrics: Metrics
    random: Callable[[], float]
    new_owner: Callable[[], str]
    lease: float = 30.0
    concurrency: int = 4
    same_amount_within: int = 3_600_000

    @property
    def attempts(self) -> RefundAttempts:
        """Sends the account's requests."""
        return RefundAttempts(self.amazon_client, self.recorder, self.metrics, self.random)

    def worker(self) -> Worker[RefundRequestRecord]:
        """Resumes interrupted requests."""
        requests, resume = self.store.requests, self.attempts.resume
        return Worker("issue", "request", self.store, requests, resume, self.lease, self.concurrency)

    async def run(self) -> None:
        """Resume interrupted requests. Runs until cancelled."""
        await self.worker().run()

    async def create(self, refund_request: RefundRequest, key: str, asked: Asked = NOBODY) -> Issued:
        """Issue a refund under the caller's key (1 to 255 printable ASCII characters), or return its progress.

        Without an amount, it is for what is left of the captured amount: never more, although Amazon would allow it.
        The first accepted call determines the amount, which is stored under the key.

        Raises `BadRequest`, `Conflict` (key used for another refund; not captured; resolved as not issued; nothing is
        left, or it is not certain how much), `OtherRefunds` (on the same charge; nothing is written), `RefundUnclear`,
        `AmazonRefused` with Amazon's reason code, other `AmazonError`s if the charge cannot be read (nothing is
        written), or `StoreUnavailable`. Repeating the call with the same key is always safe.
        """
        if refund_request.money is None:
            return await self._issue_full(refund_request, key, asked)
        return await self._issue(prepare(self.account, refund_request, key, asked=asked))

    async def retry(self, refund_id: str, asked: Asked = NOBODY) -> Issued:
        """Issue a declined refund again, at most once however many callers ask. Raises like `create`, and `NotFound`.

        Uses Amazon's default soft descriptor, because Amazon does not return the one that was sent for the declined
        refund. If Amazon provably refused the last retry, this is a new one (see `orders.py`).
        """
        declined = await self.cases.known(refund_id)
        if declined.refund_type == FPS:
            raise Conflict("This is a Flexible Payments refund: Amazon Pay cannot retry it.", reason="not_amazon_pay")
        if declined.conflict:
            raise in_conflict()
        if declined.state != State.DECLINED:
            raise Conflict(
                f"Only a declined refund can be retried; this one is {declined.state}.", reason="not_declined"
            )
        if declined.amount is None or not declined.charge_id:
            raise Conflict(
                "Amazon has not reported amount and charge of this refund, so it cannot be repeated. Refresh it "
                "(`receiver refund refresh`), or issue a refund of the charge under your own key.",
                reason="not_enough_known",
            )
        refund_request = RefundRequest(declined.charge_id, declined.amount, order_reference=declined.order_reference)
        prepared = prepare(
            self.account,
            refund_request,
            retry_of=refund_id,
            retry_root=declined.retry_root or refund_id,
            generation=await generation_of(self.store, declined),
            asked=asked,
        )
        return await self._issue(prepared, declined)

    @property
    def cases(self) -> Cases:
        """Closes and reopens the cases of declined refunds."""
        return Cases(self.amazon_client, self.recorder)

    @property
    def manual(self) -> ManualResolver:
        """Resolves unclear requests on a person's decision."""
        return ManualResolver(self.attempts, lease=int(self.lease * 1000))

    async def _issue(self, prepared: PreparedRefund, declined: Refund | None = None) -> Issued:
        known = await self.store.requests.get(prepared.id)
        if known is not None:
            return await self._known(known, prepared.digest)
        if declined is not None:
            await self._check(declined, prepared)
        charge = await Charges(self.amazon_client.tracing(prepared.traceparent)).charge(prepared.charge_id, fresh=True)
        captured = _refundable(charge, prepared.money.currency_code)
        guard = self._guard(prepared, charge, refundable_total(captured, self.account.over), declined)
        await self.store.requests.upgrade_charge_book(prepared.charge_id)
        if declined is not None:
            # Read after the charge: the reserving script detects what has changed since.
            await check_unseen(self.store, charge, prepared)
        prepared = _with_reference(prepared, charge)
        return await self._admitted(prepared, guard, await self._reserve(prepared, guard))

    async def _issue_full(self, refund_request: RefundRequest, key: str, asked: Asked) -> Issued:
        """Issue a refund of all that is left. If the charge's book changes meanwhile, that is determined again."""
        known = await self.store.requests.get(request_id_of(key))
        if known is not None:
            return await self._known(known, digest_of_full(refund_request))
        charge_id = refund_request.charge_id
        charge = await Charges(self.amazon_client.tracing(asked.traceparent)).charge(charge_id, fresh=True)
        await self.store.requests.upgrade_charge_book(charge_id)
        while (issued := await self._issue_left(charge, refund_request, key, asked)) is None:
            pass
        return issued

    async def _issue_left(self, charge: Charge, refund_request: RefundRequest, key: str, asked: Asked) -> Issued | None:
        """Issue a refund of what is left according to the charge and its book; None if the book has changed meanwhile.

        The book is read after the charge, and the request after the book, which may have its own reservation. The guard
        allows no more than the captured amount, minus what was refunded elsewhere.
        """
        captured = _refundable(charge)
        entries = await self.store.requests.charge_entries(charge.charge_id)
        known = await self.store.requests.get(request_id_of(key))
        if known is not None:
            return await self._known(known, digest_of_full(refund_request))
        left, elsewhere = all_left(balance_of(charge, entries.values()))
        prepared = prepare(self.account, refund_request, key, left=left, asked=asked)
        prepared = _with_reference(prepared, charge)
        guard = Guard(captured.minor_units - elsewhere, 0, self._since, self._since, prepared.besides)
        reserved = await self._reserve(prepared, guard)
        refused = isinstance(reserved, NotReserved)
        if refused and await self.store.requests.charge_entries(charge.charge_id) != entries:
            return None
        return await self._admitted(prepared, guard, reserved)

    async def _reserve(self, prepared: PreparedRefund, guard: Guard) -> Attempt | Obstacle | RefundRequestRecord:
        lease = int(self.lease * 1000)
        return await self.store.requests.reserve(prepared, owner=self.new_owner(), guard=guard, lease=lease)

    async def _admitted(
        self, prepared: PreparedRefund, guard: Guard, reserved: Attempt | Obstacle | RefundRequestRecord
    ) -> Issued:
        """Send the refund if its amount is reserved; otherwise raise what prevents it."""
        match reserved:
            case NotReserved() | Disputed() | CaseClosed():
                raise await hindrance(self.store, prepared, reserved, guard.most)
            case Attempt():
                await self.attempts.when_admitted(reserved, prepared)
                record = await self.store.requests.get(prepared.id)
                if record is None:
                    raise StoreUnavailable(
                        "The store was emptied; repeat the call with the same key.", reason="store_emptied"
                    )
                return await self._known(record, prepared.digest, repeated=False)
        return await self._known(reserved, prepared.digest)

    async def _check(self, declined: Refund, prepared: PreparedRefund) -> None:
        """Refuse what the state of the charge cannot change, before Amazon is asked. The script checks the rest."""
        if not ((case := await case_of(self.store, declined.retry_root or declined.refund_id)) and case.is_open):
            raise not_reissued(case)
        found = judge(declined, await self.store.charges.known(declined.charge_id), self.store.now())
        check_itself(found)
        if found and BUYER_MAY_BE_PAID in found.reasons:
            raise await hindrance(self.store, prepared, Disputed())

    def _guard(self, prepared: PreparedRefund, charge: Charge, ceiling: int, declined: Refund | None) -> Guard:
        """The guard for a new refund or a retry."""
        now = self.store.now()
        refunded = charge.refunded.minor_units if charge.refunded else 0
        if charge.has_unread("refundedAmount"):
            # An unknown amount counts as the whole charge.
            refunded = ceiling
        if declined is not None:
            return retry_guard(declined, now, ceiling, refunded, prepared.besides)
        return Guard(ceiling, refunded, self._since, self._since, prepared.besides)

    @property
    def _since(self) -> int | None:
        """The time (ms) from which a refund of the same amount has to be named; None: it never has to be."""
        return self.store.now() - self.same_amount_within if self.same_amount_within else None

    async def _known(self, record: RefundRequestRecord, digest: str, *, repeated: bool = True) -> Issued:
        """The progress of a recorded request; `repeated`: an earlier call made it.

        A retry is identified by the refund that it repeats, even if more is known about that refund by now.
        """
        if record.order.digest != digest and not record.order.retry_of:
            raise Conflict(
                "This Idempotency-Key was used with other values. Use a new key for another refund.",
                reason="idempotency_key_reused",
            )
        match record.state:
            case RequestState.DONE:
                refund = await self.store.refunds.get(record.refund_id)
                current = await current_refunds(self.store, [refund] if refund else [])
                return Issued(record, current[0] if current else None, repeated)
            case RequestState.REFUSED:
                raise refusal(record)
            case RequestState.UNCLEAR:
                raise RefundUnclear(
                    "The outcome of an attempt is unknown, so the refund may have been made. Repeat the "
                    "request under the same key (`receiver refund repeat`); if it stays unclear, look for the refund "
                    "in Seller Central before you use a new key, and settle the request (`receiver refund "
                    f"settle-request`). {record.detail}",
                    refund_request_id=record.order.id,
                    candidate=await self.store.requests.candidate_of(record),
                )
        return Issued(record, None, repeated)


def _with_reference(prepared: PreparedRefund, charge: Charge) -> PreparedRefund:
    """The refund with the charge's order number if the caller gave none."""
    if prepared.order_reference:
        return prepared
    return msgspec.structs.replace(prepared, order_reference=charge.merchant_reference_id)


def _refundable(charge: Charge, currency: str = "") -> Money:
    """The captured amount of a charge that can be refunded, in this currency if one is requested."""
    if charge.state != CAPTURED:
        raise Conflict(
            f"The charge is {charge.state}; only a captured charge can be refunded.", reason="charge_not_captured"
        )
    if charge.captured is None:
        raise AmazonOutcomeUnknown(
            "Amazon does not say how much of the charge was captured.", reason="amazon_unintelligible"
        )
    if currency not in ("", charge.captured.currency_code):
        raise BadRequest(
            f"The charge is in {charge.captured.currency_code}, not in {currency}.",
            reason="currency_mismatch",
        )
    return charge.captured
