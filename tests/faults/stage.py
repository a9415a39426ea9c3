"""The four paths of the service in one process, each on a store behind the fault proxy, and what must hold afterwards.

Amazon is the simulator on a socket, the subscriber listens on one, Redis is a real Valkey; the test moves the time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from starlette.types import ASGIApp

from receiver.amazon.account import Account
from receiver.amazon.calls import Endpoint, Region
from receiver.amazon.signing import Signer
from receiver.amazon.throttle import LIVE_THROTTLE, Bucket
from receiver.http.app import build
from receiver.ledger.notification import Hint
from receiver.ledger.refund import Source
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.store.redis.keys import Keys
from receiver.store.redis.pipeline import connect
from receiver.transport.client import Transport
from tests.faults.proxy import Fault, FaultProxy, faulty
from tests.http.kit import REFUNDER, real_receiver, settings
from tests.issue.kit import make_issuer
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.sns import SnsSigner, headers, notice
from tests.service.depot import make_deliverer
from tests.service.desk import make_tracker
from tests.service.kit import at_work, pass_time, trust
from tests.service.stage import Amazon, Hook

PATHS = ("ingest", "track", "issue", "deliver")
TRACKED = "14.00"
TICK, STEP = 5_000, 0.005
"""So many ms pass in each so many seconds: a lease is over after some thirty of a test's milliseconds."""
BOUND = 30.0
"""Seconds in which everything has come right, or never will."""
MOST_TRIES = 30


@dataclass
class House:
    """What stays over many runs: Amazon, the subscriber, sockets."""

    amazon: Amazon
    hook: Hook
    transport: Transport
    redis: Redis
    url: str
    folder: Path
    account: Account
    signer: SnsSigner = field(default_factory=SnsSigner)
    numbers: Any = field(default_factory=itertools.count)


@asynccontextmanager
async def house(valkey_url: str, folder: Path) -> AsyncIterator[House]:
    """All other parties: Amazon and a subscriber, on sockets."""
    async with AsyncExitStack() as stack:
        redis = connect(valkey_url)
        stack.push_async_callback(redis.aclose)
        transport = Transport(allow_networks=[ip_network("127.0.0.0/8")], tls=trust())
        stack.push_async_callback(transport.close)
        amazon = await stack.enter_async_context(Amazon(outcome_delay=Amazon.STEP))
        hook = await stack.enter_async_context(Hook().listening())
        account = make_account(
            endpoint=Endpoint(Region.NA, "sandbox", amazon.public_key_id, amazon.base_url),
            signer=Signer(amazon.public_key_id, amazon.merchant_private_key_pem),
            throttle=dict.fromkeys(LIVE_THROTTLE, Bucket(10_000, 10_000)),
        )
        yield House(amazon, hook, transport, redis, valkey_url, folder, account)


@dataclass(frozen=True, slots=True)
class Answer:
    """Of our own HTTP side."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Run:
    """One run: a fresh store, seen directly and through the proxy."""

    house: House
    proxy: FaultProxy
    near: Store
    """Connected through the proxy. The code under test uses this one."""
    direct: Store
    clock: ManualClock
    refunds: list[str] = field(default_factory=list)
    """What the ledger must know in the end, as Amazon does."""
    told: list[str] = field(default_factory=list)
    """The last parts of the types of each refund's events."""
    answers: list[int] = field(default_factory=list)
    """What our HTTP side has answered."""

    async def path(self, name: str) -> None:
        """Walk one of `PATHS` with the faults of the proxy, until everything has succeeded."""
        await self.direct.of("us").subscribers.put(self._subscriber())
        await getattr(self, f"_{name}")()
        await self.proxy.send_late()

    async def _ingest(self) -> None:
        refund_id = self._refund("DeclinedAtOnce", "declined")
        body = self.house.signer.envelope(notice(ObjectId=refund_id))
        app = self.app()

        async def again() -> Answer:
            return await ask(app, "POST", "/ipn", headers(body), json.dumps(body).encode())

        await self._until_taken(again, (200,))
        keys = Keys("us")
        assert await self.house.redis.zrange(keys("hinted"), 0, -1) == [refund_id.encode()], "200 without its effect"
        assert await self.house.redis.hexists(keys("hints"), refund_id)
        again_answer = await ask(app, "POST", "/ipn", headers(body), json.dumps(body).encode())
        assert again_answer.status in (200, 503)

    async def _track(self) -> None:
        refund_id = self._refund("AmazonRejected", "declined", "initiated")
        await self.direct.of("us").schedule.hint(noted(refund_id, self.clock()))
        tracker = make_tracker(self.house.account, self.near, self.house.transport, Metrics())
        async with at_work(tracker.run):
            await self._until(lambda: self._is(refund_id, "RefundInitiated"), "it is known", self.near)
            self.house.amazon.move()
            await self._until(lambda: self._is(refund_id, "Declined"), "it is declined", self.near)
            await self._until(self._unscheduled, "nothing is due", self.near)

    async def _issue(self) -> None:
        charge_id = self.house.amazon.open_charge("100.00", "USD")
        money = {"amount": TRACKED, "currencyCode": "USD"}
        body = json.dumps({"chargeId": charge_id, "refundAmount": money}).encode()
        sent = {
            "authorization": f"Bearer {REFUNDER}",
            "idempotency-key": f"key-{next(self.house.numbers)}",
            "content-type": "application/json",
        }
        issuer = make_issuer(self.house.account, self.near, self.house.transport.send, self.house.numbers)
        app = self.app(issuer)

        async def again() -> Answer:
            return await ask(app, "POST", "/v1/refunds", sent, body)

        async def made() -> bool:
            return not await self.house.redis.exists(Keys("us")("issuing"))

        await self._until_taken(again, (201, 202))
        async with at_work(issuer.run):
            await self._until(made, "the request is settled", self.near)
        answer = await self._until_taken(again, (201,))
        made_at_amazon = [
            each for each, found in self.house.amazon.refunds.items() if found.order.charge_id == charge_id
        ]
        assert made_at_amazon == [json.loads(answer.body)["refundId"]], "one key, one refund"
        self.refunds, self.told = made_at_amazon, ["initiated"]
        entries = await self.direct.of("us").requests.charge_entries(charge_id)
        assert {name: entry.minor_units for name, entry in entries.items()} == {made_at_amazon[0]: 1400}

    async def _deliver(self) -> None:
        for _ in range(2):
            refund_id = self._refund("DeclinedAtOnce", "declined")
            await self.direct.of("us").schedule.hint(noted(refund_id, self.clock()))
        tracker = make_tracker(self.house.account, self.direct, self.house.transport, Metrics())
        async with at_work(tracker.run):
            await self._until(self._agrees, "they are known", self.direct)
        self.house.hook.posts.clear()
        deliverer = make_deliverer(self.near, self.house.transport, Metrics())
        async with at_work(deliverer.run):
            await self._until(self._told, "the subscriber is told", self.near)

    async def recover(self) -> None:
        """All workers on a Redis that is well, until there is nothing left to do."""
        issuer = make_issuer(self.house.account, self.direct, self.house.transport.send, self.house.numbers)
        tracker = make_tracker(self.house.account, self.direct, self.house.transport, Metrics())
        deliverer = make_deliverer(self.direct, self.house.transport, Metrics())
        async with at_work(issuer.run), at_work(tracker.run), at_work(deliverer.run):
            await self._until(self._quiet, "there is nothing left to do", self.direct)

    async def check(self) -> None:
        """Nothing is lost, nothing is done twice, nothing is stuck."""
        keys, redis = Keys("us"), self.house.redis
        entries: Any = await redis.xrange(keys("events"))
        texts = ({name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries)
        events = [each for each in texts if "refundId" in each]
        counted = Counter((each["refundId"], each["type"].rpartition(".")[2]) for each in events)
        expected = Counter({(refund_id, word): 1 for refund_id in self.refunds for word in self.told})
        assert counted == expected, "one event for each transition"
        ids = {each["id"] for each in events}
        assert len(ids) == len(events)
        posts = self.house.hook.posts
        assert {post.headers["webhook-id"] for post in posts} == ids, "each event is delivered, under its own id only"
        by_id: dict[str, set[str]] = {}
        for event in self.house.hook.events:
            by_id.setdefault(event.get_id(), set()).add(f"{event.get_subject()} {event.get_type()}")
        assert all(len(each) == 1 for each in by_id.values())
        for refund_id in self.refunds:
            states = [line.state for line in await self.direct.of("us").refunds.history(refund_id)]
            assert states == list(dict.fromkeys(states)), "no state is written twice"
        left = ("hinted", "hints", "issuing", "reserved", "unclear", "lane:all", "owed:all", "attempts:all", "dead:all")
        assert [name for name in left if await redis.exists(keys(*name.split(":")))] == [], "in limbo"
        pending = [refund_id for refund_id in self.refunds if await self._is(refund_id, "RefundInitiated")]
        assert sorted(await redis.zrange(keys("due"), 0, -1)) == sorted(each.encode() for each in pending)
        assert set(self.answers) <= {200, 201, 202, 503}, "our own trouble is no fault of the sender"

    def app(self, issuer: Any = None) -> ASGIApp:
        """The HTTP side, on the store behind the proxy."""
        return build(
            settings("us"),
            receiver=real_receiver(self.house.signer, self.near),
            store=self.near,
            metrics=Metrics(),
            now=self.clock,
            checks={},
            refresh_gauges=nothing,
            issuers={"us": issuer} if issuer else {},
        )

    def _refund(self, outcome: str, *told: str) -> str:
        refund_id = self.house.amazon.start_refund(TRACKED, "USD", outcome)
        self.refunds.append(refund_id)
        self.told = list(told)
        return refund_id

    def _subscriber(self) -> Subscriber:
        return Subscriber(name="all", url=self.house.hook.url, secrets=(Secret(self.house.hook.secret),), types=("*",))

    async def _until_taken(self, again: Callable[[], Awaitable[Answer]], good: tuple[int, ...]) -> Answer:
        """Repeat after a 5xx, as SNS and a careful client do."""
        for _ in range(MOST_TRIES):
            answer = await again()
            self.answers.append(answer.status)
            if answer.status in good:
                return answer
            if answer.status >= 500:
                assert answer.headers.get("retry-after"), answer
            self.clock.tick(TICK)
        raise AssertionError(f"never taken: {self.answers}")

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str, store: Store) -> None:
        """Let time pass until it is so."""
        try:
            async with asyncio.timeout(BOUND):
                while not await condition():
                    pass_time(store, self.clock, TICK)
                    await asyncio.sleep(STEP)
        except TimeoutError:
            raise AssertionError(f"never: {what}") from None

    async def _is(self, refund_id: str, state: str) -> bool:
        known = await self.direct.of("us").refunds.get(refund_id)
        return known is not None and known.state == state

    async def _agrees(self) -> bool:
        truth = self.house.amazon.truth
        return all([await self._is(refund_id, truth[refund_id][0]) for refund_id in self.refunds])

    async def _unscheduled(self) -> bool:
        return not await self.house.redis.exists(Keys("us")("due"), Keys("us")("hinted"))

    async def _told(self) -> bool:
        return not await self.house.redis.exists(Keys("us")("lane", "all"))

    async def _quiet(self) -> bool:
        keys = Keys("us")
        left = (keys("hinted"), keys("hints"), keys("issuing"), keys("lane", "all"))
        return not await self.house.redis.exists(*left) and await self._agrees()


@asynccontextmanager
async def fresh(house: House, plan: dict[int, Fault], every: Fault | None = None) -> AsyncIterator[Run]:
    """A run on an empty Redis that knows no scripts, through a proxy with this plan."""
    await house.redis.flushall()
    await house.redis.script_flush()
    house.hook.posts.clear()
    house.amazon.set_clock()
    clock = ManualClock()
    async with faulty(house.url, house.redis, house.folder) as (proxy, url):
        direct, near = Store(connect(house.url), clock=clock), Store(connect(url), clock=clock)
        run = Run(house, proxy, near, direct, clock)
        await direct.of("us").subscribers.open()
        proxy.plan, proxy.every = plan, every
        try:
            yield run
        finally:
            await near.close()
            await direct.close()


async def walk(house: House, path: str, plan: dict[int, Fault], every: Fault | None = None) -> FaultProxy:
    """Run one path with these faults, recover, and check the result. Raises `AssertionError` with the plan."""
    async with fresh(house, plan, every) as run:
        try:
            await run.path(path)
            run.proxy.plan, run.proxy.every = {}, None
            await run.recover()
            await run.check()
        except AssertionError as error:
            named = {number: str(fault) for number, fault in plan.items()}
            raise AssertionError(f"{path} {named} {every or ''}\n{run.proxy.log}\n{error}") from error
        return replace(run.proxy)


async def ask(app: ASGIApp, method: str, path: str, sent: dict[str, str], body: bytes) -> Answer:
    """One request of the application, in this process."""
    messages: list[Any] = []
    incoming = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(incoming, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "root_path": "",
    }
    await app(scope, receive, send)
    start = messages[0]
    answered = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], answered, b"".join(each.get("body", b"") for each in messages[1:]))


def noted(refund_id: str, at: int) -> Hint:
    """What a notification leaves."""
    return Hint(refund_id=refund_id, at=at, source=Source.NOTIFICATION, message_id=refund_id, digest="d", sent_at=at)


async def nothing() -> None:
    """No gauges here."""
