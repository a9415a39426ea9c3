"""`receiver.client` against the service on a real socket: typed answers and errors, and each refund issued once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from receiver.client import (
    ApiProblem,
    Client,
    ConfigurationError,
    PendingRequestJson,
    RefundJson,
    TransportError,
    calls,
)
from receiver.simulator.engine import CallRecord
from tests.client.cutter import cutting
from tests.http.kit import REFUNDER
from tests.issue.counter import CHARGE, Counter, shop, told
from tests.kit.processes import PROJECT
from tests.service.desk import Cut, refund
from tests.service.stage import Amazon

Shop = tuple[Counter, Amazon]


@pytest.fixture
async def open_shop(redis: Any, valkey_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with shop(valkey_url, tmp_path) as found:
        yield found


def client_of(counter: Counter, **more: Any) -> Client:
    return Client(counter.stage.url, **{"token": REFUNDER, **more})


def created(amazon: Amazon) -> list[CallRecord]:
    return [each for each in amazon.calls if each.call == "create_refund"]


async def declined(counter: Counter, amazon: Amazon, client: Client, key: str = "first") -> str:
    """The id of a refund that Amazon has declined."""
    made = await client.issue(amazon.open_charge("100.00", "USD"), "14.01", "USD", key=key)
    assert isinstance(made, RefundJson)
    amazon.move()
    await counter.shows(made.refund_id, "Declined")
    return made.refund_id


def test_it_loads_nothing_of_the_service() -> None:
    """It loads no web server and no store, and no HTTP client before the first call. deploy/reading.md says how long
    the import takes."""
    heavy = ["uvicorn", "starlette", "redis", "valkey", "aiohttp", "cryptography", "pydantic", "structlog", "typer"]
    code = f"import sys, receiver.client; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


async def test_the_same_key_is_the_same_refund(open_shop: Shop) -> None:
    """An amount as decimal or as text; other values under the key are refused."""
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    async with client_of(counter) as client:
        first = await client.issue(charge, Decimal("14.00"), "USD", key="r-1", order_reference="4711")
        again = await client.issue(charge, "14.00", "USD", key="r-1", order_reference="4711")
        assert isinstance(first, RefundJson)
        assert isinstance(again, RefundJson)
        assert (first.refund_id, first.order_reference) == (again.refund_id, "4711")
        assert first.refund_amount is not None
        assert (first.refund_amount.amount, first.refund_amount.currency_code) == ("14.00", "USD")
        with pytest.raises(ApiProblem, match="key") as caught:
            await client.issue(charge, "15.00", "USD", key="r-1")
        assert (caught.value.status, caught.value.reason) == (409, "idempotency_key_reused")
        rest = await client.issue(charge, full=True, key="r-2")
        assert isinstance(rest, RefundJson)
        assert rest.refund_amount is not None
        assert rest.refund_amount.amount == "86.00"
    assert len(created(amazon)) == 2


@pytest.mark.parametrize(
    ("amount", "error"),
    [
        ({"amount": 14.0, "currency": "USD"}, TypeError),
        ({"amount": "14.00"}, ValueError),
        ({"amount": "14.00", "currency": "USD", "full": True}, ValueError),
        ({}, ValueError),
    ],
)
async def test_an_amount_is_exact_and_whole(amount: dict[str, Any], error: type[Exception]) -> None:
    """It is checked before anything is sent: nothing listens at the address."""
    async with Client("http://127.0.0.1:1", token="t") as client:
        with pytest.raises(error):
            await client.issue(CHARGE, **amount, key="k")


async def test_a_lost_answer_is_asked_for_again_and_nothing_is_paid_twice(
    open_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amazon has made the refund when the connection is cut. The client repeats the call with the same key."""
    monkeypatch.setattr(calls, "ASK_EVERY", 0.01)
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    async with cutting(urlsplit(counter.stage.url).port or 0) as cutter, Client(cutter.url, token=REFUNDER) as client:
        assert [each async for each in client.list()] == []
        cutter.drop()
        cutter.plan = [20, 20, 20]
        made = await client.issue(charge, "14.01", "USD", key="r-1")
        assert isinstance(made, RefundJson)
        assert cutter.cut == 4
        amazon.move()
        await counter.shows(made.refund_id, "Declined")
        cutter.drop()
        cutter.plan = [20, 20]
        retried = await client.retry(made.refund_id)
    assert isinstance(retried, RefundJson)
    assert retried.retry_of == made.refund_id
    assert [*amazon.refunds] == [made.refund_id, retried.refund_id]
    assert len(created(amazon)) == 2


async def test_what_amazon_has_not_answered_is_a_pending_request(
    redis: Any, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once Amazon has answered, the same call returns the refund."""
    monkeypatch.setattr(calls, "ASK_EVERY", 0.05)
    async with told(valkey_url) as (counter, desk), client_of(counter) as client:
        desk.answers = [Cut()]
        desk.then = refund()
        pending = await client.issue(CHARGE, "14.00", "USD", key="r-1", wait=0)
        assert isinstance(pending, PendingRequestJson)
        assert (pending.status, pending.charge_id) == ("pending", CHARGE)
        await counter.due(pending.refund_request_id)
        made = await client.issue(CHARGE, "14.00", "USD", key="r-1", wait=20)
        assert isinstance(made, RefundJson)


async def test_a_decline_from_its_first_read_to_the_end_of_its_case(open_shop: Shop) -> None:
    """Get, wait, list, close, reopen and retry, each with the types of the service."""
    counter, amazon = open_shop
    async with client_of(counter, account="us") as client:
        refund_id = await declined(counter, amazon, client)
        found = await client.get(refund_id)
        assert (found.final, found.status_details.state, found.retryable) == (True, "Declined", True)
        assert found.advice is not None
        assert "retry_refund" in [each.action for each in found.advice.actions]
        waited = await client.wait(refund_id)
        assert (waited.refund_id, waited.revision) == (found.refund_id, found.revision)
        hour = datetime.now(UTC) - timedelta(hours=1)
        listed = [each async for each in client.list(state="Declined", since=hour, is_open=True)]
        assert [each.refund_id for each in listed] == [refund_id]
        assert [each async for each in client.list(reason="ProcessingFailure")] == []
        closed = await client.close_case(refund_id, "compensated", note="A gift card")
        assert closed.resolution is not None
        assert (closed.resolution.state, closed.resolution.note) == ("closed", "A gift card")
        with pytest.raises(ApiProblem) as caught:
            await client.retry(refund_id)
        assert caught.value.reason == "closed"
        opened = await client.reopen_case(refund_id)
        assert opened.resolution is not None
        assert opened.resolution.state == "open"
        once, twice = await client.retry(refund_id), await client.retry(refund_id)
        assert isinstance(once, RefundJson)
        assert isinstance(twice, RefundJson)
        assert once.refund_id == twice.refund_id != refund_id


async def test_every_page_of_a_list_is_read(open_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MOST_PER_PAGE", 1)
    counter, amazon = open_shop
    async with client_of(counter) as client:
        made = [await client.issue(amazon.open_charge("9.00", "USD"), full=True, key=f"r-{each}") for each in range(2)]
        listed = [each.refund_id async for each in client.list()]
        assert sorted(listed) == sorted(each.refund_id for each in made if isinstance(each, RefundJson))
        naive = datetime(2026, 1, 31)  # noqa: DTZ001 - the mistake
        with pytest.raises(ValueError, match="time zone"):
            [each async for each in client.list(since=naive)]


async def test_problems_have_their_reason_and_their_members(open_shop: Shop) -> None:
    """So a program can continue, here with the other refund of the charge."""
    counter, amazon = open_shop
    charge = amazon.open_charge("100.00", "USD")
    async with client_of(counter) as client:
        first = await client.issue(charge, "14.00", "USD", key="r-1")
        assert isinstance(first, RefundJson)
        with pytest.raises(ApiProblem) as caught:
            await client.issue(charge, "14.00", "USD", key="r-2")
        assert caught.value.reason == "same_amount_refunded"
        assert caught.value.http_request_id
        others = [each["refundId"] for each in caught.value.more["refunds"]]
        assert others == [first.refund_id]
        second = await client.issue(charge, "14.00", "USD", key="r-2", besides=first.refund_id)
        assert isinstance(second, RefundJson)
        with pytest.raises(ApiProblem, match=r"\w") as caught:
            await client.get("S01-0000000-0000000-R000000")
        assert (caught.value.status, caught.value.reason) == (404, "no_such_refund")
    async with client_of(counter, token="wrong") as stranger:
        with pytest.raises(ApiProblem) as caught:
            await stranger.get(first.refund_id)
        assert (caught.value.status, caught.value.reason) == (401, "token_unknown")


async def test_a_wrong_address_or_token_is_an_error_at_once() -> None:
    """The token is not repeated."""
    for url in ("http://refunds.example", "refunds.example", "https://user@refunds.example"):
        with pytest.raises(ConfigurationError, match=r"^url: "):
            Client(url, token="secret")
    with pytest.raises(ConfigurationError, match=r"^token: is empty"):
        Client("https://refunds.example", token=" ")
    with pytest.raises(ConfigurationError) as caught:
        Client("https://refunds.example", token="sec ret")
    assert "sec" not in str(caught.value)
    async with Client("http://127.0.0.1:1", token="t") as client:
        with pytest.raises(TransportError) as failed:
            await client.wait("S01-1", 60)
        assert failed.value.reason == "connect_failed"
        with pytest.raises(TransportError):
            await client.issue(CHARGE, "14.00", "USD", key="k")
