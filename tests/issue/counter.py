"""The whole service with HTTP and workers, for callers who want refunds; Amazon is its stand-in, or answers as the
test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs
from typer.testing import CliRunner

from receiver.commands.cli import app
from tests.http.kit import ADMIN, READER, REFUNDER, token
from tests.kit.accounts import MERCHANT, TOPIC, merchant_key_pem
from tests.kit.processes import until
from tests.service import desk as river
from tests.service.stage import Amazon, Stage, account, running

FAST = {"get_refund": [1000, 1000], "get_charge": [1000, 1000], "create_refund": [1000, 1000]}

DUE = "return redis.call('HGET', KEYS[2], 'open') ~= '1' and redis.call('ZADD', KEYS[1], 0, ARGV[1])"


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Counter:
    """A running service, and ways to ask it."""

    stage: Stage

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        token: str = REFUNDER,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, JSON and headers of one request; a text or bytes as body is sent as it is."""
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        if key is not None:
            sent["Idempotency-Key"] = key
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        async with self.stage.session.request(method, self.stage.url + path, data=data, headers=sent) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers

    async def create(self, charge: str, amount: str = "14.00", key: str = "refund-1", **more: Any) -> tuple[int, Any]:
        wish = {"chargeId": charge, "refundAmount": {"amount": amount, "currencyCode": "USD"}, **more}
        status, body, _ = await self.call("POST", "/v1/refunds", wish, key=key)
        return status, body

    async def retry(self, refund_id: str) -> tuple[int, Any]:
        status, body, _ = await self.call("POST", f"/v1/refunds/{refund_id}/retry")
        return status, body

    async def due(self, request_id: str) -> None:
        """Make the request's next try due, unless a try is in progress: if its lease ended, its outcome would be
        unknown, as after a crash."""
        await self.stage.redis.eval(DUE, 2, "refunds:{us}:issuing", f"refunds:{{us}}:requests:{request_id}", request_id)
        self.stage.service.store.connection.change_notifier.notify("us")

    async def request(self, request_id: str) -> Any:
        status, body, _ = await self.call("GET", f"/v1/refund-requests/{request_id}")
        assert status == 200, body
        return body

    async def reserved(self, charge: str) -> int:
        """How many reservations there are on a charge."""
        book = await self.stage.redis.hkeys(f"refunds:{{us}}:charge:{charge}")
        return sum(name.startswith(b"request:") for name in book)

    async def shows(self, refund_id: str, state: str) -> None:
        """Have Amazon asked, and wait until the refund is in this state."""
        await self.call("POST", f"/v1/refunds/{refund_id}/refresh")

        async def there() -> bool:
            status, found, _ = await self.call("GET", f"/v1/refunds/{refund_id}", token=READER)
            return bool(status == 200 and found["statusDetails"]["state"] == state)

        await until(there, f"{refund_id} is {state}")

    async def run(self, *args: str, token: str = REFUNDER) -> Ran:
        """`receiver …` in this process."""
        environment = {"COLUMNS": "120", "RECEIVER_URL": self.stage.url, "RECEIVER_TOKEN": token}
        with capture_logs():
            # The service, which runs in this process too, logs to standard output here.
            result = await asyncio.to_thread(CliRunner().invoke, app, args, env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)


@asynccontextmanager
async def counter(
    valkey_url: str, table: dict[str, Any], *others: dict[str, Any], **more: Any
) -> AsyncIterator[Counter]:
    """The service with one account, or with others too."""
    tokens = [token(READER, "read"), token(REFUNDER, "read", "refund"), token(ADMIN, "read", "admin")]
    tables = [{"throttle": FAST, **each} for each in (table, *others)]
    async with running(valkey_url, tables, tokens=tokens, **more) as stage:
        yield Counter(stage)


@asynccontextmanager
async def shop(valkey_url: str, folder: Path, **more: Any) -> AsyncIterator[tuple[Counter, Amazon]]:
    """With Amazon's stand-in."""
    async with Amazon() as amazon, counter(valkey_url, {**account(amazon, folder), **more}) as found:
        yield found, amazon


@asynccontextmanager
async def told(valkey_url: str, *, two: bool = False, **more: Any) -> AsyncIterator[tuple[Counter, river.Desk]]:
    """With an Amazon that answers as the test says, and the accounts `us` and, for `two`, `eu`."""
    async with river.desk() as desk:
        table = {
            "name": "us",
            "merchant_id": MERCHANT,
            "region": "na",
            "environment": "sandbox",
            "public_key_id": "SANDBOX-TESTKEY",
            "private_key": merchant_key_pem().decode(),
            "endpoint": desk.server.url,
            "topic_arns": [TOPIC],
        }
        desk.charge = charge()
        others = [{**table, "name": "eu", "merchant_id": f"{MERCHANT}2"}] if two else []
        async with counter(valkey_url, table, *others, **more) as found:
            yield found, desk


CHARGE = "S01-5105180-3221187-C056351"


def charge() -> bytes:
    """A captured charge of 100.00 USD."""
    fields = {
        "chargeId": CHARGE,
        "statusDetails": {"state": "Captured"},
        "captureAmount": {"amount": "100.00", "currencyCode": "USD"},
        "refundedAmount": {"amount": "0.00", "currencyCode": "USD"},
        "releaseEnvironment": "Sandbox",
    }
    return river.http(200, json.dumps(fields).encode())
