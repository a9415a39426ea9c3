"""HTTP. Refunds per hour as a bar chart: the position of each rectangle. A template draws it, with a table of the same
numbers. The picture is stretched to the width of the page; its labels are text of the page, so that they keep their
size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from typing import Final

HOUR: Final = 3_600_000
HOURS: Final = 24
WIDTH, HEIGHT = 240, 100
STEP: Final = WIDTH / HOURS
LEAST_TOP: Final = 4
"""The least top of the axis: a single refund does not fill the chart."""
STACKED: Final = (("Declined", "declined"), ("Refunded", "refunded"), ("RefundInitiated", "pending"))
"""State, and its CSS class; from the bottom up."""


@dataclass(frozen=True, slots=True)
class Piece:
    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Hour:
    """One row of the table. `label` is `14:00`."""

    label: str
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All refunds of the hour in one of the three states."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Chart:
    """The picture and its table. `top` is the number at the top of the vertical axis."""

    hours: Sequence[Hour]
    pieces: Sequence[Piece]
    top: int

    @property
    def total(self) -> int:
        return sum(hour.total for hour in self.hours)

    @property
    def marks(self) -> list[str]:
        """The label of every sixth hour, each at the left of a quarter of the picture."""
        return [hour.label for hour in self.hours[::6]]

    @property
    def ticks(self) -> tuple[int, int, int]:
        """The numbers at the vertical axis, from the top down."""
        return self.top, self.top // 2, 0


def edges(now: int) -> list[int]:
    """The full hours (ms, UTC) that bound the counts: 24 spans, the last of which is the current hour."""
    end = (now // HOUR + 1) * HOUR
    return [end - back * HOUR for back in range(HOURS, -1, -1)]


def top_of(most: int) -> int:
    """The least even round number (4, 10, 20, 40, 100, …) that is not below `most`."""
    top, firsts = LEAST_TOP, cycle((10, 20, 40))
    power = 1
    while top < most:
        first = next(firsts)
        top = first * power
        power *= 10 if first == 40 else 1
    return top


def draw(now: int, spans: Sequence[Mapping[str, int]]) -> Chart:
    """The chart of what `Overview.counted` found between `edges(now)`."""
    hours = [
        Hour(
            datetime.fromtimestamp(edge / 1000, UTC).strftime("%H:00"),
            {kind: span.get(state, 0) for state, kind in STACKED},
        )
        for edge, span in zip(edges(now), spans, strict=False)
    ]
    top = top_of(max((hour.total for hour in hours), default=0))
    pieces: list[Piece] = []
    for index, hour in enumerate(hours):
        floor = float(HEIGHT)
        for kind, number in hour.counts.items():
            height = HEIGHT * number / top
            floor -= height
            if number:
                pieces.append(Piece(kind, index * STEP + 1.5, round(floor, 2), STEP - 3, round(height, 2)))
    return Chart(hours, pieces, top)
