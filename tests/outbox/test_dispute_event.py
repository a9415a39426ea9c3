"""The event of a dispute that has to be answered: as flat texts, and in every format."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import Malformed, TransportError
from receiver.ledger.age import DAY
from receiver.ledger.dispute import Dispute, Reminder, dispute_json
from receiver.ledger.money import Money
from receiver.ledger.refund import REFUND_ID
from receiver.outbox.events import kinds
from receiver.outbox.events.dispute_event import (
    DisputeEvent,
    DisputeEventJson,
    dispute_event,
    dispute_fields,
)
from receiver.outbox.events.kinds import is_newer, kind_of
from receiver.outbox.formats.registry import FORMATS, render
from receiver.outbox.subscribers.filters import wants_dispute
from receiver.outbox.subscribers.subscriber import Subscriber
from tests.outbox.examples import NOW, a_subscriber, any_text, moneys, our_times, times
from tests.outbox.tellers import teller

ACTION_REQUIRED = "amazonpay.dispute.action_required"
DISPUTE = Dispute(
    dispute_id="S01-5105180-3221187-B000001",
    charge_permission_id="S01-5105180-3221187",
    charge_id="S01-5105180-3221187-C056351",
    amount=Money(Decimal(400), "USD"),
    reason="Fraudulent",
    state="ActionRequired",
    reason_code="MerchantResponseRequired",
    deadline=NOW + 11 * DAY,
    updated_at=NOW - 2_000,
    created_at=NOW - 3_000,
    first_told_at=NOW - 1_000,
)


def event(reminder: Reminder = Reminder.KNOWN, at: int = NOW, **changes: Any) -> DisputeEvent:
    return dispute_event("us", msgspec.structs.replace(DISPUTE, **changes), reminder, at, "na")


def body_of(subscriber: Subscriber, *events: DisputeEvent) -> Any:
    return json.loads(render(events, subscriber, NOW).body)


def test_the_id_is_that_of_the_reminder() -> None:
    """Whichever process computes it, at any time, and whatever else has become known of the dispute."""
    assert event().id == event(at=NOW + 5, amount=None, reason="").id
    different = {
        event().id,
        event(Reminder.DAY_BEFORE).id,
        event(deadline=DISPUTE.deadline + 1).id,
        event(dispute_id="S01-5105180-3221187-B000002").id,
        dispute_event("eu", DISPUTE, Reminder.KNOWN, NOW).id,
    }
    assert len(different) == 5
    assert event().id == "evt_4d61518ec54874beee50cb430e11a05e"


def test_the_entry_in_the_stream_is_a_public_contract() -> None:
    """It has all fields that have a value, and reading it returns what was written."""
    found = dispute_fields(event())
    assert found == {
        "id": event().id,
        "type": ACTION_REQUIRED,
        "time": "2019-07-14T16:00:00.250Z",
        "reminder": "known",
        "disputeId": "S01-5105180-3221187-B000001",
        "chargePermissionId": "S01-5105180-3221187",
        "kind": "chargeback",
        "state": "ActionRequired",
        "merchantResponseDeadline": "20190725T160000.250Z",
        "chargeId": "S01-5105180-3221187-C056351",
        "amount": "400.00",
        "currencyCode": "USD",
        "reasonCode": "MerchantResponseRequired",
        "filingReason": "Fraudulent",
        "creationTimestamp": "20190714T155957.250Z",
        "lastUpdatedTimestamp": "20190714T155958.250Z",
        "firstToldAt": "2019-07-14T15:59:59.250Z",
        "region": "na",
    }
    assert kinds.DISPUTE.read("us", found) == event()
    assert kind_of(found) is kinds.DISPUTE
    assert not is_newer(found)
    assert is_newer({**found, "type": "amazonpay.dispute.lost"})
    bare = Dispute(dispute_id="D-1", charge_permission_id="P-1", state="ActionRequired", deadline=NOW)
    assert set(dispute_fields(dispute_event("us", bare, Reminder.KNOWN, NOW))) == {
        *("id", "type", "time", "reminder", "disputeId", "chargePermissionId", "kind", "state"),
        "merchantResponseDeadline",
    }


@pytest.mark.parametrize("name", ["id", "type", "time", "reminder", "disputeId", "merchantResponseDeadline", "kind"])
def test_an_entry_without_a_required_field_is_refused(name: str) -> None:
    """Another program has written to the stream."""
    found = dispute_fields(event())
    for garbled in ({key: value for key, value in found.items() if key != name}, {**found, name: ""}):
        if name in ("id", "disputeId", "kind") and garbled.get(name) == "":
            continue
        with pytest.raises(Malformed):
            kinds.DISPUTE.read("us", garbled)
    for more in ({"amount": "x"}, {"creationTimestamp": "now"}, {"firstToldAt": ""}, {"reminder": "third"}):
        with pytest.raises(Malformed):
            kinds.DISPUTE.read("us", {**found, **more})


def test_only_who_asks_for_it_gets_it() -> None:
    """`*` are the events of refunds: programs that book them must not meet another kind."""
    assert not wants_dispute(a_subscriber(), event())
    assert wants_dispute(a_subscriber(types=("*", ACTION_REQUIRED)), event())
    small = {"types": (ACTION_REQUIRED,), "reasons": ("AmazonRejected",)}
    assert wants_dispute(a_subscriber(**small), event())
    assert not wants_dispute(a_subscriber(**small, min_amount=(Money(Decimal(500), "USD"),)), event())
    assert wants_dispute(a_subscriber(**small, min_amount=(Money(Decimal(500), "USD"),)), event(amount=None))
    for name in ("slack", "teams", "pagerduty", "alertmanager"):
        assert wants_dispute(teller(name), event())
        assert not wants_dispute(teller(name, types=["amazonpay.refund.declined"]), event())


def test_programs_get_the_whole_dispute() -> None:
    """As a CloudEvent, signed like any other."""
    request = render([event()], a_subscriber(), NOW)
    assert request.headers["webhook-id"] == event().id
    found = msgspec.json.decode(request.body, type=DisputeEventJson)
    assert (found.type, found.subject, found.source) == (ACTION_REQUIRED, DISPUTE.dispute_id, "/amazonpay/us")
    data = json.loads(request.body)["data"]
    assert {name: data[name] for name in ("account", "reminder", "merchantResponseDeadline")} == {
        "account": "us",
        "reminder": "known",
        "merchantResponseDeadline": "20190725T160000.250Z",
    }
    whole = json.loads(msgspec.json.encode(dispute_json(DISPUTE)))
    assert {name: data[name] for name in whole} == whole
    assert [each["action"] for each in data["advice"]["actions"]] == ["answer_dispute", "do_not_refund_again"]


def test_a_chat_reads_until_when_and_what_to_do() -> None:
    """One as a whole, many as a list."""
    one = body_of(teller("slack"), event(Reminder.DAY_BEFORE, reason="<!here> & more"))
    assert one["text"].startswith("Dispute to answer within a day, by 2019-07-25 16:00 UTC: 400.00 USD, dispute S01-")
    text = json.dumps(one)
    assert "<!here>" not in text
    assert "Amazon waits for your answer to a chargeback of 400.00 USD" in text
    assert "https://refunds.example/refunds?charge=S01-5105180-3221187-C056351&amp;account=us" in text
    many = body_of(teller("slack"), *(event(dispute_id=f"S01-5105180-3221187-B{n:06}") for n in range(50)))
    assert many["text"] == "50 disputes to answer"
    assert len(many["blocks"]) <= 50
    assert "S01-5105180-3221187-B000049" in json.dumps(many)


def test_a_pager_is_paged_by_each_reminder() -> None:
    """As two incidents, of which a person closes each; the second is critical."""
    first, second = (body_of(teller("pagerduty"), event(reminder)) for reminder in Reminder)
    assert [each["event_action"] for each in (first, second)] == ["trigger", "trigger"]
    assert first["dedup_key"] == "amazonpay/us/dispute/S01-5105180-3221187-B000001/known"
    assert second["dedup_key"] == "amazonpay/us/dispute/S01-5105180-3221187-B000001/day_before"
    assert [each["payload"]["severity"] for each in (first, second)] == ["warning", "critical"]
    assert first["payload"]["class"] == ACTION_REQUIRED
    assert first["payload"]["custom_details"]["Answer by"] == "2019-07-25 16:00 UTC"
    with pytest.raises(TransportError):
        render([event()], msgspec.structs.replace(teller("pagerduty"), credential=None), NOW)


def test_an_alert_fires_until_the_deadline() -> None:
    """Where that is over already, for a week."""
    alert, late = body_of(teller("alertmanager"), event(), event(Reminder.DAY_BEFORE, deadline=NOW - 1))
    assert alert["labels"] == {
        "alertname": "AmazonPayDisputeActionRequired",
        "account": "us",
        "dispute_id": "S01-5105180-3221187-B000001",
        "severity": "warning",
    }
    assert (alert["startsAt"], alert["endsAt"]) == ("2019-07-14T16:00:00.250Z", "2019-07-25T16:00:00.250Z")
    assert alert["annotations"]["seller_central"] == "https://sellers.example"
    assert (late["labels"]["severity"], late["endsAt"]) == ("critical", "2019-07-21T16:00:00.250Z")


ANY = st.builds(
    Dispute,
    dispute_id=st.from_regex(r"[!-~]{1,64}", fullmatch=True),
    charge_permission_id=st.from_regex(REFUND_ID, fullmatch=True),
    charge_id=any_text,
    kind=st.sampled_from(["chargeback", "A-to-z claim", "dispute"]),
    amount=st.none() | moneys,
    reason=any_text,
    state=st.just("ActionRequired"),
    reason_code=any_text,
    deadline=times.filter(bool),
    updated_at=times,
    created_at=times,
    first_told_at=our_times,
)


@given(ANY, st.sampled_from(Reminder))
def test_any_dispute_can_be_told_in_every_format(dispute: Dispute, reminder: Reminder) -> None:
    """And survives the stream."""
    told = dispute_event("us", dispute, reminder, NOW)
    kept = kinds.DISPUTE.read("us", dispute_fields(told))
    assert kept.dispute.deadline == dispute.deadline
    assert dispute_fields(kept) == dispute_fields(told)
    for name in FORMATS:
        subscriber = a_subscriber() if name == "cloudevents" else teller(name)
        assert json.loads(render([kept], subscriber, NOW).body)
