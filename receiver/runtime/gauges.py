"""Edge: Prometheus. The gauges: sizes that the store reports at the moment of a scrape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

GAUGES: Final[Mapping[str, tuple[str, ...]]] = {
    "refunds_pending": ("Refunds that are not final.", "account"),
    "refunds_pending_unchanged": ("Those of them that have not changed for longer.", "account", "longer_than"),
    "refunds_due": ("Refunds that are scheduled to be polled.", "account"),
    "refunds_hinted": ("Refunds to poll at once because of a notification.", "account"),
    "refunds_refreshed": ("Refunds to poll because a refresh was requested.", "account"),
    "refunds_second_looks": ("Final refunds that Amazon will be asked about again.", "account"),
    "oldest_pending_seconds": ("Age of the oldest pending refund.", "account"),
    "stuck_after_seconds": ("How long a refund may be pending before it is stuck.", "account"),
    "declines_open": ("Declined refunds whose case is open.", "account", "reason"),
    "declines_open_amount": ("The sum of their amounts, in units of the currency.", "account", "currency"),
    "oldest_open_decline_seconds": ("How long the oldest case of a declined refund has been open.", "account"),
    "decline_overdue_after_seconds": ("How long such a case may stay open before it is overdue.", "account"),
    "findings_open": ("Differences from Amazon's reports that are not explained yet.", "account", "finding"),
    "reconcile_failed": ("1 while the last comparison with Amazon's reports has failed.", "account"),
    "deliveries_waiting": ("Events owed to a subscriber.", "account", "subscriber"),
    "deliveries_owed": ("Events that must stay in the stream.", "account", "subscriber"),
    "deliveries_dead": ("Events that failed permanently for a subscriber.", "account", "subscriber"),
    "refund_requests": ("Refund requests that are open.", "account", "state"),
    "oldest_refund_request_seconds": ("How long the oldest of them has been in this state.", "account", "state"),
    "job_paused": ("1 while a job that reissues refunds is paused: a person has to decide.", "account"),
    "disputes_to_answer": ("Disputes that Amazon waits for the merchant to answer.", "account"),
    "dispute_answer_seconds": ("Time left to answer the next of them.", "account"),
    "oldest_waiting_seconds": ("Age of the oldest waiting event.", "account", "subscriber"),
    "subscriber_failures": ("Failures in a row; from 5 on, messages are sent one at a time.", "account", "subscriber"),
    "subscriber_paused": ("1 while the subscriber is paused.", "account", "subscriber"),
    "subscribers": ("Subscribers, with one delivery queue each.", "account"),
    "store_wrong_type_keys": ("Keys of the store with the wrong type.", "account"),
    "events_kept": ("Events in the stream.", "account"),
    "certificate_remaining_seconds": ("Until a signing certificate expires.", "file"),
}
SIZE_GAUGES: Final = {
    "pending": "refunds_pending",
    "pending_unchanged": "refunds_pending_unchanged",
    "due": "refunds_due",
    "hinted": "refunds_hinted",
    "refreshed": "refunds_refreshed",
    "second_looks": "refunds_second_looks",
    "oldest_pending_seconds": "oldest_pending_seconds",
    "stuck_after_seconds": "stuck_after_seconds",
    "declines": "declines_open",
    "declines_amount": "declines_open_amount",
    "oldest_decline_seconds": "oldest_open_decline_seconds",
    "decline_overdue_after_seconds": "decline_overdue_after_seconds",
    "findings": "findings_open",
    "reconcile_failed": "reconcile_failed",
    "waiting": "deliveries_waiting",
    "owed": "deliveries_owed",
    "dead": "deliveries_dead",
    "requests": "refund_requests",
    "request_age": "oldest_refund_request_seconds",
    "job_paused": "job_paused",
    "to_answer": "disputes_to_answer",
    "answer_seconds": "dispute_answer_seconds",
    "oldest_waiting": "oldest_waiting_seconds",
    "failures": "subscriber_failures",
    "paused": "subscriber_paused",
    "lanes": "subscribers",
    "events": "events_kept",
    "wrong_type_keys": "store_wrong_type_keys",
}
"""The store's names → our gauges. After a `:` follows a subscriber's name or a state."""


class Sizes:
    """The gauges of the store's sizes. They are the same in every process, so they are not summed."""

    def __init__(self) -> None:
        self.values: Mapping[str, Mapping[tuple[str, ...], float]] = {}

    def describe(self) -> Iterable[Metric]:
        """All gauges, without values."""
        return [
            GaugeMetricFamily(f"receiver_{name}", about, labels=labels) for name, (about, *labels) in GAUGES.items()
        ]

    def collect(self) -> Iterable[Metric]:
        """All gauges, as they were last set."""
        for name, (about, *labels) in GAUGES.items():
            family = GaugeMetricFamily(f"receiver_{name}", about, labels=labels)
            for values, number in self.values.get(name, {}).items():
                family.add_metric(list(values), number)
            yield family
