"""Edge: Prometheus. Counters and histograms as plain numbers, handed to prometheus_client when they are read.

prometheus_client checks labels and takes a lock for every increment, and processes that share a folder also write to a
file. So a process adds up what it counts until a scrape; with a shared folder, until the end of the turn of the event
loop, because any of the processes may be asked.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric

Changed = Callable[[], None]


class CounterTally:
    """A counter. Callers keep label values to closed sets."""

    def __init__(self, counter: Counter, changed: Changed | None) -> None:
        self._counter, self._changed = counter, changed
        self._counts: dict[tuple[str, ...], float] = {}

    def inc(self, *labels: str, by: float = 1) -> None:
        """Count one more, or several."""
        self._counts[labels] = self._counts.get(labels, 0) + by
        if self._changed is not None:
            self._changed()

    def hand_over(self) -> None:
        """Add what was counted to prometheus_client's numbers."""
        counts, self._counts = self._counts, {}
        for labels, count in counts.items():
            (self._counter.labels(*labels) if labels else self._counter).inc(count)


class HistogramTally:
    """A histogram without labels. `bounds` ascend, without infinity."""

    def __init__(self, histogram: Histogram, bounds: Sequence[float], changed: Changed | None) -> None:
        self._histogram, self._bounds, self._changed = histogram, bounds, changed
        self._counts, self._sum = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value
        if self._changed is not None:
            self._changed()

    def hand_over(self) -> None:
        """Add what was counted to prometheus_client's numbers, which have no public way to add several at once."""
        for bucket, count in zip(self._histogram._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._histogram._sum.inc(self._sum)
        self._counts, self._sum = [0] * len(self._counts), 0.0


class Tallies(CollectorRegistry):
    """A registry that is up to date when it is read. `shared`: other processes read it too."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self._all: list[CounterTally | HistogramTally] = []
        self._changed = self._schedule if shared else None
        self._scheduled = False

    def counter(self, name: str, about: str, *labels: str) -> CounterTally:
        """A new counter."""
        made = CounterTally(Counter(name, about, labels, registry=self), self._changed)
        self._all.append(made)
        return made

    def histogram(self, name: str, about: str, bounds: Sequence[float]) -> HistogramTally:
        """A new histogram."""
        made = HistogramTally(Histogram(name, about, buckets=bounds, registry=self), bounds, self._changed)
        self._all.append(made)
        return made

    def hand_over(self) -> None:
        """Add all counts since the last time to prometheus_client's numbers."""
        self._scheduled = False
        for each in self._all:
            each.hand_over()

    def collect(self) -> Iterable[Metric]:
        """All metrics."""
        self.hand_over()
        return super().collect()

    def _schedule(self) -> None:
        if self._scheduled:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.hand_over()
            return
        self._scheduled = True
        loop.call_soon(self.hand_over)
