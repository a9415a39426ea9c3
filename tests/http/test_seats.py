"""One token cannot take all places of waiting clients, and cannot end other people's sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.errors import Overloaded
from receiver.http.api.auth import Caller
from receiver.http.dashboard import sessions as module
from receiver.http.dashboard.sessions import Sessions
from receiver.http.dashboard.shared import SharedSessions
from receiver.http.seats import Seats, share_of
from receiver.ledger.refund import Source
from receiver.settings.sections import FeedSettings, HttpSettings, Scope
from receiver.store import Store
from receiver.track.record import Recorder
from tests.http.kit import READER, US_ONLY, Service, running
from tests.http.test_dashboard import with_cookie
from tests.http.test_ipn_limits import Judge
from tests.http.test_wire import until_true, with_http
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.store.makers import refund_id, seen

WAITING = f"/v1/refunds/{refund_id()}?account=us&wait=30"


def test_a_token_has_half_of_the_seats_unless_it_is_alone_or_said_otherwise() -> None:
    """The setting counts where there is one."""
    found = [share_of(*of) for of in ((100, None, 2), (7, None, 3), (100, None, 1), (100, 3, 1), (100, 500, 2))]
    assert found == [50, 4, 100, 3, 100]
    assert (HttpSettings().waiting, HttpSettings().waiting_per_token) == (200, None)
    assert (FeedSettings().clients, FeedSettings().clients_per_token) == (100, None)


def test_seats_are_counted_for_each_token_and_given_back() -> None:
    """The problem says which limit it is."""
    changes = list[int]()
    seats = Seats(3, lambda: 2, changes.append, reason="full", settings=("a.most", "a.of_one"))
    seats.take("one")
    seats.take("one")
    for token, key in (("one", "a.of_one"), ("two", None), ("three", "a.most")):
        if key is None:
            seats.take(token)
            continue
        with pytest.raises(Overloaded, match=key) as refused:
            seats.take(token)
        assert (refused.value.status, refused.value.reason, refused.value.retry_after) == (503, "full", 5)
    seats.free("one")
    with seats.taken("three"):
        assert sum(changes) == 3
    assert sum(changes) == 2


async def waits(service: Service, token: str) -> int:
    """The status of an answer to a client that comes again while there is no room."""
    while (answer := await service.get(WAITING, token=token)).status == 503:  # noqa: ASYNC110 - a seat has no event here
        await asyncio.sleep(0.01)
    return answer.status


async def refused(service: Service, token: str) -> bool:
    """Whether the token may not wait."""
    answer = await service.get(WAITING.replace("wait=30", "wait=1"), token=token)
    if answer.status == 503:
        assert (answer.json["reason"], answer.headers["Retry-After"]) == ("too_many_waiting", "5")
    return answer.status == 503


async def test_one_token_does_not_take_all_that_may_wait(store: Store) -> None:
    """Another finds room; who need not wait is answered; a seat whose client has gone is free again."""
    async with running(with_http(waiting=4), store, Judge()) as service:
        waiting = [asyncio.create_task(waits(service, READER)) for _ in range(2)]
        await until_true(lambda: refused(service, READER))
        others = [asyncio.create_task(waits(service, US_ONLY)) for _ in range(2)]
        await until_true(lambda: refused(service, US_ONLY))
        assert (await service.get(WAITING.replace("wait=30", "wait=0"))).status == 404
        await Recorder(store, lambda: 0.0).record(
            make_account(), seen("Declined", 1, "AmazonRejected"), source=Source.POLL
        )
        assert [await each for each in (*waiting, *others)] == [200] * 4
        assert (await service.get(WAITING)).status == 200
        assert not await refused(service, READER)


Makes = Callable[[ManualClock, Path], Sessions]


@pytest.mark.parametrize("make", [lambda clock, _: Sessions(clock), SharedSessions], ids=["memory", "folder"])
def test_one_token_signs_nobody_else_out(
    make: Makes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    """Beyond its own limit its oldest session ends; beyond that of all, the oldest of the token with the most."""
    monkeypatch.setattr(module, "MOST_OF_TOKEN", 5)
    monkeypatch.setattr(module, "MOST_SESSIONS", 8)
    sessions = make(clock, tmp_path)
    alice, mallory, bob = (Caller(name, frozenset({Scope.READ}), ("us",)) for name in ("alice", "mallory", "bob"))
    first = [sessions.begin(alice) for _ in range(2)]
    greedy = [sessions.begin(mallory) for _ in range(20)]
    assert [sessions.of(with_cookie(each)) is not None for each in first] == [True] * 2
    assert [sessions.of(with_cookie(each)) is not None for each in greedy] == [False] * 15 + [True] * 5
    later = [sessions.begin(bob) for _ in range(3)]
    assert [sessions.of(with_cookie(each)) is not None for each in first + later] == [True] * 5
    assert sum(sessions.of(with_cookie(each)) is not None for each in greedy) == 3
    sessions.end(with_cookie(later[0]))
    another = sessions.begin(bob)
    assert [sessions.of(with_cookie(each)) is not None for each in (*later, another)] == [False, True, True, True]
