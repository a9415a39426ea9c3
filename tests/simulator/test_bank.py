"""The simulator's books: Amazon's rules for refunds, idempotency keys, and outcomes in time. No sockets, no clock."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.simulator.amounts import Amount, most_refundable
from receiver.simulator.bank import Bank, Order
from receiver.simulator.faults import Fault
from receiver.simulator.notifications.fault_injection import FaultInjection, Trick, read_header
from receiver.simulator.outcomes import BY_CENTS, STEPS, Outcome
from receiver.simulator.shapes import read_create_refund, read_key
from receiver.simulator.throttle import LIVE, SANDBOX, Throttle

DELAY = 30_000


def bank(environment: str = "sandbox") -> Bank:
    return Bank(environment, lambda: 0.5, DELAY)


def usd(text: str) -> Amount:
    return Amount.read(text, "USD")


def codes(fault: pytest.ExceptionInfo[Fault]) -> tuple[int, str]:
    return fault.value.status, fault.value.reason_code


@pytest.mark.parametrize(
    ("captured", "currency", "most"),
    [
        ("100.00", "USD", "115.00"),
        ("500.00", "EUR", "575.00"),
        ("1000.00", "GBP", "1075.00"),
        ("10000", "JPY", "11500"),
        ("56000", "JPY", "64400"),
        ("90000", "JPY", "98400"),
        ("0.10", "USD", "0.11"),
        ("100.00", "SEK", "100.00"),
    ],
)
def test_a_little_more_than_the_charge_may_be_refunded(captured: str, currency: str, most: str) -> None:
    """The lesser of 15 % and 75 USD, GBP, EUR or 8,400 JPY over the captured amount; and not a cent more."""
    books = bank()
    charge = books.open_charge(Amount.read(captured, currency), 0)
    allowed = Amount.read(most, currency)
    assert most_refundable(charge.amount) == allowed.minor
    with pytest.raises(Fault) as caught:
        books.start(Order(charge.charge_id, Amount(allowed.minor + 1, currency)), 0)
    assert codes(caught) == (422, "TransactionAmountExceeded")
    books.start(Order(charge.charge_id, allowed), 0)


def test_refunds_under_way_count_and_declined_ones_do_not() -> None:
    """What is not yet decided is spent; what was declined is free again."""
    books = bank()
    charge = books.open_charge(usd("100.00"), 0)
    order = Order(charge.charge_id, usd("60.00"))
    books.start(order, 0, Outcome.AMAZON_REJECTED)
    with pytest.raises(Fault):
        books.start(order, 1)
    books.advance(DELAY)
    books.start(order, DELAY)
    assert books.refunded(charge) == 0
    books.advance(2 * DELAY)
    assert books.refunded(charge) == 6000


def test_a_charge_has_at_most_ten_refunds() -> None:
    """The eleventh is refused."""
    books = bank()
    charge = books.open_charge(usd("100.00"), 0)
    ids = {books.start(Order(charge.charge_id, usd("1.00")), 0).refund.refund_id for _ in range(10)}
    assert len(ids) == 10
    with pytest.raises(Fault) as caught:
        books.start(Order(charge.charge_id, usd("1.00")), 0)
    assert codes(caught) == (422, "TransactionCountExceeded")


def test_only_a_captured_charge_in_the_same_currency_is_refunded() -> None:
    """Unknown: 404; another state: 422; another currency: 400."""
    books = bank()
    found = []
    authorized = books.open_charge(usd("9.00"), 0, state="Authorized").charge_id
    captured = books.open_charge(usd("9.00"), 0).charge_id
    for order in (
        Order("S01-0-0-C0", usd("1.00")),
        Order(authorized, usd("1.00")),
        Order(captured, Amount.read("1.00", "EUR")),
    ):
        with pytest.raises(Fault) as caught:
            books.start(order, 0)
        found.append(codes(caught))
    assert found == [(404, "ResourceNotFound"), (422, "InvalidChargeStatus"), (400, "CurrencyMismatch")]
    assert not books.refunds


@pytest.mark.parametrize(("environment", "letter"), [("sandbox", "S"), ("live", "P")])
def test_ids_look_like_amazons(environment: str, letter: str) -> None:
    """Prefix by environment; the refund's id begins with the charge permission's."""
    books = bank(environment)
    charge = books.open_charge(usd("9.00"), 0)
    refund_id = books.start(Order(charge.charge_id, usd("1.00")), 0).refund.refund_id
    assert re.fullmatch(letter + r"01-\d{7}-\d{7}-C\d{6}", charge.charge_id)
    assert re.fullmatch(letter + r"01-\d{7}-\d{7}-R\d{6}", refund_id)
    assert refund_id[:19] == charge.charge_id[:19] == charge.permission_id


@pytest.mark.parametrize("outcome", list(Outcome))
def test_each_outcome_goes_through_its_steps_one_delay_after_the_other(outcome: Outcome) -> None:
    """A millisecond before its time a step has not happened; at its time it has."""
    books = bank()
    charge = books.open_charge(usd("9.00"), 0)
    refund = books.start(Order(charge.charge_id, usd("1.00")), 1_000, outcome).refund
    first, *rest = STEPS[outcome]
    assert (refund.state, refund.reason, refund.updated_at) == (first.state, first.reason, 1_000)
    for step in rest:
        at = 1_000 + step.delays * DELAY
        assert books.next_at() == at
        assert books.advance(at - 1) == []
        assert [change.state_change.at for change in books.advance(at)] == [at]
        assert (refund.state, refund.reason, refund.updated_at) == (step.state, step.reason, at)
    assert refund.settled
    assert books.next_at() is None


def test_what_happened_while_nobody_looked_is_told_in_order() -> None:
    """Two refunds, four changes, one late look."""
    books = bank()
    charge = books.open_charge(usd("9.00"), 0)
    first = books.start(Order(charge.charge_id, usd("1.00")), 0, Outcome.CONTRADICTED).refund
    second = books.start(Order(charge.charge_id, usd("1.00")), 10_000).refund
    told = [
        (change.refund.refund_id, change.state_change.at, change.state_change.state) for change in books.advance(10**9)
    ]
    assert told == [
        (first.refund_id, DELAY, "Refunded"),
        (second.refund_id, 10_000 + DELAY, "Refunded"),
        (first.refund_id, 2 * DELAY, "Declined"),
    ]


@pytest.mark.parametrize(("text", "currency"), [("12.0{}", "USD"), ("120{}", "JPY")])
def test_the_cents_choose_the_outcome(text: str, currency: str) -> None:
    """The table of `outcomes.py`; 0 is simply refunded."""
    for cents in range(10):
        books = bank()
        charge = books.open_charge(Amount.read("9000", currency), 0)
        amount = Amount.read(text.format(cents), currency)
        assert books.start(Order(charge.charge_id, amount), 0).refund.outcome is BY_CENTS.get(cents, Outcome.REFUNDED)


def test_an_idempotency_key_brings_the_stored_answer_or_a_refusal() -> None:
    """Same values: the answer of then. Other values: DuplicateIdempotencyKey. An unused key: nothing."""
    books = bank()
    order = Order("C", usd("1.00"))
    assert books.repeated("k", order) is None
    books.remember("k", order, {"refundId": "R"})
    assert books.repeated("k", Order("C", usd("1.0"))) == {"refundId": "R"}
    with pytest.raises(Fault) as caught:
        books.repeated("k", Order("C", usd("1.01")))
    assert codes(caught) == (400, "DuplicateIdempotencyKey")
    assert books.repeated("l", order) is None


@pytest.mark.parametrize("key", ["", "a" * 33, "a b", "ä", "01234567-89ab-cdef-0123-456789abcdef", "a\n"])
def test_an_idempotency_key_is_32_plain_characters_at_most(key: str) -> None:
    """A UUID with its dashes has 36."""
    with pytest.raises(Fault) as caught:
        read_key(key)
    assert codes(caught) == (400, "InvalidHeaderValue")


MONEY = '{"amount":"14.00","currencyCode":"USD"}'


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "InvalidRequestFormat"),
        ("[]", "InvalidRequestFormat"),
        ('{"chargeId":"C","chargeId":"D","refundAmount":' + MONEY + "}", "InvalidRequestFormat"),
        ('{"chargeId":"C","refundAmount":{"amount":NaN,"currencyCode":"USD"}}', "InvalidRequestFormat"),
        ("[" * 5000, "InvalidRequestFormat"),
        ('{"refundAmount":' + MONEY + "}", "MissingParameterValue"),
        ('{"chargeId":"C"}', "MissingParameterValue"),
        ('{"chargeId":"C","refundAmount":{"amount":"1"}}', "MissingParameterValue"),
        ('{"chargeId":7,"refundAmount":' + MONEY + "}", "InvalidParameterValue"),
        ('{"chargeId":"C","refundAmount":"14.00"}', "InvalidParameterValue"),
        ('{"chargeId":"C","refundAmount":' + MONEY + ',"softDescriptor":"12345678901234567"}', "InvalidParameterValue"),
        ('{"chargeId":"C","refundAmount":' + MONEY + ',"note":"x"}', "UnrecognizedField"),
        ('{"chargeId":"C","refundAmount":{"amount":"1","currencyCode":"USD","x":1}}', "UnrecognizedField"),
    ],
)
def test_a_body_that_is_not_a_create_refund_is_refused_by_name(body: str, code: str) -> None:
    """With 400 and Amazon's code."""
    with pytest.raises(Fault) as caught:
        read_create_refund(body.encode())
    assert codes(caught) == (400, code)


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("0.00", "USD"), ("-1", "USD"), ("1.001", "USD"), ("1e3", "USD"), ("", "USD"), (" 1", "USD"), (True, "USD"),
        (None, "USD"), ("150000.01", "USD"), ("1.0", "JPY"), ("10000001", "JPY"), ("1", "usd"), ("1", "XXX"),
    ],
)  # fmt: skip
def test_an_amount_that_amazon_would_not_take_is_refused(amount: object, currency: str) -> None:
    """Zero, signs, exponents, more decimals than the currency has, too much, unknown currencies."""
    with pytest.raises(Fault) as caught:
        Amount.read(amount, currency)
    assert codes(caught) == (400, "InvalidParameterValue")


def test_an_amount_may_be_a_json_number() -> None:
    """The .NET SDK sends 12.99 without quotes."""
    for number, minor in ((b"12.99", 1299), (b"12", 1200), (b"1.299e1", 1299)):
        order = read_create_refund(b'{"chargeId":"C","refundAmount":{"amount":%b,"currencyCode":"EUR"}}' % number)
        assert order.amount == Amount(minor, "EUR")


@given(st.integers(1, 15_000_000))
def test_amounts_survive_being_written_and_read(minor: int) -> None:
    """Exactly, to the cent and to the yen."""
    for currency in ("USD", "JPY"):
        amount = Amount(min(minor, 10_000_000), currency)
        assert Amount.read(amount.text, currency) == amount
        assert Amount.read(Decimal(amount.text), currency) == amount


def test_the_buckets_are_amazons() -> None:
    """A burst, then so many per second; calls do not share; what is not named is unlimited."""
    throttle = Throttle(SANDBOX)
    assert [throttle.admits("create_refund", 0) for _ in range(4)] == [True, True, False, False]
    assert throttle.admits("get_refund", 0)
    assert [throttle.admits("create_refund", 1_000) for _ in range(2)] == [True, False]
    assert not throttle.admits("create_refund", 1_900)
    assert throttle.admits("create_refund", 2_000)
    live = Throttle(LIVE)
    assert [live.admits("get_refund", 0) for _ in range(21)].count(True) == 20
    assert all(Throttle({}).admits("get_refund", 0) for _ in range(1000))


def test_rules_of_mischief_fit_what_they_name_and_are_used_up() -> None:
    """By place, refund and state, so many times, in order."""
    plan = FaultInjection(lambda: 0.5)
    plan.add("drop", refund_id="R1", state="Declined")
    plan.add("error", place="get_refund", times=2)
    plan.add("hang", times=None, share=0.4)
    assert plan.take("notification", "R2", "Declined") is None
    assert plan.take("notification", "R1", "Refunded") is None
    taken = plan.take("notification", "R1", "Declined")
    assert taken is not None
    assert taken.trick is Trick.DROP
    assert plan.take("notification", "R1", "Declined") is None
    assert plan.take("get_charge", "C") is None
    assert [plan.take("get_refund", "R") is not None for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    "rule",
    [
        {"trick": "dance"},
        {"trick": "drop", "place": "get_refund"},
        {"trick": "hang", "place": "everywhere"},
        {"trick": "hang", "state": "Declined"},
        {"trick": "hang", "seconds": -1},
        {"trick": "drop", "times": 0},
        {"trick": "forge", "kind": "unheard of"},
        {"trick": "drop", "share": 0},
    ],
)
def test_a_rule_that_could_never_fit_is_refused(rule: dict[str, object]) -> None:
    """At once, not when it is missed."""
    with pytest.raises(ValueError, match=r"\w"):
        FaultInjection(lambda: 0.5).add(**rule)  # type: ignore[arg-type]


def test_the_mischief_header_names_a_trick_and_seconds() -> None:
    """`hang;seconds=2`; tricks on notifications cannot be had this way."""
    rule = read_header("hang;seconds=2")
    assert rule is not None
    assert (rule.trick, rule.seconds) == (Trick.HANG, 2.0)
    assert read_header("") is None
    for wrong in ("drop", "dance", "hang;seconds=x"):
        with pytest.raises(ValueError, match=r"\w"):
            read_header(wrong)
