"""HTTP. Formats values for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, urlencode

from receiver.ledger.dispute import standing
from receiver.ledger.refund import Refund, State
from receiver.ledger.schema import tidy
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.events.advice import Advice, advice_of

STATE_WORDS: Final = {State.INITIATED: "Pending", State.REFUNDED: "Refunded", State.DECLINED: "Declined"}
SOURCES: Final = {
    "notification": "notification",
    "poll": "poll",
    "refresh": "manual refresh",
    "create": "answer to our request",
}

LOOKED: Final = {
    "unchanged": "nothing new",
    "amazon_not_found": "no such refund",
    "amazon_throttled": "throttled",
    "amazon_refuses_us": "our request was refused",
    "amazon_refused": "our key or request was refused",
    "amazon_unknown": "no usable answer",
}
DELIVERED: Final = {"delivered": "delivered", "retry": "failed", "dead": "failed permanently"}


def moment(ms: int) -> str:
    """`2025-10-09 08:53:20 UTC`."""
    return f"{format_rfc3339(ms)[:19].replace('T', ' ')} UTC" if ms else "not known"


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
    """The target of a form about a subscriber."""
    return f"/subscribers/{quote(name, safe='')}/{verb}?{urlencode({'account': account})}"


def state_word(state: str) -> str:
    """Amazon's word for a state, or a plainer one."""
    return next((word for known, word in STATE_WORDS.items() if known == state), tidy(state) or "unknown")


def state_class(state: str) -> str:
    """The CSS class of a state: one of four, for any value from Amazon."""
    known = {State.INITIATED: "pending", State.REFUNDED: "refunded", State.DECLINED: "declined"}
    return next((word for name, word in known.items() if name == state), "other")


def source_word(source: str) -> str:
    """What triggered the poll."""
    return SOURCES.get(source, source)


def looked_word(outcome: str) -> str:
    """Amazon's answer to a poll that changed nothing."""
    return LOOKED.get(outcome, tidy(outcome.replace("_", " ")))


def delivered_word(outcome: str) -> str:
    """The outcome of one delivery attempt."""
    return DELIVERED.get(outcome, tidy(outcome))


def advice(refund: Refund) -> Advice | None:
    return advice_of(refund)


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "moment": moment,
    "iso": format_rfc3339,
    "duration": duration,
    "refund_path": refund_path,
    "subscriber_path": subscriber_path,
    "state_word": state_word,
    "state_class": state_class,
    "source_word": source_word,
    "looked_word": looked_word,
    "delivered_word": delivered_word,
    "standing": standing,
    "advice": advice,
    "tidy": tidy,
}
