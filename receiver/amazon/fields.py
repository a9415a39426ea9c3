"""Pure. Reads the fields of an answer's JSON object one by one, so that one bad field does not hide the others.

Two kinds of field:

    required    without it the answer means nothing: raises `AmazonOutcomeUnknown("amazon_unintelligible")`
    optional    null if absent; null and listed in `unread` if present but unreadable

Nothing is guessed: a value is read in its documented form or not at all. Unknown keys are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from receiver.amazon.answers import WORD, JsonObject, unintelligible
from receiver.errors import Malformed
from receiver.exchange import Response
from receiver.ledger.money import Money
from receiver.ledger.order_reference import reference_problem
from receiver.ledger.refund import REFUND_ID, Unread, is_theirs
from receiver.ledger.schema import clean

Value = TypeVar("Value")

ABSENT = (None, "")
"""Null and the empty text count as absent."""


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object of an answer. Its nested objects share one list of unreadable fields."""

    response: Response
    values: JsonObject
    noted: list[Unread] = field(default_factory=list)

    def required(self, name: str, convert: Callable[[object], Value]) -> Value:
        """The value. Raises `AmazonOutcomeUnknown` if it is absent or unreadable."""
        value = self.values.get(name)
        if value in ABSENT:
            unintelligible(self.response, f"it has no {name}")
        try:
            return convert(value)
        except Malformed as error:
            unintelligible(self.response, f"its {name} cannot be read ({error.reason})")

    def optional(self, name: str, convert: Callable[[object], Value], default: Value) -> Value:
        """The value; the default if it is absent, or unreadable, which is noted."""
        value = self.values.get(name)
        if value in ABSENT:
            return default
        try:
            return convert(value)
        except Malformed as error:
            self.note(name, error.reason)
            return default

    def part(self, *names: str) -> Fields:
        """The first of these members that is an object; an empty one if none is. A wrong type is noted."""
        found = [self.values[name] for name in names if self.values.get(name) not in ABSENT]
        objects = [each for each in found if isinstance(each, dict)]
        if found and not objects:
            self.note(names[0], "not_an_object")
        return Fields(self.response, objects[0] if objects else {}, self.noted)

    def note(self, name: str, reason: str) -> None:
        """Note that a field is present but unreadable."""
        self.noted.append(Unread(name, reason))

    @property
    def unread(self) -> tuple[Unread, ...]:
        """The fields found unreadable so far, in this object and its parts."""
        return tuple(self.noted)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Malformed("It is not a text.", reason="not_a_text")
    return value


def as_id(value: object) -> str:
    """An Amazon id. Raises `Malformed`."""
    if not REFUND_ID.fullmatch(text := _text(value)):
        raise Malformed("An id has 1 to 64 letters, digits and dashes.", reason="bad_id")
    return text


def as_word(value: object) -> str:
    """A state, a reason code or an environment. Raises `Malformed`."""
    if not WORD.fullmatch(text := _text(value)):
        raise Malformed("A word has 1 to 64 letters, digits, dashes and underscores.", reason="bad_word")
    return text


def as_reason(value: object) -> str:
    """A reason code. One that says who started the refund is accepted in any spelling. Raises `Malformed`."""
    if isinstance(value, str) and is_theirs(value):
        return value if WORD.fullmatch(value) else re.sub(r"[^A-Za-z0-9_-]+", "-", value)[:64]
    return as_word(value)


def as_text(value: object) -> str:
    """Prose, made safe to show (`answers.clean`). Raises `Malformed`."""
    return clean(_text(value))


def as_reference(value: object) -> str:
    """The merchant's order number, unaltered. Raises `Malformed` if it cannot be stored unaltered."""
    if problem := reference_problem(text := _text(value)):
        raise Malformed("It cannot be kept whole.", reason=problem)
    return text


def as_money(value: object) -> Money | None:
    """`{amount, currencyCode}`; None without an amount. Raises `Malformed`."""
    if not isinstance(value, dict):
        raise Malformed("It is not an object.", reason="not_an_object")
    if value.get("amount") in ABSENT:
        return None
    return Money.parse(value["amount"], value.get("currencyCode"))
