"""Pure. Durations as people write them: `90s`, `5m`, `1h30m`, `15d`."""

from __future__ import annotations

import re
from datetime import timedelta

PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|[smhdw])")
SPAN = r"(?:\d{1,9}(?:\.\d{1,6})?\s*(?:ms|[smhdw])\s*)+"
"""A duration with its units."""
UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
LONGEST = timedelta(days=3650)


def parse_duration(value: object) -> timedelta:
    """Parse a duration: a text such as `1h30m`, or a plain number of seconds (also as text, for environment variables).

    Raises `ValueError` with a sentence.
    """
    span = _read(value)
    if span is None or span > LONGEST:
        raise ValueError('must be a span of time such as "500ms", "10s", "5m", "1h30m" or "15d".')
    return span


def _read(value: object) -> timedelta | None:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text):
        return timedelta(seconds=float(text))
    if not re.fullmatch(SPAN, text):
        return None
    return timedelta(milliseconds=sum(float(number) * UNIT_MS[unit] for number, unit in PART.findall(text)))


def milliseconds(span: timedelta) -> int:
    """A duration in whole milliseconds, the unit of every time in the ledger and the store."""
    return span // timedelta(milliseconds=1)
