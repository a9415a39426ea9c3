"""Edge: Redis. All repositories of a store, built once over one connection."""

from __future__ import annotations

from collections.abc import Callable

from receiver.store.deliveries.feed import Feed
from receiver.store.deliveries.subscribers import SubscriberRepository
from receiver.store.deliveries.upkeep import StreamRetention
from receiver.store.redis.base import Connection, RedisRepository
from receiver.store.refunds.disputes import Disputes
from receiver.store.refunds.notifications import Notifications
from receiver.store.refunds.refunds import Refunds
from receiver.store.refunds.schedule import RefundSchedule
from receiver.store.refunds.timeline import Timelines
from receiver.store.requests.fps_orders import FpsOrders
from receiver.store.requests.known_charges import KnownCharges
from receiver.store.requests.open_requests import OpenRequestStore


class Repositories(RedisRepository):
    """One repository for each kind of data."""

    def __init__(self, connection: Connection, on_dropped: Callable[[int], None] = lambda count: None) -> None:
        super().__init__(connection)
        self.refunds = Refunds(connection)
        self.schedule = RefundSchedule(connection)
        self.timelines = Timelines(connection)
        self.disputes = Disputes(connection)
        self.notifications = Notifications(connection)
        self.requests = OpenRequestStore(connection, self.refunds)
        self.charges = KnownCharges(connection, self.requests, self.disputes)
        self.fps = FpsOrders(connection)
        self.subscribers = SubscriberRepository(connection)
        self.deliveries = StreamRetention(connection, self.subscribers, on_dropped)
        self.feed = Feed(connection)
