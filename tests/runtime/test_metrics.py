"""What is counted, and that nothing from outside can make the page grow."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

import receiver
from receiver.ledger.lifecycle import decide
from receiver.ledger.refund import Observation, Source
from receiver.outbox.events.event import Recorded, event_of
from receiver.runtime.metrics import FAST, REASONS, STORE_ERRORS, Metrics
from receiver.runtime.tallies import Tallies
from receiver.store.redis.errors import KINDS
from receiver.store.redis.tls import TLS_KINDS


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The value of one sample; 0 where there is none."""
    return metrics.registry.get_sample_value(f"receiver_{name}", labels) or 0.0


def observed(state: str, reason: str = "") -> Observation:
    return Observation(refund_id="S01-1", state=state, updated_at=1_000, reason_code=reason)


def settled(state: str, reason: str = "") -> Recorded:
    """The result of recording an unknown refund in this state."""
    change = decide("us", None, observed(state, reason), source=Source.POLL, now=9_000)
    return Recorded(change, tuple(event_of(emission, change.refund, 9_000) for emission in change.emissions))


def test_notifications_are_counted_by_outcome_and_reason() -> None:
    """A refusal counts its reason; a believed one also its age in seconds."""
    metrics = Metrics()
    metrics.notification("refused", "bad_signature", 0.01)
    metrics.notification("noted", "", 0.01, age_ms=2_500)
    assert value(metrics, "notifications_total", outcome="refused", reason="bad_signature") == 1
    assert value(metrics, "notifications_total", outcome="noted", reason="") == 1
    assert value(metrics, "ipn_answer_seconds_count") == 2
    assert value(metrics, "notification_age_seconds_sum") == 2.5


def test_values_outside_the_sets_are_other() -> None:
    """A thousand words from outside are one sample."""
    metrics = Metrics()
    before = len(metrics.render())
    for number in range(1000):
        word = f"word{number}"
        metrics.notification(word, word, 0.0)
        metrics.amazon_call(word, word, 0.0)
        metrics.delivery_attempt(word, 0.0)
        metrics.store_error(word)
        metrics.request("/v1/refunds", word, 200)
        metrics.feed_events(word, 1)
        metrics.observation(settled("Declined", word), Source.POLL, 0, 0)
    assert value(metrics, "notifications_total", outcome="other", reason="other") == 1000
    assert value(metrics, "feed_events_total", form="other") == 1000
    assert value(metrics, "refunds_final_total", state="Declined", reason="other", found_by="poll") == 1000
    assert len(metrics.render()) < before + 10_000


def test_final_refunds_are_counted_once_they_are_final() -> None:
    """With state, reason and source. A pending one is not counted, and a final one not again."""
    metrics = Metrics()
    metrics.observation(settled("RefundInitiated"), Source.NOTIFICATION, 0, 9_000)
    metrics.observation(settled("Declined", "AmazonRejected"), Source.NOTIFICATION, 4_000, 9_000)
    final = {"state": "Declined", "reason": "AmazonRejected", "found_by": "notification"}
    assert value(metrics, "refunds_final_total", **final) == 1
    assert value(metrics, "events_total", type="amazonpay.refund.declined") == 1
    assert value(metrics, "events_total", type="amazonpay.refund.initiated") == 1
    assert value(metrics, "hint_to_state_seconds_sum") == 5.0


def test_the_way_from_a_notification_to_the_final_state_is_timed() -> None:
    """Only up to a final state, and not if a poll or a refresh found it."""
    metrics = Metrics()
    metrics.observation(settled("RefundInitiated"), Source.NOTIFICATION, 1_000, 9_000)
    metrics.observation(settled("Refunded"), Source.REFRESH, 1_000, 9_000)
    metrics.observation(settled("Refunded"), Source.POLL, 0, 9_000)
    metrics.observation(settled("Refunded"), Source.NOTIFICATION, 6_500, 9_000)
    assert value(metrics, "notification_to_final_seconds_count") == 1
    assert value(metrics, "notification_to_final_seconds_sum") == 2.5


def test_calls_of_amazon_are_counted() -> None:
    """Network trouble, whatever its word, is `amazon_unknown`."""
    metrics = Metrics()
    metrics.amazon_call("get_refund", "ok", 0.1)
    metrics.amazon_call("get_refund", "amazon_dns_failed", 0.1)
    assert value(metrics, "amazon_requests_total", call="get_refund", outcome="ok") == 1
    assert value(metrics, "amazon_requests_total", call="get_refund", outcome="amazon_unknown") == 1


def test_gauges_follow_the_store() -> None:
    """Each scrape shows what the store says now; what it no longer names is gone."""
    metrics = Metrics()
    metrics.gauges(
        {"us": {"pending": 3.0, "waiting:finance": 2.0, "dead:finance": 1.0, "events": 9.0}}, {"ab12": 2_635_200.0}
    )
    assert value(metrics, "refunds_pending", account="us") == 3
    assert value(metrics, "deliveries_waiting", account="us", subscriber="finance") == 2
    assert value(metrics, "certificate_remaining_seconds", file="ab12") == 2_635_200
    metrics.gauges({"us": {"pending": 1.0}})
    assert value(metrics, "refunds_pending", account="us") == 1
    assert (
        metrics.registry.get_sample_value("receiver_deliveries_dead", {"account": "us", "subscriber": "finance"})
        is None
    )


def test_the_page_is_prometheus_text() -> None:
    """Prometheus' own parser reads it, and every name is ours."""
    metrics = Metrics()
    metrics.request("/ipn", "POST", 200)
    families = list(text_string_to_metric_families(metrics.render().decode()))
    assert all(family.name.startswith("receiver_") for family in families)
    assert any(family.name == "receiver_http_requests" for family in families)


def test_registries_are_apart() -> None:
    """Two services in one process do not share counters."""
    one, other = Metrics(), Metrics()
    one.hint_dropped()
    assert (value(one, "hints_dropped_total"), value(other, "hints_dropped_total")) == (1, 0)


def reasons_in(path: Path) -> set[str]:
    """Every literal that is given as a `reason`."""
    words: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "reason" and isinstance(node.value, ast.Constant):
            words.add(str(node.value.value))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_take":
            last = node.args[-1]
            words |= {str(last.value)} if isinstance(last, ast.Constant) else set()
    return words


def test_every_trouble_of_redis_has_its_own_count() -> None:
    """The metrics stand below the store, so they repeat its words; none of the store's may hide in `other`."""
    assert {*KINDS.values(), *TLS_KINDS, "timeout", "unreachable", "error"} == STORE_ERRORS


PLACES = (
    *("amazon/sns", "amazon/notification.py", "amazon/dispute.py"),
    *("receive/receiver.py", "receive/certificates.py", "http/ipn/endpoint.py"),
)


@pytest.mark.parametrize("place", PLACES)
def test_every_reason_of_an_answer_has_its_own_count(place: str) -> None:
    """A reason that the code can give on /ipn is in the closed set, so that none hides in `other`."""
    root = Path(receiver.__file__).parent / place
    files = [root] if root.is_file() else sorted(root.glob("*.py"))
    words = {word for file in files for word in reasons_in(file)}
    assert words
    assert words - REASONS == set()
    assert all(re.fullmatch(r"[a-z0-9_]+", word) for word in words)


@given(st.lists(st.floats(0, 100)))
def test_a_tally_is_what_prometheus_would_have_counted(values: list[float]) -> None:
    """In every bucket, and in sum."""
    tallies, direct = Tallies(shared=False), CollectorRegistry()
    tally, histogram = tallies.histogram("x", "x", FAST), Histogram("x", "x", buckets=FAST, registry=direct)
    for value in values:
        tally.observe(value)
        histogram.observe(value)
    found, expected = (
        {
            (sample.name, *sample.labels.values()): sample.value
            for family in registry.collect()
            for sample in family.samples
        }
        for registry in (tallies, direct)
    )
    assert {key: value for key, value in found.items() if key[0] not in ("x_created", "x_sum")} == {
        key: value for key, value in expected.items() if key[0] not in ("x_created", "x_sum")
    }
    assert found["x_sum",] == pytest.approx(expected["x_sum",])


async def test_processes_that_share_a_folder_have_each_number_by_the_end_of_the_turn() -> None:
    """Any of them may be asked. Before, and without a shared folder, it is a plain number."""
    tallies = Tallies(shared=True)
    tally = tallies.counter("x", "x", "kind")
    tally.inc("a")
    tally.inc("a", by=2)
    assert tally._counts == {("a",): 3}
    await asyncio.sleep(0)
    assert tally._counts == {}
    assert tallies.get_sample_value("x_total", {"kind": "a"}) == 3
