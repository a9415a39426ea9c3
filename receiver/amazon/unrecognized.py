"""Pure. Extracts what it can from a message that is not understood: refund ids, a dispute, merchant ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from receiver.amazon.dispute import kind_of, notified_dispute
from receiver.amazon.notification import MERCHANT
from receiver.amazon.sns import strict_json
from receiver.errors import Malformed
from receiver.ledger.dispute import Dispute
from receiver.ledger.refund import AMAZON_REFUND_ID

_NAMED_REFUND = re.compile(rf"(?<![A-Za-z0-9-]){AMAZON_REFUND_ID.pattern}(?!-?[A-Za-z0-9])")
_WORD = re.compile(r"[A-Za-z0-9]+")


class Contents(msgspec.Struct, frozen=True):
    """What a message contains, whatever it means."""

    refund_ids: tuple[str, ...]
    """Every text in the form of Amazon's refund ids, once each, in the order of the message."""
    merchant_id: str
    """`MerchantID` or `SellerId`, if the message is a JSON object with a well-formed one; else empty."""
    words: frozenset[str]
    """The alphanumeric texts in it: one of them may be a merchant id."""
    is_sample: bool
    """Whether it calls itself a test message, whose ids are invented."""
    dispute: Dispute | None = None
    """Its dispute, if its type is one and it names a charge permission."""


def read_contents(message: str) -> Contents:
    """Read any text; never raises."""
    try:
        parsed = strict_json.parse_text(message)
    except Malformed:
        parsed = None
    texts = [message, *_texts(parsed)]
    fields = [(name.casefold(), value) for name, value in parsed.items()] if isinstance(parsed, dict) else []
    named = {value for name, value in fields if name in ("merchantid", "sellerid") and isinstance(value, str)}
    merchant_id = named.pop() if len(named) == 1 else ""
    is_sample = any(name == "issample" and value in (True, "true", "True") for name, value in fields)
    return Contents(
        refund_ids=tuple(dict.fromkeys(found for text in texts for found in _NAMED_REFUND.findall(text))),
        merchant_id=merchant_id if MERCHANT.fullmatch(merchant_id) else "",
        words=frozenset(word for text in texts for word in _WORD.findall(text)),
        is_sample=is_sample,
        dispute=None if is_sample else _dispute(dict(reversed(fields))),
    )


def _dispute(fields: Mapping[str, object]) -> Dispute | None:
    types = (fields.get(name) for name in ("objecttype", "notificationtype"))
    kind = kind_of(*(each for each in types if isinstance(each, str)))
    try:
        return notified_dispute(kind, fields) if kind else None
    except Malformed:
        return None


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON value, including names. Escapes can hide an id from a search in the raw message."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts_of([*value.keys(), *value.values()])
    elif isinstance(value, list):
        yield from _texts_of(value)


def _texts_of(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        yield from _texts(value)
