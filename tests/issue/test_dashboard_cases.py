"""The case of a declined refund, closed and reopened on the dashboard, with the service and Amazon's stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from receiver.simulator.outcomes import Outcome
from tests.http.dashboard_kit import AUDIT, LAYOUT
from tests.http.kit import READER, REFUNDER
from tests.http.test_dashboard import HOSTILE, words
from tests.http.test_dashboard_browser import BOUND, browsing
from tests.http.test_dashboard_browser import pytestmark as needs_chromium
from tests.issue.counter import Counter, shop
from tests.issue.test_dashboard_retry import csrf, page
from tests.service.stage import Amazon


@dataclass
class Person:
    """Someone who is signed in, and one declined refund."""

    counter: Counter
    jar: Mapping[str, str]
    refund_id: str
    charge: str

    @property
    def path(self) -> str:
        return f"/refunds/{self.refund_id}/close?account=us"

    async def get(self, path: str) -> tuple[int, str]:
        status, text, _, _ = await page(self.counter, "GET", path, self.jar)
        return status, text

    async def look(self) -> str:
        return (await self.get(f"/refunds/{self.refund_id}?account=us"))[1]

    async def post(self, path: str, **fields: str) -> tuple[int, str, str]:
        _, text, _, _ = await page(self.counter, "GET", "/refunds", self.jar)
        status, text, headers, _ = await page(self.counter, "POST", path, self.jar, csrf=csrf(text), **fields)
        return status, text, headers.get("Location", "")


async def sign_in(counter: Counter, token: str) -> Mapping[str, str]:
    _, text, _, jar = await page(counter, "GET", "/sign-in", {})
    _, _, _, jar = await page(counter, "POST", "/sign-in", jar, token=token, csrf=csrf(text), next="/")
    return jar  # type: ignore[no-any-return]


@asynccontextmanager
async def desk(valkey_url: str, folder: Path) -> AsyncIterator[tuple[Person, Amazon]]:
    async with shop(valkey_url, folder) as (counter, amazon):
        charge = amazon.open_charge("100.00", "USD", reference="order-7")
        _, made = await counter.create(charge, "14.02")
        amazon.move()
        await counter.shows(made["refundId"], "Declined")
        yield Person(counter, await sign_in(counter, REFUNDER), made["refundId"], charge), amazon


async def test_a_case_is_closed_and_reopened(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """The overview asks for an action until then. A closed case says how it ended, and offers no reissue."""
    async with desk(valkey_url, tmp_path) as (person, _):
        overview = words((await person.get("/"))[1])
        assert "Open declines 1 14.02 USD oldest" in overview
        assert "Reissued and declined again" not in overview
        status, text = await person.get(person.path)
        assert (status, "14.02 USD" in text, "order-7" in text) == (200, True, True)
        note = "Gift card of 14.02 USD,\r\n  sent on 29 November."
        status, _, location = await person.post(person.path, how="compensated", note=note, refundId="")
        assert (status, location) == (303, f"/refunds/{person.refund_id}?account=us&done=closed")
        text = await person.look()
        assert "by refunder on" in words(text)
        assert "the buyer was paid another way. Gift card of 14.02 USD, sent on 29 November." in words(text)
        assert 'id="retry"' not in text
        assert 'id="close"' not in text
        assert "Open declines" not in (await person.get("/"))[1]
        assert (await person.get(person.path))[0] == 409
        status, _, location = await person.post(f"/refunds/{person.refund_id}/reopen?account=us")
        assert (status, location) == (303, f"/refunds/{person.refund_id}?account=us&done=reopened")
        text = await person.look()
        assert "Reopened by refunder" in words(text)
        assert 'id="close"' in text


async def test_another_refund_of_the_charge_is_offered(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """It closes the case if Amazon says that it is Refunded."""
    async with desk(valkey_url, tmp_path) as (person, amazon):
        other = amazon.start_refund("14.02", "USD", Outcome.REFUNDED_AT_ONCE, person.charge)
        await person.counter.shows(other, "Refunded")
        assert f'<option value="{other}">14.02 USD</option>' in (await person.get(person.path))[1]
        status, _, _ = await person.post(person.path, how="refunded_elsewhere", note="", refundId=f" {other} ")
        assert status == 303
        text = await person.look()
        assert f"/refunds/{other}?account=us" in unescape(text)
        assert "refunded by another refund" in text


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({}, 400, "Choose how the case ended."),
        ({"how": "forgotten", "note": "x"}, 400, "Choose how the case ended."),
        ({"how": "compensated", "note": " "}, 400, "Write a note of 1 to"),
        ({"how": "not_owed", "note": "x" * 513}, 400, "Write a note of 1 to"),
        ({"how": "not_owed", "note": "x\x07y"}, 400, "Write a note of 1 to"),
        ({"how": "refunded_elsewhere", "refundId": ""}, 400, "Give the id of the refund that paid the buyer"),
        ({"how": "refunded_elsewhere", "refundId": "<b>"}, 400, "Give the id of the refund that paid the buyer"),
        ({"how": "refunded_elsewhere", "refundId": "S01-0000000-0000000-R000000", "note": "a"}, 422, ""),
    ],
)
async def test_what_is_wrong_stands_beside_the_form(
    redis: Any, valkey_url: str, tmp_path: Path, fields: Mapping[str, str], status: int, says: str
) -> None:
    """With a text for people and the form's values; the case stays open."""
    async with desk(valkey_url, tmp_path) as (person, _):
        found, text, _ = await person.post(person.path, **fields)
        assert found == status
        _, _, alert = text.partition('role="alert"')
        assert says in words(alert)
        assert "`" not in text
        if note := fields.get("note", "").strip():
            assert note in text
        assert 'id="close"' in await person.look()


async def test_the_second_person_learns_who_was_first(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    async with desk(valkey_url, tmp_path) as (person, _):
        assert (await person.post(person.path, how="compensated", note="a gift card"))[0] == 303
        status, text, _ = await person.post(person.path, how="not_owed", note="an order that was returned")
        assert status == 409
        assert "The case was closed by refunder: the buyer was paid another way." in words(text)
        assert "an order that was returned" in text


async def test_notes_are_text(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    async with desk(valkey_url, tmp_path) as (person, _):
        assert (await person.post(person.path, how="not_owed", note=HOSTILE))[0] == 303
        text = await person.look()
        assert "alert(1)" in text
        assert "<script>" not in text
        assert "<img" not in text


async def test_closing_needs_the_scope_and_the_forms_token(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """A token that only reads sees the case, and no button."""
    async with desk(valkey_url, tmp_path) as (person, _):
        status, _, _, _ = await page(person.counter, "POST", person.path, person.jar, how="not_owed", note="x")
        assert status == 403
        reader = Person(person.counter, await sign_in(person.counter, READER), person.refund_id, person.charge)
        text = await reader.look()
        assert "Open for" in text
        assert 'id="close"' not in text
        assert (await reader.get(person.path))[0] == 403
        for path in (person.path, f"/refunds/{person.refund_id}/reopen?account=us"):
            assert (await reader.post(path, how="not_owed", note="x"))[0] == 403
        assert 'id="close"' in await person.look()


async def test_while_it_is_reissued_a_case_stays_open(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """The overview follows the reissue; nothing is offered twice."""
    async with desk(valkey_url, tmp_path) as (person, amazon):
        amazon.post_to = None
        _, repeated = await person.counter.retry(person.refund_id)
        assert "Reissued, Amazon decides" in words((await person.get("/"))[1])
        text = await person.look()
        assert f"Reissued as {repeated['refundId']}" in words(text)
        assert 'id="close"' not in text
        assert (await person.get(person.path))[0] == 409
        status, text, _ = await person.post(person.path, how="compensated", note="a gift card")
        assert status == 409
        assert "being reissued" in text


@needs_chromium
async def test_the_form_works_without_scripts(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """The field for the other refund is there only for that choice. On a phone, in the dark."""
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    async with (
        desk(valkey_url, tmp_path) as (person, _),
        browsing(tmp_path / "browser", java_script_enabled=False, **phone) as tab,
    ):
        url = person.counter.stage.url
        await tab.goto(f"{url}/sign-in?next=/refunds")
        await tab.get_by_label("Token").fill(REFUNDER)
        await tab.get_by_role("button", name="Sign in").click()
        await tab.goto(f"{url}/refunds/{person.refund_id}?account=us")
        await tab.get_by_role("link", name="Close…").click()
        paying = tab.get_by_label("Refund that paid the buyer")
        await expect(tab.get_by_role("heading", name="Close this case")).to_be_visible(timeout=BOUND)
        await expect(paying).to_be_hidden()
        await tab.get_by_label("Refunded by another refund").check()
        await expect(paying).to_be_visible()
        await tab.get_by_label("Nothing is owed").check()
        await tab.get_by_label("Note").fill("The order was returned.")
        assert [*await tab.evaluate(AUDIT), *await tab.evaluate(LAYOUT)] == []
        await tab.get_by_role("button", name="Close the case").click()
        await expect(tab.get_by_text("The case is closed.")).to_be_visible(timeout=BOUND)
        await expect(tab.locator("#resolution")).to_contain_text("The order was returned.")
        await expect(tab.get_by_role("button", name="Reopen")).to_be_visible()
