"""One exchange with Amazon: dated by Amazon's clock, and repeated at once where the date is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from receiver.amazon.calls import get_refund, read_refund
from receiver.amazon.throttle import Bucket, Call
from receiver.errors import AmazonNotFound, AmazonOutcomeUnknown, AmazonRefusesUs, StoreUnavailable, TransportError
from receiver.exchange import Request, Response
from receiver.ledger.timestamps import parse_time
from receiver.runtime.metrics import Metrics
from receiver.track.amazon_client import REDATED, AmazonClient
from tests.kit.accounts import make_account

NOW = 1_760_000_000_000
REFUND = "S01-5105180-3221187-R000001"


class Tokens:
    """A store with a throttle and nothing else."""

    def __init__(self, *waits: int) -> None:
        self.requests = self
        self._waits = iter(waits)
        self.taken = 0
        self.requests = self

    def now(self) -> int:
        return NOW

    async def take_token(self, *_: object) -> int:
        self.taken += 1
        return next(self._waits, 0)


class Host:
    """One of Amazon's hosts, whose clock is `with_routes` ms behind ours."""

    def __init__(
        self, behind: int, *, says_date: bool = True, refuses: Callable[[int, int], bool] | None = None
    ) -> None:
        self.behind, self.says_date = behind, says_date
        self.refuses = refuses or (lambda dated, now: dated > now)
        self.dates: list[int] = []
        self.answer: Response | None = None

    async def send(self, request: Request, *, timeout: float) -> Response:
        now, dated = NOW - self.behind, parse_time(request.headers["x-amz-pay-date"])
        self.dates.append(dated)
        headers = {"date": format_datetime(datetime.fromtimestamp(now // 1000, UTC), usegmt=True)}
        if self.refuses(dated, now):
            said = {"reasonCode": "InvalidHeaderValue", "message": "x-amz-pay-date should not be in future"}
            return Response(400, headers if self.says_date else {}, json.dumps(said).encode())
        return self.answer or Response(404, headers if self.says_date else {}, b'{"reasonCode":"ResourceNotFound"}')


def amazon_client(host: Host, store: Any = None, **more: Any) -> tuple[AmazonClient, Metrics]:
    metrics = Metrics()
    account = make_account(throttle=dict.fromkeys(Call, Bucket(10, 10)))
    kept: Any = store or Tokens()
    return AmazonClient(account, kept, host.send, metrics, lambda: NOW, **more), metrics


async def ask(at: AmazonClient) -> None:
    await at.ask(Call.GET_REFUND, get_refund(at.account.endpoint, REFUND), read_refund)


def counted(metrics: Metrics, outcome: str) -> float:
    name = "receiver_amazon_requests_total"
    return metrics.registry.get_sample_value(name, {"call": "get_refund", "outcome": outcome}) or 0.0


@pytest.mark.parametrize("says_date", [True, False])
async def test_a_host_two_seconds_behind_takes_the_first_request(says_date: bool) -> None:
    host = Host(2_000, says_date=says_date)
    at, _ = amazon_client(host)
    for _ in range(3):
        with pytest.raises(AmazonNotFound):
            await ask(at)
    assert len(host.dates) == 3


@pytest.mark.parametrize("behind", [10_000, 3_600_000, 40_000_000])
async def test_a_date_that_is_refused_is_corrected_at_once_and_learned(behind: int) -> None:
    """For this call and every other."""
    host = Host(behind)
    at, metrics = amazon_client(host)
    for _ in range(3):
        with pytest.raises(AmazonNotFound):
            await ask(at)
    assert len(host.dates) == 4
    assert all(NOW - behind - 5_000 <= each <= NOW - behind for each in host.dates[1:])
    assert (counted(metrics, "amazon_date_refused"), counted(metrics, "amazon_not_found")) == (1, 3)


@pytest.mark.parametrize("behind", [-3_600_000, -10_000])
async def test_a_clock_that_is_behind_amazons_is_no_hindrance(behind: int) -> None:
    host = Host(behind, refuses=lambda dated, now: not now - 300_000 <= dated <= now)
    at, _ = amazon_client(host)
    for _ in range(2):
        with pytest.raises(AmazonNotFound):
            await ask(at)
    assert len(host.dates) == (3 if behind < -300_000 else 2)


async def test_hosts_that_disagree_are_all_satisfied() -> None:
    """Two hosts behind one name, four seconds apart: from the second exchange on, nothing is refused."""
    hosts = [Host(0), Host(6_000)]
    for host in hosts:
        host.refuses = lambda dated, now: dated > now
    turn = iter(range(100))
    at, metrics = amazon_client(hosts[0])

    async def send(request: Request, *, timeout: float) -> Response:
        return await hosts[next(turn) % 2].send(request, timeout=timeout)

    at.send = send
    for _ in range(20):
        with pytest.raises(AmazonNotFound):
            await ask(at)
    assert counted(metrics, "amazon_date_refused") <= 1


async def test_what_stays_refused_is_refused_in_the_end() -> None:
    """After `REDATED` repetitions at once; the caller tries again later."""
    host = Host(0, refuses=lambda dated, now: True)
    at, metrics = amazon_client(host)
    with pytest.raises(AmazonRefusesUs) as caught:
        await ask(at)
    assert caught.value.reason_code == "InvalidHeaderValue"
    assert len(set(host.dates)) == len(host.dates) == REDATED + 1
    assert (counted(metrics, "amazon_date_refused"), counted(metrics, "amazon_refuses_us")) == (REDATED, 1)


async def test_a_repetition_takes_a_token_and_none_is_made_without_one() -> None:
    host = Host(3_600_000)
    at, _ = amazon_client(host, Tokens(60_000))
    with pytest.raises(AmazonRefusesUs):
        await ask(at)
    assert len(host.dates) == 1
    with pytest.raises(AmazonNotFound):
        await ask(at)


async def test_a_store_that_is_down_does_not_hide_the_refusal() -> None:
    """It is proven that nothing was done: the issuer of a refund has to know."""

    class Down(Tokens):
        async def take_token(self, *_: object) -> int:
            raise StoreUnavailable

    at, _ = amazon_client(Host(3_600_000), Down())
    with pytest.raises(AmazonRefusesUs):
        await ask(at)


async def test_all_repetitions_are_within_the_timeout() -> None:
    """A lease is as long as one exchange."""
    host = Host(3_600_000)
    at, _ = amazon_client(host, timeout=0.4)
    with pytest.raises(AmazonRefusesUs):
        await ask(at)
    assert len(host.dates) == 1


async def test_a_repetition_without_an_answer_is_unknown() -> None:
    """It may have reached Amazon."""
    host = Host(3_600_000)
    at, _ = amazon_client(host)
    timeouts = []

    async def send(request: Request, *, timeout: float) -> Response:
        timeouts.append(timeout)
        if len(timeouts) == 2:
            raise TransportError("cut", reason="cut")
        return await host.send(request, timeout=timeout)

    at.send = send
    with pytest.raises(AmazonOutcomeUnknown) as caught:
        await ask(at)
    assert caught.value.reason == "amazon_cut"
    assert timeouts[1] <= timeouts[0] == at.timeout


async def test_another_refusal_is_not_repeated_at_once() -> None:
    host = Host(0, refuses=lambda dated, now: False)
    host.answer = Response(403, {}, b'{"reasonCode":"InvalidAccountStatus"}')
    at, metrics = amazon_client(host)
    with pytest.raises(AmazonRefusesUs):
        await ask(at)
    assert len(host.dates) == 1
    assert counted(metrics, "amazon_refuses_us") == 1
