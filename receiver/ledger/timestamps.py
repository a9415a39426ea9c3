"""Pure. Times and durations as text, to and from milliseconds: Amazon's timestamps, RFC 3339, `1h30m`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from receiver.errors import Malformed

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC; without a zone it is added and formatted twice as fast

TIMESTAMP = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)T(\d\d):?(\d\d):?(\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)


def parse_time(text: object) -> int:
    """Parse Amazon's timestamp, basic (`20190714T155300Z`) or extended with a fraction, into milliseconds UTC.

    Raises `Malformed` if it is neither.
    """
    match = TIMESTAMP.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Malformed("A timestamp is like 20190714T155300Z.", reason="bad_timestamp")
    *parts, fraction = match.groups()
    year, month, day, hour, minute, second = map(int, parts)
    try:
        whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise Malformed("A timestamp has an invalid date.", reason="bad_timestamp") from error
    return int(whole.timestamp()) * 1000 + int((fraction or "0").ljust(3, "0")[:3])


def parse_any_time(text: str) -> int:
    """Parse a time written by a person into milliseconds UTC: Amazon's forms, or RFC 3339 with `Z` or an offset.

    Raises `Malformed`.
    """
    try:
        return parse_time(text)
    except Malformed as error:
        if text[10:11] not in ("T", "t", " "):
            raise
        try:
            moment = datetime.fromisoformat(text)
            ms = int(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            raise error from None
        if moment.tzinfo is None:
            raise
        return ms


def format_basic(ms: int) -> str:
    """Amazon's own form, whole seconds: `20190714T155300Z`."""
    return (EPOCH + timedelta(0, ms // 1000)).isoformat().replace("-", "").replace(":", "") + "Z"


def format_rfc3339(ms: int) -> str:
    """Our own times: RFC 3339 with milliseconds, `2019-07-14T15:53:00.000Z`."""
    return (EPOCH + timedelta(0, 0, 0, ms)).isoformat("T", "milliseconds") + "Z"


PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|[smhdw])")
SPAN = r"(?:\d{1,9}(?:\.\d{1,6})?\s*(?:ms|[smhdw])\s*)+"
"""A duration as people write it: `90s`, `5m`, `1h30m`, `15d`."""
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


def parse_span(text: str) -> timedelta:
    """Parse a duration on a command line: it needs a unit, since a bare `400` may be meant as days.

    Raises `ValueError` with a sentence.
    """
    if re.fullmatch(r"\s*\d+(\.\d*)?\s*", text):
        number = text.strip()
        raise ValueError(f"{number} has no unit. Write {number}d for days, {number}h for hours, {number}m for minutes.")
    return parse_duration(text)


def _read(value: object) -> timedelta | None:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip().lower()
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text):
        return timedelta(seconds=float(text))
    if not re.fullmatch(SPAN, text):
        return None
    return timedelta(milliseconds=sum(float(number) * UNIT_MS[unit] for number, unit in PART.findall(text)))


def milliseconds(span: timedelta) -> int:
    """A duration in whole milliseconds, the unit of every time in the ledger and the store."""
    return span // timedelta(milliseconds=1)
