"""Keys of a wrong type under a running service: it reports them, other subscribers get their events, and it continues
when they are repaired."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from receiver.ledger import next_look
from receiver.simulator.outcomes import Outcome
from receiver.store.maintenance import inspection
from tests.kit.processes import until
from tests.service.stage import Amazon, Hook, account, running


@pytest.fixture
async def shop() -> AsyncIterator[Amazon]:
    """Amazon Pay of one merchant."""
    async with Amazon(retry_waits=(0.1,) * 100) as found:
        yield found


@pytest.fixture
async def audit() -> AsyncIterator[Hook]:
    """A subscriber to everything."""
    async with Hook("audit").listening() as found:
        yield found


@pytest.fixture
async def finance() -> AsyncIterator[Hook]:
    """Another one."""
    async with Hook("finance").listening() as found:
        yield found


KINDS = [
    *("due", "hinted", "hints", "events", "subscribers", "backfill", "told", "upkeep", "throttle:get_refund"),
    *(
        "throttle:get_charge",
        "state:Declined",
        "reason:AmazonRejected",
        "issuing",
        "fps_issuing",
        "reserved",
        "unclear",
    ),
    *(f"{kind}:finance" for kind in ("lane", "owed", "attempts", "dead", "deaths", "copies", "health")),
]
BEARABLE = {
    *("upkeep", "throttle:get_charge", "issuing", "fps_issuing", "reserved", "unclear", "told"),
    *(kind for kind in KINDS if kind.endswith(":finance")),
}
"""Foreign keys with which a decline is still delivered, to all but the subscriber that they belong to."""


@pytest.mark.parametrize("kind", KINDS)
async def test_a_foreign_key_is_said_and_the_work_goes_on_when_it_is_right(
    shop: Amazon,
    audit: Hook,
    finance: Hook,
    redis: Any,
    valkey_url: str,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inspection, "CHECK_EVERY", 0.2)
    monkeypatch.setattr(next_look, "DAMAGED_PAUSE", 300)
    key = f"refunds:{{us}}:{kind}"
    with capture_logs() as logs:
        async with running(valkey_url, [account(shop, tmp_path)], [audit, finance]) as stage:
            shop.post_to = f"{stage.url}/ipn"
            await until(stage.ready, "it is ready")
            shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
            await until(lambda: len(audit.told) == len(finance.told) == 1, "all is well")
            with contextlib.suppress(ResponseError):  # There is no such key: all that it held is delivered.
                await redis.rename(key, "kept")
            await redis.sadd(key, "not ours")
            await until(lambda: named(logs, key), "the log names it")
            status, body = await stage.get("/readyz")
            assert (status, body["checks"]["keys"]) == (200, "store_wrong_type")
            assert key in body["damagedKeys"]
            shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
            if kind in BEARABLE:
                await until(lambda: len(audit.told) == 2, "the others are told")
            await redis.delete(key)
            if await redis.exists("kept"):
                await redis.rename("kept", key)
            await until(lambda: len(audit.told) == len(finance.told) == 2, "everybody is told")
            assert (await stage.get("/readyz"))[1]["checks"]["keys"] == "ok"
            assert len(finance.told) == len(set(finance.told)) == 2


def named(logs: list[Any], key: str) -> bool:
    return any(line["event"] == "store.wrong_type" and line["key"] == key for line in logs)


async def test_a_foreign_format_is_said_at_once(
    shop: Amazon, audit: Hook, redis: Any, valkey_url: str, tmp_path: Path
) -> None:
    await redis.sadd("refunds:format", "not ours")
    with capture_logs() as logs:
        async with running(valkey_url, [account(shop, tmp_path)], [audit]) as stage:
            assert named(logs, "refunds:format")
            status, body = await stage.get("/readyz")
            assert (status, body["checks"]["store"]) == (503, "store_wrong_type")
            assert body["damagedKeys"] == {"refunds:format": "set, not string"}
            await redis.delete("refunds:format")
            await until(stage.ready, "it is ready")


async def test_a_damaged_key_of_one_merchant_keeps_no_other_waiting_at_the_start(
    shop: Amazon, audit: Hook, redis: Any, valkey_url: str, tmp_path: Path
) -> None:
    await redis.sadd("refunds:{eu}:subscribers", "not ours")
    other = {**account(shop, tmp_path), "name": "eu", "merchant_id": "A3OTHERMERCHANT"}
    async with running(valkey_url, [account(shop, tmp_path), other], [audit]) as stage:
        shop.post_to = f"{stage.url}/ipn"
        await until(stage.ready, "it is ready")
        shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
        await until(lambda: len(audit.told) == 1, "the other merchant's decline is told")
