"""HTTP. Formats values for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from markupsafe import Markup, escape

from receiver.ledger.age import DAY
from receiver.ledger.dispute import standing
from receiver.ledger.money import Money
from receiver.ledger.refund import Resolution, State
from receiver.ledger.resolution import AS_TEXT
from receiver.ledger.schema import tidy
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.events.advice import advice_of

STATE_WORDS: Final[Mapping[str, str]] = {
    State.INITIATED: "Pending",
    State.REFUNDED: "Refunded",
    State.DECLINED: "Declined",
}
SOURCES: Final = {
    "notification": "notification",
    "poll": "poll",
    "refresh": "manual refresh",
    "create": "answer to our request",
    "person": "a person",
}

LOOKED: Final = {
    "unchanged": "nothing new",
    "amazon_not_found": "no such refund",
    "amazon_throttled": "throttled",
    "amazon_refuses_us": "our request was refused",
    "amazon_refused": "our key or request was refused",
    "amazon_unknown": "no usable answer",
}
FOR_PROGRAMS: Final = re.compile(r" ?\((?=[^()]*(?:`|/v1/))[^()]*\)")
"""A hint in brackets on how a program does it: people have the buttons of the page."""
DELIVERED: Final = {"delivered": "delivered", "retry": "failed", "dead": "failed permanently"}


def moment(ms: int) -> str:
    """`2025-10-09 08:53:20 UTC`."""
    return f"{format_rfc3339(ms)[:19].replace('T', ' ')} UTC" if ms else "not known"


def day(ms: int) -> str:
    """`29 November 2026`, in UTC."""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{at.day} {at:%B %Y}"


def clock(ms: int) -> str:
    """`08:53:20.125`, in UTC."""
    return format_rfc3339(ms)[11:].removesuffix("Z").ljust(9, ".").ljust(12, "0")


def moment_on(ms: int, other: int) -> str:
    """`08:53:20` if it is on the same day (UTC) as the other time, else with its date."""
    return clock(ms)[:8] if ms and ms // DAY == other // DAY else moment(ms)


def minute(ms: int) -> str:
    """`2025-10-09 08:53`, for columns headed UTC."""
    return format_rfc3339(ms)[:16].replace("T", " ")


def money(amount: Money | None) -> str:
    """`12,040.00 USD`."""
    if amount is None:
        return "amount not known"
    whole, point, rest = amount.text.partition(".")
    return f"{int(whole):,}{point}{rest} {amount.currency_code}"


def for_people(text: str) -> Markup:
    """The text without hints for programs; what is in backticks becomes code. Everything else is escaped."""
    pieces = FOR_PROGRAMS.sub("", text).split("`")
    if len(pieces) % 2 == 0:
        return escape("".join(pieces))
    return Markup("").join(
        Markup("<code>{}</code>").format(each) if index % 2 else escape(each) for index, each in enumerate(pieces)
    )


def how_word(case: Resolution) -> str:
    """How the case was closed."""
    return AS_TEXT[case.how] if case.how else "open"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def refund_path(refund_id: str, account: str, more: str = "") -> str:
    """The path of a refund's page, or of something below it."""
    return f"/refunds/{quote(refund_id, safe='')}{more}?{urlencode({'account': account})}"


def subscriber_path(name: str, account: str, verb: str) -> str:
    """The target of a form about a subscriber, or of its page."""
    return f"/subscribers/{quote(name, safe='')}/{verb}?{urlencode({'account': account})}"


def state_word(state: str) -> str:
    """Amazon's word for a state, or a plainer one."""
    return STATE_WORDS.get(state) or tidy(state) or "unknown"


def state_class(state: str) -> str:
    """The CSS class of a state: one of four, for any value from Amazon."""
    return STATE_WORDS.get(state, "other").lower()


def source_word(source: str) -> str:
    """What triggered the poll."""
    return SOURCES.get(source, source)


def looked_word(outcome: str) -> str:
    """Amazon's answer to a poll that changed nothing."""
    return LOOKED.get(outcome, tidy(outcome.replace("_", " ")))


def delivered_word(outcome: str) -> str:
    """The outcome of one delivery attempt."""
    return DELIVERED.get(outcome, tidy(outcome))


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    **{
        each.__name__: each
        for each in (
            *(moment, moment_on, minute, day, clock, money, duration, for_people, refund_path, subscriber_path),
            *(how_word, state_word, state_class, source_word, looked_word, delivered_word, standing, tidy),
        )
    },
    "iso": format_rfc3339,
    "advice": advice_of,
}
