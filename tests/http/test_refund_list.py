"""`GET /v1/refunds`: filters, pages, cursors, several accounts as one list."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import BadRequest
from receiver.http.api.listing import merged, read_cursor, write_cursor
from receiver.ledger.query import Page, Query
from receiver.ledger.refund import Refund, Source
from receiver.store import Store
from tests.http.kit import US_ONLY, Service, real_receiver, running, settings
from tests.http.test_refund_api import seen
from tests.kit.clock import T0, ManualClock
from tests.kit.sns import SnsSigner


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    """Two accounts: us and eu."""
    async with running(settings("us", "eu"), store, real_receiver(sns, store, "us", "eu")) as service:
        yield service


async def ids(service: Service, query: str = "", **more: Any) -> list[str]:
    """The ids of one page."""
    answer = await service.get(f"/v1/refunds?{query}", **more)
    assert answer.status == 200, answer.body
    return [refund["refundId"] for refund in answer.json["refunds"]]


async def test_newest_change_first_over_all_accounts(service: Service, store: Store, clock: ManualClock) -> None:
    """One list of every account that the token may see."""
    for number in range(6):
        await seen(store, ("us", "eu")[number % 2], f"S01-{number}")
        clock.tick(1_000)
    assert await ids(service) == [f"S01-{number}" for number in (5, 4, 3, 2, 1, 0)]
    assert await ids(service, "account=eu") == ["S01-5", "S01-3", "S01-1"]
    assert await ids(service, token=US_ONLY) == ["S01-4", "S01-2", "S01-0"]


async def test_filters(service: Service, store: Store, clock: ManualClock) -> None:
    """State, reason, charge and time each leave out what does not match."""
    await seen(store, "us", "S01-1", charge="C-1")
    await seen(store, "us", "S01-2", "Declined", reason="AmazonRejected", charge="C-1")
    await seen(store, "eu", "S01-3", "Declined", reason="ProcessingFailure", charge="C-2")
    clock.tick(10_000)
    await seen(store, "us", "S01-4", "Refunded", charge="C-2")
    assert await ids(service, "state=Declined") == ["S01-3", "S01-2"]
    assert await ids(service, "reason=AmazonRejected") == ["S01-2"]
    assert await ids(service, "charge=C-1") == ["S01-2", "S01-1"]
    assert await ids(service, "state=Declined&charge=C-2") == ["S01-3"]
    for since in ("2025-10-09T08:53:25Z", "20251009T085325Z", "2025-10-09T10:53:25%2B02:00"):
        assert await ids(service, f"since={since}") == ["S01-4"]


async def test_words_are_known_in_any_letter_case_and_misspelt_ones_are_errors(service: Service, store: Store) -> None:
    """An empty list would hide the mistake. A word that Amazon adds is known once a refund has it."""
    await seen(store, "us", "S01-1", "Declined", reason="AmazonRejected")
    await seen(store, "us", "S01-2", "Declined", reason="NewlyInvented")
    await seen(store, "us", "S01-3", "Reversed")
    for query in ("state=declined&reason=AMAZONREJECTED", "reason=NewlyInvented", "state=Reversed"):
        assert len(await ids(service, query)) == 1, query
    assert await ids(service, "state=completed") == await ids(service, "state=Declined&reason=Chargeback") == []
    for query, reason, known in (
        ("state=Declind", "unknown_state", "RefundInitiated, Refunded, Declined"),
        ("reason=NewlyInvente", "unknown_reason", "AmazonRejected, ProcessingFailure"),
    ):
        answer = await service.get(f"/v1/refunds?{query}")
        assert (answer.status, answer.json["reason"]) == (400, reason)
        assert known in answer.json["detail"]
    assert await ids(service, "state=Reversed&reason=AmazonRejected") == []


async def test_pages_join_without_gap_or_repetition(service: Service, store: Store, clock: ManualClock) -> None:
    """Whatever the page size, also where changes share a millisecond, every refund comes once."""
    for number in range(23):
        await seen(store, ("us", "eu")[number % 3 == 0], f"S01-{number:02}")
        clock.tick((0, 0, 1)[number % 3])
    whole = await ids(service, "limit=200")
    assert len(whole) == 23
    for limit in (1, 2, 3, 7, 22, 23):
        found: list[str] = []
        cursor = ""
        for _ in range(40):
            answer = await service.get(f"/v1/refunds?limit={limit}" + (f"&cursor={cursor}" if cursor else ""))
            found += [refund["refundId"] for refund in answer.json["refunds"]]
            cursor = answer.json["nextCursor"]
            if not cursor:
                break
        assert found == whole, limit


async def test_a_change_between_pages_loses_nothing(service: Service, store: Store, clock: ManualClock) -> None:
    """What changes moves to the top; what was not shown yet is still shown."""
    for number in range(6):
        await seen(store, ("us", "eu")[number % 2], f"S01-{number}")
        clock.tick(1)
    first = await service.get("/v1/refunds?limit=2")
    await seen(store, "us", "S01-4", "Refunded")
    rest = await ids(service, f"limit=50&cursor={first.json['nextCursor']}")
    assert rest == ["S01-3", "S01-2", "S01-1", "S01-0"]


@pytest.mark.parametrize("change", ["cut", "grown", "flipped", "word", "of_other_filters", "of_other_accounts"])
async def test_an_altered_cursor_is_400(service: Service, store: Store, clock: ManualClock, change: str) -> None:
    """Also one that belongs to another list."""
    for number in range(3):
        await seen(store, "us", f"S01-{number}")
        clock.tick(1)
    cursor = (await service.get("/v1/refunds?limit=1")).json["nextCursor"]
    altered = {
        "cut": cursor[:-1],
        "grown": cursor + "A",
        "flipped": ("B" if cursor[0] == "A" else "A") + cursor[1:],
        "word": "next",
        "of_other_filters": cursor + "&state=Refunded",
        "of_other_accounts": cursor + "&account=us",
    }[change]
    answer = await service.get(f"/v1/refunds?cursor={altered}")
    assert (answer.status, answer.json["reason"]) == (400, "bad_cursor")


ODD = """
limit=0 limit=201 limit=x since=yesterday since=2025-10-09 since=2025-10-09T08:53:25
state=a%20b stat=Declined state=a&state=b reason= charge=a/b
"""


@pytest.mark.parametrize("query", ODD.split())
async def test_odd_parameters_are_400(service: Service, query: str) -> None:
    """Each names the parameter."""
    answer = await service.get(f"/v1/refunds?{query}")
    assert answer.status == 400
    assert query.split("=")[0] in answer.json["detail"]


async def test_unknown_parameters_are_named_with_a_suggestion(service: Service) -> None:
    """A misspelt filter would otherwise show everything."""
    answer = await service.get("/v1/refunds?stat=Declined")
    assert (answer.json["reason"], answer.json["detail"]) == (
        "unknown_parameter",
        "Unknown parameter: stat. Did you mean state?",
    )


PLACES = st.from_regex(r"\A[0-9]{1,13}_[A-Za-z0-9-]{1,64}\Z")


@given(PLACES, st.builds(Query, state=st.sampled_from(["", "Declined"]), since=st.integers(0, 9)))
def test_cursors_come_back_as_they_went(place: str, query: Query) -> None:
    """For the same list, and for no other."""
    cursor = write_cursor(place, query, ["us"])
    assert read_cursor(cursor, query, ["us"]) == place
    with pytest.raises(BadRequest):
        read_cursor(cursor, query, ["us", "eu"])


@given(st.text(min_size=1, max_size=60))
def test_any_text_as_cursor_is_a_bad_request(text: str) -> None:
    """The reader of cursors has one way to fail."""
    with pytest.raises(BadRequest):
        read_cursor(text, Query(), ["us"])


class Lists:
    """Accounts' lists in memory, with pages like the store's: some are shorter than requested, but not the last."""

    def __init__(self, refunds: list[Refund], most: int) -> None:
        self._refunds = sorted(refunds, key=lambda refund: (refund.changed_at, refund.refund_id), reverse=True)
        self._most = most

    def of(self, account: str) -> Lists:
        return Lists([refund for refund in self._refunds if refund.account == account], self._most)

    @property
    def refunds(self) -> Lists:
        """Where the store has the pages."""
        return self

    async def page(self, query: Query, cursor: str = "", limit: int = 50, examine: int = 1_000) -> Page:
        """At most `most` are examined."""
        at, _, refund_id = cursor.partition("_")
        rest = [
            refund
            for refund in self._refunds
            if not cursor or (refund.changed_at, refund.refund_id) < (int(at), refund_id)
        ]
        examined = rest[: min(self._most, limit)]
        found = tuple(refund for refund in examined if query.matches(refund))
        more = len(rest) > len(examined)
        return Page(found, f"{examined[-1].changed_at}_{examined[-1].refund_id}" if more else "")


REFUNDS = st.builds(
    lambda account, refund_id, changed_at, state: Refund(
        account=account,
        refund_id=refund_id,
        state=state,
        revision=1,
        updated_at=T0,
        first_seen_at=T0,
        changed_at=changed_at,
        source=Source.POLL,
    ),
    st.sampled_from(["us", "eu", "jp"]),
    st.sampled_from("abcdef"),
    st.integers(1, 5),
    st.sampled_from(["Declined", "Refunded"]),
)


@given(
    st.lists(REFUNDS, max_size=30, unique_by=lambda refund: (refund.account, refund.refund_id)),
    st.integers(1, 5),
    st.integers(1, 7),
    st.sampled_from(["", "Declined"]),
)
async def test_merged_pages_are_the_whole_list(refunds: list[Refund], most: int, limit: int, state: str) -> None:
    """For any lists, page sizes and filters: every refund once, newest first."""
    store, query, cursor = cast(Store, Lists(refunds, most)), Query(state=state), ""
    found: list[Refund] = []
    for _ in range(200):
        page = await merged(store, ["us", "eu", "jp"], query, cursor, limit)
        found += page.refunds
        cursor = page.next_cursor
        if not cursor:
            break
    assert cursor == ""
    places = [(refund.changed_at, refund.refund_id) for refund in found]
    assert places == sorted(places, reverse=True)
    assert sorted(found, key=repr) == sorted(filter(query.matches, refunds), key=repr)


async def test_a_damaged_refund_is_named_beside_the_others(service: Service, store: Store, redis: Any) -> None:
    """The list has all others; the refund itself answers 503 with its key."""
    for number in range(3):
        await seen(store, "us", f"S01-{number}")
    bad = (await ids(service))[0]
    await redis.hset(f"refunds:{{us}}:refund:{bad}", "revision", "many")
    answer = await service.get("/v1/refunds")
    assert (len(answer.json["refunds"]), answer.json["unreadable"]) == (2, [bad])
    one = await service.get(f"/v1/refunds/{bad}?account=us")
    assert (one.status, one.json["reason"]) == (503, "store_record_unreadable")
