"""Edge: Redis. Ids and fields of the entries of a stream."""

from __future__ import annotations

import re

FIXED = re.compile(rb"([0-9]{1,20})-([0-9]{1,20})")


def texts_of(flat: list[bytes]) -> dict[str, str]:
    """The fields of a stream entry. Bytes that are no text make it unreadable, and harm no other entry."""
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {field.decode(errors="replace"): value.decode(errors="replace") for field, value in pairs}


def fixed_width(stream_id: str) -> str:
    """A stream id in the form whose byte order is the order of ids; `store/refunds/commit.lua` writes the same."""
    ms, _, seq = stream_id.partition("-")
    return f"{ms:0>15}-{seq:0>20}"


def plain_id(fixed: bytes) -> str:
    """The stream id of a form that `fixed_width` wrote; empty for what is none."""
    found = FIXED.fullmatch(fixed)
    return f"{int(found[1])}-{int(found[2])}" if found else ""
