"""Pure. How long to wait after failures in a row."""

from __future__ import annotations


def backoff(failures: int, random: float, *, first: int, most: int, asked: int = 0) -> int:
    """The wait (ms): `first`, doubled by each earlier failure up to `most`, and at least what the other side `asked`.

    `random` in [0, 1) spreads our own wait over its upper half.
    """
    wait = min(first * 2 ** min(failures, 20), most)
    return max(int(wait * (0.5 + random / 2)), asked)
