"""What an Alertmanager receives: pinned, judged by its OpenAPI description, and taken by a real one if there is one."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import TransportError
from receiver.exchange import Request
from receiver.ledger.lifecycle import EventType
from receiver.outbox.events.event import Event
from receiver.outbox.formats.alertmanager import FIRES_FOR, MARGIN, address, alerts
from receiver.outbox.formats.registry import format_spec, render, wants
from receiver.transport.client import Transport
from tests.kit.outside import outside
from tests.kit.processes import until
from tests.kit.webserver import serving
from tests.outbox.examples import NOW, an_event, any_text, events, long_text
from tests.outbox.tellers import BEARER, FIRST, resolved, retry, teller

DAY = 86_400_000
BODY = (
    '[{"labels":{"alertname":"AmazonPayRefundDeclined","account":"us","refund_id":"S01-5105180-3221187-R022311",'
    '"severity":"critical"},"annotations":{"summary":"Refund declined: 14.00 USD '
    "(AmazonRejected), refund S01-5105180-3221187-R022311, account us. Amazon rejected this refund, possibly because "
    'the merchant account has a negative balance. The buyer has not been paid by it.","description":"Amazon rejected '
    "this refund, possibly because the merchant account has a negative balance. The buyer has not been paid by "
    'it.","advice":"1. Look at the balance of the merchant account in Seller Central; where it is negative, pay Amazon '
    "what is owed. 2. Once the balance is settled, issue a new refund for the charge; Amazon never reopens a "
    "declined refund. 3. Look at the other refunds of the charge: once its maximum has been refunded, Amazon declines "
    "every further one. 4. Or compensate the buyer outside Amazon Pay, for example with store credit, a gift card or a "
    'check.","refund":"S01-5105180-3221187-R022311","amount":"14.00 USD","reason":"AmazonRejected",'
    '"amazon_says":"The refund was rejected.","charge":"S01-5105180-3221187-C056351","account":"us",'
    '"environment":"Sandbox","changed":"20190714T155500Z","event":"evt_a0b1dbf5ddba89abbeed14ef890d0517",'
    '"seller_central":"https://sellers.example"},"startsAt":"2019-07-14T16:00:00.250Z",'
    '"endsAt":"2019-07-21T16:00:00.250Z",'
    '"generatorURL":"https://refunds.example/refunds/S01-5105180-3221187-R022311?account=us"}]'
)
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def check(request: Request) -> list[dict[str, Any]]:
    """`postableAlerts` of api/v2/openapi.yaml, and `Validate` of Alertmanager's types: texts in UTF-8, at least one
    label, a start that is not after the end."""
    found = json.loads(request.body.decode("utf-8"))
    assert isinstance(found, list)
    for alert in found:
        assert set(alert) <= {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}
        assert alert["labels"]["alertname"]
        for name, value in (*alert["labels"].items(), *alert["annotations"].items()):
            assert LABEL.fullmatch(name)
            assert isinstance(value, str)
            assert value
        assert datetime.fromisoformat(alert["startsAt"]) <= datetime.fromisoformat(alert["endsAt"])
        assert urlsplit(alert["generatorURL"]).scheme == "https"
    identities = [json.dumps(alert["labels"], sort_keys=True) for alert in found]
    assert len(identities) == len(set(identities))
    return list(found)


def firing(told: Sequence[Event], now: int = NOW) -> list[dict[str, Any]]:
    found = check(render(told, teller("alertmanager"), now))
    return [alert for alert in found if datetime.fromisoformat(alert["endsAt"]).timestamp() * 1000 > now]


def test_the_whole_request_of_a_decline() -> None:
    """Byte for byte, to the path of the API, with the header that was asked for."""
    request = render([an_event()], teller("alertmanager"), NOW)
    assert (request.method, request.url) == ("POST", "http://127.0.0.1:9093/api/v2/alerts")
    assert request.headers == {
        "content-type": "application/json",
        "user-agent": "amazon-pay-refund-receiver",
        "authorization": BEARER,
    }
    assert request.body.decode() == BODY
    check(request)
    assert "authorization" not in render([an_event()], teller("alertmanager", authorization=None), NOW).headers


@pytest.mark.parametrize(
    ("url", "posted"),
    [
        ("https://am.example", "https://am.example/api/v2/alerts"),
        ("https://am.example/", "https://am.example/api/v2/alerts"),
        ("https://am.example/prefix", "https://am.example/prefix/api/v2/alerts"),
        ("https://am.example/prefix/api/v2/alerts", "https://am.example/prefix/api/v2/alerts"),
        ("https://am.example/?tenant=a", "https://am.example/api/v2/alerts?tenant=a"),
    ],
)
def test_the_path_is_added_where_it_is_missing(url: str, posted: str) -> None:
    """Alertmanagers live under a prefix too."""
    assert address(url) == posted


def test_a_chain_of_retries_ends_its_alerts() -> None:
    """With the same labels, for any reasons of the declines; the end is far enough in the past for a clock behind
    ours."""
    life = [an_event(), retry(EventType.DECLINED, 2, reason_code="Surprise"), resolved(by=3)]
    assert all(wants(teller("alertmanager"), event) for event in life)
    begun = [alert["labels"] for event in life[:2] for alert in firing([event])]
    ended = check(render(life[2:], teller("alertmanager"), NOW))
    assert len(begun) == 2
    assert begun[0] == begun[1] == ended[0]["labels"]
    assert begun[0]["refund_id"] == FIRST
    assert "S01-5105180-3221187-R022313" in ended[0]["annotations"]["description"]
    assert not wants(teller("alertmanager"), retry(EventType.REFUNDED, 3))
    assert len(ended) == 1
    assert datetime.fromisoformat(ended[0]["endsAt"]).timestamp() * 1000 == NOW - MARGIN


def test_of_a_chain_in_one_request_the_last_word_counts() -> None:
    """In whatever order the events come."""
    ended = msgspec.structs.replace(resolved(), at=NOW + 1)
    assert firing([ended, an_event()]) == []
    again = msgspec.structs.replace(an_event(EventType.REOPENED), at=NOW + 2)
    assert [alert["labels"] for alert in firing([again, ended, an_event()])] == [
        alert["labels"] for alert in firing([an_event()])
    ]
    assert len(firing([an_event(), an_event(refund_id="R2")])) == 2


def test_a_stuck_refund_ends_with_its_state_and_a_contradiction_does_not() -> None:
    """One request can fire the one and end the other."""
    stuck = firing([an_event(EventType.STUCK, state="RefundInitiated", reason_code="")])
    assert stuck[0]["labels"] == {
        "alertname": "AmazonPayRefundStuck",
        "account": "us",
        "refund_id": FIRST,
        "severity": "warning",
    }
    old: dict[str, Any] = {"created_at": NOW - DAY - 1}
    declined = check(render([an_event(**old)], teller("alertmanager"), NOW))
    assert [alert["labels"]["alertname"] for alert in declined] == ["AmazonPayRefundDeclined", "AmazonPayRefundStuck"]
    assert declined[1]["labels"] == stuck[0]["labels"]
    assert wants(teller("alertmanager"), an_event(EventType.REFUNDED, state="Refunded", **old))
    conflicting = retry(EventType.REFUNDED, conflict=True)
    assert not wants(teller("alertmanager"), conflicting)
    assert alerts([conflicting], teller("alertmanager"), NOW) == []
    assert firing([an_event(EventType.CONFLICT)])[0]["labels"]["alertname"] == "AmazonPayRefundConflict"


def test_a_late_delivery_still_fires_for_a_week() -> None:
    """An end counted from the event would have passed before the alert arrived."""
    (alert,) = firing([an_event()], NOW + 30 * DAY)
    assert datetime.fromisoformat(alert["startsAt"]).timestamp() * 1000 == NOW
    assert datetime.fromisoformat(alert["endsAt"]).timestamp() * 1000 == NOW + 30 * DAY + FIRES_FOR


@given(st.lists(events(any_text | long_text), min_size=1, max_size=3), st.integers(NOW - DAY, NOW + DAY))
def test_every_event_keeps_to_the_rules(told: list[Event], now: int) -> None:
    """Whatever Amazon sends, and however many."""
    check(render(told, teller("alertmanager"), now))


def test_many_are_one_request_and_their_labels_have_few_values() -> None:
    """But for the refund, which is no use to group by."""
    most = format_spec("alertmanager").most_in_one
    told = [an_event(reason_code=f"New{n}", refund_id=f"R{n}") for n in range(most)]
    found = firing(told)
    assert len(found) == 50
    assert [len({alert["labels"][name] for alert in found}) for name in ("alertname", "account", "severity")] == [1] * 3
    assert format_spec(teller("alertmanager").format).window == 1_000


CONFIGURATION = """
route: {receiver: hook, group_by: [alertname], group_wait: 10ms, group_interval: 200ms, repeat_interval: 1h}
receivers: [{name: hook, webhook_configs: [{url: "%s/told", send_resolved: true}]}]
"""
USERS = """
basic_auth_users: {receiver: "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm"}
"""
BASIC = "Basic cmVjZWl2ZXI6aHVudGVyMg=="
"""receiver:hunter2; its bcrypt hash is above."""


@dataclass
class Running:
    """A real Alertmanager, and what it has sent to its receiver: (status, labels) of each alert."""

    url: str
    transport: Transport
    hook: Any

    async def send(self, request: Request) -> int:
        return (await self.transport.send(request)).status

    async def ready(self) -> bool:
        try:
            answer = await self.transport.send(Request("GET", f"{self.url}/-/ready", {"authorization": BASIC}))
        except TransportError:
            return False
        return answer.status == 200

    async def active(self) -> list[Any]:
        answer = await self.transport.send(Request("GET", f"{self.url}/api/v2/alerts", {"authorization": BASIC}))
        return [alert["labels"] for alert in json.loads(answer.body)]

    def told(self) -> list[tuple[str, Any]]:
        bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in self.hook.requests]
        return [(alert["status"], alert["labels"]) for body in bodies for alert in body["alerts"]]


@asynccontextmanager
async def alertmanager(folder: Path) -> AsyncIterator[Running]:
    """Alertmanager on loopback, from `RECEIVER_TEST_ALERTMANAGER` or the path."""
    named = outside("ALERTMANAGER")
    binary = named or shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")
    if not binary:
        pytest.skip("install Alertmanager, or set RECEIVER_TEST_ALERTMANAGER to its path")
    with closing(socket.socket()) as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    transport = Transport()
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as hook:
        (folder / "am.yml").write_text(CONFIGURATION % hook.url)
        (folder / "web.yml").write_text(USERS)
        options = {
            "config.file": folder / "am.yml",
            "web.config.file": folder / "web.yml",
            "storage.path": folder / "data",
            "web.listen-address": f"127.0.0.1:{port}",
            "cluster.listen-address": "",
        }
        process = await asyncio.create_subprocess_exec(
            binary, *(f"--{name}={value}" for name, value in options.items()), stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            running = Running(f"http://127.0.0.1:{port}", transport, hook)
            await until(lambda: process.returncode is not None or running.ready(), "Alertmanager is ready")
            assert process.returncode is None, "Alertmanager ended at once; run it by hand to see why"
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await transport.close()


async def test_a_real_alertmanager_fires_and_resolves(tmp_path: Path) -> None:
    """It takes the alerts, tells its receiver that they fire, and after the retry was Refunded that the decline is
    resolved, and nothing else. A wrong password is 401; a request without alerts is fine."""
    async with alertmanager(tmp_path) as running:
        subscriber = teller("alertmanager", url=running.url, authorization=BASIC)
        stranger = teller("alertmanager", url=running.url)
        now = int(time.time() * 1000)
        declined, refunded = (
            msgspec.structs.replace(event, at=now - age)
            for event, age in (
                (an_event(order_reference="Größe <b>", created_at=now - 5_000), 2_000),
                (retry(EventType.REFUNDED, created_at=now - 5_000), 1_000),
            )
        )
        assert await running.send(render([declined], stranger, now)) == 401
        both = [declined, msgspec.structs.replace(an_event(EventType.STUCK, refund_id="R9"), at=now)]
        assert await running.send(render(both, subscriber, now)) == 200
        expected = {"AmazonPayRefundDeclined", "AmazonPayRefundStuck"}
        await until(lambda: {labels["alertname"] for _, labels in running.told()} == expected, "both fire")
        assert {labels["alertname"] for labels in await running.active()} == expected
        assert await running.send(render([refunded], subscriber, now + 100)) == 200

        await until(lambda: any(status == "resolved" for status, _ in running.told()), "the decline is resolved")
        assert [labels["alertname"] for labels in await running.active()] == ["AmazonPayRefundStuck"]
        ended = [labels for status, labels in running.told() if status == "resolved"]
        assert {(labels["alertname"], labels["refund_id"]) for labels in ended} == {("AmazonPayRefundDeclined", FIRST)}
        assert await running.send(render([retry(EventType.REFUNDED, conflict=True)], subscriber, now)) == 200
