"""Pure. Faults on demand: a list of rules, each used a number of times.

| trick | at | what it does |
|---|---|---|
| `duplicate` | notification | posts it `copies` times, with the same MessageId |
| `drop` | notification | never posts it |
| `delay` | notification | posts it `seconds` later |
| `reorder` | notification | holds it back until after the next one of the same refund, or for `seconds` (0: 5) |
| `forge` | notification | posts a forged one of `kind` (or of every kind, one after the other) before it |
| `unfamiliar` | notification | names the refund in an undocumented way: of `kind`, or of every kind in turn |
| `throttle` | call | 429, with `Retry-After: seconds` if `seconds` is given |
| `error` | call | 500, and nothing is done |
| `lost_answer` | call | does it, but answers 500 |
| `garbage` | call | does it, and answers 200 with something that is not JSON |
| `half` | call | does it, and cuts the connection in the middle of the answer |
| `wrong_refund` | call | answers with another refund's or dispute's id |
| `odd_field` | call | answers with an unreadable field: of `kind`, or all of them except id and state |
| `hang` | call | does it, but answers only after `seconds`; 0: never |
| `refuse` | call | does nothing, and refuses the request as `kind` says (`refusals.py`; none: for its date) |
| `clock` | call | answers as a host whose clock is `seconds` off (negative: behind), and rejects dates in its future |

A rule can be limited to a place (one of `CALLS`; default: all calls), to one refund, dispute or report (`refundId`)
and, for notifications of Amazon Pay, to the state that they are about. With `every`, it applies to each n-th matching
case. The first matching rule is used. Over HTTP, a fault for a single call can be requested with the unsigned header
`x-amz-pay-simulator-mischief: <trick>` or `<trick>;seconds=<n>`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from receiver.simulator.notifications.forgeries import Forgery
from receiver.simulator.notifications.notices import Unfamiliar
from receiver.simulator.odd_fields import ODD_FIELDS
from receiver.simulator.refusals import REFUSALS

NOTIFICATION = "notification"
MOST_OFF = 86_400
"""Seconds by which the clock of a host may be off."""
CALLS = (
    *("get_refund", "get_charge", "get_dispute", "create_refund", "fps_refund"),
    *("create_report", "get_reports", "get_report", "get_report_document", "download_report"),
)


class Trick(StrEnum):
    """A fault; see the table above."""

    DUPLICATE = "duplicate"
    DROP = "drop"
    DELAY = "delay"
    REORDER = "reorder"
    FORGE = "forge"
    UNFAMILIAR = "unfamiliar"
    THROTTLE = "throttle"
    ERROR = "error"
    LOST_ANSWER = "lost_answer"
    GARBAGE = "garbage"
    HALF = "half"
    WRONG_REFUND = "wrong_refund"
    ODD_FIELD = "odd_field"
    HANG = "hang"
    REFUSE = "refuse"
    CLOCK = "clock"


ON_NOTIFICATIONS = frozenset({Trick.DUPLICATE, Trick.DROP, Trick.DELAY, Trick.REORDER, Trick.FORGE, Trick.UNFAMILIAR})
KINDS: dict[Trick, tuple[str, ...]] = {
    Trick.FORGE: tuple(Forgery),
    Trick.UNFAMILIAR: tuple(Unfamiliar),
    Trick.ODD_FIELD: tuple(ODD_FIELDS),
    Trick.REFUSE: tuple(REFUSALS),
}
"""The tricks that have kinds."""


class Rule(msgspec.Struct, rename="camel"):
    """One rule. `times` counts down with each use; None is for ever."""

    trick: Trick
    times: int | None = 1
    place: str = ""
    """One call; empty: every call. Not used for notifications."""
    refund_id: str = ""
    state: str = ""
    seconds: float = 0.0
    copies: int = 2
    kind: str = ""
    """One of `KINDS`; empty: every kind in turn."""
    share: float = 1.0
    """The probability of use in a matching case."""
    every: int = 1
    """Used in every second, third, … matching case."""
    used: int = 0
    met: int = 0
    """How many matching cases there were."""

    def __post_init__(self) -> None:
        """Raise ValueError for a rule that is invalid or could never match."""
        if not all(isinstance(text, str) for text in (self.place, self.refund_id, self.state, self.kind)):
            raise ValueError("place, refund_id, state and kind are texts")
        if self.kind and self.kind not in KINDS.get(self.trick, ()):
            known = "; ".join(f"for {trick}: {', '.join(kinds)}" for trick, kinds in KINDS.items())
            raise ValueError(f"kind is one of these: {known}")
        if self.place and (self.place not in CALLS or self.trick in ON_NOTIFICATIONS):
            raise ValueError(f"place is one of {', '.join(CALLS)}, and not for tricks on notifications")
        if self.state and self.trick not in ON_NOTIFICATIONS:
            raise ValueError("state is for tricks on notifications")
        least = -MOST_OFF if self.trick is Trick.CLOCK else 0
        if not 1 <= self.every <= 1000:
            raise ValueError("every is 1 to 1000")
        if (
            not least <= self.seconds <= (MOST_OFF if least else 3600)
            or not 1 <= self.copies <= 100
            or not 0 < self.share <= 1
        ):
            raise ValueError("seconds is 0 to 3600 (of clock a day at most), copies 1 to 100, share over 0 to 1")
        if self.times is not None and self.times < 1:
            raise ValueError("times is at least 1, or null for ever")

    def fits(self, place: str, refund_id: str, state: str) -> bool:
        """Whether it matches this call or notification, and is not used up."""
        if (place == NOTIFICATION) != (self.trick in ON_NOTIFICATIONS) or self.times == 0:
            return False
        return self.place in ("", place) and self.refund_id in ("", refund_id) and self.state in ("", state)


class FaultInjection:
    """The rules, in the order in which they were added."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.rules: list[Rule] = []
        self._random = random

    def add(self, trick: Trick | str, **rest: object) -> Rule:
        """Add a rule: `add("drop", refund_id=…)`, `add("throttle", times=3, seconds=2)`. Raises ValueError."""
        rule = Rule(Trick(trick), **rest)  # type: ignore[arg-type]  # checked above, field by field
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        self.rules.clear()

    def take(self, place: str, refund_id: str = "", state: str = "") -> Rule | None:
        """The rule for this call or notification, counted as used; None: no fault."""
        return self._take(lambda rule: rule.trick is not Trick.CLOCK and rule.fits(place, refund_id, state))

    def clock(self, place: str, refund_id: str = "") -> Rule | None:
        """The rule for the clock that checks this call, counted as used; None: the clock is right."""
        return self._take(lambda rule: rule.trick is Trick.CLOCK and rule.fits(place, refund_id, ""))

    def _take(self, fits: Callable[[Rule], bool]) -> Rule | None:
        for rule in filter(fits, self.rules):
            rule.met += 1
            if rule.met % rule.every == 0 and (rule.share >= 1 or self._random() < rule.share):
                rule.used += 1
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None


def read_header(text: str) -> Rule | None:
    """The rule in the header `x-amz-pay-simulator-mischief`; None if there is none. Raises ValueError."""
    if not text:
        return None
    trick, _, rest = text.partition(";seconds=")
    rule = Rule(Trick(trick.strip()), seconds=float(rest or 0))
    if rule.trick in ON_NOTIFICATIONS or rule.trick is Trick.CLOCK:
        raise ValueError(f"{trick} is not for a single call")
    return rule
