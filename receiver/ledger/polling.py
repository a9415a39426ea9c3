"""Pure. When to ask Amazon again about a refund."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from receiver.ledger.age import DAY, started_at
from receiver.ledger.charge import has_more_to_tell
from receiver.ledger.refund import FPS, Refund, is_final
from receiver.ledger.timestamps import SPAN, milliseconds, parse_duration

STEP = re.compile(rf"every\s+({SPAN})(?:until\s+({SPAN}))?", re.IGNORECASE)
AGE = re.compile(SPAN, re.IGNORECASE)

DEFAULT_POLL = (
    "1m",
    "5m",
    "15m",
    "30m",
    "1h",
    "every 1h until 1d",
    "every 6h until 14d",
    "every 1d until 30d",
    "every 7d",
)
"""Amazon recommends polling about hourly. Early polls are more frequent: most refunds settle within minutes. The plan
never ends."""

FOLLOW_UPS = (5_000, 30_000, 120_000, 600_000)
"""Waits (ms) after a hint that found nothing new: a notification can arrive before Get Refund shows the change."""

CONFLICT_AGES = (60_000, 600_000)
"""Ages (ms) of a conflict at which Amazon is asked again."""

FACT_AGES = (60_000, 600_000, 3_600_000, 21_600_000)
"""Ages (ms) of a final state at which the charge is read, if it could not be read at once."""

SECOND_LOOKS = ("1d", "7d", "30d")
"""Ages of a final state at which Amazon is asked again: no document says that a final state never changes."""
SECOND_LOOK_SPREAD = 3_600_000
"""ms: the maximum jitter of a second look. It spreads refunds that became final together."""

JITTER = 0.1
"""The maximum jitter, as a part of the wait. It spreads refunds that started in the same minute."""


@dataclass(frozen=True, slots=True)
class Step:
    """Poll every `wait` ms until the age `until` (ms); None is for ever."""

    wait: int
    until: int | None


@dataclass(frozen=True, slots=True)
class PollPlan:
    """The ages at which a pending refund is polled: single ages first, then repeating steps."""

    ages: tuple[int, ...]
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> PollPlan:
        """Parse ages (`"5m"`), then steps (`"every 1h until 1d"`, `"every 7d"`), in ascending order.

        Raises `ValueError` with a sentence that says what is wrong.
        """
        ages: list[int] = []
        steps: list[Step] = []
        for entry in entries:
            if step := STEP.fullmatch(entry.strip()):
                wait, until = step.groups()
                steps.append(Step(_ms(wait), _ms(until) if until else None))
            elif AGE.fullmatch(entry.strip()) and not steps:
                ages.append(_ms(entry))
            else:
                raise ValueError(
                    f'{entry!r} is neither an age ("5m", before all steps) nor a step ("every 1h until 1d").'
                )
        cls._check(ages, steps)
        return cls(tuple(ages), tuple(steps))

    @staticmethod
    def _check(ages: list[int], steps: list[Step]) -> None:
        if not ages and not steps:
            raise ValueError("A poll plan needs at least one entry.")
        if any(step.wait <= 0 for step in steps) or any(age <= 0 for age in ages):
            raise ValueError("Ages and waits must be greater than zero.")
        ends = [*ages, *(step.until for step in steps[:-1])]
        if None in ends or (steps and steps[-1].until is not None):
            raise ValueError('Every step but the last needs an "until", and the last must not have one.')
        whole = [end for end in ends if end is not None]
        if whole != sorted(set(whole)):
            raise ValueError("Entries must come in ascending order of age.")
        if not steps:
            raise ValueError('The last entry must be a step without end, such as "every 7d".')

    def next_after(self, age: int) -> int:
        """The first poll age (ms) greater than `age`."""
        for point in self.ages:
            if point > age:
                return point
        for step in self.steps:
            point = (max(age, 0) // step.wait + 1) * step.wait
            if step.until is None or point <= step.until:
                return point
        raise AssertionError("the last step has no end")  # pragma: no cover - parse() sees to it


def next_look(refund: Refund, now: int, plan: PollPlan, random: float) -> int | None:
    """When (ms) to ask Amazon about this refund again; None is never automatically.

    `random` in [0, 1) is the jitter.
    """
    if refund.conflict:
        return _next_of(CONFLICT_AGES, refund, now)
    if is_final(refund.state):
        return _next_of(FACT_AGES, refund, now) if has_more_to_tell(refund) else None
    origin = started_at(refund, now)
    age = max(now - origin, 0)
    point = plan.next_after(age)
    return origin + point + int((point - age) * JITTER * random)


def second_look(refund: Refund, now: int, ages: Sequence[int], random: float) -> int | None:
    """When (ms) to ask Amazon again about a final refund; None: not again, or it is not final.

    `ages` (ms) count from Amazon's time of the state, so an old refund that was imported is not asked about again.
    `random` in [0, 1) is the jitter.
    """
    age = _settled_for(refund, now)
    if age is None or (point := next((each for each in ages if each > age), None)) is None:
        return None
    return now + point - age + int(min((point - age) * JITTER, SECOND_LOOK_SPREAD) * random)


def second_look_again(refund: Refund, now: int, ages: Sequence[int]) -> int | None:
    """When (ms) to ask again after a second look to which Amazon gave no answer; None: given up after a day."""
    age = _settled_for(refund, now)
    is_late = age is None or not ages or age > ages[-1] + DAY
    return None if is_late else now + SECOND_LOOK_SPREAD


def _settled_for(refund: Refund, now: int) -> int | None:
    """For how long (ms) the refund has had its final state, according to Amazon's time of that state. None for Flexible
    Payments, which Amazon has retired."""
    if not is_final(refund.state) or refund.refund_type == FPS:
        return None
    since = min(refund.updated_at or refund.changed_at, refund.changed_at)
    return max(now - since, 0)


def _next_of(ages: tuple[int, ...], refund: Refund, now: int) -> int | None:
    age = now - refund.changed_at
    return next((refund.changed_at + point for point in ages if point > age), None)


def next_follow_up(step: int, now: int) -> int | None:
    """When (ms) to ask again after `step` earlier follow-ups (from 0) found nothing new; None: no more follow-ups."""
    return now + FOLLOW_UPS[step] if step < len(FOLLOW_UPS) else None


def backoff(first: int, most: int, failures: int, random: float) -> int:
    """The wait (ms) before the next attempt. It doubles with each earlier failure up to `most`; `random` sets its upper
    half."""
    return int(min(first * 2 ** min(failures, 20), most) * (0.5 + random / 2))


def _ms(span: str) -> int:
    return milliseconds(parse_duration(span))
