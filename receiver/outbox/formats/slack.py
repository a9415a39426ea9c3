"""Pure. The format `slack`: blocks for an incoming webhook. Several events make one message with sums and a list.

Every text has `&`, `<` and `>` escaped ("Formatting text for app surfaces"), so that no outside text becomes a mention
or a link. Outside text is also put in backticks, and `verbatim` keeps Slack from linking bare addresses. The limits are
those of the Block Kit reference, counted in UTF-16 units.

The address of an incoming webhook is its credential. Success is 200 `ok`. 410 `channel_is_archived` pauses the
subscriber. Other errors (400 `invalid_blocks`, 403 `action_prohibited`, 404 `no_service`) are retried by the schedule
and then become dead letters. 429 is retried at its `Retry-After`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from receiver.exchange import Request
from receiver.ledger.schema import tidy
from receiver.outbox.events.advice import Action
from receiver.outbox.events.balance_event import BalanceEvent
from receiver.outbox.events.balance_event import advice_of as balance_advice
from receiver.outbox.events.dispute_event import DisputeEvent
from receiver.outbox.events.dispute_event import advice_of as dispute_advice
from receiver.outbox.events.event import Event
from receiver.outbox.events.mismatch_event import MismatchEvent
from receiver.outbox.events.mismatch_event import advice_of as mismatch_advice
from receiver.outbox.events.operator_event import OperatorEvent
from receiver.outbox.formats.format import NEEDS_A_PERSON, Format, post_json
from receiver.outbox.formats.wording import (
    WORDS,
    amount,
    balance_details,
    balance_links,
    balance_sentence,
    balance_title,
    details,
    different_advice,
    dispute_details,
    dispute_links,
    dispute_sentence,
    dispute_title,
    links,
    mismatch_details,
    mismatch_links,
    mismatch_sentence,
    mismatch_title,
    operator_texts,
    sentence,
    summary,
    sums,
    title,
)
from receiver.outbox.subscribers.subscriber import Subscriber

HEADER, SECTION, FIELD, FALLBACK = 150, 3000, 2000, 1000
"""The longest `text` of a header, a section, a section's field, and of the fallback for notifications."""
MOST_FIELDS = 10
MOST_BLOCKS = 50
LONGEST_VALUE = 600
"""The longest fact, escaped. Only `reasonDescription` can be longer."""
LONGEST_LINE = 280
LINES_IN_SECTION = 10
MOST_SUMS = 8
MOST_ADVICE = 3
"""The most pieces of different advice in one message."""
QUIET = {"unfurl_links": False, "unfurl_media": False}
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def render(events: Sequence[Event], subscriber: Subscriber, now: int) -> Request:
    """The request for one or several events. It is unsigned, and its address is a secret."""
    return post_json(subscriber.url, message(events, subscriber))


def message(events: Sequence[Event], subscriber: Subscriber) -> dict[str, Any]:
    """The message: `text` for notifications, and `blocks`, at most 50 of them."""
    one = len(events) == 1
    text = sentence(events[0]) if one else f"{title(events)}. {'; '.join(sums(events)[:MOST_SUMS])}"
    return {
        "text": escaped(text, FALLBACK),
        "blocks": list(_about_one(events[0], subscriber) if one else _about_many(events, subscriber)),
        **QUIET,
    }


def render_operator(events: Sequence[OperatorEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for operator events: each text with its subscriber. Equal ones are counted."""
    texts = operator_texts(events)
    (about, text), *others = texts
    more = f" ({len(events)} messages for operators)" if others else _times(len(events))
    body = {
        "text": escaped(f"{about}. {text}", FALLBACK - len(more)) + more,
        "blocks": [
            _section(f"*{escaped(about, HEADER)}*{_times(count)}\n{escaped(text, SECTION - HEADER - 30)}")
            for (about, text), count in texts.items()
        ],
        **QUIET,
    }
    return post_json(subscriber.url, body)


def render_balance(events: Sequence[BalanceEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for balance events, one after the other."""
    blocks: list[dict[str, Any]] = []
    for event in events:
        advice = balance_advice(event)
        blocks += [_header(balance_title(event)), _section(escaped(advice.summary, SECTION))]
        blocks += [_fields(balance_details(event)), *_steps(advice.actions)]
        blocks.append(_context(balance_links(event, subscriber), event.account, event.id))
    text = escaped(balance_sentence(events[-1]), FALLBACK)
    return post_json(subscriber.url, {"text": text, "blocks": blocks[-MOST_BLOCKS:], **QUIET})


def render_disputes(events: Sequence[DisputeEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for dispute events: one with its facts, several as a list."""
    title_ = dispute_title(events)
    text = dispute_sentence(events[0]) if len(events) == 1 else title_
    blocks = [_header(title_), *_about_disputes(events), *_steps(dispute_advice(events[0]).actions)]
    blocks.append(_context(dispute_links(events[0], subscriber), events[0].account))
    return post_json(subscriber.url, {"text": escaped(text, FALLBACK), "blocks": blocks, **QUIET})


def _about_disputes(events: Sequence[DisputeEvent]) -> Iterator[dict[str, Any]]:
    if len(events) == 1:
        yield _section(escaped(dispute_advice(events[0]).summary, SECTION))
        yield _fields(dispute_details(events[0]))
        return
    lines = [f"• {code(each.dispute.dispute_id, 70)} {escaped(dispute_title([each]), LONGEST_LINE)}" for each in events]
    for start in range(0, len(lines), LINES_IN_SECTION):
        yield _section("\n".join(lines[start : start + LINES_IN_SECTION]))


def render_mismatches(events: Sequence[MismatchEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for mismatch events: one with its facts, several as a list."""
    title_, advice = mismatch_title(events), mismatch_advice(events[0].finding.kind)
    one = len(events) == 1
    lines = [f"• {escaped(mismatch_sentence(each).partition(': ')[2], LONGEST_LINE)}" for each in events]
    sections = ["\n".join(lines[at : at + LINES_IN_SECTION]) for at in range(0, len(lines), LINES_IN_SECTION)]
    about = [_section(escaped(advice.summary, SECTION)), _fields(mismatch_details(events[0]))]
    blocks = [_header(title_), *(about if one else map(_section, sections)), *_steps(advice.actions if one else ())]
    blocks.append(_context(mismatch_links(events[0], subscriber), events[0].account))
    text = mismatch_sentence(events[0]) if one else title_
    return post_json(subscriber.url, {"text": escaped(text, FALLBACK), "blocks": blocks, **QUIET})


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


def escaped(text: str, limit: int) -> str:
    """The text, printable, with Slack's three entities, cut with an ellipsis to `limit` UTF-16 units, never within an
    entity."""
    pieces: list[str] = []
    left = limit
    for character in tidy(text, limit):
        piece = ENTITIES.get(character, character)
        size = len(piece) + (character > "\uffff")
        if size > left - 1:
            return "".join(pieces) + "…"
        pieces.append(piece)
        left -= size
    return "".join(pieces)


def code(text: str, limit: int = LONGEST_VALUE) -> str:
    """Outside text, shown literally: no emphasis, no emoji, no list."""
    return f"`{escaped(text.replace('`', chr(39)), limit - 2)}`"


def _about_one(event: Event, subscriber: Subscriber) -> Iterator[dict[str, Any]]:
    yield _header(title([event]))
    yield _section(escaped(summary(event), SECTION))
    yield _fields(details(event))
    yield from _what_to_do(event)
    yield _context(links(event, subscriber), event.account, event.id)


def _about_many(events: Sequence[Event], subscriber: Subscriber) -> Iterator[dict[str, Any]]:
    yield _header(title(events))
    lines = sums(events)
    more = [f"and {len(lines) - MOST_SUMS} other reasons"] if len(lines) > MOST_SUMS else []
    yield _section("\n".join(f"• {escaped(line, LONGEST_LINE)}" for line in [*lines[:MOST_SUMS], *more]))
    lines = [_line(event) for event in events]
    for start in range(0, len(lines), LINES_IN_SECTION):
        yield _section("\n".join(lines[start : start + LINES_IN_SECTION]))
    for advised in different_advice(events)[:MOST_ADVICE]:
        yield _section(escaped(summary(advised), SECTION))
        yield from _what_to_do(advised)
    yield _context(links(events[0], subscriber, many=True), events[0].account)


def _line(event: Event) -> str:
    refund = event.refund
    parts = [
        f"• {WORDS[event.type]}: {code(refund.refund_id, 70)} {escaped(amount(refund), 30)}",
        code(refund.reason_code, 60) if tidy(refund.reason_code) else "",
        f"order {code(refund.order_reference, 60)}" if tidy(refund.order_reference) else "",
    ]
    return ", ".join(part for part in parts if part)


def _what_to_do(event: Event) -> Iterator[dict[str, Any]]:
    if event.advice:
        yield from _steps(event.advice.actions)


def _steps(steps: Sequence[Action]) -> Iterator[dict[str, Any]]:
    if steps:
        lines = (f"{number}. {escaped(step.text, 400)}" for number, step in enumerate(steps, start=1))
        yield _section("\n".join(["*What to do*", *lines]))


def _context(links_: Mapping[str, str], account: str, event_id: str = "") -> dict[str, Any]:
    shown = [f"<{escaped(url, SECTION)}|{name}>" for name, url in links_.items()]
    texts = [*shown, f"account {code(account, 140)}", *([code(event_id)] if event_id else [])]
    return {"type": "context", "elements": [_mrkdwn(text) for text in texts]}


def _fields(known: Mapping[str, str]) -> dict[str, Any]:
    shown = [f"*{name}*\n{code(value)}" for name, value in known.items()]
    return {"type": "section", "fields": [_mrkdwn(each) for each in shown[:MOST_FIELDS]]}


def _header(text: str) -> dict[str, Any]:
    return {"type": "header", "text": {"type": "plain_text", "text": escaped(text, HEADER), "emoji": False}}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _mrkdwn(text)}


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


FORMAT = Format(
    name="slack",
    types=NEEDS_A_PERSON,
    renderers={
        Event: render,
        BalanceEvent: render_balance,
        DisputeEvent: render_disputes,
        MismatchEvent: render_mismatches,
        OperatorEvent: render_operator,
    },
    credential="url",
    example="https://hooks.slack.com/services/T…/B…/…",
    most_in_one=50,
    window=10_000,
)
