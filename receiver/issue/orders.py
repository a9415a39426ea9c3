"""Verb. A refund request and a key → the prepared refund: the bytes that every attempt sends, and their identities.

Each retry of a declined refund is a generation with its own Idempotency-Key; the first generation uses the key that all
versions have used. The next generation begins only after the last one provably issued nothing, which is permanent. So
at most one is open at a time, and concurrent callers get the same one.
"""

from __future__ import annotations

import hashlib

import msgspec

from receiver.amazon.account import Account
from receiver.amazon.calls import create_refund
from receiver.errors import BadRequest
from receiver.ledger.charge import check_amount
from receiver.ledger.money import Money
from receiver.ledger.order_reference import searchable
from receiver.ledger.refund import Refund
from receiver.ledger.refund_request import NOBODY, Asked, PreparedRefund, RefundRequest
from receiver.store.account import AccountStore

LONGEST_KEY = 255


def prepare(
    account: Account,
    refund_request: RefundRequest,
    key: str = "",
    *,
    retry_of: str = "",
    retry_root: str = "",
    generation: int = 1,
    left: Money | None = None,
    asked: Asked = NOBODY,
) -> PreparedRefund:
    """Prepare a refund under the caller's key, or the retry of a declined refund, whose key is derived from the refund.

    `left` is the amount of a request for all that is left. `asked` is not part of the digest: the same key with
    different `besides` is the same request.

    Raises `BadRequest` for an invalid key, amount, id or soft descriptor.
    """
    if retry_of:
        key = _retry_key(retry_of, generation)
        request_id = _sha256(key)
    else:
        request_id = request_id_of(key)
    # Amazon's key: derived only from merchant, environment and the caller's key; no longer than Amazon allows.
    amazon_key = _sha256(f"{account.merchant_id}\n{account.environment}\n{key}")[:32]
    money = refund_request.money or left
    if money is None:
        raise BadRequest("The refund has no amount.", reason="bad_amount")
    check_amount(money)
    request = create_refund(
        account.endpoint, refund_request.charge_id, money, amazon_key, refund_request.soft_descriptor
    )
    values = searchable(refund_request.order_reference).encode()
    return PreparedRefund(
        id=request_id,
        digest=hashlib.sha256(request.body + values).hexdigest() if left is None else digest_of_full(refund_request),
        amazon_key=amazon_key,
        body=request.body,
        charge_id=refund_request.charge_id,
        money=money,
        order_reference=refund_request.order_reference,
        retry_of=retry_of,
        retry_root=retry_root,
        generation=generation,
        traceparent=asked.traceparent,
        issued_by=asked.by.token,
        issued_by_user=asked.by.user,
        http_request_id=asked.by.http_request_id,
        besides=tuple(dict.fromkeys(asked.besides)),
        full=left is not None,
    )


def retry_id(refund_id: str, generation: int) -> str:
    """The id of the request that is this attempt to reissue a declined refund."""
    return _sha256(_retry_key(refund_id, generation))


async def generation_of(store: AccountStore, declined: Refund) -> int:
    """The retry that is open, or that ended unclear or with a refund; else the next generation.

    Raises `StoreUnavailable`.
    """
    last = declined.retry_refused.generation if declined.retry_refused else 0
    generation = max(last, 1)
    while True:
        record = await store.requests.get(retry_id(declined.refund_id, generation))
        # Records are kept for 400 days; the declined refund stores their number for its whole lifetime.
        over = generation <= last if record is None else record.proves_nothing_issued
        if not over:
            return generation
        generation += 1


def _retry_key(refund_id: str, generation: int) -> str:
    # The control character keeps this key distinct from every caller's key.
    return f"\x00retry\n{refund_id}" + (f"\n{generation}" if generation > 1 else "")


def request_id_of(key: str) -> str:
    """The id of the request with this key of a caller. Raises `BadRequest`."""
    if not (1 <= len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise BadRequest("Idempotency-Key has 1 to 255 printable ASCII characters.", reason="bad_idempotency_key")
    return _sha256(key)


def digest_of_full(refund_request: RefundRequest) -> str:
    """The digest of a request for all that is left. It has no amount: a repetition is the same request, whatever is
    left by then."""
    values = [refund_request.charge_id, refund_request.soft_descriptor, searchable(refund_request.order_reference)]
    return hashlib.sha256(b"full" + msgspec.json.encode(values)).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
