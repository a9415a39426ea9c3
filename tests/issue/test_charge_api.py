"""A charge over HTTP and on the command line: what is left of it, and refunds of all that is left."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from receiver.ledger.charge_book import MOST_REFUNDS
from receiver.simulator.outcomes import Outcome
from receiver.track import charges
from tests.http.kit import READER
from tests.issue.counter import CHARGE, Counter, charge, shop, told
from tests.kit.processes import until
from tests.service.desk import Cut, Desk, Held, http
from tests.service.stage import Amazon

Shop = tuple[Counter, Amazon]
Told = tuple[Counter, Desk]
REFUND = "S01-5105180-3221187-R000001"


@pytest.fixture
async def open_shop(redis: Any, valkey_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with shop(valkey_url, tmp_path) as found:
        yield found


@pytest.fixture
async def open_desk(redis: Any, valkey_url: str) -> AsyncIterator[Told]:
    async with told(valkey_url) as found:
        yield found


async def show(counter: Counter, charge_id: str, query: str = "") -> tuple[int, Any]:
    status, body, _ = await counter.call("GET", f"/v1/charges/{charge_id}{query}", token=READER)
    return status, body


async def known(counter: Counter, charge_id: str = CHARGE, entry: str = "1400 Refunded 1 USD") -> None:
    """A refund of the charge is known here, and Amazon has not described the charge."""
    await counter.stage.redis.hset(f"refunds:{{us}}:charge:{charge_id}", REFUND, entry)


async def forget_minute(counter: Counter, charge_id: str) -> None:
    """The stored description is two minutes old."""
    key = f"refunds:{{us}}:charges:{charge_id}"
    kept = json.loads(await counter.stage.redis.get(key))
    kept["read_at"] -= 120_000
    await counter.stage.redis.set(key, json.dumps(kept), keepttl=True)


def described(amazon: Amazon) -> int:
    """How often Get Charge was called."""
    return sum(each.call == "get_charge" for each in amazon.calls)


def amount(money: Any) -> str | None:
    return str(money["amount"]) if money else None


async def test_a_charge_is_divided_among_its_refunds(open_shop: Shop) -> None:
    """One is refunded, one declined, one pending; the rest is left, with and without the allowance."""
    counter, amazon = open_shop
    charge_id = amazon.open_charge("100.00", "USD", reference="order-7")
    made = {}
    for cents, state in (("10.00", "Refunded"), ("20.01", "Declined")):
        _, body = await counter.create(charge_id, cents, key=cents)
        made[state] = body["refundId"]
    amazon.move()
    for state, refund_id in made.items():
        await counter.shows(refund_id, state)
    _, pending = await counter.create(charge_id, "5.00", key="pending")
    await forget_minute(counter, charge_id)
    status, found = await show(counter, charge_id)
    assert status == 200, found
    sums = {name: amount(money) for name, money in found["known"].items()}
    assert sums == {"refunded": "10.00", "pending": "5.00", "reserved": "0.00", "inConflict": "0.00"}
    assert [amount(found[name]) for name in ("captureAmount", "refundedAmount", "refundable")] == [
        *("100.00", "10.00", "85.00")
    ]
    assert amount(found["refundableWithAllowance"]) == "100.00"
    assert [each["refundId"] for each in found["refunds"]] == [pending["refundId"], made["Declined"], made["Refunded"]]
    assert found["refunds"][1]["retryable"] is True
    assert (found["refundCount"], found["mostRefunds"]) == (2, MOST_REFUNDS)
    assert (found["state"], found["orderReference"], found["account"]) == ("Captured", "order-7", "us")
    assert (found["refreshError"], found["refundableReasons"], found["disputes"]) == (None, [], [])


async def test_amazon_is_asked_once_a_minute(open_shop: Shop) -> None:
    counter, amazon = open_shop
    charge_id = amazon.open_charge("100.00", "USD")
    _, first = await show(counter, charge_id)
    _, again = await show(counter, charge_id)
    assert (described(amazon), first["chargeReadAt"]) == (1, again["chargeReadAt"])
    amazon.start_refund("30.00", "USD", Outcome.REFUNDED_AT_ONCE, charge_id)
    await forget_minute(counter, charge_id)
    _, later = await show(counter, charge_id)
    assert (described(amazon), amount(later["refundedAmount"]), amount(later["refundable"])) == (2, "30.00", "70.00")


async def test_those_who_look_at_the_same_time_share_one_question(open_desk: Told) -> None:
    counter, desk = open_desk
    go = asyncio.Event()
    desk.charge = Held(charge(), go)
    looks = [asyncio.create_task(show(counter, CHARGE)) for _ in range(8)]
    await until(lambda: desk.charges_asked == 1, "Amazon is asked")
    go.set()
    assert {status for status, _ in await asyncio.gather(*looks)} == {200}
    assert desk.charges_asked == 1


SILENT: dict[str, tuple[Any, str]] = {
    "silence": (Held(), "amazon_timeout"),
    "a cut": (Cut(), "amazon_cut"),
    "throttled": (http(429), "amazon_throttled"),
    "our key is wrong": (http(403, b'{"reasonCode": "UnauthorizedAccess"}'), "amazon_refuses_us"),
    "gone": (http(404), "amazon_not_found"),
    "nonsense": (http(200, b"{}"), "amazon_unintelligible"),
}


@pytest.mark.parametrize("case", SILENT)
async def test_what_is_known_is_shown_if_amazon_does_not_describe_the_charge(
    open_desk: Told, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """With the reason, and no amount that only Amazon knows. The API does not wait long."""
    counter, desk = open_desk
    desk.charge, reason = SILENT[case]
    if reason == "amazon_timeout":
        monkeypatch.setattr(charges, "RECENT_WITHIN", 0.2)
    await known(counter)
    status, found = await show(counter, CHARGE)
    assert status == 200, found
    assert (found["refreshError"], found["chargeReadAt"], found["state"]) == (reason, None, None)
    assert (found["captureAmount"], found["refundable"], found["refundableWithAllowance"]) == (None, None, None)
    assert (amount(found["known"]["refunded"]), found["refundCount"]) == ("14.00", 1)
    assert (found["refundableReasons"], found["unreadable"]) == (["not_enough_known"], [REFUND])


@pytest.mark.parametrize("case", SILENT)
async def test_where_nothing_is_known_the_reason_is_the_answer(
    open_desk: Told, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    counter, desk = open_desk
    desk.charge, reason = SILENT[case]
    if reason == "amazon_timeout":
        monkeypatch.setattr(charges, "RECENT_WITHIN", 0.2)
    status, problem = await show(counter, CHARGE)
    expected = (404, "no_such_charge") if reason == "amazon_not_found" else (502, reason)
    assert (status, problem["reason"]) == expected


async def test_an_old_description_is_shown_with_its_time(open_desk: Told) -> None:
    counter, desk = open_desk
    desk.charge = charge()
    _, first = await show(counter, CHARGE)
    await forget_minute(counter, CHARGE)
    desk.charge = http(503)
    _, later = await show(counter, CHARGE)
    assert amount(later["captureAmount"]) == "100.00"
    assert later["refreshError"].startswith("amazon_")
    assert later["chargeReadAt"] < first["chargeReadAt"]


async def test_an_answer_that_comes_too_late_serves_the_next_call(
    open_desk: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charges, "RECENT_WITHIN", 0.1)
    counter, desk = open_desk
    go = asyncio.Event()
    desk.charge = Held(charge(), go)
    assert (await show(counter, CHARGE))[0] == 502
    go.set()
    monkeypatch.setattr(charges, "RECENT_WITHIN", 3.0)
    status, found = await show(counter, CHARGE)
    assert (status, amount(found["captureAmount"]), desk.charges_asked) == (200, "100.00", 1)


async def test_questions_to_amazon_count_as_refreshes(redis: Any, valkey_url: str) -> None:
    """A known charge is shown as it is known; an unknown one waits."""
    async with told(valkey_url, http={"refreshes": 1}) as (counter, desk):
        assert (await show(counter, CHARGE))[0] == 200
        await forget_minute(counter, CHARGE)
        status, found = await show(counter, CHARGE)
        assert (status, found["refreshError"]) == (200, "too_many_refreshes")
        status, problem, headers = await counter.call("GET", f"/v1/charges/{CHARGE[:-1]}7", token=READER)
        assert (status, problem["reason"]) == (429, "too_many_refreshes")
        assert int(headers["Retry-After"]) > 0
        assert desk.charges_asked == 1


async def test_those_who_look_leave_tokens_to_refunds(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """A quarter of the burst: a refund is issued even if callers read charges as fast as they can."""
    throttle = {"get_charge": [4, 0.001], "create_refund": [1000, 1000]}
    async with shop(valkey_url, tmp_path, throttle=throttle) as (counter, amazon):
        made = [amazon.open_charge("100.00", "USD") for _ in range(4)]
        statuses = [(await show(counter, charge_id))[0] for charge_id in made]
        assert statuses == [200, 200, 200, 502]
        assert (await counter.create(made[3]))[0] == 201


BAD = {
    "a refund": (REFUND, 400, "bad_charge_id"),
    "no id": ("a*b", 400, "bad_charge_id"),
    "a long id": ("S" * 65, 400, "bad_charge_id"),
    "another parameter": (f"{CHARGE}?wait=1", 400, "unknown_parameter"),
    "no such account": (f"{CHARGE}?account=eu", 404, "no_such_account"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_input_is_told_with_its_reason_and_amazon_is_not_asked(open_desk: Told, case: str) -> None:
    counter, desk = open_desk
    path, *expected = BAD[case]
    status, problem = await show(counter, path)
    assert [status, problem["reason"]] == expected
    assert ("This is the id of a refund" in problem["detail"]) is (path == REFUND)
    assert desk.charges_asked == 0


async def test_the_account_is_the_one_that_knows_the_charge(redis: Any, valkey_url: str) -> None:
    """Where none knows it, or several do, it has to be named."""
    async with told(valkey_url, two=True) as (counter, _):
        status, problem = await show(counter, CHARGE)
        assert (status, problem["reason"]) == (409, "account_needed")
        status, found = await show(counter, CHARGE, "?account=eu")
        assert (status, found["account"]) == (200, "eu")

        async def named() -> bool:
            """Amazon's description is stored after the answer was sent."""
            status, found = await show(counter, CHARGE)
            return (status, found.get("account")) == (200, "eu")

        await until(named, "the account that knows the charge is found")
        await known(counter)
        status, problem = await show(counter, CHARGE)
        assert (status, problem["reason"]) == (409, "several_accounts")
        assert (await show(counter, CHARGE, "?account=us"))[1]["account"] == "us"


async def test_a_damaged_book_hides_only_what_it_says(open_desk: Told) -> None:
    counter, _ = open_desk
    await known(counter, entry="nonsense")
    status, found = await show(counter, CHARGE)
    assert status == 200, found
    assert (amount(found["captureAmount"]), found["refundable"], found["refundCount"]) == ("100.00", None, None)
    assert found["refundableReasons"] == ["charge_unreadable"]


async def test_a_refund_of_all_that_is_left(open_shop: Shop) -> None:
    counter, amazon = open_shop
    charge_id = amazon.open_charge("100.00", "USD")
    await counter.create(charge_id, "14.00", key="part")
    wish = {"chargeId": charge_id, "full": True}
    status, body, _ = await counter.call("POST", "/v1/refunds", wish, key="full")
    assert (status, amount(body["refundAmount"])) == (201, "86.00")
    again, same, _ = await counter.call("POST", "/v1/refunds", wish, key="full")
    assert (again, same["refundId"]) == (201, body["refundId"])
    status, problem, _ = await counter.call("POST", "/v1/refunds", wish, key="other")
    assert (status, problem["reason"]) == (409, "nothing_left")
    _, shown = await show(counter, charge_id)
    assert (amount(shown["refundable"]), shown["refundableReasons"]) == ("0.00", ["nothing_left"])
    (request_id,) = {hashlib.sha256(b"full").hexdigest()}
    assert (await counter.request(request_id))["full"] is True


@pytest.mark.parametrize("full", ["yes", 1, None, {}, True])
async def test_full_is_true_and_has_no_amount(open_shop: Shop, full: Any) -> None:
    counter, amazon = open_shop
    wish = {"refundAmount": {"amount": "1.00", "currencyCode": "USD"}} if full is True else {}
    body = {"chargeId": amazon.open_charge("100.00", "USD"), "full": full, **wish}
    status, problem, _ = await counter.call("POST", "/v1/refunds", body, key="k")
    assert (status, problem["reason"]) == (400, "bad_full")
    assert "refundAmount" in problem["detail"]
    assert not amazon.refunds


async def test_full_false_needs_an_amount(open_shop: Shop) -> None:
    counter, amazon = open_shop
    charge_id = amazon.open_charge("100.00", "USD")
    status, problem, _ = await counter.call("POST", "/v1/refunds", {"chargeId": charge_id, "full": False}, key="k")
    assert (status, problem["reason"]) == (400, "bad_amount")
    assert '"full": true' in problem["detail"]
    assert (await counter.create(charge_id, "14.00", full=False))[0] == 201


async def test_scopes(open_shop: Shop) -> None:
    counter, amazon = open_shop
    charge_id = amazon.open_charge("100.00", "USD")
    status, problem, _ = await counter.call("GET", f"/v1/charges/{charge_id}", token="nothing")
    assert (status, problem["reason"]) == (401, "token_unknown")
    status, problem, _ = await counter.call(
        "POST", "/v1/refunds", {"chargeId": charge_id, "full": True}, key="k", token=READER
    )
    assert (status, problem["reason"]) == (403, "scope_missing")


async def test_the_commands(open_shop: Shop) -> None:
    """What is left, the refund of it, and nothing left; for people and for programs."""
    counter, amazon = open_shop
    charge_id = amazon.open_charge("100.00", "USD", reference="order-7")
    await counter.create(charge_id, "14.00", key="part")
    ran = await counter.run("charge", "show", charge_id, token=READER)
    assert ran.code == 0, ran
    shown = " ".join(ran.out.split())
    for text in ("Captured 100.00 USD", "Pending 14.00 USD", "Left 86.00 USD", "With allowance 101.00 USD"):
        assert text in shown
    assert "Refunds 1 of 10" in shown
    assert "In conflict" not in shown
    ran = await counter.run("refund", "create", charge_id, "--full", "--key", "k1", "--json")
    assert (ran.code, json.loads(ran.out)["refundAmount"]["amount"]) == (0, "86.00")
    ran = await counter.run("charge", "show", charge_id, "--json", token=READER)
    assert (ran.code, json.loads(ran.out)["refundableReasons"]) == (0, ["nothing_left"])
    ran = await counter.run("refund", "create", charge_id, "--full")
    assert (ran.code, ran.out) == (1, "")
    assert "[409 nothing_left]" in ran.err


@pytest.mark.parametrize("arguments", [("14.00", "USD", "--full"), ("14.00",), ("14.00", "--full"), ()])
async def test_the_command_needs_an_amount_or_full(open_shop: Shop, arguments: tuple[str, ...]) -> None:
    counter, amazon = open_shop
    ran = await counter.run("refund", "create", amazon.open_charge("100.00", "USD"), *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "either AMOUNT and CURRENCY, or --full" in " ".join(ran.err.replace("│", " ").split())
    assert not amazon.refunds


async def test_the_command_says_what_amazon_did_not(open_desk: Told) -> None:
    """It also shows what is open, in conflict, disputed or without a record."""
    counter, desk = open_desk
    desk.charge = http(503)
    await known(counter, entry="1400 Declined 1 USD conflict")
    ran = await counter.run("charge", "show", CHARGE, token=READER)
    shown = " ".join(ran.out.split())
    assert ran.code == 0, ran
    assert "never described by Amazon" in shown
    assert "In conflict 14.00 USD" in shown
    assert "charge_in_conflict" in shown
    assert "This is what is known." in ran.err
    assert REFUND in ran.err
