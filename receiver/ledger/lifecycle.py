"""Pure. How an observation from Amazon changes a refund: a total table and a join.

No other module compares states.
Observations are joined: the one ranked higher by (final?, lastUpdatedTimestamp, rank) wins. So any order and any
repetition ends in the same state, and a late answer never reopens a final refund.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec

from receiver.ledger.age import STUCK_AFTER, is_backfill, is_stuck
from receiver.ledger.refund import (
    FIELD_NAMES,
    UNKNOWN_STATE,
    Observation,
    Refund,
    RetryRefused,
    Source,
    State,
    is_final,
    is_theirs,
)

MOST_FINALS = 16
"""Maximum number of final states kept for one refund. A refund that exceeds it is in conflict anyway."""
Details = Mapping[str, str | bool | tuple[str, ...] | RetryRefused]
"""Fields of a refund from sources other than Get Refund: the charge, an XML notification, the issuer."""
REVISED = frozenset({"retryable", "retry_refused"})
"""Details that can change: the latest value wins."""
ISSUERS = REVISED | {"order_reference"}
"""Details for which the issuer overrides the charge, in either order."""
UNREAD = "unread"
"""The detail that names further unreadable fields: a tuple of their names."""
OF_THE_STATE = {
    "reasonCode": "reason_code",
    "reasonDescription": "reason_description",
    "lastUpdatedTimestamp": "updated_at",
}
"""Fields that belong to the state. A new state replaces them, even with empty values."""
OF_THE_REFUND = ("charge_id", "amount", "soft_descriptor", "created_at", "environment")
"""Fields that are the same in every state. Any answer that has them fills those that are empty."""


class EventType(StrEnum):
    """The event types that subscribers receive; each at most once per refund, CONFLICT once per new final state."""

    INITIATED = "amazonpay.refund.initiated"
    REFUNDED = "amazonpay.refund.refunded"
    DECLINED = "amazonpay.refund.declined"
    STUCK = "amazonpay.refund.stuck"
    CONFLICT = "amazonpay.refund.conflict"
    RESOLVED = "amazonpay.refund.resolved"
    """The case of a declined refund was closed, by Amazon or a person; REOPENED undoes that. Sent each time."""
    REOPENED = "amazonpay.refund.reopened"
    TEST = "amazonpay.refund.test"
    """Concerns no refund: sent to one subscriber on request."""


class Phase(StrEnum):
    """The phase of a refund. An unknown state is PENDING: it is stored, shown and polled."""

    UNSEEN = "unseen"
    PENDING = "pending"
    REFUNDED = "refunded"
    DECLINED = "declined"


class Move(StrEnum):
    """How an observation changes the known refund."""

    APPEAR = "appear"
    """First seen, still pending."""
    SETTLE = "settle"
    """First final state."""
    JOIN = "join"
    """The same phase again: the higher-ranked observation wins; no event."""
    LATE = "late"
    """A pending answer after a final one: ignored."""
    CONTRADICT = "contradict"
    """A final state that differs from the known one."""


TABLE: dict[Phase, dict[Phase, Move]] = {
    Phase.UNSEEN: {
        Phase.PENDING: Move.APPEAR,
        Phase.REFUNDED: Move.SETTLE,
        Phase.DECLINED: Move.SETTLE,
    },
    Phase.PENDING: {
        Phase.PENDING: Move.JOIN,
        Phase.REFUNDED: Move.SETTLE,
        Phase.DECLINED: Move.SETTLE,
    },
    Phase.REFUNDED: {
        Phase.PENDING: Move.LATE,
        Phase.REFUNDED: Move.JOIN,
        Phase.DECLINED: Move.CONTRADICT,
    },
    Phase.DECLINED: {
        Phase.PENDING: Move.LATE,
        Phase.REFUNDED: Move.CONTRADICT,
        Phase.DECLINED: Move.JOIN,
    },
}
"""Known phase → seen phase → move. An observation is never UNSEEN."""

FINAL_PHASE: dict[str, Phase] = {State.REFUNDED: Phase.REFUNDED, State.DECLINED: Phase.DECLINED}
FINAL_EVENT: dict[str, EventType] = {State.REFUNDED: EventType.REFUNDED, State.DECLINED: EventType.DECLINED}
RANK: dict[str, int] = {UNKNOWN_STATE: -1, State.INITIATED: 0, State.REFUNDED: 2, State.DECLINED: 3}
UNKNOWN_RANK = 1


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """One event. `state` and `updated_at` distinguish events of one type. For CONFLICT they are those of the
    contradicting answer; for RESOLVED and REOPENED, how and when the case changed."""

    type: EventType
    state: str = ""
    updated_at: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """The result of an observation. If nothing has to be written, `refund` equals `known`."""

    known: Refund | None
    refund: Refund
    emissions: tuple[PendingEvent, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to write."""
        return self.refund is self.known


def phase(state: str | None) -> Phase:
    """The phase of a state; None means that the refund has not been seen yet."""
    return Phase.UNSEEN if state is None else FINAL_PHASE.get(state, Phase.PENDING)


def decide(
    account: str,
    known: Refund | None,
    seen: Observation,
    *,
    source: Source,
    now: int,
    details: Details = MappingProxyType({}),
    stuck_after: int = STUCK_AFTER,
    region: str = "",
) -> Change:
    """The change to `known` that follows from the observation `seen`.

    `now` and `stuck_after` are in ms; `region` is the account's. `details` come from other sources than Amazon's answer
    (see `with_details`). Total: every pair of phases has an answer.
    """
    move = TABLE[phase(known.state if known else None)][phase(seen.state)]
    seen = _steady(seen, known)
    if known is None:
        refund = _first(account, seen, source, now, details)
        emissions: tuple[PendingEvent, ...] = ()
    else:
        revised = ISSUERS if source is Source.CREATE else REVISED
        refund, emissions = _joined(with_details(known, details, revised), seen, move)
    refund, emissions = _with_events(refund, emissions, move, now, stuck_after)
    if refund.state == State.REFUNDED and is_theirs(refund.reason_code):
        # Amazon's older pages for the EU: the reason code of a Refunded refund says who started it.
        refund = msgspec.structs.replace(refund, refund_type=refund.reason_code)
    if refund.backfill != (is_old := is_backfill(known, refund)):
        refund = msgspec.structs.replace(refund, backfill=is_old)
    if refund == known and known is not None:
        return Change(known, known)
    revision = known.revision + 1 if known else 1
    found = {"revision": revision, "changed_at": now, "source": source, "region": region or refund.region}
    return Change(known, msgspec.structs.replace(refund, **found), emissions)


def _steady(seen: Observation, known: Refund | None) -> Observation:
    """Without a time from Amazon, a repeated answer keeps the time at which it was first received."""
    if (
        seen.is_dated
        or known is None
        or (seen.state, seen.reason_description) != (known.state, known.reason_description)
    ):
        return seen
    return msgspec.structs.replace(seen, updated_at=known.updated_at)


def _fields(seen: Observation) -> dict[str, Any]:
    """The fields of an observation that are copied to the refund."""
    return {name: value for name, value in msgspec.structs.asdict(seen).items() if name not in ("is_dated", "unread")}


def _first(account: str, seen: Observation, source: Source, now: int, details: Details) -> Refund:
    refund = Refund(
        account=account,
        revision=1,
        first_seen_at=now,
        changed_at=now,
        source=source,
        finals=(_final_key(seen),) if is_final(seen.state) else (),
        **_fields(seen),
    )
    given = {name: value for name, value in details.items() if name != UNREAD}
    return _noted(msgspec.structs.replace(refund, **given), _names(seen) | _also(details))


def _joined(known: Refund, seen: Observation, move: Move) -> tuple[Refund, tuple[PendingEvent, ...]]:
    refund, unread = known, set(known.unread)
    if _order(seen) > _order(known):
        # Fields of the state are replaced even by empty values: the time of an older state does not apply to this one.
        latest = {name: getattr(seen, name) for name in OF_THE_STATE.values()}
        kept = {name: value for name, value in _fields(seen).items() if value}
        refund = msgspec.structs.replace(refund, **kept | latest)
        unread = (unread - OF_THE_STATE.keys()) | _names(seen)
    elif move is Move.JOIN:
        refund = with_details(refund, {name: getattr(seen, name) for name in OF_THE_REFUND}, ())
    refund = _noted(refund, unread)
    is_full = len(known.finals) >= MOST_FINALS and (known.conflict or move is not Move.CONTRADICT)
    if not is_final(seen.state) or _final_key(seen) in known.finals or is_full:
        return refund, ()
    refund = msgspec.structs.replace(refund, finals=tuple(sorted((*known.finals, _final_key(seen)))))
    if move is not Move.CONTRADICT:
        return refund, ()
    refund = msgspec.structs.replace(refund, conflict=True)
    return refund, (PendingEvent(EventType.CONFLICT, seen.state, seen.updated_at),)


def _with_events(
    refund: Refund, emissions: tuple[PendingEvent, ...], move: Move, now: int, stuck_after: int
) -> tuple[Refund, tuple[PendingEvent, ...]]:
    """Add the events that happen at most once per refund, and record them on the refund."""
    due = []
    if is_final(refund.state):
        due.append(FINAL_EVENT[refund.state])
    else:
        if refund.state == State.INITIATED:
            due.append(EventType.INITIATED)
        if is_overdue(refund, now, stuck_after):
            due.append(EventType.STUCK)
    fresh = tuple(kind for kind in due if kind not in refund.emitted)
    if fresh:
        refund = msgspec.structs.replace(refund, emitted=tuple(sorted((*refund.emitted, *fresh))))
    return refund, emissions + tuple(PendingEvent(kind) for kind in fresh)


def is_overdue(known: Refund, now: int, stuck_after: int = STUCK_AFTER) -> bool:
    """Whether the refund is stuck (`now` in ms) and no stuck event has been sent."""
    return EventType.STUCK not in known.emitted and is_stuck(known, now, stuck_after)


def as_observation(known: Refund) -> Observation:
    """The known state as an observation, for refunds about which Amazon returns nothing."""
    return Observation(
        refund_id=known.refund_id,
        state=known.state,
        updated_at=known.updated_at,
        reason_code=known.reason_code,
        reason_description=known.reason_description,
        amount=known.amount,
    )


def with_details(known: Refund, details: Details, revised: Collection[str] = REVISED) -> Refund:
    """The refund with the details that it lacked; the same object if there are none.

    Keys of `details` are fields of `Refund`. The first value of a field stays, except for fields in `revised`.
    """
    fresh = {
        name: value
        for name, value in details.items()
        if name != UNREAD and value and value != getattr(known, name) and (name in revised or not getattr(known, name))
    }
    refund = msgspec.structs.replace(known, **fresh) if fresh else known
    return _noted(refund, {*known.unread} | _also(details))


def _names(seen: Observation) -> set[str]:
    return {each.field for each in seen.unread}


def _also(details: Details) -> set[str]:
    named = details.get(UNREAD)
    return set(named) if isinstance(named, tuple) else set()


def _noted(refund: Refund, unread: Collection[str]) -> Refund:
    """The refund, with `unread` updated: unreadable fields that are still empty."""
    left = tuple(sorted(name for name in unread if name in FIELD_NAMES and not getattr(refund, FIELD_NAMES[name])))
    return refund if left == refund.unread else msgspec.structs.replace(refund, unread=left)


def _final_key(seen: Observation) -> str:
    return f"{seen.state}@{seen.updated_at}"


def _order(known_or_seen: Refund | Observation) -> tuple[bool, int, int, str, str, str, str]:
    """The order of the join. The fields after the rank only make ties independent of the order of arrival."""
    it = known_or_seen
    rank = RANK.get(it.state, UNKNOWN_RANK)
    amount = str(it.amount or "")
    return is_final(it.state), it.updated_at, rank, it.state, it.reason_code, it.reason_description, amount
