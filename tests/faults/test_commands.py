"""For any fault at any command: nothing is lost, nothing is done twice, nothing is stuck."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.proxy import COPIES, Fault
from tests.faults.stage import PATHS, House, house, walk

SINGLE = [fault for fault in Fault if fault is not Fault.FORGETS]


@pytest.fixture
async def place(valkey_url: str) -> AsyncIterator[House]:
    """Amazon, a subscriber and a Redis."""
    with tempfile.TemporaryDirectory(prefix="rf-") as folder:
        async with house(valkey_url, Path(folder)) as found:
            yield found


@pytest.mark.parametrize("path", PATHS)
async def test_one_fault_at_any_command(place: House, path: str) -> None:
    """From the first command of the path to the last, with another fault at each.

    `python -m tests.faults --every` makes every fault at every command.
    """
    number = fired = 0
    while True:
        number += 1
        fault = SINGLE[number % len(SINGLE)]
        proxy = await walk(place, path, {number: fault})
        fired += proxy.fired
        if number >= proxy.seen:
            break
    assert fired >= number // 2


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("fault", [Fault.FORGETS, *COPIES])
async def test_the_same_at_every_command(place: House, path: str, fault: Fault) -> None:
    """Redis forgets its scripts all the time; a client, or something on the way, sends everything twice."""
    proxy = await walk(place, path, {}, every=fault)
    assert proxy.fired >= 1


async def test_a_house_lasts_for_any_number_of_walks(place: House) -> None:
    """`python -m tests.faults --every` makes hundreds of runs, and each advances Amazon's clock."""
    place.amazon.move(100)
    for path in PATHS:
        await walk(place, path, {})
