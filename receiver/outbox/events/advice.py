"""Pure. What a merchant can do about a failed refund: a summary for people, and actions for programs.

The rules come from Amazon's page on refunds ("Refund state explanation"). Where that page calls a Capture "Completed",
it means the charge state Captured.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import FPS, How, Reason, Refund, Retryability, State
from receiver.ledger.resolution import BY_PERSON, describe
from receiver.ledger.retryability import BUYER_MAY_BE_PAID, IN_CONFLICT, NAMEABLE, is_merchants
from receiver.ledger.schema import Json, tidy
from receiver.ledger.timestamps import format_rfc3339

FINALS_NAMED = 4


class Action(msgspec.Struct, frozen=True):
    """One action. `action` is a stable word for programs; `text` is for people."""

    action: str
    text: str


class Advice(msgspec.Struct, frozen=True):
    """A summary of one or two sentences, and the advised actions, the first choice first."""

    summary: str
    actions: tuple[Action, ...] = ()


class ActionJson(Json, kw_only=True):
    """An advised action."""

    action: Annotated[str, msgspec.Meta(description="A stable word for programs; there may be new ones.")]
    text: str


class AdviceJson(Json, kw_only=True):
    """A summary, and the advised actions, the first choice first."""

    summary: str
    actions: list[ActionJson]


REPAY = Action(
    "repay_negative_balance",
    "Look at the balance of the merchant account in Seller Central; where it is negative, pay Amazon what is owed.",
)
RETRY = Action(
    "retry_refund",
    "Once the balance is settled, issue a new refund for the charge; Amazon never reopens a declined refund.",
)
RETRY_IF_CAPTURED = Action(
    "retry_if_charge_captured",
    "Issue a new refund only if Get Charge shows the charge in the state Captured. In any other state do not retry.",
)
ANOTHER_WAY = Action(
    "refund_another_way",
    "Or compensate the buyer outside Amazon Pay, for example with store credit, a gift card or a check.",
)
RETRY_NOW = Action(
    "retry_refund",
    "The charge is Captured and allows the amount: issue the refund again (POST /v1/refunds/{refundId}/retry, or "
    "`receiver refund retry`).",
)
FOLLOW_RETRY = Action(
    "follow_retry",
    "Look at the refund that repeats this one (retriedBy): Amazon returns the money once that one is Refunded.",
)
REOPEN = Action(
    "reopen",
    "Do not pay the buyer again. Only if the buyer is still owed the money: reopen the case (POST "
    "/v1/refunds/{refundId}/reopen, or `receiver refund reopen`).",
)
CHECK_ALREADY_PAID = Action(
    "check_buyer_already_refunded",
    "Look for an A-to-z claim or a chargeback on this order first, so that the buyer is not paid twice.",
)
CHECK_MAXIMUM = Action(
    "check_refunded_total",
    "Look at the other refunds of the charge: once its maximum has been refunded, Amazon declines every further one.",
)
SUPPORT = Action(
    "contact_support",
    "Contact Amazon Pay's merchant support in Japan, and quote refundId. Do not issue the refund again before that.",
)
RETRY_SOON = Action("wait_before_retry", "Wait for 1 to 2 minutes before you issue the refund again.")
ASK_AMAZON = Action(
    "ask_amazon",
    "Look the refund up in Seller Central, or ask Amazon Pay's merchant support; quote refundId and reasonCode.",
)
WAIT = Action(
    "wait",
    "Nothing is lost: the service polls Amazon until the refund is final, and sends the outcome as a separate event.",
)
DO_NOT_PAY_TWICE = Action(
    "do_not_refund_again",
    "Do not pay the buyer another way yet: this refund may still succeed.",
)
NOR_BESIDE_THE_RETRY = Action(
    DO_NOT_PAY_TWICE.action,
    "Do not pay the buyer another way while the refund that repeats this one is pending: it may still succeed.",
)
DO_NOT_REFUND = Action(
    DO_NOT_PAY_TWICE.action,
    "Do not refund the buyer: Amazon is collecting what it, or the bank, pays the buyer for the claim.",
)
LOOK_AT_DISPUTE = Action(
    "check_dispute",
    "Look at the dispute in Seller Central. While it is open, answer it in time, and wait for its end.",
)
DO_NOT_REFUND_IN_DISPUTE = Action(
    DO_NOT_PAY_TWICE.action,
    "Do not refund the buyer as well, here or in another way: the buyer would be paid twice.",
)
COMPARE_OTHERS = Action(
    "compare_other_refunds",
    "Compare the refunds of the charge first. If the buyer is owed this one too, name them (`besides`) in the retry.",
)
MAY_BE_PAID_BY_ANOTHER = Action(
    DO_NOT_PAY_TWICE.action,
    "Do not pay the buyer, here or in another way, until the refunds of the charge have been compared: another one "
    "may have paid this amount.",
)
MAY_BE_PAID_BY_THIS = Action(
    DO_NOT_PAY_TWICE.action,
    "Do not pay the buyer, here or in another way, until Amazon has explained which of the two is right.",
)
HOLD = Action(
    "hold_automation",
    "Stop what runs automatically for this refund (booking, retry, message to the buyer) until a person has looked.",
)
COMPARE = Action(
    "compare_history",
    "The refund's history lists every state that Amazon reported, its time, and what triggered the check.",
)

BY_REASON = {
    Reason.AMAZON_REJECTED: Advice(
        "Amazon rejected this refund, possibly because the merchant account has a negative balance. "
        "The buyer has not been paid by it.",
        (REPAY, RETRY, CHECK_MAXIMUM, ANOTHER_WAY),
    ),
    Reason.PROCESSING_FAILURE: Advice(
        "Amazon could not process this refund: either something failed inside Amazon, or the buyer has already got "
        "the money back through an A-to-z claim or a chargeback.",
        (CHECK_ALREADY_PAID, CHECK_MAXIMUM, RETRY_IF_CAPTURED, ANOTHER_WAY),
    ),
}
GENERAL = Advice(
    "Amazon declined this refund and gave no reason, or one that its documentation does not explain. "
    "The buyer has not been paid by it.",
    (ASK_AMAZON, CHECK_ALREADY_PAID, CHECK_MAXIMUM, RETRY_IF_CAPTURED, ANOTHER_WAY),
)
NOT_THE_MERCHANTS = (
    "This is not a refund of yours: Amazon or a bank began it for a claim, a chargeback or a cancellation. Amazon is "
    "collecting the amount from the merchant account."
)
OPENING = (EventType.DECLINED, EventType.REOPENED)
"""The events after which the buyer is owed the money."""
WITHOUT_ANOTHER_TRY = (RETRY, RETRY_IF_CAPTURED, RETRY_SOON, CHECK_MAXIMUM)
"""Actions that no longer apply once the charge is known to allow no further refund."""
IN_JAPAN = {
    Reason.AMAZON_REJECTED: Advice(
        "Amazon rejected this refund. The buyer has not been paid by it.", (SUPPORT, CHECK_MAXIMUM, ANOTHER_WAY)
    ),
    Reason.PROCESSING_FAILURE: Advice(
        BY_REASON[Reason.PROCESSING_FAILURE].summary,
        (CHECK_ALREADY_PAID, CHECK_MAXIMUM, RETRY_SOON, RETRY_IF_CAPTURED, ANOTHER_WAY),
    ),
}
"""The advice of Amazon's Japanese pages: contact support after AmazonRejected, wait before a retry after
ProcessingFailure."""
FPS_DECLINED = Advice(
    "Flexible Payments did not make this refund. The buyer has not been paid by it.",
    (
        Action("refund_again_by_fps", "Refund the transaction again under a new reference (`receiver fps refund`)."),
        ANOTHER_WAY,
    ),
)
PAID_IN_A_REPORT = Advice(
    "Amazon says that it declined this refund, but an Amazon report lists it as paid: the buyer may have the money.",
    (HOLD, MAY_BE_PAID_BY_THIS, ASK_AMAZON),
)
STUCK = Advice(
    "This refund has been pending for longer than it should be. Amazon usually decides refunds within hours.",
    (WAIT, DO_NOT_PAY_TWICE, ASK_AMAZON),
)


def advice_of(refund: Refund, event_type: EventType | None = None) -> Advice | None:
    """The advice for an event of this type; without a type, for the refund's current state.

    None if there is nothing to do. Total: an unknown reason gets general advice. While Amazon's final states contradict
    each other, the advice is not to issue the refund again, whichever state came last.
    """
    if event_type is EventType.STUCK:
        return STUCK
    if event_type is EventType.CONFLICT or (refund.conflict and event_type in (None, *OPENING)):
        return _conflict(refund)
    if event_type in OPENING or (event_type is None and refund.state == State.DECLINED):
        case = refund.resolution
        # Of a decline that was never tracked, it is not known whether the buyer was paid.
        if case is not None and case.how not in (None, How.NOT_TRACKED):
            return Advice(describe(case), (REOPEN,) if case.how in BY_PERSON else ())
        if refund.refund_type == FPS:
            return FPS_DECLINED
        known = IN_JAPAN if region_of(refund) == "jp" else BY_REASON
        advice = next((advice for reason, advice in known.items() if reason == refund.reason_code), GENERAL)
        return _narrowed(advice, refund)
    return None


def region_of(refund: Refund) -> str:
    """The account's region. Older versions did not record it; their refunds in yen count as Japan, all others as North
    America."""
    in_yen = refund.amount is not None and refund.amount.currency_code == "JPY"
    return refund.region or ("jp" if in_yen else "na")


def _narrowed(advice: Advice, refund: Refund) -> Advice:
    """General advice, narrowed by the charge, its disputes and its other refunds."""
    judged = refund.judged or Retryability({"yes": True, "no": False}.get(refund.retryable))
    if IN_CONFLICT in judged.reasons:
        return PAID_IN_A_REPORT
    if refund.retried_by:
        return Advice(f"{advice.summary} It has been issued again.", (FOLLOW_RETRY, NOR_BESIDE_THE_RETRY))
    if not is_merchants(refund):
        return Advice(NOT_THE_MERCHANTS, (REPAY, DO_NOT_REFUND))
    if BUYER_MAY_BE_PAID in judged.reasons:
        return Advice(f"Amazon declined this refund. {judged.says}", (LOOK_AT_DISPUTE, DO_NOT_REFUND_IN_DISPUTE))
    if judged.value is False:
        left = tuple(each for each in advice.actions if each not in WITHOUT_ANOTHER_TRY)
        says = judged.says or "The charge does not allow another refund."
        if not NAMEABLE.isdisjoint(judged.reasons):
            first = (COMPARE_OTHERS,) if NAMEABLE.issuperset(judged.reasons) else ()
            left = (*first, MAY_BE_PAID_BY_ANOTHER, *(each for each in left if each is not ANOTHER_WAY))
        return Advice(f"{advice.summary} {says}", left)
    if judged.value:
        known = tuple(
            RETRY_NOW if each is RETRY_IF_CAPTURED else each for each in advice.actions if each is not CHECK_MAXIMUM
        )
        return Advice(advice.summary, known)
    return advice


def advice_json(advice: Advice | None) -> AdviceJson | None:
    """The advice as JSON, or null."""
    if advice is None:
        return None
    return AdviceJson(
        summary=advice.summary,
        actions=[
            ActionJson(
                action=each.action,
                text=each.text,
            )
            for each in advice.actions
        ],
    )


def _conflict(refund: Refund) -> Advice:
    finals = sorted(_final_at(final) for final in refund.finals)
    named = ", ".join(f"{state} ({format_rfc3339(at)})" for at, state in finals[:FINALS_NAMED])
    which = f": {named}{' and more' if len(finals) > FINALS_NAMED else ''}" if named else ""
    return Advice(
        f"Amazon has reported final states for this refund that contradict each other{which}.",
        (HOLD, COMPARE, ASK_AMAZON),
    )


def _final_at(final: str) -> tuple[int, str]:
    state, _, at = final.rpartition("@")
    return int(at), tidy(state)
