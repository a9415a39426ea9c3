"""The model of the store: what must be true, in plain Python; and all that Redis holds, to compare it with.

The model knows who holds what; it knows nothing of scores, tokens, revisions' checks or scripts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from receiver.ledger.lifecycle import EventType
from receiver.ledger.notification import Hint
from receiver.ledger.refund import Observation, Refund, Revision
from receiver.outbox.events.event import event_id, from_fields
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.store.refunds.codec import from_hash, from_line
from tests.kit.clock import T0
from tests.store.makers import refund_id

NAMES = ("audit", "finance")
REFUNDS = (1, 2, 3, 4, 5)
KEY = "refunds:{us}"
TYPE = "amazonpay.refund."
FINAL = ("Refunded", "Declined")
RANK = {"RefundInitiated": 0, "Refunded": 2, "Declined": 3}
DAY = 86_400_000
CONFLICT_WATCHED = 600_000


@dataclass(frozen=True)
class Known:
    """A refund, as far as the model cares."""

    state: str
    updated: int
    reason: str
    first_seen: int
    changed: int
    revision: int = 1
    finals: frozenset[tuple[str, int]] = frozenset()
    conflict: bool = False
    told: frozenset[str] = frozenset()
    case: str = ""
    """Of a decline: open, closed, or untracked; empty without one."""

    @property
    def pending(self) -> bool:
        return self.state not in FINAL


@dataclass(frozen=True)
class Happening:
    """An event: what happened to which refund, and with which reason."""

    number: int
    type: str
    reason: str
    about: tuple[str, int] = field(default=("", 0), compare=False)
    """Which final contradicts, of a conflict; the stream's entry shows it in the id alone."""

    @property
    def id(self) -> str:
        return event_id("us", refund_id(self.number), EventType(f"{TYPE}{self.type}"), *self.about)


def order(state: str, updated: int, reason: str) -> tuple[bool, int, int, str, str]:
    """Of two observations the greater wins. What follows the rank makes ties come out the same in any order."""
    return state in FINAL, updated, RANK.get(state, 1), state, reason


def join(known: Known | None, it: Observation, now: int, number: int) -> tuple[Known, list[Happening]] | None:
    """The result of an observation for what is known; None if nothing changes."""
    final = {(it.state, it.updated_at)} if it.state in FINAL else set()
    new = known or Known(it.state, it.updated_at, it.reason_code, now, now, 0)
    about: list[tuple[str, int]] = []
    if order(it.state, it.updated_at, it.reason_code) > order(new.state, new.updated, new.reason):
        new = replace(new, state=it.state, updated=it.updated_at, reason=it.reason_code)
    if known and not known.pending and known.state != it.state:
        about = [each for each in final if each not in known.finals]
    new = replace(new, finals=new.finals | final, conflict=new.conflict or bool(about))
    born = T0 if now >= T0 else new.first_seen
    types = {"Refunded": ["refunded"], "Declined": ["declined"], "RefundInitiated": ["initiated"]}.get(new.state, [])
    if new.pending and now - born > DAY:
        types = [*types, "stuck"]
    fresh = [each for each in types if each not in new.told]
    new = replace(new, told=new.told | set(fresh), case=case_of(new, now))
    if new == known:
        return None
    new = replace(new, revision=new.revision + 1, changed=now)
    events = [Happening(number, "conflict", new.reason, each) for each in about]
    events += [Happening(number, each, new.reason) for each in fresh]
    if new.case == "closed" and known and known.case == "open":
        events.append(Happening(number, "resolved", new.reason, (f"refunded {refund_id(number)}", new.updated)))
    if new.case == "open" and known and known.case == "closed":
        events.append(Happening(number, "reopened", new.reason, ("open ", new.updated)))
    return new, events


def case_of(it: Known, now: int) -> str:
    """A decline is an open case until the buyer has the money."""
    if it.state == "Refunded":
        return "closed" if it.case else ""
    if it.state != "Declined":
        return it.case
    if it.case in ("open", "untracked"):
        return it.case
    return "open" if it.case == "closed" or now - it.updated <= 30 * DAY else "untracked"


@dataclass
class Owed:
    """One event in one lane."""

    at: int
    attempts: int = 0
    holder: int = 0


@dataclass
class Model:
    """What must be true. Claims are numbered from 1; 0: not claimed."""

    known: dict[int, Known] = field(default_factory=dict)
    due: dict[int, int] = field(default_factory=dict)
    holder: dict[int, int] = field(default_factory=dict)
    hinted: dict[int, Hint] = field(default_factory=dict)
    """What is remembered of the last hint, until the refund is claimed."""
    told: set[int] = field(default_factory=set)
    """By notifications."""
    refreshed: dict[int, int] = field(default_factory=dict)
    """Number → when a refresh was first asked for."""
    digests: dict[str, str] = field(default_factory=dict)
    blocked: int = 0
    events: list[Happening] = field(default_factory=list)
    subscribers: dict[str, Subscriber] = field(default_factory=dict)
    version: int = 0
    queues: dict[str, dict[int, Owed]] = field(default_factory=dict)
    dead: dict[str, set[int]] = field(default_factory=dict)

    def write(self, number: int, new: Known, events: list[Happening]) -> None:
        """State and events; each event is owed to the subscribers that want it now."""
        self.known[number] = new
        for event in events:
            for name, each in self.subscribers.items():
                names = {event.type, "declined"} if event.type in ("resolved", "reopened") else {event.type}
                wanted = not {"*", *(f"{TYPE}{name}" for name in names)}.isdisjoint(each.types)
                if wanted and (not event.reason or not each.reasons or event.reason in each.reasons):
                    self.queues[name][len(self.events)] = Owed(new.changed)
            self.events.append(event)


def watched(known: Known | None, now: int) -> bool:
    """Whether the refund is asked about by itself: until it is final, and a while after a contradiction."""
    if known is None:
        return False
    return known.pending or (known.conflict and now - known.changed < CONFLICT_WATCHED)


def told(fields: Any) -> Happening:
    """What an entry of the stream says happened."""
    event = from_fields("us", fields)
    kind = event.type.rpartition(".")[2]
    number = int(event.refund.refund_id[-6:])
    return Happening(number, kind, event.refund.reason_code)


@dataclass
class DiagnosticsSource:
    """All that Redis holds, by the numbers of the refunds and the names of the subscribers."""

    due: dict[int, int]
    hinted: set[int]
    refreshed: set[int]
    events: list[tuple[str, dict[str, str]]]
    refunds: dict[int, Refund]
    histories: dict[int, list[Revision]]
    queues: dict[str, tuple[dict[str, int], list[str], set[str], set[str]]]


async def look_into(client: Any) -> DiagnosticsSource:
    """Read behind the store's back."""
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.zrange(f"{KEY}:due", 0, -1, withscores=True).zrange(f"{KEY}:hinted", 0, -1).zrange(
            f"{KEY}:refreshed", 0, -1
        )
        pipeline.xrange(f"{KEY}:events")
        for number in REFUNDS:
            pipeline.hgetall(f"{KEY}:refund:{refund_id(number)}")
            pipeline.lrange(f"{KEY}:history:{refund_id(number)}", 0, -1)
        for name in NAMES:
            pipeline.zrange(f"{KEY}:lane:{name}", 0, -1, withscores=True).zrange(f"{KEY}:owed:{name}", 0, -1)
            pipeline.hkeys(f"{KEY}:attempts:{name}").hkeys(f"{KEY}:dead:{name}")
        due, hinted, refreshed, events, *rest = await pipeline.execute()
    of_refunds, of_names = rest[: 2 * len(REFUNDS)], rest[2 * len(REFUNDS) :]
    refunds = {n: from_hash("us", refund_id(n), raw) for n, raw in zip(REFUNDS, of_refunds[::2], strict=True)}
    histories = {
        number: [from_line(line) for line in lines] for number, lines in zip(REFUNDS, of_refunds[1::2], strict=True)
    }
    queues = {}
    for at, name in enumerate(NAMES):
        queue, *others = of_names[4 * at : 4 * at + 4]
        owed, attempts, dead = ([each.decode() for each in other] for other in others)
        queues[name] = ({member.decode(): int(score) for member, score in queue}, owed, set(attempts), set(dead))
    return DiagnosticsSource(
        {int(member[-6:]): int(score) for member, score in due},
        {int(member[-6:]) for member in hinted},
        {int(member[-6:]) for member in refreshed},
        [(i.decode(), {k.decode(): v.decode() for k, v in fields.items()}) for i, fields in events],
        {number: refund for number, refund in refunds.items() if refund},
        histories,
        queues,
    )
