"""Pure. Ids that look like Amazon's, made from a given source of random numbers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Container

PREFIX = {"sandbox": "S01", "live": "P01"}
"""Ids begin with S in the sandbox and with P in live, as in all captured ones."""


class Ids:
    """Makes ids. None repeats, even if `random` always returns the same number."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._seed = f"{random()!r}{random()!r}"
        self._count = 0

    def uuid(self) -> str:
        """A lower-case UUID of version 5, like those of SNS's notifications."""
        self._count += 1
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._seed}/{self._count}"))

    def permission(self, environment: str) -> str:
        """A charge permission id: `S01-1234567-1234567`."""
        self._count += 1
        return f"{PREFIX[environment]}-{self._digits(7)}-{(self._count * 7_919 + 1_234_567) % 10**7:07d}"

    def below(self, permission_id: str, letter: str, taken: Container[str]) -> str:
        """The id of a charge (C) or refund (R) of a charge permission, different from all that are taken."""
        number = int(self._random() * 10**6)
        while (found := f"{permission_id}-{letter}{number:06d}") in taken:
            number = (number + 1) % 10**6
        return found

    def _digits(self, count: int) -> str:
        return f"{int(self._random() * 10**count):0{count}d}"
