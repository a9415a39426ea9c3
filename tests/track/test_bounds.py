"""Amazon's answers have bounds as a stranger's have. What is over one is no verdict: Amazon is asked again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver.ledger.refund import Source
from receiver.store import Store
from receiver.track.record import Recorder
from tests.kit.clock import ManualClock
from tests.service.desk import Bench, Cut, Drip, bench, http, over_bounds, refund
from tests.store.makers import refund_id, seen

READ = {"charge_read": True}
DECLINED = refund("Declined", reason="AmazonRejected", seconds=9).partition(b"\r\n\r\n")[2]
NOT_FOUND = b'{"reasonCode":"ResourceNotFound","message":"x"}'
VERDICT = b'{"reasonCode":"TransactionAmountExceeded","message":"x"}'
NUMBER = b"1" * 5_000


@pytest.fixture
async def at(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Bench]:
    """A tracker of "us" that knows one pending refund."""
    async with bench(store, redis, clock, request_timeout=5.0) as found:
        await Recorder(store, lambda: 0.0).record(found.tracker.account, seen(), source=Source.POLL, details=READ)
        yield found


async def state(at: Bench) -> str:
    known = await at.store.of("us").refunds.get(refund_id())
    assert known is not None
    return known.state


async def look(at: Bench, answer: bytes) -> float:
    """Ask about the refund when it is due; returns how long that took, s."""
    at.desk.answers = [Cut(answer)]
    at.clock.tick(await at.due() or 0)
    began = asyncio.get_running_loop().time()
    await at.look()
    return asyncio.get_running_loop().time() - began


@pytest.mark.parametrize(("status", "body"), [(200, DECLINED), (404, NOT_FOUND), (400, VERDICT), (500, NOT_FOUND)])
async def test_what_is_over_a_bound_is_no_verdict(at: Bench, status: int, body: bytes) -> None:
    """The refund stays as it is, and is asked about until an answer can be understood; and no answer takes long."""
    for name, answer in over_bounds(status, body).items():
        took = await look(at, answer)
        assert took < 2.0, name
        assert await state(at) == "RefundInitiated", name
        assert await at.due() is not None, name
    unwell = sum(
        at.counted("amazon_requests", call="get_refund", outcome=outcome) or 0
        for outcome in (
            *("amazon_unknown", "amazon_unintelligible", "amazon_refuses_us"),
            *("amazon_bad_answer", "amazon_cut"),
        )
    )
    assert unwell == len(over_bounds(status, body))
    await look(at, http(200, DECLINED))
    assert await state(at) == "Declined"


TOLERATED = {
    "a byte order mark": b"\xef\xbb\xbf" + DECLINED,
    "sixteen levels": DECLINED[:-1] + b',"x":' + b"[" * 15 + b"]" * 15 + b"}",
    "brackets in a text": DECLINED[:-1] + b',"x":"' + b"[" * 500 + b'"}',
    "another key twice": DECLINED[:-1] + b',"x":1,"x":2}',
    "a descriptor twice": DECLINED[:-1] + b',"softDescriptor":"a","softDescriptor":"b"}',
    "a number of 5000 digits": DECLINED[:-1] + b',"softDescriptor":' + NUMBER + b"}",
    "an exponent of nine digits": DECLINED[:-1] + b',"softDescriptor":1E+999999999}',
    "not a number": DECLINED[:-1] + b',"softDescriptor":NaN}',
    "bytes of Latin-1": DECLINED[:-1] + b',"softDescriptor":"\xe4"}',
}


@pytest.mark.parametrize("what", TOLERATED)
async def test_what_spoils_one_field_hides_no_decline(at: Bench, what: str) -> None:
    """Id and state can be read: the decline is known."""
    await look(at, http(200, TOLERATED[what]))
    assert await state(at) == "Declined"


@pytest.mark.parametrize("amount", [b"1E+999999999", b"1E-999999999", NUMBER, b"14.0" + b"0" * 40, b"-0", b"1e400"])
async def test_no_number_costs_more_than_its_length(at: Bench, amount: bytes) -> None:
    """An amount that is a number of this kind is not read; the decline is."""
    said = json.loads(DECLINED)
    said["refundAmount"] = {"amount": "AMOUNT", "currencyCode": "USD"}
    body = json.dumps(said).encode().replace(b'"AMOUNT"', amount)
    assert await look(at, http(200, body)) < 2.0
    assert await state(at) == "Declined"


async def test_a_drip_ends_with_the_time_of_the_request(at: Bench) -> None:
    """Slow single bytes do not extend it, neither in the head nor in the body."""
    at.tracker.amazon_client.timeout = 0.5
    for answer in (http(200, DECLINED), http(200, DECLINED)[:60]):
        at.desk.answers = [Drip(answer)]
        at.clock.tick(await at.due() or 0)
        began = asyncio.get_running_loop().time()
        await at.look()
        assert 0.4 < asyncio.get_running_loop().time() - began < 2.0
        assert await state(at) == "RefundInitiated"
    assert at.counted("amazon_requests", call="get_refund", outcome="amazon_unknown") == 2
