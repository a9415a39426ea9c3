"""The open loop: a sender that is asked to come back later waits until then, and a lost connection is replaced."""

from __future__ import annotations

import asyncio
from itertools import repeat
from typing import cast

import pytest

from tests.benchmarks import load
from tests.benchmarks.plain import NOTHING, plain

LATER = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
ASK = load.request("/x", b"{}")


async def test_retry_after_is_heeded() -> None:
    """Two connections, both shed: the third request waits until the first of them may be used, and that is its time."""
    answers = iter([LATER, LATER, NOTHING])
    async with plain(lambda *_: next(answers)) as port:
        found = await load.opened(port, repeat(ASK), 0.03, 100, lines=2, heed=True)
    assert found.statuses == {503: 2, 204: 1}
    assert found.quantile(0.99, 204) > 900 > found.quantile(0.99, 503)


async def test_without_heed_it_is_asked_at_once() -> None:
    """As before: who measures refusals wants many."""
    answers = iter([LATER, LATER, NOTHING])
    async with plain(lambda *_: next(answers)) as port:
        found = await load.opened(port, repeat(ASK), 0.03, 100, lines=2)
    assert found.statuses == {503: 2, 204: 1}
    assert found.quantile(0.99) < 900


class Once(asyncio.Protocol):
    """Each answer is the last on its connection."""

    opened = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One more."""
        self.transport = cast(asyncio.Transport, transport)
        Once.opened += 1

    def data_received(self, data: bytes) -> None:
        """A request comes in one piece here."""
        self.transport.write(NOTHING)
        self.transport.close()


async def test_a_connection_that_is_closed_while_idle_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five requests over one connection at a time."""
    monkeypatch.setattr(Once, "opened", 0)
    server = await asyncio.get_running_loop().create_server(Once, "127.0.0.1", 0)
    async with server:
        found = await load.opened(server.sockets[0].getsockname()[1], repeat(ASK), 0.5, 10, lines=1)
    assert found.statuses == {204: 5}
    assert Once.opened >= 5


@pytest.mark.parametrize(("part", "expected"), [(0.0, 1000), (0.5, 3000), (1.0, 4000)])
def test_quantiles_of_one_status(part: float, expected: float) -> None:
    """In ms, whatever the order of the answers."""
    found = load.Result()
    found.took[200] += [4.0, 1.0, 3.0, 2.0]
    found.took[503] += [0.5]
    assert found.quantile(part, 200) == expected
    assert found.quantile(0.0) == 500
