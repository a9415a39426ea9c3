"""The event of a difference from Amazon's reports: as flat texts, and in every format."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from receiver.errors import Malformed
from receiver.ledger.age import BACKFILL_AFTER
from receiver.ledger.money import Money
from receiver.ledger.reconciliation.finding import Finding, FindingKind
from receiver.ledger.reconciliation.rows import RefundRow
from receiver.outbox.events import kinds
from receiver.outbox.events.kinds import is_newer, kind_of
from receiver.outbox.events.mismatch_event import (
    SUMMARIES,
    MismatchEvent,
    MismatchEventJson,
    mismatch_event,
    mismatch_fields,
)
from receiver.outbox.formats.registry import FORMATS, render, wants_mismatch
from tests.outbox.examples import NOW, a_subscriber
from tests.outbox.tellers import teller

MISMATCH = "amazonpay.refund.mismatch"
ID = "S01-5105180-3221187-R022311"
USD14 = Money.parse("14.00", "USD")


def event(kind: FindingKind = FindingKind.STATE_DIFFERS, at: int = NOW, **more: Any) -> MismatchEvent:
    row = RefundRow(refund_id=ID, state="Declined", updated_at=NOW - BACKFILL_AFTER - 1, line=7)
    fields = {"here": "Refunded", "there": "Declined", "source": "refunds.csv", "row": row, "since": at, **more}
    return mismatch_event("us", Finding(kind=kind, refund_id=ID, **fields), at, amount=USD14, region="na")


def test_the_entry_in_the_stream_is_a_public_contract() -> None:
    """It has all fields, and can be read back unchanged. The id depends on the difference, not on when it was found."""
    found = mismatch_fields(event())
    assert found == {
        "id": event(at=NOW + 5, source="other.csv").id,
        "type": MISMATCH,
        "time": "2019-07-14T16:00:00.250Z",
        "finding": "state_differs",
        "refundId": ID,
        "here": "Refunded",
        "there": "Declined",
        "report": "refunds.csv",
        "line": "7",
        "amount": "14.00",
        "currencyCode": "USD",
        "region": "na",
    }
    assert mismatch_fields(kinds.MISMATCH.read("us", found)) == found
    assert kind_of(found) is kinds.MISMATCH
    assert not is_newer(found)
    old = mismatch_fields(event(FindingKind.UNKNOWN_HERE, here=""))
    assert (old["backfill"], "here" in old) == ("true", False)
    assert len({event(kind).id for kind in FindingKind}) == len(FindingKind) == len(SUMMARIES)
    for name in ("id", "type", "time", "finding", "refundId"):
        with pytest.raises(Malformed):
            kinds.MISMATCH.read("us", {key: value for key, value in found.items() if key != name})
    for garbled in ({"line": "x"}, {"amount": "x"}, {"finding": "x"}):
        with pytest.raises(Malformed):
            kinds.MISMATCH.read("us", {**found, **garbled})


def test_only_who_asks_for_it_gets_it() -> None:
    """`*` means the changes of refunds. An old unknown refund pages no one."""
    named = {"types": (MISMATCH,)}
    assert not wants_mismatch(a_subscriber(types=("*",)), event())
    assert wants_mismatch(a_subscriber(**named), event())
    assert not wants_mismatch(a_subscriber(**named, min_amount=(Money.parse("15", "USD"),)), event())
    old = event(FindingKind.UNKNOWN_HERE)
    assert wants_mismatch(a_subscriber(**named), old)
    assert wants_mismatch(teller("slack"), event())
    assert not wants_mismatch(teller("slack"), old)
    assert not wants_mismatch(teller("pagerduty"), event())


def test_every_format_says_what_differs_and_what_to_do() -> None:
    """For each kind, alone and with others."""
    for kind in FindingKind:
        found = msgspec.json.decode(render([event(kind)], a_subscriber(), NOW).body, type=MismatchEventJson)
        assert (found.data.finding, found.data.here, found.data.line) == (kind, "Refunded", 7)
        assert found.data.advice is not None
        for name in set(FORMATS) - {"cloudevents"}:
            body = render([event(kind)], teller(name), NOW).body.decode()
            for words in (ID, "refunds.csv, line 7", "14.00 USD", *(each.text[:20] for each in SUMMARIES[kind][1])):
                assert json.dumps(words)[1:-1] in body or words in body, (name, words)
    several = [event(kind) for kind in FindingKind]
    assert json.loads(render(several, teller("slack"), NOW).body)["text"] == "Reconciliation: 6 differences"
    assert len(json.loads(render(several, teller("alertmanager"), NOW).body)) == 6
    assert len(json.loads(render([event(), event()], teller("alertmanager"), NOW).body)) == 1, (
        "one alert, by its labels"
    )
