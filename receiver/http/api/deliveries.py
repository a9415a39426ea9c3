"""HTTP. `/v1/subscribers/{name}/deliveries`, `…/redrive` and `…/test`. All of it needs the scope `admin`."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import BadRequest, NotFound
from receiver.http.api.auth import Tokens
from receiver.http.api.bodies import read_object
from receiver.http.api.lookup import admin, named
from receiver.http.api.params import Params, read_time
from receiver.http.api.respond import json_answer
from receiver.http.api.schema import (
    DeadDeliveryJson,
    DeliveryListJson,
    RedriveJson,
    TestedJson,
    TestPendingJson,
    TestSentJson,
    WaitingDeliveryJson,
)
from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import Money
from receiver.ledger.refund import Refund, Source, State
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.events.event import EVENT_ID, Event, to_fields
from receiver.outbox.retries import Tested
from receiver.store import Store
from receiver.store.deliveries.dead_letters import Redriven, Waiting
from receiver.store.redis.stream_ids import fixed_width

LIMIT, MOST, MOST_IDS = 50, 200, 1000
MOST_SHOWN = 100
"""Ids that the answer to a redrive names."""
TEST_WAIT, LOOK_EVERY = 30.0, 0.1
STREAM_ID = re.compile(r"([0-9]{1,15})-([0-9]{1,19})")
"""Redis has 64 bits for each number: 20 digits may be too many."""
CURSOR = re.compile(rf"([0-9]{{1,16}})[.]({STREAM_ID.pattern})")
FIRST = "0-0"


class DeliveryApi:
    """The handlers. `now` is ms since the epoch, UTC."""

    def __init__(self, store: Store, tokens: Tokens, now: Callable[[], int]) -> None:
        self._store, self._tokens, self._now = store, tokens, now

    async def many(self, request: Request) -> Response:
        """`GET …/deliveries?state=waiting|dead&cursor=&limit=`: dead ones newest first, waiting ones by next try."""
        caller = admin(self._tokens, request)
        params = Params(request, ("account", "state", "cursor", "limit"))
        account, subscriber = await named(self._store, caller, request, params)
        state, cursor = params.text("state") or "dead", params.text("cursor")
        limit = params.number("limit", LIMIT, 1, MOST)
        shown: list[DeadDeliveryJson] | list[WaitingDeliveryJson]
        if state == "dead":
            if cursor and not STREAM_ID.fullmatch(cursor):
                raise _bad_cursor()
            dead = await self._store.deliveries.dead_page(account, subscriber.name, before=cursor, limit=limit)
            shown = [_dead(each) for each in dead]
            after = dead[-1].stream_id if len(dead) == limit else None
        elif state == "waiting":
            place = CURSOR.fullmatch(cursor)
            if cursor and not place:
                raise _bad_cursor()
            start = (int(place[1]), place[2]) if place else None
            waiting = await self._store.deliveries.waiting_page(account, subscriber.name, after=start, limit=limit)
            shown = [_waiting(each) for each in waiting]
            after = f"{waiting[-1].at}.{waiting[-1].stream_id}" if len(waiting) == limit else None
        else:
            raise BadRequest("`state` is waiting or dead.", reason="bad_parameter")
        body: DeliveryListJson = {"account": account, "state": state, "deliveries": shown, "nextCursor": after}
        return json_answer(body)

    async def redrive(self, request: Request) -> Response:
        """`POST …/redrive` with `ids`, or `since` and `until`, or `all`; with `dryRun` nothing is changed.

        A time range and `all` are about dead events; ids (of the event, or in the stream) about any event that is
        still kept, also one that was delivered. They are sent at the subscriber's rate, with the same `webhook-id`.
        """
        caller = admin(self._tokens, request)
        account, subscriber = await named(self._store, caller, request, Params(request, ("account",)))
        wanted = _read_wanted(await read_object(request))
        name = subscriber.name
        if wanted.ids:
            found, missing = await self._by_ids(account, name, wanted.ids)
        else:
            found, missing = [each async for each in self._dead_ids(account, name, wanted.since, wanted.until)], []
        counts = Redriven() if wanted.dry_run else await self._store.deliveries.redrive(account, name, found)
        body: RedriveJson = {
            "account": account,
            "dryRun": wanted.dry_run,
            "selected": len(found),
            "streamIds": found[:MOST_SHOWN],
            "missing": missing,
            "redriven": counts.dead + counts.again,
            "alreadyWaiting": counts.waiting,
        }
        return json_answer(body, 200 if wanted.dry_run else 202)

    async def _dead_ids(self, account: str, name: str, since: int, until: int) -> Any:
        before = ""
        while page := await self._store.deliveries.dead_page(
            account, name, before=before, since=since, until=until, limit=500
        ):
            before = page[-1].stream_id
            for each in page:
                yield each.stream_id

    async def _by_ids(self, account: str, name: str, ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """The stream ids that are meant, and what is nowhere to be found: dead ones first, then the whole stream."""
        streams = [each for each in ids if _is_stream_id(each)]
        found = {each: each for each in await self._store.deliveries.known(account, name, streams)}
        looked_for = set(ids) - set(streams)
        before = ""
        while looked_for - set(found):
            page = await self._store.deliveries.dead_page(account, name, before=before, limit=500)
            found |= {each.event_id: each.stream_id for each in page if each.event_id in looked_for}
            if not page:
                break
            before = page[-1].stream_id
        after = FIRST
        while looked_for - set(found):
            entries = await self._store.deliveries.stream_page(account, after)
            found |= {fields["id"]: at for at, fields in entries if fields.get("id") in looked_for}
            if not entries:
                break
            after = entries[-1][0]
        return sorted(set(found.values()), key=fixed_width), [each for each in ids if each not in found]

    async def test(self, request: Request) -> Response:
        """`POST …/test`: one test event for this subscriber alone, also while it is paused; 200 with its answer.

        202 where nobody has sent it in time: no worker runs, or others are being sent to it.
        """
        caller = admin(self._tokens, request)
        account, subscriber = await named(self._store, caller, request, Params(request, ("account",)))
        now = self._now()
        event = a_test(account, now, secrets.token_hex(16))
        stream_id = f"{now}-{10**18 + secrets.randbelow(10**18)}"
        if not await self._store.deliveries.enqueue_test(account, subscriber.name, stream_id, to_fields(event)):
            raise NotFound("The subscriber was removed.", reason="no_such_subscriber")
        outcome = await _within(TEST_WAIT, lambda: self._store.deliveries.test_result(account, stream_id))
        sent: TestSentJson = {"account": account, "id": event.id, "type": event.type.value}
        if not outcome:
            pending: TestPendingJson = {
                **sent,
                "delivered": None,
                "error": "Nobody has sent it yet. Does a worker run?",
            }
            return json_answer(pending, 202)
        tested = msgspec.json.decode(outcome, type=Tested)
        body: TestedJson = {
            **sent,
            "delivered": tested.delivered,
            "status": tested.status or None,
            "error": tested.error or None,
            "answer": tested.answer or None,
            "seconds": tested.seconds,
            "note": tested.note or None,
        }
        return json_answer(body)


class Wanted(msgspec.Struct, frozen=True):
    """What is to be sent again."""

    ids: tuple[str, ...]
    since: int
    until: int
    dry_run: bool


def a_test(account: str, now: int, random: str) -> Event:
    """An event about a refund that never was; `random` is 32 hex digits, so that each test has an id of its own."""
    refund = Refund(
        account=account,
        refund_id="S01-0000000-0000000-R000000",
        charge_id="S01-0000000-0000000-C000000",
        state=State.DECLINED,
        reason_code="AmazonRejected",
        reason_description="This is a test: there is no such refund.",
        amount=Money(Decimal("1.00"), "USD"),
        revision=1,
        updated_at=now // 1000 * 1000,
        first_seen_at=now,
        changed_at=now,
        source=Source.REFRESH,
    )
    return Event(id=f"evt_{random}", type=EventType.TEST, account=account, at=now, refund=refund)


def _read_wanted(body: dict[str, Any]) -> Wanted:
    unknown = sorted(set(body) - {"ids", "since", "until", "all", "dryRun"})
    if unknown:
        raise BadRequest(
            f"Not a field here: {ascii(unknown[0])[:50]}. Known: ids, since, until, all, dryRun.", reason="bad_redrive"
        )
    ids, flags = body.get("ids"), {key: body.get(key, False) for key in ("all", "dryRun")}
    ways = (ids is not None) + ("since" in body or "until" in body) + (flags["all"] is True)
    if ways != 1 or any(not isinstance(flag, bool) for flag in flags.values()):
        raise BadRequest("Give one of: ids, since and until, all (true).", reason="bad_redrive")
    if ids is not None and (
        not isinstance(ids, list)
        or not 1 <= len(ids) <= MOST_IDS
        or any(not isinstance(i, str) or not (EVENT_ID.fullmatch(i) or _is_stream_id(i)) for i in ids)
    ):
        raise BadRequest(
            f"`ids` is a list of 1 to {MOST_IDS} ids, such as evt_… (webhook-id) or 1760000000000-0 (streamId).",
            reason="bad_redrive",
        )
    times = [_time(body, key) for key in ("since", "until")]
    if times[1] and times[0] > times[1]:
        raise BadRequest("`since` is later than `until`: nothing lies between them.", reason="bad_redrive")
    return Wanted(tuple(ids or ()), times[0], times[1], flags["dryRun"])


def _is_stream_id(text: str) -> bool:
    """Redis counts the second part in 64 bits, and refuses more."""
    found = STREAM_ID.fullmatch(text)
    return found is not None and int(found[2]) < 2**64


def _time(body: dict[str, Any], key: str) -> int:
    if key not in body:
        return 0
    try:
        return max(read_time(body[key] if isinstance(body[key], str) else ""), 1)
    except ValueError:
        raise BadRequest(f"`{key}` is a time such as 2026-01-31T12:00:00Z.", reason="bad_redrive") from None


async def _within(seconds: float, look: Callable[[], Awaitable[bytes]]) -> bytes:
    for _ in range(int(seconds / LOOK_EVERY)):
        if found := await look():
            return found
        await asyncio.sleep(LOOK_EVERY)
    return await look()


def _bad_cursor() -> BadRequest:
    return BadRequest("`cursor` is not one that a page of this list gave.", reason="bad_cursor")


def _dead(dead: DeadEvent) -> DeadDeliveryJson:
    return {
        "id": dead.event_id or None,
        "streamId": dead.stream_id,
        "type": dead.type or None,
        "refundId": dead.refund_id or None,
        "writtenAt": format_rfc3339(int(dead.stream_id.partition("-")[0])),
        "reason": dead.reason,
        "deadAt": format_rfc3339(dead.at),
        "attempts": dead.attempts,
        "lastStatus": dead.last_status or None,
        "lastError": dead.last_error or None,
        "lastAnswer": dead.excerpt or None,
    }


def _waiting(waiting: Waiting) -> WaitingDeliveryJson:
    tried = waiting.attempts
    return {
        "id": waiting.fields.get("id"),
        "streamId": waiting.stream_id,
        "type": waiting.fields.get("type"),
        "refundId": waiting.fields.get("refundId"),
        "writtenAt": format_rfc3339(int(waiting.stream_id.partition("-")[0])),
        "nextAttemptAt": format_rfc3339(waiting.at),
        "attempts": tried.count,
        "lastStatus": tried.last_status or None,
        "lastError": tried.last_error or None,
        "lastAnswer": tried.excerpt or None,
    }
