"""The advice to merchants."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given

from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import Money
from receiver.ledger.refund import FPS, How, Reason, Resolution
from receiver.ledger.resolution import AS_TEXT
from receiver.outbox.events.advice import FOLLOW_RETRY, Advice, advice_json, advice_of
from receiver.outbox.formats.wording import WITHOUT_ADVICE
from tests.outbox.examples import NOW, a_refund, any_text


def actions(advice: Advice | None) -> list[str]:
    assert advice is not None
    return [each.action for each in advice.actions]


def test_a_rejected_refund_begins_with_the_negative_balance() -> None:
    """Amazon's rule for AmazonRejected: repay, then refund again or in another way."""
    advice = advice_of(a_refund(reason_code="AmazonRejected"), EventType.DECLINED)
    assert advice is not None
    assert "negative balance" in advice.summary
    assert actions(advice) == [
        "repay_negative_balance",
        "retry_refund",
        "check_refunded_total",
        "refund_another_way",
    ]


def test_a_processing_failure_is_tried_again_only_while_the_charge_is_captured() -> None:
    """Amazon's rule for ProcessingFailure: the buyer may have the money already, so retry only on a captured charge."""
    advice = advice_of(a_refund(reason_code="ProcessingFailure"), EventType.DECLINED)
    assert advice is not None
    assert "A-to-z claim or a chargeback" in advice.summary
    assert actions(advice) == [
        "check_buyer_already_refunded",
        "check_refunded_total",
        "retry_if_charge_captured",
        "refund_another_way",
    ]
    assert "Captured" in advice.actions[2].text
    assert "retry_refund" not in actions(advice)


def test_advice_in_japan_is_what_amazon_documents_there() -> None:
    """AmazonRejected: support, and no retry. ProcessingFailure: a retry after 1 to 2 minutes. Also of older records."""
    for where in ({"region": "jp"}, {"amount": Money(Decimal("1400"), "JPY")}):
        rejected = advice_of(a_refund(reason_code="AmazonRejected", **where), EventType.DECLINED)
        assert actions(rejected) == ["contact_support", "check_refunded_total", "refund_another_way"]
        failed = advice_of(a_refund(reason_code="ProcessingFailure", **where), EventType.DECLINED)
        assert "1 to 2 minutes" in " ".join(each.text for each in failed.actions)  # type: ignore[union-attr]
        assert actions(failed).index("wait_before_retry") < actions(failed).index("retry_if_charge_captured")
    abroad = advice_of(a_refund(region="eu", amount=Money(Decimal("1400"), "JPY")), EventType.DECLINED)
    assert actions(abroad)[0] == "repay_negative_balance"


def test_no_text_says_that_the_buyer_has_the_money() -> None:
    """Amazon's Refunded means processed: up to 9 working days can pass."""
    told = [*WITHOUT_ADVICE.values(), FOLLOW_RETRY.text]
    assert not [text for text in told if "has paid" in text or "is paid" in text]


@pytest.mark.parametrize("reason", ["", "SomethingNew", "amazonrejected"])
def test_an_unknown_reason_gets_general_advice(reason: str) -> None:
    """No decline is left without advice, and the advice for unknown reasons is never to retry without a look at the
    charge."""
    advice = advice_of(a_refund(reason_code=reason), EventType.DECLINED)
    assert actions(advice)[0] == "ask_amazon"
    assert "retry_refund" not in actions(advice)


def test_a_stuck_refund_is_not_to_be_paid_twice() -> None:
    """Pending for over a day: it may still succeed."""
    stuck = a_refund(state="RefundInitiated", reason_code="", finals=())
    assert actions(advice_of(stuck, EventType.STUCK)) == ["wait", "do_not_refund_again", "ask_amazon"]


def test_a_conflict_names_the_states_that_contradict_each_other_oldest_first() -> None:
    """Both finals with their times, so that a person sees at once what Amazon reported."""
    refund = a_refund(conflict=True, finals=("Declined@1563119700000", "Refunded@1563119640000"))
    advice = advice_of(refund, EventType.CONFLICT)
    assert advice is not None
    assert advice.summary.endswith(
        "contradict each other: Refunded (2019-07-14T15:54:00.000Z), Declined (2019-07-14T15:55:00.000Z)."
    )
    assert actions(advice) == ["hold_automation", "compare_history", "ask_amazon"]


@pytest.mark.parametrize("more", [{}, {"retryable": "yes"}, {"refund_type": FPS}, {"retried_by": "S01-R9"}])
@pytest.mark.parametrize(
    ("state", "event_type"), [("Declined", EventType.DECLINED), ("Declined", None), ("Refunded", None)]
)
def test_while_the_end_is_contradicted_nothing_is_to_be_issued_again(
    state: str, event_type: EventType | None, more: dict[str, str]
) -> None:
    """The buyer may have the money: neither the decline's event nor the refund's page may say "retry"."""
    refund = a_refund(state=state, conflict=True, finals=("Declined@1563119700000", "Refunded@1563119640000"), **more)
    assert actions(advice_of(refund, event_type)) == ["hold_automation", "compare_history", "ask_amazon"]


def test_many_finals_are_not_all_named() -> None:
    """A summary stays a summary."""
    refund = a_refund(conflict=True, finals=tuple(f"Refunded@{n}" for n in range(9)))
    advice = advice_of(refund, EventType.CONFLICT)
    assert advice is not None
    assert advice.summary.count("Refunded") == 4
    assert advice.summary.endswith(" and more.")


@pytest.mark.parametrize("event_type", [EventType.INITIATED, EventType.REFUNDED])
def test_what_goes_well_needs_no_advice(event_type: EventType) -> None:
    """Nothing is to be done about a refund that began or succeeded."""
    assert advice_of(a_refund(state="Refunded"), event_type) is None
    assert advice_json(None) is None


def test_without_an_event_the_state_decides() -> None:
    """When a refund is looked up: a declined one has the advice of its decline, others none."""
    assert advice_of(a_refund()) == advice_of(a_refund(), EventType.DECLINED)
    assert advice_of(a_refund(state="Refunded")) is None
    assert advice_of(a_refund(state="RefundInitiated")) is None


@given(any_text)
def test_every_decline_has_advice(reason: str) -> None:
    """For all reasons: codes are single words, texts are sentences, and Amazon's text is never repeated."""
    advice = advice_of(a_refund(reason_code=reason), EventType.DECLINED)
    assert advice is not None
    assert advice.summary.endswith(".")
    assert all(each.action.replace("_", "").isalpha() and each.text.endswith(".") for each in advice.actions)


@pytest.mark.parametrize("reason", ["ProcessingFailure", "AmazonRejected", "SomethingNew"])
def test_what_the_charge_allows_narrows_the_advice(reason: str) -> None:
    """With the charge Captured and money left the retry is one call away; otherwise only another way is left."""
    told = {
        word: [each.action for each in advice.actions]
        for word in ("", "yes", "no")
        if (advice := advice_of(a_refund(reason_code=reason, retryable=word)))
    }
    assert "retry_refund" in told["yes"]
    assert "retry_if_charge_captured" not in told["yes"] + told["no"]
    assert "retry_refund" not in told["no"]
    assert all("refund_another_way" in each for each in told.values())


def test_a_decline_that_was_retried_points_to_its_retry() -> None:
    """Looked up later, it must not suggest to pay the buyer a second time."""
    advice = advice_of(a_refund(retried_by="S01-5105180-3221187-R000009", retryable="yes"))
    assert advice is not None
    assert [each.action for each in advice.actions] == ["follow_retry", "do_not_refund_again"]
    assert not [each.text for each in advice.actions if "this refund may still succeed" in each.text], "it is declined"


def test_a_refund_of_flexible_payments_is_not_retried_by_amazon_pay() -> None:
    """Its charge is no charge of Amazon Pay, and its retry is refused."""
    advice = advice_of(a_refund(refund_type=FPS))
    assert advice is not None
    assert [each.action for each in advice.actions] == ["refund_again_by_fps", "refund_another_way"]


@pytest.mark.parametrize("event_type", [None, EventType.DECLINED])
@pytest.mark.parametrize("how", [each for each in How if each is not How.NOT_TRACKED])
def test_a_closed_case_is_never_paid_again(event_type: EventType | None, how: How) -> None:
    """Neither by a reissue nor another way. What a person closed can be reopened."""
    case = Resolution(at=NOW, how=how, by="desk", refund_id="S01-5105180-3221187-R022312")
    for reason in (*Reason, "SomethingNew"):
        refund = a_refund(state="Declined", reason_code=reason, retryable="yes", resolution=case)
        advice = advice_of(refund, event_type)
        assert advice is not None
        assert AS_TEXT[how] in advice.summary
        assert [each.action for each in advice.actions] == ([] if how in (How.REFUNDED, How.REISSUED) else ["reopen"])


def test_a_reopened_case_has_the_advice_of_a_decline() -> None:
    refund = a_refund(state="Declined", resolution=Resolution(at=NOW, by="desk"))
    assert advice_of(refund, EventType.REOPENED) == advice_of(refund, EventType.DECLINED) is not None
