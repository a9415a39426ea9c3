"""The simulator's Reports API: as Amazon's pages describe it, over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from receiver.amazon.reports.reader import read
from receiver.ledger.reconciliation.rows import RefundRow, SettlementRow
from receiver.simulator.app import Simulator
from receiver.simulator.keys import Keys
from receiver.simulator.reports.book import (
    REFUND_DATA,
    SANDBOX_SETTLEMENT_DATA,
    SETTLEMENT_DATA,
    Alteration,
)
from tests.kit.clock import T0, ManualClock
from tests.simulator.conftest import Client

DAY = 86_400_000
WEEK = {"startTime": "20251003T000000Z", "endTime": "20251010T000000Z"}


@pytest.fixture
async def live(keys: Keys, clock: ManualClock) -> AsyncIterator[Simulator]:
    """Live, without throttle and without notifications."""
    async with Simulator(keys=keys, now=clock, environment="live", throttle={}) as simulator:
        yield simulator


@pytest.fixture
async def client(live: Simulator, clock: ManualClock) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(live, session, clock)


async def create(
    client: Client, report_type: str = REFUND_DATA, key: str = "k", **more: str
) -> tuple[int, dict[str, object]]:
    body = {"reportType": report_type, **WEEK, **more}
    return await client.call("POST", "/v2/reports", json.dumps(body).encode(), key=key)


async def content(client: Client, report_id: object) -> bytes:
    """The report's document, downloaded from the address in Get Report Document."""
    _, report = await client.call("GET", f"/v2/reports/{report_id}")
    assert report["processingStatus"] == "COMPLETED"
    _, document = await client.call("GET", f"/v2/report-documents/{report['reportDocumentId']}")
    assert document["compressionAlgorithm"] == "N/A"
    async with client.session.get(str(document["url"])) as answer:
        assert answer.status == 200
        return await answer.read()


async def test_a_report_of_refund_data(live: Simulator, client: Client, clock: ManualClock) -> None:
    """First in progress, then completed; a repeated request makes no second one; the rows are those of the period."""
    refunds = [live.start_refund("12.00", "USD"), live.start_refund("13.00", "USD", "AmazonRejected")]
    live.reports.alterations[refunds[1]] = Alteration(amount="14.00")
    status, made = await create(client)
    assert (status, await create(client)) == (201, (201, made))
    assert (await create(client, endTime="20251009T000000Z"))[1]["reasonCode"] == "DuplicateIdempotencyKey"
    _, report = await client.call("GET", f"/v2/reports/{made['reportId']}")
    assert (report["processingStatus"], "reportDocumentId" in report) == ("IN_PROGRESS", False)
    clock.tick(30_000)
    rows = [each for each in read([await content(client, made["reportId"])]) if isinstance(each, RefundRow)]
    assert [(each.refund_id, each.state, str(each.amount)) for each in rows] == [
        (refunds[0], "Refunded", "12.00 USD"),
        (refunds[1], "Declined", "14.00 USD"),
    ]
    assert rows[1].reason_code == "AmazonRejected"
    assert {each.updated_at for each in rows} == {(T0 + 30_000) // 1000 * 1000}


async def test_a_settlement_makes_its_own_report(live: Simulator, client: Client, clock: ManualClock) -> None:
    """Every day with a settled refund, or on demand. It cannot be requested."""
    refund_id = live.start_refund("12.00", "USD")
    clock.tick(DAY + 1)
    _, found = await client.call("GET", "/v2/reports", query="reportTypes=" + SETTLEMENT_DATA)
    [report_id] = [each["reportId"] for each in found["reports"]]  # type: ignore[attr-defined]
    [row] = [each for each in read([await content(client, report_id)]) if isinstance(each, SettlementRow)]
    assert (row.refund_id, str(row.amount)) == (refund_id, "12.00 USD")
    assert live.reports.settle() is None
    status, body = await create(client, SETTLEMENT_DATA)
    assert (status, body["reasonCode"]) == (400, "InvalidParameterValue")


async def test_reports_are_listed_page_by_page(live: Simulator, client: Client, clock: ManualClock) -> None:
    live.start_refund("12.00", "USD")
    for number in range(3):
        clock.tick(1_000)
        await create(client, key=f"k{number}")
    _, first = await client.call("GET", "/v2/reports", query="pageSize=2")
    _, second = await client.call("GET", "/v2/reports", query=f"nextToken={first['nextToken']}")
    ids = [each["reportId"] for page in (first, second) for each in page["reports"]]  # type: ignore[attr-defined]
    assert (len(ids), len({*ids}), "nextToken" in second) == (3, 3, False)
    since = "createdSince=20251009T085323Z&processingStatuses=IN_PROGRESS"
    _, some = await client.call("GET", "/v2/reports", query=since)
    assert [each["reportId"] for each in some["reports"]] == ids[:1]  # type: ignore[attr-defined]
    for query in ("pageSize=101", "reportTypes=X", "createdSince=today", "nextToken=x", "processingStatuses=DONE"):
        assert (await client.call("GET", "/v2/reports", query=query))[0] == 400


async def test_an_empty_period_cancels_the_report_and_one_can_fail(
    live: Simulator, client: Client, clock: ManualClock
) -> None:
    _, empty = await create(client)
    clock.tick(30_000)
    assert (await client.call("GET", f"/v2/reports/{empty['reportId']}"))[1]["processingStatus"] == "CANCELLED"
    assert (await client.control("POST", "/reports/failures", {"times": 1}))[0] == 204
    _, failed = await create(client, key="other")
    clock.tick(30_000)
    assert (await client.call("GET", f"/v2/reports/{failed['reportId']}"))[1]["processingStatus"] == "FAILED"
    clock.tick(91 * DAY)
    assert (await client.call("GET", f"/v2/reports/{failed['reportId']}"))[0] == 404


async def test_the_address_of_a_document_expires_and_cannot_be_changed(
    live: Simulator, client: Client, clock: ManualClock
) -> None:
    live.start_refund("12.00", "USD")
    _, made = await create(client)
    clock.tick(30_000)
    _, report = await client.call("GET", f"/v2/reports/{made['reportId']}")
    _, document = await client.call("GET", f"/v2/report-documents/{report['reportDocumentId']}")
    url = str(document["url"])
    expires = parse_qs(urlsplit(url).query)["Expires"][0]
    clock.tick(30_000)
    async with client.session.get(url) as answer:
        assert answer.status == 200
    async with client.session.get(url.replace(expires, str(int(expires) + 1))) as answer:
        assert answer.status == 403
    clock.tick(1)
    async with client.session.get(url) as answer:
        assert (answer.status, "expired" in await answer.text()) == (403, True)


async def test_the_sandbox_has_settlement_data_on_request_only(amazon: Simulator, clock: ManualClock) -> None:
    """Amazon's page: "All other report types are not available in sandbox"."""
    amazon.start_refund("12.00", "USD")
    async with aiohttp.ClientSession() as session:
        client = Client(amazon, session, clock)
        assert (await create(client))[1]["reasonCode"] == "InvalidParameterValue"
        status, made = await create(client, SANDBOX_SETTLEMENT_DATA)
        clock.tick(DAY)
        assert status == 201
        rows = [each for each in read([await content(client, made["reportId"])]) if isinstance(each, SettlementRow)]
        assert len(rows) == 1
        assert len(amazon.reports.all()) == 1


async def test_people_decide_what_reports_show(live: Simulator, client: Client, clock: ManualClock) -> None:
    refund_id = live.start_refund("12.00", "USD")
    values = {"refundId": refund_id, "state": "Declined", "missingIn": [SETTLEMENT_DATA]}
    assert (await client.control("POST", "/reports/rows", values))[0] == 204
    assert (await client.control("POST", "/reports/rows", {**values, "missingIn": ["X"]}))[0] == 400
    clock.tick(30_000)
    assert (await client.control("POST", "/settlements", {})) == (200, {"report": None})
    await client.control("POST", "/reports/rows", {"refundId": refund_id})
    live.start_refund("13.00", "USD")
    clock.tick(30_000)
    assert (await client.control("POST", "/settlements", {}))[0] == 201
    assert len((await client.control("GET", "/reports"))[1]["reports"]) == 1  # type: ignore[arg-type]
