"""A negative balance, from the first decline to the last buyer who has the money: forty declines, one alarm, and one
command that is killed half-way together with the service. Nothing is refunded twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import aiohttp
import pytest

from receiver.outbox.events.balance_event import read_balance_event
from receiver.outbox.events.event import from_fields
from receiver.outbox.events.kinds import BALANCE, kind_of
from receiver.outbox.formats.registry import render, wants
from receiver.outbox.subscribers.filters import wants_balance
from receiver.simulator.app import Simulator
from tests.kit.processes import Command, Desk, desk, until
from tests.kit.shared import keys
from tests.outbox.tellers import teller
from tests.service.crash_kit import TOKEN, now, toml

MANY = 40
RETRY = ("refund", "retry", "--reason", "AmazonRejected", "--since", "3d", "--max-total", "5000.00 USD", "--yes")


@dataclass
class Shop:
    """Amazon, the service as a process on a Redis that stays, and the commands."""

    amazon: Simulator
    place: Desk
    session: aiohttp.ClientSession
    redis: Any
    url: str = ""

    async def serve(self) -> Command:
        """Start the service; Amazon notifies it from now on."""
        service = await self.place.serve(self.place.folder / "receiver.toml")
        self.url = (await service.line("serve.ready"))["address"]
        self.amazon.post_to = f"{self.url}/ipn"
        return service

    def configure(self, redis: str) -> None:
        folder = self.place.folder
        (folder / "sns.pem").write_text(self.amazon.certificate_pem)
        (folder / "key.pem").write_bytes(self.amazon.merchant_private_key_pem)
        account = {
            "name": "us",
            "merchant_id": self.amazon.merchant_id,
            "region": "na",
            "environment": "sandbox",
            "public_key_id": self.amazon.public_key_id,
            "private_key_file": "key.pem",
            "topic_arns": [self.amazon.topic_arn],
            "endpoint": self.amazon.base_url,
            "poll": ["1s", "2s", "every 3s"],
        }
        fast = {"get_refund": [1000, 1000], "get_charge": [1000, 1000], "create_refund": [8, 8]}
        digest = sha256(TOKEN.encode()).hexdigest()
        sections = [
            toml("[http]", {"port": 0}),
            toml("[track]", {"request_timeout": "1s"}),
            toml("[redis]", {"url": redis}),
            toml("[[tokens]]", {"name": "test", "sha256": digest, "scopes": ["read", "refund"]}),
            toml("[[accounts]]", account),
            toml("[accounts.throttle]", fast),
            toml("[accounts.signing_certificates]", {f'"{self.amazon.certificate_url}"': "sns.pem"}),
        ]
        (folder / "receiver.toml").write_text("\n".join(sections), "utf-8")

    async def open(self) -> int:
        """How many declines are open."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.session.get(f"{self.url}/v1/refunds?open=true&limit=200", headers=headers) as answer:
            return len((await answer.json())["refunds"])

    async def command(self, *arguments: str) -> Command:
        return await self.place.start(*arguments, env=self.env)

    @property
    def env(self) -> dict[str, str]:
        return {"RECEIVER_URL": self.url, "RECEIVER_TOKEN": TOKEN}

    @property
    def issued(self) -> int:
        """The refunds that Amazon made through the API."""
        return sum(each.by_api for each in self.amazon.refunds.values())

    async def entries(self) -> list[dict[str, str]]:
        found = await self.redis.xrange("refunds:{us}:events")
        return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]


@pytest.fixture
async def shop(redis: Any, valkey_url: str) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        amazon = await stack.enter_async_context(Simulator(keys=keys(), outcome_delay=0.5, throttle={}))
        place = await stack.enter_async_context(desk())
        session = await stack.enter_async_context(aiohttp.ClientSession())
        found = Shop(amazon, place, session, redis)
        found.configure(valkey_url)
        yield found


def incidents(entries: list[dict[str, str]]) -> tuple[Counter[str], set[str]]:
    """What PagerDuty makes of the stream: how often each incident was triggered, and those that are still open."""
    pager, triggered, still_open = teller("pagerduty"), Counter[str](), set[str]()
    for fields in entries:
        if kind_of(fields) is BALANCE:
            alarm = read_balance_event("us", fields)
            request = render([alarm], pager, now()) if wants_balance(pager, alarm) else None
        else:
            event = from_fields("us", fields)
            request = render([event], pager, event.at) if wants(pager, event) else None
        if request is None:
            continue
        body = json.loads(request.body)
        if body["event_action"] == "trigger":
            triggered[body["dedup_key"]] += 1
            still_open.add(body["dedup_key"])
        else:
            still_open.discard(body["dedup_key"])
    return triggered, still_open


async def test_a_wave_of_declines_comes_to_its_end(shop: Shop) -> None:
    service = await shop.serve()
    shop.amazon.set_balance("negative")
    for _ in range(MANY):
        shop.amazon.start_refund("12.00", "USD")
    await until(lambda: is_open(shop, MANY), "all declines are open")
    triggered, still_open = incidents(await shop.entries())
    assert len(still_open) == 3, "two declines, and the alarm that all others belong to"
    assert max(triggered.values()) == MANY - 1

    shop.amazon.set_balance("repaid")
    first = await shop.command(*RETRY)
    await until(lambda: shop.issued >= MANY // 2, "half of them are reissued")
    await first.kill()
    await service.kill()
    assert shop.issued < MANY
    assert f"Would reissue {MANY} refunds: 480.00 USD (account us)" in first.said

    service = await shop.serve()
    second = await shop.command(*RETRY)
    assert await second.ended() == 0, second.complaint
    assert f"{MANY} of {MANY} refunds reissued" in second.complaint
    assert second.said.count("reissued as") == MANY

    await until(lambda: is_open(shop, 0), "all cases have closed by themselves")
    by_charge = Counter(each.order.charge_id for each in shop.amazon.refunds.values())
    assert shop.issued == MANY
    assert set(by_charge.values()) == {2}
    entries = await shop.entries()
    kinds = Counter(each["type"] for each in entries)
    assert (kinds["amazonpay.balance.suspected"], kinds["amazonpay.balance.resolved"]) == (1, 1)
    assert kinds["amazonpay.refund.resolved"] == MANY
    assert incidents(entries)[1] == set()
    third = await shop.place.run(*RETRY, env=shop.env)
    assert third.process.returncode == 0
    assert "Would reissue 0 refunds" in third.said
    assert f"{MANY}  480.00 USD  closed" in third.said
    await service.stop()


async def is_open(shop: Shop, count: int) -> bool:
    return await shop.open() == count
