"""The service's HTTP side on a real uvicorn on loopback, and a client for it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
from starlette.types import ASGIApp

from receiver.errors import TransportError
from receiver.http.app import build
from receiver.http.health import Check
from receiver.http.ipn.endpoint import Receives
from receiver.http.middleware import Application
from receiver.http.server import server
from receiver.receive.certificates import CertificateStore
from receiver.receive.receiver import Receiver
from receiver.runtime.metrics import Metrics
from receiver.settings import Settings, check
from receiver.store import Store
from tests.kit.accounts import MERCHANT, TOPIC, make_account, merchant_key_pem
from tests.kit.clock import T0
from tests.kit.sns import NOW, SnsSigner
from tests.openapi.conform import judged

READER, REFUNDER, ADMIN, US_ONLY = "reader-token", "refunder-token", "admin-token", "us-only-token"


@cache
def settings(*names: str) -> Settings:
    """Settings with an account for each name (all of one merchant's topic), and four tokens."""
    environments = ("sandbox", "live")
    accounts = [
        {
            "name": name,
            "merchant_id": MERCHANT if number < 2 else f"{MERCHANT}{number}",
            "region": "na",
            "environment": environments[number % 2],
            "public_key_id": "TESTKEY",
            "private_key": merchant_key_pem().decode(),
            "topic_arns": [TOPIC],
        }
        for number, name in enumerate(names or ("us",))
    ]
    tokens = [
        token(READER, "read"),
        token(REFUNDER, "refund"),
        token(ADMIN, "admin"),
        {**token(US_ONLY, "read", "refund", "admin"), "accounts": [accounts[0]["name"]]},
    ]
    return check({"accounts": accounts, "tokens": tokens}, Path("/"))


def token(text: str, *scopes: str) -> dict[str, Any]:
    return {"name": text.removesuffix("-token"), "sha256": sha256(text.encode()).hexdigest(), "scopes": list(scopes)}


async def no_fetch(url: str) -> bytes:
    """Certificates are pinned in these tests."""
    raise TransportError("There is no web here.")


def real_receiver(signer: SnsSigner, store: Store, *names: str) -> Receiver:
    """The verb itself, believing the signer's certificate."""
    certificates = CertificateStore(no_fetch, lambda: NOW, pinned={signer.url: signer.pem})
    return Receiver([make_account(name) for name in names or ("us",)], certificates, store, lambda: NOW)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Service:
    """A running service."""

    port: int
    metrics: Metrics
    session: aiohttp.ClientSession
    end: Callable[[], None]
    """Tells the server to end; the block's end waits for it."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; a `dict` as body is sent as JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, url, data=data, headers=sent, allow_redirects=False) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def get(self, path: str, *, token: str | None = READER, **headers: str) -> Answer:
        """A GET; `_` in a header's name stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.call("GET", path, token=token, headers=named)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    def counted(self, outcome: str, reason: str = "") -> float:
        """How many notifications ended so."""
        labels = {"outcome": outcome, "reason": reason}
        return self.metrics.registry.get_sample_value("receiver_notifications_total", labels) or 0.0


@asynccontextmanager
async def running(
    chosen: Settings,
    store: Store,
    receiver: Receives,
    *,
    checks: Mapping[str, Check] | None = None,
    refresh: Check | None = None,
) -> AsyncIterator[Service]:
    """The application under uvicorn, until the block ends."""
    metrics = Metrics()

    async def nothing() -> None:
        return None

    app = build(
        chosen,
        receiver=receiver,
        store=store,
        metrics=metrics,
        now=lambda: T0,
        checks=checks or {},
        refresh_gauges=refresh or nothing,
    )
    async with listening(app, chosen, metrics) as service:
        yield service


@asynccontextmanager
async def listening(app: ASGIApp, chosen: Settings, metrics: Metrics | None = None) -> AsyncIterator[Service]:
    """An application under uvicorn, until the block ends. Its answers are checked against the OpenAPI description."""
    with judged(app) as judge:
        async with serving(judge, chosen, metrics) as service:
            yield service


@asynccontextmanager
async def serving(app: ASGIApp, chosen: Settings, metrics: Metrics | None) -> AsyncIterator[Service]:
    """The same, whatever it answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    web = server(app, chosen.http)

    def end() -> None:
        web.should_exit = True

    task = asyncio.get_running_loop().create_task(web.serve(sockets=[listener]))
    try:
        await until(lambda: web.started)
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Service(listener.getsockname()[1], metrics or Metrics(), session, end)
    finally:
        end()
        async with asyncio.timeout(30):
            await task
        listener.close()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """Everything that the server sends until it closes the connection, for at most half a minute. A reset counts as a
    close."""
    said = b""
    async with asyncio.timeout(30):
        try:
            while piece := await reader.read(65536):
                said += piece
        except ConnectionError:
            pass
    return said


async def until(condition: Callable[[], bool]) -> None:
    """Wait, half a minute at most, for a condition that sets no event."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the server and its counters have no event to wait for
            await asyncio.sleep(0.005)


def all_routes() -> Application:
    """The application with every route that there is, and nothing behind them."""
    anything: Any = object()
    return build(
        settings(),
        receiver=anything,
        store=anything,
        metrics=Metrics(),
        now=lambda: 0,
        checks={},
        refresh_gauges=anything,
        inside=anything,
    )
