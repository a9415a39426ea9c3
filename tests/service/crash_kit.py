"""Around a service that is killed: Amazon, SNS in load, and a subscriber, all in the test's process: they stay."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from receiver.simulator.app import Simulator
from tests.kit import sns
from tests.kit.processes import Command
from tests.kit.shared import keys
from tests.kit.sns import SnsSigner

TOKEN = "token-of-the-test"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OUTCOMES = ("Refunded", "AmazonRejected", "ProcessingFailure")
FINAL_EVENT = {"Refunded": "amazonpay.refund.refunded", "Declined": "amazonpay.refund.declined"}
DAY = 86_400_000


def now() -> int:
    """ms since the epoch, UTC: the processes under test have no other clock."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Delivery:
    """What the subscriber got once."""

    webhook_id: str
    event: dict[str, Any]


@dataclass
class World:
    """Everybody that the service has to do with. `url` is the service's address of now."""

    amazon: Simulator
    signer: SnsSigner
    session: aiohttp.ClientSession
    hook: str = ""
    url: str = ""
    deliveries: list[Delivery] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether the subscriber answers; otherwise it only takes note."""
    unanswered: int = 0

    def configure(self, folder: Path, redis: str = "", **http: object) -> Path:
        """A configuration file for all of it; waits are as short as they may be. Without the address of a `redis` it
        keeps its own Valkey in `folder`."""
        (folder / "sns.pem").write_bytes(self.signer.pem)
        (folder / "key.pem").write_bytes(self.amazon.merchant_private_key_pem)
        tables: dict[str, dict[str, Any]] = {
            "http": {"port": 0, **http},
            "track": {"request_timeout": "2s"},
            "delivery": {"allow_http": True, "allow_networks": ["127.0.0.0/8"], "timeout": "2s"},
            **({"redis": {"url": redis}} if redis else {}),
        }
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
        subscriber = {"name": "all", "url": self.hook, "secret": SECRET, "types": ["*"]}
        token = {"name": "test", "sha256": sha256(TOKEN.encode()).hexdigest(), "scopes": ["read", "admin"]}
        sections = [
            'data_dir = "data"\n',
            *(toml(f"[{name}]", values) for name, values in tables.items()),
            toml("[[tokens]]", token),
            toml("[[subscribers]]", subscriber),
            toml("[[accounts]]", account),
            toml("[accounts.throttle]", {"get_refund": [1000, 1000], "get_charge": [1000, 1000]}),
            toml("[accounts.signing_certificates]", {f'"{self.signer.url}"': "sns.pem"}),
        ]
        path = folder / "receiver.toml"
        path.write_text("\n".join(sections), "utf-8")
        return path

    async def at(self, command: Command) -> Command:
        """From now on this command, which answers, is the service."""
        self.url = (await command.line("serve.ready"))["address"]
        return command

    def refund(self, outcome: str = "AmazonRejected") -> str:
        """Start a refund at Amazon, without a notification: the test sends that."""
        return self.amazon.start_refund("12.00", "USD", outcome)

    def body(self, refund_id: str) -> bytes:
        """A notification about the refund, signed."""
        message = sns.notice(MerchantID=self.amazon.merchant_id, ObjectId=refund_id)
        return self.signer.post_body(message, topic_arn=self.amazon.topic_arn, timestamp_ms=now())

    async def post(self, body: bytes, url: str = "") -> tuple[int, dict[str, str]]:
        """Post a notification. Returns status and headers, in lower case; status 0 where nothing answered."""
        try:
            async with self.session.post(f"{url or self.url}/ipn", data=body) as answer:
                await answer.read()
                return answer.status, {name.lower(): value for name, value in answer.headers.items()}
        except (aiohttp.ClientError, OSError):
            return 0, {}

    async def get(self, path: str, url: str = "") -> tuple[int, Any]:
        """Status and JSON of the API; status 0 where nothing answered."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        try:
            async with self.session.get((url or self.url) + path, headers=headers) as answer:
                return answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, OSError):
            return 0, None

    async def known(self, url: str = "") -> dict[str, tuple[str, str]]:
        """What the API's list says of every refund: id → (state, reason)."""
        found: dict[str, tuple[str, str]] = {}
        cursor = ""
        while True:
            status, page = await self.get(f"/v1/refunds?limit=200{f'&cursor={cursor}' if cursor else ''}", url)
            assert status == 200, page
            for refund in page["refunds"]:
                details = refund["statusDetails"]
                found[refund["refundId"]] = (details["state"], details["reasonCode"] or "")
            cursor = page["nextCursor"]
            if not cursor:
                return found

    def truth(self) -> dict[str, tuple[str, str]]:
        """What Amazon would say of every refund by now: id → (state, reason)."""
        return {
            refund_id: (refund.history[-1].state, refund.history[-1].reason)
            for refund_id, refund in self.amazon.refunds.items()
        }

    def owed(self) -> set[tuple[str, str]]:
        """The final events that the subscriber must have got by now: (refund id, type)."""
        return {
            (refund_id, FINAL_EVENT[state]) for refund_id, (state, _) in self.truth().items() if state in FINAL_EVENT
        }

    def told(self) -> set[tuple[str, str]]:
        """The events that the subscriber got: (refund id, type)."""
        return {(each.event["subject"], each.event["type"]) for each in self.deliveries}

    async def settled(self) -> bool:
        """Whether the API knows the true and final state of every refund, and the subscriber all that it must."""
        truth = self.truth()
        over = all(state in FINAL_EVENT for state, _ in truth.values())
        return over and self.owed() <= self.told() and await self.known() == truth

    def ids(self) -> dict[tuple[str, str], set[str]]:
        """The event ids under which each event came: (refund id, type) → ids."""
        found: dict[tuple[str, str], set[str]] = {}
        for each in self.deliveries:
            found.setdefault((each.event["subject"], each.event["type"]), set()).update(
                {each.event["id"], each.webhook_id}
            )
        return found

    def repeats(self) -> int:
        """How many deliveries were repetitions."""
        return sum(Counter(each.event["id"] for each in self.deliveries).values()) - len(self.told())


@dataclass
class Load:
    """SNS with much to say: each notification about another refund, posted again until it is answered 200."""

    world: World
    total: int
    pause: float = 0.0
    """Seconds that each connection rests after an acknowledgement."""
    acknowledged: set[str] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)
    retry_after: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def running(self, concurrency: int = 8) -> AsyncIterator[Load]:
        """Under way, over connections that are kept alive. The end of the block waits for the rest: `stop` leaves it
        at what has begun."""
        waiting = iter(range(self.total))
        tasks = [asyncio.create_task(self._post_all(waiting)) for _ in range(concurrency)]
        try:
            yield self
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks)

    def stop(self) -> None:
        """Begin nothing more."""
        self.total = 0

    async def _post_all(self, waiting: Any) -> None:
        for number in waiting:
            if number >= self.total:
                return
            refund_id = self.world.refund(OUTCOMES[number % len(OUTCOMES)])
            body = self.world.body(refund_id)
            while refund_id not in self.acknowledged:
                status, headers = await self.world.post(body)
                self.answers[status] += 1
                if status == 200:
                    self.acknowledged.add(refund_id)
                else:
                    if status:
                        self.retry_after.add(headers.get("retry-after", ""))
                    await asyncio.sleep(0.03)
            await asyncio.sleep(self.pause)


def toml(header: str, values: dict[str, Any]) -> str:
    """A table; JSON's texts, numbers, booleans and lists are TOML's."""
    return "\n".join([header, *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""])


@asynccontextmanager
async def world(outcome_delay: float = 1.0) -> AsyncIterator[World]:
    """Amazon and the subscriber on real sockets; spans in seconds."""
    signer = SnsSigner(not_before=now() - 30 * DAY, not_after=now() + 300 * DAY)
    async with (
        Simulator(keys=keys(), outcome_delay=outcome_delay, throttle={}) as amazon,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
    ):
        found = World(amazon, signer, session)
        found.answers.set()
        runner = web.ServerRunner(web.Server(lambda request: _hook(found, request)))
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port, *_ = runner.addresses[0]
            found.hook = f"http://{host}:{port}/hook"
            yield found
        finally:
            found.answers.set()
            await runner.cleanup()


async def _hook(found: World, request: web.BaseRequest) -> web.Response:
    event = json.loads(await request.read())
    found.deliveries.append(Delivery(request.headers["webhook-id"], event))
    found.unanswered += 1
    await found.answers.wait()
    found.unanswered -= 1
    return web.Response(status=204)
