"""Verb. A refund request → Amazon → the ledger, and never twice.

What is sent is written down first, byte for byte, under one key of Amazon's; every try sends those bytes under that
key, and Amazon answers a repetition with what it did before. Whoever dies in the middle, a worker goes on when the
lease ends. Once a try has ended without a whole answer, only a 2xx settles the request by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec
import structlog

from receiver.accounts import Call
from receiver.amazonpay.calls import create_refund, post_refund, read_refund
from receiver.ask import Asker
from receiver.errors import (
    AmazonError,
    AmazonRefused,
    AmazonThrottled,
    AmazonUnknown,
    BadRequest,
    Conflict,
    NotFound,
    StoreUnavailable,
)
from receiver.exchange import Response
from receiver.ledger.allowance import CAPTURED, OVER, Charge, check_amount, exceeded, most
from receiver.ledger.lifecycle import Facts
from receiver.ledger.refund import FPS, Money, Observation, Refund, Source, State
from receiver.ledger.request import Order, Record, RequestState, Wish
from receiver.settle import Settler
from receiver.store import Store
from receiver.store.requests import Attempt, Exceeded, Reserved

log = structlog.get_logger()

IDLE = 1.0
PATIENCE = 3.0
"""Seconds that a caller waits for a token of the throttle; after that a worker goes on, and the caller gets 202."""
RETRY_FIRST, RETRY_MOST = 5_000, 900_000
NEVER_SENT = frozenset(f"amazon_{reason}" for reason in ("connect_failed", "dns_failed", "tls_failed", "bad_url"))
"""Nothing of these tries can have reached Amazon's service."""
KEY = 255


@dataclass(frozen=True, slots=True)
class Issued:
    """What became of a request so far: the refund, or None while Amazon has not answered."""

    record: Record
    refund: Refund | None


@dataclass(slots=True)
class Issuer:
    """Issues refunds of one account. `nonce` gives a fresh random word; `over` is what may be given over a capture."""

    asker: Asker
    store: Store
    settler: Settler
    chance: Callable[[], float]
    nonce: Callable[[], str]
    over: Mapping[str, int] = field(default_factory=lambda: dict(OVER))
    lease: float = 30.0
    concurrency: int = 4

    @property
    def _name(self) -> str:
        return self.asker.account.name

    async def create(self, wish: Wish, key: str) -> Issued:
        """Issue a refund under the caller's key (1 to 255 printable ASCII characters), or say what became of it.

        Raises `BadRequest`, `Conflict` (another use of the key; not captured; over the allowance; unclear),
        `AmazonRefused` with Amazon's reason code, other `AmazonError`s where the charge cannot be read (then nothing is
        written), or `StoreUnavailable`: asking again with the same key is always safe.
        """
        if not (1 <= len(key) <= KEY and key.isascii() and key.isprintable()):
            raise BadRequest("Idempotency-Key has 1 to 255 printable ASCII characters.", reason="bad_idempotency_key")
        return await self._issue(self._order(wish, key))

    async def retry(self, refund_id: str) -> Issued:
        """Issue a declined refund again, at most once however many ask. Raises as `create` does, and `NotFound`.

        With Amazon's default as soft descriptor: what Amazon tells of the declined one's is not what was sent. There
        is one key for all retries of a refund: where Amazon refuses it, another try is the caller's, by `create`.
        """
        declined = await self.store.refund(self._name, refund_id)
        if declined is None:
            raise NotFound("There is no such refund.", reason="no_such_refund")
        if declined.state != State.DECLINED or declined.amount is None or not declined.charge_id:
            raise Conflict(
                f"Only a declined refund can be retried; this one is {declined.state}.", reason="not_declined"
            )
        if declined.refund_type == FPS:
            raise Conflict("This is a refund of Flexible Payments: issue it there.", reason="not_amazon_pay")
        if declined.conflict:
            raise Conflict(
                "Amazon has told two different final states of this refund: the buyer may have the money.",
                reason="in_conflict",
            )
        wish = Wish(declined.charge_id, declined.amount, order_reference=declined.order_reference)
        # A control character keeps this key apart from every key of a caller.
        order = self._order(wish, f"\x00retry\n{refund_id}")
        root = declined.retry_root or refund_id
        return await self._issue(msgspec.structs.replace(order, retry_of=refund_id, retry_root=root))

    def _order(self, wish: Wish, key: str) -> Order:
        account = self.asker.account
        # Amazon's key: the same for the same caller's key, whoever computes it, and no longer than Amazon takes.
        amazon_key = _sha256(f"{account.merchant_id}\n{account.environment}\n{key}")[:32]
        check_amount(wish.money)
        request = create_refund(account.endpoint, wish.charge_id, wish.money, amazon_key, wish.soft_descriptor)
        return Order(
            id=_sha256(key),
            digest=hashlib.sha256(request.body + wish.order_reference.encode()).hexdigest(),
            amazon_key=amazon_key,
            body=request.body,
            charge_id=wish.charge_id,
            money=wish.money,
            order_reference=wish.order_reference,
        )

    async def _issue(self, order: Order) -> Issued:
        known = await self.store.request(self._name, order.id)
        if known is not None:
            return await self._known(known, order)
        charge = await self.asker.charge(order.charge_id, fresh=True)
        ceiling = most(self._refundable(charge, order), self.over)
        if not order.order_reference:
            order = msgspec.structs.replace(order, order_reference=charge.merchant_reference_id)
        reserved = await self.store.reserve(
            self._name,
            order,
            owner=self.nonce(),
            most=ceiling,
            refunded=charge.refunded.minor_units if charge.refunded else 0,
            lease=int(self.lease * 1000),
        )
        match reserved:
            case Exceeded(spent=spent):
                raise exceeded(order.money, ceiling, spent)
            case Reserved(token=token):
                await self._first_try(Attempt(order.id, token), order)
                record = await self.store.request(self._name, order.id)
                return await self._known(record or Record(order=order), order)
        return await self._known(reserved, order)

    def _refundable(self, charge: Charge, order: Order) -> Money:
        """The captured amount of a charge that can be refunded in the order's currency."""
        if charge.state != CAPTURED or charge.captured is None:
            raise Conflict(
                f"The charge is {charge.state}; only a captured charge can be refunded.", reason="charge_not_captured"
            )
        if charge.captured.currency_code != order.money.currency_code:
            raise BadRequest(
                f"The charge is in {charge.captured.currency_code}, not in {order.money.currency_code}.",
                reason="currency_mismatch",
            )
        return charge.captured

    async def _known(self, record: Record, order: Order) -> Issued:
        """What a request that is written down has come to."""
        if record.order.digest != order.digest:
            raise Conflict(
                "This Idempotency-Key was used with other values. Use a new key for another refund.",
                reason="idempotency_key_reused",
            )
        match record.state:
            case RequestState.DONE:
                return Issued(record, await self.store.refund(self._name, record.refund_id))
            case RequestState.REFUSED:
                raise AmazonRefused(
                    record.detail,
                    reason_code=record.reason_code,
                    amazon_status=record.amazon_status or None,
                    request_id=record.request_id or None,
                )
            case RequestState.UNCLEAR:
                raise Conflict(
                    "Amazon refused this after a try whose end is not known, so the refund may have been made. Look "
                    f"for it in Seller Central before you use a new key. Amazon said: {record.detail}",
                    reason="refund_unclear",
                )
        return Issued(record, None)

    async def _first_try(self, attempt: Attempt, order: Order) -> None:
        if await self.asker.token(Call.CREATE_REFUND, PATIENCE):
            await self._try(attempt, order)
            return
        at = self.store.now() + 1_000
        detail = "Waiting for Amazon's throttle."
        await self.store.retry_request(self._name, attempt, order, at, unknown=None, detail=detail)

    async def _try(self, attempt: Attempt, order: Order) -> None:
        """Send the stored bytes once, and write down what became of it."""
        if not await self.store.begin_try(self._name, attempt):
            return
        request = post_refund(self.asker.account.endpoint, order.body, order.amazon_key)
        try:
            seen = await self.asker.ask(Call.CREATE_REFUND, request, lambda response: self._read(response, order))
        except AmazonThrottled as error:
            await self._again(attempt, order, error, unknown=False)
        except AmazonUnknown as error:
            await self._again(attempt, order, error, unknown=error.reason not in NEVER_SENT)
        except AmazonRefused as error:
            await self._refused(attempt, order, error)
        else:
            await self._done(attempt, order, seen)

    def _read(self, response: Response, order: Order) -> Observation:
        """The refund in a 2xx, if it is the one that was asked for; anything else leaves the end of the try unknown."""
        seen = read_refund(response)
        self.asker.check_environment(seen.environment)
        if seen.charge_id not in ("", order.charge_id):
            raise AmazonUnknown("Amazon's answer is about another charge.", reason="amazon_wrong_charge")
        if seen.amount not in (None, order.money):
            raise AmazonUnknown(f"Amazon's answer is about {seen.amount}.", reason="amazon_wrong_amount")
        return msgspec.structs.replace(seen, charge_id=order.charge_id, amount=order.money)

    async def _done(self, attempt: Attempt, order: Order, seen: Observation) -> None:
        """The refund enters the ledger first: until the reservation is swapped for it, both count."""
        facts: Facts = {
            "charge_read": True,
            "order_reference": order.order_reference,
            "retry_of": order.retry_of,
            "retry_root": order.retry_root,
        }
        learn = partial(self.asker.facts_in_time, besides=f"request:{order.id}")
        settled = await self.settler.settle(self.asker.account, seen, source=Source.CREATE, facts=facts, learn=learn)
        await self.store.done_request(self._name, attempt, order, seen.refund_id, settled.change.refund.state)
        if order.retry_of:
            await self.settler.annotate(self._name, order.retry_of, {"retried_by": seen.refund_id})
        log.info("refund.issued", account=self._name, refund_id=seen.refund_id, charge_id=order.charge_id)

    async def _again(self, attempt: Attempt, order: Order, error: AmazonError, *, unknown: bool) -> None:
        record = await self.store.request(self._name, order.id)
        wait = min(RETRY_FIRST * 2 ** min(record.tries if record else 0, 20), RETRY_MOST)
        wait = max(int(wait * (0.5 + self.chance() / 2)), (error.retry_after or 0) * 1000)
        told = {"reason": error.reason, "amazon_status": error.amazon_status, "request_id": error.request_id}
        log.warning("refund.not_issued_yet", account=self._name, charge_id=order.charge_id, again_in_ms=wait, **told)
        at = self.store.now() + wait
        await self.store.retry_request(self._name, attempt, order, at, unknown=unknown, detail=error.detail)

    async def _refused(self, attempt: Attempt, order: Order, error: AmazonRefused) -> None:
        fields = {
            "reason_code": error.reason_code,
            "detail": error.detail,
            "amazon_status": str(error.amazon_status or 0),
            "request_id": error.request_id or "",
        }
        state = await self.store.refuse_request(self._name, attempt, order, fields)
        line = log.error if state is RequestState.UNCLEAR else log.warning
        line(
            "refund.unclear" if state is RequestState.UNCLEAR else "refund.refused",
            account=self._name,
            charge_id=order.charge_id,
            reason_code=error.reason_code,
            amazon_status=error.amazon_status,
            request_id=error.request_id,
        )

    async def run(self) -> None:
        """Finish what others began: requests whose lease has run out, or whose next try has come. Until cancelled."""
        while True:
            wait = await self._round()
            if wait:
                await self.store.changed(self._name, min(wait, IDLE))

    async def _round(self) -> float:
        try:
            claimed = await self.store.claim_requests(self._name, lease=int(self.lease * 1000), limit=self.concurrency)
            await asyncio.gather(*(self._work(attempt) for attempt in claimed.attempts))
        except StoreUnavailable as error:
            log.warning("issue.store_unavailable", account=self._name, reason=error.reason)
            return IDLE
        return IDLE if claimed.wait is None else claimed.wait / 1000

    async def _work(self, attempt: Attempt) -> None:
        """One claimed request. Whatever is wrong with it, the others go on, and it comes round again."""
        try:
            await self._go_on(attempt)
        except StoreUnavailable as error:
            log.warning("issue.not_settled", account=self._name, reason=error.reason)
        except Exception:
            log.exception("issue.failed", account=self._name, request=attempt.id)

    async def _go_on(self, attempt: Attempt) -> None:
        record = await self.store.request(self._name, attempt.id)
        if record is None or record.state is not RequestState.RESERVED:
            await self.store.release_request(self._name, attempt)
            return
        await self._first_try(attempt, record.order)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
