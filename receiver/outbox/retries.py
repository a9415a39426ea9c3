"""Pure. The retry policy: what a subscriber's answer means for an event (delivered, retry, dead letter, or pause).

    2xx                                    Delivered
    410                                    Gone: the subscriber refuses further events (Standard Webhooks, CloudEvents)
    response webhook-delivery:
      abort-message                        Dead("aborted"): not this event again (the convention of Svix)
    429 or 503 with a Retry-After          Retry at that time, within 1 s and 6 h; costs no attempt
    anything else, also 3xx and no answer  Retry at the next step of SCHEDULE
      … after its last step                Dead("exhausted")
      … that would come after 7 days       Dead("expired")

The seven days start at the first attempt and do not include pauses of the subscriber. `Subscriber.paused_ms` is the sum
of its pauses; `DeliveryAttempts.paused_ms` is that sum at the first attempt; the difference does not count. So ending a
pause is one write, however many events wait.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from receiver.errors import TransportError
from receiver.exchange import Response
from receiver.ledger.schema import tidy

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
SCHEDULE = (
    5 * SECOND,
    30 * SECOND,
    2 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
)
"""The nominal waits between attempts, ms: 12 attempts in 75 h 42 m 35 s, close to the advice of Standard Webhooks."""
LIFETIME = 7 * DAY
SHORTEST_THROTTLE, LONGEST_THROTTLE = 1 * SECOND, 6 * HOUR
LONGEST_EXCERPT = 200
EXCERPT_BYTES = 4096
DELTA_SECONDS = re.compile(r"[0-9]+")
"""RFC 9110, 10.2.3: `Retry-After` is delay-seconds, a whole number, or an HTTP-date."""


class DeliveryAttempts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The attempts so far for one event and one subscriber; `DeliveryAttempts()`: none yet."""

    count: int = 0
    """Attempts that count against the schedule."""
    first_at: int = 0
    """ms; 0: none yet."""
    last_at: int = 0
    last_status: int = 0
    """HTTP status of the last answer; 0: no answer."""
    last_error: str = ""
    """For people: `HTTP 500`, `timeout`, ...; empty after a success."""
    excerpt: str = ""
    """The beginning of the last answer's body, printable."""
    paused_ms: int = 0
    """The subscriber's `paused_ms` at the first attempt."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The subscriber has received the event."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Send it again at `at` (ms). `counts`: whether the failed attempt uses up a step of the schedule."""

    at: int
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Dead:
    """Failed permanently. The event is kept, and can be sent again. `reason`: exhausted, expired, aborted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The subscriber refuses further events: pause it. The event stays owed."""


Verdict = Delivered | Retry | Dead | Gone


def judge(
    answer: Response | TransportError, attempts: DeliveryAttempts, now: int, random: float, *, paused_ms: int = 0
) -> Verdict:
    """Judge the answer to an attempt. Total: any answer has a verdict.

    `attempts` are those before this one; `now` is in ms; `random` in [0, 1) spreads the waits; `paused_ms` is the
    subscriber's current value.
    """
    if isinstance(answer, Response):
        if 200 <= answer.status < 300:
            return Delivered()
        if answer.status == 410:
            return Gone()
        if _aborts(answer):
            return Dead("aborted")
    throttle = _throttle(answer, now)
    if throttle is not None:
        verdict = Retry(now + throttle, counts=False)
    elif attempts.count < len(SCHEDULE):
        verdict = Retry(now + jittered(SCHEDULE[max(0, attempts.count)], random))
    else:
        return Dead("exhausted")
    return verdict if verdict.at < deadline(attempts, now, paused_ms) else Dead("expired")


def record(
    answer: Response | TransportError, attempts: DeliveryAttempts, verdict: Verdict, now: int, *, paused_ms: int = 0
) -> DeliveryAttempts:
    """The attempts including this one, to be stored with the event."""
    free = isinstance(verdict, Retry) and not verdict.counts
    return DeliveryAttempts(
        count=attempts.count + (not free),
        first_at=attempts.first_at or now,
        last_at=now,
        last_status=answer.status if isinstance(answer, Response) else 0,
        last_error="" if isinstance(verdict, Delivered) else error_text(answer),
        excerpt=excerpt(answer.body) if isinstance(answer, Response) else "",
        paused_ms=attempts.paused_ms if attempts.first_at else paused_ms,
    )


def jittered(wait: int, random: float) -> int:
    """A wait (ms) spread by `random`: over [wait / 2, wait) below two hours, [0.8 wait, 1.2 wait) above.

    Short waits are spread widely, because after an outage all events of a subscriber come due together.
    """
    least, spread = (wait // 2, wait // 2) if wait < 2 * HOUR else (wait * 4 // 5, wait * 2 // 5)
    return least + min(int(spread * random), spread - 1)


def deadline(attempts: DeliveryAttempts, now: int, paused_ms: int = 0) -> int:
    """The time (ms) after which the event is not sent: 7 days after the first attempt, plus every pause since."""
    if not attempts.first_at:
        return now + LIFETIME
    return attempts.first_at + LIFETIME + max(0, paused_ms - attempts.paused_ms)


def retry_after(value: str, now: int) -> int | None:
    """The wait (ms) of a `Retry-After`, limited to 1 s to 6 h; None if it is not valid by RFC 9110."""
    text = value.strip()
    if DELTA_SECONDS.fullmatch(text):
        asked = int(text.lstrip("0")[:12] or "0") * SECOND
    else:
        try:
            when = parsedate_to_datetime(text[:64])
            # The asctime form has no zone: an HTTP-date is always in UTC.
            asked = int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000) - now
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(asked, SHORTEST_THROTTLE), LONGEST_THROTTLE)


def error_text(answer: Response | TransportError) -> str:
    """The cause of a failed attempt, for people: `HTTP 500`, `timeout`, `forbidden address: 10.0.0.7 is private`."""
    if isinstance(answer, Response):
        note = ": redirects are not followed" if 300 <= answer.status < 400 else ""
        return f"HTTP {answer.status}{note}"
    words = answer.reason.replace("_", " ")
    said = "" if answer.detail == (type(answer).__doc__ or "").strip() else answer.detail
    return tidy(f"{words}: {said}" if said else words, LONGEST_EXCERPT)


def excerpt(body: bytes) -> str:
    """The beginning of an answer's body as one printable line of at most 200 characters."""
    text = body[:EXCERPT_BYTES].decode("utf-8", "replace")
    return tidy(" ".join(tidy(text, EXCERPT_BYTES).split()), LONGEST_EXCERPT)


def _aborts(answer: Response) -> bool:
    words = answer.headers.get("webhook-delivery", "").lower().split(",")
    return "abort-message" in (word.strip() for word in words)


def _throttle(answer: Response | TransportError, now: int) -> int | None:
    if not isinstance(answer, Response) or answer.status not in (429, 503):
        return None
    return retry_after(answer.headers.get("retry-after", ""), now)


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A claimed delivery. `fields` is the event's stream entry or a copy of it; empty if both are gone."""

    account: str
    subscriber: str
    stream_id: str
    token: int
    attempts: DeliveryAttempts
    fields: Mapping[str, str]


class Tested(msgspec.Struct, frozen=True):
    """The result of a test. `status` is 0 if there was no answer."""

    delivered: bool
    status: int = 0
    error: str = ""
    answer: str = ""
    """The beginning of the answer's body, printable."""
    seconds: float = 0.0
    note: str = ""
    """What was wrong with the answer after its status. It does not affect the result."""
