"""Pure. The status notification of Flexible Payments (retired on 1 June 2015): a form that says a transaction changed.

It is a hint and never more. Its signature (RSA-SHA1, or the VerifySignature action) leads to Amazon's hosts for
Flexible Payments, which are gone: nothing proves any more who sent such a form.
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
"""Bytes. With a postal address and a signature real ones stay below 2 KiB."""
MAX_FIELDS: Final = 100

REFERENCES: Final = ("refundtransactionreference", "callerreference", "referenceid")
"""Where the merchant's reference stands, the first that is there: FPS, then Simple Pay."""

REFUND_CODES: Final = frozenset({"RS", "RF"})
"""Simple Pay's status codes for a refund that succeeded or failed; `operation` is missing in some of its forms."""

_FIELD = re.compile(rb"(?:[A-Za-z0-9*._~+-]|%[0-9A-Fa-f]{2})+=(?:[!-$'-~]|%[0-9A-Fa-f]{2})*")
_NAME = re.compile(r"[A-Za-z0-9._]{1,64}")
_WORD = re.compile(r"[A-Za-z]{1,32}")


@dataclass(frozen=True, slots=True)
class StatusNotification:
    """What the form says. Of other operations than refunds, reference and transaction are empty where they are odd."""

    reference: str
    """Of a refund always `REFUND_ID`: the refund's id in the ledger."""
    transaction_id: str
    """Empty where it is missing."""
    status: str
    """As sent: SUCCESS, PENDING, FAILURE, …, or a code of Simple Pay's such as RS."""
    operation: str
    """In capitals: PAY, REFUND, SETTLE, …; empty where it is missing."""

    @property
    def is_refund(self) -> bool:
        """Whether it is about a refund."""
        return self.operation == "REFUND" or (not self.operation and self.status in REFUND_CODES)


def read_status_notification(body: bytes) -> StatusNotification:
    """Read the body of the POST, `application/x-www-form-urlencoded` in UTF-8.

    Amazon spells the names in several ways, so their case does not count. Raises `Malformed`
    (`notification_unreadable`), and nothing else, whatever the body is: over 16 KiB or 100 fields, an empty field, a
    percent sign without two hex digits, a byte that no form has, another encoding than UTF-8, a name twice.
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
