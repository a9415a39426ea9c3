"""Edge: Prometheus. The gauges: sizes that the store reports at the moment of a scrape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

SIZES: Final[Mapping[str, tuple[str, ...]]] = {
    "pending": ("refunds_pending", "Refunds that are not final."),
    "pending_unchanged": (
        "refunds_pending_unchanged",
        "Those of them that have not changed for longer.",
        "longer_than",
    ),
    "due": ("refunds_due", "Refunds that are scheduled to be polled."),
    "hinted": ("refunds_hinted", "Refunds to poll at once because of a notification."),
    "refreshed": ("refunds_refreshed", "Refunds to poll because a refresh was requested."),
    "second_looks": ("refunds_second_looks", "Final refunds that Amazon will be asked about again."),
    "oldest_pending_seconds": ("oldest_pending_seconds", "Age of the oldest pending refund."),
    "stuck_after_seconds": ("stuck_after_seconds", "How long a refund may be pending before it is stuck."),
    "declines": ("declines_open", "Declined refunds whose case is open.", "reason"),
    "declines_amount": ("declines_open_amount", "The sum of their amounts, in units of the currency.", "currency"),
    "oldest_decline_seconds": (
        "oldest_open_decline_seconds",
        "How long the oldest case of a declined refund has been open.",
    ),
    "decline_overdue_after_seconds": (
        "decline_overdue_after_seconds",
        "How long such a case may stay open before it is overdue.",
    ),
    "findings": ("findings_open", "Differences from Amazon's reports that are not explained yet.", "finding"),
    "reconcile_failed": ("reconcile_failed", "1 while the last comparison with Amazon's reports has failed."),
    "waiting": ("deliveries_waiting", "Events owed to a subscriber.", "subscriber"),
    "owed": ("deliveries_owed", "Events that must stay in the stream.", "subscriber"),
    "dead": ("deliveries_dead", "Events that failed permanently for a subscriber.", "subscriber"),
    "requests": ("refund_requests", "Refund requests that are open.", "state"),
    "request_age": ("oldest_refund_request_seconds", "How long the oldest of them has been in this state.", "state"),
    "job_paused": ("job_paused", "1 while a job that reissues refunds is paused: a person has to decide."),
    "to_answer": ("disputes_to_answer", "Disputes that Amazon waits for the merchant to answer."),
    "answer_seconds": ("dispute_answer_seconds", "Time left to answer the next of them."),
    "oldest_waiting": ("oldest_waiting_seconds", "Age of the oldest waiting event.", "subscriber"),
    "failures": ("subscriber_failures", "Failures in a row; from 5 on, messages are sent one at a time.", "subscriber"),
    "paused": ("subscriber_paused", "1 while the subscriber is paused.", "subscriber"),
    "lanes": ("subscribers", "Subscribers, with one delivery queue each."),
    "wrong_type_keys": ("store_wrong_type_keys", "Keys of the store with the wrong type."),
    "events": ("events_kept", "Events in the stream."),
}
"""The store's name of a size → the gauge, what it says, and its label beside `account`, whose value follows a `:` in
the store's name."""
GAUGES: Final[Mapping[str, tuple[str, ...]]] = {
    **{name: (about, "account", *labels) for name, about, *labels in SIZES.values()},
    "certificate_remaining_seconds": ("Until a signing certificate expires.", "file"),
}
"""The gauge → what it says, and its labels."""


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
