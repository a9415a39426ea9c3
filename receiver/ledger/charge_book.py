"""Pure. A charge's book: each refund of the charge that we know, and each reservation for one that is being issued.

An entry is a line of words in the hash `charge:<id>`, under the refund's id or `request:<request id>`:

    <minor units, or ?> <state> <began, ms> <currency, or -> [conflict]

`?` is an amount that nobody told. `conflict` says that Amazon has told both Refunded and Declined. Older versions wrote
`<minor units> <state>`: when such a refund began is not known, and so it counts as if it had begun just now.
`store/requests/reserve.lua` reads the same form and decides; `in_the_way` tells beforehand what it will say.
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
"""Refunds that Amazon takes for one charge: 10 for each capture (Amazon Pay's older API, Refund). For the API v2 no
number is published. Whether declined refunds count is not published either: they are not counted here, because ten
declines for want of balance would otherwise block the charge for ever. Where Amazon counts them, it refuses the request
itself (TransactionCountExceeded)."""
SKEW = 300_000
"""ms by which Amazon's clock may be behind ours."""
LINE = re.compile(r"(\d+|\?) (\S+) (\d+) (\S+)(?: (\w+))?")
OLD_LINE = re.compile(r"(\d+|\?) (.+)", re.DOTALL)
LONGEST_STATE = 20
"""Characters kept of a state that we do not know. With them a line stays below the 64 bytes of a compact hash."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One refund, or one reservation, on a charge."""

    minor_units: int | None
    """None: nobody told the amount. It counts as the whole charge."""
    state: str
    began: int | None = None
    """ms: Amazon's creationTimestamp, else our first sight; of a reservation, when it was made. None: not known."""
    currency: str = ""
    conflict: bool = False
    """Amazon has told both Refunded and Declined, so the buyer may have the money."""

    @property
    def counts(self) -> bool:
        """Whether it uses up the charge: all but what was declined, and was never Refunded."""
        return self.state != State.DECLINED or self.conflict

    @property
    def amount(self) -> Money | None:
        """The amount, where amount and currency are known."""
        if self.minor_units is None or not self.currency:
            return None
        return Money.of_minor(self.minor_units, self.currency)

    def line(self) -> str:
        """The entry as it is written."""
        if self.began is None:
            raise ValueError("An entry is written with the time at which its refund began.")
        state = re.sub(r"\s", "_", self.state)[:LONGEST_STATE] or "-"
        minor = "?" if self.minor_units is None else self.minor_units
        return f"{minor} {state} {self.began} {self.currency or '-'}{' conflict' if self.conflict else ''}"


@dataclass(frozen=True, slots=True)
class Guard:
    """What is checked in the step that reserves an amount. Amounts are minor units, times ms.

    A refund of the same amount is in the way if it began at `since` or later, and a reservation if it was made at
    `reserved_since` or later; None: the amount alone is no reason. `besides` are ids of refunds and requests that the
    caller knows of, and wants this refund beside.
    """

    most: int
    """What may be refunded on the charge in all."""
    refunded: int
    """What Amazon says was refunded."""
    since: int | None = None
    reserved_since: int | None = None
    besides: Collection[str] = ()


def retry_guard(declined: Refund, now: int, most: int = 0, refunded: int = 0, besides: Collection[str] = ()) -> Guard:
    """What must not be in the way of a retry, which looks back to when the declined refund began.

    To always, where Amazon has not told that. The time of a reservation is ours, and our clock may be behind Amazon's.
    """
    since = declined.created_at if 0 < declined.created_at <= now else 0
    return Guard(most, refunded, since, max(since - SKEW, 0), besides)


def reservation(request_id: str) -> str:
    """The member of a charge's book that holds the amount of a request back."""
    return f"{RESERVATION}{request_id}"


def entry_of(refund: Refund) -> Entry | None:
    """The entry of a refund; None where its charge is not known.

    Flexible Payments does not tell how much "all that is left" was; nothing is reserved on a transaction of it.
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
    """The entry that a line holds, of this version or an older one. Raises `ValueError` if it is none."""
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
    """The refunds and reservations that the caller has to name before `money` is refunded beside them.

    `taken` says which request has become which refund: who named the request has named the refund.
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
    """Whether an entry may be the very refund that is asked for, paid another way. What is not known may be so."""
    since = guard.reserved_since if entry.state == RESERVED else guard.since
    return (
        since is not None
        and entry.minor_units in (None, money.minor_units)
        and entry.currency in ("", money.currency_code)
        and (entry.began is None or entry.began >= since)
    )
