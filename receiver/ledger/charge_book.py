"""Pure. A charge's book: its known refunds, and a reservation for each refund that is being issued.

An entry is one line in the hash `charge:<id>`, under the refund's id or `request:<request id>`:

    <minor units, or ?> <state> <began, ms> <currency, or -> [conflict]

`?` is an unknown amount. `conflict` means that Amazon reported both Refunded and Declined. Older versions wrote
`<minor units> <state>`: the start of such a refund is unknown, so it counts as if it had just started.
`store/requests/reserve.lua` reads the same lines and decides; `in_the_way` predicts its decision.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from receiver.ledger.age import started_at
from receiver.ledger.money import Money
from receiver.ledger.refund import FPS, Refund, State

RESERVED = "Reserved"
"""The state of a reservation."""
RESERVATION = "request:"
MOST_REFUNDS = 10
"""Refunds that Amazon accepts for one charge: 10 for each capture (Amazon Pay's older API, Refund). Amazon publishes no
number for API v2, nor whether declined refunds count. Here they do not count: otherwise 10 declines for insufficient
balance would block the charge for ever. If Amazon counts them, it refuses the request (TransactionCountExceeded)."""
SKEW = 300_000
"""ms by which Amazon's clock can be behind ours."""
LINE = re.compile(r"(\d+|\?) (\S+) (\d+) (\S+)(?: (\w+))?")
OLD_LINE = re.compile(r"(\d+|\?) (.+)", re.DOTALL)
LONGEST_STATE = 20
"""Maximum length of an unknown state. It keeps a line within the 64 bytes of a compact hash."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One refund or reservation on a charge."""

    minor_units: int | None
    """None: unknown. It then counts as the whole charge."""
    state: str
    began: int | None = None
    """ms: Amazon's creationTimestamp, else first seen here; for a reservation, when it was made. None: unknown."""
    currency: str = ""
    conflict: bool = False
    """Amazon reported both Refunded and Declined, so the buyer may have the money."""

    @property
    def counts(self) -> bool:
        """Whether it uses up part of the charge. Only a refund that was declined and never Refunded does not."""
        return self.state != State.DECLINED or self.conflict

    @property
    def amount(self) -> Money | None:
        """The amount, if amount and currency are known."""
        if self.minor_units is None or not self.currency:
            return None
        return Money.of_minor(self.minor_units, self.currency)

    def line(self) -> str:
        """The entry as stored."""
        if self.began is None:
            raise ValueError("An entry is written with the time at which its refund began.")
        state = re.sub(r"\s", "_", self.state)[:LONGEST_STATE] or "-"
        minor = "?" if self.minor_units is None else self.minor_units
        return f"{minor} {state} {self.began} {self.currency or '-'}{' conflict' if self.conflict else ''}"


@dataclass(frozen=True, slots=True)
class Guard:
    """The checks made in the step that reserves an amount. Amounts are in minor units, times in ms.

    A refund of the same amount blocks if it began at `since` or later; a reservation, if it was made at
    `reserved_since` or later. None turns the check off. `besides` holds the ids of refunds and requests that the caller
    has named: they do not block.
    """

    most: int
    """The most that can be refunded on the charge in total."""
    refunded: int
    """The total that Amazon reports as refunded."""
    since: int | None = None
    reserved_since: int | None = None
    besides: Collection[str] = ()


def retry_guard(declined: Refund, now: int, most: int = 0, refunded: int = 0, besides: Collection[str] = ()) -> Guard:
    """The guard for a retry. It looks back to the start of the declined refund, or without limit if that is unknown.

    Reservations are dated by our clock, which can be behind Amazon's.
    """
    since = declined.created_at if 0 < declined.created_at <= now else 0
    return Guard(most, refunded, since, max(since - SKEW, 0), besides)


def reservation(refund_request_id: str) -> str:
    """The key of a request's reservation in the charge's book."""
    return f"{RESERVATION}{refund_request_id}"


def entry_of(refund: Refund) -> Entry | None:
    """The entry of a refund; None if its charge is unknown.

    Flexible Payments does not report the amount of a refund of "all that is left", so its transactions have no book.
    """
    if not refund.charge_id:
        return None
    amount = refund.amount
    unknown = 0 if refund.refund_type == FPS else None
    return Entry(
        amount.minor_units if amount else unknown,
        refund.state,
        started_at(refund, refund.changed_at),
        amount.currency_code if amount else "",
        refund.conflict,
    )


def read_entry(line: str) -> Entry:
    """Parse a line written by this version or an older one. Raises `ValueError`."""
    if found := LINE.fullmatch(line):
        minor, state, began, currency, flag = found.groups()
        currency = "" if currency == "-" else currency
        return Entry(_minor(minor), state, int(began), currency, flag == "conflict")
    if found := OLD_LINE.fullmatch(line):
        return Entry(_minor(found[1]), found[2])
    raise ValueError("A line of a charge's book is like `1400 Refunded 1760000000000 USD`.")


def _minor(text: str) -> int | None:
    return None if text == "?" else int(text)


def in_the_way(entries: Mapping[str, Entry], taken: Mapping[str, str], money: Money, guard: Guard) -> dict[str, Entry]:
    """The refunds and reservations that the caller must name before `money` can be refunded as well.

    `taken` maps a refund to the request that it came from: naming the request also names the refund.
    """
    return {
        name: entry
        for name, entry in entries.items()
        if entry.counts
        and name.removeprefix(RESERVATION) not in guard.besides
        and taken.get(name) not in guard.besides
        and (entry.conflict or is_same_amount(entry, money, guard))
    }


def is_same_amount(entry: Entry, money: Money, guard: Guard) -> bool:
    """Whether an entry may be the requested refund, already paid by another route. Unknown values count as a match."""
    since = guard.reserved_since if entry.state == RESERVED else guard.since
    return (
        since is not None
        and entry.minor_units in (None, money.minor_units)
        and entry.currency in ("", money.currency_code)
        and (entry.began is None or entry.began >= since)
    )
