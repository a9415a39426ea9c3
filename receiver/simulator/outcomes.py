"""Pure. What happens to a refund here, and how a user chooses it: one table.

| cents of the amount | outcome (also the simulation code) | what Get Refund shows, one delay after the other |
|---|---|---|
| .01 | `AmazonRejected` | RefundInitiated, then Declined (AmazonRejected) |
| .02 | `ProcessingFailure` | RefundInitiated, then Declined (ProcessingFailure) |
| .03 | `Pending` | RefundInitiated, for ever |
| .04 | `UnknownState` | RefundInitiated, then RefundUnderReview (an undocumented state), then Refunded |
| .05 | `UnknownReason` | RefundInitiated, then Declined with an undocumented reason code |
| .06 | `RefundedAtOnce` | Refunded, already in the answer to Create Refund |
| .07 | `DeclinedAtOnce` | Declined (AmazonRejected), already in the answer to Create Refund |
| .08 | `Contradicted` | RefundInitiated, then Refunded, then Declined (ProcessingFailure): two final states |
| .09 | `Slow` | RefundInitiated for ten delays, then Refunded |
| any other | `Refunded` | RefundInitiated, then Refunded |

In JPY the last two digits of the amount count: 1,001 yen is `AmazonRejected`. The header `x-amz-pay-simulation-code` of
Create Refund, the field `outcome` of the control API and the argument of `Simulator.start_refund` override the amount.
While the balance is `negative` (`POST /simulator/balance`), every refund is `AmazonRejected` whatever its amount.
Amazon's sandbox has no simulation codes for refunds: these are the simulator's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from receiver.simulator.faults import Fault

INITIATED, REFUNDED, DECLINED = "RefundInitiated", "Refunded", "Declined"
UNDER_REVIEW = "RefundUnderReview"


class Outcome(StrEnum):
    """What happens to a refund; see the table above. After the first, in the order of the cents."""

    REFUNDED = "Refunded"
    AMAZON_REJECTED = "AmazonRejected"
    PROCESSING_FAILURE = "ProcessingFailure"
    PENDING = "Pending"
    UNKNOWN_STATE = "UnknownState"
    UNKNOWN_REASON = "UnknownReason"
    REFUNDED_AT_ONCE = "RefundedAtOnce"
    DECLINED_AT_ONCE = "DeclinedAtOnce"
    CONTRADICTED = "Contradicted"
    SLOW = "Slow"


@dataclass(frozen=True, slots=True)
class Step:
    """The refund enters this state this many delays after its creation."""

    delays: int
    state: str
    reason: str = ""


BY_CENTS = dict(enumerate([each for each in Outcome if each is not Outcome.REFUNDED], 1))

_START = Step(0, INITIATED)
STEPS: dict[Outcome, tuple[Step, ...]] = {
    Outcome.REFUNDED: (_START, Step(1, REFUNDED)),
    Outcome.AMAZON_REJECTED: (_START, Step(1, DECLINED, "AmazonRejected")),
    Outcome.PROCESSING_FAILURE: (_START, Step(1, DECLINED, "ProcessingFailure")),
    Outcome.PENDING: (_START,),
    Outcome.UNKNOWN_STATE: (_START, Step(1, UNDER_REVIEW), Step(2, REFUNDED)),
    Outcome.UNKNOWN_REASON: (_START, Step(1, DECLINED, "BuyerAccountClosed")),
    Outcome.REFUNDED_AT_ONCE: (Step(0, REFUNDED),),
    Outcome.DECLINED_AT_ONCE: (Step(0, DECLINED, "AmazonRejected"),),
    Outcome.CONTRADICTED: (_START, Step(1, REFUNDED), Step(2, DECLINED, "ProcessingFailure")),
    Outcome.SLOW: (_START, Step(10, REFUNDED)),
}

DESCRIPTIONS = {
    "AmazonRejected": "The refund was rejected by Amazon.",
    "ProcessingFailure": "Amazon could not process the refund.",
    "BuyerAccountClosed": "The account of the buyer is closed.",
}
"""`reasonDescription`, in the simulator's words."""


def outcome_of(minor_units: int) -> Outcome:
    """The outcome for the last two digits of the amount in minor units."""
    return BY_CENTS.get(minor_units % 100, Outcome.REFUNDED)


def read_outcome(code: str) -> Outcome:
    """The outcome for a simulation code; raises `Fault` 400 InvalidSandboxSimulationSpecified."""
    try:
        return Outcome(code)
    except ValueError:
        raise Fault(
            400,
            "InvalidSandboxSimulationSpecified",
            f"There is no such simulation code. Codes here: {', '.join(Outcome)}.",
        ) from None
