"""HTTP. Limits how many requests may long-poll at once: in total, and per token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from receiver.errors import Overloaded

RETRY_AFTER = 5


def share_of(most: int, chosen: int | None, tokens: int) -> int:
    """The share of one token: the configured number, else half of the total, or all of it if there is only one
    token."""
    return min(most, chosen) if chosen is not None else most if tokens < 2 else -(-most // 2)


class Seats:
    """At most `most` at once, and at most `of_one` per token. `changed` is called with the change in the number taken.

    `reason` and `settings` (the keys of the two limits) go into the error when all are taken.
    """

    def __init__(
        self,
        most: int,
        of_one: Callable[[], int],
        changed: Callable[[int], None] = lambda _: None,
        *,
        reason: str,
        settings: tuple[str, str],
    ) -> None:
        self._most, self._of_one, self._reason, self._settings = most, of_one, reason, settings
        self._changed = changed
        self._taken = Counter[str]()

    def take(self, token: str) -> None:
        """Takes one, to be returned with `free`. Raises `Overloaded`."""
        if self._taken[token] >= (of_one := self._of_one()):
            self._refuse(f"The token {token} already has {of_one}, the limit of {self._settings[1]}.")
        if self._taken.total() >= self._most:
            self._refuse(f"This process already has {self._most}, the limit of {self._settings[0]}.")
        self._taken[token] += 1
        self._changed(1)

    def free(self, token: str) -> None:
        """Returns one."""
        self._taken[token] -= 1
        self._changed(-1)

    @contextmanager
    def taken(self, token: str) -> Iterator[None]:
        """Takes one for the duration of the block. Raises `Overloaded`."""
        self.take(token)
        try:
            yield
        finally:
            self.free(token)

    def _refuse(self, why: str) -> None:
        raise Overloaded(
            f"Too many requests are waiting. {why} Try again later.", reason=self._reason, retry_after=RETRY_AFTER
        )
