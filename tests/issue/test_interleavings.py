"""Whatever the order of requests, answers, news, declines and deaths: never over the allowance, never twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from receiver.issue.issuer import Issued
from receiver.issue.orders import prepare
from receiver.ledger.audit import Actor
from receiver.ledger.money import Money
from receiver.ledger.refund_request import PreparedRefund, RefundRequest, RefundRequestRecord, RequestState
from receiver.store.redis.pipeline import connect
from receiver.track import charges
from tests.issue.steps import CAPTURED, CEILING, CHARGE, FATES, Made, Scene, Stepped
from tests.kit.clock import ManualClock
from tests.store import test_mutations

Keys = Mapping[str, Money | None]
Loop = Callable[[Coroutine[Any, Any, Any]], Any]

SETTINGS = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
KEYS = {
    f"key-{number}": Money.of_minor(cents, "USD") for number, cents in enumerate((6_000, 5_000, 4_000, 11_500, 500))
}
FULL = {"full-0": None, "full-1": None, "full-2": None, "part": Money.of_minor(3_000, "USD")}
WHOSE = st.integers(0, 5)
FATE = st.lists(st.sampled_from(FATES), max_size=2)
MOST_STEPS = 60


@pytest.fixture
def loop(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """One loop for all examples. No lease expires by itself: the test stops a worker that makes no progress."""
    monkeypatch.setattr(charges, "DETAILS_WITHIN", 3600.0)
    with asyncio.Runner() as runner, capture_logs():
        yield runner.run


async def opened(valkey_url: str) -> Scene:
    client = connect(valkey_url)
    await client.flushall()
    clock = ManualClock()
    return Scene(Stepped(client, clock), clock)


async def act(scene: Scene, data: st.DataObject, begin: Callable[[], None]) -> None:
    """One thing happens."""
    what = data.draw(st.sampled_from(["step"] * 6 + ["begin"] * 2 + ["work", "tick", "tell", "decline", "kill"]))
    made = [each for each in scene.amazon.made.values() if each.state != "Declined"]
    if what == "begin":
        begin()
    elif what == "work":
        scene.begin(scene.work, *data.draw(FATE))
    elif what == "tick":
        scene.clock.tick(data.draw(st.sampled_from([10_000, 1_000_000])))
    elif what == "decline" and made:
        each = data.draw(st.sampled_from(made))
        each.state, each.updated_at = "Declined", 1_000
    elif what in ("tell", "decline") and scene.amazon.made:
        scene.begin(partial(scene.tell, data.draw(st.sampled_from(list(scene.amazon.made.values())))))
    elif scene.actors and what == "kill":
        await scene.kill(data.draw(WHOSE))
    elif scene.actors:
        await scene.step(data.draw(WHOSE))


async def issue(valkey_url: str, data: st.DataObject, keys: Keys, most: int) -> None:
    scene = await opened(valkey_url)

    def begin() -> None:
        key = data.draw(st.sampled_from(sorted(keys)))
        scene.begin(partial(scene.issuer().create, RefundRequest(CHARGE, keys[key]), key), *data.draw(FATE))

    try:
        for _ in range(data.draw(st.integers(1, MOST_STEPS))):
            await act(scene, data, begin)
            assert scene.amazon.given <= most
        await scene.drain()
        assert scene.amazon.given <= most
        await check_end(scene, keys)
    finally:
        await scene.close()


async def check_end(scene: Scene, keys: Keys) -> None:
    """Nothing is left open but what only a person can settle; who was refused has got nothing."""
    open_ones = set()
    for key, money in keys.items():
        left = None if money else Money.of_minor(1, "USD")
        order = prepare(scene.account, RefundRequest(CHARGE, money), key, left=left)
        record = await scene.store.of("us").requests.get(order.id)
        made = scene.amazon.made.get(order.amazon_key)
        if record is None:
            assert made is None
            continue
        assert record.state is not RequestState.RESERVED
        if record.state is RequestState.DONE:
            assert made is not None
            assert record.refund_id == made.refund_id
            assert await scene.store.of("us").refunds.get(made.refund_id) is not None
        elif record.state is RequestState.REFUSED:
            assert made is None, "told as refused, and made"
        else:
            open_ones.add(f"request:{order.id}")
    book = await scene.store.of("us").requests.charge_entries(CHARGE)
    assert {name for name in book if name.startswith("request:")} == open_ones


def test_no_interleaving_gives_more_than_the_charge_admits(loop: Loop, valkey_url: str) -> None:
    """Five keys whose sum is too large, by any number of processes, on a charge that never reports what was refunded.

    Checked at every reservation on the charge's book, and at every step on what Amazon has really given.
    """

    @SETTINGS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        loop(issue(valkey_url, data, KEYS, CEILING))

    check()


def test_no_interleaving_of_refunds_of_all_that_is_left_uses_the_allowance(loop: Loop, valkey_url: str) -> None:
    """Three keys for all that is left, and one for a part that is too much in addition."""

    @SETTINGS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        loop(issue(valkey_url, data, FULL, CAPTURED))

    check()


REFUSED_OFTEN = st.lists(st.sampled_from((*FATES, "refuse", "refuse", "refuse")), max_size=2)


async def repeat_all(scene: Scene, declined: Made) -> None:
    """A person repeats every unclear request."""
    for generation in range(1, 6):
        order = prepare(
            scene.account,
            RefundRequest(CHARGE, Money.of_minor(6_000, "USD")),
            retry_of=declined.refund_id,
            retry_root="x",
            generation=generation,
        )
        record = await scene.store.of("us").requests.get(order.id)
        if record is not None and record.state is RequestState.UNCLEAR:
            await scene.issuer().manual.repeat(order.id, by=Actor("ops"))


async def retry(valkey_url: str, data: st.DataObject) -> None:
    scene = await opened(valkey_url)
    try:
        first = await scene.issuer().create(RefundRequest(CHARGE, Money.of_minor(6_000, "USD")), "first")
        assert first.refund is not None
        (declined,) = scene.amazon.made.values()
        declined.state, declined.updated_at = "Declined", 1_000
        await scene.tell(declined)

        def begin() -> None:
            if data.draw(st.integers(0, 4)):
                scene.begin(partial(scene.issuer().retry, declined.refund_id), *data.draw(REFUSED_OFTEN))
            else:
                scene.begin(partial(repeat_all, scene, declined), *data.draw(FATE))

        begin()
        for _ in range(data.draw(st.integers(1, MOST_STEPS))):
            await act(scene, data, begin)
            assert len(scene.amazon.made) <= 2
        await scene.drain()
        await check_retry(scene, declined)
    finally:
        await scene.close()


async def check_retry(scene: Scene, declined: Made) -> None:
    """One refund more, and the records of both know of each other; or none, and no caller got one.

    Every generation but the last is refused, and that is proven: Amazon has made nothing under its key.
    """
    money, number = Money.of_minor(6_000, "USD"), 0
    records: list[tuple[PreparedRefund, RefundRequestRecord]] = []
    while True:
        number += 1
        order = prepare(
            scene.account, RefundRequest(CHARGE, money), retry_of=declined.refund_id, retry_root="x", generation=number
        )
        if (record := await scene.store.of("us").requests.get(order.id)) is None:
            break
        records.append((order, record))
    assert all(each.proves_nothing_issued for _, each in records[:-1])
    assert not any(order.amazon_key in scene.amazon.made for order, each in records if each.proves_nothing_issued)
    if not records or records[-1][1].state is RequestState.REFUSED:
        assert len(scene.amazon.made) == 1
    elif records[-1][1].state is RequestState.DONE:
        again = await scene.issuer().retry(declined.refund_id)
        assert isinstance(again, Issued)
        assert again.refund is not None
        assert [each.refund_id for each in scene.amazon.made.values()] == [
            declined.refund_id,
            again.refund.refund_id,
        ]
        assert (again.refund.retry_of, again.refund.retry_root) == (declined.refund_id, declined.refund_id)
        before = await scene.store.of("us").refunds.get(declined.refund_id)
        assert before is not None
        assert before.retried_by == again.refund.refund_id
    else:
        assert records[-1][1].state is RequestState.UNCLEAR
        assert len(scene.amazon.made) <= 2


def test_no_interleaving_of_retries_issues_two(loop: Loop, valkey_url: str) -> None:
    """Of one declined refund, by any number of processes."""

    @SETTINGS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        loop(retry(valkey_url, data))

    check()


async def led(valkey_url: str, how: str) -> None:
    """Amazon makes the refund, the answer is lost, and Amazon refuses the repetition: a path that chance seldom finds.

    The answer is lost, or the process that waits for it dies.
    """
    scene = await opened(valkey_url)
    try:
        scene.begin(partial(scene.issuer().create, RefundRequest(CHARGE, KEYS["key-0"]), "key-0"), how)
        while scene.actors and (how == "lost" or not scene.amazon.made):
            await scene.step(0)
        if how == "answer":
            await scene.kill(0)
        scene.clock.tick(1_000_000)
        scene.begin(scene.work, "refuse")
        while scene.actors:
            await scene.step(0)
        await check_end(scene, KEYS)
        assert await scene.store.reservations.book() == 6_000
    finally:
        await scene.close()


@pytest.mark.parametrize("how", ["lost", "answer"])
def test_a_refusal_after_a_refund_that_nobody_heard_of_frees_nothing(loop: Loop, valkey_url: str, how: str) -> None:
    loop(led(valkey_url, how))


@pytest.mark.parametrize(
    ("script", "protection", "instead", "how"),
    [
        ("reserve", "spent + minor_units > most", "false", ""),
        ("reserve", "entry.state ~= 'Declined' or", "entry.state ~= 'Declined' and entry.state ~= 'Reserved' or", ""),
        ("finish_request", "redis.call('HGET', KEYS[1], 'unknown') == '1'", "false", "lost"),
        ("begin_try", "if held[1] == '1' then", "if false then", "answer"),
    ],
)
def test_without_a_protection_an_interleaving_is_found(
    loop: Loop, valkey_url: str, monkeypatch: pytest.MonkeyPatch, script: str, protection: str, instead: str, how: str
) -> None:
    """A test that finds nothing would be decoration."""
    test_mutations.without(monkeypatch, script, protection, instead)

    @settings(SETTINGS, max_examples=400, phases=(Phase.generate,), database=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        loop(issue(valkey_url, data, KEYS, CEILING))

    found = partial(loop, led(valkey_url, how)) if how else check
    with pytest.raises(AssertionError):
        found()
