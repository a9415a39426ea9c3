"""The river on real sockets: Amazon's stand-in, the service on a real Valkey, subscribers that check what comes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks.webhooks import Webhook

from receiver.http.openapi.webhooks import MEDIA_TYPE
from receiver.http.server import server
from receiver.runtime.serving import serving
from receiver.service import Service, system_clock
from receiver.settings import check
from receiver.simulator.app import Simulator
from receiver.simulator.engine import CallRecord
from receiver.store.redis.address import read_address
from receiver.store.redis.client import link
from receiver.transport.client import Transport
from tests.kit.shared import keys
from tests.openapi.conform import event_faults, judged
from tests.service.kit import trust

TOKEN = "token-of-the-test"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True, slots=True)
class Says:
    """How a subscriber answers one post; `after`: not before that happens."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """What a subscriber was sent. Header names are lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def event(self, secret: str = SECRET) -> CloudEvent:
        """The event, proven and read by the libraries of other people."""
        Webhook(secret).verify(self.body, dict(self.headers))
        event = from_structured_event(HTTPMessage(dict(self.headers), self.body))
        assert isinstance(event, CloudEvent)
        assert event.get_id() == self.headers["webhook-id"]
        return event


@dataclass
class Hook:
    """A subscriber on a real socket. Each post gets the next of `answers`; after the last one, `then`.

    At the end, every event that it got is checked against its schema.
    """

    name: str = "all"
    types: Sequence[str] | None = ("*",)
    reasons: Sequence[str] | None = None
    secret: str = SECRET
    answers: list[Says] = field(default_factory=list)
    then: Says = field(default_factory=Says)
    url: str = ""
    posts: list[Post] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Hook]:
        """On its own port."""
        runner = web.ServerRunner(web.Server(self._answer, handler_cancellation=True), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port, *_ = runner.addresses[0]
            self.url = f"http://{host}:{port}/hook"
            yield self
            told = [post for post in self.posts if post.headers["content-type"].startswith(MEDIA_TYPE)]
            assert [fault for post in told for fault in event_faults(post.body)] == []
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.posts.append(Post(request.path, headers, await request.read()))
        says = self.answers.pop(0) if self.answers else self.then
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if says.after is not None:
                await says.after.wait()
        finally:
            self.under_way -= 1
        return web.Response(status=says.status, headers=says.headers, body=says.body)

    @property
    def events(self) -> list[CloudEvent]:
        """Every post as a proven event, in the order in which they came."""
        return [post.event(self.secret) for post in self.posts]

    @property
    def told(self) -> list[tuple[str, str]]:
        """(refund id, last part of the type) of every post, sorted."""
        return sorted((str(each.get_subject()), each.get_type().rpartition(".")[2]) for each in self.events)

    def table(self) -> dict[str, Any]:
        """The table of the configuration."""
        chosen = {"types": self.types, "reasons": self.reasons}
        given = {key: list(value) for key, value in chosen.items() if value is not None}
        return {"name": self.name, "url": self.url, "secret": self.secret, **given}


class Amazon(Simulator):
    """A shop whose refunds move when the test says so: the slowness of a machine decides nothing."""

    STEP = 10

    def __init__(self, **more: Any) -> None:
        self._ahead = 0
        self._sender = Transport(tls=trust())
        settings = {
            "keys": keys(),
            "transport": self._sender,
            "throttle": {},
            "retry_waits": (0.2, 0.2, 0.2),
            "outcome_delay": self.STEP,
        }
        super().__init__(now=lambda: system_clock() + self._ahead, **{**settings, **more})

    async def __aenter__(self) -> Amazon:
        """Start."""
        await self.start()
        return self

    async def stop(self) -> None:
        """Stop."""
        await super().stop()
        await self._sender.close()

    def move(self, steps: int = 1) -> None:
        """Let every refund take its next step, or its next steps one right after the other."""
        self._ahead += steps * self.STEP * 1000 + 50
        self.tick()

    def set_clock(self) -> None:
        """The time is the machine's again. After some ninety moves no signature is young enough any more."""
        self._ahead = 0

    @property
    def asked(self) -> list[CallRecord]:
        """The calls of Get Refund, oldest first."""
        return [each for each in self.calls if each.call == "get_refund"]

    @property
    def truth(self) -> dict[str, tuple[str, str]]:
        """(state, reason code) of every refund, by id."""
        return {refund_id: (refund.state, refund.reason) for refund_id, refund in self.refunds.items()}


@dataclass(slots=True)
class Stage:
    """Everything that runs."""

    service: Service
    url: str
    redis: Any
    """A plain client, to look behind the service's back."""
    session: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of the API."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> int:
        """The status of a post."""
        async with self.session.post(self.url + path, data=body, headers=headers) as answer:
            return answer.status

    async def ready(self) -> bool:
        """Whether `/readyz` answers 200."""
        status, _ = await self.get("/readyz")
        return bool(status == 200)

    async def refund(self, refund_id: str) -> Any:
        """A refund as other services read it; None if it is not known."""
        status, found = await self.get(f"/v1/refunds/{refund_id}")
        return found if status == 200 else None

    async def state(self, refund_id: str) -> tuple[str, str] | None:
        """(state, reason code) of a refund; None if it is not known."""
        found = await self.refund(refund_id)
        details = found and found["statusDetails"]
        return details and (details["state"], details["reasonCode"] or "")

    async def agrees(self, *amazons: Amazon) -> bool:
        """Whether the API shows of every refund what Amazon would say now."""
        truth = [each for amazon in amazons for each in amazon.truth.items()]
        return all([await self.state(refund_id) == state for refund_id, state in truth])

    async def states(self, refund_id: str) -> list[str]:
        """The states of its history, oldest first."""
        _, found = await self.get(f"/v1/refunds/{refund_id}/history")
        return [line["statusDetails"]["state"] for line in found["revisions"]]

    async def events(self, account: str = "us") -> list[tuple[str, str]]:
        """(refund id, last part of the type) of every event of a refund in the stream, sorted."""
        entries = await self.redis.xrange(f"refunds:{{{account}}}:events")
        return sorted(
            (fields[b"refundId"].decode(), fields[b"type"].decode().rpartition(".")[2])
            for _, fields in entries
            if b"refundId" in fields
        )

    async def members(self, key: str, account: str = "us") -> set[str]:
        """Of a sorted set of the account: `due`, `hinted`, …"""
        return {each.decode() for each in await self.redis.zrange(f"refunds:{{{account}}}:{key}", 0, -1)}

    async def quiet(self, account: str = "us") -> bool:
        """Whether nothing is hinted and no event waits for anybody."""
        names = [each.name for each in await self.service.store.of(account).subscribers.readable()]
        waiting = ["hinted", *(f"lane:{name}" for name in names)]
        return not await self.redis.exists(*(f"refunds:{{{account}}}:{key}" for key in waiting))

    async def dump(self) -> dict[bytes, bytes]:
        """All that Redis holds, byte for byte, but for the throttle, which workers look at all the time."""
        names = [key async for key in self.redis.scan_iter(count=1000) if b":throttle:" not in key]
        return {name: await self.redis.dump(name) for name in names}

    def counted(self, name: str, **labels: str) -> float:
        """The value of one of the service's counters: `notifications`, `refunds_final`, …"""
        return self.service.metrics.registry.get_sample_value(f"receiver_{name}_total", labels) or 0.0


def account(amazon: Amazon, folder: Path, name: str = "us", **more: Any) -> dict[str, Any]:
    """The table of the account that a simulator stands for. Certificates are pinned: there is no web here."""
    certificate = folder / "simulator.pem"
    certificate.write_text(amazon.certificate_pem)
    return {
        "name": name,
        "merchant_id": amazon.merchant_id,
        "region": amazon.region,
        "environment": amazon.environment,
        "public_key_id": amazon.public_key_id,
        "private_key": amazon.merchant_private_key_pem.decode(),
        "endpoint": amazon.base_url,
        "topic_arns": [amazon.topic_arn],
        "signing_certificates": {amazon.certificate_url: str(certificate)},
        "throttle": {"get_refund": [1000, 1000], "get_charge": [1000, 1000]},
        **more,
    }


@asynccontextmanager
async def running(
    valkey_url: str,
    accounts: Sequence[dict[str, Any]],
    hooks: Sequence[Hook] = (),
    *,
    workers: bool = True,
    now: Callable[[], int] = system_clock,
    **more: Any,
) -> AsyncIterator[Stage]:
    """The service on this Valkey, without jitter, with HTTP on a socket. `now` is the clock of its machine, `more` are
    other tables of the settings."""
    tree = {
        "redis": {"url": valkey_url},
        "http": {"port": 0},
        "tokens": [{"name": "test", "sha256": sha256(TOKEN.encode()).hexdigest(), "scopes": ["read", "admin"]}],
        "delivery": {"allow_http": True, "allow_networks": ["127.0.0.0/8"]},
        "accounts": list(accounts),
        "subscribers": [{"account": accounts[0]["name"], **hook.table()} for hook in hooks],
        **more,
    }
    settings = check(tree, Path("/"))
    async with AsyncExitStack() as stack:
        made = Service(settings, workers=workers, random=lambda: 0.0, now=now)
        service = await stack.enter_async_context(made.running())
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
        listener.setblocking(False)
        app = stack.enter_context(judged(service.app()))
        url = await stack.enter_async_context(serving(server(app, settings.http), listener))
        redis = link(read_address(valkey_url))
        stack.push_async_callback(redis.aclose)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Stage(service, url, redis, session)


def notice(amazon: Amazon, refund_id: str, **more: object) -> str:
    """The text of a notice about something of the simulator's merchant."""
    fields = {
        "MerchantID": amazon.merchant_id,
        "ObjectType": "REFUND",
        "ObjectId": refund_id,
        "NotificationType": "STATE_CHANGE",
        "NotificationId": "0b1c8f3e",
        "NotificationVersion": "V2",
    }
    return json.dumps({**fields, **more})
