"""Builds everything once and runs it: store, workers and HTTP application. Used by `serve`, `work` and `demo`."""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial

import structlog

from receiver.amazon.account import Account
from receiver.amazon.clock import HostClocks
from receiver.deliver.configured import ConfiguredSubscribers
from receiver.deliver.dispatcher import Deliverer
from receiver.deliver.retention import Retention
from receiver.errors import StoreUnavailable, Unavailable
from receiver.http.api.auth import Tokens
from receiver.http.api.diagnostics import DiagnosticsSource
from receiver.http.app import build
from receiver.http.dashboard.sessions import Sessions
from receiver.http.middleware import Application
from receiver.issue.fps import FpsIssuer
from receiver.issue.issuer import Issuer
from receiver.issue.jobs import Jobs
from receiver.ledger.timestamps import milliseconds
from receiver.receive.certificates import CertificateStore
from receiver.receive.confirmation import confirm
from receiver.receive.receiver import Receiver
from receiver.runtime.metrics import Metrics
from receiver.runtime.supervisor import Workers
from receiver.settings import Settings
from receiver.store import Store
from receiver.store.embedded.store import EmbeddedStore
from receiver.store.gauges import Gauges, alerting_words, measure_each
from receiver.store.redis.address import read_address
from receiver.store.redis.client import link
from receiver.store.redis.damage import KeysDamaged
from receiver.track.amazon_client import AmazonClient
from receiver.track.disputes import DisputeTracker
from receiver.track.record import Recorder
from receiver.track.report_run import daily_reconciliation
from receiver.track.tracker import Tracker
from receiver.transport.client import Transport

log = structlog.get_logger()


def system_clock() -> int:
    """The machine's own clock, ms since the epoch, UTC."""
    return time.time_ns() // 1_000_000


class Service:
    """One process of the installation. Call `start` before use; `stop` may be called at any time after that."""

    def __init__(
        self,
        settings: Settings,
        *,
        workers: bool = True,
        random: Callable[[], float] = random.random,
        now: Callable[[], int] = system_clock,
    ) -> None:
        self.settings = settings
        self.accounts = settings.build_accounts()
        self.metrics = Metrics()
        self._workers, self._random, self._now = workers, random, now
        self.kept = Workers()
        self._clocks = HostClocks()
        self._opened = contextlib.AsyncExitStack()
        self.embedded: EmbeddedStore | None = None
        self.store: Store
        self.transport: Transport
        self.certificates: CertificateStore
        self.receiver: Receiver
        self._configured: ConfiguredSubscribers
        self._tokens: Tokens | None = None
        self._amazon_clients: list[AmazonClient] = []
        self.issuers: dict[str, Issuer] = {}
        self.fps_issuers: dict[str, FpsIssuer]

    async def start(self) -> None:
        """Open the store and start the workers.

        A configured Redis may still be down; until it is up, notifications get 503. Raises `ConfigurationError` if the
        store's data is of a newer version, and that or `StoreUnavailable` if the embedded store cannot be started.
        """
        settings, ingest = self.settings, self.settings.ingest
        await self._open_store()
        self.transport = Transport(allow_networks=settings.delivery.allow_networks)
        self._opened.push_async_callback(self.transport.close)
        self.certificates = CertificateStore(
            self.transport.fetch_certificate,
            self._now,
            pinned={url: pem for account in self.accounts for url, pem in account.signing_certificates.items()},
            md5=ingest.certificate_md5,
            seal_keys=[account.signer.derived_key("certificate seals") for account in self.accounts],
        )
        self._opened.push_async_callback(self.certificates.close)
        with contextlib.suppress(StoreUnavailable):
            await self.certificates.sync(self.store)
        self.receiver = Receiver(
            self.accounts,
            self.certificates,
            self.store,
            self._now,
            past_ms=milliseconds(ingest.max_age),
            future_ms=milliseconds(ingest.max_future),
            confirm=partial(confirm, self.transport) if ingest.confirm_subscriptions else None,
        )
        self.issuers = {account.name: self._issuer(account) for account in self.accounts}
        self.fps_issuers = {account.name: self._fps_issuer(account) for account in self.accounts}
        self._opened.push_async_callback(self.kept.stop)
        self._start_workers()

    async def _open_store(self) -> None:
        settings, ingest, redis = self.settings, self.settings.ingest, self.settings.redis
        address = redis.address
        if address is None:
            self.embedded = EmbeddedStore(settings.data_dir)
            self._opened.push_async_callback(self.embedded.stop)
            address = read_address(await self.embedded.start())
        self.store = Store(
            link(address, timeout=redis.timeout.total_seconds(), connect_timeout=redis.connect_timeout.total_seconds()),
            wait_replicas=redis.wait_replicas,
            wait_timeout=redis.wait_timeout.total_seconds(),
            on_error=self.metrics.store_error,
            address=address.without_secrets,
            on_dropped=self.metrics.dead_dropped,
            on_record=self.metrics.record_unreadable,
            gone=lambda: self.embedded is not None and self.embedded.gone,
        )
        self._opened.push_async_callback(self.store.close)
        self._recorder = Recorder(self.store, self._random, declared=True)
        self.store.connection.accounts = [account.name for account in self.accounts]
        for account in self.accounts:
            self.store.of(account.name).charges.over = account.over
        self.store.connection.tracked_for = milliseconds(settings.track.open_if_younger)
        self.store.connection.keep_dead = settings.delivery.keep_dead
        self.store.connection.seen_for = milliseconds(ingest.max_age + ingest.max_future + timedelta(days=1))
        await self.store.start()
        self.store.format.hold_writes()
        with contextlib.suppress(StoreUnavailable):
            await self.store.format.ensure()

    async def stop(self) -> None:
        """Close everything in reverse order, continuing if one part fails."""
        await self._opened.aclose()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        """The service, started; it is stopped at the end."""
        try:
            await self.start()
            yield self
        finally:
            await self.stop()

    def reload(self, settings: Settings) -> None:
        """Apply new tokens, subscribers and secrets of accounts. All other settings must be unchanged."""
        accounts = {account.name: account for account in settings.build_accounts()}
        subscribers = settings.build_subscribers(self._now())
        self.settings = settings
        if self._tokens is not None:
            self._tokens.replace(settings.tokens)
        self._configured.declare(subscribers, settings.subscriber_starts())
        for client in self._amazon_clients:
            client.account = accounts[client.account.name]

    def app(self, sessions: Sessions | None = None) -> Application:
        """The HTTP application of a started service; `sessions` are the dashboard's, by default in memory."""
        app = build(
            self.settings,
            receiver=self.receiver,
            store=self.store,
            metrics=self.metrics,
            now=self.store.now,
            checks={"store": self._check_store, "subscribers": self._check_subscribers, "workers": self.kept.check},
            refresh_gauges=self._refresh_gauges,
            advisory_checks={"clock": self._check_clock, "keys": self._check_keys},
            alerting=lambda: alerting_words(self._each_gauges()),
            issuers=self.issuers,
            fps_issuers=self.fps_issuers,
            inside=DiagnosticsSource(
                "embedded" if self.embedded else "redis", self.receiver, self.certificates, self.kept.states
            ),
            sessions=sessions,
        )
        self._tokens = app.tokens
        return app

    def _start_workers(self) -> None:
        self.kept.keep("format", self.store.format.keep_current)
        declared, starts = self.settings.build_subscribers(self._now()), self.settings.subscriber_starts()
        self._configured = ConfiguredSubscribers(self.store, declared, starts)
        self.kept.keep("subscribers", self._configured.run)
        self.kept.keep("keys", self.store.inspection.keep_checking_keys)
        self.kept.keep("certificates", partial(self.certificates.keep_synced, self.store))
        if not self._workers:
            return
        for account in self.accounts:
            once = partial(self._after_configured, account.name)
            self.kept.keep(f"track:{account.name}", partial(once, self._tracker(account).run))
            self.kept.keep(f"disputes:{account.name}", partial(once, self._dispute_tracker(account).run))
            if account.daily:
                client, send = self._amazon_client(account), self.transport.send
                daily = daily_reconciliation(client, send, self.metrics, account.daily)
                self.kept.keep(f"reconcile:{account.name}", partial(once, daily.run))
            self.kept.keep(f"issue:{account.name}", partial(once, self.issuers[account.name].run))
            self.kept.keep(f"jobs:{account.name}", partial(once, Jobs(self.issuers[account.name]).run))
            if self.fps_issuers[account.name].is_configured:
                self.kept.keep(f"fps:{account.name}", partial(once, self.fps_issuers[account.name].run))
            self.kept.keep(f"deliver:{account.name}", self._dispatcher(account).run)
            self.kept.keep(f"upkeep:{account.name}", partial(once, self._retention(account).run))

    async def _after_configured(self, account: str, work: Callable[[], Awaitable[None]]) -> None:
        """Waits until the configured subscribers are written, because they would not get events from before that."""
        await self._configured.ready(account)
        await work()

    def _tracker(self, account: Account) -> Tracker:
        track, observe_fps = self.settings.track, self.fps_issuers[account.name].observe
        how = (track.concurrency, track.lease.total_seconds(), observe_fps)
        return Tracker(self._amazon_client(account), self._recorder, self.metrics, self._random, *how)

    def _dispute_tracker(self, account: Account) -> DisputeTracker:
        lease = self.settings.track.lease.total_seconds()
        return DisputeTracker(self._amazon_client(account), self._recorder, self.metrics, lease)

    def _amazon_client(self, account: Account) -> AmazonClient:
        timeout, store = self.settings.track.request_timeout.total_seconds(), self.store.of(account.name)
        send, clocks = self.transport.send, self._clocks
        found = AmazonClient(account, store, send, self.metrics, self._now, timeout, clocks=clocks)
        self._amazon_clients.append(found)
        return found

    def _issuer(self, account: Account) -> Issuer:
        return Issuer(
            amazon_client=self._amazon_client(account),
            recorder=self._recorder,
            metrics=self.metrics,
            random=self._random,
            new_owner=lambda: secrets.token_hex(8),
            lease=self.settings.track.lease.total_seconds(),
            same_amount_within=milliseconds(self.settings.issue.same_amount_within),
        )

    def _fps_issuer(self, account: Account) -> FpsIssuer:
        new_owner, lease = partial(secrets.token_hex, 8), self.settings.track.lease.total_seconds()
        return FpsIssuer(self._amazon_client(account), self._recorder, self._random, new_owner, lease)

    def _dispatcher(self, account: Account) -> Deliverer:
        """Every account has its own share of the concurrent deliveries, so that none can use up the others'."""
        delivery = self.settings.delivery
        return Deliverer(
            store=self.store.of(account.name),
            send=self.transport.send,
            metrics=self.metrics,
            system_clock=self._now,
            random=self._random,
            concurrency=max(1, delivery.concurrency // len(self.accounts)),
            per_subscriber=delivery.per_subscriber,
            rate=delivery.rate,
            timeout=delivery.timeout.total_seconds(),
            connect_timeout=delivery.connect_timeout.total_seconds(),
            lease=delivery.lease.total_seconds(),
        )

    def _retention(self, account: Account) -> Retention:
        keep, keep_owed = (milliseconds(span) for span in (self.settings.events.keep, self.settings.events.keep_owed))
        lease = self.settings.delivery.lease.total_seconds()
        return Retention(self.store.of(account.name), self.metrics, keep, keep_owed, lease)

    async def _check_store(self) -> None:
        if self.embedded is not None and not self.embedded.healthy:
            raise StoreUnavailable("The embedded store is being restarted.", reason="store_restarting")
        if self.embedded is not None and self.embedded.gone:
            raise StoreUnavailable("The embedded store's folder was removed.", reason="store_data_dir_gone")
        await self.store.check_writes(account.name for account in self.accounts)

    async def _check_clock(self) -> None:
        """It is impossible to tell here which of the two clocks is wrong."""
        if abs(self._now() - self.store.now()) > milliseconds(self.settings.ingest.max_future):
            raise Unavailable("This machine's clock and Redis's differ.", reason="clock_differs")

    async def _check_keys(self) -> None:
        if foreign := await self.store.inspection.check_keys():
            raise KeysDamaged({each.key: f"{each.found or 'another type'}, not {each.should_be}" for each in foreign})

    async def _check_subscribers(self) -> None:
        # An account with damaged keys only blocks itself: `_check_keys` reports it.
        waiting = [account.name for account in self.accounts if not self._configured.written[account.name].is_set()]
        if len(waiting) == len(self.accounts) or set(waiting) - set(self._configured.blocked):
            raise Unavailable("The configured subscribers are not written yet.", reason="not_written_yet")

    async def _refresh_gauges(self) -> None:
        sizes = await measure_each(self._each_gauges())
        now = self._now()
        for account in self.accounts:
            if account.name in sizes:
                sizes[account.name] |= account.gauges
        ends_in = {each.name: (each.not_after - now) / 1000 for each in self.certificates.known()}
        self.metrics.gauges(sizes, ends_in)

    def _each_gauges(self) -> dict[str, Gauges]:
        return {account.name: self.store.of(account.name).gauges for account in self.accounts}
