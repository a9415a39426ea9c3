"""HTTP. `/v1/subscribers/{name}/deliveries`, `…/redrive` and `…/test`."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Final

import msgspec
from starlette.responses import Response

from receiver.errors import BadRequest, NotFound
from receiver.http.api.bodies import read_object
from receiver.http.api.lookup import find_subscriber
from receiver.http.api.operations import Answer, Body, Call, subscriber_operation
from receiver.http.api.params import ACCOUNT, LIMIT, choice, whole, word
from receiver.http.api.redrive import REDRIVE, STREAM_ID, is_stream_id, read_wanted
from receiver.http.api.schema import (
    DeadDeliveryJson,
    DeliveryListJson,
    RedriveJson,
    TestedJson,
    TestPendingJson,
    TestSentJson,
    WaitingDeliveryJson,
)
from receiver.http.api.subscribers import NAME, ONE
from receiver.http.respond import json_answer
from receiver.ledger.audit import Action, Actor, AuditEntry, Outcome
from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import Money
from receiver.ledger.refund import Refund, Source, State
from receiver.ledger.schema import extended
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.events.event import Event, to_fields
from receiver.outbox.retries import Tested
from receiver.store import Store
from receiver.store.deliveries.dead_letters import DeadLetters, Redriven, Waiting
from receiver.store.redis.stream_ids import fixed_width, written_at

MOST_SHOWN = 100
"""How many ids the answer to a redrive lists."""
TEST_WAIT, LOOK_EVERY = 30.0, 0.1
PLACE = re.compile(rf"([0-9]{{1,16}})[.]({STREAM_ID.pattern})")
FIRST = "0-0"
STATE: Final = choice("state", "Which deliveries to list.", ("waiting", "dead"), "dead")
CURSOR: Final = word(
    "cursor",
    "`nextCursor` of the previous page, for the same state.",
    {"type": "string", "pattern": whole(STREAM_ID, PLACE)},
)


class DeliveryApi:
    """The handlers. `now` is ms since the epoch, UTC."""

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store, self._now = store, now

    @subscriber_operation(
        "GET",
        "/v1/subscribers/{name}/deliveries",
        id="listDeliveries",
        summary="Waiting or permanently failed deliveries of a subscriber",
        parameters=(NAME, ACCOUNT, STATE, CURSOR, LIMIT),
        reasons=({400: ("bad_cursor",)}, *ONE),
        in_turn=True,
    )
    async def many(self, call: Call) -> DeliveryListJson:
        """Dead ones newest first, waiting ones by their next attempt."""
        account, subscriber = await find_subscriber(self._store, call.accounts, call[NAME])
        state, cursor, limit = call[STATE], call[CURSOR], call[LIMIT]
        shown: list[DeadDeliveryJson] | list[WaitingDeliveryJson]
        if state == "dead":
            if cursor and not STREAM_ID.fullmatch(cursor):
                raise _bad_cursor()
            dead = await self._store.of(account).deliveries.dead_page(subscriber.name, before=cursor, limit=limit)
            shown = [_dead(each) for each in dead]
            after = dead[-1].stream_id if len(dead) == limit else None
        else:
            place = PLACE.fullmatch(cursor)
            if cursor and not place:
                raise _bad_cursor()
            start = (int(place[1]), place[2]) if place else None
            waiting = await self._store.of(account).deliveries.waiting_page(subscriber.name, after=start, limit=limit)
            shown = [_waiting(each) for each in waiting]
            after = f"{waiting[-1].at}.{waiting[-1].stream_id}" if len(waiting) == limit else None
        return DeliveryListJson(
            account=account,
            state=state,
            deliveries=shown,
            next_cursor=after,
        )

    @subscriber_operation(
        "POST",
        "/v1/subscribers/{name}/redrive",
        id="redrive",
        summary="Resend events to a subscriber, with the same webhook-id",
        parameters=(NAME, ACCOUNT),
        body=Body(REDRIVE),
        answers=(
            Answer(200, RedriveJson, "A dry run: nothing was changed."),
            Answer(202, RedriveJson, "The events are queued."),
        ),
        reasons=({400: ("bad_redrive",)}, *ONE),
    )
    async def redrive(self, call: Call) -> Response:
        """With `ids`, or `since` and `until`, or `all`; `dryRun` changes nothing.

        A time range and `all` select dead events. `ids` (of the event, or in the stream) select any event still kept,
        including delivered ones. They are sent at the subscriber's rate, with the same `webhook-id`.
        """
        account, subscriber = await find_subscriber(self._store, call.accounts, call[NAME])
        wanted = read_wanted(await read_object(call.request))
        name, deliveries = subscriber.name, self._store.of(account).deliveries
        if wanted.ids:
            found, missing = await _by_ids(deliveries, name, wanted.ids)
        else:
            found, missing = [each async for each in _dead_ids(deliveries, name, wanted.since, wanted.until)], []
        entry = AuditEntry(
            action=Action.SUBSCRIBER_REDRIVE,
            actor=call.actor,
            subscriber=name,
            outcome=Outcome.ACCEPTED,
            count=len(found),
        )
        counts = Redriven() if wanted.dry_run else await deliveries.redrive(name, found, entry)
        body = RedriveJson(
            account=account,
            dry_run=wanted.dry_run,
            selected=len(found),
            stream_ids=found[:MOST_SHOWN],
            missing=missing,
            redriven=counts.dead + counts.again,
            already_waiting=counts.waiting,
        )
        return json_answer(body, 200 if wanted.dry_run else 202)

    @subscriber_operation(
        "POST",
        "/v1/subscribers/{name}/test",
        id="testSubscriber",
        summary="Send a subscriber one test event, even while it is paused",
        about="Returns once the subscriber has answered, after 30 seconds at most.",
        parameters=(NAME, ACCOUNT),
        answers=(
            Answer(200, TestedJson, "Sent; `delivered` says whether the subscriber accepted it."),
            Answer(202, TestPendingJson, "Not sent yet."),
        ),
        reasons=ONE,
    )
    async def test(self, call: Call) -> Response:
        """Sends one test event to this subscriber only; 200 with its answer.

        202 if it was not sent in time: no worker is running, or other deliveries to the subscriber are in progress.
        """
        account, subscriber = await find_subscriber(self._store, call.accounts, call[NAME])
        event, stream_id = await send_test(self._store, account, subscriber.name, self._now(), call.actor)
        outcome = await within(TEST_WAIT, lambda: self._store.of(account).deliveries.test_result(stream_id))
        sent = TestSentJson(account=account, id=event.id, type=event.type.value)
        if not outcome:
            return json_answer(extended(TestPendingJson, sent, error="Not sent yet. Is a worker running?"), 202)
        tested = msgspec.json.decode(outcome, type=Tested)
        body = extended(
            TestedJson,
            sent,
            delivered=tested.delivered,
            status=tested.status or None,
            error=tested.error or None,
            answer=tested.answer or None,
            seconds=tested.seconds,
            note=tested.note or None,
        )
        return json_answer(body)


async def send_test(store: Store, account: str, name: str, now: int, actor: Actor) -> tuple[Event, str]:
    """Queue a test event for the subscriber. Returns it with the stream id for its result. Raises `NotFound`."""
    event = a_test(account, now, secrets.token_hex(16))
    stream_id = f"{now}-{10**18 + secrets.randbelow(10**18)}"
    entry = AuditEntry(
        action=Action.SUBSCRIBER_TEST, actor=actor, subscriber=name, event_id=event.id, outcome=Outcome.ACCEPTED
    )
    if not await store.of(account).deliveries.enqueue_test(name, stream_id, to_fields(event), entry):
        raise NotFound("The subscriber was removed.", reason="no_such_subscriber")
    return event, stream_id


def a_test(account: str, now: int, random: str) -> Event:
    """An event about a fictitious refund; `random` is 32 hex digits, so that each test has its own id."""
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


async def _dead_ids(deliveries: DeadLetters, name: str, since: int, until: int) -> AsyncIterator[str]:
    before = ""
    while page := await deliveries.dead_page(name, before=before, since=since, until=until, limit=500):
        before = page[-1].stream_id
        for each in page:
            yield each.stream_id


async def _by_ids(deliveries: DeadLetters, name: str, ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """The stream ids selected, and the ids not found. Searches dead events first, then the whole stream."""
    streams = [each for each in ids if is_stream_id(each)]
    found = {each: each for each in await deliveries.known(name, streams)}
    looked_for = set(ids) - set(streams)
    before = ""
    while looked_for - set(found):
        page = await deliveries.dead_page(name, before=before, limit=500)
        found |= {each.event_id: each.stream_id for each in page if each.event_id in looked_for}
        if not page:
            break
        before = page[-1].stream_id
    after = FIRST
    while looked_for - set(found):
        entries = await deliveries.stream_page(after)
        found |= {fields["id"]: at for at, fields in entries if fields.get("id") in looked_for}
        if not entries:
            break
        after = entries[-1][0]
    return sorted(set(found.values()), key=fixed_width), [each for each in ids if each not in found]


async def within(seconds: float, look: Callable[[], Awaitable[bytes]]) -> bytes:
    """What `look` finds within the time; empty if nothing."""
    for _ in range(int(seconds / LOOK_EVERY)):
        if found := await look():
            return found
        await asyncio.sleep(LOOK_EVERY)
    return await look()


def _bad_cursor() -> BadRequest:
    return BadRequest("`cursor` does not come from a page of this list.", reason="bad_cursor")


def _dead(dead: DeadEvent) -> DeadDeliveryJson:
    return DeadDeliveryJson(
        id=dead.event_id or None,
        stream_id=dead.stream_id,
        type=dead.type or None,
        refund_id=dead.refund_id or None,
        written_at=format_rfc3339(written_at(dead.stream_id)),
        reason=dead.reason,
        dead_at=format_rfc3339(dead.at),
        attempts=dead.attempts,
        last_status=dead.last_status or None,
        last_error=dead.last_error or None,
        last_answer=dead.excerpt or None,
    )


def _waiting(waiting: Waiting) -> WaitingDeliveryJson:
    tried = waiting.attempts
    return WaitingDeliveryJson(
        id=waiting.fields.get("id"),
        stream_id=waiting.stream_id,
        type=waiting.fields.get("type"),
        refund_id=waiting.fields.get("refundId"),
        written_at=format_rfc3339(written_at(waiting.stream_id)),
        next_attempt_at=format_rfc3339(waiting.at),
        attempts=tried.count,
        last_status=tried.last_status or None,
        last_error=tried.last_error or None,
        last_answer=tried.excerpt or None,
    )
