"""Edge: Redis. A refund as the flat fields of a hash, and back.

Names are short because every refund pays for them. Times are ms; what is empty is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from receiver.ledger.refund import Money, Refund, Source

TEXTS = {
    "state": "state",
    "reason": "reason_code",
    "description": "reason_description",
    "charge": "charge_id",
    "descriptor": "soft_descriptor",
    "environment": "environment",
    "order": "order_reference",
    "type": "refund_type",
    "retryable": "retryable",
    "retry_of": "retry_of",
    "retry_root": "retry_root",
    "retried_by": "retried_by",
}
NUMBERS = {
    "revision": "revision",
    "updated": "updated_at",
    "created": "created_at",
    "seen": "first_seen_at",
    "changed": "changed_at",
}
LISTS = {"finals": "finals", "emitted": "emitted"}
FLAGS = {"conflict": "conflict", "read": "charge_read"}


def to_hash(refund: Refund) -> list[str]:
    """Field, value, field, value, … as HSET takes them."""
    fields = {name: getattr(refund, attribute) for name, attribute in TEXTS.items()}
    fields |= {name: str(getattr(refund, attribute) or "") for name, attribute in NUMBERS.items()}
    fields |= {name: ",".join(getattr(refund, attribute)) for name, attribute in LISTS.items()}
    fields["by"] = refund.source
    fields |= {name: "1" if getattr(refund, attribute) else "" for name, attribute in FLAGS.items()}
    if refund.amount is not None:
        fields |= {"amount": str(refund.amount.amount), "currency": refund.amount.currency_code}
    return [text for name, value in fields.items() if value for text in (name, str(value))]


def from_hash(account: str, refund_id: str, raw: Mapping[bytes, bytes]) -> Refund | None:
    """The refund that the hash holds; None for an empty hash."""
    if not raw:
        return None
    fields = {name.decode(): value.decode() for name, value in raw.items()}
    more: dict[str, object] = {attribute: fields.get(name, "") for name, attribute in TEXTS.items()}
    more |= {attribute: int(fields.get(name, "0")) for name, attribute in NUMBERS.items()}
    more |= {attribute: tuple(filter(None, fields.get(name, "").split(","))) for name, attribute in LISTS.items()}
    more |= {attribute: name in fields for name, attribute in FLAGS.items()}
    amount = Money(Decimal(fields["amount"]), fields["currency"]) if "amount" in fields else None
    return Refund(
        account=account,
        refund_id=refund_id,
        amount=amount,
        source=Source(fields["by"]),
        **more,  # type: ignore[arg-type]
    )
