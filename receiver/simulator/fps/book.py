"""Pure. The books of the simulated Flexible Payments (retired in 2015): transactions, and refunds by reference.

The cents of the amount choose the outcome of a refund, by the table of `outcomes.py`, in the words of FPS:
RefundInitiated is Pending, Refunded is Success, Declined is Failure, and the undocumented state is UnderReview. Without
an amount, everything that is left is refunded, and its cents count. Unlike Amazon Pay, FPS refunds nothing beyond the
original amount.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from urllib.parse import urlencode

from receiver.exchange import Request
from receiver.simulator.amounts import Amount
from receiver.simulator.faults import Fault
from receiver.simulator.notifications.notices import Envelope
from receiver.simulator.outcomes import DECLINED, INITIATED, REFUNDED, STEPS, Step, outcome_of

STATUSES = {INITIATED: "Pending", REFUNDED: "Success", DECLINED: "Failure"}
UNKNOWN_STATUS = "UnderReview"

TRANSACTION_STATES = {
    "Success": "",
    "Pending": "OriginalTransactionIncomplete",
    "Reserved": "InvalidTransactionState",
    "Failure": "OriginalTransactionFailed",
    "Cancelled": "InvalidTransactionState",
}
"""States of the original transaction → the error for a refund, empty if it can be refunded."""

REMEMBERED = 7 * 86_400_000
"""ms: references are kept for seven days (API reference); after that, the same one refunds again."""

SEEDS = (
    ("14GKSIMULATOR0000000000000000000001", 10_000, "Success"),
    ("14GKSIMULATOR0000000000000000000002", 100_000, "Success"),
    ("14GKSIMULATOR0000000000000000000003", 10_000, "Reserved"),
)
"""The initial transactions: id, US cents, state."""


@dataclass(slots=True)
class Transaction:
    """A buyer's payment."""

    transaction_id: str
    amount: Amount
    state: str
    refunds: list[FpsRefund] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Minor units that can still be refunded."""
        return self.amount.minor - sum(refund.amount.minor for refund in self.refunds if refund.status != "Failure")


@dataclass(frozen=True, slots=True)
class FpsOrder:
    """The values of one Refund call. No amount: everything that is left."""

    transaction_id: str
    reference: str
    amount: Amount | None = None
    description: str = ""
    policy: str = "MasterTxnOnly"


@dataclass(slots=True)
class FpsRefund:
    """A refund; `scheduled` has the steps that are still to come, with their times (ms)."""

    order: FpsOrder
    amount: Amount
    status: str
    scheduled: list[tuple[int, Step]]


@dataclass(frozen=True, slots=True)
class FpsChange:
    """A refund entered this status at this time (ms)."""

    refund: FpsRefund
    status: str
    at: int


class Book:
    """All transactions and refunds. `delay` is the time from one step of a refund to the next, ms."""

    def __init__(self, delay: int) -> None:
        self.transactions: dict[str, Transaction] = {}
        self.refunds: list[FpsRefund] = []
        self._delay = delay
        self._references: dict[str, tuple[int, FpsOrder, FpsRefund | None]] = {}
        for transaction_id, minor, state in SEEDS:
            self.open(Amount(minor, "USD"), state, transaction_id)

    def open(self, amount: Amount, state: str = "Success", transaction_id: str = "") -> Transaction:
        """Make a transaction. Raises `Fault` 400 for an unknown state, an id in use, or a currency other than USD."""
        found = transaction_id or _transaction_id(len(self.transactions))
        if state not in TRANSACTION_STATES or found in self.transactions or amount.currency != "USD":
            states = ", ".join(TRANSACTION_STATES)
            raise Fault(
                400,
                "InvalidParams",
                f"A transaction needs an unused id, the currency USD, and one of these states: {states}.",
            )
        self.transactions[found] = Transaction(found, amount, state)
        return self.transactions[found]

    def refund(self, order: FpsOrder, now: int) -> tuple[FpsRefund, FpsChange | None]:
        """The refund of this order, and the change if it is a new one. Raises `Fault` 400 by the rules of FPS.

        The same order again returns the same refund. A different order with a reference that was used within seven
        days, even by a refused one, is DuplicateRequest.
        """
        at, before, refund = self._references.get(order.reference, (0, None, None))
        if before is not None and now - at <= REMEMBERED:
            if before != order:
                raise Fault(400, "DuplicateRequest", "A different request associated with this reference exists.")
            if refund is not None:
                return refund, None
        self._references[order.reference] = (now, order, None)
        transaction, amount = self._admit(order)
        first, *rest = STEPS[outcome_of(amount.minor)]
        scheduled = [(now + step.delays * self._delay, step) for step in rest]
        refund = FpsRefund(order, amount, STATUSES.get(first.state, UNKNOWN_STATUS), scheduled)
        self._references[order.reference] = (now, order, refund)
        self.refunds.append(refund)
        transaction.refunds.append(refund)
        return refund, FpsChange(refund, refund.status, now)

    def advance(self, now: int) -> list[FpsChange]:
        """Apply all changes that are due at `now`. Returns them in order of time."""
        due = [(at, refund, step) for refund in self.refunds for at, step in refund.scheduled if at <= now]
        changes = []
        for at, refund, step in sorted(due, key=lambda each: each[0]):
            refund.status = STATUSES.get(step.state, UNKNOWN_STATUS)
            del refund.scheduled[0]
            changes.append(FpsChange(refund, refund.status, at))
        return changes

    def next_at(self) -> int | None:
        """When the next change is due, ms; None if there is none."""
        return min((refund.scheduled[0][0] for refund in self.refunds if refund.scheduled), default=None)

    def _admit(self, order: FpsOrder) -> tuple[Transaction, Amount]:
        transaction = self.transactions.get(order.transaction_id)
        if transaction is None:
            raise Fault(400, "InvalidTransactionId", "There is no such transaction.")
        if refused := TRANSACTION_STATES[transaction.state]:
            raise Fault(400, refused, f"The transaction is {transaction.state}; only a settled one is refunded.")
        if transaction.left <= 0:
            raise Fault(400, "TransactionFullyRefundedAlready", "The transaction has been refunded completely.")
        amount = order.amount or Amount(transaction.left, transaction.amount.currency)
        if amount.minor > transaction.left:
            raise Fault(400, "RefundAmountExceeded", f"Only {transaction.left} cents can still be refunded.")
        return transaction, amount


class StatusForm(Envelope):
    """A status notification: a form instead of SNS's JSON, without a message id. Its signature proves nothing."""

    __slots__ = ()

    @property
    def message_id(self) -> str:
        """Forms have none."""
        return ""

    def request(self, url: str) -> Request:
        headers = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
        return Request("POST", url, headers, urlencode(dict(self.fields)).encode())


def status_form(change: FpsChange) -> StatusForm:
    """The notification of a change: the status as in answers, in capitals."""
    order, amount = change.refund.order, change.refund.amount
    fields = {
        "operation": "REFUND",
        "status": change.status.upper(),
        "transactionId": order.transaction_id,
        "transactionAmount": f"{amount.currency} {amount.text}",
        "transactionDate": str(change.at // 1000),
        "callerReference": order.reference,
        "buyerName": "Bea Buyer",
        "recipientEmail": "merchant@example.com",
        "paymentMethod": "CC",
        "signatureVersion": "2",
        "signatureMethod": "RSA-SHA1",
        "certificateUrl": "https://fps.sandbox.amazonaws.com/certs/090909/PKICert.pem",
        "signature": base64.b64encode(b"nobody can check this").decode(),
    }
    return StatusForm(fields, about=order.reference, state=change.status)


def _transaction_id(number: int) -> str:
    """35 characters, like FPS's own ids."""
    digest = hashlib.sha256(f"transaction {number}".encode()).digest()
    return "14GK" + base64.b32encode(digest).decode()[:31].replace("=", "0")
