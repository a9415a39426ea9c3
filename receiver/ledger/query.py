"""Pure. The filters of a list of refunds, and the cursor of its next page."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.errors import BadRequest
from receiver.ledger.order_reference import searchable
from receiver.ledger.refund import Refund

Place = tuple[int, str]
"""(ms of the last change, refund id). Lists are in descending order of it."""


@dataclass(frozen=True, slots=True)
class Query:
    """Filters, combined with AND; an empty one matches everything. `since` (ms): last changed at or after it.

    `until` (ms): last changed before it. `order` is in the form of `searchable`.
    """

    state: str = ""
    reason: str = ""
    charge: str = ""
    order: str = ""
    since: int = 0
    open: bool = False
    """Only declined refunds whose case is open."""
    until: int = 0

    @property
    def top(self) -> Place | None:
        """The place above all refunds of the list; None if there is no upper bound."""
        return (self.until, "") if self.until else None

    def matches(self, refund: Refund) -> bool:
        """Whether the refund passes every filter."""
        return (
            self.state in ("", refund.state)
            and self.reason in ("", refund.reason_code)
            and self.charge in ("", refund.charge_id)
            and self.order in ("", searchable(refund.order_reference))
            and refund.changed_at >= self.since
            and (not self.until or refund.changed_at < self.until)
            and not (self.open and (refund.resolution is None or not refund.resolution.is_open))
        )


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, newest change first. `next_cursor` is empty on the last page."""

    refunds: tuple[Refund, ...]
    next_cursor: str
    unreadable: tuple[str, ...] = ()
    """Ids of refunds whose records are damaged or from a later version, so the filters cannot be applied."""
    cut: bool = False
    """Whether the page ended early because the limit of scanned refunds was reached."""


def place_of(refund: Refund) -> Place:
    return refund.changed_at, refund.refund_id


def write_cursor(place: Place | None) -> str:
    """The cursor of a page that ends at this place; empty for None."""
    return "" if place is None else f"{place[0]}_{place[1]}"


def read_cursor(cursor: str) -> Place | None:
    """The place that a cursor names; None for an empty one. Raises `BadRequest` for an invalid cursor."""
    if not cursor:
        return None
    changed_at, _, refund_id = cursor.partition("_")
    if not (changed_at.isascii() and changed_at.isdigit() and len(changed_at) < 16):
        raise BadRequest("`cursor` is invalid. Omit it to start again.", reason="bad_cursor")
    return int(changed_at), refund_id
