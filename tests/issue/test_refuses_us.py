"""Amazon refuses every second request of any kind for ten minutes: nothing is lost, used up, or done twice.

The service's verbs run on the test's clock, a round of each worker every five seconds; Valkey and Amazon's stand-in are
on real sockets.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from receiver.amazon.calls import Endpoint, Region
from receiver.amazon.signing import Signer
from receiver.errors import AmazonRefusesUs
from receiver.issue.issuer import Issuer
from receiver.ledger.money import Money
from receiver.ledger.notification import Hint
from receiver.ledger.polling import PollPlan
from receiver.ledger.refund import Source
from receiver.ledger.refund_request import RefundRequest, RequestState
from receiver.runtime.metrics import Metrics
from receiver.simulator.app import Simulator
from receiver.simulator.outcomes import Outcome
from receiver.simulator.refusals import REFUSALS
from receiver.store import Store
from receiver.track.amazon_client import AmazonClient
from receiver.track.record import Recorder
from receiver.track.tracker import Tracker
from receiver.transport.client import Transport
from tests.deploy.tools import DEPLOY, run, tool
from tests.issue.kit import FAST
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.shared import keys
from tests.service.kit import one_round

STEP, MINUTE = 5_000, 60_000
OF_THE_REQUEST = [each for each in REFUSALS if each not in ("amount", "count", "charge")]


@dataclass
class Scene:
    """One process, and Amazon."""

    simulator: Simulator
    store: Store
    clock: ManualClock
    issuer: Issuer
    tracker: Tracker
    metrics: Metrics
    counts: dict[str, list[float]] = field(default_factory=dict)
    """The refused requests so far, minute by minute, by call."""

    async def pass_time(self, minutes: float) -> None:
        """Let the workers do what is due, every five seconds."""
        for number in range(int(minutes * MINUTE / STEP)):
            self.clock.tick(STEP)
            await one_round(self.issuer.worker().rounds, self.tracker.rounds)
            if (number + 1) * STEP % MINUTE == 0:
                self.note()

    def note(self) -> None:
        for call in ("get_refund", "get_charge", "create_refund"):
            labels = {"call": call, "outcome": "amazon_refuses_us"}
            found = self.metrics.registry.get_sample_value("receiver_amazon_requests_total", labels)
            self.counts.setdefault(call, []).append(found or 0.0)


@pytest.fixture
async def scene(store: Store, clock: ManualClock) -> AsyncIterator[Scene]:
    transport, metrics, numbers = Transport(), Metrics(), itertools.count()
    async with Simulator(now=clock, keys=keys(), throttle={}, outcome_delay=60.0) as simulator:
        account = make_account(
            endpoint=Endpoint(Region.NA, "sandbox", simulator.public_key_id, simulator.base_url),
            signer=Signer(simulator.public_key_id, simulator.merchant_private_key_pem),
            throttle=FAST,
            poll=PollPlan.parse(["1m", "every 1m"]),
        )
        amazon_client = AmazonClient(account, store.of(account.name), transport.send, metrics, clock, timeout=5.0)
        # Without jitter, two refunds in step would take turns: the one is always refused, the other never.
        jitter = Random(1).random
        recorder = Recorder(store, jitter)
        issuer = Issuer(amazon_client, recorder, metrics, jitter, lambda: str(next(numbers)))
        tracker = Tracker(amazon_client, recorder, metrics, jitter)
        try:
            yield Scene(simulator, store, clock, issuer, tracker, metrics)
        finally:
            await transport.close()


async def asked_for(scene: Scene, charge: str, key: str) -> None:
    """What a caller does: the same call again while the charge cannot be read."""
    for _ in range(4):
        try:
            await scene.issuer.create(RefundRequest(charge, Money.parse("14.00", "USD")), key)
        except AmazonRefusesUs:
            continue
        return
    raise AssertionError("every second request gets through")


async def ten_minutes(scene: Scene) -> tuple[dict[str, str], list[str]]:
    """Refunds are asked for and declined all the while. Returns the charges by key, and the declined refunds."""
    charges: dict[str, str] = {}
    declined: list[str] = []
    for number in range(10):
        scene.simulator.fault_injection.clear()
        kind = OF_THE_REQUEST[number % len(OF_THE_REQUEST)]
        scene.simulator.fault_injection.add("refuse", kind=kind, every=2, times=None)
        for part in range(3):
            key = f"refund-{number}-{part}"
            charges[key] = scene.simulator.open_charge("100.00", "USD")
            await asked_for(scene, charges[key], key)
        for outcome in (Outcome.AMAZON_REJECTED, Outcome.PROCESSING_FAILURE):
            refund_id = scene.simulator.start_refund("20.00", "USD", outcome)
            declined.append(refund_id)
        await scene.pass_time(1)
        # Amazon tells of those that it began a minute ago, and has declined by now.
        for refund_id in declined[-2:]:
            await scene.store.of("us").schedule.hint(
                Hint(refund_id=refund_id, at=scene.clock(), source=Source.NOTIFICATION)
            )
    return charges, declined


async def test_every_second_request_refused_for_ten_minutes(scene: Scene) -> None:
    charges, declined = await ten_minutes(scene)
    refused = [each for each in scene.simulator.calls if each.trick == "refuse"]
    assert len(refused) > 100
    assert 0.3 < len(refused) / len(scene.simulator.calls) < 0.6
    for _ in range(10):
        await scene.pass_time(2)
        states = [await state(scene, refund_id) for refund_id in declined]
        if set(states) == {"Declined"}:
            break
    assert states == ["Declined"] * len(declined), "it is known while Amazon still refuses"
    scene.simulator.fault_injection.clear()
    await scene.pass_time(16)
    for key, charge in charges.items():
        made = [each.refund_id for each in scene.simulator.refunds.values() if each.order.charge_id == charge]
        issued = await scene.issuer.create(RefundRequest(charge, Money.parse("14.00", "USD")), key)
        assert issued.refund is not None, "no key is used up"
        assert (made, issued.record.state) == ([issued.refund.refund_id], RequestState.DONE)
    assert [await state(scene, refund_id) for refund_id in declined] == states
    types = [event["type"] for _, event in await events(scene)]
    assert types.count("amazonpay.refund.declined") == len(declined)
    sizes = await scene.store.of("us").gauges.measure()
    assert (sizes["requests:reserved"], sizes["requests:unclear"]) == (0, 0)


async def state(scene: Scene, refund_id: str) -> str | None:
    known = await scene.store.of("us").refunds.get(refund_id)
    return known.state if known else None


async def events(scene: Scene) -> list[tuple[str, dict[str, str]]]:
    raw = await scene.store.connection.client.xrange("refunds:{us}:events")
    return [
        (place.decode(), {name.decode(): value.decode() for name, value in fields.items()}) for place, fields in raw
    ]


async def test_one_alert_fires_and_ends(scene: Scene, tmp_path: Path) -> None:
    """The counters of those minutes, judged by the rules that operators have."""
    promtool = tool("promtool")
    await scene.pass_time(2)
    await ten_minutes(scene)
    scene.simulator.fault_injection.clear()
    await scene.pass_time(40)
    name = 'receiver_amazon_requests_total{job="r",instance="a",call="%s",outcome="amazon_refuses_us"}'
    series = [
        {"series": name % call, "values": " ".join(f"{each:.0f}" for each in counts)}
        for call, counts in scene.counts.items()
    ]
    quiet, firing = [0, 1, 36, 45], list(range(3, 31))
    queries = [
        {
            "expr": 'count(ALERTS{alertname="ReceiverAmazonRefusesUs",alertstate="firing"}) or vector(0)',
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": int(minute in firing)}],
        }
        for minute in sorted([*quiet, *firing])
    ]
    cases = {
        "rule_files": [str(DEPLOY / "prometheus" / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": queries}],
    }
    path = tmp_path / "cases.yml"
    path.write_text(json.dumps(cases))
    assert "SUCCESS" in run(promtool, "test", "rules", path)
