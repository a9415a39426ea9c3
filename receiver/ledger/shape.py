"""Pure. The one JSON shape of a refund, shared by events and the HTTP API: Amazon's names first, then ours.
And that of a request to issue one.

What Amazon did not tell is `null`, never a missing key. Texts from outside are made printable and bounded here, so
that whatever Amazon sends, the JSON can be encoded and stays small.
"""

from __future__ import annotations

from typing import Any

from receiver.ledger.refund import Money, Refund, Revision, format_basic, format_rfc3339, is_final
from receiver.ledger.request import Record

TEXT_LIMIT = 128
"""Characters kept of a code or an id. The longest that Amazon documents are far shorter."""
DESCRIPTION_LIMIT = 1024
"""Characters kept of `reasonDescription`, for which Amazon gives no bound."""


def tidy(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text with every unprintable character as a space, trimmed, and cut with an ellipsis to `limit` characters.

    Unprintable are control and format characters, and the halves of a surrogate pair that JSON can smuggle in and
    UTF-8 cannot encode. Doing it twice changes nothing.
    """
    if len(text) <= limit and text.isprintable():
        return text.strip()
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * limit]).strip()
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


def amazon_time(ms: int) -> str:
    """Amazon's basic form, `20190714T155300Z`; with milliseconds, `20190714T155300.250Z`, only where there are some.

    `parse_time` reads both back without loss.
    """
    whole = format_basic(ms)
    return f"{whole[:-1]}.{ms % 1000:03d}Z" if ms % 1000 else whole


def money_json(money: Money | None) -> dict[str, str] | None:
    """`{amount, currencyCode}`: the amount as text, with as many decimals as the currency has."""
    return None if money is None else {"amount": money.text, "currencyCode": money.currency_code}


def refund_json(refund: Refund) -> dict[str, Any]:
    """The JSON of a refund. The keys, in this order:

    | key | value |
    |---|---|
    | refundId, chargeId | text; chargeId may be null |
    | refundAmount | {amount: text, currencyCode: text}, or null |
    | softDescriptor | text or null |
    | creationTimestamp | Amazon's basic form, or null |
    | statusDetails | {state, reasonCode or null, reasonDescription or null, lastUpdatedTimestamp} |
    | releaseEnvironment | Sandbox or Live, as Amazon says it, or null |
    | account | our name of the merchant's account |
    | revision | counts our writes from 1: whoever holds a greater one may drop this |
    | final | whether the state is Refunded or Declined |
    | conflict | whether Amazon has told two different final states |
    | orderReference, refundType | text or null |
    | retryable | of a declined refund: whether the charge admits another try; null while that is not known |
    | retryOf, retryRoot, retriedBy | refund ids or null: the refund repeated, the first of the chain, the repetition |
    | firstSeenAt, changedAt | RFC 3339, UTC, milliseconds |
    | source | who made us look: notification, poll, refresh, create |
    """
    return {
        "refundId": tidy(refund.refund_id),
        "chargeId": tidy(refund.charge_id) or None,
        "refundAmount": money_json(refund.amount),
        "softDescriptor": tidy(refund.soft_descriptor) or None,
        "creationTimestamp": amazon_time(refund.created_at) if refund.created_at else None,
        "statusDetails": {
            "state": tidy(refund.state),
            "reasonCode": tidy(refund.reason_code) or None,
            "reasonDescription": tidy(refund.reason_description, DESCRIPTION_LIMIT) or None,
            "lastUpdatedTimestamp": amazon_time(refund.updated_at),
        },
        "releaseEnvironment": tidy(refund.environment) or None,
        "account": tidy(refund.account),
        "revision": refund.revision,
        "final": is_final(refund.state),
        "conflict": refund.conflict,
        "orderReference": tidy(refund.order_reference) or None,
        "refundType": tidy(refund.refund_type) or None,
        "retryable": {"yes": True, "no": False}.get(refund.retryable),
        "retryOf": refund.retry_of or None,
        "retryRoot": refund.retry_root or None,
        "retriedBy": refund.retried_by or None,
        "firstSeenAt": format_rfc3339(refund.first_seen_at),
        "changedAt": format_rfc3339(refund.changed_at),
        "source": str(refund.source),
    }


def revision_json(revision: Revision) -> dict[str, Any]:
    """The JSON of one line of a refund's history, with the same names, forms and order as `refund_json`.

    Keys: statusDetails {state, reasonCode or null, lastUpdatedTimestamp}, revision, final, conflict, changedAt, source.
    """
    return {
        "statusDetails": {
            "state": tidy(revision.state),
            "reasonCode": tidy(revision.reason_code) or None,
            "lastUpdatedTimestamp": amazon_time(revision.updated_at),
        },
        "revision": revision.revision,
        "final": is_final(revision.state),
        "conflict": revision.conflict,
        "changedAt": format_rfc3339(revision.at),
        "source": str(revision.source),
    }


def request_json(account: str, record: Record, candidate: str = "") -> dict[str, Any]:
    """The JSON of a request to issue a refund. The keys, in this order:

    | key | value |
    |---|---|
    | refundRequestId | SHA-256 (hex) of the caller's Idempotency-Key |
    | account, state | our name of the account; reserved, done, refused or unclear |
    | chargeId, refundAmount, orderReference, retryOf | what was asked for; the last two may be null |
    | refundId | the refund that it became, or null |
    | candidateRefundId | of an unclear request: the one refund that it may have made, for a person to check; or null |
    | tries | how often it was sent |
    | mayHaveReachedAmazon | whether a try has ended without a whole answer |
    | lastError | our word for how the last try failed, or null |
    | detail | the last thing that was said of it, or null |
    | amazon | {status, reasonCode, requestId} of Amazon's refusal, or null |
    | settledBy | the name of the token with which a person settled it, or null |
    | createdAt, changedAt | RFC 3339, UTC, milliseconds; null where that is not known |
    """
    order = record.order
    refused = {
        "status": record.amazon_status,
        "reasonCode": tidy(record.reason_code) or None,
        "requestId": tidy(record.request_id) or None,
    }
    return {
        "refundRequestId": order.id,
        "account": account,
        "state": str(record.state),
        "chargeId": order.charge_id,
        "refundAmount": money_json(order.money),
        "orderReference": tidy(order.order_reference) or None,
        "retryOf": order.retry_of or None,
        "refundId": record.refund_id or None,
        "candidateRefundId": candidate or None,
        "tries": record.tries,
        "mayHaveReachedAmazon": record.unknown,
        "lastError": record.last_error or None,
        "detail": tidy(record.detail, DESCRIPTION_LIMIT) or None,
        "amazon": refused if record.amazon_status else None,
        "settledBy": record.settled_by or None,
        "createdAt": format_rfc3339(record.created_at) if record.created_at else None,
        "changedAt": format_rfc3339(record.changed_at) if record.changed_at else None,
    }
