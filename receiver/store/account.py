"""Edge: Redis. All repositories of an account, built once and bound to it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from receiver.runtime.rounds import ChangeSignal
from receiver.store.audit import AuditTrail
from receiver.store.dashboard import Overview
from receiver.store.deliveries.feed import Feed
from receiver.store.deliveries.subscribers import SubscriberRepository
from receiver.store.deliveries.upkeep import StreamRetention
from receiver.store.gauges import Gauges
from receiver.store.maintenance.pruning import Pruning
from receiver.store.maintenance.restored import Restored
from receiver.store.redis.base import AccountRepository, Connection, RedisRepository
from receiver.store.redis.keys import Keys
from receiver.store.redis.wakeups import News
from receiver.store.refunds.cases import OpenCases
from receiver.store.refunds.disputes import Disputes
from receiver.store.refunds.findings import Findings
from receiver.store.refunds.notifications import Notifications
from receiver.store.refunds.refunds import Refunds
from receiver.store.refunds.report_runs import ReportRuns
from receiver.store.refunds.schedule import RefundSchedule
from receiver.store.refunds.timeline import Timelines
from receiver.store.refunds.waves import Waves
from receiver.store.requests.fps_orders import FpsOrders
from receiver.store.requests.jobs import JobStore
from receiver.store.requests.known_charges import KnownCharges
from receiver.store.requests.open_requests import OpenRequestStore


class AccountStore(AccountRepository):
    """The data of one account: one repository for each kind."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        super().__init__(connection, keys)
        self.refunds = Refunds(connection, keys)
        self.schedule = RefundSchedule(connection, keys)
        self.report_runs = ReportRuns(connection, keys)
        self.timelines = Timelines(connection, keys)
        self.disputes = Disputes(connection, keys)
        self.findings = Findings(connection, keys)
        self.notifications = Notifications(connection, keys)
        self.requests = OpenRequestStore(connection, keys, self.refunds, self.findings)
        self.charges = KnownCharges(connection, keys, self.requests, self.disputes)
        self.fps = FpsOrders(connection, keys)
        self.jobs = JobStore(connection, keys)
        self.subscribers = SubscriberRepository(connection, keys)
        self.deliveries = StreamRetention(connection, keys, self.subscribers)
        self.waves = Waves(connection, keys)
        self.cases = OpenCases(connection, keys, self.refunds, self.subscribers)
        self.feed = Feed(connection, keys)
        self.audit = AuditTrail(connection, keys)
        self.dashboard = Overview(connection, keys, self.deliveries)
        self.gauges = Gauges(
            connection, keys, self.dashboard, self.subscribers, self.deliveries, self.requests, self.cases
        )
        self.pruning = Pruning(connection, keys, self.refunds, self.subscribers)
        self.restored = Restored(connection, keys, self.jobs, self.requests, self.fps)

    async def changed(self, timeout: float) -> None:
        """Return when data of the account was written, or after `timeout` seconds."""
        await self.connection.change_notifier.wait(self.account, timeout)

    def change_signal(self, kind: News = News.CHANGED) -> AbstractContextManager[ChangeSignal]:
        """A signal that is set whenever a change of this kind is written to the account."""
        return self.connection.change_notifier.change_signal(self.account, kind)


class AccountStores(RedisRepository):
    """The data of all accounts."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._bound: dict[str, AccountStore] = {}

    def of(self, account: str) -> AccountStore:
        if (found := self._bound.get(account)) is None:
            found = self._bound[account] = AccountStore(self.connection, Keys(account))
        return found
