"""Pure. A job that reissues many declined refunds: which ones, which it leaves out and why, and its progress.

AmazonRejected mostly means a negative balance: one cause, dozens of declines. Once the balance is repaid, one job
reissues them. It reissues `FIRST` refunds, and waits until Amazon has refunded one of them before it goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from receiver.errors import BadRequest
from receiver.ledger.audit import Actor
from receiver.ledger.money import Money
from receiver.ledger.refund import Refund, State
from receiver.ledger.retryability import SAYS
from receiver.ledger.schema import DESCRIPTION_LIMIT, tidy

MOST_REFUNDS = 10_000
"""The most refunds of one job."""
FIRST = 10
"""This many refunds are reissued before the others. If Amazon declines all of them again, the job pauses."""
WAIT_FOR_FIRST = 600_000
"""ms. If Amazon has refunded none of the first ones after this time, and not declined all, the job continues."""
MOST_TRIES = 10
LONGEST_WAIT = 60_000
DECLINED_AGAIN, RESTORED = "declined_again", "restored"
WHY_PAUSED: Final = MappingProxyType(
    {
        DECLINED_AGAIN: f"Amazon declined the first {FIRST} reissues again. Check the balance of the merchant account "
        "in Seller Central; then resume the job, or cancel it.",
        RESTORED: "The store was restored from a backup. Close the cases again that were closed after the backup; then "
        "resume the job, or cancel it.",
    }
)
"""Why a job is paused: stable reason → text for people."""
STILL_OPEN = "still_open"
BEING_REISSUED, REFUND_UNCLEAR = "being_reissued", "refund_unclear"
NO_SUCH_REFUND, NOT_DECLINED, UNREADABLE = "no_such_refund", "not_declined", "unreadable"
OTHER_CURRENCY, OVER_MAX_TOTAL = "other_currency", "over_max_total"
LEFT_OUT: Final = MappingProxyType(
    {
        **SAYS,
        "buyer_may_be_paid": "A dispute of the charge is open, or the buyer won it: the buyer may have the money.",
        BEING_REISSUED: "It is being reissued.",
        REFUND_UNCLEAR: "An attempt to reissue it is unclear: a person must check whether the refund was made.",
        NO_SUCH_REFUND: "It is not known.",
        NOT_DECLINED: "It is not declined.",
        UNREADABLE: "Its record is damaged.",
        OTHER_CURRENCY: "It is in another currency than the maximum total.",
        OVER_MAX_TOTAL: "The maximum total is reached.",
    }
)
"""Why a refund is not in a job: stable reason → text for people."""


class JobState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    """The first refunds were declined again, or the store was restored. A person resumes or cancels it."""
    DONE = "done"
    CANCELLED = "cancelled"


UNFINISHED = frozenset({JobState.RUNNING, JobState.PAUSED})


class Selection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which open declines a job reissues: these refunds, or those that match."""

    refund_ids: tuple[str, ...] = ()
    reason: str = ""
    """The reason code of the last decline; empty for all."""
    since: int = 0
    """ms: declined at or after it."""
    max_total: Money | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One refund to reissue."""

    number: int
    """Its place in the order of the job, from 0."""
    refund_id: str
    """The last declined refund of the chain."""
    root: str
    """The first refund of the chain, which has the case."""
    amount: Money
    tries: int = 0
    """How often Amazon gave no answer."""
    next_at: int = 0
    """ms: when to try again."""
    outcome: str = ""
    """`reissued`, or the reason why it was not; empty while there is no outcome."""
    reissue: str = ""
    """The refund that repeats it."""
    detail: str = ""


REISSUED = "reissued"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job and its progress."""

    id: str
    account: str
    state: JobState
    selection: Selection
    actor: Actor
    created_at: int
    changed_at: int
    total: int
    """How many refunds it reissues."""
    sums: tuple[Money, ...]
    reissued: int = 0
    failed: int = 0
    reason: str = ""
    """Why it is paused."""
    first_at: int = 0
    """When the first refunds had all been reissued, ms; 0 before that."""
    after: int = 0
    """How many refunds had been reissued when a person resumed it. The next `FIRST` then go alone."""

    @property
    def why_paused(self) -> str:
        """Why it is paused, for people."""
        return WHY_PAUSED.get(self.reason, "A person paused it.") if self.state is JobState.PAUSED else ""

    @property
    def finished(self) -> int:
        """How many refunds have an outcome."""
        return self.reissued + self.failed


@dataclass(frozen=True, slots=True)
class Candidate:
    """A declined refund that a selection names. `last` is the last declined refund of the chain, judged."""

    name: str
    last: Refund | None = None
    hindrance: str = ""
    """A reason of `LEFT_OUT` that is known already."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A declined refund that a job does not reissue."""

    refund_id: str
    reason: str
    amount: Money | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would do."""

    items: Sequence[Item]
    left_out: Sequence[LeftOut]


def plan(selection: Selection, candidates: Iterable[Candidate]) -> Plan:
    """The refunds that a job with this selection reissues, the oldest decline first, and those that it leaves out.

    Raises `BadRequest` (`too_many`).
    """
    items, left_out, total = list[Item](), list[LeftOut](), 0
    for each in sorted(candidates, key=_age):
        refund = each.last
        reason = each.hindrance or _hindrance(refund) or _over(selection.max_total, refund, total)
        if reason or refund is None or refund.amount is None:
            left_out.append(
                LeftOut(refund.refund_id if refund else each.name, reason, refund.amount if refund else None)
            )
            continue
        total += refund.amount.minor_units
        root = refund.retry_root or refund.refund_id
        items.append(Item(number=len(items), refund_id=refund.refund_id, root=root, amount=refund.amount))
    if len(items) > MOST_REFUNDS:
        raise BadRequest(
            f"That is {len(items)} refunds; one job reissues at most {MOST_REFUNDS}. Narrow the selection, for example "
            "by `since` or `maxTotal`.",
            reason="too_many",
        )
    return Plan(items, left_out)


def again(item: Item, now: int, reason: str, detail: str = "") -> Item:
    """The item after a try without an outcome; `now` is in ms. After `MOST_TRIES` it gets the outcome `reason`."""
    tries = item.tries + 1
    if tries >= MOST_TRIES:
        return msgspec.structs.replace(item, tries=tries, outcome=reason, detail=tidy(detail, DESCRIPTION_LIMIT))
    return msgspec.structs.replace(item, tries=tries, next_at=now + min(1_000 * 2**tries, LONGEST_WAIT))


def first_ones(job: Job, states: Sequence[str], now: int) -> JobState | None:
    """Whether the job goes on after the first refunds: RUNNING, PAUSED, or None while it waits.

    `states` are those of the first reissues; `now` is in ms.
    """
    if len(states) < FIRST or State.REFUNDED in states:
        return JobState.RUNNING
    if all(state == State.DECLINED for state in states):
        return JobState.PAUSED
    return JobState.RUNNING if now >= job.first_at + WAIT_FOR_FIRST else None


def _age(candidate: Candidate) -> tuple[int, int, str]:
    refund = candidate.last
    return (*((declined_at(refund), refund.first_seen_at) if refund else (0, 0)), candidate.name)


def declined_at(refund: Refund) -> int:
    """When Amazon declined it, ms; when that was recorded, if Amazon did not say."""
    return refund.updated_at or refund.changed_at


def _hindrance(refund: Refund | None) -> str:
    if refund is None:
        return NO_SUCH_REFUND
    if refund.judged is None:
        return NOT_DECLINED
    if refund.judged.reasons:
        return refund.judged.reasons[0]
    return "charge_does_not_admit" if refund.judged.value is False else ""


def _over(most: Money | None, refund: Refund | None, total: int) -> str:
    if most is None or refund is None or refund.amount is None:
        return ""
    if refund.amount.currency_code != most.currency_code:
        return OTHER_CURRENCY
    return OVER_MAX_TOTAL if total + refund.amount.minor_units > most.minor_units else ""
