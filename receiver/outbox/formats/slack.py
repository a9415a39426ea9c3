"""Pure. The format `slack`: blocks for an incoming webhook. Several events make one message with sums and a list.

Every text has `&`, `<` and `>` escaped ("Formatting text for app surfaces"), so that no outside text becomes a mention
or a link. Outside text is also put in backticks, and `verbatim` keeps Slack from linking bare addresses. The limits are
those of the Block Kit reference, counted in UTF-16 units.

The address of an incoming webhook is its credential. Success is 200 `ok`. 410 `channel_is_archived` pauses the
subscriber. Other errors (400 `invalid_blocks`, 403 `action_prohibited`, 404 `no_service`) are retried by the schedule
and then become dead letters. 429 is retried at its `Retry-After`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from receiver.exchange import Request
from receiver.ledger.schema import tidy
from receiver.outbox.events.advice import Action
from receiver.outbox.events.balance_event import BalanceEvent
from receiver.outbox.events.dispute_event import DisputeEvent
from receiver.outbox.events.envelope import AnEvent
from receiver.outbox.events.event import Event
from receiver.outbox.events.mismatch_event import MismatchEvent
from receiver.outbox.events.operator_event import OperatorEvent
from receiver.outbox.formats.format import NEEDS_A_PERSON, Format, post_json
from receiver.outbox.formats.wording import (
    WORDS,
    amount,
    different_advice,
    heading,
    links_of_many,
    operator_texts,
    sums,
    worded,
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

Block = dict[str, Any]


def render(events: Sequence[Any], subscriber: Subscriber, now: int) -> Request:
    """The request for one event, or for several as a list. It is unsigned, and its address is a secret."""
    if len(events) == 1:
        sentence = worded(events[0], subscriber).sentence
        return _post(subscriber, escaped(sentence, FALLBACK), _about_one(events[0], subscriber))
    title = heading(events)
    text = f"{title}. {'; '.join(sums(events)[:MOST_SUMS])}" if isinstance(events[0], Event) else title
    lists = LISTS[type(events[0])](events, subscriber)
    return _post(subscriber, escaped(text, FALLBACK), [_header(title), *lists])


def render_balance(events: Sequence[BalanceEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for balance events, one after the other."""
    blocks = [block for event in events for block in _about_one(event, subscriber)]
    sentence = worded(events[-1], subscriber).sentence
    return _post(subscriber, escaped(sentence, FALLBACK), blocks[-MOST_BLOCKS:])


def render_operator(events: Sequence[OperatorEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for operator events: each text with its subscriber. Equal ones are counted."""
    texts = operator_texts(events)
    (about, text), *others = texts
    more = f" ({len(events)} messages for operators)" if others else _times(len(events))
    blocks = [
        _section(f"*{escaped(about, HEADER)}*{_times(count)}\n{escaped(text, SECTION - HEADER - 30)}")
        for (about, text), count in texts.items()
    ]
    return _post(subscriber, escaped(f"{about}. {text}", FALLBACK - len(more)) + more, blocks)


def _post(subscriber: Subscriber, text: str, blocks: Iterable[Block]) -> Request:
    """The message: `text` for notifications, and at most 50 blocks."""
    return post_json(subscriber.url, {"text": text, "blocks": list(blocks), **QUIET})


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


def _about_one(event: AnEvent, subscriber: Subscriber) -> Iterator[Block]:
    words = worded(event, subscriber)
    yield _header(words.title)
    yield _section(escaped(words.summary, SECTION))
    yield _fields(words.details)
    yield from _steps(words.actions)
    yield _context(words.links, event.account, event.id if isinstance(event, Event | BalanceEvent) else "")


def _about_many(events: Sequence[Event], subscriber: Subscriber) -> Iterator[Block]:
    lines = sums(events)
    more = [f"and {len(lines) - MOST_SUMS} other reasons"] if len(lines) > MOST_SUMS else []
    yield _section("\n".join(f"• {escaped(line, LONGEST_LINE)}" for line in [*lines[:MOST_SUMS], *more]))
    yield from _list([_line(event) for event in events])
    for advised in different_advice(events, subscriber)[:MOST_ADVICE]:
        yield _section(escaped(advised.summary, SECTION))
        yield from _steps(advised.actions)
    yield _context(links_of_many(events, subscriber), events[0].account)


def _disputes(events: Sequence[DisputeEvent], subscriber: Subscriber) -> Iterator[Block]:
    words = [worded(event, subscriber) for event in events]
    ids = [code(event.dispute.dispute_id, 70) for event in events]
    yield from _list([f"• {id_} {escaped(each.title, LONGEST_LINE)}" for id_, each in zip(ids, words, strict=True)])
    yield from _steps(words[0].actions)
    yield _context(words[0].links, events[0].account)


def _mismatches(events: Sequence[MismatchEvent], subscriber: Subscriber) -> Iterator[Block]:
    words = [worded(event, subscriber) for event in events]
    yield from _list([f"• {escaped(each.sentence.partition(': ')[2], LONGEST_LINE)}" for each in words])
    yield _context(words[0].links, events[0].account)


LISTS: Mapping[type[AnEvent], Callable[[Any, Subscriber], Iterator[Block]]] = {
    Event: _about_many,
    DisputeEvent: _disputes,
    MismatchEvent: _mismatches,
}


def _list(lines: Sequence[str]) -> Iterator[Block]:
    for start in range(0, len(lines), LINES_IN_SECTION):
        yield _section("\n".join(lines[start : start + LINES_IN_SECTION]))


def _line(event: Event) -> str:
    refund = event.refund
    parts = [
        f"• {WORDS[event.type]}: {code(refund.refund_id, 70)} {escaped(amount(refund.amount), 30)}",
        code(refund.reason_code, 60) if tidy(refund.reason_code) else "",
        f"order {code(refund.order_reference, 60)}" if tidy(refund.order_reference) else "",
    ]
    return ", ".join(part for part in parts if part)


def _steps(steps: Sequence[Action]) -> Iterator[Block]:
    if steps:
        lines = (f"{number}. {escaped(step.text, 400)}" for number, step in enumerate(steps, start=1))
        yield _section("\n".join(["*What to do*", *lines]))


def _context(links_: Mapping[str, str], account: str, event_id: str = "") -> Block:
    shown = [f"<{escaped(url, SECTION)}|{name}>" for name, url in links_.items()]
    texts = [*shown, f"account {code(account, 140)}", *([code(event_id)] if event_id else [])]
    return {"type": "context", "elements": [_mrkdwn(text) for text in texts]}


def _fields(known: Mapping[str, str]) -> Block:
    shown = [f"*{name}*\n{code(value)}" for name, value in known.items()]
    return {"type": "section", "fields": [_mrkdwn(each) for each in shown[:MOST_FIELDS]]}


def _header(text: str) -> Block:
    return {"type": "header", "text": {"type": "plain_text", "text": escaped(text, HEADER), "emoji": False}}


def _section(text: str) -> Block:
    return {"type": "section", "text": _mrkdwn(text)}


def _mrkdwn(text: str) -> Block:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


FORMAT = Format(
    name="slack",
    types=NEEDS_A_PERSON,
    renderers={
        Event: render,
        BalanceEvent: render_balance,
        DisputeEvent: render,
        MismatchEvent: render,
        OperatorEvent: render_operator,
    },
    credential="url",
    example="https://hooks.slack.com/services/T…/B…/…",
    most_in_one=50,
    window=10_000,
)
