"""Many declined refunds reissued at once on the dashboard, with the service, its workers and Amazon's stand-in."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.http.kit import READER, REFUNDER
from tests.http.test_dashboard import words
from tests.issue.counter import shop
from tests.issue.test_dashboard_cases import Person, sign_in
from tests.issue.test_dashboard_retry import csrf, page
from tests.kit.processes import until
from tests.service.stage import Amazon


@asynccontextmanager
async def desk(valkey_url: str, folder: Path, count: int = 3) -> AsyncIterator[tuple[Person, Amazon, list[str]]]:
    """A person who may reissue, and declined refunds over 14.02 USD each."""
    async with shop(valkey_url, folder) as (counter, amazon):
        declined = []
        for number in range(count):
            charge = amazon.open_charge("100.00", "USD", reference=f"order-{number}")
            _, made = await counter.create(charge, "14.02", f"refund-{number}")
            declined.append(made["refundId"])
        amazon.move()
        for refund_id in declined:
            await counter.shows(refund_id, "Declined")
        yield Person(counter, await sign_in(counter, REFUNDER), declined[0], ""), amazon, declined


def fields(text: str) -> dict[str, str]:
    """The hidden fields of the form that starts a job."""
    _, _, form = text.partition('action="/jobs?')
    return {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)}


async def press(person: Person, path: str, **given: str) -> tuple[int, str, str]:
    status, text, headers, _ = await page(person.counter, "POST", path, person.jar, **given)
    return status, text, headers.get("Location", "")


async def test_selected_refunds_are_reissued_by_a_job(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """The list has check boxes; a page shows count and sum; then a job reissues the refunds, and its page shows
    that."""
    async with desk(valkey_url, tmp_path) as (person, amazon, declined):
        _, text = await person.get("/refunds?state=open")
        assert sorted(re.findall(r'name="id" value="([^"]+)"', text)) == sorted(declined)
        assert "Reissue all 3" in words(text)
        _, text = await person.get("/refunds")
        assert 'name="id"' not in text
        query = urlencode([("account", "us"), *(("id", each) for each in declined[:2])])
        status, text = await person.get(f"/jobs/new?{query}")
        assert (status, len(amazon.refunds)) == (200, 3)
        assert "Reissue 2 refunds? 28.04 USD" in words(text)
        status, _, where = await press(person, "/jobs?account=us", **fields(text))
        assert (status, where.startswith("/jobs/")) == (303, True)

        async def is_done() -> bool:
            return "2 of 2 refunds reissued." in words((await person.get(where))[1])

        await until(is_done, "the job is done")
        _, text = await person.get(where)
        assert "Done" in words(text)
        assert words(text).count("Reissued as") == 2
        assert len(amazon.refunds) == 5
        assert (await press(person, where.replace("?", "/cancel?"), csrf=csrf(text)))[0] == 409


async def test_all_that_match_and_what_is_left_out(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """A refund that is being reissued is left out, and the page says why. What changed is shown before it starts."""
    async with desk(valkey_url, tmp_path) as (person, amazon, declined):
        _, text = await person.get("/refunds?state=open&reason=ProcessingFailure")
        reason = "AmazonRejected" if "No refund matches" in text else "ProcessingFailure"
        path = f"/jobs/new?account=us&all=1&reason={reason}"
        assert path in unescape((await person.get(f"/refunds?state=open&reason={reason}"))[1])
        _, text = await person.get(path)
        assert "Reissue 3 refunds? 42.06 USD" in words(text)
        seen = fields(text)
        amazon.post_to = None
        assert (await person.counter.retry(declined[0]))[0] == 201
        status, text, _ = await press(person, "/jobs?account=us", **seen)
        assert status == 409
        assert "has changed since you looked" in words(text)
        assert "Reissue 2 refunds? " in words(text)
        assert "1 refund ( 14.02 USD ): It is being reissued." in words(text)
        assert len(amazon.refunds) == 4
        status, _, where = await press(person, "/jobs?account=us", **fields(text))
        assert status == 303
        await press(person, where.replace("?", "/cancel?"), csrf=fields(text)["csrf"])
        status, text = await person.get("/jobs/new?account=us&all=1&reason=Unheard")
        assert (status, "None of these can be reissued" in text, 'id="confirm"' in text) == (200, True, False)


async def test_jobs_need_the_scope_the_forms_token_and_a_selection(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """Nothing starts without them, and the page says what is wrong."""
    async with desk(valkey_url, tmp_path, 1) as (person, amazon, declined):
        path = f"/jobs/new?account=us&id={declined[0]}"
        _, text = await person.get(path)
        given = fields(text)
        assert (await press(person, "/jobs?account=us", **{**given, "csrf": "wrong"}))[0] == 403
        assert (await press(person, "/jobs?account=us", **{**given, "seen": "other"}))[0] == 409
        reader = Person(person.counter, await sign_in(person.counter, READER), declined[0], "")
        assert 'name="id"' not in (await reader.get("/refunds?state=open"))[1]
        assert (await reader.get(path))[0] == 403
        assert (await reader.post("/jobs?account=us", ids=declined[0], seen=given["seen"]))[0] == 403
        for bad, says in (
            ("account=us", "Tick the refunds that you want to reissue."),
            ("account=us&id=%3Cb%3E", "Tick at most 100 refunds"),
            (urlencode([("account", "us")] + [("id", f"S01-{n}") for n in range(101)]), "Tick at most 100 refunds"),
            ("account=us&all=1&reason=%3C", "must be 1 to 64 letters"),
        ):
            status, text = await person.get(f"/jobs/new?{bad}")
            assert (status, says in words(text)) == (400, True), bad
        assert (await person.get("/jobs/new?account=none&all=1"))[0] == 404
        assert (await person.get("/jobs/0123456789abcdef?account=us"))[0] == 404
        assert len(amazon.refunds) == 1


@pytest.mark.parametrize("path", ["/jobs/new?account=us&all=1", "/jobs/x?account=us"])
async def test_a_stranger_sees_no_job(redis: Any, valkey_url: str, tmp_path: Path, path: str) -> None:
    async with shop(valkey_url, tmp_path) as (counter, _):
        status, _, headers, _ = await page(counter, "GET", path, {})
        assert (status, headers["Location"].startswith("/sign-in?next=%2Fjobs")) == (303, True)
