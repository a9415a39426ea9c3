"""Edge: Redis. Encodes a refund as a flat hash and each revision as one line, and decodes them.

Field names are short because every refund stores them. Times are ms; empty fields are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from receiver.ledger.money import Money
from receiver.ledger.refund import How, Refund, Resolution, RetryRefused, Revision

TEXTS = {
    "state": "state",
    "reason": "reason_code",
    "description": "reason_description",
    "charge": "charge_id",
    "descriptor": "soft_descriptor",
    "environment": "environment",
    "order": "order_reference",
    "type": "refund_type",
    "region": "region",
    "retryable": "retryable",
    "retry_of": "retry_of",
    "retry_root": "retry_root",
    "retried_by": "retried_by",
    "issued_by": "issued_by",
    "issued_by_user": "issued_by_user",
}
NUMBERS = {
    "revision": "revision",
    "updated": "updated_at",
    "created": "created_at",
    "seen": "first_seen_at",
    "changed": "changed_at",
}
ABSENT = {"state": "", "revision": 0, "updated_at": 0, "first_seen_at": 0, "changed_at": 0}
"""What absent fields mean that have no default in `Refund`."""
CURRENCY = re.compile(r"[A-Z]{3}")
MOST_NUMBER = 253_402_300_800_000
"""ms: the end of the year 9999. Times and revisions are lower."""
FAMILY = "amazonpay.refund."
"""The common prefix of all refund events' types, left out in storage. A value over 64 bytes more than doubles the
memory of the whole hash (Redis's hash-max-listpack-value)."""
CASE = {
    "case_how": "how",
    "case_by": "by",
    "case_user": "user",
    "case_note": "note",
    "case_refund": "refund_id",
}
"""The case of a declined refund. It is closed if it has `case_how` (`store/requests/reserve.lua` looks at that)."""
SPACE = re.compile(r"\s")
FLAGS = {"conflict": "conflict", "read": "charge_read", "backfill": "backfill"}
LISTS = ("finals", "unread", "emitted")
READ = {
    name.encode(): attribute
    for name, attribute in (
        *(TEXTS | NUMBERS | FLAGS).items(),
        ("by", "source"),
        *((name, name) for name in (*LISTS, "amount", "currency", "retry_refused", "case_at", "case_paid", *CASE)),
    )
}
"""Field → attribute of `Refund`, or the field's own name."""


class Line(Revision, frozen=True, array_like=True):
    """A stored revision: a JSON array of its fields in order. Fields may be added at the end."""


def to_hash(refund: Refund) -> list[str]:
    """The arguments of HSET: field, value, field, value, …"""
    fields = {name: getattr(refund, attribute) for name, attribute in TEXTS.items()}
    fields |= {name: str(getattr(refund, attribute) or "") for name, attribute in NUMBERS.items()}
    fields["finals"] = ",".join(refund.finals)
    fields["unread"] = ",".join(refund.unread)
    fields["emitted"] = ",".join(kind.removeprefix(FAMILY) for kind in refund.emitted)
    fields["by"] = refund.source
    fields |= {name: "1" if getattr(refund, attribute) else "" for name, attribute in FLAGS.items()}
    if refund.retry_refused is not None:
        fields["retry_refused"] = msgspec.json.encode(refund.retry_refused).decode()
    if refund.resolution is not None:
        fields |= case_fields(refund.resolution)
    if refund.amount is not None:
        fields |= {"amount": str(refund.amount.amount), "currency": refund.amount.currency_code}
    return [text for name, value in fields.items() if value for text in (name, str(value))]


def case_fields(case: Resolution) -> dict[str, str]:
    """The fields of a case in the hash of its refund."""
    return {
        "case_at": str(case.at),
        "case_paid": ",".join(case.paid),
        **{name: getattr(case, attribute) or "" for name, attribute in CASE.items()},
    }


def from_hash(account: str, refund_id: str, raw: Mapping[bytes, bytes]) -> Refund | None:
    """The refund in the hash; None for an empty hash."""
    if not raw:
        return None
    fields: dict[Any, Any] = {**ABSENT, "account": account, "refund_id": refund_id}
    fields |= zip(map(READ.get, raw), map(bytes.decode, raw.values()), strict=True)
    fields.pop(None, None)  # what this version does not know
    for name in LISTS:
        fields[name] = _list(fields.get(name, ""))
    fields["emitted"] = [kind if kind.startswith(FAMILY) else FAMILY + kind for kind in fields["emitted"]]
    if "amount" in fields:
        fields["amount"] = amount = Money(Decimal(fields["amount"]), fields["currency"])
        if not (amount.amount.is_finite() and CURRENCY.fullmatch(amount.currency_code)):
            raise ValueError("The amount of the refund is invalid.")
    if "retry_refused" in fields:
        fields["retry_refused"] = _refused(fields["retry_refused"])
    if "case_at" in fields:
        fields["resolution"] = _resolution(fields)
    refund = msgspec.convert(fields, Refund, strict=False)
    numbers = (refund.revision, refund.updated_at, refund.created_at, refund.first_seen_at, refund.changed_at)
    if not 0 <= min(numbers) <= max(numbers) < MOST_NUMBER:
        raise ValueError("A number of the refund is out of range.")
    return refund


def open_details(refund: Refund) -> str:
    """`<open since, ms> <minor units or ?> <currency or -> <reason code or ->`; empty if it has no open case."""
    case = refund.resolution
    if case is None or not case.is_open:
        return ""
    amount = refund.amount
    minor, currency = (amount.minor_units, amount.currency_code) if amount else ("?", "-")
    return f"{case.at} {minor} {currency} {re.sub(SPACE, '_', refund.reason_code) or '-'}"


def to_line(refund: Refund) -> bytes:
    """The refund's current revision as a line of its history."""
    line = Line(
        revision=refund.revision,
        at=refund.changed_at,
        state=refund.state,
        updated_at=refund.updated_at,
        source=refund.source,
        reason_code=refund.reason_code,
        conflict=refund.conflict,
        issued_by=refund.issued_by,
        issued_by_user=refund.issued_by_user,
        resolution=refund.resolution,
    )
    return msgspec.json.encode(line)


def from_line(raw: bytes) -> Revision:
    """The revision in the line. The first versions wrote JSON objects. Raises `msgspec.MsgspecError`."""
    if raw.startswith(b"{"):
        return msgspec.json.decode(raw, type=Revision)
    return Revision(**msgspec.structs.asdict(msgspec.json.decode(raw, type=Line)))


def _refused(text: str) -> RetryRefused | None:
    try:
        return msgspec.json.decode(text, type=RetryRefused) if text else None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError("The refusal of a retry is unreadable.") from error


def _resolution(fields: Mapping[str, str]) -> Resolution:
    if not 0 <= int(fields["case_at"]) < MOST_NUMBER:
        raise ValueError("The time of the case is out of range.")
    texts = {attribute: fields.get(name, "") for name, attribute in CASE.items() if attribute != "how"}
    how = How(fields["case_how"]) if "case_how" in fields else None
    return Resolution(at=int(fields["case_at"]), how=how, paid=_list(fields.get("case_paid", "")), **texts)


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
