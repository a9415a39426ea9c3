"""Pure. Checks of a subscriber's fields: each problem with its fix.

Secrets are never repeated. `reading.py` checks the fields that only some formats have.
"""

from __future__ import annotations

import re

from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import REASONS, is_known_reason
from receiver.outbox.events.kinds import NAMED
from receiver.outbox.events.operator_event import FAMILY, OperatorType
from receiver.outbox.subscribers.secrets import PREFIX

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
KEY = re.compile(r"[A-Za-z0-9_-]{1,50}")
REASON = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ALL = "*"
KNOWN_TYPES = tuple(each.value for each in EventType if each is not EventType.TEST)
OPERATOR_TYPES = (*(each.value for each in OperatorType), FAMILY)
OTHER_TYPES = tuple(each.value for kind in NAMED for each in kind.types)
"""Types about Amazon Pay that are not a change of a single refund."""
BESIDE_REFUNDS = (*OTHER_TYPES, *OPERATOR_TYPES)
"""The types that `*` does not include."""
VALID_TYPES = (*KNOWN_TYPES, ALL, *BESIDE_REFUNDS)
MOST_REASONS = 32
SPELLINGS = {
    **{each.lower(): each for each in VALID_TYPES},
    **{each.removeprefix("amazonpay."): each for each in VALID_TYPES},
    **{each.rpartition(".")[2]: each for each in KNOWN_TYPES},
    "all": ALL,
}
"""How people write each type, in lower case → the type."""


def name_problems(name: object) -> list[str]:
    """Problems of `name`, which is part of keys and paths."""
    if isinstance(name, str) and NAME.fullmatch(name):
        return []
    wrong = "is missing" if name is None else "is not a plain word"
    return [f"{wrong}; use 1 to 64 of a-z 0-9 _ -, a letter or digit first"]


def type_problems(types: object) -> list[str]:
    if types is None:
        return []
    known = f"known are {', '.join(KNOWN_TYPES)}, {ALL} for all of them, and {', '.join(BESIDE_REFUNDS)}"
    if not isinstance(types, list | tuple) or not types:
        return [f"is not a list of event types; {known}; leave it out for the format's own"]
    return [
        f"{describe(each)} is not an event type; {known}" for each in types if spelled_type(each) not in VALID_TYPES
    ]


def spelled_type(word: object) -> object:
    """An event type as it is stored, from a text in any letter case: `declined` and `all` are short for
    `amazonpay.refund.declined` and `*`. Anything else is returned unchanged."""
    return SPELLINGS.get(word.lower(), word) if isinstance(word, str) else word


def reason_problems(reasons: object) -> list[str]:
    if reasons is None:
        return []
    if not isinstance(reasons, list | tuple) or not 1 <= len(reasons) <= MOST_REASONS:
        return [f"is not a list of 1 to {MOST_REASONS} reason codes such as AmazonRejected; leave it out for all"]
    return [
        f"{describe(each)} is not a reason code; known are {', '.join(REASONS)}"
        for each in reasons
        if not isinstance(each, str) or not REASON.fullmatch(each) or not is_known_reason(each)
    ]


def key(name: object) -> str:
    """The name of an unknown field, printable."""
    return name if isinstance(name, str) and KEY.fullmatch(name) else describe(name)


def describe(value: object) -> str:
    """A value, short and printable, so that its author recognises it. A secret in the wrong field is not repeated."""
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    if PREFIX in value:
        return "a secret"
    return ascii(value) if len(value) <= 50 else ascii(value[:50]) + "…"
