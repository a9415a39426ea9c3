"""Pure. What a list of refunds is asked for, and the place in a list at which the next page begins."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.errors import BadRequest
from receiver.ledger.order_reference import searchable
from receiver.ledger.refund import Refund

Place = tuple[int, str]
"""(ms of the last change, refund id): lists are in descending order of it."""


@dataclass(frozen=True, slots=True)
class Query:
    """Filters that all must hold; an empty one holds always. `since` is ms: last changed at or after it.

    `order` is in the form of `searchable`.
    """

    state: str = ""
    reason: str = ""
    charge: str = ""
    order: str = ""
    since: int = 0

    def matches(self, refund: Refund) -> bool:
        """Whether the refund passes every filter."""
        return (
            self.state in ("", refund.state)
            and self.reason in ("", refund.reason_code)
            and self.charge in ("", refund.charge_id)
            and self.order in ("", searchable(refund.order_reference))
            and refund.changed_at >= self.since
        )


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, newest change first. `next_cursor` is empty on the last page."""

    refunds: tuple[Refund, ...]
    next_cursor: str
    unreadable: tuple[str, ...] = ()
    """Ids of refunds whose records are damaged, or of a later version: nobody knows whether they match."""
    cut: bool = False
    """Whether it ends because so many refunds were looked at, not because it is full or there are no more."""


def place_of(refund: Refund) -> Place:
    """Where the refund stands in a list."""
    return refund.changed_at, refund.refund_id


def write_cursor(place: Place | None) -> str:
    """The cursor of a page that ends at this place; empty for None."""
    return "" if place is None else f"{place[0]}_{place[1]}"


def read_cursor(cursor: str) -> Place | None:
    """The place that a cursor names; None for an empty one. Raises `BadRequest` for one that no page gave."""
    if not cursor:
        return None
    changed_at, _, refund_id = cursor.partition("_")
    if not (changed_at.isascii() and changed_at.isdigit() and len(changed_at) < 16):
        raise BadRequest("`cursor` is not one that a page gave. Leave it out to start again.", reason="bad_cursor")
    return int(changed_at), refund_id
