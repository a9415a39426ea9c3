"""A declined refund issued again from the dashboard, with the service, its workers and Amazon's stand-in on sockets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

from receiver.simulator.outcomes import Outcome
from receiver.store import Store
from tests.http.kit import READER, REFUNDER, US_ONLY, real_receiver, running, settings
from tests.http.test_dashboard import Browser, words
from tests.issue.counter import Counter, shop
from tests.issue.kit import desk
from tests.issue.test_unclear import unclear
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.kit.sns import SnsSigner


async def page(counter: Counter, method: str, path: str, cookies: Mapping[str, str], **fields: str) -> Any:
    """Status, text, headers and cookies of one answer, as a browser gets it."""
    sent = {"Accept": "text/html", "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    url, data = counter.stage.url + path, fields or None
    async with counter.stage.session.request(method, url, data=data, headers=sent, allow_redirects=False) as answer:
        found = {name: morsel.value for name, morsel in answer.cookies.items()}
        return answer.status, await answer.text(), answer.headers, {**cookies, **found}


def csrf(text: str) -> str:
    """Of a page's last form."""
    return unescape(re.findall(r'name="csrf" value="([^"]+)"', text)[-1])


async def test_a_declined_refund_is_issued_again_once(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """A page asks first; two presses of its button make one refund."""
    async with shop(valkey_url, tmp_path) as (counter, amazon):
        charge = amazon.open_charge("100.00", "USD", reference="order-7")
        _, made = await counter.create(charge, "14.02")
        declined = made["refundId"]

        async def is_declined() -> bool:
            amazon.move()
            await counter.call("POST", f"/v1/refunds/{declined}/refresh")
            _, body, _ = await counter.call("GET", f"/v1/refunds/{declined}")
            return bool(body["statusDetails"]["state"] == "Declined")

        await until(is_declined, "Amazon has declined it")
        _, text, _, jar = await page(counter, "GET", "/sign-in", {})
        _, _, _, jar = await page(counter, "POST", "/sign-in", jar, token=REFUNDER, csrf=csrf(text), next="/")
        path = f"/refunds/{declined}/retry?account=us"
        _, text, _, _ = await page(counter, "GET", f"/refunds/{declined}?account=us", jar)
        assert path in unescape(text)
        status, text, _, _ = await page(counter, "GET", path, jar)
        assert (status, "14.02 USD" in text, "order-7" in text) == (200, True, True)
        assert (await page(counter, "POST", path, jar, csrf="wrong"))[0] == 403
        assert len(amazon.refunds) == 1
        status, _, headers, _ = await page(counter, "POST", path, jar, csrf=csrf(text))
        (repeated,) = set(amazon.refunds) - {declined}
        assert (status, headers["Location"]) == (303, f"/refunds/{repeated}?account=us&done=retry")
        again = await page(counter, "POST", path, jar, csrf=csrf(text))
        assert (again[0], again[2]["Location"]) == (303, headers["Location"])
        assert len(amazon.refunds) == 2
        _, text, _, _ = await page(counter, "GET", f"/refunds/{declined}?account=us", jar)
        assert repeated in text
        assert path not in unescape(text)


async def test_other_refunds_are_shown_with_a_box_that_names_them(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    async with shop(valkey_url, tmp_path) as (counter, amazon):
        charge = amazon.open_charge("100.00", "USD")
        _, made = await counter.create(charge, "14.02")
        declined = made["refundId"]
        assert made["issuedBy"] == "refunder"
        amazon.move()
        amazon.move()
        await counter.shows(declined, "Declined")
        status, problem = await counter.create(charge, "14.02", "another", besides="S01-1")
        assert (status, problem["reason"]) == (400, "bad_besides")
        other = amazon.start_refund("14.02", "USD", Outcome.PENDING, charge)
        await counter.shows(other, "RefundInitiated")
        status, problem = await counter.retry(declined)
        assert (status, problem["reason"]) == (409, "same_amount_refunded")
        assert [each["refundId"] for each in problem["refunds"]] == [other]
        _, text, _, jar = await page(counter, "GET", "/sign-in", {})
        _, _, _, jar = await page(counter, "POST", "/sign-in", jar, token=REFUNDER, csrf=csrf(text), next="/")
        path = f"/refunds/{declined}/retry?account=us"
        _, text, _, _ = await page(counter, "GET", path, jar)
        status, text, _, _ = await page(counter, "POST", path, jar, csrf=csrf(text))
        assert (status, f'name="besides" value="{other}"' in text) == (409, True)
        assert len(amazon.refunds) == 2
        status, _, headers, _ = await page(counter, "POST", path, jar, csrf=csrf(text), besides=other)
        (repeated,) = set(amazon.refunds) - {declined, other}
        assert (status, headers["Location"]) == (303, f"/refunds/{repeated}?account=us&done=retry")


async def test_a_payment_that_is_not_known_here_can_be_named(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """Amazon's amount for the charge includes it, but its notification has not come: a person enters the id."""
    async with shop(valkey_url, tmp_path) as (counter, amazon):
        charge = amazon.open_charge("100.00", "USD")
        _, made = await counter.create(charge, "14.02")
        declined = made["refundId"]
        amazon.move()
        await counter.shows(declined, "Declined")
        amazon.post_to = None
        other = amazon.start_refund("14.02", "USD", Outcome.REFUNDED_AT_ONCE, charge)
        _, text, _, jar = await page(counter, "GET", "/sign-in", {})
        _, _, _, jar = await page(counter, "POST", "/sign-in", jar, token=REFUNDER, csrf=csrf(text), next="/")
        path = f"/refunds/{declined}/retry?account=us"
        _, text, _, _ = await page(counter, "GET", path, jar)
        status, text, _, _ = await page(counter, "POST", path, jar, csrf=csrf(text))
        assert (status, '<input name="besides"' in text) == (409, True)
        assert "14.02 USD more was refunded on the charge than is known here" in text
        status, _, headers, _ = await page(counter, "POST", path, jar, csrf=csrf(text), besides=other)
        (repeated,) = set(amazon.refunds) - {declined, other}
        assert (status, headers["Location"]) == (303, f"/refunds/{repeated}?account=us&done=retry")


async def test_unclear_requests_come_first(store: Store, clock: ManualClock) -> None:
    """For who may settle them: the scope refund."""
    sns = SnsSigner()
    async with desk(store, clock) as made, running(settings("us"), store, real_receiver(sns, store)) as service:
        record = await unclear(made, made.charge())
        browser = Browser(service)
        await browser.sign_in(US_ONLY)
        await browser.get("/")
        assert "Unclear requests 1" in words(browser.page)
        assert record.order.id in browser.page
        other = Browser(service)
        await other.sign_in(READER)
        await other.get("/")
        assert record.order.id not in other.page
