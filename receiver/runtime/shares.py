"""Pure. A limit shared by many sources: when it is reached, the source that holds the most has to give something back.

A source is a client address or a token: something that must not use up what others need.
"""

from __future__ import annotations

from typing import Generic, TypeVar

H = TypeVar("H")


class Shares(Generic[H]):
    """At most `most` units in total. Each holder, such as a request, holds units for its source."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, dict[H, int]] = {}
        self._sums: dict[str, int] = {}
        self.total = 0

    def of(self, source: str) -> int:
        """The units that the source holds."""
        return self._sums.get(source, 0)

    def fits(self, amount: int) -> bool:
        """Whether this many more units are within the limit."""
        return self.total + amount <= self._most

    def add(self, source: str, holder: H, amount: int = 1) -> None:
        """Add units to a holder. The caller has to enforce the limit, with `fits` and `greediest`."""
        held = self._held.setdefault(source, {})
        held[holder] = held.get(holder, 0) + amount
        self._sums[source] = self._sums.get(source, 0) + amount
        self.total += amount

    def remove(self, source: str, holder: H) -> None:
        """Remove a holder with all of its units; it may have had none."""
        held = self._held.get(source)
        if held is None or holder not in held:
            return
        amount = held.pop(holder)
        self.total -= amount
        if held:
            self._sums[source] -= amount
        else:
            del self._held[source], self._sums[source]

    def holders(self) -> list[H]:
        """All that hold something."""
        return [holder for held in self._held.values() for holder in held]

    def greediest(self, source: str, amount: int = 1) -> tuple[str, H] | None:
        """The largest holder of the source that holds the most; of equals, the oldest.

        None if that source would hold no more than `source` with `amount` more: then no holder has to give way.
        """
        most = max(self._sums, key=self._sums.__getitem__, default=None)
        if most is None or self._sums[most] <= self.of(source) + amount:
            return None
        held = self._held[most]
        return most, max(held, key=held.__getitem__)

    def largest(self, least: int) -> tuple[str, H] | None:
        """The holder of the most units over all sources, if it holds more than `least`."""
        holders = ((amount, source, each) for source, held in self._held.items() for each, amount in held.items())
        found = max(holders, key=lambda one: one[0], default=None)
        return (found[1], found[2]) if found is not None and found[0] > least else None
