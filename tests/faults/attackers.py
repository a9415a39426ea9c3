"""Attackers, in a separate process, so that they do not slow the measured one.

`python -m tests.faults.attackers KIND …` prints `begun` when the whole attack is running, continues until its standard
input ends, and then prints what it did as one line of JSON. It only connects to loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp

from tests.benchmarks.mail import refund_id
from tests.kit import sns
from tests.kit.processes import until

LOCAL = "127.0.0.1"
RENEW = 9.0
"""Seconds that an unfinished head stays: less than `http.header_timeout`."""
LEAST_PAUSE = 0.1
READS = (
    "/v1/refunds?limit=200",
    "/v1/refunds?limit=200&state=Declined",
    "/v1/refunds?limit=200&reason=AmazonRejected&state=Refunded",
    "/v1/refunds?limit=200&state=Declined&reason=ProcessingFailure",
)
"""Pages of 200, and filters with few matches."""


@dataclass
class Crowd:
    """All attackers. `width`: how many are under way at once; `rate`: how many begin in a second."""

    port: int
    topic: str
    merchant: str
    token: str
    addresses: int
    width: int
    rate: float
    """0: as fast as they are answered."""
    signer: sns.SnsSigner = field(default_factory=sns.SnsSigner)
    answers: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    most_under_way: int = 0
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)

    async def arrive(self) -> None:
        """Make a client for each address."""
        for number in range(self.addresses):
            connector = aiohttp.TCPConnector(local_addr=(f"127.0.0.{number + 2}", 0), limit=0)
            timeout = aiohttp.ClientTimeout(total=30)
            session = aiohttp.ClientSession(f"http://{LOCAL}:{self.port}", connector=connector, timeout=timeout)
            self.sessions.append(await self.stack.enter_async_context(session))

    async def ask(self, number: int, method: str, path: str, **more: Any) -> None:
        """One request from the address of this number, to its end."""
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            async with self.sessions[number % self.addresses].request(method, path, **more) as answer:
                await answer.read()
                self.answers[str(answer.status)] += 1
                if answer.status in (429, 503):
                    self.answers["with Retry-After"] += "Retry-After" in answer.headers
        except (aiohttp.ClientError, OSError, TimeoutError):
            self.answers["cut"] += 1
        finally:
            self.under_way -= 1

    async def unsigned(self, number: int) -> None:
        """An unsigned notification; its certificate does not exist."""
        name = f"{random.getrandbits(128):032x}"
        envelope = self.signer.envelope(
            sns.notice(MerchantID=self.merchant, ObjectId=refund_id(number)),
            topic_arn=self.topic,
            timestamp_ms=time.time_ns() // 1_000_000,
            SigningCertURL=f"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{name}.pem",
            Signature="QUFB" * 85 + "QQ==",
        )
        await self.ask(number, "POST", "/ipn", data=json.dumps(envelope), headers=sns.headers(envelope))

    async def refresh(self, number: int) -> None:
        """Ask for a refund that does not exist."""
        invented = refund_id(number).replace("S01", "P01")
        await self.ask(number, "POST", f"/v1/refunds/{invented}/refresh", headers=self.signed_in)

    async def read(self, number: int) -> None:
        """Ask for a list."""
        await self.ask(number, "GET", READS[number % len(READS)], headers=self.signed_in)

    @property
    def signed_in(self) -> dict[str, str]:
        """The token's header."""
        return {"Authorization": f"Bearer {self.token}"}

    async def head(self, number: int) -> None:
        """Open a connection, begin a request, and leave it so until it is time for a new one, or it is closed."""
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        writer = None
        try:
            address = (f"127.0.0.{number % self.addresses + 2}", 0)
            reader, writer = await asyncio.open_connection(LOCAL, self.port, local_addr=address)
            self.answers["opened"] += 1
            writer.write(b"POST /ipn HTTP/1.1\r\nHost: x\r\nX-Stranger: ")
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), RENEW)
                self.answers["closed"] += 1
        except OSError:
            self.answers["cut"] += 1
        finally:
            self.under_way -= 1
            if writer is not None:
                writer.close()

    async def paced(self, act: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """`rate` a second, but never more than `width` at once."""
        places = asyncio.Semaphore(self.width)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in count():
                await asyncio.sleep(max(0.0, began + number / self.rate - time.monotonic()))
                await places.acquire()
                group.create_task(act(number)).add_done_callback(lambda _: places.release())

    async def always(self, act: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """Run `width` of them at once. Each is repeated when it ends, but no sooner than `LEAST_PAUSE` after its
        start."""

        async def one(number: int) -> None:
            while True:
                began = time.monotonic()
                await act(number)
                number += self.width
                await asyncio.sleep(max(0.0, began + LEAST_PAUSE - time.monotonic()))

        async with asyncio.TaskGroup() as group:
            for number in range(self.width):
                group.create_task(one(number))

    async def begun(self) -> None:
        """Return when it is at its height, or after three seconds where it cannot come so far."""
        with suppress(AssertionError):
            await until(lambda: self.most_under_way >= self.width or (self.rate and self.answers), "its height", 3.0)

    async def run(self, act: Callable[[int], Coroutine[Any, Any, None]]) -> dict[str, Any]:
        """Attack until the standard input ends. Returns what was done."""
        ended = asyncio.StreamReader()
        async with self.stack:
            await self.arrive()
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ended), sys.stdin)
            began = time.monotonic()
            attack = asyncio.create_task(self.paced(act) if self.rate else self.always(act))
            await self.begun()
            say("begun")
            await asyncio.wait([attack, asyncio.create_task(ended.read())], return_when=asyncio.FIRST_COMPLETED)
            if attack.done():
                attack.result()
            seconds = time.monotonic() - began
            done = {"seconds": seconds, "most": self.most_under_way, "answers": dict(self.answers)}
            attack.cancel()
            await asyncio.gather(attack, return_exceptions=True)
        return done


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m tests.faults.attackers", description=__doc__)
    found.add_argument("kind", choices=("unsigned", "head", "refresh", "read"))
    found.add_argument("--port", type=int, required=True)
    found.add_argument("--topic", required=True)
    found.add_argument("--merchant", required=True)
    found.add_argument("--token", required=True)
    found.add_argument("--addresses", type=int, required=True)
    found.add_argument("--width", type=int, required=True)
    found.add_argument("--rate", type=float, required=True)
    return found


def main() -> None:
    """Attack, and say what was done."""
    chosen = vars(parser().parse_args())
    kind = chosen.pop("kind")
    crowd = Crowd(**chosen)
    acts = {"unsigned": crowd.unsigned, "head": crowd.head, "refresh": crowd.refresh, "read": crowd.read}
    say(json.dumps(asyncio.run(crowd.run(acts[kind]))))


if __name__ == "__main__":
    main()
