"""Amazon's refunds and charges as values: tolerant of what is absent, strict about what is garbled."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from receiver.amazon.calls import read_charge, read_refund
from receiver.errors import AmazonOutcomeUnknown
from receiver.exchange import Response
from receiver.ledger.charge import Charge
from receiver.ledger.money import Money
from receiver.ledger.refund import FIELD_NAMES, UNKNOWN_STATE, Observation, Unread
from tests.amazon.examples import CHARGE, CHARGE_ID, REFUND, REFUND_ID, answer


def changed(values: dict[str, Any], **members: Any) -> Response:
    return answer({**values, **members})


def status(**members: Any) -> Response:
    return changed(REFUND, statusDetails={**REFUND["statusDetails"], **members})


def unintelligible(read: Callable[[], object]) -> None:
    with pytest.raises(AmazonOutcomeUnknown) as caught:
        read()
    assert caught.value.reason == "amazon_unintelligible"
    assert caught.value.amazon_status == 200


@pytest.mark.parametrize("code", [200, 201, 202])
def test_a_refund_is_read_whole(code: int) -> None:
    """Get answers 200, Create 201; any 2xx with a refund in it is one."""
    assert read_refund(answer(REFUND, code), REFUND_ID) == Observation(
        refund_id=REFUND_ID,
        state="Declined",
        updated_at=1_563_119_581_000,
        charge_id=CHARGE_ID,
        amount=Money(Decimal("14.00"), "USD"),
        reason_code="AmazonRejected",
        reason_description="It was rejected.",
        soft_descriptor="Descriptor",
        created_at=1_563_119_580_000,
        environment="Sandbox",
    )


def test_what_is_absent_is_tolerated() -> None:
    """Id and state are enough; null and an empty text are the same as absent."""
    least = {"refundId": REFUND_ID, "statusDetails": {"state": "Refunded"}}
    expected = Observation(refund_id=REFUND_ID, state="Refunded", updated_at=0)
    nulls: dict[str, Any] = dict.fromkeys(REFUND) | least
    nulls["statusDetails"] = dict.fromkeys(REFUND["statusDetails"]) | {"state": "Refunded"}
    assert read_refund(answer(least)) == expected
    assert read_refund(answer(nulls)) == expected
    assert read_refund(changed(nulls, softDescriptor="", refundAmount={"amount": None})) == expected


def test_unknown_keys_are_passed_over() -> None:
    """`disbursementDetails` comes back in practice, and more may."""
    assert read_refund(changed(REFUND, disbursementDetails=None, more=[{"x": 1.5}])).state == "Declined"


def test_the_older_name_of_the_status_is_read() -> None:
    """`statusDetail` in the first version of the API."""
    older = {name: value for name, value in REFUND.items() if name != "statusDetails"}
    assert read_refund(changed(older, statusDetail=REFUND["statusDetails"])) == read_refund(answer(REFUND))


@pytest.mark.parametrize(
    ("said", "state"),
    [("Pending", "RefundInitiated"), ("Completed", "Refunded"), ("Declined", "Declined"), ("OnHold_2", "OnHold_2")],
)
def test_states_have_aliases_and_unknown_ones_are_kept(said: str, state: str) -> None:
    """The older words are mapped; an undocumented word stays as it is."""
    assert read_refund(status(state=said)).state == state


@pytest.mark.parametrize(("said", "reason"), [(None, ""), ("None", ""), ("", ""), ("New-Reason", "New-Reason")])
def test_no_reason_is_an_empty_text(said: str | None, reason: str) -> None:
    """null, or the text `None` of the XML generation; unknown reasons are kept."""
    assert read_refund(status(reasonCode=said)).reason_code == reason


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (b"14.10", "14.10"),
        (b"14", "14"),
        (b"0.1", "0.1"),
        (b"2.675", "2.675"),
        (b"123456789012.1234", "123456789012.1234"),
        (b'"14.00"', "14.00"),
    ],
)
def test_an_amount_may_be_a_number_or_a_text_and_is_never_a_float(amount: bytes, expected: str) -> None:
    """Every digit as it was written."""
    written = answer(REFUND).body.replace(b'"14.00"', amount)
    money = read_refund(answer(written)).amount
    assert money is not None
    assert str(money.amount) == expected


def test_without_a_last_update_none_is_guessed() -> None:
    """The creation is another time: a refund that was created long ago may have been declined today."""
    assert read_refund(status(lastUpdatedTimestamp=None)).updated_at == 0


def test_times_may_be_extended_with_a_fraction() -> None:
    """As the first version of the API wrote them."""
    assert read_refund(status(lastUpdatedTimestamp="2019-07-14T15:53:01.250Z")).updated_at == 1_563_119_581_250


@pytest.mark.parametrize(
    "garbled",
    [
        {"refundId": None},
        {"refundId": 7},
        {"refundId": "a/b"},
        {"refundId": "R" * 65},
        {"statusDetails": None},
        {"statusDetails": "Refunded"},
        {"statusDetails": {}},
        {"statusDetails": {"state": ""}},
        {"statusDetails": {"state": 1}},
        {"statusDetails": {"state": "x" * 65}},
        {"statusDetails": {"state": "Re funded"}},
        {"statusDetails": {"state": ["Refunded"]}},
        {"statusDetails": [{"state": "Refunded"}]},
    ],
)
def test_without_an_id_and_a_state_the_answer_is_unintelligible(garbled: dict[str, Any]) -> None:
    """Nothing is guessed."""
    unintelligible(lambda: read_refund(changed(REFUND, **garbled)))


TEXT = "not_a_text"
UNREAD_STATUS: list[tuple[str, Any, str]] = [
    ("reasonCode", ["x"], TEXT),
    ("reasonCode", 7, TEXT),
    ("reasonCode", False, TEXT),
    ("reasonCode", "Amazon Rejected", "bad_word"),
    ("reasonCode", "Refund.AmazonRejected", "bad_word"),
    ("reasonCode", "A" * 80, "bad_word"),
    ("reasonCode", " AmazonRejected", "bad_word"),
    ("reasonCode", "Amazon\x00Rejected", "bad_word"),
    ("reasonCode", "\ud800", "bad_word"),
    ("reasonDescription", {"en": "no"}, TEXT),
    ("reasonDescription", 1, TEXT),
    ("lastUpdatedTimestamp", "yesterday", "bad_timestamp"),
    ("lastUpdatedTimestamp", "20191399T999999Z", "bad_timestamp"),
    ("lastUpdatedTimestamp", "20190229T000000Z", "bad_timestamp"),
    ("lastUpdatedTimestamp", "2019-07-14T15:53:01+00:00", "bad_timestamp"),
    ("lastUpdatedTimestamp", "2019-07-14 15:53:01Z", "bad_timestamp"),
    ("lastUpdatedTimestamp", "٢٠١٩0714T155301Z", "bad_timestamp"),
    ("lastUpdatedTimestamp", 1_563_119_581, "bad_timestamp"),
    ("lastUpdatedTimestamp", {}, "bad_timestamp"),
]
UNREAD_TOP: list[tuple[str, Any, str]] = [
    ("refundAmount", "14.00", "not_an_object"),
    ("refundAmount", [], "not_an_object"),
    ("refundAmount", {"amount": "-1", "currencyCode": "USD"}, "bad_amount"),
    ("refundAmount", {"amount": True, "currencyCode": "USD"}, "bad_amount"),
    ("refundAmount", {"amount": "1e3", "currencyCode": "USD"}, "bad_amount"),
    ("refundAmount", {"amount": "1,000.00", "currencyCode": "USD"}, "bad_amount"),
    ("refundAmount", {"amount": "9" * 40, "currencyCode": "USD"}, "bad_amount"),
    ("refundAmount", {"amount": ["1"], "currencyCode": "USD"}, "bad_amount"),
    ("refundAmount", {"amount": "1", "currencyCode": "usd"}, "bad_currency"),
    ("refundAmount", {"amount": "1", "currencyCode": None}, "bad_currency"),
    ("refundAmount", {"amount": "1"}, "bad_currency"),
    ("chargeId", {}, TEXT),
    ("chargeId", "C" * 100, "bad_id"),
    ("chargeId", "a/b", "bad_id"),
    ("softDescriptor", 5, TEXT),
    ("softDescriptor", ["a"], TEXT),
    ("creationTimestamp", "2019-02-30T00:00:00Z", "bad_timestamp"),
    ("releaseEnvironment", 3, TEXT),
    ("releaseEnvironment", "Sand box", "bad_word"),
]
EMPTY = {"refundAmount": None, "creationTimestamp": 0, "lastUpdatedTimestamp": 0}


@pytest.mark.parametrize(("name", "value", "reason"), [*UNREAD_STATUS, *UNREAD_TOP])
def test_a_field_that_cannot_be_read_is_empty_and_noted_and_hides_nothing_else(
    name: str, value: Any, reason: str
) -> None:
    """Id and state are enough. Every other field is read as ever."""
    found = read_refund(
        status(**{name: value}) if (name, value, reason) in UNREAD_STATUS else changed(REFUND, **{name: value})
    )
    expected = msgspec.structs.replace(
        read_refund(answer(REFUND)),
        **{FIELD_NAMES[name]: EMPTY.get(name, "")},
        unread=(Unread(name, reason),),
    )
    assert found == expected


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "9" * 5_000, "1e99999999999999999999", "1e400"])
def test_a_number_that_cannot_be_read_spoils_its_own_field_alone(number: str) -> None:
    """Python refuses some as a whole; in an unused field they do not matter."""
    body = answer(REFUND).body
    found = read_refund(answer(body.replace(b'"14.00"', number.encode())))
    assert (found.state, found.amount, found.unread) == ("Declined", None, (Unread("refundAmount", "bad_amount"),))
    found = read_refund(answer(body.replace(b'"Descriptor"', number.encode())))
    assert (found.soft_descriptor, found.unread) == ("", (Unread("softDescriptor", TEXT),))
    more = b'{"disbursementDetails":%s,%s' % (number.encode(), body[1:])
    assert read_refund(answer(more)) == read_refund(answer(REFUND))


def test_a_byte_that_is_not_utf_8_spoils_its_own_field_alone() -> None:
    """Latin-1 in a description."""
    found = read_refund(answer(answer(REFUND).body.replace(b"It was", b"It w\xe4s")))
    assert (found.state, found.reason_description, found.reason_code) == (
        "Declined",
        "It w s rejected.",
        "AmazonRejected",
    )
    found = read_refund(answer(answer(REFUND).body.replace(b"AmazonRejected", b"Amazon\xe4")))
    assert (found.state, found.unread) == ("Declined", (Unread("reasonCode", "bad_word"),))


def test_the_older_name_of_the_status_is_read_where_the_newer_is_no_object() -> None:
    """Whatever the newer field contains, the other has the state."""
    odds: tuple[Any, ...] = (None, [], "Declined", 7)
    for odd in odds:
        assert read_refund(changed(REFUND, statusDetails=odd, statusDetail=REFUND["statusDetails"])).state == "Declined"


@pytest.mark.parametrize("word", ["declined", "DECLINED", "Declined"])
def test_the_case_of_a_states_letters_does_not_count(word: str) -> None:
    """A decline in capitals is a decline."""
    assert read_refund(status(state=word)).state == "Declined"


@pytest.mark.parametrize("details", [None, [], "x", {}, {"state": 5}, {"state": "Refund Initiated"}])
def test_a_new_refund_is_known_by_its_id_alone(details: Any) -> None:
    """A 2xx of Create Refund means that it is made: its id must not be lost because the state is missing."""
    found = read_refund(changed(REFUND, statusDetails=details), is_new=True)
    assert (found.refund_id, found.state) == (REFUND_ID, UNKNOWN_STATE)
    unintelligible(lambda: read_refund(changed(REFUND, refundId="a b"), is_new=True))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"<html>",
        b"\xff\xfe",
        b'{"refundId":NaN}',
        b'{"refundId":1e99999999999999999999}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5_000,
        answer(REFUND).body[:-1],
    ],
    ids=range(12),
)
def test_a_body_that_is_no_object_is_unintelligible(body: bytes) -> None:
    """Whatever a 2xx holds; also the deep and the enormous."""
    unintelligible(lambda: read_refund(answer(body)))
    unintelligible(lambda: read_charge(answer(body)))


def test_a_truncated_body_is_unintelligible() -> None:
    """Even where what came is whole JSON."""
    unintelligible(lambda: read_refund(Response(200, {}, answer(REFUND).body, truncated=True)))


def test_an_answer_about_another_refund_is_not_ours() -> None:
    """A proxy's or a cache's mistake must not change a refund."""
    with pytest.raises(AmazonOutcomeUnknown) as caught:
        read_refund(answer(REFUND), "S01-5105180-3221187-R999999")
    assert caught.value.reason == "amazon_wrong_refund"


def test_texts_are_made_safe_to_log_and_store() -> None:
    """Control characters and lone surrogates are gone, the length is bounded."""
    description = read_refund(status(reasonDescription="a\x00\n\x1b[31mb\ud800 " + "c" * 10_000)).reason_description
    assert description.startswith("a [31mb ccc")
    assert len(description) == 500


def test_a_charge_is_read_whole() -> None:
    """What its refunds need to know."""
    assert read_charge(answer(CHARGE), CHARGE_ID) == Charge(
        charge_id=CHARGE_ID,
        state="Captured",
        charge_permission_id="S01-5105180-3221187",
        captured=Money(Decimal("14.00"), "USD"),
        refunded=Money(Decimal("4.00"), "USD"),
        merchant_reference_id="order 7",
        environment="Sandbox",
    )


def test_a_charge_that_was_not_captured_has_neither_amount() -> None:
    """Nor need there be any metadata."""
    charge = read_charge(changed(CHARGE, captureAmount=None, refundedAmount=None, merchantMetadata=None))
    assert (charge.captured, charge.refunded, charge.merchant_reference_id) == (None, None, "")


def test_an_answer_about_another_charge_is_not_ours() -> None:
    """As for refunds."""
    with pytest.raises(AmazonOutcomeUnknown) as caught:
        read_charge(answer(CHARGE), "S01-5105180-3221187-C999999")
    assert caught.value.reason == "amazon_wrong_charge"


REFERENCE = "merchantReferenceId"


@pytest.mark.parametrize("reference", ["x" * 256, "  two  blanks ", "№ 7 – 訂單\u00a0😀", "a<b>&c", "…"])
def test_an_order_reference_is_kept_whole_and_is_never_altered(reference: str) -> None:
    """Up to 256 characters."""
    charge = read_charge(changed(CHARGE, merchantMetadata={REFERENCE: reference}))
    assert (charge.merchant_reference_id, charge.unread) == (reference, ())


@pytest.mark.parametrize(
    ("metadata", "unread"),
    [
        ({REFERENCE: "x" * 257}, Unread(REFERENCE, "too_long")),
        ({REFERENCE: "a\nb"}, Unread(REFERENCE, "bad_character")),
        ({REFERENCE: "a\x1b[31m"}, Unread(REFERENCE, "bad_character")),
        ({REFERENCE: "\ud800"}, Unread(REFERENCE, "bad_character")),
        ({REFERENCE: 7}, Unread(REFERENCE, "not_a_text")),
        ("order 7", Unread("merchantMetadata", "not_an_object")),
    ],
)
def test_an_order_reference_that_cannot_be_kept_whole_is_null_and_noted(metadata: Any, unread: Unread) -> None:
    """Never cut short: a part of a number is another number."""
    charge = read_charge(changed(CHARGE, merchantMetadata=metadata))
    assert (charge.merchant_reference_id, charge.unread) == ("", (unread,))


@pytest.mark.parametrize(
    ("members", "unread"),
    [
        ({"captureAmount": {"amount": "x", "currencyCode": "USD"}}, Unread("captureAmount", "bad_amount")),
        ({"refundedAmount": {"amount": "4"}}, Unread("refundedAmount", "bad_currency")),
        ({"refundedAmount": {"amount": "4", "currencyCode": "JPY"}}, Unread("refundedAmount", "bad_currency")),
        ({"chargePermissionId": 7}, Unread("chargePermissionId", "not_a_text")),
        ({"releaseEnvironment": []}, Unread("releaseEnvironment", "not_a_text")),
    ],
)
def test_a_field_of_a_charge_that_cannot_be_read_is_noted(members: dict[str, Any], unread: Unread) -> None:
    """State and id are enough; what guards money looks at `unread`."""
    charge = read_charge(changed(CHARGE, **members))
    assert (charge.state, charge.unread) == ("Captured", (unread,))
    assert charge.has_unread(unread.field)
