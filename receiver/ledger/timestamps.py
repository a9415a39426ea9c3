"""Pure. Amazon's timestamps and RFC 3339, to and from milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from receiver.errors import Malformed

NO_MARKS = str.maketrans("", "", "-:")


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
    return datetime.fromtimestamp(ms // 1000, UTC).replace(tzinfo=None).isoformat().translate(NO_MARKS) + "Z"


def format_rfc3339(ms: int) -> str:
    """Our own times: RFC 3339 with milliseconds, `2019-07-14T15:53:00.000Z`."""
    return datetime.fromtimestamp(ms // 1000, UTC).replace(tzinfo=None).isoformat() + f".{ms % 1000:03d}Z"
