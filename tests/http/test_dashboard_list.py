"""The dashboard's lists: search, filters, count and sums, empty lists, and tests of subscribers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import urlencode

import msgspec
import pytest
from redis.asyncio import Redis

from receiver.http.dashboard import refund_list
from receiver.http.dashboard import subscribers as subscriber_pages
from receiver.http.dashboard.chart import draw, edges, top_of
from receiver.http.dashboard.filters import clock as clock_of
from receiver.http.dashboard.filters import for_people, money
from receiver.ledger.audit import Actor
from receiver.ledger.declines.job import Item, Job, JobState, Selection
from receiver.ledger.money import Money
from receiver.outbox.retries import Tested as Outcome
from receiver.store import Store
from tests.http.kit import READER, US_ONLY, Service, real_receiver, running, settings
from tests.http.test_dashboard import Browser, subscribe, words
from tests.http.test_refund_api import REFUND, seen
from tests.kit.clock import T0, ManualClock
from tests.kit.sns import SnsSigner

CHARGE = "S01-5105180-3221187-C056351"
DAY = 86_400_000


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    """Two accounts: us and eu."""
    async with running(settings("us", "eu"), store, real_receiver(sns, store, "us", "eu")) as service:
        yield service


@pytest.fixture
async def browser(service: Service) -> Browser:
    browser = Browser(service)
    await browser.sign_in(US_ONLY)
    return browser


def ids(browser: Browser) -> list[str]:
    return re.findall(r">(S01-[^<]+)</a></th>", browser.page)


async def test_one_field_finds_refund_charge_and_order(browser: Browser, store: Store) -> None:
    """A refund's id leads to its page; a charge has its refunds; other text is an order number, or nothing."""
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    await seen(store, "us", "S01-OTHER", "Refunded", charge="S01-5105180-3221187-C999999")
    answer = await browser.get(f"/refunds?q=%20{REFUND}%20")
    assert (answer.status, answer.headers["Location"]) == (303, f"/refunds/{REFUND}?account=us")
    await browser.get(f"/refunds?q={CHARGE}")
    assert ids(browser) == [REFUND]
    await browser.get(f"/refunds?q={CHARGE}&state=Refunded")
    assert ids(browser) == []
    await browser.get("/refunds?q=W-2026-1")
    assert "No refund matches" in browser.page
    assert "receiver refund refresh ID" in browser.page
    assert 'value="W-2026-1"' in browser.page


async def test_an_order_number_finds_its_refunds(browser: Browser, store: Store, redis: Redis) -> None:
    await seen(store, "us", state="Refunded")
    await redis.hset(f"refunds:{{us}}:refund:{REFUND}", "order", "W 2026/1")
    await redis.zadd("refunds:{us}:order:W 2026/1", {REFUND: T0})
    await browser.get(f"/refunds?{urlencode({'q': 'W  2026/1'})}")
    assert ids(browser) == [REFUND]


async def test_open_declines_are_marked_and_counted(browser: Browser, store: Store) -> None:
    """With their sums, from the index of open cases; closed and other refunds have no mark."""
    for number in range(3):
        await seen(store, "us", f"S01-{number}", "Declined", reason=("AmazonRejected", "Other")[number % 2])
    await seen(store, "us", "S01-9", "Refunded")
    await browser.get("/refunds")
    assert browser.page.count('class="state open"') == 3
    assert "4 refunds · 56.00 USD" in words(browser.page)
    await browser.get("/refunds?state=open")
    assert sorted(ids(browser)) == ["S01-0", "S01-1", "S01-2"]
    assert "3 refunds · 42.00 USD" in words(browser.page)
    await browser.get("/refunds?state=open&reason=Other")
    assert ids(browser) == ["S01-1"]
    assert "1 refund · 14.00 USD" in words(browser.page)
    assert 'href="/refunds">Clear</a>' in browser.page
    assert '<option value="Other" selected>' in browser.page


async def test_days_are_whole_and_in_utc(browser: Browser, store: Store, clock: ManualClock) -> None:
    """Both bounds belong to the list; pages keep them."""
    midnight = T0 // DAY * DAY
    for number, at in enumerate((midnight - 1, midnight, midnight + DAY - 1, midnight + DAY)):
        clock.ms = at
        await seen(store, "us", f"S01-{number}")
    await browser.get("/refunds?from=2025-10-09&to=2025-10-09")
    assert ids(browser) == ["S01-2", "S01-1"]
    assert "2 refunds" in browser.page
    await browser.get("/refunds?from=2025-10-09")
    assert ids(browser) == ["S01-3", "S01-2", "S01-1"]
    await browser.get("/refunds?to=2025-10-09")
    assert ids(browser) == ["S01-2", "S01-1", "S01-0"]
    await browser.get(f"/refunds?q={CHARGE}&to=2025-10-08")
    assert ids(browser) == ["S01-0"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("from=yesterday", "from must be a day such as 2026-01-31."),
        ("to=9999-12-31", "to must be a day such as 2026-01-31."),
        ("from=2026-02-01&to=2026-01-01", "The first day is after the last day."),
        ("state=a%20b", "state must be"),
        ("q=%07", "q"),
        (f"q={'x' * 300}", "q"),
    ],
)
async def test_bad_filters_are_errors(browser: Browser, query: str, says: str) -> None:
    answer = await browser.get(f"/refunds?{query}")
    assert answer.status == 400
    assert says in words(browser.page)


async def test_long_lists_are_counted_as_far_as_is_cheap(
    browser: Browser, store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond that the page says that there are more; further pages are not counted."""
    monkeypatch.setattr(refund_list, "LIMIT", 2)
    monkeypatch.setattr(refund_list, "MOST_SUMMED", 4)
    for number in range(7):
        await seen(store, "us", f"S01-{number}", "Refunded")
        clock.tick(1)
    await browser.get("/refunds")
    assert "More than 4 refunds · the newest 4 are 56.00 USD" in words(browser.page)
    following = re.search(r'href="([^"]+)" rel="next"', browser.page)
    assert following
    await browser.get(unescape(following[1]))
    assert ids(browser) == ["S01-4", "S01-3"]
    assert "More than" not in browser.page
    await browser.get("/refunds?reason=&state=Refunded&from=2025-10-09")
    assert "More than 4 refunds" in words(browser.page)


async def test_empty_pages_say_what_will_appear(browser: Browser, service: Service, store: Store) -> None:
    """And how to make it happen. There is no chart of nothing."""
    await browser.get("/")
    assert "Nothing needs you" in browser.page
    assert "as soon as Amazon notifies this service" in browser.page
    assert "<svg viewBox" not in browser.page
    await browser.get("/refunds")
    assert "No refunds yet" in browser.page
    assert "receiver refund create" in browser.page
    await browser.get("/subscribers")
    assert "receiver subscriber add NAME URL" in browser.page
    await seen(store, "us", state="Refunded")
    await browser.get("/")
    assert "Nothing needs you" in browser.page
    assert "will appear here, each with its next action" in browser.page
    assert "Last 24 hours" in browser.page


async def test_the_overview_adds_up_open_declines(browser: Browser, store: Store, clock: ManualClock) -> None:
    """The oldest first, ten of them; the list has the rest."""
    for number in range(12):
        await seen(store, "us", f"S01-{number:02}", "Declined", reason="AmazonRejected")
        clock.tick(1_000)
    await browser.get("/")
    text = words(browser.page)
    assert "Open declines 12 168.00 USD" in text
    assert re.findall(r"S01-\d\d AmazonRejected", text) == [f"S01-{number:02} AmazonRejected" for number in range(10)]
    assert "2 more" in text


async def test_a_refund_has_no_empty_rows_and_no_hints_for_programs(browser: Browser, store: Store) -> None:
    """Its date stands once in the timeline, over times with milliseconds."""
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    await browser.get(f"/refunds/{REFUND}?account=us")
    assert not re.search(r"<dd>\s*(–|-|)\s*</dd>", browser.page)
    assert "`" not in browser.page
    assert "/v1/refunds" not in browser.page
    assert "On the buyer's statement" not in unescape(browser.page)
    assert 'href="https://sellercentral.amazon.com" target="_blank" rel="noopener noreferrer"' in browser.page
    assert f'data-copy="{REFUND}"' in browser.page
    _, _, timeline = browser.page.partition('id="timeline"')
    assert timeline.count("9 October 2025") == 1
    assert re.search(rf">{re.escape(clock_of(T0))}</time>", timeline)


async def test_a_subscriber_is_tested(
    browser: Browser, store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page waits a little, then says that the result will appear; and it does, good or bad."""
    monkeypatch.setattr(subscriber_pages, "TEST_WAIT", 0.0)
    await subscribe(store)
    await browser.get("/subscribers")
    answer = await browser.post("/subscribers/finance/test?account=us", csrf=browser.csrf)
    assert answer.status == 303
    where = answer.headers["Location"]
    (stream_id,) = re.findall(r"test=([0-9-]+)", where)
    await browser.get(where)
    assert "The test to finance is waiting to be sent." in words(browser.page)
    assert 'data-every="2"' in browser.page
    key = f"refunds:{{us}}:tested:{stream_id}"
    await redis.set(key, msgspec.json.encode(Outcome(delivered=True, status=204, seconds=0.25)))
    await browser.get(where)
    assert "finance accepted the test: HTTP 204 after 0.2 s." in words(browser.page)
    await redis.set(key, msgspec.json.encode(Outcome(delivered=False, status=500, answer="<b>no</b>")))
    await browser.get(where)
    assert "finance did not accept the test: HTTP 500." in words(browser.page)
    assert "<b>no" not in browser.page
    for other in ("/subscribers?test=x&name=a&account=us", "/subscribers?test=1-1&name=a&account=eu"):
        assert (await browser.get(other)).status == 200
        assert 'id="test"' not in browser.page
    await browser.get("/subscribers?test=1-1&name=a&account=us")
    assert "has no result. Is a worker running?" in words(browser.page)
    assert (await browser.post("/subscribers/nobody/test?account=us", csrf=browser.csrf)).status == 404


async def test_tests_and_pauses_need_the_scope_and_the_forms_token(
    service: Service, browser: Browser, store: Store
) -> None:
    await subscribe(store)
    assert (await browser.post("/subscribers/finance/test?account=us")).status == 403
    assert (await browser.get("/subscribers/finance/pause?account=us")).status == 200
    assert "Pause finance?" in browser.page
    reader = Browser(service)
    await reader.sign_in(READER)
    await reader.get("/")
    assert (await reader.get("/subscribers/finance/pause?account=us")).status == 403
    assert (await reader.post("/subscribers/finance/test?account=us", csrf=reader.csrf)).status == 403
    assert not (await store.of("us").subscribers.readable())[0].paused


def test_the_axis_is_readable_however_little_there_is() -> None:
    """Even whole numbers, never below the highest bar; one refund does not fill the chart."""
    assert [top_of(most) for most in (0, 1, 4, 5, 10, 11, 21, 41, 100, 101, 399, 401)] == [
        *(4, 4, 4, 10, 10, 20, 40, 100, 100, 200, 400, 1000)
    ]
    spans = [{"Declined": 1} if hour == 3 else {} for hour in range(24)]
    chart = draw(T0, spans)
    assert (chart.ticks, chart.total, len(edges(T0))) == ((4, 2, 0), 1, 25)
    (piece,) = chart.pieces
    assert (piece.y, piece.height) == (75.0, 25.0)


def test_amounts_and_texts_for_people() -> None:
    assert [money(Money.parse(*each)) for each in (("12040", "USD"), ("1200", "JPY"), ("0.5", "EUR"))] == [
        *("12,040.00 USD", "1,200 JPY", "0.50 EUR")
    ]
    assert money(None) == "amount not known"
    assert str(for_people("Issue it again (POST /v1/refunds/{id}/retry, or `receiver x`). <b>")) == (
        "Issue it again. &lt;b&gt;"
    )
    assert str(for_people("Run `a <b>` (now) ` x")) == "Run a &lt;b&gt; (now)  x"
    assert str(for_people("Run `a <b>` (now)")) == "Run <code>a &lt;b&gt;</code> (now)"


async def test_a_paused_job_needs_a_person(browser: Browser, store: Store) -> None:
    """The overview says so first; its page has both ways on. A running one is shown, and can be ended."""
    amount = Money.parse("14.00", "USD")
    item = Item(number=0, refund_id=REFUND, root=REFUND, amount=amount)
    job = Job(
        id="8f14e45fceea167a",
        account="us",
        state=JobState.RUNNING,
        selection=Selection(reason="AmazonRejected"),
        actor=Actor("desk", "<b>ann@example.com"),
        created_at=T0,
        changed_at=T0,
        total=1,
        sums=(amount,),
    )
    assert not await store.of("us").jobs.create(job, [item])
    await browser.get("/")
    assert "Reissuing 0 of 1 14.00 USD Follow" in words(browser.page)
    where = "/jobs/8f14e45fceea167a?account=us"
    await browser.get(where)
    assert 'id="cancel"' in browser.page
    assert 'id="resume"' not in browser.page
    assert "desk (<b>ann@example.com)" in words(browser.page)
    assert "<b>ann" not in browser.page
    moved = {"reason": "declined_again"}
    await store.of("us").jobs.move(job.id, JobState.PAUSED, of=[JobState.RUNNING], fields=moved)
    await browser.get("/")
    assert "Reissuing is paused 0 of 1 14.00 USD Decide" in words(browser.page)
    await browser.get(where)
    assert "Paused: Amazon declined the first 10 reissues again." in words(browser.page)
    assert 'id="resume"' in browser.page
