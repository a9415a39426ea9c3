"""HTTP. How many requests may wait at once for something to happen: in all, and of one token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from receiver.errors import Overloaded

RETRY_AFTER = 5


def share_of(most: int, chosen: int | None, tokens: int) -> int:
    """How many of all seats one token may have: as set, else half of them, or all where there is no other token."""
    return min(most, chosen) if chosen is not None else most if tokens < 2 else -(-most // 2)


class Seats:
    """At most `most` at once, of one token at most `of_one`. `changed` is told how many more there are.

    `reason` and `settings`, the keys of the two limits, are for the problem that says it is full.
    """

    def __init__(
        self,
        most: int,
        of_one: int,
        changed: Callable[[int], None] = lambda _: None,
        *,
        reason: str,
        settings: tuple[str, str],
    ) -> None:
        self._most, self._of_one, self._reason, self._settings = most, of_one, reason, settings
        self._changed = changed
        self._taken = Counter[str]()

    def take(self, token: str) -> None:
        """One more, to be given back by `free`. Raises `Overloaded`."""
        if self._taken[token] >= self._of_one:
            self._refuse(f"The token {token} has the {self._of_one} that {self._settings[1]} lets one token have.")
        if self._taken.total() >= self._most:
            self._refuse(f"This process has the {self._most} that {self._settings[0]} lets it have.")
        self._taken[token] += 1
        self._changed(1)

    def free(self, token: str) -> None:
        """One less."""
        self._taken[token] -= 1
        self._changed(-1)

    @contextmanager
    def taken(self, token: str) -> Iterator[None]:
        """One more while the block lasts. Raises `Overloaded`."""
        self.take(token)
        try:
            yield
        finally:
            self.free(token)

    def _refuse(self, why: str) -> None:
        raise Overloaded(f"Too many wait at once. {why} Come again.", reason=self._reason, retry_after=RETRY_AFTER)
