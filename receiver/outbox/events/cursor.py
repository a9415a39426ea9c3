"""Pure. A cursor: a client's position in the event stream of each account, as one text.

The text has one part for each account, such as `us:1760000000000-0:42:9f3ac1`, separated by commas: the account, the id
of the last entry read, the number of entries ever added up to it, and the epoch of the store. Clients treat it as
opaque. An emptied store has another epoch, and a restored one has fewer entries; both are reported to the client.
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
    """The position after the entry `id` of a stream. It is the `number`th entry ever added."""

    epoch: str
    number: int
    id: str


def write_cursor(places: Mapping[str, Place]) -> str:
    """The positions by account as one text, safe in a header and in a query."""
    return ",".join(f"{account}:{each.id}:{each.number}:{each.epoch}" for account, each in places.items())


def read_cursor(text: str, accounts: Sequence[str]) -> dict[str, Place]:
    """The cursor's positions for these accounts. Other accounts are ignored.

    Raises `BadRequest` (`bad_cursor`) if the text is not a cursor or names none of these accounts.
    """
    found = [PART.fullmatch(part) for part in text.split(",")] if len(text) <= LONGEST else [None]
    parts = {part[1]: Place(part[4], int(part[3]), part[2]) for part in found if part}
    places = {account: parts[account] for account in accounts if account in parts}
    if len(parts) < len(found) or not places:
        raise BadRequest(
            "This is not a cursor of the feed for these accounts. Pass `after` or the `id` of an event unchanged, "
            "or `beginning` for all events that are kept.",
            reason="bad_cursor",
        )
    return places
