"""Attacks, and what must hold meanwhile: `python -m tests.faults attacks --seconds 60`.

The service runs in a separate process on a durable Valkey, with Amazon's throttle for a live account. Each second a
refund is declined and its genuine notification is posted; after a 503 it is posted again. What must hold: the
subscriber gets every decline within `MOST_DECLINE` of its notification; `/readyz` answers 200 within `MOST_READY` on
new connections; every genuine notification is accepted in the end, and is only answered with 200 or 503. The attackers
run in another process (`attackers.py`).
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from receiver.simulator.app import Simulator
from receiver.store.redis.address import read_address
from receiver.store.redis.client import link
from tests.benchmarks.load import request
from tests.faults.kill import DURABLE
from tests.kit import sns
from tests.kit.nameserver import NameServer, nameserver
from tests.kit.processes import PROJECT, Command, Desk, desk, until
from tests.kit.shared import keys
from tests.kit.sns import SnsSigner, rsa_key
from tests.kit.valkey import start_valkey, stop_valkey
from tests.kit.webserver import WebServer, serving
from tests.service.crash_kit import DAY, SECRET, TOKEN, now, toml
from tests.store.makers import fill
from tests.transport.test_transport_tls import HOST, answer, authority, tls_for

MOST_DECLINE, MOST_READY, MOST_ROTATION = 5.0, 1.0, 10.0
"""Seconds: from a notification to the webhook of the decline, for `/readyz`, until a new certificate is believed."""
READY_EVERY, DECLINE_EVERY = 0.5, 1.0
RESEND = 1.0
"""Seconds after which what got no 200 is sent again. SNS does so at once three times, then after 20 s."""
GIVE_UP = 60.0
"""Seconds after which a decline counts as lost, and a silent connection as unanswered."""
STORED = 20_000
"""Number of stored refunds, for attacks that read."""
OTHERS = 80
"""Subscribers of the other merchant."""
FILES = 8192
"""File descriptors of the service and of the attackers."""


@dataclass(frozen=True, slots=True)
class Attack:
    """What is done. `kind` is the attackers'; none: what is wrong is in the installation itself."""

    name: str
    what: str
    kind: str = ""
    addresses: int = 1
    width: int = 500
    rate: float = 0.0
    proven: bool = True
    """Whether the certificate of genuine messages has verified one before."""
    rotates: bool = False
    """Whether Amazon signs with a new certificate in the second half."""
    silent: bool = False
    """Whether the host of the certificates never answers for files that do not exist, instead of with 404."""
    stored: int = 0
    others: int = 0


UNSEEN = partial(Attack, kind="unsigned", proven=False, rotates=True)
ATTACKS = (
    UNSEEN("names", "25 unsigned posts/s from 1 address, each names another certificate", rate=25),
    UNSEEN("names-100", "25 such posts/s from 100 addresses", rate=25, addresses=100),
    UNSEEN("names-200", "200 such posts/s from 100 addresses", rate=200, addresses=100, width=2000),
    Attack("heads", "1,000 heads without an end of one client, renewed every 9 s", "head", width=1000),
    Attack("silent", "140 strangers wait for a certificate, its host is silent", "unsigned", 70, 140, silent=True),
    Attack("dns", f"{OTHERS} subscribers of another merchant whose names no server answers", others=OTHERS),
    Attack("refreshes", "1,500 refreshes/s of invented ids by one token", "refresh", width=200, rate=1500),
    Attack(
        "reads", "300 reads at once of pages of 200 and with few matches, by one token", "read", 1, 300, stored=STORED
    ),
)
NAMES = {attack.name: attack for attack in ATTACKS}


@dataclass(slots=True)
class Decline:
    """One genuine decline; moments are of `perf_counter`."""

    posted: float
    taken: float = 0.0
    told: float = 0.0


@dataclass
class Outcome:
    """The result of one attack. Times are seconds."""

    attack: Attack
    done: dict[str, Any] = field(default_factory=dict)
    """What the attackers say."""
    declines: dict[str, Decline] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)
    """To genuine notifications; 0: the connection was cut."""
    ready: list[tuple[int, float]] = field(default_factory=list)
    """Status and time of each look."""
    rotated: float = 0.0
    believed: float = 0.0
    """When Amazon began with a new certificate, and when a message with it was taken first."""
    looked_up: int = 0
    """Questions for names that no server answers."""

    @property
    def all_told(self) -> bool:
        """Whether no decline is lost, and every genuine notification was taken."""
        return bool(self.declines) and all(each.taken and each.told for each in self.declines.values())

    @property
    def always_ready(self) -> bool:
        """Whether every look said 200, whenever."""
        return bool(self.ready) and all(status == 200 for status, _ in self.ready)

    @property
    def answered(self) -> bool:
        """Whether genuine notifications were only answered with 200 or 503."""
        return set(self.answers) <= {200, 503}

    @property
    def slowest(self) -> float:
        """The longest time from a notification's first post to its webhook, without those during the rotation."""
        timed = [each for each in self.declines.values() if not self.rotated <= each.posted < self.believed]
        return max((each.told - each.posted if each.told else GIVE_UP for each in timed), default=0.0)

    @property
    def slowest_ready(self) -> float:
        """The longest look."""
        return max((took for _, took in self.ready), default=0.0)

    @property
    def rotation(self) -> float:
        """From the first message with the new certificate until one was taken; 0 without a rotation."""
        return (self.believed or self.rotated + GIVE_UP) - self.rotated if self.rotated else 0.0

    @property
    def holds(self) -> bool:
        """Whether all that must hold does."""
        kept = self.all_told and self.always_ready and self.answered
        quick = self.slowest <= MOST_DECLINE and self.slowest_ready <= MOST_READY and self.rotation <= MOST_ROTATION
        return kept and quick

    def __str__(self) -> str:
        told = sum(bool(each.told) for each in self.declines.values())
        refused = {status: count for status, count in self.answers.items() if status != 200}
        bad = Counter(status for status, _ in self.ready if status != 200)
        parts = [
            f"{self.attack.name}: {self.attack.what}: {self._reached()}",
            f"{told} of {len(self.declines)} declines told, slowest {self.slowest:.2f} s",
            f"put off: {refused or 'none'}",
            *([f"new certificate believed after {self.rotation:.2f} s"] if self.attack.rotates else []),
            f"readyz {len(self.ready)} times, slowest {self.slowest_ready:.2f} s"
            + (f", not ready: {dict(bad)}" if bad else ""),
            "holds" if self.holds else "FAILS",
        ]
        return "; ".join(parts)

    def _reached(self) -> str:
        if not self.done:
            return f"{self.looked_up} look-ups"
        seconds, answers = self.done["seconds"], dict(self.done["answers"])
        answers.pop("with Retry-After", None)
        begun = sum(answers.values()) - answers.get("closed", 0)
        return f"{begun / seconds:.0f}/s, at most {self.done['most']} at once, {answers}"


@dataclass
class Host:
    """The host of the certificates: it has these files."""

    silent: bool
    files: dict[str, bytes] = field(default_factory=dict)
    server: WebServer = field(default_factory=WebServer)

    async def speak(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, or say nothing."""
        pem = self.files.get(self.server.requests[-1].split()[1].decode())
        if pem is None and self.silent:
            await asyncio.Event().wait()
        writer.write(answer(pem) if pem else answer(b"", "404 Not Found"))
        await writer.drain()


@dataclass
class Town:
    """All other parties: Amazon, the certificate host and the subscriber, in this process."""

    outcome: Outcome
    host: Host
    dns: NameServer
    amazons: list[Simulator]
    session: aiohttp.ClientSession
    signer: SnsSigner
    hook: str = ""
    url: str = ""

    @property
    def port(self) -> int:
        """The service's."""
        return urlsplit(self.url).port or 0

    def sign_with(self, signer: SnsSigner) -> None:
        """Amazon signs with this certificate from now on, and its host has it."""
        self.signer = signer
        self.host.files[urlsplit(signer.url).path] = signer.pem

    def configure(self, folder: Path, redis: str) -> Path:
        """A configuration file as in production; no certificate is pinned."""
        (folder / "key.pem").write_bytes(keys().merchant_private_key_pem)
        authority().cert_pem.write_to_path(str(folder / "ca.pem"))
        token = {"name": "test", "sha256": sha256(TOKEN.encode()).hexdigest(), "scopes": ["read", "admin"]}
        to = {"account": "us", "name": "all", "url": self.hook, "secret": SECRET, "types": ["*"]}
        nowhere = [
            {**to, "account": "other", "name": f"n{number}", "url": f"http://n{number}.example/hook"}
            for number in range(self.outcome.attack.others)
        ]
        sections = [
            toml("[redis]", {"url": redis}),
            toml("[http]", {"port": 0}),
            toml("[delivery]", {"allow_http": True, "allow_networks": ["127.0.0.0/8"]}),
            toml("[[tokens]]", token),
            *(toml("[[subscribers]]", each) for each in (to, *nowhere)),
            *(toml("[[accounts]]", self.account(amazon)) for amazon in self.amazons),
        ]
        path = folder / "receiver.toml"
        path.write_text("\n".join(sections), "utf-8")
        return path

    def account(self, amazon: Simulator) -> dict[str, Any]:
        """The table of an account; its topics are a pattern."""
        return {
            "name": "us" if amazon is self.amazons[0] else "other",
            "merchant_id": amazon.merchant_id,
            "region": amazon.region,
            "public_key_id": amazon.public_key_id,
            "private_key_file": "key.pem",
            "topic_arns": [f"{amazon.topic_arn.rpartition(':')[0]}:*"],
            "endpoint": amazon.base_url,
        }

    async def take(self, request: web.BaseRequest) -> web.Response:
        """The subscriber."""
        event = json.loads(await request.read())
        found = self.outcome.declines.get(event["subject"])
        if found is not None and event["type"].endswith(".declined"):
            found.told = found.told or perf_counter()
        return web.Response(status=204)

    async def decline(self, amazon: Simulator) -> None:
        """Decline one refund, post its notification until it is accepted, and, for the merchant of the subscriber, wait
        for the webhook. Never raises `AssertionError`: the outcome lists what is missing."""
        refund_id = amazon.start_refund("12.00", "USD", "DeclinedAtOnce")
        found = Decline(perf_counter())
        if amazon is self.amazons[0]:
            self.outcome.declines[refund_id] = found
        message = sns.notice(MerchantID=amazon.merchant_id, ObjectId=refund_id)
        signer = self.signer
        body = signer.post_body(message, topic_arn=amazon.topic_arn, timestamp_ms=now())
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP):
                while (status := await self.post(body)) != 200:
                    self.outcome.answers[status] += 1
                    await asyncio.sleep(RESEND)
                self.outcome.answers[200] += 1
                found.taken = perf_counter()
                if self.outcome.rotated and found.posted >= self.outcome.rotated and not self.outcome.believed:
                    self.outcome.believed = found.taken
        if amazon is self.amazons[0]:
            with suppress(AssertionError):
                await until(lambda: found.told, "the webhook", max(0.1, found.posted + GIVE_UP - perf_counter()))

    async def post(self, body: bytes) -> int:
        """The status; 0 where the connection was cut."""
        try:
            async with self.session.post(f"{self.url}/ipn", data=body) as answered:
                await answered.read()
                return answered.status
        except (aiohttp.ClientError, OSError):
            return 0

    async def look(self) -> None:
        """Whether it is ready, on a new connection."""
        began, status = perf_counter(), 0
        with suppress(OSError, TimeoutError, ValueError, IndexError):
            async with asyncio.timeout(GIVE_UP):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(request("/readyz", method="GET"))
                    status = int((await reader.readline()).split()[1])
                finally:
                    writer.close()
        self.outcome.ready.append((status, perf_counter() - began))


@asynccontextmanager
async def town(attack: Attack) -> AsyncIterator[Town]:
    """Everything is up but the service; in the end nothing of it is left."""
    host = Host(attack.silent)
    merchants = ["A2SIMULATOR01", *(["A2SIMULATOR02"] if attack.others else [])]
    async with AsyncExitStack() as stack:
        host.server = await stack.enter_async_context(serving(host.speak, tls_for(HOST)))
        dns = await stack.enter_async_context(nameserver())
        amazons = [Simulator(environment="live", keys=keys(), merchant_id=each) for each in merchants]
        for amazon in amazons:
            await stack.enter_async_context(amazon)
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(total=20)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        found = Town(Outcome(attack), host, dns, amazons, session, _signer(0))
        found.sign_with(found.signer)
        runner = web.ServerRunner(web.Server(found.take))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.hook = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield found


@asynccontextmanager
async def service(place: Town, at: Desk) -> AsyncIterator[Command]:
    """The service on a durable Valkey, ready."""
    valkey, url = await asyncio.to_thread(start_valkey, at.folder / "v", *DURABLE)
    try:
        if place.outcome.attack.stored:
            redis: Any = link(read_address(url))
            await fill(redis, place.outcome.attack.stored)
            await redis.aclose()
        at.module = "tests.faults.attacked"
        near = {"CERTIFICATE_HOST": f"127.0.0.1:{place.host.server.port}", "NAME_SERVER": place.dns.address}
        env = {**near, "SSL_CERT_FILE": str(at.folder / "ca.pem")}
        command = await at.start("serve", "--config", place.configure(at.folder, url), env=env)
        place.url = (await command.line("serve.ready"))["address"]
        await until(lambda: _ready(place), "ready")
        place.outcome.ready.clear()
        yield command
    finally:
        stop_valkey(valkey)


async def _ready(place: Town) -> bool:
    await place.look()
    return place.outcome.ready[-1][0] == 200


@asynccontextmanager
async def attackers(place: Town) -> AsyncIterator[None]:
    """Run the attack until the block ends. The outcome then says what was done."""
    attack = place.outcome.attack
    if not attack.kind:
        yield
        return
    words = {
        "port": place.port,
        "topic": place.amazons[0].topic_arn,
        "merchant": place.amazons[0].merchant_id,
        "token": TOKEN,
        "addresses": attack.addresses,
        "width": attack.width,
        "rate": attack.rate,
    }
    options = [f"--{name}={value}" for name, value in words.items()]
    command = [sys.executable, "-m", "tests.faults.attackers", attack.kind, *options]
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdin=PIPE, stdout=PIPE)
    try:
        await _said(process)
        yield
        if process.stdin is not None:
            process.stdin.close()
        place.outcome.done = json.loads(await _said(process))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _said(process: Process) -> bytes:
    if process.stdout is None:
        raise RuntimeError("The attackers have no output.")
    line = await asyncio.wait_for(process.stdout.readline(), GIVE_UP)
    if not line:
        raise RuntimeError("The attackers have ended.")
    return line


async def watch(place: Town, seconds: float) -> None:
    """So many seconds of genuine mail, and of looks whether it is ready; then until the last decline is delivered."""
    attack, began = place.outcome.attack, perf_counter()
    rotation = began + seconds / 2 if attack.rotates else began + 2 * seconds
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(_keep_looking(place, over))
        async with asyncio.TaskGroup() as declines:
            while (at := perf_counter()) < began + seconds:
                if at >= rotation and not place.outcome.rotated:
                    place.sign_with(_signer(1))
                    place.outcome.rotated = perf_counter()
                for amazon in place.amazons:
                    declines.create_task(place.decline(amazon))
                await asyncio.sleep(DECLINE_EVERY)
        over.set()
        await looking


async def _keep_looking(place: Town, over: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as looks:
        while not over.is_set():
            looks.create_task(place.look())
            await asyncio.sleep(READY_EVERY)


def _signer(number: int) -> SnsSigner:
    """The first certificate of Amazon's, or the next one."""
    span = (now() - DAY, now() + 300 * DAY)
    return SnsSigner(key=rsa_key(number=number), serial=number + 1, not_before=span[0], not_after=span[1])


async def suffer(attack: Attack, seconds: float) -> Outcome:
    """One attack for so long, on its own installation."""
    rsa_key(number=1)  # made before it is needed: that takes a while
    async with desk() as at, town(attack) as place, service(place, at):
        if attack.proven:
            await place.decline(place.amazons[0])
        async with attackers(place):
            await watch(place, seconds)
        place.outcome.looked_up = sum(count for name, count in place.dns.asked.items() if name.endswith(".example"))
    return place.outcome


def room_for_files() -> None:
    """As many connections as an attack has; the processes that are started have the same."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))


async def run(seconds: float, names: Iterable[str] = ()) -> AsyncIterator[Outcome]:
    """The attacks of these names, or all, one after the other."""
    room_for_files()
    for attack in [NAMES[name] for name in names] or ATTACKS:
        yield await suffer(attack, seconds)
