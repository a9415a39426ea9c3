"""The river runs on the event loop that the commands run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.processes import Desk, desk
from tests.river.crash_kit import World, world


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, whose transports and errors are its own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def place() -> AsyncIterator[Desk]:
    """Where commands are started. None of them may meet anything that nobody foresaw."""
    async with desk() as found:
        yield found
        assert not [command.complaint for command in found.started if "Traceback" in command.complaint]


@pytest.fixture
async def around() -> AsyncIterator[World]:
    """Amazon, SNS and a subscriber."""
    async with world() as found:
        yield found
