"""Pure. The books of the simulated Amazon Pay: charges, refunds, idempotency keys, and how refunds change over time.

All state is in memory; the clock (`now`, ms) and the source of random numbers are arguments. Amazon's rules, each with
its `Fault`, are in `_admit`. A transition happens when `advance` is called at or after its time; the caller announces
the returned changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from receiver.simulator.amounts import MOST_REFUNDS, Amount, most_refundable
from receiver.simulator.faults import Fault, known
from receiver.simulator.ids import Ids
from receiver.simulator.outcomes import DECLINED, REFUNDED, STEPS, Outcome, Step, outcome_of

CHARGE_STATES = ("AuthorizationInitiated", "Authorized", "CaptureInitiated", "Captured", "Canceled", "Declined")
REFUNDABLE = "Captured"
NEGATIVE, REPAID = BALANCES = ("negative", "repaid")
"""The balance of the merchant account."""


@dataclass(frozen=True, slots=True)
class Order:
    """The values of one Create Refund."""

    charge_id: str
    amount: Amount
    soft_descriptor: str = ""


@dataclass(slots=True)
class Charge:
    """A charge. `reference` is the merchant's own order number."""

    charge_id: str
    permission_id: str
    amount: Amount
    state: str
    created_at: int
    reference: str = ""
    refund_ids: list[str] = field(default_factory=list)


class StateChange(msgspec.Struct, frozen=True, rename="camel"):
    """A state that a refund entered at `at` (ms)."""

    at: int
    state: str
    reason: str = ""


@dataclass(slots=True)
class Refund:
    """The true state of a refund: its past, its present, and its scheduled future."""

    refund_id: str
    order: Order
    outcome: Outcome
    created_at: int
    history: list[StateChange]
    """Never empty; the last one is the current state."""
    scheduled: list[tuple[int, Step]]
    """The steps that are still to come, with their times (ms)."""
    by_api: bool
    """Started with Create Refund; otherwise in Seller Central or by an A-to-z claim."""

    @property
    def state(self) -> str:
        return self.history[-1].state

    @property
    def reason(self) -> str:
        """The current reason code; empty if there is none."""
        return self.history[-1].reason

    @property
    def updated_at(self) -> int:
        """When the state last changed, ms."""
        return self.history[-1].at

    @property
    def settled(self) -> bool:
        """No more changes will follow. True of `Pending` from the start."""
        return not self.scheduled


@dataclass(frozen=True, slots=True)
class Change:
    """A refund has just entered a state."""

    refund: Refund
    state_change: StateChange


class Bank:
    """All charges and refunds of one merchant in one environment. `delay` is the time from one step to the next, ms."""

    def __init__(self, environment: str, random: Callable[[], float], delay: int) -> None:
        self.environment = environment
        self.delay = delay
        self.charges: dict[str, Charge] = {}
        self.refunds: dict[str, Refund] = {}
        self.balance = REPAID
        """While it is negative, Amazon declines refunds as AmazonRejected, unless their outcome is chosen."""
        self._ids = Ids(random)
        self._keys: dict[str, tuple[Order, dict[str, object]]] = {}

    def set_balance(self, state: str) -> None:
        """Raises ValueError for an unknown state."""
        if state not in BALANCES:
            raise ValueError(f"the balance is not one of {', '.join(BALANCES)}")
        self.balance = state

    def open_charge(
        self, amount: Amount, now: int, *, state: str = REFUNDABLE, reference: str = "", charge_id: str = ""
    ) -> Charge:
        """A new charge, Captured by default; raises `Fault` 400 for an unknown state or an id in use."""
        if state not in CHARGE_STATES:
            raise Fault(400, "InvalidParameterValue", f"A charge is one of {', '.join(CHARGE_STATES)}.")
        if charge_id in self.charges:
            raise Fault(400, "InvalidParameterValue", f"The charge '{charge_id}' exists.")
        permission = charge_id.rpartition("-")[0] or self._ids.permission(self.environment)
        found = charge_id or self._ids.below(permission, "C", self.charges)
        charge = Charge(found, permission, amount, state, now, reference or f"ORDER-{len(self.charges) + 1}")
        self.charges[found] = charge
        return charge

    def charge(self, charge_id: str) -> Charge:
        """One charge; raises `Fault` 404."""
        return known(self.charges, "charge", charge_id)

    def refund(self, refund_id: str) -> Refund:
        """One refund; raises `Fault` 404."""
        return known(self.refunds, "refund", refund_id)

    def repeated(self, key: str, order: Order) -> dict[str, object] | None:
        """The stored answer for an idempotency key that was used with the same values; None for a new key.

        Keys are kept for ever. Only successful refunds are stored, so a refused call leaves its key free (Amazon does
        not say whether it does). Raises `Fault` 400 DuplicateIdempotencyKey if the values differ.
        """
        if key not in self._keys:
            return None
        before, answer = self._keys[key]
        if before != order:
            raise Fault(400, "DuplicateIdempotencyKey", "The idempotency key was used before, with other values.")
        return answer

    def remember(self, key: str, order: Order, answer: dict[str, object]) -> None:
        """Store the answer for the next call with this idempotency key."""
        self._keys[key] = (order, answer)

    def start(self, order: Order, now: int, outcome: Outcome | None = None, *, by_api: bool = False) -> Change:
        """Start a refund, in its first state. Raises `Fault` if Amazon's rules forbid it."""
        charge = self._admit(order)
        by_amount = Outcome.AMAZON_REJECTED if self.balance == NEGATIVE else outcome_of(order.amount.minor)
        chosen = outcome or by_amount
        first, *rest = STEPS[chosen]
        refund = Refund(
            refund_id=self._ids.below(charge.permission_id, "R", self.refunds),
            order=order,
            outcome=chosen,
            created_at=now,
            history=[StateChange(now, first.state, first.reason)],
            scheduled=[(now + step.delays * self.delay, step) for step in rest],
            by_api=by_api,
        )
        self.refunds[refund.refund_id] = refund
        charge.refund_ids.append(refund.refund_id)
        return Change(refund, refund.history[-1])

    def advance(self, now: int) -> list[Change]:
        """Apply all changes that are due at `now`. Returns them in order of time."""
        changes = [
            Change(refund, StateChange(at, step.state, step.reason))
            for refund in self.refunds.values()
            for at, step in refund.scheduled
            if at <= now
        ]
        changes.sort(key=lambda change: change.state_change.at)
        for change in changes:
            change.refund.history.append(change.state_change)
            del change.refund.scheduled[0]
        return changes

    def next_at(self) -> int | None:
        """When the next change is due, ms; None if there is none."""
        return min((refund.scheduled[0][0] for refund in self.refunds.values() if refund.scheduled), default=None)

    def refunded(self, charge: Charge) -> int:
        """The refunded amount of a charge, minor units, without refunds in progress."""
        return sum(refund.order.amount.minor for refund in self._of(charge) if refund.state == REFUNDED)

    def _of(self, charge: Charge) -> list[Refund]:
        return [self.refunds[refund_id] for refund_id in charge.refund_ids]

    def _admit(self, order: Order) -> Charge:
        charge = self.charge(order.charge_id)
        if charge.state != REFUNDABLE:
            raise Fault(422, "InvalidChargeStatus", f"The charge is {charge.state}; only a Captured one is refunded.")
        if charge.amount.currency != order.amount.currency:
            raise Fault(400, "CurrencyMismatch", f"The charge is in {charge.amount.currency}.")
        spent = [refund.order.amount.minor for refund in self._of(charge) if refund.state != DECLINED]
        if len(spent) >= MOST_REFUNDS:
            raise Fault(422, "TransactionCountExceeded", f"The charge has {len(spent)} refunds.")
        if sum(spent) + order.amount.minor > most_refundable(charge.amount):
            raise Fault(422, "TransactionAmountExceeded", "The refunds of the charge would exceed what Amazon allows.")
        return charge
