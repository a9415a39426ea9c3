"""HTTP. Query parameters read strictly: a misspelt filter that is ignored would show too much."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import datetime

from starlette.requests import Request

from receiver.errors import BadRequest, Malformed
from receiver.ledger.order_reference import MAX_ORDER_REFERENCE, reference_problem, searchable
from receiver.ledger.timestamps import parse_time

WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Params:
    """The query of one request. Every method raises `BadRequest` with the parameter's name."""

    def __init__(self, request: Request, known: Iterable[str]) -> None:
        names = sorted(known)
        pairs = request.query_params.multi_items()
        unknown = sorted({name for name, _ in pairs} - set(names))
        if unknown:
            raise BadRequest(_unknown(unknown, names), reason="unknown_parameter")
        self._values = dict(pairs)
        if len(self._values) < len(pairs):
            twice = sorted({name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1})
            raise BadRequest(f"Given more than once: {', '.join(twice)}.", reason="repeated_parameter")

    def text(self, name: str) -> str:
        """A word such as an id or a state; empty if it is absent."""
        value = self._values.get(name, "")
        if name in self._values and not WORD.fullmatch(value):
            raise BadRequest(f"`{name}` is 1 to 64 letters, digits, and - _ . :", reason="bad_parameter")
        return value

    def free_text(self, name: str) -> str:
        """An order number as it is looked up (`searchable`); empty if it is absent."""
        value = self._values.get(name, "")
        if name in self._values and (not searchable(value) or reference_problem(value)):
            raise BadRequest(f"`{name}` is 1 to {MAX_ORDER_REFERENCE} printable characters.", reason="bad_parameter")
        return searchable(value)

    def opaque(self, name: str) -> str:
        """A text that is taken as it is; empty if it is absent."""
        return self._values.get(name, "")

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        if name not in self._values:
            return default
        value = self._values[name]
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise BadRequest(f"`{name}` is a whole number from {low} to {high}.", reason="bad_parameter")
        return int(value)

    def time(self, name: str) -> int:
        """A moment in ms, from RFC 3339 or Amazon's basic form; 0 if it is absent."""
        if name not in self._values:
            return 0
        try:
            return max(read_time(self._values[name]), 0)
        except ValueError:
            shape = "2026-01-31T12:00:00Z (a + in an offset is written %2B) or 20260131T120000Z"
            raise BadRequest(f"`{name}` is a time such as {shape}.", reason="bad_parameter") from None


def read_time(text: str) -> int:
    """A time in ms UTC: RFC 3339, with `Z` or an offset, or Amazon's basic form. Raises `ValueError`."""
    try:
        return parse_time(text)
    except Malformed:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or "T" not in text.upper():
            raise ValueError("no offset") from None
        return int(moment.timestamp() * 1000)


def _unknown(unknown: list[str], names: list[str]) -> str:
    shown = [re.sub(r"[^A-Za-z0-9_-]", "?", name)[:40] for name in unknown[:5]]
    near = [match for name in shown for match in difflib.get_close_matches(name, names, n=1)]
    mend = (
        f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(names)}." if names else "None is known here."
    )
    return f"Unknown parameter: {', '.join(shown)}. {mend}"
