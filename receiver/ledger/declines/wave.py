"""Pure. A wave of AmazonRejected declines: when it raises the alarm that the balance is negative, and its end.

Three declines of an account within an hour raise one alarm. The next alarm can be raised once the wave has ended: no
such decline for an hour. The alarm is over when the last open case of its wave is closed. A backfill (`age.py`) does
not count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from receiver.ledger.lifecycle import Change, EventType
from receiver.ledger.refund import Reason

ENOUGH: Final = 3
"""This many declines within `WITHIN` raise the alarm."""
WITHIN: Final = 3_600_000
"""ms. A wave also ends when it has had no decline for this long."""


@dataclass(frozen=True, slots=True)
class Wave:
    """What is known of an account's declines."""

    recent: Mapping[str, int] = field(default_factory=dict)
    """Refund → when its decline was recorded (ms), within `WITHIN`."""
    last: int = 0
    """When the last decline was recorded, ms."""
    alarm: str = ""
    """The id of the alarm that this wave has raised; empty if it has raised none."""
    open_cases: Mapping[str, str] = field(default_factory=dict)
    """First refund of a chain → the alarm of its wave, while its case is open."""


@dataclass(frozen=True, slots=True)
class WaveStep:
    """How changes of one refund affect the wave. The store writes the step only if the wave has not changed since it
    was read."""

    since: int
    """ms: earlier declines no longer count."""
    declined: str = ""
    """The refund whose decline counts; empty if there is none."""
    root: str = ""
    """The first refund of its chain."""
    alarm: str = ""
    """The alarm that the wave had raised before."""
    raises: Sequence[str] | None = None
    """The other refunds of the alarm that this decline raises; None if it raises none."""
    closed: str = ""
    """The first refund of a chain whose case is closed."""
    ends: str = ""
    """The alarm that ends because this was the last open case of its wave; empty if none ends."""

    @property
    def is_nothing(self) -> bool:
        """Whether the wave stays as it is."""
        return not (self.declined or self.closed)


def concerns(changes: Collection[Change]) -> bool:
    """Whether the changes can concern a wave."""
    return any(_counts(each) or _closes(each) for each in changes)


def step(wave: Wave, changes: Collection[Change], now: int) -> WaveStep:
    """How the changes affect the wave at `now` (ms)."""
    since = now - WITHIN
    refund = next((each.refund for each in changes if _counts(each)), None)
    closed = next((each.refund.refund_id for each in changes if _closes(each)), "")
    alarm = wave.alarm if refund and wave.last >= since else ""
    others = [name for name, at in wave.recent.items() if at >= since and refund and name != refund.refund_id]
    return WaveStep(
        since=since,
        declined=refund.refund_id if refund else "",
        root=(refund.retry_root or refund.refund_id) if refund else "",
        alarm=alarm,
        raises=others if refund and not alarm and len(others) + 1 >= ENOUGH else None,
        closed=closed,
        ends=_ended(wave, closed),
    )


def _ended(wave: Wave, closed: str) -> str:
    alarm = wave.open_cases.get(closed, "")
    others = [root for root, its in wave.open_cases.items() if its == alarm and root != closed]
    return "" if others else alarm


def _counts(change: Change) -> bool:
    refund = change.refund
    is_new = any(each.type is EventType.DECLINED for each in change.emissions)
    return is_new and refund.reason_code == Reason.AMAZON_REJECTED and not refund.backfill


def _closes(change: Change) -> bool:
    return any(each.type is EventType.RESOLVED for each in change.emissions)
