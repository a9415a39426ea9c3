"""The one JSON shape of a refund."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from receiver.ledger.history import revision_json
from receiver.ledger.refund import Refund, Revision, Source
from receiver.ledger.schema import amazon_time, refund_json, tidy
from receiver.ledger.timestamps import parse_time
from tests.kit.wire import as_json
from tests.outbox.examples import a_refund, any_text, refunds, times


def test_a_refund_is_written_in_amazons_spelling_then_ours_in_one_order() -> None:
    """The whole JSON of a refund, in its order."""
    assert json.dumps(as_json(refund_json(a_refund()))) == (
        '{"refundId": "S01-5105180-3221187-R022311", "chargeId": "S01-5105180-3221187-C056351", '
        '"refundAmount": {"amount": "14.00", "currencyCode": "USD"}, "softDescriptor": "Descriptor", '
        '"creationTimestamp": "20190714T155300Z", "statusDetails": {"state": "Declined", '
        '"reasonCode": "AmazonRejected", "reasonDescription": "The refund was rejected.", '
        '"lastUpdatedTimestamp": "20190714T155500Z"}, "releaseEnvironment": "Sandbox", "account": "us", '
        '"revision": 2, "final": true, "conflict": false, "backfill": false, '
        '"orderReference": null, "refundType": null, '
        '"retryable": null, "retryableReasons": [], "asOf": null, "chargeReadAt": null, '
        '"retryOf": null, "retryRoot": null, "retriedBy": null, "retryRefused": null, "resolution": null, '
        '"issuedBy": null, "issuedByUser": null, "unreadFields": [], '
        '"firstSeenAt": "2019-07-14T15:53:01.000Z", "changedAt": "2019-07-14T16:00:00.250Z", '
        '"source": "notification"}'
    )


def test_what_amazon_did_not_tell_is_null_and_never_missing() -> None:
    """Of a refund of which only the state is known, every other key of Amazon's is there, and null."""
    bare = Refund(
        account="us",
        refund_id="P01-1-2-R3",
        state="RefundInitiated",
        revision=1,
        updated_at=0,
        first_seen_at=0,
        changed_at=0,
        source=Source.POLL,
    )
    shape = as_json(refund_json(bare))
    assert list(shape) == list(as_json(refund_json(a_refund())))
    assert {key for key, value in shape.items() if value is None} == {
        "chargeId",
        "refundAmount",
        "softDescriptor",
        "creationTimestamp",
        "releaseEnvironment",
        "orderReference",
        "refundType",
        "retryable",
        "asOf",
        "chargeReadAt",
        "retryOf",
        "retryRoot",
        "retriedBy",
        "retryRefused",
        "resolution",
        "issuedBy",
        "issuedByUser",
    }
    assert shape["statusDetails"] == {
        "state": "RefundInitiated",
        "reasonCode": None,
        "reasonDescription": None,
        "lastUpdatedTimestamp": None,
    }
    assert shape["final"] is False


def test_a_revision_uses_the_names_and_forms_of_the_refund() -> None:
    """The whole JSON of a line of history, in its order."""
    revision = Revision(
        revision=2,
        at=1_563_120_000_250,
        state="Declined",
        updated_at=1_563_119_700_000,
        source=Source.NOTIFICATION,
        reason_code="AmazonRejected",
    )
    assert json.dumps(as_json(revision_json(revision))) == (
        '{"statusDetails": {"state": "Declined", "reasonCode": "AmazonRejected", '
        '"lastUpdatedTimestamp": "20190714T155500Z"}, "revision": 2, "final": true, "conflict": false, '
        '"changedAt": "2019-07-14T16:00:00.250Z", "source": "notification", "issuedBy": null, "issuedByUser": null, '
        '"resolution": null}'
    )


@given(refunds(any_text))
def test_any_refund_can_be_encoded(refund: Refund) -> None:
    """Whatever texts Amazon sends, the JSON is UTF-8 that a parser reads back alike."""
    shape = refund_json(refund)
    assert as_json(shape) == msgspec.to_builtins(shape)


@given(any_text, st.integers(1, 50))
def test_tidy_bounds_a_text_and_is_settled_after_once(text: str, limit: int) -> None:
    """A tidy text is printable, not longer than the limit, and tidied again the same."""
    once = tidy(text, limit)
    assert once.isprintable()
    assert len(once) <= limit
    assert tidy(once, limit) == once


def test_tidy_leaves_other_scripts_alone() -> None:
    """Japanese and accents stay; a line break becomes a space, a direction override too."""
    assert tidy("返金は拒否されました – é") == "返金は拒否されました – é"
    assert tidy(" a\nb\u202ec ") == "a b c"
    assert tidy("x" * 200) == "x" * 127 + "…"


@given(times)
def test_amazons_form_of_a_time_loses_nothing(ms: int) -> None:
    """Written and read back, a time is the same, milliseconds and early years included."""
    assert parse_time(amazon_time(ms)) == ms


def test_milliseconds_are_written_only_where_there_are_some() -> None:
    """Amazon's API knows whole seconds; only the XML generation has more."""
    assert amazon_time(1_563_119_580_000) == "20190714T155300Z"
    assert amazon_time(1_563_119_580_050) == "20190714T155300.050Z"
