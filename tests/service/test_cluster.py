"""The whole service on a Redis Cluster of three real nodes, with an account on each; and who looks at it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from receiver.commands.doctor.finding import Finding
from receiver.commands.doctor.store import check_store
from receiver.commands.prune import prune
from receiver.issue.cases import Closing
from receiver.ledger.audit import Actor
from receiver.ledger.refund import How, State
from receiver.service import system_clock
from receiver.simulator.outcomes import Outcome
from tests.commands.doctor.kit import site
from tests.kit.configuration import table
from tests.kit.fleet import HOST, Fleet, Server, fleet
from tests.kit.processes import until
from tests.service.stage import TOKEN, Amazon, Hook, Stage, account, running

NAMES = ("live", "eu", "us")
"""Accounts whose slots lie on the first, the second and the third of three nodes."""


@pytest.fixture
async def servers() -> AsyncIterator[Fleet]:
    """Room for Valkeys."""
    async with fleet() as found:
        yield found


def address(nodes: list[Server]) -> str:
    """As an operator writes it."""
    return f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in nodes)}"


async def doctored(url: str, *names: str, **redis: Any) -> dict[tuple[str, str], Finding]:
    """The findings of `receiver doctor` about the store, by check and subject."""
    tables = [table(name, merchant_id=f"A{name.upper()}000000000") for name in names]
    found = await check_store(site(*tables, redis={"url": url, "timeout": "1s", "connect_timeout": "500ms", **redis}))
    return {(each.check, each.subject): each for each in found}


async def test_three_accounts_on_three_nodes(servers: Fleet, tmp_path: Path) -> None:
    """Notification, refund, event and delivery of each; the feed, lists, metrics and the overview over all; the
    doctor; and what happens to the others when one node dies."""
    nodes = await servers.cluster()
    url = address(nodes)
    async with AsyncExitStack() as stack:
        shops = [await stack.enter_async_context(Amazon(merchant_id=f"A{name.upper()}" + "0" * 9)) for name in NAMES]
        hooks = [await stack.enter_async_context(Hook("audit").listening()) for _ in NAMES]
        tables = []
        for name, shop in zip(NAMES, shops, strict=True):
            (tmp_path / name).mkdir()
            tables.append(account(shop, tmp_path / name, name))
        declared = [{"account": name, **hook.table()} for name, hook in zip(NAMES, hooks, strict=True)]
        stage = await stack.enter_async_context(
            running(url, tables, subscribers=declared, redis={"url": url, "timeout": "1s", "connect_timeout": "500ms"})
        )
        for name, shop in zip(NAMES, shops, strict=True):
            shop.post_to = f"{stage.url}/ipn/{name}"
        ids = [shop.start_refund("12.00", "USD", Outcome.AMAZON_REJECTED) for shop in shops]
        await until(lambda: stage.agrees(*shops), "every refund is known")
        for shop in shops:
            shop.move()
        await until(lambda: all(len(hook.posts) == 2 for hook in hooks), "every event is delivered")
        for refund_id, hook in zip(ids, hooks, strict=True):
            assert hook.told == [(refund_id, "declined"), (refund_id, "initiated")]
        await everything_is_shown(stage, ids)
        found = await doctored(url, *NAMES)
        assert "every slot has a master" in found["redis.cluster", ""].found
        assert {name for name, _ in found} >= {"redis.version", "redis.write", "store.format"}
        assert {subject for check, subject in found if check == "redis.write"} == {f"{HOST}:{n.port}" for n in nodes}
        assert await prune_one(stage, url, ids[2]) == 0
        await one_node_dies(stage, nodes[1], shops, hooks)
        found = await doctored(url, *NAMES)
        assert found["redis.node", f"{HOST}:{nodes[1].port}"].reason == "store_unreachable"
        assert found["redis.node", f"{HOST}:{nodes[1].port}"].fix


async def everything_is_shown(stage: Stage, ids: list[str]) -> None:
    """By the feed with one cursor, the list, the metrics, `/readyz` and the dashboard."""
    status, first = await stage.get("/v1/events?after=beginning&limit=4")
    _, second = await stage.get(f"/v1/events?after={quote(first['after'])}")
    events = [(each["subject"], each["type"].rpartition(".")[2]) for each in (*first["events"], *second["events"])]
    assert status == 200
    assert sorted(events) == sorted((refund_id, word) for refund_id in ids for word in ("initiated", "declined"))
    _, listed = await stage.get(f"/v1/refunds?state={State.DECLINED}")
    assert sorted(each["refundId"] for each in listed["refunds"]) == sorted(ids)
    async with stage.session.get(f"{stage.url}/metrics") as answer:
        text = await answer.text()
    assert all(f'receiver_events_kept{{account="{name}"}} 2.0' in text for name in NAMES)
    assert await stage.ready()
    page = await overview(stage)
    assert all(name in page for name in NAMES)
    counted = [await stage.service.store.of(name).dashboard.counted([0, system_clock() + 60_000]) for name in NAMES]
    assert [each.totals[State.DECLINED] for each in counted] == [1, 1, 1]


async def overview(stage: Stage) -> str:
    """The dashboard's first page, after signing in."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{stage.url}/sign-in") as answer:
            form = re.search(r'name="csrf" value="([^"]+)"', await answer.text())
        assert form
        fields = {"csrf": form[1], "token": TOKEN}
        async with browser.post(f"{stage.url}/sign-in", data=fields, headers={"Origin": stage.url}) as answer:
            assert answer.status == 200
            return await answer.text()


async def prune_one(stage: Stage, url: str, refund_id: str) -> int:
    """`receiver prune --refund`, beside the service, once its case is closed."""
    closing = Closing(How.COMPENSATED, Actor("desk"), note="gift card")
    await stage.service.issuers["us"].cases.close(refund_id, closing)
    code = await prune(stage.service.settings, "", refund_id, "us", False, True)
    assert await stage.refund(refund_id) is None
    return code


async def one_node_dies(stage: Stage, node: Server, shops: list[Amazon], hooks: list[Hook]) -> None:
    """Its account gets 503, the others go on; the service stays ready, and its metrics tell of the others."""
    node.kill()
    shops[1].post_to = ""
    new = shops[2].start_refund("7.00", "USD", Outcome.DECLINED_AT_ONCE)
    await until(lambda: (new, "declined") in hooks[2].told, "the other accounts go on")
    assert await stage.ready()
    status, problem = await stage.get("/v1/refunds")
    assert (status, problem["reason"][:6]) == (503, "store_")
    async with stage.session.get(f"{stage.url}/metrics") as answer:
        text = await answer.text()
    assert 'receiver_events_kept{account="us"}' in text
    assert 'receiver_events_kept{account="eu"}' not in text
