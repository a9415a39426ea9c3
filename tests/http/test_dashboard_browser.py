"""The dashboard in a real browser: Debian's Chromium, driven by Playwright, without a network.

Skipped where there is none; with `CI` set that is a failure, unless `WITHOUT_CHROMIUM` says that none can be had.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect

from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.store import Store
from tests.http.dashboard_kit import AUDIT, LAYOUT
from tests.http.kit import US_ONLY, Service, real_receiver, running, settings
from tests.http.test_refund_api import REFUND, seen
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.kit.sns import SnsSigner
from tests.outbox.examples import SECRET

CHROMIUM = shutil.which("chromium") or ""
SWITCHES = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
WIDTHS = (390, 900, 1400)
BOUND = 15_000
"""ms within which the browser must show what a test expects."""

pytestmark = pytest.mark.skipif(
    not CHROMIUM and (not os.environ.get("CI") or bool(os.environ.get("WITHOUT_CHROMIUM"))),
    reason="apt-get install chromium",
)


@asynccontextmanager
async def browsing(folder: Path, **more: Any) -> AsyncIterator[Page]:
    """A page of a fresh browser with an empty profile. An error of a script, or of the policy, is a failure."""
    assert CHROMIUM, "There is no chromium: apt-get install chromium."
    troubles: list[str] = []
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            folder / "profile", executable_path=CHROMIUM, args=SWITCHES, headless=True, **more
        )
        context.set_default_timeout(BOUND)
        page = context.pages[0]
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda said: troubles.append(said.text) if "Security Policy" in said.text else None)
        try:
            yield page
        finally:
            await context.close()
    assert troubles == []


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    """Two accounts, us and eu, and a subscriber."""
    subscriber = Subscriber(
        name="finance", url=f"https://finance.example/{'long' * 30}", secrets=(Secret(SECRET),), types=("*",)
    )
    await store.of("us").subscribers.add(subscriber)
    store.connection.change_notifier.start()
    async with running(settings("us", "eu"), store, real_receiver(sns, store, "us", "eu")) as service:
        yield service


async def sign_in(page: Page, service: Service) -> None:
    await page.goto(f"http://127.0.0.1:{service.port}/")
    await page.get_by_label("Token").fill(US_ONLY)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible(timeout=BOUND)


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element of this name has the focus."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        focused = await page.evaluate("document.activeElement.innerText || document.activeElement.id")
        if name in focused:
            width = await page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
            assert width == "3px", f"the focus on {name} cannot be seen"
            return
    raise AssertionError(f"Tab does not lead to {name}")


async def test_a_decline_arrives_live_and_all_goes_by_keyboard(service: Service, store: Store, tmp_path: Path) -> None:
    """Sign in, see a decline come without loading the page again, open it: with nothing but keys."""
    async with browsing(tmp_path) as page:
        await page.goto(f"http://127.0.0.1:{service.port}/")
        await expect(page.get_by_label("Token")).to_be_focused(timeout=BOUND)
        await page.keyboard.type(US_ONLY)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible(timeout=BOUND)
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await page.evaluate("window.sameDocument = true")
        await until(
            lambda: service.metrics.registry.get_sample_value("receiver_feed_clients"), "the page listens to the feed"
        )
        await seen(store, "us", state="Declined", reason="AmazonRejected")
        await expect(page.get_by_role("link", name=REFUND, exact=True)).to_be_visible(timeout=BOUND)
        await expect(page.get_by_role("status")).to_contain_text(f"{REFUND} declined", timeout=BOUND)
        assert await page.evaluate("window.sameDocument") is True
        await tab_to(page, REFUND)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="What to do")).to_be_visible(timeout=BOUND)
        await tab_to(page, "Ask Amazon now")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Amazon is being asked now")).to_be_visible(timeout=BOUND)


async def test_a_subscriber_is_paused(service: Service, store: Store, tmp_path: Path) -> None:
    """A page asks first; the list then says who did it, and offers to resume. Signing out ends the session."""
    async with browsing(tmp_path) as page:
        await sign_in(page, service)
        await page.get_by_role("link", name="Subscribers").click()
        await page.get_by_role("link", name="Pause… finance").click()
        await expect(page.get_by_role("heading", name="Pause finance?")).to_be_visible(timeout=BOUND)
        assert [each.paused for each in await store.of("us").subscribers.readable()] == [False]
        await page.get_by_role("button", name="Pause finance").click()
        await expect(page.get_by_role("button", name="Resume finance")).to_be_visible(timeout=BOUND)
        await expect(page.get_by_text("manually")).to_be_visible()
        assert [each.paused for each in await store.of("us").subscribers.readable()] == [True]
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Token")).to_be_focused(timeout=BOUND)
        await page.goto(f"http://127.0.0.1:{service.port}/subscribers")
        await expect(page.get_by_label("Token")).to_be_visible(timeout=BOUND)


async def test_what_a_subscriber_is_owed_is_shown_live(service: Service, store: Store, tmp_path: Path) -> None:
    """Without loading the page again."""
    async with browsing(tmp_path) as page:
        await sign_in(page, service)
        await page.get_by_role("link", name="Subscribers").click()
        await expect(page.get_by_role("rowheader", name="finance")).to_be_visible(timeout=BOUND)
        await page.evaluate("window.sameDocument = true")
        await until(
            lambda: service.metrics.registry.get_sample_value("receiver_feed_clients"), "the page listens to the feed"
        )
        await seen(store, "us", state="Declined", reason="AmazonRejected")
        await expect(page.get_by_role("row", name="finance").get_by_text("oldest")).to_be_visible(timeout=BOUND)
        assert await page.evaluate("window.sameDocument") is True


async def test_on_a_phone_in_the_dark_and_without_scripts(
    service: Service, store: Store, clock: ManualClock, tmp_path: Path
) -> None:
    """360 pixels need no scrolling to the side on any page; dark where the system is; all of it without JavaScript."""
    await seen(store, "us", state="Declined", reason="A" * 120)
    await seen(store, "us", "S01-" + "9" * 60, "Refunded")
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "java_script_enabled": False}
    async with browsing(tmp_path, **phone) as page:
        await sign_in(page, service)
        paths = ("/", "/refunds", f"/refunds/{REFUND}?account=us", "/subscribers", "/nothing")
        for path in paths:
            await page.goto(f"http://127.0.0.1:{service.port}{path}")
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, f"{path} is {width} pixels wide"
            assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
        await page.goto(f"http://127.0.0.1:{service.port}/")
        labels = page.locator(".chart .x span")
        sizes = [box["height"] for label in await labels.all() if (box := await label.bounding_box())]
        assert len(sizes) == 4
        assert min(sizes) > 10, "the hours under the bars can be read"
        await page.emulate_media(color_scheme="light")
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(245, 246, 248)"
        assert await page.locator('noscript meta[http-equiv="refresh"][content="30"], meta[content="30"]').count() == 1


@pytest.mark.parametrize("width", WIDTHS)
async def test_pages_at_three_widths_light_and_dark(
    service: Service, store: Store, clock: ManualClock, tmp_path: Path, width: int
) -> None:
    """No horizontal scrolling, no amount or id on two lines, chart labels of 12 px; in light and dark, what a screen
    reader needs, and sufficient contrast."""
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    for number in range(12):
        await seen(store, "us", f"S01-5105180-3221187-R02{number:04}", ("Declined", "Refunded")[number % 2])
    async with browsing(tmp_path, viewport={"width": width, "height": 800}) as page:
        await page.goto(f"http://127.0.0.1:{service.port}/sign-in")
        card = await page.locator(".sign-in .card").bounding_box()
        assert card
        assert card["width"] == min(400, width - 32)
        assert await page.evaluate(AUDIT) == []
        await sign_in(page, service)
        one = f"/refunds/{REFUND}?account=us"
        for path in ("/", "/refunds", "/refunds?q=none", "/refunds?reason=%3C", one, "/subscribers", ASK_PAUSE):
            await page.goto(f"http://127.0.0.1:{service.port}{path}")
            assert await page.evaluate(LAYOUT) == [], path
            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme=scheme)
                assert await page.evaluate(AUDIT) == [], (path, scheme)


ASK_PAUSE = "/subscribers/finance/pause?account=us"


async def test_the_list_is_live_and_keeps_what_is_typed(service: Service, store: Store, tmp_path: Path) -> None:
    """A refund appears; the search field keeps its text and the focus."""
    async with browsing(tmp_path) as page:
        await sign_in(page, service)
        await page.get_by_role("link", name="Refunds").click()
        await expect(page.get_by_role("heading", name="No refunds yet")).to_be_visible(timeout=BOUND)
        await page.get_by_label("Search").fill("S01-51")
        await until(
            lambda: service.metrics.registry.get_sample_value("receiver_feed_clients"), "the page listens to the feed"
        )
        await seen(store, "us", state="Declined", reason="AmazonRejected")
        await expect(page.get_by_role("link", name=REFUND)).to_be_visible(timeout=BOUND)
        await expect(page.get_by_label("Search")).to_have_value("S01-51")
        await expect(page.get_by_label("Search")).to_be_focused()
        await page.get_by_label("Search").fill(REFUND)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name=REFUND)).to_be_visible(timeout=BOUND)


async def test_an_id_is_copied(service: Service, store: Store, tmp_path: Path) -> None:
    """The button copies the whole id and says so."""
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    async with browsing(tmp_path, permissions=["clipboard-read", "clipboard-write"]) as page:
        await sign_in(page, service)
        await page.goto(f"http://127.0.0.1:{service.port}/refunds/{REFUND}?account=us")
        await page.get_by_role("button", name="Copy the refund id").click()
        await expect(page.get_by_role("status")).to_contain_text(f"Copied {REFUND}", timeout=BOUND)
        assert await page.evaluate("navigator.clipboard.readText()") == REFUND


async def test_errors_look_like_errors(service: Service, tmp_path: Path) -> None:
    """A box with separate colours, not text in the colour of declines."""
    async with browsing(tmp_path, java_script_enabled=False) as page:
        await page.goto(f"http://127.0.0.1:{service.port}/sign-in")
        await page.get_by_label("Token").fill("wrong")
        await page.get_by_role("button", name="Sign in").click()
        alert = page.get_by_role("alert")
        await expect(alert).to_contain_text("Token not recognised", timeout=BOUND)
        await expect(alert).to_have_css("background-color", "rgb(253, 235, 233)")
        await expect(alert).to_have_css("border-left-color", "rgb(179, 38, 30)")
        await expect(page.get_by_label("Token")).to_have_attribute("aria-invalid", "true")
