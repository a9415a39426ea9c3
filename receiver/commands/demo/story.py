"""Pure. What happens in the demo, and what must be observed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from receiver.simulator.outcomes import Outcome

FORGERIES = {
    "other_topic": 403,
    "changed_message": 403,
    "wrong_key": 403,
    "strangers_address": 403,
    "relabelled": 403,
    "resplit": 400,
    "too_old": 403,
    "raw": 400,
    "confirmation": 403,
}
"""Kind of forgery → the answer that it must get. All are final: SNS does not repeat the message."""

LEAST = 40
INITIATED, REFUNDED, DECLINED, CONFLICT = (
    f"amazonpay.refund.{word}" for word in ("initiated", "refunded", "declined", "conflict")
)


@dataclass(frozen=True, slots=True)
class Expectation:
    """How a refund must end, and its events. No others may be sent, except `initiated`."""

    state: str
    reason: str
    events: frozenset[str]
    amount: str = ""
    """With its currency."""


EXPECTED: Mapping[Outcome, Expectation] = {
    Outcome.REFUNDED: Expectation("Refunded", "", frozenset({REFUNDED})),
    Outcome.REFUNDED_AT_ONCE: Expectation("Refunded", "", frozenset({REFUNDED})),
    Outcome.AMAZON_REJECTED: Expectation("Declined", "AmazonRejected", frozenset({DECLINED})),
    Outcome.PROCESSING_FAILURE: Expectation("Declined", "ProcessingFailure", frozenset({DECLINED})),
    Outcome.UNKNOWN_STATE: Expectation("Refunded", "", frozenset({REFUNDED})),
    Outcome.PENDING: Expectation("RefundInitiated", "", frozenset({INITIATED})),
    Outcome.CONTRADICTED: Expectation("Declined", "ProcessingFailure", frozenset({REFUNDED, DECLINED, CONFLICT})),
}

SPECIAL = (
    Outcome.AMAZON_REJECTED,
    Outcome.PROCESSING_FAILURE,
    Outcome.AMAZON_REJECTED,
    Outcome.PROCESSING_FAILURE,
    Outcome.UNKNOWN_STATE,
    Outcome.PENDING,
    Outcome.REFUNDED_AT_ONCE,
    Outcome.CONTRADICTED,
)
CURRENCIES = ("USD", "USD", "USD", "EUR")


@dataclass(frozen=True, slots=True)
class StoryRefund:
    """One refund of the story."""

    amount: str
    currency: str
    outcome: Outcome
    trick: str = ""
    """What goes wrong with its final notification: drop, duplicate, reorder."""


def story(count: int) -> list[StoryRefund]:
    """The refunds to start: every fifth is declined, every outcome appears, and there are three kinds of faults."""
    parts = []
    for number in range(count):
        outcome = Outcome.REFUNDED
        if number % 5 == 1:
            outcome = SPECIAL[number // 5 % len(SPECIAL)]
        trick = {3: "drop", 6: "drop", 8: "duplicate", 11: "duplicate", 13: "reorder", 16: "reorder"}.get(number, "")
        parts.append(StoryRefund(f"{12 + 7 * number}.50", CURRENCIES[number % 4], outcome, trick))
    return parts


@dataclass(slots=True)
class Seen:
    """Everything sent to one subscriber."""

    name: str
    wants_all: bool
    events: list[tuple[str, str, str]] = field(default_factory=list)
    """(event id, type, refund id) of every delivery that it accepted."""
    contents: dict[tuple[str, str], tuple[str, str, str]] = field(default_factory=dict)
    """(type, refund id) → (state, reason code, amount with currency) in the event's data."""
    failed_first: int = 0
    bad_signatures: int = 0

    def expected(self, refund_id: str, expectation: Expectation) -> set[tuple[str, str]]:
        """(type, refund id) of everything that it must have been sent."""
        kinds = expectation.events if self.wants_all else expectation.events & {DECLINED}
        return {(kind, refund_id) for kind in kinds}


def missing(seen: Seen, expectations: Mapping[str, Expectation]) -> set[tuple[str, str]]:
    """What has not been sent to the subscriber yet."""
    got = {(kind, refund_id) for _, kind, refund_id in seen.events}
    return set().union(*(seen.expected(*each) for each in expectations.items())) - got


def judge(
    expectations: Mapping[str, Expectation],
    states: Mapping[str, tuple[str, str]],
    subscribers: Sequence[Seen],
    refusals: Mapping[str, int | None],
) -> list[str]:
    """Everything missing or unexpected, one sentence each."""
    problems = [
        f"{refund_id} ended as {states.get(refund_id)}, not as {(want.state, want.reason)}."
        for refund_id, want in expectations.items()
        if states.get(refund_id) != (want.state, want.reason)
    ]
    problems += [f"The ledger has {refund_id}, which was never refunded." for refund_id in states.keys() - expectations]
    for seen in subscribers:
        problems += [
            f"{seen.name} was never sent {kind} of {refund_id}."
            for kind, refund_id in sorted(missing(seen, expectations))
        ]
        problems += _too_much(seen, expectations)
        if seen.bad_signatures:
            problems.append(f"{seen.name} got {seen.bad_signatures} deliveries with a wrong signature.")
    problems += [
        f"The forgery {kind} was answered {refusals.get(kind)}, not {want}."
        for kind, want in FORGERIES.items()
        if refusals.get(kind) != want
    ]
    return problems + [problem for seen in subscribers for problem in _wrong_contents(seen, expectations)]


def _wrong_contents(seen: Seen, expectations: Mapping[str, Expectation]) -> list[str]:
    """Events whose state, reason or amount differ from Amazon's."""
    problems = []
    for (kind, refund_id), found in seen.contents.items():
        want = expectations.get(refund_id)
        final = {DECLINED: "Declined", REFUNDED: "Refunded"}.get(kind)
        if want is None or final is None:
            continue
        reason = want.reason if final == want.state else ""
        if found != (final, reason, want.amount):
            problems.append(f"{seen.name} was sent {found} for {refund_id}, not {(final, reason, want.amount)}.")
    return problems


def _too_much(seen: Seen, expectations: Mapping[str, Expectation]) -> list[str]:
    problems = []
    for (event_id, kind, refund_id), count in Counter(seen.events).items():
        if count > 1:
            problems.append(f"{seen.name} was sent {event_id} ({kind} of {refund_id}) {count} times.")
        allowed = expectations[refund_id].events | {INITIATED} if refund_id in expectations else frozenset()
        if kind not in allowed:
            problems.append(f"{seen.name} was sent {kind} of {refund_id}, which did not happen.")
    return problems
