"""Pure. When to ask Amazon again after one call. Total: every result has an answer.

About a refund (`after`):

    nothing new, not found      the earlier of the next follow-up and the refund's own schedule; when both have ended,
                                the next second look
    nothing to ask              never automatically
    throttled                   when Amazon says, within an hour; else in 5 s
    no answer, or refused us    5 s, 10 s, … 10 min, with jitter; the follow-up keeps its step; a second look: an hour
    our record is damaged       in a minute

A notification can arrive before Get Refund shows the change. A hint is therefore followed up a few times
(`FOLLOW_UPS`). A refund unknown both to Amazon and to the ledger is then dropped; at once if it was only a refresh.

About a dispute (`after_dispute`), by the age of its last notification, and not later than its next reminder:

    open, or an unknown end     `DISPUTE_POLL`
    an end                      while the notification is followed up, then never automatically
    refused, or not found       `DISPUTE_UNREADABLE`: the key may have no right to Get Dispute; 30 days, then never
    throttled                   when Amazon says, within an hour; else in 5 s
    no answer                   5 s, 10 s, … 10 min, with jitter

Only a successful answer of Get Dispute changes what is known of the dispute. Any other result concerns our request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from receiver.errors import (
    AmazonError,
    AmazonNotFound,
    AmazonRefused,
    AmazonRefusesUs,
    AmazonThrottled,
    NothingToAsk,
    StoreEmptied,
    StoreUnavailable,
)
from receiver.ledger.age import DAY
from receiver.ledger.dispute import MOST_KEPT, Dispute, DisputeObservation, Reminder, learned
from receiver.ledger.polling import (
    FOLLOW_UPS,
    JITTER,
    PollPlan,
    backoff,
    next_follow_up,
    next_look,
    second_look,
    second_look_again,
)
from receiver.ledger.refund import Refund, Source

RETRY_FIRST, RETRY_MOST = 5_000, 600_000
THROTTLED_PAUSE = 5
"""Seconds to wait after a 429 without a Retry-After."""
DAMAGED_PAUSE = 60_000
EMPTIED_PAUSE = 2_000
"""ms: by then the configured subscribers are usually written again (`deliver/configured.py`)."""
LONGEST_THROTTLE = 3_600_000
"""ms: a `Retry-After` delays a question by no more than this (as in `store/refunds/block.lua`)."""

DISPUTE_POLL = PollPlan.parse(("5s", "30s", "2m", "10m", "1h", "every 6h until 14d", "every 1d until 180d", "every 7d"))
"""Amazon notifies of every change of a dispute, so polls only make up for lost notifications. The first ages are the
follow-ups of the notification. Merchants have 7 to 11 days to answer (release notes of Amazon's .NET SDK, 2.7.4)."""
DISPUTE_UNREADABLE = PollPlan.parse(("30s", "10m", "1h", "every 1d until 30d", "every 30d"))
GIVE_UP = 30 * DAY
"""ms: the age of the last notification at which an unreadable dispute is no longer asked about."""
FARTHEST_REMINDER = 7 * DAY
"""ms: Amazon is asked about a dispute with a reminder ahead at least this often, even if its deadline is far away."""


class FollowUp(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a hint until something new is found. For a poll, only the number of failures."""

    source: Source
    at: int
    sent_at: int = 0
    refund_type: str = ""
    step: int = 0
    """How often Amazon had nothing new."""
    failures: int = 0
    """How often Amazon did not answer."""
    due: int = 0
    """When (ms) to ask again because there was nothing new. A regular poll before then does not count as a step."""
    traceparent: str = ""
    """The traceparent of the hint. It is the last field because it is only written if there is one."""

    def written(self) -> bytes:
        """The form stored in Redis."""
        values = msgspec.structs.astuple(self)
        return msgspec.json.encode(values if self.traceparent else values[:-1])


@dataclass(frozen=True, slots=True)
class DueRefund:
    """A claimed refund. Ask Amazon about it, then finish the claim with the token before the lease ends."""

    account: str
    refund_id: str
    token: int
    follow_up: FollowUp | None
    patient: bool = False
    """Whether it came from the schedule or the refreshes. Both wait behind notifications."""
    second: bool = False
    """Whether it is a second look at a final refund. These wait behind all others."""

    @property
    def source(self) -> Source:
        """What made the refund due."""
        return self.follow_up.source if self.follow_up else Source.POLL

    @property
    def traceparent(self) -> str:
        """The traceparent of the hint that made the refund due; empty if there is none."""
        return self.follow_up.traceparent if self.follow_up else ""


@dataclass(frozen=True, slots=True)
class NextLook:
    """When to ask about a refund again (ms; None: never automatically), and what to keep of its hint."""

    at: int | None
    follow_up: FollowUp | None = None
    revision: int | None = None
    """The revision of the refund on which `at` is based. 0: there was no refund; None: any revision."""
    outcome: str = ""
    """For the refund's timeline: `unchanged`, or an error's reason; empty if Amazon was not asked."""
    patient: bool = False
    """Whether it waits among the refreshes: only a refresh request has named it, so it may not exist."""
    second: bool = False
    """Whether it waits among the second looks, because the refund is final."""


def after(
    due: DueRefund,
    error: AmazonError | NothingToAsk | StoreUnavailable | None,
    known: Refund | None,
    now: int,
    plan: PollPlan,
    random: float,
    second_looks: Sequence[int] = (),
) -> NextLook:
    """The next look after Amazon was asked about `due` and the ledger did not change.

    `error` is None if Amazon had nothing new. `known` is the refund in the ledger. `random` in [0, 1) is the jitter.
    `second_looks` are the ages (ms) at which Amazon is asked again about a final refund.
    """
    invented = known is None and due.source is Source.REFRESH
    match error:
        case None:
            return _by_schedule(due, known, now, plan, random, second_looks, "unchanged")
        case AmazonNotFound():
            return _by_schedule(due, known, now, plan, random, second_looks, error.reason)
        case NothingToAsk():
            return NextLook(None, revision=error.revision)
        case AmazonThrottled():
            at = now + min((error.retry_after or THROTTLED_PAUSE) * 1000, LONGEST_THROTTLE)
            return NextLook(at, due.follow_up, outcome=error.reason, patient=invented, second=due.second)
        case AmazonError() if due.second and known is not None:
            again = second_look_again(known, now, second_looks)
            return NextLook(again, due.follow_up, outcome=error.reason, second=again is not None)
        case AmazonError():
            follow_up = due.follow_up or FollowUp(Source.POLL, now)
            asked = min((error.retry_after or 0) * 1000, RETRY_MOST)
            wait = max(backoff(RETRY_FIRST, RETRY_MOST, follow_up.failures, random), asked)
            follow_up = msgspec.structs.replace(follow_up, failures=follow_up.failures + 1)
            return NextLook(now + wait, follow_up, outcome=error.reason, patient=invented)
        case StoreEmptied():
            return NextLook(now + EMPTIED_PAUSE, due.follow_up, outcome=error.reason)
        case StoreUnavailable():
            return NextLook(now + DAMAGED_PAUSE, due.follow_up, outcome=error.reason)


def _by_schedule(
    due: DueRefund,
    known: Refund | None,
    now: int,
    plan: PollPlan,
    random: float,
    second_looks: Sequence[int],
    outcome: str,
) -> NextLook:
    follows = known is not None or due.source is not Source.REFRESH
    follow_up = _followed_up(due.follow_up, now) if follows else None
    times = [follow_up.due] if follow_up else []
    if known is not None and (own := next_look(known, now, plan, random)) is not None:
        times.append(own)
    if known is not None and not times and (again := second_look(known, now, second_looks, random)) is not None:
        return NextLook(again, None, known.revision, outcome, second=True)
    return NextLook(min(times, default=None), follow_up, known.revision if known else 0, outcome)


def _followed_up(follow_up: FollowUp | None, now: int) -> FollowUp | None:
    """The follow-up after a look that found nothing new; None after the last one."""
    if follow_up is None or follow_up.source is Source.POLL:
        return None
    if now < follow_up.due:
        return msgspec.structs.replace(follow_up, failures=0)
    again = next_follow_up(follow_up.step, now)
    if again is None:
        return None
    return msgspec.structs.replace(follow_up, step=follow_up.step + 1, failures=0, due=again)


@dataclass(frozen=True, slots=True)
class DueDispute:
    """A claimed dispute. Ask Amazon about it, then finish the claim with the token before the lease ends."""

    account: str
    charge_permission_id: str
    dispute_id: str
    token: int


@dataclass(frozen=True, slots=True)
class DisputeLook:
    """What one question about a dispute changes: the record, when to ask again (ms; None: never automatically), and the
    reminder to send."""

    dispute: Dispute
    at: int | None
    reminder: Reminder | None = None


def after_dispute(known: Dispute, result: DisputeObservation | AmazonError, now: int, random: float) -> DisputeLook:
    """The next look at a dispute after Get Dispute ended with `result` at `now` (ms). `random` in [0, 1) is the jitter.

    Reminders depend only on what is known, so an outage at Amazon does not delay them.
    """
    if isinstance(result, DisputeObservation):
        dispute = learned(known, result, now)
    else:
        failures = known.failures if isinstance(result, AmazonThrottled) else known.failures + 1
        dispute = msgspec.structs.replace(known, failure=result.reason, failures=failures)
    reminder = _reminder_due(dispute, now)
    if reminder is not None:
        dispute = _with_reminder(dispute, reminder, now)
    times = [_ask_again(dispute, result, now, random), _next_reminder(dispute, now)]
    return DisputeLook(dispute, min((at for at in times if at is not None), default=None), reminder)


def _ask_again(dispute: Dispute, result: DisputeObservation | AmazonError, now: int, random: float) -> int | None:
    age = max(now - dispute.told_at, 0)
    match result:
        case DisputeObservation():
            follows = age < FOLLOW_UPS[-1]
            return _planned(DISPUTE_POLL, age, now, random) if dispute.is_undecided or follows else None
        case AmazonThrottled():
            return now + min((result.retry_after or THROTTLED_PAUSE) * 1000, LONGEST_THROTTLE)
        case AmazonRefused() | AmazonRefusesUs():
            return _planned(DISPUTE_UNREADABLE, age, now, random) if age < GIVE_UP else None
        case AmazonError():
            asked = min((result.retry_after or 0) * 1000, RETRY_MOST)
            return now + max(backoff(RETRY_FIRST, RETRY_MOST, dispute.failures - 1, random), asked)


def _planned(plan: PollPlan, age: int, now: int, random: float) -> int:
    wait = plan.next_after(age) - age
    return now + wait + int(wait * JITTER * random)


def _next_reminder(dispute: Dispute, now: int) -> int | None:
    """When to look again because of the second reminder: when it is due, or after `FARTHEST_REMINDER` if that is
    earlier."""
    if not dispute.wants_answer or dispute.has_been(Reminder.DAY_BEFORE):
        return None
    return min(max(dispute.deadline - DAY, now), now + FARTHEST_REMINDER)


def _reminder_due(dispute: Dispute, now: int) -> Reminder | None:
    """The reminder to send at `now` (ms)."""
    if not dispute.wants_answer:
        return None
    if not dispute.has_been(Reminder.KNOWN):
        return Reminder.KNOWN
    is_near = now >= dispute.deadline - DAY
    return Reminder.DAY_BEFORE if is_near and not dispute.has_been(Reminder.DAY_BEFORE) else None


def _with_reminder(dispute: Dispute, reminder: Reminder, now: int) -> Dispute:
    """The dispute after this reminder. On the last day, the first reminder also counts as the second."""
    sent = {reminder, *([Reminder.DAY_BEFORE] if now >= dispute.deadline - DAY else [])}
    marks = [f"{each}@{dispute.deadline}" for each in Reminder if each in sent]
    return msgspec.structs.replace(dispute, reminded=(*dispute.reminded, *marks)[-MOST_KEPT:])
