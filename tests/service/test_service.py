"""The service as a whole: Redis that comes and goes, workers that fail, several processes, and an orderly end."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from structlog.testing import capture_logs

from receiver.deliver import configured
from receiver.outbox.subscribers.subscriber import pause
from receiver.runtime import supervisor as module
from receiver.service import Service
from receiver.settings import check
from receiver.settings.reloading import reloaded
from receiver.simulator.outcomes import Outcome
from receiver.simulator.reports.book import SANDBOX_SETTLEMENT_DATA
from receiver.track.tracker import Tracker
from receiver.transport.client import Transport
from tests.kit.accounts import merchant_key_pem
from tests.kit.processes import until
from tests.kit.valkey import start_valkey, stop_valkey
from tests.service.stage import Amazon, Hook, Stage, account, running


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
def socket_dir() -> Iterator[Path]:
    """A directory with a name short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="rv-") as directory:
        yield Path(directory)


async def test_redis_may_come_late_and_go_and_come_back(
    shop: Amazon, audit: Hook, socket_dir: Path, tmp_path: Path
) -> None:
    """While it is unavailable, notifications get 503, so that they are sent again, and the readiness check says why.
    When it is back, the configured subscriber is written before any refund is polled, and gets every event once."""
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    url = f"unix://{socket_dir}/valkey.sock"
    redis = {"url": url, "timeout": "1s", "connect_timeout": "1s"}
    async with running(url, [account(shop, tmp_path)], [audit], redis=redis) as stage:
        shop.post_to = f"{stage.url}/ipn"
        assert not await stage.ready()
        shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
        for _ in range(2):
            await until(lambda: any(each.status == 503 for each in shop.posted), "a notification is put off")
            process, _ = start_valkey(socket_dir, *durable)
            try:
                await until(stage.ready, "it is ready")
                await until(lambda: stage.agrees(shop), "everything is known")
                await until(stage.quiet, "everything is told")
            finally:
                stop_valkey(process)
            await until(lambda: unready(stage), "it is not ready")
            shop.posted.clear()
            shop.start_refund("12.00", "USD", Outcome.REFUNDED_AT_ONCE)
        first, second, _ = shop.truth
        assert audit.told == sorted([(first, "declined"), (second, "refunded")])
        assert stage.counted("notifications", outcome="unavailable", reason="store_unreachable") >= 2


async def unready(stage: Stage) -> bool:
    """Whether the service says that it cannot work."""
    return not await stage.ready()


async def test_a_worker_that_fails_is_started_again(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness names it meanwhile; the log has the error."""
    monkeypatch.setattr(module, "RESTART_FIRST", 0.2)
    real, failures = Tracker.run, 2

    async def failing(self: Tracker) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise ZeroDivisionError
        await real(self)

    monkeypatch.setattr(Tracker, "run", failing)
    with capture_logs() as logs:
        async with running(valkey_url, [account(shop, tmp_path)], [audit]) as stage:
            shop.post_to = f"{stage.url}/ipn"
            status, body = await stage.get("/readyz")
            assert status == 503
            assert "workers" in str(body)
            refund_id = shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
            await until(lambda: audit.posts, "the webhook")
            assert audit.told == [(refund_id, "declined")]
            assert await stage.ready()
    failed = [line for line in logs if line["event"] == "worker.failed"]
    assert [(line["worker"], line["again_in_seconds"]) for line in failed] == [("track:us", 0.2), ("track:us", 0.4)]


async def test_reports_are_fetched_daily(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """A worker asks for the sandbox's settlement data."""
    daily = account(shop, tmp_path) | {"reconcile": {"daily": "04:00"}}
    async with running(valkey_url, [daily], [audit]) as stage:
        await until(lambda: shop.reports.known, "a requested report")
        assert await stage.ready()
    [report] = shop.reports.known.values()
    assert report.report_type == SANDBOX_SETTLEMENT_DATA


async def test_several_processes_share_the_work_and_do_nothing_twice(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """Three services on one Redis, all notified of everything: Amazon is asked once for every hint, every event is
    written once and posted once."""
    tables = [account(shop, tmp_path)]
    async with (
        running(valkey_url, tables, [audit]) as one,
        running(valkey_url, tables, [audit]) as two,
        running(valkey_url, tables, [audit]) as three,
    ):
        refunds = []
        for number in range(60):
            shop.post_to = f"{(one, two, three)[number % 3].url}/ipn"
            refunds.append(shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE))
            await asyncio.sleep(0)
        await until(lambda: len(audit.posts) == 60, "everything is told")
        await until(one.quiet, "nothing is under way")
        assert audit.told == await one.events() == sorted((each, "declined") for each in refunds)
        assert Counter(each.object_id for each in shop.asked) == dict.fromkeys(refunds, 1)
        final = {"state": "Declined", "reason": "AmazonRejected", "found_by": "notification"}
        shares = [each.counted("refunds_final", **final) for each in (one, two, three)]
        assert sum(shares) == 60


async def test_the_configuration_has_the_word_but_a_pause_stays(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """A restart changes what the file says; it wakes a paused subscriber only if its address is another."""
    tables = [account(shop, tmp_path)]

    async def subscriber(hook: Hook) -> Any:
        async with running(valkey_url, tables, [hook]) as stage:
            await until(stage.ready, "the subscribers are written")
            (found,) = await stage.service.store.of("us").subscribers.readable()
            if not found.paused:
                assert await stage.service.store.of("us").subscribers.change(found, pause(found, "gone", 1))
            return found

    first = await subscriber(audit)
    assert (first.types, first.paused) == (("*",), False)
    audit.types = None
    second = await subscriber(audit)
    assert (second.types, second.paused, second.paused_reason) == (("amazonpay.refund.declined",), True, "gone")
    audit.url += "/elsewhere"
    third = await subscriber(audit)
    assert (third.url, third.paused) == (audit.url, False)
    assert third.created_at == first.created_at


async def test_two_configurations_do_not_fight(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one process replaces another, the settings of the later one apply, once: they do not change back and forth,
    which would also end every pause."""
    monkeypatch.setattr(configured, "EVERY", 0.05)
    tables = [account(shop, tmp_path)]
    async with running(valkey_url, tables, [audit]) as old:
        await until(old.ready, "the subscribers are written")
        audit.types = None
        async with running(valkey_url, tables, [audit]) as new:
            await until(new.ready, "the subscribers are written")
            store = new.service.store
            version = (await store.of("us").subscribers.read()).version
            await redis.config_resetstat()
            looked = "cmdstat_hgetall"
            await until(lambda: many(redis, looked, 40), "both have looked again and again")
            found = await store.of("us").subscribers.read()
            assert found.version == version
            assert found.subscribers["audit"].types == ("amazonpay.refund.declined",)


async def test_one_that_is_no_longer_declared_can_be_removed(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """It stays, with what it is owed, until it is removed on request, and returns when a configuration declares it
    again."""
    tables = [account(shop, tmp_path)]

    async def origins(*hooks: Hook) -> list[str]:
        with capture_logs() as logs:
            async with running(valkey_url, tables, list(hooks)) as stage:
                await until(stage.ready, "the subscribers are written")
                told = [line["event"] for line in logs if line["event"] == "subscriber.no_longer_declared"]
                found = await stage.service.store.of("us").subscribers.readable()
                return [f"{each.origin}{' undeclared' if each.undeclared_at else ''}" for each in found] + told

    assert await origins(audit) == ["config"]
    assert await origins() == ["api undeclared", "subscriber.no_longer_declared"]
    assert await origins() == ["api undeclared"]
    assert await origins(audit) == ["config"]


async def test_a_reload_takes_over_the_key_of_an_account(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """Amazon refuses the calls until the settings have the right one."""
    right = account(shop, tmp_path)
    async with running(valkey_url, [{**right, "private_key": merchant_key_pem().decode()}], [audit]) as stage:
        shop.post_to = f"{stage.url}/ipn"
        await until(stage.ready, "the subscribers are written")
        shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
        await until(lambda: stage.counted("amazon_requests", call="get_refund", outcome="amazon_refuses_us"), "refused")
        running_on = stage.service.settings
        (table,) = running_on.accounts
        table = table.model_copy(update={"private_key": SecretStr(right["private_key"])})
        stage.service.reload(reloaded(running_on, running_on.model_copy(update={"accounts": (table,)})).settings)
        refund_id = shop.start_refund("13.00", "USD", Outcome.DECLINED_AT_ONCE)
        await until(lambda: (refund_id, "declined") in audit.told, "it is told")


async def many(redis: Any, command: str, count: int) -> bool:
    """Whether the command was run so often."""
    stats = await redis.info("commandstats")
    return command in stats and stats[command]["calls"] >= count


async def test_a_service_that_stops_lets_go_of_everything(
    shop: Amazon, redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what comes after a part that fails to; it may be stopped twice, and before it was started."""
    tree = {"redis": {"url": valkey_url}, "accounts": [account(shop, tmp_path)]}
    await Service(check(tree, tmp_path)).stop()
    before = asyncio.all_tasks()
    clients = len(await redis.client_list())

    async def failing(_: Transport) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Transport, "close", failing)
    service = Service(check(tree, tmp_path))
    await service.start()
    assert len(asyncio.all_tasks() - before) >= 2
    with pytest.raises(ZeroDivisionError):
        await service.stop()
    await until(lambda: asyncio.all_tasks() <= before, "no task is left")

    async def disconnected() -> bool:
        return len(await redis.client_list()) <= clients

    await until(disconnected, "no connection is left")
    await service.stop()
    monkeypatch.undo()
