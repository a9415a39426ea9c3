"""Pure. The format `teams`: an Adaptive Card for a Microsoft Teams workflow. Several events make one card.

The address is that of the trigger "When a Teams webhook request is received", and is its credential. It takes a message
whose attachments are Adaptive Cards ("Create Incoming Webhooks", "Create and send messages" in Microsoft's Teams
documentation, learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors). A message may have 28 KB. Teams
counts the card as a string within JSON: the card of 24,453 bytes in github.com/MicrosoftDocs/msteams-docs/issues/11274
counted as 28,897.

Texts are in `TextRun`s, of which the reference of Adaptive Cards says "Markdown is not supported"
(learn.microsoft.com/adaptive-cards/schema-explorer/text-run): no outside text becomes a link, an emphasis or a date.
Links are buttons, `Action.OpenUrl`.

Success is 202. 410 pauses the subscriber. Other errors, such as 404 for a workflow that was deleted or turned off, are
retried by the schedule and then become dead letters. 429 is retried at its `Retry-After`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from receiver.exchange import Request
from receiver.ledger.schema import tidy
from receiver.outbox.events.advice import Action
from receiver.outbox.events.balance_event import BalanceEvent
from receiver.outbox.events.dispute_event import DisputeEvent
from receiver.outbox.events.event import Event
from receiver.outbox.events.mismatch_event import MismatchEvent
from receiver.outbox.events.operator_event import OperatorEvent
from receiver.outbox.formats.format import NEEDS_A_PERSON, Format, post_json
from receiver.outbox.formats.wording import (
    WORDS,
    Wording,
    amount,
    different_advice,
    heading,
    links_of_many,
    operator_texts,
    sums,
    worded,
)
from receiver.outbox.subscribers.subscriber import Subscriber

MOST_CARD = 24_000
"""The longest card, as a text within JSON, in bytes. The rest of the 28 KB is Teams' own."""
LIMITS = (600, 120, 40, 0)
"""Limits for outside texts, in characters. The first one with which the card fits is used; 0 leaves the texts out of
lists."""
LONGEST_TEXT, LONGEST_ID, LONGEST_STEP = 1000, 70, 400
MOST_SUMS = 8
MOST_ADVICE = 3
LEFT_OUT = "Some lines were left out, because Teams limits the length of a message."

Block = dict[str, Any]
Blocks = Callable[[int], Iterator[Block]]
"""The content of a card, with outside texts cut to that many characters."""


def render(events: Sequence[Event], subscriber: Subscriber, now: int) -> Request:
    """The request for one or several refund events. It is unsigned, and its address is a secret."""
    if len(events) > 1:
        return _post(subscriber, lambda limit: _refunds(events, subscriber, limit), links_of_many(events, subscriber))
    words = worded(events[0], subscriber)
    with_id = replace(words, details={**words.details, "Event": events[0].id})
    return _post(subscriber, lambda limit: _about_one(with_id, limit), words.links)


def render_operator(events: Sequence[OperatorEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for operator events: each text with its subscriber. Equal ones are counted."""

    def blocks(limit: int) -> Iterator[Block]:
        for (about, text), count in operator_texts(events).items():
            yield _title(about + (f" ({count} times)" if count > 1 else ""))
            yield _text(text, limit=max(limit, LIMITS[2]))

    return _post(subscriber, blocks, {})


def render_balance(events: Sequence[BalanceEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for balance events, one after the other."""
    all_words = [worded(event, subscriber) for event in events]
    return _post(
        subscriber,
        lambda limit: (block for words in all_words for block in _about_one(words, limit)),
        all_words[-1].links,
    )


def render_disputes(events: Sequence[DisputeEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for dispute events: one with its facts, several as a list."""
    first, *others = [worded(event, subscriber) for event in events]

    def blocks(limit: int) -> Iterator[Block]:
        yield _title(heading(events))
        for event, words in zip(events, (first, *others), strict=True):
            yield _line(f"{tidy(event.dispute.dispute_id, LONGEST_ID)}:", words.title)
        yield from _steps(first.actions)

    return _post(subscriber, blocks if others else lambda limit: _about_one(first, limit), first.links)


def render_mismatches(events: Sequence[MismatchEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for mismatch events: one with its facts, several as a list."""
    first, *others = [worded(event, subscriber) for event in events]

    def blocks(limit: int) -> Iterator[Block]:
        yield _title(heading(events))
        yield from (_text(words.sentence, limit=max(limit, LIMITS[1])) for words in (first, *others))

    return _post(subscriber, blocks if others else lambda limit: _about_one(first, limit), first.links)


def _about_one(words: Wording, limit: int) -> Iterator[Block]:
    yield from (_title(words.title), _text(words.summary))
    yield from (*_facts(words.details, limit), *_steps(words.actions))


def _refunds(events: Sequence[Event], subscriber: Subscriber, limit: int) -> Iterator[Block]:
    yield _title(heading(events))
    lines = sums(events)
    more = [f"and {len(lines) - MOST_SUMS} other reasons"] if len(lines) > MOST_SUMS else []
    yield from (_text(f"• {line}", limit=max(limit, LIMITS[2])) for line in [*lines[:MOST_SUMS], *more])
    for event in events:
        refund = event.refund
        order = tidy(refund.order_reference, limit) if limit else ""
        outside = [tidy(refund.reason_code, limit), f"order {order}" if order else ""] if limit else []
        what = [f"{amount(refund.amount)} {WORDS[event.type]}", *outside]
        yield _line(f"{tidy(refund.refund_id, LONGEST_ID)}:", ", ".join(filter(None, what)))
    yield from _facts({"Account": events[0].account}, limit)
    for advised in different_advice(events, subscriber)[:MOST_ADVICE]:
        yield from (_text(advised.summary), *_steps(advised.actions))


def _post(subscriber: Subscriber, blocks: Blocks, links_: Mapping[str, str]) -> Request:
    """The message with its card, which is short enough for Teams."""
    buttons = [{"type": "Action.OpenUrl", "title": name, "url": url} for name, url in links_.items()]
    for limit in LIMITS:
        card = _card(list(blocks(limit)), buttons)
        if _size(card) <= MOST_CARD:
            break
    while _size(card) > MOST_CARD:
        card = _card([*card["body"][:-2], _text(LEFT_OUT)], buttons)
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return post_json(subscriber.url, {"type": "message", "attachments": [attachment]})


def _card(body: list[Block], buttons: list[Block]) -> Block:
    return {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
        **({"actions": buttons} if buttons else {}),
    }


def _size(card: Block) -> int:
    return len(json.dumps(json.dumps(card)))


def _facts(known: Mapping[str, str], limit: int) -> Iterator[Block]:
    """Names and values, one to a line. A `FactSet` would read the values as Markdown."""
    for name, value in known.items():
        yield _line(f"{name}:", tidy(value, max(limit, LIMITS[2])))


def _steps(steps: Sequence[Action]) -> Iterator[Block]:
    if steps:
        yield _rich(_run("What to do", weight="Bolder"))
    for number, step in enumerate(steps, start=1):
        yield _text(f"{number}. {step.text}", limit=LONGEST_STEP)


def _title(text: str) -> Block:
    return _rich(_run(tidy(text, LONGEST_TEXT), weight="Bolder", size="Large"))


def _text(text: str, *, limit: int = LONGEST_TEXT) -> Block:
    return _rich(_run(tidy(text, limit)))


def _line(first: str, rest: str) -> Block:
    return {**_rich(_run(f"{first} ", weight="Bolder"), _run(rest)), "spacing": "Small"}


def _rich(*runs: Block) -> Block:
    return {"type": "RichTextBlock", "inlines": list(runs)}


def _run(text: str, **style: str) -> Block:
    return {"type": "TextRun", "text": text, **style}


FORMAT = Format(
    name="teams",
    types=NEEDS_A_PERSON,
    renderers={
        Event: render,
        BalanceEvent: render_balance,
        DisputeEvent: render_disputes,
        MismatchEvent: render_mismatches,
        OperatorEvent: render_operator,
    },
    credential="url",
    example="https://….powerplatform.com/…/workflows/…/triggers/manual/paths/invoke?…&sig=…",
    most_in_one=50,
    window=10_000,
)
