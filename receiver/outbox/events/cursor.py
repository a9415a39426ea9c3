"""Pure. How far somebody has read the events: a place in the stream of each account, and the text that lists them.

The text is `us:1760000000000-0:42:9f3ac1`, one such part for each account, separated by commas: the account, the id of
the last entry that was read, how many entries had ever been added up to it, and the epoch of the store. Clients hand it
back as it is. An emptied store has another epoch, a restored one fewer entries: both are told, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from receiver.errors import BadRequest

PART = re.compile(r"([a-z0-9][a-z0-9_-]{0,31}):([0-9]{1,15}-[0-9]{1,15}):([0-9]{1,15}):([0-9a-f]{4,32})")
LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """After the entry `id` of a stream, which is the `number`th that was ever added to it."""

    epoch: str
    number: int
    id: str


def write_cursor(places: Mapping[str, Place]) -> str:
    """The places by account as one text, safe in a header and in a query."""
    return ",".join(f"{account}:{each.id}:{each.number}:{each.epoch}" for account, each in places.items())


def read_cursor(text: str, accounts: Sequence[str]) -> dict[str, Place]:
    """The places that a cursor has of these accounts; those of other accounts are passed over.

    Raises `BadRequest` (`bad_cursor`) for a text that is no cursor, or that has none of these accounts.
    """
    found = [PART.fullmatch(part) for part in text.split(",")] if len(text) <= LONGEST else [None]
    parts = {part[1]: Place(part[4], int(part[3]), part[2]) for part in found if part}
    places = {account: parts[account] for account in accounts if account in parts}
    if len(parts) < len(found) or not places:
        raise BadRequest(
            "This is no cursor that the feed gave for these accounts. Take `after` or the `id` of an event as it was, "
            "or `beginning` for everything that is kept.",
            reason="bad_cursor",
        )
    return places
