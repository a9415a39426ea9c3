"""What the simulator's tests share: one set of keys, a simulator with a stopped clock, and a receiver on a real
socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qsl, quote, urlencode

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from receiver.simulator.app import Simulator
from receiver.simulator.keys import Keys, make_keys
from tests.kit.clock import T0, ManualClock
from tests.simulator.signer import private_key, signed


@pytest.fixture(scope="session")
def keys() -> Keys:
    """Keys cost a third of a second to make."""
    return make_keys(T0)


class Inbox:
    """A receiver of notifications: keeps what it gets, and answers with the next of `answers`, else with 200."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Take one post."""
        self.bodies.append(await request.read())
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    @property
    def envelopes(self) -> list[dict[str, str]]:
        """The bodies as JSON."""
        return [json.loads(body) for body in self.bodies]

    @property
    def objects(self) -> list[str]:
        """The refund ids in the messages."""
        return [json.loads(envelope["Message"])["ObjectId"] for envelope in self.envelopes]


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    """A receiver on a real socket."""
    found = Inbox()
    runner = web.ServerRunner(web.Server(found.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port, *_ = runner.addresses[0]
    found.url = f"http://{host}:{port}/ipn"
    yield found
    await runner.cleanup()


class Client:
    """Calls a simulator over its socket, signing with the tests' own signer."""

    def __init__(self, amazon: Simulator, session: aiohttp.ClientSession, clock: ManualClock) -> None:
        self.amazon, self.session, self.clock = amazon, session, clock
        self.key = private_key(amazon.merchant_private_key_pem)
        self.headers: dict[str, str] = {}

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        unsigned: dict[str, str] | None = None,
        key: str = "",
        query: str = "",
    ) -> tuple[int, dict[str, object]]:
        """Status and JSON of a signed call; the answer's headers are kept in `headers`."""
        query = urlencode(sorted(parse_qsl(query, keep_blank_values=True)), quote_via=quote, safe="")
        headers = signed(
            *(self.key, self.amazon.public_key_id, method, path, body),
            at=self.clock(),
            idempotency_key=key,
            query=query,
        )
        url = URL(f"{self.amazon.base_url}{path}{'?' if query else ''}{query}", encoded=True)
        async with self.session.request(method, url, data=body, headers={**headers, **(unsigned or {})}) as answer:
            self.headers = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, await answer.json()

    async def create(
        self, charge_id: str, amount: str, currency: str = "USD", *, key: str, code: str = ""
    ) -> tuple[int, dict[str, object]]:
        """Create Refund."""
        money = {"amount": amount, "currencyCode": currency}
        body = json.dumps({"chargeId": charge_id, "refundAmount": money}).encode()
        unsigned = {"x-amz-pay-simulation-code": code} if code else {}
        return await self.call("POST", "/v2/refunds", body, unsigned=unsigned, key=key)

    async def state(self, refund_id: str) -> tuple[object, object]:
        """State and reason of Get Refund."""
        status, found = await self.call("GET", f"/v2/refunds/{refund_id}")
        assert status == 200
        details = found["statusDetails"]
        assert isinstance(details, dict)
        return details["state"], details["reasonCode"]

    async def control(self, method: str, path: str, values: object = None) -> tuple[int, dict[str, object]]:
        """Status and JSON of the control API."""
        url = f"{self.amazon.base_url}/simulator{path}"
        async with self.session.request(method, url, json=values) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else {}


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
async def amazon(keys: Keys, clock: ManualClock, inbox: Inbox) -> AsyncIterator[Simulator]:
    """A simulator on a real socket, with the tests' clock, no throttle, and quick retries of notifications."""
    simulator = Simulator(keys=keys, now=clock, throttle={}, post_to=inbox.url, retry_waits=(0.01, 0.01, 0.01))
    async with simulator:
        yield simulator


@pytest.fixture
async def client(amazon: Simulator, clock: ManualClock) -> AsyncIterator[Client]:
    """A client of that simulator."""
    async with aiohttp.ClientSession() as session:
        yield Client(amazon, session, clock)


async def until(fact: Callable[[], object]) -> None:
    """Return once the fact is true; fail after half a minute."""
    async with asyncio.timeout(30):
        while not fact():  # noqa: ASYNC110 - the facts are other people's
            await asyncio.sleep(0.005)
