"""Edge: Redis. Ids and fields of the entries of a stream."""

from __future__ import annotations

import re

FIXED = re.compile(rb"([0-9]{1,20})-([0-9]{1,20})")


def texts_of(flat: list[bytes]) -> dict[str, str]:
    """The fields of a stream entry. Bad UTF-8 is replaced, so that only this entry becomes unreadable."""
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {field.decode(errors="replace"): value.decode(errors="replace") for field, value in pairs}


def written_at(stream_id: str) -> int:
    """When the entry was written, ms."""
    return int(stream_id.partition("-")[0])


def fixed_width(stream_id: str) -> str:
    """A stream id in a form whose byte order is the order of ids; `store/refunds/commit.lua` writes the same form."""
    ms, _, seq = stream_id.partition("-")
    return f"{ms:0>15}-{seq:0>20}"


def plain_id(fixed: bytes) -> str:
    """The stream id in the form that `fixed_width` wrote; empty if it is not one."""
    found = FIXED.fullmatch(fixed)
    return f"{int(found[1])}-{int(found[2])}" if found else ""
