"""What all tests share: a real Valkey, a store on it, and a clock that tests set."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

import tests.kit.bytecode  # noqa: F401
from receiver.amazon.account import Account
from receiver.store import Store
from receiver.store.redis.keys import read_name
from receiver.store.redis.pipeline import connect
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.forks import FORKS
from tests.kit.outside import hide
from tests.kit.processes import Desk, desk
from tests.kit.shared import share_commands, share_trust, stop_servers_at_once
from tests.kit.signals import as_in_a_terminal
from tests.kit.valkey import start_valkey
from tests.service.crash_kit import World, world
from tests.store.embedded_kit import homeless_servers

hide()
as_in_a_terminal()
share_trust()
share_commands()
stop_servers_at_once()

# How long an example takes says something about the machine, not about the code.
# In CI the examples are the same every time, so that unchanged code does not start to fail.
settings.register_profile(
    "here", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("here")


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A Valkey of this test process, without persistence."""
    directory = Path(tempfile.mkdtemp(prefix="rv-"))
    process, url = start_valkey(directory)
    yield url
    process.kill()
    process.wait()
    shutil.rmtree(directory, ignore_errors=True)


INVENTED = (":nobody", ":anything", ":migrated")
"""Keys that tests write themselves."""


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """A plain client on an empty Valkey: to look behind the store's back."""
    client = connect(valkey_url)
    await client.flushall()
    yield client
    keys = [bytes(key).decode(errors="replace") async for key in client.scan_iter("refunds:*", count=1000)]
    await client.aclose()
    unknown = [key for key in keys if read_name(key) is None and not key.endswith(INVENTED)]
    assert unknown == [], "a kind of key that is not in the catalogue: keys.py"


@pytest.fixture
def clock() -> ManualClock:
    """The clock that leases, throttles and schedules go by."""
    return ManualClock()


@pytest.fixture
async def store(redis: Redis, valkey_url: str, clock: ManualClock) -> AsyncIterator[Store]:
    """A store on an empty Valkey."""
    store = Store(connect(valkey_url), clock=clock)
    yield store
    await store.close()


@pytest.fixture
def account() -> Account:
    """The sandbox account "us"."""
    return make_account()


@pytest.fixture
async def place() -> AsyncIterator[Desk]:
    """Where commands are started. None of them may print a traceback."""
    async with desk() as found:
        yield found
        assert not [command.complaint for command in found.started if "Traceback" in command.complaint]


@pytest.fixture
async def around() -> AsyncIterator[World]:
    """Amazon, SNS and a subscriber."""
    async with world() as found:
        yield found


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests wait more than they work."""
    return (os.cpu_count() or 1) + 2


def pytest_configure(config: pytest.Config) -> None:
    """Each process begins to collect at another folder. The first to read a test file rewrites its assertions and keeps
    the result; if all processes read the files in one order, each would rewrite them all."""
    worker = getattr(config, "workerinput", None)
    if worker is None or [Path(each).name for each in config.args] != ["tests"]:
        return
    place = Path(__file__).parent
    folders = sorted(str(each) for each in place.iterdir() if any(each.glob("**/test_*.py")))
    folders.append(str(place / "test_architecture.py"))
    first = len(folders) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    config.args[:] = folders[first:] + folders[:first]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """No module and no test is garbage: looking for garbage, now or later, would take a twentieth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tests leave no server behind. One that was killed just now may take a moment to end."""
    if hasattr(session.config, "workerinput"):
        return
    deadline = time.monotonic() + 10
    while left := homeless_servers():
        if time.monotonic() > deadline:
            sys.stderr.write("\n".join(["", "Tests left these servers behind:", *left, ""]))
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            return
        time.sleep(0.1)


def pytest_unconfigure() -> None:
    """What the tests shared ends with them."""
    FORKS.end()


LONG = tuple(
    f"tests/{each}.py"
    for each in ("service/test_failover", "service/test_crash", "faults/test_kill", "service/test_wave")
)
"""Files with tests of half a minute."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first. Otherwise one process would still run them when the others have ended. Equal ones
    are sorted by name, because all processes need the same order."""
    items.sort(key=lambda item: (not item.nodeid.startswith(LONG), item.nodeid.partition("::")[0]))
