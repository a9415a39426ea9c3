"""The dashboard over real sockets and a real Valkey: who gets in, what they see, and what a form needs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from html import unescape
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest
from redis.asyncio import Redis
from starlette.requests import HTTPConnection

from receiver.http.api.auth import Caller
from receiver.http.dashboard import sessions as module
from receiver.http.dashboard import timeline
from receiver.http.dashboard.sessions import Sessions
from receiver.http.dashboard.signing_in import BURST, EVERY
from receiver.http.feed import feed
from receiver.http.feed.stream import Timing
from receiver.http.limits import SignInLimit, address_of
from receiver.ledger.money import Money
from receiver.ledger.next_look import NextLook
from receiver.ledger.notification import Hint
from receiver.ledger.refund import Observation, Source
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.dead_letter import DeadEvent, dead_event
from receiver.outbox.retries import DeliveryAttempts
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.store import Store
from receiver.store.deliveries.queues import AttemptEffects
from receiver.store.redis.pipeline import connect
from receiver.store.redis.stream_ids import fixed_width
from receiver.track.record import Recorder
from tests.http.kit import ADMIN, READER, REFUNDER, US_ONLY, Answer, Service, real_receiver, running, settings
from tests.http.test_refund_api import REFUND, seen
from tests.kit.accounts import make_account
from tests.kit.clock import T0, ManualClock
from tests.kit.sns import SnsSigner
from tests.outbox.examples import SECRET

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&{{7*7}}"
ONE = f"/refunds/{REFUND}?account=us"


class Browser:
    """Keeps cookies, as a browser does, and reads forms."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.jar: dict[str, str] = {}
        self.page = ""

    async def call(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> Answer:
        sent = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin", **headers}
        if self.jar:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        answer = await self._service.call(method, path, body=body, headers=sent)
        for line in answer.headers.getall("Set-Cookie", []):  # type: ignore[attr-defined]
            for name, morsel in SimpleCookie(line).items():
                self.jar[name] = morsel.value
        self.page = answer.body.decode()
        return answer

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.call("GET", path, headers={name.replace("_", "-"): each for name, each in headers.items()})

    async def post(self, path: str, headers: Mapping[str, str] = {}, **fields: str) -> Answer:
        return await self.call("POST", path, urlencode(fields).encode(), headers)

    @property
    def csrf(self) -> str:
        """Of the forms of the last page."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.page)
        assert found, self.page[:500]
        return unescape(found[1])

    async def sign_in(self, token: str, following: str = "/") -> Answer:
        await self.get("/sign-in")
        return await self.post("/sign-in", token=token, csrf=self.csrf, next=following)


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    """Two accounts: us and eu."""
    async with running(settings("us", "eu"), store, real_receiver(sns, store, "us", "eu")) as service:
        yield service


@pytest.fixture
def browser(service: Service) -> Browser:
    return Browser(service)


def words(page: str) -> str:
    """The text of a page, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


async def subscribe(store: Store, account: str = "us", name: str = "finance", **more: object) -> None:
    fields = {"name": name, "url": f"https://{name}.example/hooks", "secrets": (Secret(SECRET),), **more}
    await store.of(account).subscribers.add(Subscriber(**fields))  # type: ignore[arg-type]


async def test_nobody_sees_anything_before_signing_in(service: Service, browser: Browser) -> None:
    """Every page leads to the form, which remembers the page that was asked for."""
    for path in ("/refunds?state=Declined", ONE, "/subscribers"):
        answer = await browser.get(path)
        assert answer.status == 303
        assert answer.headers["Location"].startswith("/sign-in?next=%2F")
    assert (await browser.get("/")).headers["Location"] == "/sign-in"
    assert (await browser.post(f"/refunds/{REFUND}/refresh?account=us")).headers["Location"] == "/sign-in"


async def test_the_cookie_is_not_the_token(service: Service, browser: Browser) -> None:
    """It holds an id by chance, out of reach of scripts and of other sites; the page has an exact policy."""
    answer = await browser.sign_in(READER, "/refunds")
    assert (answer.status, answer.headers["Location"]) == (303, "/refunds")
    (cookie,) = (line for line in answer.headers.getall("Set-Cookie") if line.startswith("receiver-session="))  # type: ignore[attr-defined]
    flags = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= flags
    assert "secure" not in flags
    assert READER not in cookie
    page = await browser.get("/")
    assert page.status == 200
    assert page.headers["Content-Security-Policy"] == CSP
    assert page.headers["Cache-Control"] == "no-store"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", browser.page)
    assert "//" not in re.sub(r'xmlns="[^"]*"', "", browser.page).replace("<!--", "")


async def test_over_https_the_cookie_is_secure(sns: SnsSigner, store: Store) -> None:
    """Where a trusted proxy says https: Secure, and a name that only such a cookie may have."""
    chosen = settings("us", "eu")
    http = chosen.http.model_copy(update={"trusted_proxies": ("127.0.0.1",)})
    chosen = chosen.model_copy(update={"http": http})
    async with running(chosen, store, real_receiver(sns, store, "us", "eu")) as service:
        browser = Browser(service)
        await browser.get("/sign-in", X_Forwarded_Proto="https")
        answer = await browser.post(
            "/sign-in", {"X-Forwarded-Proto": "https"}, token=READER, csrf=browser.csrf, next="/"
        )
        cookies = answer.headers.getall("Set-Cookie")  # type: ignore[attr-defined]
        assert any(each.startswith("__Host-receiver-session=") and "; Secure" in each for each in cookies), cookies
        assert (await browser.get("/", X_Forwarded_Proto="https")).status == 200


async def test_wrong_tokens_are_limited(service: Service, browser: Browser) -> None:
    """Five wrong ones, then not even the right one for a while."""
    for _ in range(5):
        answer = await browser.sign_in("wrong")
        assert answer.status == 401
        assert "receiver-session" not in browser.jar
    answer = await browser.sign_in(READER)
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 30


def test_the_limit_wears_off_and_is_bounded(clock: ManualClock) -> None:
    """One more try each half minute; an IPv6 network is one client; the table forgets the oldest."""
    limit = SignInLimit(BURST, EVERY, most=3, timer=lambda: clock() / 1000)
    for number in range(5):
        limit.failed(client_at(f"2001:db8::{number}"))
    assert wait_of(limit, "2001:db8::ffff") == 30
    assert wait_of(limit, "2001:db8:0:1::1") == 0
    clock.tick(30_000)
    assert wait_of(limit, "2001:db8::1") == 0
    for number in range(10):
        for _ in range(5):
            limit.failed(client_at(f"192.0.2.{number}"))
    assert [wait_of(limit, f"192.0.2.{number}") > 0 for number in range(10)] == [False] * 7 + [True] * 3


def client_at(host: str) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [], "client": (host, 1)})


def wait_of(limit: SignInLimit, host: str) -> int:
    return limit.wait(address_of(client_at(host)))


def test_sessions_end_and_are_bounded(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> None:
    """After twelve hours, and the oldest where there are too many."""
    monkeypatch.setattr(module, "MOST_SESSIONS", 2)
    sessions, caller = Sessions(clock), Caller("x", frozenset(), ())
    first, second, third = (sessions.begin(caller) for _ in range(3))
    assert [sessions.of(with_cookie(each)) is not None for each in (first, second, third)] == [False, True, True]
    assert sessions.reader(with_cookie(third)) is caller
    assert sessions.reader(with_cookie(third, "POST")) is None
    clock.tick(12 * 3_600_000)
    assert sessions.of(with_cookie(third)) is None


def with_cookie(value: str, method: str = "GET") -> HTTPConnection:
    headers = [(b"cookie", f"receiver-session={value}".encode()), (b"host", b"x")]
    return HTTPConnection(
        {"type": "http", "scheme": "http", "method": method, "path": "/", "headers": headers, "query_string": b""}
    )


@pytest.mark.parametrize("csrf", [None, "", "wrong"])
async def test_a_form_without_its_token_does_nothing(
    service: Service, browser: Browser, store: Store, csrf: str | None
) -> None:
    """403, and nothing is changed; so is a form that another site sent."""
    await subscribe(store)
    fields: dict[str, Any] = {} if csrf is None else {"csrf": csrf}
    assert (await browser.post("/sign-in", token=US_ONLY, **fields)).status == 403
    await browser.sign_in(US_ONLY)
    assert (await browser.post("/subscribers/finance/pause?account=us", **fields)).status == 403
    assert (await browser.post("/sign-out", **fields)).status == 403
    await browser.get("/subscribers")
    other = await browser.post(
        "/subscribers/finance/pause?account=us", {"Sec-Fetch-Site": "same-site"}, csrf=browser.csrf
    )
    assert other.status == 403
    (found,) = await store.of("us").subscribers.readable()
    assert not found.paused


async def test_the_cookie_reads_the_api_and_never_writes(service: Service, browser: Browser, store: Store) -> None:
    """A GET shows what the token may see; a POST needs a token, whatever the cookie is."""
    await seen(store, "us")
    await browser.sign_in(US_ONLY)
    assert (await browser.get(f"/v1/refunds/{REFUND}")).status == 200
    assert (await browser.get(f"/v1/refunds/{REFUND}?account=eu")).status == 404
    assert (await browser.get("/v1/events")).status == 200
    assert (await browser.get("/v1/refunds", Sec_Fetch_Site="same-site")).status == 401
    assert (await browser.post(f"/v1/refunds/{REFUND}/refresh")).status == 401
    assert (await browser.get("/v1/refunds", Authorization="Bearer wrong")).status == 401
    await browser.get("/")
    assert (await browser.post("/sign-out", csrf=browser.csrf)).status == 303
    assert (await browser.get("/v1/refunds")).status == 401


async def test_an_open_stream_ends_with_its_session(
    sns: SnsSigner, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the stream of another browser with the cookie. A stream with a token continues."""
    monkeypatch.setattr(feed, "Timing", lambda: Timing(heartbeat=0.1))
    async with (
        running(settings("us", "eu"), store, real_receiver(sns, store, "us", "eu")) as service,
        aiohttp.ClientSession(f"http://127.0.0.1:{service.port}") as client,
    ):
        browser = Browser(service)
        await browser.sign_in(READER)
        await browser.get("/")
        cookie = "; ".join(f"{name}={value}" for name, value in browser.jar.items())
        sent = {"Accept": "text/event-stream"}
        async with (
            client.get("/v1/events", headers={**sent, "Cookie": cookie}) as signed_in,
            client.get("/v1/events", headers={**sent, "Authorization": f"Bearer {READER}"}) as with_token,
        ):
            await signed_in.content.readuntil(b": still here")
            assert (await browser.post("/sign-out", csrf=browser.csrf)).status == 303
            await asyncio.wait_for(signed_in.content.read(), 30)
            for _ in range(10):
                await with_token.content.readuntil(b": still here")
        async with client.get("/v1/events", headers={**sent, "Cookie": cookie}) as again:
            assert again.status == 401


async def test_scopes_and_accounts(service: Service, browser: Browser, store: Store) -> None:
    """What a session may see and do is what its token may."""
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    await seen(store, "eu", "S01-EU-1", "Declined", reason="ProcessingFailure")
    await subscribe(store)
    await subscribe(store, "eu", "europe")
    await browser.sign_in(READER)
    await browser.get("/")
    assert REFUND in browser.page
    assert "S01-EU-1" in browser.page
    assert (await browser.get("/subscribers")).status == 403
    await browser.get(ONE)
    assert "Ask Amazon now" not in browser.page
    token = browser.csrf
    assert (await browser.post(f"/refunds/{REFUND}/refresh?account=us", csrf=token)).status == 403
    assert (await browser.post(f"/refunds/{REFUND}/retry?account=us", csrf=token)).status == 403
    await browser.post("/sign-out", csrf=token)
    await browser.sign_in(US_ONLY)
    await browser.get("/")
    assert "S01-EU-1" not in browser.page
    assert (await browser.get("/refunds/S01-EU-1")).status == 404
    assert (await browser.get("/refunds/S01-EU-1?account=eu")).status == 404
    await browser.get("/subscribers")
    assert "finance" in browser.page
    assert "europe" not in browser.page
    assert SECRET not in browser.page
    assert (await browser.post("/subscribers/europe/pause?account=eu", csrf=browser.csrf)).status == 404


@pytest.mark.parametrize(
    ("token", "words"), [(REFUNDER, "does not have the scope"), (ADMIN, "does not have the scope")]
)
async def test_without_read_no_refund_is_shown(
    service: Service, browser: Browser, store: Store, token: str, words: str
) -> None:
    """The overview says so; lists and pages are 403."""
    await seen(store, "us", state="Declined")
    await browser.sign_in(token)
    assert (await browser.get("/")).status == 200
    assert words in browser.page
    assert REFUND not in browser.page
    assert [(await browser.get(path)).status for path in ("/refunds", ONE)] == [403, 403]
    await browser.get("/")
    assert (await browser.post(f"/refunds/{REFUND}/refresh?account=us", csrf=browser.csrf)).status == 403
    assert "lacks the scope read" in browser.page
    assert (await browser.get("/subscribers")).status == (200 if token == ADMIN else 403)


async def hostile(store: Store) -> None:
    """A declined refund all of whose texts are an attack."""
    observation = Observation(
        refund_id=REFUND,
        state="Declined",
        updated_at=T0,
        charge_id=HOSTILE,
        amount=Money.parse("14.00", "USD"),
        reason_code=HOSTILE,
        reason_description=HOSTILE,
        soft_descriptor=HOSTILE,
        environment=HOSTILE,
    )
    await Recorder(store, lambda: 0.5).record(make_account("us"), observation, source=Source.NOTIFICATION)


async def test_texts_from_outside_are_escaped(service: Service, browser: Browser, store: Store, redis: Redis) -> None:
    """Whatever Amazon, a subscriber, or the address bar says: it is text."""
    await hostile(store)
    await subscribe(store, paused=True, paused_reason=HOSTILE, paused_at=T0)
    dead = DeadEvent("1-1", "evt", HOSTILE, REFUND, HOSTILE, T0, 3, HOSTILE, HOSTILE)
    await redis.hset("refunds:{us}:dead:finance", "1-1", msgspec.json.encode(dead))
    await browser.sign_in(US_ONLY)
    query = urlencode({"q": HOSTILE[:100], "next": HOSTILE})
    for path in (
        "/",
        "/refunds",
        ONE,
        "/subscribers",
        f"/refunds?{query}",
        f"/refunds?{urlencode({'reason': HOSTILE})}",
    ):
        await browser.get(path)
        assert "alert(1)" in browser.page or "reason=" in path
        assert "<script>" not in browser.page
        assert "<img" not in browser.page
        assert "49" not in re.findall(r"&amp;\{?\{?(\d+)", browser.page)
    await browser.get(f"/sign-in?{query}")


async def test_where_one_is_led_after_signing_in(service: Service, browser: Browser) -> None:
    """Only to pages of the dashboard."""
    for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example", "/v1/refunds", "/refunds\r\nX: y"):
        browser.jar.clear()
        assert (await browser.sign_in(READER, elsewhere)).headers["Location"] == "/", elsewhere


async def test_a_link_from_elsewhere_keeps_the_session(service: Service, browser: Browser) -> None:
    """The browser does not send a strict cookie with it: an intermediate page continues automatically, without a
    script."""
    answer = await browser.get(ONE, Sec_Fetch_Site="cross-site")
    assert answer.status == 200
    assert f'content="0; url={ONE}"' in unescape(browser.page)


async def test_without_sessions_an_error_is_no_page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page would say who is signed in."""

    def unreadable(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(Sessions, "of", unreadable)
    answer = await browser.get("/refunds")
    assert answer.status == 500
    assert answer.json["reason"] == "internal_error"


async def test_a_refund_with_its_timeline(service: Service, browser: Browser, store: Store, clock: ManualClock) -> None:
    """Every revision with its source, the advice, and what became of the deliveries."""
    await subscribe(store, types=("*",))
    await seen(store, "us")
    await browser.sign_in(US_ONLY)
    assert (await browser.get(f"/refunds/{REFUND}/retry?account=us")).status == 409
    clock.tick(1_000)
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    assert (await browser.get(ONE)).status == 200
    for text in ("14.00 USD", "negative balance", "revision 1", "revision 2", "found by notification"):
        assert text in browser.page, text
    answer = await browser.post(f"/refunds/{REFUND}/refresh?account=us", csrf=browser.csrf)
    assert answer.headers["Location"] == f"{ONE}&done=refresh"
    assert (await store.of("us").gauges.measure())["refreshed"] == 1


async def test_deliveries_of_a_refund(
    service: Service, browser: Browser, store: Store, clock: ManualClock, redis: Redis
) -> None:
    """Those that wait, found by the time of the revision that they tell of, and shown after it: also if the clock of
    the process that wrote them is ahead of Redis's."""
    await subscribe(store, types=("*",))
    seconds, _ = await redis.time()
    clock.tick(int(seconds) * 1000 + 1_500 - clock.ms)
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    await browser.sign_in(US_ONLY)
    await browser.get(ONE)
    assert 0 < browser.page.index("revision 1, found by") < browser.page.index("amazonpay.refund.declined")
    assert re.search(r"finance: <span class=\"state pending\">waiting", browser.page)
    await browser.get("/subscribers")
    assert re.search(r'data-label="Waiting">[12]<span class="says">oldest \d+ s', browser.page)


async def test_the_timeline_has_every_notification_look_and_delivery(
    service: Service, browser: Browser, store: Store, clock: ManualClock
) -> None:
    """In the order of time; who may not see subscribers sees no delivery."""
    await subscribe(store)
    await store.of("us").schedule.hint(Hint(refund_id=REFUND, at=clock.ms, source=Source.NOTIFICATION, message_id="m1"))
    await seen(store, "us")
    claimed = await store.of("us").schedule.claim("get_refund", lease=30_000, burst=9, per_second=9, limit=1)
    clock.tick(1_000)
    assert await store.of("us").schedule.reschedule(claimed.items[0], NextLook(clock.ms, outcome="amazon_throttled"))
    clock.tick(1_000)
    await seen(store, "us", state="Declined", reason="AmazonRejected")
    for number in range(2):
        clock.tick(1_000)
        (delivery,) = (await store.of("us").deliveries.claim("finance", lease=30_000, limit=8)).items
        if number:
            assert await store.of(delivery.account).deliveries.delivered(delivery)
        else:
            assert await store.of(delivery.account).deliveries.retry(
                delivery, clock.ms, DeliveryAttempts(count=1, last_error="HTTP 500 <b>")
            )
    steps = [
        "Notification",
        "found by notification",
        "Amazon asked: throttled",
        "revision 2",
        r"Delivery to finance: <span[^>]*>failed</span>.*attempt 1, HTTP 500 &lt;b&gt;",
        r"Delivery to finance: <span[^>]*>delivered</span> <code>amazonpay.refund.declined</code>.*attempt 2",
    ]
    await browser.sign_in(US_ONLY)
    await browser.get(ONE)
    _, _, shown = browser.page.partition('id="timeline"')
    assert re.search(".*".join(steps), shown, re.DOTALL), shown
    browser.jar.clear()
    await browser.sign_in(READER)
    await browser.get(ONE)
    assert "Amazon asked: throttled" in browser.page
    assert "finance" not in browser.page


async def test_pause_and_resume(service: Service, browser: Browser, store: Store) -> None:
    """As over the API: the subscriber is paused by an operator, and awake again."""
    await subscribe(store)
    await browser.sign_in(US_ONLY)
    await browser.get("/subscribers")
    assert (await browser.post("/subscribers/finance/pause?account=us", csrf=browser.csrf)).status == 303
    (found,) = await store.of("us").subscribers.readable()
    assert (found.paused, found.paused_reason) == (True, "operator")
    await browser.get("/subscribers")
    assert "manually" in browser.page
    csrf = browser.csrf
    assert (await browser.post("/subscribers/finance/resume?account=us", csrf=csrf)).status == 303
    assert not (await store.of("us").subscribers.readable())[0].paused
    assert (await browser.post("/subscribers/nobody/pause?account=us", csrf=csrf)).status == 404


async def test_what_was_given_up_is_sent_again(service: Service, browser: Browser, store: Store) -> None:
    """One press."""
    await subscribe(store)
    await seen(store, "us", "S01-1", "Declined")
    (delivery,) = (await store.of("us").deliveries.claim("finance", lease=30_000, limit=8)).items
    assert await store.of(delivery.account).deliveries.dead(
        delivery, dead_event(delivery, "exhausted", T0, DeliveryAttempts())
    )
    await browser.sign_in(US_ONLY)
    await browser.get("/subscribers")
    assert "Resend all 1" in browser.page
    assert (await browser.post("/subscribers/finance/redrive?account=us", csrf=browser.csrf)).status == 303
    assert await store.of("us").deliveries.dead_events("finance") == []
    assert (await store.of("us").deliveries.queue_sizes("finance"))[:2] == (1, 0)


async def test_the_last_error_stays_known_after_a_success(
    service: Service, browser: Browser, store: Store, clock: ManualClock
) -> None:
    """When it was, and how often in a row; then when a try succeeded again."""
    await subscribe(store)
    await seen(store, "us", "S01-1", "Declined")
    await browser.sign_in(US_ONLY)
    (delivery,) = (await store.of("us").deliveries.claim("finance", lease=30_000, limit=8)).items
    assert await store.of(delivery.account).deliveries.retry(
        delivery, clock.ms, DeliveryAttempts(count=1), AttemptEffects(failed=True, error="HTTP 502")
    )
    await browser.get("/subscribers")
    words = r"<strong>Last error:</strong> HTTP 502, at <time[^>]*>[^<]*</time>"
    assert re.search(rf"{words}; 1 failures in a row", browser.page)
    success = 'data-label="Last success">'
    assert f'{success}<span class="faint">none yet</span>' in browser.page
    clock.tick(60_000)
    (delivery,) = (await store.of("us").deliveries.claim("finance", lease=30_000, limit=8)).items
    assert await store.of(delivery.account).deliveries.delivered(delivery)
    await browser.get("/subscribers")
    assert re.search(rf"{words}(?!; 1 failures)", browser.page)
    assert f'{success}<time datetime="{format_rfc3339(clock.ms)}">' in browser.page


async def test_however_much_was_given_up_it_is_shown_and_sent_again(
    service: Service, browser: Browser, store: Store, clock: ManualClock, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a long outage: the subscriber's page has the latest and the button, a refund's page its own."""
    monkeypatch.setattr(timeline, "MOST_DEAD", 1)
    entry = DeadEvent("1-0", "e", "amazonpay.refund.declined", REFUND, "exhausted", T0, 12, "HTTP 500")
    dead: dict[Any, Any] = {}
    deaths: dict[str, int] = {}
    await subscribe(store)
    for number in range(1, 2_002):
        stream_id = f"{number}-0"
        other = msgspec.structs.replace(entry, stream_id=stream_id, refund_id=f"S01-{number}")
        dead[stream_id], deaths[fixed_width(stream_id)] = msgspec.json.encode(other), 0
    await redis.hset("refunds:{us}:dead:finance", mapping=dead)
    await redis.zadd("refunds:{us}:deaths:finance", deaths)
    seconds, _ = await redis.time()
    clock.tick(int(seconds) * 1000 - clock.ms)
    await seen(store, "us", state="Declined")
    (delivery,) = (await store.of("us").deliveries.claim("finance", lease=30_000, limit=8)).items
    assert await store.of(delivery.account).deliveries.dead(
        delivery, dead_event(delivery, "exhausted", T0, DeliveryAttempts(last_error="HTTP 503"))
    )
    await browser.sign_in(US_ONLY)
    await browser.get("/subscribers")
    assert "the latest 20 of 2002" in browser.page
    assert "Resend all 2002" in browser.page
    assert "<strong>Last error:</strong> HTTP 503<" in browser.page
    await browser.get(ONE)
    assert re.search(r'finance: <span class="state declined">failed permanently', browser.page)


async def test_the_list_filters_and_has_pages(
    service: Service, browser: Browser, store: Store, clock: ManualClock
) -> None:
    """Empty fields of the form are no filters; a page leads to the next one."""
    for number in range(53):
        await seen(store, "us", f"S01-{number:02}", "Refunded" if number else "Declined")
        clock.tick(1)
    await browser.sign_in(US_ONLY)
    await browser.get("/refunds?account=&state=Declined&reason=&charge=&order=")
    assert re.findall(r">(S01-\d\d)</a>", browser.page) == ["S01-00"]
    await browser.get("/refunds")
    assert len(re.findall(r">S01-\d\d</a>", browser.page)) == 50
    following = re.search(r'href="([^"]+)" rel="next"', browser.page)
    assert following
    await browser.get(unescape(following[1]))
    assert re.findall(r">(S01-\d\d)</a>", browser.page) == ["S01-02", "S01-01", "S01-00"]
    assert (await browser.get("/refunds?cursor=x")).status == 400


async def test_conflicts_come_first(service: Service, browser: Browser, store: Store, clock: ManualClock) -> None:
    """Also those that this process learns of later."""
    await browser.sign_in(READER)
    await browser.get("/")
    assert "different final states" not in browser.page
    await seen(store, "us", state="Declined")
    observation = Observation(refund_id=REFUND, state="Refunded", updated_at=T0 + 1000)
    await Recorder(store, lambda: 0.5).record(make_account("us"), observation, source=Source.POLL)
    await browser.get("/")
    text = words(browser.page)
    assert text.index("Conflicts 1") < text.index("Refunds by state")


async def test_stuck_refunds_come_first(service: Service, browser: Browser, store: Store, clock: ManualClock) -> None:
    """Those that are pending for more than a day, once the event was written."""
    await seen(store, "us")
    await browser.sign_in(READER)
    await browser.get("/")
    assert 'id="stuck"' not in browser.page
    clock.tick(25 * 3_600_000)
    await seen(store, "us")
    await browser.get("/")
    text = words(browser.page)
    assert text.index("Stuck 1") < text.index("Oldest pending")


async def test_the_chart_has_a_table(service: Service, browser: Browser, store: Store, clock: ManualClock) -> None:
    """The same numbers in both; 24 hours, the present one last."""
    await seen(store, "us", state="Declined")
    await seen(store, "eu", "S01-1", "Refunded")
    await browser.sign_in(READER)
    await browser.get("/")
    assert 'aria-label="2 refunds changed in the last 24 hours' in browser.page
    rows = re.findall(r'<th scope="row">(\d\d:00)</th>' + r'<td class="number">(\d+)</td>' * 3, browser.page)
    assert len(rows) == 24
    assert rows[-1] == ("08:00", "1", "1", "0")
    assert len(re.findall(r"<rect ", browser.page)) == 2


async def test_static_files_are_kept_for_ever(service: Service, browser: Browser) -> None:
    """They are named by their content, and need no session."""
    await browser.get("/sign-in")
    for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', browser.page):
        answer = await browser.get(path)
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await browser.get("/static/none.css")).status == 404
    assert (await browser.get("/static/%2e%2e%2fpages.py")).status == 404


async def test_what_is_not_there(service: Service, browser: Browser) -> None:
    """A page for browsers, JSON for programs."""
    answer = await browser.get("/nothing")
    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["Content-Security-Policy"] == CSP
    assert (await browser.get("/v1/nothing")).headers["Content-Type"] == "application/problem+json"
    assert (await service.get("/nothing")).headers["Content-Type"] == "application/problem+json"


async def test_while_the_store_is_away(sns: SnsSigner) -> None:
    """A page that says so, and loads again by itself; no trace."""
    store = Store(connect("unix:///nowhere/valkey.sock"))
    try:
        async with running(settings("us", "eu"), store, real_receiver(sns, store, "us", "eu")) as service:
            browser = Browser(service)
            await browser.sign_in(US_ONLY)
            for path in ("/", "/refunds", ONE, "/subscribers"):
                answer = await browser.get(path)
                assert (answer.status, answer.headers["Retry-After"]) == (503, answer.headers["Retry-After"])
                assert "Nothing is lost" in browser.page
                assert 'http-equiv="refresh"' in browser.page
                assert "Traceback" not in browser.page
    finally:
        await store.close()


async def test_the_overview_shows_subscribers_that_get_nothing(browser: Browser, store: Store, redis: Any) -> None:
    """Paused, failing, with dead events, damaged; only to those who may see subscribers."""
    await subscribe(store, name="quiet")
    await subscribe(store, name="halted", paused=True, paused_at=T0, paused_reason="operator")
    await subscribe(store, name="broken")
    await redis.hset("refunds:{us}:health:broken", "streak", 5)
    dead = DeadEvent("1-1", "evt", "amazonpay.refund.declined", REFUND, "Declined", T0, 3, "exhausted", "HTTP 503")
    await redis.hset("refunds:{us}:dead:broken", "1-1", msgspec.json.encode(dead))
    await redis.hset("refunds:{us}:subscribers", "damaged", b"{")
    await browser.sign_in(ADMIN)
    await browser.get("/")
    text = words(browser.page)
    assert "Subscribers missing events 3" in text
    assert "halted us paused Resume halted" in text
    assert "broken us failing, 1 failed permanently See why broken misses events" in text
    assert "damaged us its record is damaged" in text
    assert "quiet" not in text
    browser.jar.clear()
    await browser.sign_in(READER)
    await browser.get("/")
    assert "Subscribers missing events" not in browser.page


async def test_subscribers_that_the_settings_no_longer_name_are_shown(browser: Browser, store: Store) -> None:
    """The overview and the page of subscribers show them and how to remove them, but only to tokens that may see
    subscribers."""
    await subscribe(store, name="left", undeclared_at=T0)
    await subscribe(store, name="quiet")
    await browser.sign_in(ADMIN)
    await browser.get("/")
    text = words(browser.page)
    assert "Subscribers no longer in the settings 1" in text
    assert "left us Look at left" in text
    assert "Nothing needs you" not in text
    await browser.get("/subscribers")
    assert words(browser.page).count("No longer in the settings since") == 1
    assert "receiver subscriber remove left" in browser.page
    browser.jar.clear()
    await browser.sign_in(READER)
    await browser.get("/")
    assert "no longer in the settings" not in browser.page
