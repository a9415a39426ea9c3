"""Flexible Payments end to end, on real sockets: ordered, notified by a form, polled, delivered to subscribers."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import typer
from redis.asyncio import Redis
from structlog.testing import capture_logs
from typer.testing import CliRunner

from receiver.amazon.fps.calls import FpsRefundRequest, refund
from receiver.amazon.fps.signing import Credentials
from receiver.commands.fps import fps
from receiver.ledger.money import Money
from receiver.service import system_clock
from receiver.simulator.fps.checks import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from receiver.transport.client import Transport
from tests.kit.processes import desk, until
from tests.service.crash_kit import toml
from tests.service.kit import trust
from tests.service.stage import TOKEN, Amazon, Hook, Stage, account, running

T2, RESERVED = (f"14GKSIMULATOR000000000000000000000{number}" for number in (2, 3))
READER = "reader-of-the-test"
TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def table(amazon: Amazon) -> dict[str, str]:
    """`[accounts.fps]`."""
    return {
        "access_key_id": ACCESS_KEY_ID,
        "secret_access_key": SECRET_ACCESS_KEY,
        "endpoint": amazon.fps_endpoint,
    }


def tokens() -> list[dict[str, Any]]:
    scopes = {TOKEN: ["read", "refund", "admin"], READER: ["read"]}
    return [
        {"name": text.partition("-")[0], "sha256": sha256(text.encode()).hexdigest(), "scopes": each}
        for text, each in scopes.items()
    ]


@pytest.fixture
async def shop() -> AsyncIterator[Amazon]:
    """Amazon, which tries its forms long enough."""
    async with Amazon(retry_waits=(0.1,) * 100) as found:
        yield found


@pytest.fixture
async def audit() -> AsyncIterator[Hook]:
    """A subscriber to everything."""
    async with Hook("audit").listening() as found:
        yield found


@pytest.fixture
async def stage(shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """The account us has Flexible Payments; old has none."""
    old = account(shop, tmp_path, "old", merchant_id="A2ZABCDEFGHIJ")
    accounts = [account(shop, tmp_path, fps=table(shop)), old]
    async with running(valkey_url, accounts, [audit], tokens=tokens()) as found:
        shop.fps_post_to = f"{found.url}/fps/us"
        yield found


def body(reference: str = "R-1", amount: str = "14.00", **more: object) -> dict[str, object]:
    money = {"amount": amount, "currencyCode": "USD"}
    return {"transactionId": T2, "refundTransactionReference": reference, "refundAmount": money, **more}


async def order(stage: Stage, found: Mapping[str, object], token: str = TOKEN) -> tuple[int, Any, Mapping[str, str]]:
    """Status, JSON and headers of `POST /v1/fps/refunds`."""
    headers = {"Authorization": f"Bearer {token}"}
    async with stage.session.post(f"{stage.url}/v1/fps/refunds", json=found, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None), answer.headers.copy()


def form(reference: str = "R-1", **more: str) -> bytes:
    return urlencode({"operation": "REFUND", "status": "SUCCESS", "callerReference": reference, **more}).encode()


async def tell(stage: Stage, posted: bytes, name: str = "us") -> tuple[int, str]:
    """Status and Retry-After of a form. Forms bring a trace here, which must not be passed on."""
    async with stage.session.post(f"{stage.url}/fps/{name}", data=posted, headers={"traceparent": TRACED}) as answer:
        return answer.status, answer.headers.get("retry-after", "")


@pytest.mark.parametrize(
    ("amount", "state", "word"), [("14.00", "Refunded", "refunded"), ("14.01", "Declined", "declined")]
)
async def test_a_form_leads_to_the_state_and_the_event(
    stage: Stage, shop: Amazon, audit: Hook, amount: str, state: str, word: str
) -> None:
    """Pending at first; the form says that something changed, Amazon is asked, and the subscriber gets the event."""
    status, made, headers = await order(stage, body(amount=amount))
    assert (status, made["statusDetails"]["state"], made["refundType"]) == (201, "RefundInitiated", "FPS")
    assert headers["location"] == "/v1/refunds/R-1?account=us"
    await shop.idle()
    shop.move()
    await until(lambda: ("R-1", word) in audit.told, "the event")
    assert audit.told == sorted([("R-1", "initiated"), ("R-1", word)])
    assert await stage.state("R-1") == (state, "")
    assert await stage.states("R-1") == ["RefundInitiated", state]
    assert len(shop.fps_refunds) == 1
    assert {each.call for each in shop.calls} == {"fps_refund"}
    assert {each.status for each in shop.posted} <= {200}
    assert stage.counted("amazon_requests", call="fps_refund", outcome="ok") >= 2


async def test_a_form_that_comes_first_comes_again(stage: Stage, shop: Amazon) -> None:
    """Our own write may be on its way: 503 until the order is there, then 200."""
    values = FpsRefundRequest(T2, "R-1", Money.parse("14.00", "USD"))
    transport = Transport(tls=trust())
    try:
        request = refund(shop.fps_endpoint, Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), values, system_clock())
        assert (await transport.send(request, timeout=30)).status == 200
    finally:
        await transport.close()
    posted = shop._engine.fps_sender.posted
    await until(lambda: posted and posted[0].status == 503, "the 503")
    assert (await order(stage, body()))[0] == 201
    await shop.idle()
    assert posted[-1].status == 200
    assert len(shop.fps_refunds) == 1


async def test_what_a_stranger_can_do_is_nothing(stage: Stage, shop: Amazon) -> None:
    """But make a refund due that was ordered here."""
    await until(stage.ready, "the subscriber is written")
    before = await stage.dump()
    with capture_logs():
        assert await tell(stage, form("R-9")) == (503, "60")
        assert await tell(stage, form(operation="PAY")) == (200, "")
        assert (await tell(stage, b"not a form"))[0] == 400
        assert (await tell(stage, form("a/b")))[0] == 400
        assert (await tell(stage, form() + b"&x=" + b"y" * 16_384))[0] == 413
        assert (await tell(stage, form(), "old"))[0] == 404
        assert (await tell(stage, form(), "nobody"))[0] == 404
        assert (await tell(stage, form(), "us/"))[0] == 503
    assert await stage.dump() == before
    assert stage.counted("notifications", outcome="unavailable", reason="fps_no_order") == 2
    shop.fps_post_to = None
    await order(stage, body(amount="14.03"))
    assert await tell(stage, form()) == (200, "")
    await until(lambda: len(shop.calls) == 2, "Amazon is asked")
    await until(stage.quiet, "it is settled")
    assert await stage.states("R-1") == ["RefundInitiated"]
    (hint,) = (await stage.redis.hgetall("refunds:{us}:hints")).values()
    assert TRACED.encode() not in hint


async def test_while_amazon_does_not_answer_it_is_202(stage: Stage, shop: Amazon) -> None:
    """The worker goes on, and the same order is answered in the end."""
    shop.fault_injection.add("lost_answer", place="fps_refund")
    status, found, headers = await order(stage, body())
    assert (status, found["status"], found["refundId"], found["chargeId"], headers["retry-after"]) == (
        202,
        "pending",
        "R-1",
        T2,
        "5",
    )
    await stage.redis.zadd("refunds:{us}:fps_issuing", {"R-1": 0})
    await until(lambda: stage.refund("R-1"), "the refund")
    assert (await order(stage, body()))[0] == 201
    assert len(shop.fps_refunds) == 1


@pytest.mark.parametrize(
    ("found", "token", "status", "reason"),
    [
        (body(), READER, 403, "scope_missing"),
        (body(), "another", 401, "token_unknown"),
        (body(amount="1.001"), TOKEN, 400, "bad_amount"),
        (body(refundAmount="1.00"), TOKEN, 400, "bad_amount"),
        (body(refundAmount=None), TOKEN, 400, "bad_amount"),
        (body(refundAmount={"amount": "1", "currencyCode": "EUR"}), TOKEN, 400, "bad_currency"),
        (body("a/b"), TOKEN, 400, "bad_reference"),
        (body(transactionId=7), TOKEN, 400, "bad_field"),
        (body(marketplaceRefundPolicy="All"), TOKEN, 400, "bad_policy"),
        (body(chargeId="x"), TOKEN, 400, "unknown_field"),
        (body(account="old"), TOKEN, 404, "no_fps"),
        (body(account="nobody"), TOKEN, 404, "no_such_account"),
        (body(transactionId=RESERVED), TOKEN, 422, "amazon_refused"),
    ],
)
async def test_what_cannot_be_is_a_problem(
    stage: Stage, found: dict[str, object], token: str, status: int, reason: str
) -> None:
    """With a stable reason, and with Amazon's code if Amazon was called."""
    answer = await order(stage, found, token)
    assert (answer[0], answer[1]["reason"]) == (status, reason)
    if reason == "amazon_refused":
        assert answer[1]["amazon"]["reasonCode"] == "InvalidTransactionState"


async def test_other_values_are_a_conflict(stage: Stage) -> None:
    assert (await order(stage, body()))[0] == 201
    status, found, _ = await order(stage, body(amount="15.00"))
    assert (status, found["reason"]) == (409, "reference_reused")


async def test_the_command_goes_through_the_service(stage: Stage, shop: Amazon) -> None:
    """So that the ledger has the refund; Amazon's silence and a decline have exit codes, which `--help` tells."""
    app = typer.Typer()
    app.add_typer(fps.app, name="fps")
    environment = {"RECEIVER_URL": stage.url, "RECEIVER_TOKEN": TOKEN, "FPS_ENDPOINT": None, "COLUMNS": "80"}

    async def command(*args: str) -> tuple[int, str]:
        ran = await asyncio.to_thread(CliRunner().invoke, app, ["fps", "refund", T2, *args], env=environment)
        return ran.exit_code, ran.stdout

    with capture_logs():
        code, out = await command("R-1", "--amount", "14.00", "--json")
        assert (code, json.loads(out)["refundType"]) == (0, "FPS")
        _, told = await command("--help")
        assert "5 the refund was made, but FPS already declined it" in " ".join(told.split())
        assert (await command("R-1", "--amount", "15.00"))[0] == 1
        assert (await command("R-3", "--amount", "1.07"))[0] == 5
        shop.fault_injection.add("error", place="fps_refund", times=None)
        assert (await command("R-2", "--amount", "1.00", "--wait", "0"))[0] == 4
    assert await stage.refund("R-1")


@asynccontextmanager
async def configured(shop: Amazon, valkey_url: str, folder: Path) -> AsyncIterator[Path]:
    """A configuration file for another process."""
    mine = account(shop, folder)
    plain = {name: value for name, value in mine.items() if not isinstance(value, dict)}
    pinned = {json.dumps(name): value for name, value in mine["signing_certificates"].items()}
    sections = [
        toml("[redis]", {"url": valkey_url}),
        toml("[http]", {"port": 0}),
        *(toml("[[tokens]]", each) for each in tokens()),
        toml("[[accounts]]", plain),
        toml("[accounts.signing_certificates]", pinned),
        toml("[accounts.fps]", table(shop)),
    ]
    path = folder / "receiver.toml"
    path.write_text("\n".join(sections), "utf-8")
    assert tomllib.loads(path.read_text("utf-8"))
    yield path


async def test_killed_between_write_and_answer_it_is_one_refund(
    shop: Amazon, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """`kill -9` while Amazon, which has made the refund, does not answer. The next process goes on."""
    async with (
        desk() as place,
        configured(shop, valkey_url, tmp_path) as config,
        aiohttp.ClientSession() as session,
    ):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        shop.fault_injection.add("hang", place="fps_refund")
        service = await place.serve(config)
        address = (await service.line("serve.ready"))["address"]

        async def ask() -> None:
            async with session.post(f"{address}/v1/fps/refunds", json=body(), headers=headers) as answer:
                await answer.read()

        asking = asyncio.create_task(ask())
        await until(lambda: shop.fps_refunds, "Amazon has made it")
        await service.kill()
        with pytest.raises(aiohttp.ClientError):
            await asking
        assert await redis.hget("refunds:{us}:fps:R-1", "state") == b"reserved"
        assert await redis.zadd("refunds:{us}:fps_issuing", {"R-1": 0}) == 0, "the lease has run out"
        service = await place.serve(config)
        address = (await service.line("serve.ready"))["address"]

        async def known() -> bool:
            async with session.get(f"{address}/v1/refunds/R-1", headers=headers) as answer:
                return answer.status == 200

        async def done() -> bool:
            return bool(await redis.hget("refunds:{us}:fps:R-1", "state") == b"done")

        await until(known, "the refund is known")
        # The refund is written first, its order after it.
        await until(done, "the order is done")
        assert len(shop.fps_refunds) == 1
        assert SECRET_ACCESS_KEY not in service.complaint
        assert "Signature" not in service.complaint
        assert await service.stop() == 0
