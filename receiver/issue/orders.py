"""Verb. A refund request and a key → the prepared refund: the bytes that every attempt sends, and their identities."""

from __future__ import annotations

import hashlib

from receiver.amazon.account import Account
from receiver.amazon.calls import create_refund
from receiver.errors import BadRequest
from receiver.ledger.charge import check_amount
from receiver.ledger.order_reference import searchable
from receiver.ledger.refund_request import NOBODY, Asked, PreparedRefund, RefundRequest

LONGEST_KEY = 255


def prepare(
    account: Account,
    refund_request: RefundRequest,
    key: str = "",
    *,
    retry_of: str = "",
    retry_root: str = "",
    generation: int = 1,
    asked: Asked = NOBODY,
) -> PreparedRefund:
    """Prepare a refund under the caller's key, or the retry of a declined refund, whose key is derived from the refund.

    `asked` is not part of the digest: the same key with different `besides` is the same request.

    Raises `BadRequest` for an invalid key, amount, id or soft descriptor.
    """
    if retry_of:
        # The control character keeps this key distinct from every caller's key.
        key = f"\x00retry\n{retry_of}" + (f"\n{generation}" if generation > 1 else "")
    elif not (1 <= len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise BadRequest("Idempotency-Key has 1 to 255 printable ASCII characters.", reason="bad_idempotency_key")
    # Amazon's key: derived only from merchant, environment and the caller's key; no longer than Amazon allows.
    amazon_key = _sha256(f"{account.merchant_id}\n{account.environment}\n{key}")[:32]
    check_amount(refund_request.money)
    request = create_refund(
        account.endpoint, refund_request.charge_id, refund_request.money, amazon_key, refund_request.soft_descriptor
    )
    return PreparedRefund(
        id=_sha256(key),
        digest=hashlib.sha256(request.body + searchable(refund_request.order_reference).encode()).hexdigest(),
        amazon_key=amazon_key,
        body=request.body,
        charge_id=refund_request.charge_id,
        money=refund_request.money,
        order_reference=refund_request.order_reference,
        retry_of=retry_of,
        retry_root=retry_root,
        generation=generation,
        traceparent=asked.traceparent,
        issued_by=asked.by.token,
        issued_by_user=asked.by.user,
        besides=tuple(dict.fromkeys(asked.besides)),
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
