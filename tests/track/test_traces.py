"""A `traceparent` on its way: from a request to Amazon's calls, and into the events that follow, as an attribute."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict
from starlette.types import Message, Receive, Scope, Send
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from receiver.service import system_clock
from receiver.simulator.outcomes import Outcome
from tests.http.kit import REFUNDER, token
from tests.issue.counter import FAST, Counter
from tests.kit.processes import until
from tests.kit.sns import SnsSigner
from tests.service.stage import Amazon, Hook, account, notice, running

DAY = 86_400_000


def parent(number: int) -> str:
    """A valid `traceparent`; each number is another trace."""
    return f"00-{number:032x}-b7ad6b7169203331-01"


class Listening(Amazon):
    """Records the `traceparent` headers of every call, by "METHOD object", and checks its signature."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.heard: dict[str, list[str]] = defaultdict(list)
        self.bodies: list[bytes] = []
        inner = self.app

        async def listening(scope: Scope, receive: Receive, send: Send) -> None:
            async def read() -> Message:
                message = await receive()
                self.bodies.append(message.get("body", b""))
                return message

            if scope["type"] == "http":
                found = [value.decode() for name, value in scope["headers"] if name == b"traceparent"]
                self.heard[f"{scope['method']} {scope['path'].rpartition('/')[2]}"].append(" ".join(found))
            await inner(scope, read, send)

        self.app = listening  # type: ignore[assignment]


@pytest.fixture
async def amazon() -> AsyncIterator[Listening]:
    listening = Listening()
    async with listening:
        yield listening


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    async with Hook().listening() as found:
        yield found


@asynccontextmanager
async def service(
    amazon: Amazon, hook: Hook, valkey_url: str, folder: Path
) -> AsyncIterator[tuple[Counter, SnsSigner]]:
    """The service, and a certificate of SNS whose key the test has: Amazon itself sends no `traceparent`."""
    signer = SnsSigner(not_before=system_clock() - 30 * DAY, not_after=system_clock() + 300 * DAY)
    (folder / "sns.pem").write_bytes(signer.pem)
    table = account(amazon, folder)
    pinned = {**table["signing_certificates"], signer.url: str(folder / "sns.pem")}
    tables = [{**table, "signing_certificates": pinned, "throttle": FAST}]
    tokens = [token(REFUNDER, "read", "refund")]
    async with running(valkey_url, tables, [hook], tokens=tokens) as stage:
        yield Counter(stage), signer


async def told(hook: Hook, refund_id: str, kind: str) -> Any:
    """The `traceparent` in the event of this kind about the refund, as the library of CloudEvents reads it."""

    def found() -> list[Any]:
        return [each for each in hook.events if (each.get_subject(), each.get_type().rpartition(".")[2]) == wanted]

    wanted = (refund_id, kind)
    await until(found, f"{refund_id} is {kind}")
    (event,) = found()
    assert event.get_extension("traceparent") == event.get_attributes().get("traceparent")
    return event.get_extension("traceparent")


WRONG = {
    "none": [],
    "two": [parent(2), parent(2)],
    "all zeros": [parent(0)],
    "upper case": [parent(0xABC).upper()],
    "a later version": [f"cc{parent(3)[2:]}-more"],
}


async def test_a_notifications_trace_goes_to_amazon_and_into_the_event(
    amazon: Listening, hook: Hook, redis: Any, valkey_url: str, tmp_path: Path
) -> None:
    """As it came. One that is not valid, or came twice, is passed over, and nothing of it is written. No subscriber
    gets it as a header, where the samplers of OpenTelemetry would obey its flag."""
    cases = {"valid": [parent(1)], **WRONG}
    with capture_logs(processors=[merge_contextvars]) as logs:
        async with service(amazon, hook, valkey_url, tmp_path) as (counter, signer):
            refunds = {name: amazon.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE) for name in cases}
            for name, values in cases.items():
                body = signer.post_body(
                    notice(amazon, refunds[name]), topic_arn=amazon.topic_arn, timestamp_ms=system_clock()
                )
                headers = CIMultiDict([("traceparent", value) for value in values])
                assert await counter.stage.post("/ipn", body, headers) == 200
            parents = {name: await told(hook, refund_id, "declined") for name, refund_id in refunds.items()}
            stream = await redis.xrange("refunds:{us}:events")
            _, page, _ = await counter.call("GET", "/v1/events?after=beginning")
            await until(counter.stage.quiet, "every delivery is settled")
    assert parents == {**dict.fromkeys(WRONG), "valid": parent(1)}
    assert not [post for post in hook.posts if {"traceparent", "tracestate"} & post.headers.keys()]
    calls = {f"GET {refunds[name]}": parent(1) if name == "valid" else "" for name in cases}
    charges = {f"GET {amazon.refunds[refunds[name]].order.charge_id}": calls[f"GET {refunds[name]}"] for name in cases}
    assert {name: set(heard) for name, heard in amazon.heard.items()} == {
        name: {heard} for name, heard in {**calls, **charges}.items()
    }
    assert {each.status for each in amazon.calls} == {200}
    fields = {entry[b"refundId"].decode(): entry.get(b"traceparent") for _, entry in stream if b"refundId" in entry}
    assert fields == {**dict.fromkeys(refunds.values()), refunds["valid"]: parent(1).encode()}
    shown = {each["subject"]: each.get("traceparent", "absent") for each in page["events"]}
    assert shown == {**dict.fromkeys(refunds.values(), "absent"), refunds["valid"]: parent(1)}
    lines = {
        each["event"]
        for each in logs
        if each.get("trace_id") == f"{1:032x}" and each.get("refund_id") == refunds["valid"]
    }
    assert lines >= {"ipn.answered", "refund.changed", "delivery.delivered"}
    assert not [each for each in logs if "trace_id" in each and each.get("refund_id") == refunds["two"]]


async def test_each_request_is_answered_and_told_within_its_own_trace(
    amazon: Listening, hook: Hook, redis: Any, valkey_url: str, tmp_path: Path
) -> None:
    """Issuing: the charge is read and the refund created within it. A refresh and a retry have their own. The body sent
    to Amazon and the signed text are unchanged: Amazon accepted them."""
    async with service(amazon, hook, valkey_url, tmp_path) as (counter, _):
        charge = amazon.open_charge("100.00", "USD")
        wish = {"chargeId": charge, "refundAmount": {"amount": "14.01", "currencyCode": "USD"}}

        async def call(path: str, number: int, body: Any = None, key: str | None = None) -> Any:
            status, found, _ = await counter.call("POST", path, body, key=key, headers={"traceparent": parent(number)})
            assert status in (201, 202), found
            return found

        refund_id = (await call("/v1/refunds", 1, wish, "refund-1"))["refundId"]
        assert amazon.heard == {f"GET {charge}": [parent(1)], "POST refunds": [parent(1)]}
        assert json.dumps(wish, separators=(",", ":")).encode() in amazon.bodies
        assert await told(hook, refund_id, "initiated") == parent(1)
        amazon.move()
        await call(f"/v1/refunds/{refund_id}/refresh", 2)
        assert await told(hook, refund_id, "declined") == parent(2)
        assert amazon.heard[f"GET {refund_id}"] == [parent(2)]
        again = (await call(f"/v1/refunds/{refund_id}/retry", 3))["refundId"]
        assert amazon.heard["POST refunds"] == [parent(1), parent(3)]
        assert await told(hook, again, "initiated") == parent(3)
    assert {each.status for each in amazon.calls} <= {200, 201}


async def test_a_worker_that_finishes_a_request_goes_on_in_its_trace(
    amazon: Listening, hook: Hook, redis: Any, valkey_url: str, tmp_path: Path
) -> None:
    """It is kept with the request; who asks again with the same key, in another trace, changes nothing."""
    with capture_logs(processors=[merge_contextvars]) as logs:
        async with service(amazon, hook, valkey_url, tmp_path) as (counter, _):
            charge = amazon.open_charge("100.00", "USD")
            amazon.fault_injection.add("error", place="create_refund", times=1)
            wish = {"chargeId": charge, "refundAmount": {"amount": "14.00", "currencyCode": "USD"}}
            for number in (1, 2):
                headers = {"traceparent": parent(number)}
                status, pending, _ = await counter.call("POST", "/v1/refunds", wish, key="k", headers=headers)
                assert (status, pending["status"]) == (202, "pending")
            await counter.due(pending["refundRequestId"])
            await until(lambda: amazon.refunds, "a worker goes on")
            (refund_id,) = amazon.refunds
            assert await told(hook, refund_id, "initiated") == parent(1)
            assert amazon.heard["POST refunds"] == [parent(1)] * 2
            issued = await until(lambda: [each for each in logs if each["event"] == "refund.issued"], "it is told")
    assert [each["trace_id"] for each in issued] == [f"{1:032x}"]
