"""Pure. Whether the case of a declined refund is open, and how it is closed.

A case begins when a refund is declined: the buyer is still owed the money. The refund and the chain of its reissues are
one case, stored with the first refund of the chain. While Amazon says that one of them is Refunded, the case is closed.
A person can close it too, and undo that. Otherwise it is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from receiver.errors import Conflict
from receiver.ledger.audit import Actor
from receiver.ledger.lifecycle import Change, EventType, PendingEvent
from receiver.ledger.refund import How, Refund, Resolution, Source, State
from receiver.ledger.schema import tidy
from receiver.ledger.timestamps import format_rfc3339

TRACKED_FOR: Final = 30 * 86_400_000
"""ms. Default of `track.open_if_younger`."""
BY_PERSON: Final = frozenset({How.REFUNDED_ELSEWHERE, How.COMPENSATED, How.NOT_OWED})
"""The ways in which a person closes a case."""
AS_TEXT: Final[Mapping[How, str]] = MappingProxyType(
    {
        How.REFUNDED: "Amazon reports it as Refunded",
        How.REISSUED: "a reissue is Refunded",
        How.REFUNDED_ELSEWHERE: "refunded by another refund",
        How.COMPENSATED: "the buyer was paid another way",
        How.NOT_OWED: "the buyer is owed nothing",
        How.NOT_TRACKED: "declined before cases were tracked",
    }
)
"""How a case was closed, for people."""


def resolution_of(refund: Refund, now: int, tracked_for: int = TRACKED_FOR) -> Resolution | None:
    """The case as the refund's own state determines it; None if it has no case of its own.

    `now` is in ms. A refund that was declined before cases were recorded gets one here: open if it was declined within
    the last `tracked_for` ms. It dates from the refund's last change, so that reading it again gives the same.
    """
    if refund.retry_root:
        return None
    case = refund.resolution
    if case is None:
        if refund.state != State.DECLINED:
            return None
        is_tracked = now - (refund.updated_at or refund.changed_at) <= tracked_for
        return Resolution(at=refund.changed_at, how=None if is_tracked else How.NOT_TRACKED)
    return _with_payment(case, refund, refund, now)


def with_case(change: Change, now: int, tracked_for: int = TRACKED_FOR) -> Change:
    """The change, with the case of a declined refund opened, closed or reopened as its new state demands."""
    refund = change.refund
    case = resolution_of(refund, now, tracked_for)
    if case == refund.resolution:
        return change
    return _changed(change, case, now, refund.source, settled_at=refund.updated_at)


def with_reissue(root: Refund, reissue: Refund, now: int) -> Change:
    """The change to the first refund of a chain that follows from the state of one of its reissues."""
    change = Change(root, root)
    if root.resolution is None:
        return change
    case = _with_payment(root.resolution, root, reissue, now)
    if case == root.resolution:
        return change
    return _changed(change, case, now, reissue.source, settled_at=reissue.updated_at)


def with_reissues(change: Change, reissues: Iterable[Refund], now: int) -> Change:
    """The change, with the case as all reissues of the refund determine it: for one whose case was not recorded yet."""
    for reissue in reissues:
        found = with_reissue(change.refund, reissue, now)
        if not found.is_nothing:
            refund = found.refund
            if not change.is_nothing:
                refund = msgspec.structs.replace(refund, revision=change.refund.revision)
            change = Change(change.known, refund, (*change.emissions, *found.emissions))
    return change


def closed(root: Refund, how: How, now: int, actor: Actor, *, note: str = "", refund_id: str = "") -> Change:
    """The change with which a person closes a case. Repeating the same closing changes nothing.

    Raises `Conflict`: `not_declined`, or `already_closed` in any other way.
    """
    case = root.resolution
    if case is None:
        raise Conflict(f"Only a declined refund can be closed; this one is {root.state}.", reason="not_declined")
    if (case.how, case.note, case.refund_id) == (how, note, refund_id):
        return Change(root, root)
    if not case.is_open:
        raise already_closed(case)
    after = Resolution(at=now, how=how, by=actor.token, user=actor.user, note=note, refund_id=refund_id, paid=case.paid)
    return _changed(Change(root, root), after, now, Source.PERSON, settled_at=now)


def reopened(root: Refund, now: int, actor: Actor) -> Change:
    """The change with which a person undoes a closing. An open case stays as it is.

    Raises `Conflict`: `not_declined`, or `already_paid` if Amazon says that the buyer has the money.
    """
    case = root.resolution
    if case is None:
        raise Conflict(f"Only a declined refund has a case; this one is {root.state}.", reason="not_declined")
    if case.is_open:
        return Change(root, root)
    if case.paid:
        raise Conflict(
            f"Amazon reports {', '.join(case.paid)} as Refunded: the buyer has the money.", reason="already_paid"
        )
    after = Resolution(at=now, by=actor.token, user=actor.user)
    return _changed(Change(root, root), after, now, Source.PERSON, settled_at=now)


def describe(case: Resolution) -> str:
    """The case in a sentence, for people."""
    who = f" by {tidy(case.user or case.by)}" if case.by or case.user else ""
    if case.how is None:
        return f"The case is open{f': it was reopened{who}' if who else ''}. The buyer may still be owed the money."
    refund = f" ({tidy(case.refund_id)})" if case.refund_id else ""
    return f"The case was closed{who}: {AS_TEXT[case.how]}{refund}."


def already_closed(case: Resolution) -> Conflict:
    """The error for another closing of a closed case. It says how, by whom and when it was closed."""
    next_step = "" if case.paid else " If it is wrong, reopen the case first."
    return Conflict(
        f"{describe(case)} That was at {format_rfc3339(case.at)}.{next_step}",
        reason="already_closed",
    )


def not_reissued(case: Resolution | None) -> Conflict:
    """The error for reissuing a refund whose case is closed. None: its record was pruned, so it may be closed."""
    if case is None:
        return Conflict(
            "The first refund of this chain of reissues was pruned, so it is not known whether the buyer was paid. "
            "Nothing was issued. Check the charge in Seller Central. If the buyer is owed the money, create a refund "
            "of the charge.",
            reason="closed",
        )
    how = AS_TEXT[case.how] if case.how else "it was closed just now"
    return Conflict(
        f"The case of this refund is closed: {how}. Nothing was issued. If the buyer is still owed the money, reopen "
        "it first (`receiver refund reopen`).",
        reason="closed",
    )


def _with_payment(case: Resolution, root: Refund, refund: Refund, now: int) -> Resolution:
    """The case, given the state of one refund of its chain."""
    others = set(case.paid) - {refund.refund_id}
    paid = tuple(sorted(others | {refund.refund_id} if refund.state == State.REFUNDED else others))
    if paid == case.paid:
        return case
    if case.how in BY_PERSON:
        return msgspec.structs.replace(case, paid=paid)
    if not paid:
        return Resolution(at=now)
    if case.paid:
        return msgspec.structs.replace(case, paid=paid)
    how = How.REFUNDED if refund.refund_id == root.refund_id else How.REISSUED
    return Resolution(at=now, how=how, refund_id=refund.refund_id, paid=paid)


def _changed(change: Change, case: Resolution | None, now: int, source: Source, *, settled_at: int) -> Change:
    before = change.refund.resolution
    refund = msgspec.structs.replace(change.refund, resolution=case)
    if change.is_nothing:
        refund = msgspec.structs.replace(refund, revision=refund.revision + 1, changed_at=now, source=source)
    return Change(change.known, refund, (*change.emissions, *_events(before, case, settled_at)))


def _events(before: Resolution | None, after: Resolution | None, settled_at: int) -> tuple[PendingEvent, ...]:
    if before is None or after is None or before.is_open == after.is_open:
        return ()
    kind = EventType.RESOLVED if before.is_open else EventType.REOPENED
    return (PendingEvent(kind, f"{after.how or 'open'} {after.refund_id}", settled_at),)
