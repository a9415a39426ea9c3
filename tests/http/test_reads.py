"""Lists are read in turns and within bounds, and an answer to Amazon does not wait for them. On a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from receiver.errors import Overloaded
from receiver.http.limits import AT_ONCE, MOST_WAITING, Reads, TooManyReads
from receiver.ledger.query import Query
from receiver.store import Store
from receiver.store.refunds.refunds import CHUNK, MOST_EXAMINED
from tests.http.kit import ADMIN, READER, US_ONLY, Answer, Service, real_receiver, running, settings
from tests.kit.sns import SnsSigner, notice
from tests.store.makers import fill, refund_id

PAGES = 300


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    async with running(settings("us", "eu"), store, real_receiver(sns, store, "us", "eu")) as service:
        yield service


def chunks_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many refunds each chunk of the store has read."""
    sizes: list[int] = []
    read = store.of("us").refunds._batch

    async def counted(query: Query, place: Any, limit: int) -> Any:
        batch = await read(query, place, limit)
        sizes.append(len(batch))
        return batch

    monkeypatch.setattr(store.of("us").refunds, "_batch", counted)
    return sizes


@pytest.mark.parametrize("limit", [1, 50, 200])
async def test_a_filter_with_no_match_is_cut_and_goes_on(
    service: Service, store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """One request looks at so many, in chunks; the answer says so; the cursor leads to the one that matches."""
    count = 2 * MOST_EXAMINED + 20
    await fill(redis, count)
    await redis.zadd("refunds:{us}:reason:AmazonRejected", {"S01-5105180-3221187-R999999": 1})
    first = refund_id(0)
    await redis.hset(f"refunds:{{us}}:refund:{first}", "state", "Refunded")
    sizes = chunks_read(store, monkeypatch)
    path, cursor, pages, found = (
        f"/v1/refunds?account=us&reason=AmazonRejected&state=Refunded&limit={limit}",
        "",
        [],
        [],
    )
    while True:
        answer = await service.get(path + (f"&cursor={cursor}" if cursor else ""))
        assert answer.status == 200
        pages.append(answer.json["scanCut"])
        found += [each["refundId"] for each in answer.json["refunds"]]
        cursor = answer.json["nextCursor"]
        if not cursor:
            break
    assert found == [first]
    assert pages[:2] == [True, True]
    assert pages[-1] is False
    assert max(sizes) <= CHUNK
    assert sum(sizes[: MOST_EXAMINED // CHUNK]) <= MOST_EXAMINED


async def test_accounts_share_what_one_request_looks_at(
    service: Service, store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for account in ("us", "eu"):
        await fill(redis, MOST_EXAMINED, account)
    sizes = chunks_read(store, monkeypatch)
    answer = await service.get("/v1/refunds?reason=AmazonRejected&state=Refunded&limit=200")
    assert (answer.json["refunds"], answer.json["scanCut"]) == ([], True)
    assert sum(sizes) <= MOST_EXAMINED


async def test_a_full_page_is_not_cut(service: Service, redis: Any) -> None:
    """Nor is the last one."""
    await fill(redis, 230)
    answer = await service.get("/v1/refunds?account=us&limit=200")
    assert (len(answer.json["refunds"]), answer.json["scanCut"]) == (200, False)
    answer = await service.get(f"/v1/refunds?account=us&limit=200&cursor={answer.json['nextCursor']}")
    assert (len(answer.json["refunds"]), answer.json["scanCut"], answer.json["nextCursor"]) == (30, False, None)


def answered(pages: Iterable[asyncio.Task[Answer]]) -> int:
    """How many of the requests have been answered."""
    return sum(page.done() and page.result().status == 200 for page in pages)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No list is refused because the machine is slow."""
    monkeypatch.setattr(Reads.__init__, "__defaults__", (AT_ONCE, MOST_WAITING, 600.0))


async def test_three_hundred_pages_do_not_delay_an_answer_to_amazon(
    patient: None, service: Service, sns: SnsSigner, redis: Any
) -> None:
    """Pages of 200 for three tokens, all at once. A notification waits for the lists that are being read, not for those
    that are queued."""
    await fill(redis, 200)
    bodies = [sns.post_body(notice(ObjectId=refund_id(number))) for number in range(20)]
    assert (await service.call("POST", "/ipn", body=sns.post_body())).status == 200
    crowd = replace(service, session=aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    most = 0
    async with crowd.session:
        pages = [
            asyncio.create_task(
                crowd.get("/v1/refunds?account=us&limit=200", token=(READER, READER, US_ONLY)[number % 3])
            )
            for number in range(PAGES)
        ]
        await asyncio.sleep(0)
        for body in bodies:
            before = answered(pages)
            assert (await service.call("POST", "/ipn", body=body)).status == 200
            most = max(most, answered(pages) - before)
        answers = await asyncio.gather(*pages)
    statuses = [answer.status for answer in answers]
    assert statuses.count(200) >= 2 * MOST_WAITING
    assert set(statuses) <= {200, 429}
    refused = next(answer for answer in answers if answer.status == 429)
    assert (refused.json["reason"], refused.headers["Retry-After"]) == ("too_many_reads", "1")
    assert most <= 2 * AT_ONCE


async def entered(reads: Reads, token: str, order: list[str], go: asyncio.Event) -> None:
    async with reads.turn(token):
        order.append(token)
        await go.wait()


async def started(reads: Reads, *tokens: str) -> tuple[list[asyncio.Task[None]], list[str], asyncio.Event]:
    order, go = list[str](), asyncio.Event()
    tasks = [asyncio.create_task(entered(reads, token, order, go)) for token in tokens]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks, order, go


async def test_tokens_take_turns() -> None:
    """One that asks for ten lists does not hold up one that asks for one."""
    tasks, order, go = await started(Reads(at_once=1), *"aaaaaaaaaa", "b", "c", "b")
    assert order == ["a"]
    go.set()
    await asyncio.gather(*tasks)
    assert "".join(order) == "aabcabaaaaaaa"


async def test_so_many_at_once_and_so_many_waiting() -> None:
    """One more of a token is refused; another token still has room."""
    reads = Reads(most_waiting=3)
    tasks, order, go = await started(reads, *["a"] * (AT_ONCE + 3))
    assert len(order) == AT_ONCE
    with pytest.raises(TooManyReads):
        async with reads.turn("a"):
            raise AssertionError
    more, _, others_go = await started(reads, "b")
    go.set()
    others_go.set()
    await asyncio.gather(*tasks, *more)
    async with reads.turn("a"):
        pass


async def test_who_gives_up_takes_nobodys_turn() -> None:
    """Waiting, admitted in the very turn, or at work; and a failure gives its turn back."""
    reads = Reads(at_once=1)
    tasks, order, go = await started(reads, "a", "a", "b", "c")
    tasks[1].cancel()
    tasks[0].cancel()
    tasks[2].cancel()
    await asyncio.gather(*tasks[:3], return_exceptions=True)
    go.set()
    await tasks[3]
    assert order[-1] == "c"
    with pytest.raises(KeyError):
        async with reads.turn("a"):
            raise KeyError
    async with asyncio.timeout(30):
        async with reads.turn("a"):
            pass


async def test_a_turn_that_comes_too_late_is_503() -> None:
    """Redis hangs: the list ahead does not end."""
    reads = Reads(at_once=1, patience=0.01)
    tasks, _, go = await started(reads, "a")
    with pytest.raises(Overloaded):
        async with reads.turn("b"):
            raise AssertionError
    go.set()
    await asyncio.gather(*tasks)
    async with reads.turn("b"):
        pass


async def test_a_stranger_takes_nobodys_turn(service: Service) -> None:
    """The caller is identified first."""
    assert (await service.get("/v1/refunds", token="nobody")).status == 401
    assert (await service.get("/v1/refunds", token=ADMIN)).status == 403
