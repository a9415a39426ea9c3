"""HTTP. The complete stand-in for Amazon Pay: `Simulator`, for the demo, the tests and `receiver simulate`."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from receiver.runtime.serving import Server
from receiver.simulator.amounts import Amount
from receiver.simulator.api import Api, on_http_exception
from receiver.simulator.bank import Charge, Refund
from receiver.simulator.control import Control
from receiver.simulator.engine import Engine, SimulatorConfig
from receiver.simulator.fps.api import Fps
from receiver.simulator.fps.book import FpsRefund
from receiver.simulator.keys import Keys, make_keys
from receiver.simulator.notifications.forgeries import Forgery
from receiver.simulator.notifications.sender import Posted, Sender
from receiver.simulator.outcomes import Outcome
from receiver.simulator.reports.api import ReportsApi
from receiver.simulator.reports.control import ReportsControl
from receiver.transport.client import Transport

GRACE = 2


def system_clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Simulator:
    """One merchant's Amazon Pay in one environment, on its own socket.

        async with Simulator(post_to="http://127.0.0.1:8000/ipn") as amazon:
            refund_id = amazon.start_refund("12.00", "USD", outcome="AmazonRejected")

    `now` (ms), `random` ([0, 1)) and `sleep` can be injected.

    - `post_to`: where notifications are posted; None only logs them. It can be set later.
    - `transport`: posts them; by default the simulator creates its own and closes it.
    - `settings`: those of `SimulatorConfig`.

    Raises ValueError for settings that contradict each other; `start` raises OSError if the address is in use.
    """

    def __init__(
        self,
        *,
        now: Callable[[], int] = system_clock,
        random: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        post_to: str | None = None,
        transport: Sender | None = None,
        keys: Keys | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        **settings: Any,
    ) -> None:
        config = SimulatorConfig(**settings)
        self._owned = [] if transport else [Transport()]
        sender = transport or self._owned[0]
        self._engine = engine = Engine(config, keys or make_keys(now()), sender, post_to, now, random, sleep)
        self.app = _app(engine)
        self.region, self.environment = config.region, config.environment
        self.merchant_id, self.public_key_id = config.merchant_id, config.public_key_id
        self.merchant_private_key_pem = engine.keys.merchant_private_key_pem
        self.topic_arn, self.certificate_url = engine.topic_arn, engine.certificate_url
        self.certificate_pem = engine.keys.signing.pem
        self.charges: Mapping[str, Charge] = engine.bank.charges
        self.refunds: Mapping[str, Refund] = engine.bank.refunds
        """By id, with their true states."""
        self.fps_refunds: Sequence[FpsRefund] = engine.fps_book.refunds
        self.posted, self.calls = engine.sender.posted, engine.calls
        """Every attempt to post a notification, and every API call answered: the last 10,000, the oldest first."""
        self.fault_injection, self.disputes, self.reports = engine.fault_injection, engine.disputes, engine.reports
        self._host, self._port = host, port
        self._server: Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Simulator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen and advance time. Returns once the socket answers; raises OSError if the address is in use."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.create_server((self._host, self._port), family=family, backlog=512)
        self._port = listening.getsockname()[1]
        config = uvicorn.Config(
            self.app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        self._server = Server(config)
        serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        answering = asyncio.create_task(self._server.answering.wait())
        await asyncio.wait([serving, answering], return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        self._tasks = [serving, asyncio.create_task(self._engine.run())]

    async def stop(self) -> None:
        """Abort what is in progress, and close every socket."""
        await self._engine.close()
        if self._server is not None:
            serving, ticking = self._tasks
            self._server.should_exit = True
            ticking.cancel()
            await asyncio.gather(serving, ticking, return_exceptions=True)
            self._server = None
        for transport in self._owned:
            await transport.close()

    async def serve_until(self, ended: asyncio.Event) -> None:
        """Run until `ended` is set; if something fails before that, raise its error."""
        waiting = asyncio.create_task(ended.wait())
        done, _ = await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in done:
            task.result()

    @property
    def base_url(self) -> str:
        """The address it listens on, such as `http://127.0.0.1:49152`; the `endpoint` of the receiver's account."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def post_to(self) -> str | None:
        return self._engine.sender.url

    @post_to.setter
    def post_to(self, url: str | None) -> None:
        self._engine.sender.url = url

    @property
    def fps_endpoint(self) -> str:
        """The endpoint of the legacy Flexible Payments Service."""
        return f"{self.base_url}/fps/"

    @property
    def fps_post_to(self) -> str | None:
        """Where status notifications of Flexible Payments are posted; None until it is set."""
        return self._engine.fps_sender.url

    @fps_post_to.setter
    def fps_post_to(self, url: str | None) -> None:
        self._engine.fps_sender.url = url

    def set_balance(self, state: str) -> None:
        """The merchant account's: `negative` (refunds that start are AmazonRejected) or `repaid`; else ValueError."""
        self._engine.bank.set_balance(state)

    def start_refund(
        self, amount: str, currency: str, outcome: Outcome | str | None = None, charge_id: str | None = None
    ) -> str:
        """Start a refund as Seller Central would. Returns its id.

        Without `charge_id`, a new charge of that amount is refunded. Without `outcome`, the cents decide
        (`outcomes.py`). Raises `Fault` if Amazon's rules forbid the refund, ValueError for an unknown outcome.
        """
        chosen = Outcome(outcome) if outcome else None
        return self._engine.start_refund(Amount.read(amount, currency), chosen, charge_id).refund.refund_id

    def open_charge(self, amount: str, currency: str, *, state: str = "Captured", reference: str = "") -> str:
        """Make a charge. Returns its id."""
        return self._engine.open_charge(Amount.read(amount, currency), state=state, reference=reference).charge_id

    async def forge(self, kind: Forgery | str, refund_id: str | None = None) -> Posted:
        """Post a forged notification once. Returns the attempt with the answer."""
        return await self._engine.forge(Forgery(kind), refund_id)

    async def repeat(self, refund_id: str) -> Posted | None:
        """Post the last notification of a refund or dispute once more; None if it never had one."""
        return await self._engine.announcer.repeat(refund_id)

    def sign_with(self, version: int) -> None:
        """Sign notifications with signature version 1 or 2 from now on."""
        self._engine.announcer.sign_with(version)

    def tick(self) -> None:
        """Run everything that is due. Only needed if the simulator is not started."""
        self._engine.tick()

    async def idle(self) -> None:
        """Return once no notification is being posted or waiting for its next attempt."""
        await self._engine.sender.idle()
        await self._engine.fps_sender.idle()


def _app(engine: Engine) -> Starlette:
    """The ASGI app: the API, the control API, and the legacy Flexible Payments."""
    api = Api(engine)
    parts = (Control(engine), ReportsControl(engine), Fps(engine), api, ReportsApi(engine, api))
    routes = [route for part in parts for route in part.routes()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: on_http_exception})
    app.router.redirect_slashes = False
    return app
