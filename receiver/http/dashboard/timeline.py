"""HTTP. The timeline of one refund: its revisions, what triggered them, its disputes, events and deliveries, by day."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from receiver.http.dashboard.filters import day
from receiver.ledger.dispute import Dispute, DisputeChange
from receiver.ledger.refund import Refund, Revision
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.retries import DeliveryAttempts
from receiver.store.account import AccountStore
from receiver.store.redis.damage import StoreDamaged
from receiver.store.refunds.timeline import DELIVERY, TimelineEntry

MOST_DEAD = 2_000
"""How many dead events of a subscriber are scanned for one refund. Beyond these, only events still in the stream."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery of one event to one subscriber; `state` is waiting or dead."""

    subscriber: str
    state: str
    next_at: int = 0
    attempts: DeliveryAttempts | None = None
    dead: DeadEvent | None = None


@dataclass(frozen=True, slots=True)
class TimelineLine:
    """One line of the timeline: a revision, an entry of the trail, a dispute, a change of it, or an event with its open
    deliveries."""

    at: int
    revision: Revision | None = None
    trace: TimelineEntry | None = None
    event_type: str = ""
    dispute: Dispute | None = None
    change: DisputeChange | None = None
    """A change of the dispute; None: it became known."""
    deliveries: Sequence[Delivery] = ()


@dataclass(frozen=True, slots=True)
class TimelineDay:
    """The lines of one day in UTC. `label` is `29 November 2026`."""

    label: str
    lines: Sequence[TimelineLine]


async def timeline_of(
    store: AccountStore, refund: Refund, history: Sequence[Revision], disputes: Sequence[Dispute], *, deliveries: bool
) -> list[TimelineDay]:
    """The refund's timeline, oldest first; `deliveries`: with what subscribers were sent, and are owed."""
    subscribers = await store.subscribers.readable() if deliveries else []
    names = [subscriber.name for subscriber in subscribers]
    trail, events = await asyncio.gather(
        store.timelines.read(refund.refund_id),
        store.dashboard.refund_events(refund.refund_id, history, names),
    )
    there = {event.stream_id for event in events}
    dead = await asyncio.gather(*(_dead(store, refund, name, [*there]) for name in names))
    given_up = [(name, each) for name, events in zip(names, dead, strict=True) for each in events]
    steps = [TimelineLine(revision.at, revision) for revision in history]
    steps += [TimelineLine(each.first_told_at, dispute=each) for each in disputes]
    steps += [TimelineLine(change.at, dispute=each, change=change) for each in disputes for change in each.changes]
    steps += [TimelineLine(trace.at, trace=trace) for trace in trail if deliveries or trace.what != DELIVERY]
    for event in events:
        rows = [Delivery(name, "waiting", at, tried) for name, (at, tried) in event.waiting.items()]
        rows += [Delivery(name, "dead", dead=each) for name, each in given_up if each.stream_id == event.stream_id]
        steps.append(TimelineLine(event.at, event_type=event.fields.get("type", ""), deliveries=rows))
    steps += [
        TimelineLine(each.at, event_type=each.type, deliveries=[Delivery(name, "dead", dead=each)])
        for name, each in given_up
        if each.stream_id not in there
    ]
    steps.sort(key=_order)
    return [TimelineDay(label, list(lines)) for label, lines in groupby(steps, lambda step: day(step.at))]


async def _dead(store: AccountStore, refund: Refund, name: str, stream_ids: Sequence[str]) -> list[DeadEvent]:
    try:
        state = await store.dashboard.queue_state(name)
    except StoreDamaged:
        return []
    if not 0 < state.dead <= MOST_DEAD:
        return await store.deliveries.dead_of(name, stream_ids) if state.dead else []
    found = await store.deliveries.dead_events(name)
    return [event for event in found if event.refund_id == refund.refund_id]


def _order(step: TimelineLine) -> tuple[int, int]:
    """By time. At the same time: what triggered the poll, its result, the resulting events, then their deliveries."""
    if step.dispute is not None:
        return step.at, 0
    if step.trace is not None:
        return step.at, 3 if step.trace.what == DELIVERY else 0
    return step.at, 1 if step.revision is not None else 2
