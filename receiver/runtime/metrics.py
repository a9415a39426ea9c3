"""Edge: Prometheus. All counters, with closed sets of label values, so that no input can make the page grow.

A value outside its set is counted as `other`. The gauges hold what the store reports at the moment of the scrape.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from receiver.amazon.throttle import Call
from receiver.ledger.lifecycle import EventType
from receiver.ledger.notification import NotificationOutcome
from receiver.ledger.refund import FIELD_NAMES, Reason, Source, is_final
from receiver.outbox.events.dispute_event import DisputeEventType
from receiver.outbox.events.event import Recorded
from receiver.outbox.events.mismatch_event import MismatchEventType
from receiver.outbox.events.operator_event import OperatorType
from receiver.runtime.gauges import GAUGES, SIZES, Sizes
from receiver.runtime.tallies import CounterTally, HistogramTally, Tallies

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that makes several processes count in one folder; it must be set before this module is imported."""
CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_1_0_0
OTHER: Final = "other"

STORE_ERRORS: Final = frozenset(
    {
        *("full", "read_only", "loading", "not_persisting", "replicas_missing", "not_authenticated", "not_permitted"),
        *("cluster_down", "master_down", "resharding", "data_dir_gone", "format_unknown", "wrong_type", "timeout"),
        *("record_unreadable", "tls_expired", "tls_wrong_host", "tls_untrusted", "tls_failed", "unreachable", "error"),
    }
)

OUTCOMES: Final = frozenset(
    {*(outcome.value for outcome in NotificationOutcome), "refused", "unavailable", "dropped", "failed"}
)
"""`refused` is a 4xx, `unavailable` a 503, `dropped` no answer at all, `failed` a 500."""

REASONS: Final = frozenset(
    f"""
    unreadable not_json not_utf8 not_an_object too_deep bad_number duplicate_key field_spelling lone_surrogate
    raw_delivery header_mismatch bad_type bad_message bad_message_id bad_timestamp bad_topic_arn bad_subject bad_token
    bad_subscribe_url bad_signature_version bad_signature_encoding bad_signature_length bad_signing_cert_url
    notice_unreadable
    not_proven wrong_topic wrong_certificate_address unknown_region signature_version_too_low too_old dated_in_future
    bad_signature hash_forbidden
    certificate_unavailable certificate_not_found certificate_slow certificate_too_many certificate_not_as_named
    certificate_not_pem certificate_unreadable certificate_version certificate_weak_key certificate_is_ca
    certificate_wrong_use certificate_wrong_name certificate_dates stopping
    unconfigured unconfigured_topic unconfigured_merchant unconfigured_account confirmation_failed
    notification_unreadable no_fps fps_no_order
    too_large encoded method transfer_encoding body_timeout disconnected answer_timeout overloaded unavailable
    internal_error
    store_unavailable {" ".join(f"store_{kind}" for kind in STORE_ERRORS)}
    """.split()
) | {""}
"""Every reason for an answer on `/ipn`; empty for accepted notifications."""

CALLS: Final = frozenset({*Call, "fps_refund"})
ANSWERS: Final = frozenset(
    {
        *("ok", "unknown", "amazon_error", "amazon_refused", "amazon_not_found", "amazon_throttled", "amazon_unknown"),
        *("amazon_refuses_us", "amazon_date_refused"),
    }
)
FIELDS: Final = frozenset(
    {*FIELD_NAMES, "state", "statusDetails", "captureAmount", "refundedAmount", "chargePermissionId"}
    | {"merchantMetadata", "merchantReferenceId", "TransactionId"}
    | {"resolution", "disputeAmount", "filingReason", "merchantResponseDeadline"}
)
"""Fields of Amazon's answers that become null if they are unreadable."""
TRIED: Final = frozenset(
    {"done", "refused", "unclear", "again", "contradicted", "settled_done", "settled_not_issued", "repeated", "stopped"}
)
"""The outcomes of attempts to issue a refund, and of requests resolved by hand."""
DISPUTE_TYPES: Final = frozenset(each.value for each in DisputeEventType)
OPERATOR_TYPES: Final = frozenset(each.value for each in OperatorType)
DELIVERED: Final = frozenset({"delivered", "retry", "dead", "gone"})
METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
REASON_CODES: Final = frozenset({"", *(reason.value for reason in Reason)})
STATES: Final = frozenset({"Refunded", "Declined"})

FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
SLOW: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
AGES: Final = (0.5, 1, 2, 5, 15, 60, 300, 900, 3600, 6 * 3600, 86400, 7 * 86400, 15 * 86400)


def bounded(value: str, allowed: Iterable[str]) -> str:
    """The value if it is one of `allowed`, else `other`."""
    return value if value in allowed else OTHER


class Metrics:
    """All counters of one process, in its own registry."""

    def __init__(self) -> None:
        self.registry = Tallies(shared=FOLDER in os.environ)
        self._notifications = self._counter("notifications", "Notifications handled.", "outcome", "reason")
        self._age = self._histogram("notification_age_seconds", "From Amazon's signature to the receiver.", AGES)
        self._answer = self._histogram("ipn_answer_seconds", "From the request to our answer.", FAST)
        self._amazon_calls = self._counter("amazon_requests", "Calls of Amazon's API.", "call", "outcome")
        self._unread_fields = self._counter(
            "amazon_fields_unread", "Unreadable fields in Amazon's answers.", "call", "field"
        )
        self._amazon_seconds = self._histogram("amazon_request_seconds", "Duration of a call of Amazon's API.", SLOW)
        self._final = self._counter("refunds_final", "Refunds that became final.", "state", "reason", "found_by")
        self._hint_to_state = self._histogram("hint_to_state_seconds", "From a hint to the state it led to.", AGES)
        self._final_after = self._histogram(
            "notification_to_final_seconds", "From a notification to the final state that it led to.", AGES
        )
        self._events = self._counter("events", "Events written, without those of old refunds.", "type")
        self._backfill_events = self._counter(
            "events_backfill", "Events of refunds that were final long before we saw them.", "type"
        )
        self._deliveries = self._counter("deliveries", "Attempts to deliver an event.", "outcome")
        self._delivery_seconds = self._histogram("delivery_seconds", "Duration of one attempt to deliver.", SLOW)
        self._refund_attempts = self._counter(
            "refund_tries", "Attempts to issue refunds; requests resolved by hand.", "outcome"
        )
        self._operator_events = self._counter("operator_events", "Operator events published.", "type")
        self._dead_dropped = self._counter("dead_events_dropped", "Dead events dropped because of the limit.")
        self._reconcile_runs = self._counter("reconcile_runs", "Comparisons with Amazon's reports.", "outcome")
        self._hints_dropped = self._counter("hints_dropped", "Notified refunds that Amazon does not know.")
        self._refunds_lost = self._counter("refunds_lost", "Notified refunds that no account finds at Amazon.")
        self._store_errors = self._counter("store_errors", "Commands that Redis did not confirm.", "kind")
        self._unreadable = self._counter("store_unreadable_records", "Damaged records found.", "kind")
        self._requests = self._counter("http_requests", "Requests answered.", "route", "method", "status")
        self._feed_clients = Gauge(
            "receiver_feed_clients", "Clients of the feed.", registry=self.registry, multiprocess_mode="livesum"
        )
        self._feed_events = self._counter("feed_events", "Events sent to clients of the feed.", "form")
        self._feed_cut = self._counter("feed_clients_cut", "Clients of the feed that were cut off for being too slow.")
        self._reloads = self._counter("settings_reloads", "Settings read again after SIGHUP.", "outcome")
        self._sizes = Sizes()
        self.registry.register(self._sizes)

    def _counter(self, name: str, about: str, *labels: str) -> CounterTally:
        return self.registry.counter(f"receiver_{name}", about, *labels)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> HistogramTally:
        return self.registry.histogram(f"receiver_{name}", about, buckets)

    def notification(self, outcome: str, reason: str, seconds: float, age_ms: int | None = None) -> None:
        """A notification was handled in `seconds`; `age_ms` only for accepted ones."""
        self._notifications.inc(bounded(outcome, OUTCOMES), bounded(reason, REASONS))
        self._answer.observe(seconds)
        if age_ms is not None:
            self._age.observe(max(age_ms, 0) / 1000)

    def amazon_call(self, call: str, outcome: str, seconds: float) -> None:
        """Amazon's API was called; `outcome` is `ok` or an error's reason."""
        known = outcome if outcome in ANSWERS else "amazon_unknown" if outcome.startswith("amazon_") else OTHER
        self._amazon_calls.inc(bounded(call, CALLS), known)
        self._amazon_seconds.observe(seconds)

    def unread_field(self, call: str, field: str) -> None:
        """A field of Amazon's answer was unreadable; `field` is Amazon's name for it."""
        self._unread_fields.inc(bounded(call, CALLS), bounded(field, FIELDS))

    def observation(self, settled: Recorded, source: Source, hinted_at: int, now: int) -> None:
        """An observation was recorded; `hinted_at` (ms) is 0 if no hint led to it."""
        known, refund = settled.change.known, settled.change.refund
        counter = self._backfill_events if refund.backfill else self._events
        for event in settled.events:
            counter.inc(bounded(event.type, EventType))
        if refund.backfill:
            return
        if is_final(refund.state) and (known is None or known.state != refund.state):
            reason = bounded(refund.reason_code, REASON_CODES)
            self._final.inc(bounded(refund.state, STATES), reason, bounded(source, Source))
            if hinted_at and source is Source.NOTIFICATION:
                self._final_after.observe(max(now - hinted_at, 0) / 1000)
        if hinted_at:
            self._hint_to_state.observe(max(now - hinted_at, 0) / 1000)

    def dispute_event(self, kind: str) -> None:
        """A dispute event was written; `kind` is its type."""
        self._events.inc(bounded(kind, DISPUTE_TYPES))

    def mismatch_event(self) -> None:
        """A new finding was written, with its event."""
        self._events.inc(MismatchEventType.MISMATCH)

    def reconcile_run(self, outcome: str) -> None:
        """Amazon's reports were fetched and compared: `complete`, or `failed`."""
        self._reconcile_runs.inc(outcome)

    def hint_dropped(self, *, is_lost: bool = False) -> None:
        """Amazon does not know the refund that a hint named. `is_lost`: a notification did, and no account knows it."""
        self._hints_dropped.inc()
        if is_lost:
            self._refunds_lost.inc()

    def delivery_attempt(self, outcome: str, seconds: float) -> None:
        """An attempt to deliver ended: delivered, retry, dead or gone."""
        self._deliveries.inc(bounded(outcome, DELIVERED))
        self._delivery_seconds.observe(seconds)

    def refund_attempt(self, outcome: str) -> None:
        """An attempt to issue a refund ended, or a request was resolved by hand."""
        self._refund_attempts.inc(bounded(outcome, TRIED))

    def operator_event(self, kind: str) -> None:
        """An operator event was published; `kind` is its type."""
        self._operator_events.inc(bounded(kind, OPERATOR_TYPES))

    def dead_dropped(self, count: int) -> None:
        """Dead events beyond the limit were dropped."""
        self._dead_dropped.inc(by=count)

    def store_error(self, kind: str) -> None:
        """Redis did not confirm; `kind` is an error code."""
        self._store_errors.inc(bounded(kind, STORE_ERRORS))

    def record_unreadable(self, kind: str) -> None:
        """A damaged record was found; `kind` is the kind of its key in the catalogue, or empty."""
        self._unreadable.inc(kind or OTHER)

    def request(self, route: str, method: str, status: int) -> None:
        """A request was answered; `route` is the path's template, never the path."""
        self._requests.inc(route, bounded(method, METHODS), str(status))

    def feed_clients(self, change: int) -> None:
        """The number of clients of the feed changed."""
        self._feed_clients.inc(change)

    def feed_events(self, form: str, events: int) -> None:
        """Events were sent to a client of the feed; `form` is sse or json."""
        self._feed_events.inc(bounded(form, ("sse", "json")), by=events)

    def feed_cut(self) -> None:
        """A client of the feed was disconnected because it was too slow."""
        self._feed_cut.inc()

    def settings_reloaded(self, outcome: str) -> None:
        """The settings were read again: `ok`, or `failed` if they are invalid."""
        self._reloads.inc(bounded(outcome, ("ok", "failed")))

    def gauges(self, sizes: Mapping[str, Mapping[str, float]], ends_in: Mapping[str, float] | None = None) -> None:
        """Set the gauges: the store's sizes of each account, and the seconds left of each certificate file."""
        found: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in GAUGES}
        for account, values in sizes.items():
            for name, value in values.items():
                kind, _, part = name.partition(":")
                if kind in SIZES:
                    found[SIZES[kind][0]][(account, part) if part else (account,)] = value
        for file, seconds in (ends_in or {}).items():
            found["certificate_remaining_seconds"][(file,)] = seconds
        self._sizes.values = found

    def render(self) -> bytes:
        """The page for Prometheus, for all processes that share a folder."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        self.registry.hand_over()
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client has no types here
        registry.register(self._sizes)
        return generate_latest(registry)


def process_died(folder: str, pid: int) -> None:
    """Remove the live gauges of a process that ended; its counters stay."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]  # prometheus_client has no types here
