"""Findings over HTTP and on the dashboard: listed by kind and page, and never more than a token may see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from receiver.ledger.reconciliation.rows import RefundRow
from receiver.ledger.reconciliation.run import Batch
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.track.reconcile import Reconciler
from receiver.track.review import review
from tests.http.kit import READER, REFUNDER, US_ONLY, Service
from tests.http.test_dashboard import Browser, browser, service, words
from tests.kit.accounts import make_account
from tests.store.makers import refund_id

__all__ = ["browser", "service"]
BAD = "bad_reconciliation"
HOSTILE = "<script>alert(1)</script>.csv"


@pytest.fixture
async def found(store: Store) -> Store:
    """Seven unknown refunds of the account us, and one of eu."""
    for account, numbers in (("us", range(7)), ("eu", range(7, 8))):
        await store.of(account).subscribers.open()
        rows = tuple(RefundRow(refund_id=refund_id(number), state="Refunded", line=number + 2) for number in numbers)
        await Reconciler(make_account(account), store.of(account), Metrics()).compare(Batch(source=HOSTILE, rows=rows))
    return store


async def test_findings_are_listed_page_by_page(service: Service, found: Store) -> None:
    """Of all accounts of the token, in a fixed order; the cursor is bound to the filters."""

    async def page(query: str, token: str = READER) -> Any:
        answer = await service.call("GET", f"/v1/findings{query}", headers={"Authorization": f"Bearer {token}"})
        assert answer.status == 200
        return json.loads(answer.body)

    seen, query = list[Any](), "?limit=3"
    while query:
        shown = await page(query)
        assert shown["counts"]["unknown_here"] == 8
        seen += shown["findings"]
        query = f"?limit=3&cursor={shown['nextCursor']}" if shown["nextCursor"] else ""
    assert [(each["account"], each["refundId"], each["line"]) for each in seen] == [
        ("us" if number < 7 else "eu", refund_id(number), number + 2) for number in range(8)
    ]
    assert (seen[0]["here"], seen[0]["there"], seen[0]["report"]) == (None, "Refunded", HOSTILE)
    assert (await page("?finding=state_differs"))["findings"] == []
    first = await page("?limit=3")
    (stored,) = (await found.of("us").findings.stored([f"unknown_here {refund_id(1)}"])).values()
    assert await found.of("us").findings.close(stored)
    following = (await page(f"?limit=3&cursor={first['nextCursor']}"))["findings"]
    assert [each["refundId"] for each in following] == [refund_id(number) for number in (3, 4, 5)]
    assert len((await page("", US_ONLY))["findings"]) == 6
    for path, status in (("?finding=lost", 400), ("?cursor=x", 400), ("?account=other", 404)):
        answer = await service.call("GET", f"/v1/findings{path}", headers={"Authorization": f"Bearer {READER}"})
        assert answer.status == status


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"rows": [{"report": "refunds", "refundId": "not-an-id", "state": "Refunded"}]}, BAD),
        ({"rows": [{"report": "refunds", "refundId": refund_id()}]}, BAD),
        ({"rows": [{"report": "settlements", "refundId": refund_id()}]}, BAD),
        ({"rows": [{"report": "charges", "refundId": refund_id(), "state": "Refunded"}]}, BAD),
        ({"rows": [{"report": "settlements", "refundId": refund_id(), "amount": {"amount": "-1"}}]}, BAD),
        ({"periods": [{"report": "refunds", "start": -1, "end": 0}]}, BAD),
        ({"later": 1}, "unknown_field"),
        ([], "not_json"),
    ],
)
async def test_what_is_no_part_of_a_reconciliation_is_refused(service: Service, body: object, reason: str) -> None:
    headers = {"Authorization": f"Bearer {REFUNDER}", "Content-Type": "application/json"}
    text = json.dumps({**body, "account": "us"} if isinstance(body, dict) else body)
    answer = await service.call("POST", "/v1/reconciliations", body=text.encode(), headers=headers)
    assert (answer.status, json.loads(answer.body)["reason"]) == (400, reason)


async def test_the_page_shows_what_differs_and_what_to_do(service: Service, browser: Browser, found: Store) -> None:
    """By kind, with links to the refunds; a file's name cannot break the page. A closed finding is still shown."""
    await browser.sign_in(READER)
    await browser.get("/")
    assert "Differences from Amazon's reports 8" in words(browser.page)
    answer = await browser.get("/findings")
    assert answer.status == 200
    text = words(browser.page)
    assert "Unknown here 8" in text
    assert "The service looks it up now." in text
    assert text.count("Refunded") >= 8
    assert f'href="/refunds/{refund_id(3)}?account=us"' in browser.page
    assert HOSTILE not in browser.page
    await browser.get("/findings?account=eu")
    assert "Unknown here 1" in words(browser.page)
    await review(found.of("us"))
    assert (await found.of("us").findings.counts())["unknown_here"] == 7
