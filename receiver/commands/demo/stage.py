"""Command. All that the demo runs, on loopback: the simulator, the service with an embedded store, two subscribers."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as WebRequest
from starlette.responses import Response as WebResponse
from starlette.routing import Route

from receiver.client.api import decode, target
from receiver.client.calls import refund_pages
from receiver.client.client import Client
from receiver.commands.demo.story import Seen
from receiver.http.server import server
from receiver.runtime.serving import Server, serving
from receiver.service import Service
from receiver.settings import check
from receiver.simulator.app import Simulator

SHORTENED = {
    "poll": ("1s", "2s", "every 3s"),
    "throttle": {"get_refund": (1000, 1000), "get_charge": (1000, 1000)},
}
"""The settings that the demo shortens. By default Amazon is polled after a minute, and called 4 times a second."""
OUTCOME_DELAY = 1.0
"""Seconds; Amazon's sandbox takes about 30."""
FAILS_FIRST = 3
"""Deliveries that the subscriber `audit` answers with 500 before it recovers."""

Push = Callable[[str, dict[str, Any]], None]


@dataclass(slots=True)
class Stage:
    """Everything that runs."""

    simulator: Simulator
    service: Service
    url: str
    token: str
    subscribers: list[Seen]
    client: Client

    @property
    def store(self) -> str:
        """The embedded store's product and version."""
        return self.service.embedded.server if self.service.embedded else ""

    async def refunds(self) -> dict[str, dict[str, Any]]:
        """Every refund, read over HTTP, page by page, as other services do."""
        pages = refund_pages(self.client, {})
        return {refund["refundId"]: refund async for _, page in pages for refund in page.refunds}

    async def summary(self) -> dict[str, Any]:
        """What needs a person, from the service's API."""
        return decode(await self.client.call("GET", target("summary")), dict[str, Any])


@contextlib.asynccontextmanager
async def stage(data_dir: Path, pushed: Push) -> AsyncIterator[Stage]:
    """Sets everything up and takes it down. `pushed` is called for every event that a subscriber accepts."""
    async with contextlib.AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(
            Simulator(outcome_delay=OUTCOME_DELAY, throttle={}, retry_waits=(0.5, 1.0, 2.0))
        )
        hooks, keys, seen = {}, {}, []
        for name, wants_all in (("finance", False), ("audit", True)):
            keys[name] = secrets.token_bytes(32)
            seen.append(Seen(name, wants_all))
            app = _subscriber(seen[-1], keys[name], pushed)
            config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
            hooks[name] = await stack.enter_async_context(_listening(Server(config)))
        token = secrets.token_urlsafe(24)
        settings = check(_settings(data_dir, simulator, hooks, keys, token), data_dir)
        service = await stack.enter_async_context(Service(settings).running())
        url = await stack.enter_async_context(_listening(server(service.app(), settings.http)))
        simulator.post_to = f"{url}/ipn"
        client = await stack.enter_async_context(Client(url, token=token))
        yield Stage(simulator, service, url, token, seen, client)


def _settings(
    data_dir: Path, simulator: Simulator, hooks: dict[str, str], keys: dict[str, bytes], token: str
) -> dict[str, Any]:
    certificate = data_dir / "simulator-certificate.pem"
    certificate.write_text(simulator.certificate_pem)
    return {
        "data_dir": str(data_dir / "store"),
        "http": {"port": 0},
        "tokens": [
            {
                "name": "demo",
                "sha256": hashlib.sha256(token.encode()).hexdigest(),
                "scopes": ["read", "refund", "admin"],
            }
        ],
        "delivery": {"allow_http": True, "allow_networks": ["127.0.0.0/8"]},
        "accounts": [
            {
                "name": "demo",
                "merchant_id": simulator.merchant_id,
                "region": simulator.region,
                "environment": simulator.environment,
                "public_key_id": simulator.public_key_id,
                "private_key": simulator.merchant_private_key_pem.decode(),
                "endpoint": simulator.base_url,
                "topic_arns": [simulator.topic_arn],
                "signing_certificates": {simulator.certificate_url: str(certificate)},
                **SHORTENED,
            }
        ],
        "subscribers": [
            {
                "name": name,
                "url": f"{hooks[name]}/hook",
                "secret": "whsec_" + base64.b64encode(keys[name]).decode(),
                "types": ["*"] if name == "audit" else ["amazonpay.refund.declined"],
            }
            for name in hooks
        ],
    }


def _subscriber(seen: Seen, key: bytes, pushed: Push) -> Starlette:
    """An independent subscriber: it checks signatures by Standard Webhooks without this project's code."""

    async def hook(request: WebRequest) -> WebResponse:
        body = await request.body()
        headers = request.headers
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        right = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        if right not in headers["webhook-signature"].split(" "):
            seen.bad_signatures += 1
            return WebResponse(status_code=401)
        if seen.wants_all and seen.failed_first < FAILS_FIRST:
            seen.failed_first += 1
            return WebResponse(status_code=500)
        event = json.loads(body)
        data = event["data"]
        status, money = data["statusDetails"], data["refundAmount"]
        amount = f"{money['amount']} {money['currencyCode']}"
        seen.events.append((event["id"], event["type"], event["subject"]))
        seen.contents[event["type"], data["refundId"]] = (status["state"], status["reasonCode"] or "", amount)
        pushed(seen.name, event)
        return WebResponse(status_code=204)

    return Starlette(routes=[Route("/hook", hook, methods=["POST"])])


@contextlib.asynccontextmanager
async def _listening(server: Server) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        listener.setblocking(False)
        async with serving(server, listener) as url:
            yield url
