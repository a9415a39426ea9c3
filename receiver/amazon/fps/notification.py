"""Pure. The status notification of Flexible Payments (retired on 1 June 2015): a form that says a transaction changed.

It is only ever a hint. Its signature (RSA-SHA1, or the VerifySignature action) depends on Amazon's Flexible Payments
hosts, which no longer exist, so the sender of such a form cannot be proven.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import unquote_to_bytes

from receiver.amazon.fps.calls import TRANSACTION_ID
from receiver.errors import Malformed
from receiver.ledger.refund import REFUND_ID

MAX_BODY: Final = 16 * 1024
"""Bytes. Real ones stay below 2 KiB, including a postal address and a signature."""
MAX_FIELDS: Final = 100

REFERENCES: Final = ("refundtransactionreference", "callerreference", "referenceid")
"""Fields that can hold the merchant's reference, in order: FPS, then Simple Pay."""

REFUND_CODES: Final = frozenset({"RS", "RF"})
"""Simple Pay's status codes for a refund that succeeded or failed. Some of its forms have no `operation`."""

_FIELD = re.compile(rb"(?:[A-Za-z0-9*._~+-]|%[0-9A-Fa-f]{2})+=(?:[!-$'-~]|%[0-9A-Fa-f]{2})*")
_NAME = re.compile(r"[A-Za-z0-9._]{1,64}")
_WORD = re.compile(r"[A-Za-z]{1,32}")


@dataclass(frozen=True, slots=True)
class StatusNotification:
    """The form's content. For operations other than refunds, a malformed reference or transaction is empty."""

    reference: str
    """For a refund always a `REFUND_ID`: the refund's id in the ledger."""
    transaction_id: str
    """Empty if missing."""
    status: str
    """As sent: SUCCESS, PENDING, FAILURE, …, or a Simple Pay code such as RS."""
    operation: str
    """In capitals: PAY, REFUND, SETTLE, …; empty if missing."""

    @property
    def is_refund(self) -> bool:
        return self.operation == "REFUND" or (not self.operation and self.status in REFUND_CODES)


def read_status_notification(body: bytes) -> StatusNotification:
    """Parse the body of the POST, `application/x-www-form-urlencoded` in UTF-8.

    Amazon spells the names in several ways, so their case is ignored. Raises only `Malformed`
    (`notification_unreadable`), for any body: over 16 KiB or 100 fields, an empty field, a percent sign without two hex
    digits, a byte that is invalid in a form, another encoding than UTF-8, a duplicate name.
    """
    fields = _read_form(body)
    status = fields.get("status", "")
    operation = fields.get("operation", "").upper()
    if not _WORD.fullmatch(status):
        _unreadable("status is missing or malformed")
    if operation and not _WORD.fullmatch(operation):
        _unreadable("operation is malformed")
    reference = next((fields[name] for name in REFERENCES if fields.get(name)), "")
    transaction_id = fields.get("transactionid", "")
    found = StatusNotification(reference, transaction_id, status, operation)
    if found.is_refund:
        if not REFUND_ID.fullmatch(reference):
            _unreadable("it names no refund")
        if transaction_id and not TRANSACTION_ID.fullmatch(transaction_id):
            _unreadable("transactionId is malformed")
        return found
    return StatusNotification(
        reference if REFUND_ID.fullmatch(reference) else "",
        transaction_id if TRANSACTION_ID.fullmatch(transaction_id) else "",
        status,
        operation,
    )


def _read_form(body: bytes) -> dict[str, str]:
    """Lower-case name → value."""
    if len(body) > MAX_BODY:
        _unreadable("it is too long")
    pairs = body.split(b"&")
    if len(pairs) > MAX_FIELDS:
        _unreadable("it has too many fields")
    fields: dict[str, str] = {}
    for pair in pairs:
        if not _FIELD.fullmatch(pair):
            _unreadable("it is not a form")
        try:
            name, value = (unquote_to_bytes(part.replace(b"+", b" ")).decode() for part in pair.split(b"=", 1))
        except UnicodeDecodeError:
            _unreadable("it is not UTF-8")
        if not _NAME.fullmatch(name):
            _unreadable("a name is malformed")
        if name.lower() in fields:
            _unreadable("one name comes twice")
        fields[name.lower()] = value
    return fields


def _unreadable(why: str) -> NoReturn:
    raise Malformed(
        f"The body is not a status notification of Flexible Payments: {why}.", reason="notification_unreadable"
    )
