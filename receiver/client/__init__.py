"""Edge: the web. A typed, asynchronous client of a running service, for other Python programs and for the commands.

    async with Client("https://refunds.example", token=token) as client:
        refund = await client.wait("S01-5105180-3221187-R022311")

What it returns are the types that the service encodes. Fields that this version does not know are ignored.
"""

from receiver.client.client import Client, Issued
from receiver.client.errors import ApiProblem, ClientClosed, EventsLost
from receiver.client.feed import FeedEvent
from receiver.errors import ConfigurationError, ReceiverError, TransportError
from receiver.http.api.schema import PendingRequestJson
from receiver.http.feed.schema import ResetJson
from receiver.ledger.schema import MoneyJson, RefundJson
from receiver.outbox.events.balance_event import BalanceEventJson
from receiver.outbox.events.dispute_event import DisputeEventJson
from receiver.outbox.events.envelope import CloudEventJson
from receiver.outbox.formats.cloudevents import AdvisedRefundJson, RefundEventJson

__all__ = [
    "AdvisedRefundJson",
    "ApiProblem",
    "BalanceEventJson",
    "Client",
    "ClientClosed",
    "CloudEventJson",
    "ConfigurationError",
    "DisputeEventJson",
    "EventsLost",
    "FeedEvent",
    "Issued",
    "MoneyJson",
    "PendingRequestJson",
    "ReceiverError",
    "RefundEventJson",
    "RefundJson",
    "ResetJson",
    "TransportError",
]
