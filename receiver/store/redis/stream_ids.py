"""Edge: Redis. Ids and fields of the entries of a stream."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate, pairwise

FIXED = re.compile(rb"([0-9]{1,20})-([0-9]{1,20})")
SAME = 512
"""How many parsed entries are cached: all queues get the same ones at about the same time."""


Fields = dict[bytes, bytes] | list[bytes] | None
"""The fields of an entry as the client returns them: by name, or as a flat list. None: the entry is deleted."""


def pairs_of(fields: Fields) -> Iterable[tuple[bytes, bytes]]:
    """The names and values of a stream entry."""
    if not fields:
        return ()
    return fields.items() if isinstance(fields, dict) else zip(fields[::2], fields[1::2], strict=True)


def texts_of(fields: Fields) -> dict[str, str]:
    """The fields of a stream entry. Bad UTF-8 is replaced, so that only this entry becomes unreadable."""
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs_of(fields)}


@lru_cache(SAME)
def joined_texts(entry: bytes) -> dict[str, str]:
    """The fields of a stream entry as `store/deliveries/claim_deliveries.lua` joins them. Do not change the result: all
    callers with the same entry share it."""
    lengths, _, joined = entry.partition(b"\n")
    ends = accumulate(map(int, lengths.split()), initial=0)
    texts = [joined[start:end].decode(errors="replace") for start, end in pairwise(ends)]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def parts_of(stream_id: bytes | str) -> tuple[int, int]:
    """A stream id in the order of ids: the ms of the Redis server, and a number among the entries of one ms."""
    ms, _, number = (stream_id if isinstance(stream_id, str) else stream_id.decode()).partition("-")
    return int(ms), int(number)


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
