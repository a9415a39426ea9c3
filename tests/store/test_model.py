"""The store against a small model of it: any order of hints, claims, answers, subscribers and deliveries, by several
workers whose clocks differ a little, some of them slower than their lease.

`model.py` is the model, `workers.py` acts on the store, and `machines.py` does both and compares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)
from structlog.testing import capture_logs

from receiver.store.redis.pipeline import connect
from tests.store.machines import Everything, Looking, Machine, Telling
from tests.store.workers import Held

SETTINGS = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def loop(valkey_url: str) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs the machines' work on one loop, with a client that belongs to it."""
    with asyncio.Runner() as runner, capture_logs():
        Machine.loop, Machine.client = staticmethod(runner.run), connect(valkey_url)
        yield runner.run
        runner.run(Machine.client.aclose())


@pytest.mark.parametrize("kind", [Looking, Telling, Everything])
@pytest.mark.usefixtures("loop")
def test_the_store_does_what_the_model_says(kind: type[Machine]) -> None:
    """Whatever happens in whatever order: nothing hinted, pending or owed is lost; nothing is delivered twice."""
    run_state_machine_as_test(kind, settings=SETTINGS)


PENDING, REFUNDED, DECLINED = (
    (("RefundInitiated", ""), 0),
    (("Refunded", ""), 1),
    (("Declined", "BuyerAccountClosed"), 2),
)


@pytest.fixture
def walk(loop: object) -> Iterator[Looking]:
    """The machine, to be led by hand on paths that chance seldom finds."""
    machine = Looking()
    yield machine
    machine.teardown()


def claimed(walk: Looking) -> Held:
    walk.refresh(1, 0)
    held: Held = walk._claim(0, 9).values[0]
    return held


def test_a_late_first_sight_of_a_refund_that_others_gave_up_is_followed_up(walk: Looking) -> None:
    """The schedule is another's to change, but a pending refund must be in it."""
    slow = claimed(walk)
    walk.overtake_and_settle(slow, "not found", 1)
    assert walk.model.due == {}
    walk.ask_and_settle(slow, PENDING)
    walk.everything_is_as_the_model_says()
    assert 1 in walk.model.due


def test_a_refund_is_not_given_up_if_it_was_written_meanwhile(walk: Looking) -> None:
    """A worker that read it as unknown, and finds it written when it releases the claim, leaves it to the lease's
    end."""
    about_to_give_up = walk._ask(claimed(walk), "not found")
    walk.create(1, PENDING, 1)
    walk.settle(about_to_give_up)
    walk.everything_is_as_the_model_says()
    assert walk.model.due == {1: about_to_give_up.held.look.token}


def test_a_contradiction_is_watched_whoever_was_about_to_be_content(walk: Looking) -> None:
    """The same with a refund that was final, and turned out otherwise."""
    walk.create(1, REFUNDED, 1)
    content = walk._ask(claimed(walk), REFUNDED)
    walk.create(1, DECLINED, 1)
    walk.settle(content)
    walk.everything_is_as_the_model_says()
    assert 1 in walk.model.due


def test_two_who_have_read_the_same_write_one_after_the_other(walk: Looking) -> None:
    """The second finds the revision gone, and decides again."""
    first = walk._ask(claimed(walk), PENDING)
    walk.overtake_the_write(first, DECLINED, 1)
    walk.settle(first)
    walk.everything_is_as_the_model_says()
    assert [event.type for event in walk.model.events] == ["declined"]
