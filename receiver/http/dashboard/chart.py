"""HTTP. Refunds per hour as a bar chart: the position of each rectangle. A template draws it, with a table of the same
numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

HOUR: Final = 3_600_000
HOURS: Final = 24
WIDTH, HEIGHT, FOOT = 600, 140, 18
STEP: Final = WIDTH / HOURS
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
    """The picture and its table."""

    hours: Sequence[Hour]
    pieces: Sequence[Piece]
    top: int

    @property
    def total(self) -> int:
        """All refunds in the chart."""
        return sum(hour.total for hour in self.hours)

    @property
    def marks(self) -> list[tuple[float, str]]:
        """The label of every sixth hour, and its position."""
        return [(round(index * STEP, 1), hour.label) for index, hour in enumerate(self.hours) if index % 6 == 0]


def edges(now: int) -> list[int]:
    """The full hours (ms, UTC) that bound the counts: 24 spans, the last of which is the current hour."""
    end = (now // HOUR + 1) * HOUR
    return [end - back * HOUR for back in range(HOURS, -1, -1)]


def draw(now: int, spans: Sequence[Mapping[str, int]]) -> Chart:
    """The chart of what `Overview.counted` found between `edges(now)`."""
    hours = [
        Hour(
            datetime.fromtimestamp(edge / 1000, UTC).strftime("%H:00"),
            {kind: span.get(state, 0) for state, kind in STACKED},
        )
        for edge, span in zip(edges(now), spans, strict=False)
    ]
    top = max((hour.total for hour in hours), default=0)
    pieces: list[Piece] = []
    room = HEIGHT - FOOT
    for index, hour in enumerate(hours):
        floor = float(room)
        for kind, count in hour.counts.items():
            height = room * count / top if top else 0.0
            floor -= height
            if count:
                x, y = round(index * STEP + 2, 1), round(floor, 1)
                pieces.append(Piece(kind, x, y, round(STEP - 4, 1), round(height, 1)))
    return Chart(hours, pieces, top)
