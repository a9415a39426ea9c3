"""Pure. The book of disputes about charges: a person opens them and moves them, as a buyer, a bank and Amazon would.

States, resolutions and fields are those of Amazon's page "Dispute". Each step is announced; a notification does not say
what the step was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from receiver.simulator.amounts import Amount
from receiver.simulator.bank import Bank
from receiver.simulator.faults import invalid_value, known
from receiver.simulator.ids import Ids

REASONS = {"ActionRequired": "MerchantResponseRequired", "Resolved": "InvestigatorResolved"}
"""State → the reason code that is shown with it."""
OPEN, ENDED = ("UnderReview", "ActionRequired"), ("Resolved", "Closed")
RESOLUTIONS = ("BuyerWon", "MerchantWon", "NoFault")


@dataclass(slots=True)
class Dispute:
    """A dispute. Times are ms; no deadline: None."""

    dispute_id: str
    charge_id: str
    permission_id: str
    amount: Amount
    filing_reason: str
    created_at: int
    state: str
    resolution: str = ""
    deadline: int | None = None
    updated_at: int = 0


class Disputes:
    """All disputes of one merchant. `announce` notifies of one."""

    def __init__(self, bank: Bank, ids: Ids, now: Callable[[], int], announce: Callable[[Dispute], None]) -> None:
        self._bank, self._ids, self._now, self._announce = bank, ids, now, announce
        self.known: dict[str, Dispute] = {}

    def open(
        self,
        charge_id: str,
        amount: Amount | None = None,
        *,
        filing_reason: str = "Fraudulent",
        state: str = "ActionRequired",
        answer_within: float | None = 11 * 86_400,
    ) -> Dispute:
        """A dispute about a charge, by default about all of it. `answer_within` is in seconds; None: no deadline.

        Raises `Fault`.
        """
        charge, now = self._bank.charge(charge_id), self._now()
        dispute_id = self._ids.below(charge.permission_id, "B", self.known)
        what = (charge_id, charge.permission_id, amount or charge.amount, filing_reason)
        dispute = self.known[dispute_id] = Dispute(dispute_id, *what, now, "")
        return self._moved(dispute, state, "", answer_within)

    def move(self, dispute_id: str, state: str, resolution: str = "", *, answer_within: float | None = None) -> Dispute:
        """Move it to a state; an end has a resolution, or none. Raises `Fault`."""
        return self._moved(self.get(dispute_id), state, resolution, answer_within)

    def get(self, dispute_id: str) -> Dispute:
        """One dispute; raises `Fault` 404."""
        return known(self.known, "dispute", dispute_id)

    def _moved(self, dispute: Dispute, state: str, resolution: str, answer_within: float | None) -> Dispute:
        if state not in (*OPEN, *ENDED):
            raise invalid_value("state", f"it is not one of {', '.join((*OPEN, *ENDED))}")
        if resolution and (resolution not in RESOLUTIONS or state not in ENDED):
            raise invalid_value("resolution", f"it is one of {', '.join(RESOLUTIONS)}, for {' and '.join(ENDED)}")
        now = self._now()
        dispute.state, dispute.resolution, dispute.updated_at = state, resolution, now
        dispute.deadline = None if answer_within is None else now + int(answer_within * 1000)
        self._announce(dispute)
        return dispute
