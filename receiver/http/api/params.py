"""HTTP. Parameters of the API. Each is declared once, with its description and its parser.

Parsing is strict: ignoring a misspelt filter would return too much.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from starlette.requests import Request

from receiver.errors import BadRequest, Malformed
from receiver.ledger.order_reference import MAX_ORDER_REFERENCE, reference_problem, searchable
from receiver.ledger.refund import REFUND_ID
from receiver.ledger.timestamps import parse_any_time

T = TypeVar("T")
Schema = dict[str, Any]

WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
TEXT: Final[Schema] = {"type": "string"}


def whole(*patterns: re.Pattern[str]) -> str:
    """A JSON Schema pattern for strings that one of these patterns matches completely."""
    return "|".join(f"^(?:{pattern.pattern})$" for pattern in patterns)


def time(about: str) -> Schema:
    """The schema of a time: RFC 3339, or Amazon's basic form."""
    return {
        "type": "string",
        "format": "date-time",
        "description": f"{about} RFC 3339; Amazon's basic form (20260131T120000Z) is accepted too.",
        "examples": ["2026-01-31T12:00:00Z"],
    }


def _query(request: Request) -> Mapping[str, str]:
    return request.query_params if request.scope["query_string"] else NO_QUERY


NO_QUERY: Final[Mapping[str, str]] = MappingProxyType({})
PLACES: Final[Mapping[str, Callable[[Request], Mapping[str, Any]]]] = MappingProxyType(
    {"path": lambda request: request.path_params, "query": _query, "header": lambda request: request.headers}
)


@dataclass(frozen=True, slots=True)
class Parameter(Generic[T]):
    """A parameter in the path, the query or a header; `absent` is its default.

    `read` raises `BadRequest` with `reason`, which is empty if every string is valid.
    """

    name: str
    about: str
    schema: Schema
    read: Callable[[str], T]
    absent: T
    reason: str = ""
    place: str = "query"
    required: bool = False
    example: object = None

    def of(self, request: Request) -> T:
        """Its value in this request. Raises `BadRequest`."""
        given = PLACES[self.place](request).get(self.name)
        return self.absent if given is None else self.read(given)


def text(
    name: str, about: str, schema: Schema = TEXT, *, place: str = "query", example: object = None
) -> Parameter[str]:
    """A string that is used unchanged; empty if absent."""
    return Parameter(name, about, schema, str, "", place=place, example=example)


def word(
    name: str, about: str, schema: Schema | None = None, *, spelling: Callable[[str], str] = str
) -> Parameter[str]:
    """A word such as an id or a state, in the form that `spelling` gives it; empty if absent."""

    def read(given: str) -> str:
        if not WORD.fullmatch(given):
            raise BadRequest(f"`{name}` must be 1 to 64 letters, digits, and - _ . :", reason="bad_parameter")
        return spelling(given)

    return Parameter(name, about, schema or {"type": "string", "pattern": whole(WORD)}, read, "", "bad_parameter")


def choice(name: str, about: str, values: Sequence[str], absent: str = "") -> Parameter[str]:
    """One of these words (lower case), written in any letter case; `absent` without one."""

    def read(given: str) -> str:
        if given.lower() not in values:
            raise BadRequest(f"`{name}` must be one of {', '.join(values)}.", reason="bad_parameter")
        return given.lower()

    schema = {"type": "string", "enum": [*values], **({"default": absent} if absent else {})}
    return Parameter(name, about, schema, read, absent, "bad_parameter")


def number(name: str, about: str, default: int, low: int, high: int) -> Parameter[int]:
    def read(given: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", given) or not low <= int(given) <= high:
            raise BadRequest(f"`{name}` must be an integer from {low} to {high}.", reason="bad_parameter")
        return int(given)

    schema = {"type": "integer", "minimum": low, "maximum": high, "default": default}
    return Parameter(name, about, schema, read, default, "bad_parameter")


def flag(name: str, about: str) -> Parameter[bool]:
    """`true` or `false`; false if absent."""

    def read(given: str) -> bool:
        if given not in ("true", "false"):
            raise BadRequest(f"`{name}` must be true or false.", reason="bad_parameter")
        return given == "true"

    return Parameter(name, about, {"type": "boolean", "default": False}, read, False, "bad_parameter")


def moment(name: str, about: str, meaning: str) -> Parameter[int]:
    """A time, read as ms UTC; 0 if absent."""

    def read(given: str) -> int:
        try:
            return max(parse_any_time(given), 0)
        except Malformed:
            shape = "2026-01-31T12:00:00Z (a + in an offset is written %2B) or 20260131T120000Z"
            raise BadRequest(f"`{name}` must be a time such as {shape}.", reason="bad_parameter") from None

    return Parameter(name, about, time(meaning), read, 0, "bad_parameter")


def order_number(name: str, about: str) -> Parameter[str]:
    """An order number in its lookup form (`searchable`); empty if absent."""

    def read(given: str) -> str:
        if not searchable(given) or reference_problem(given):
            raise BadRequest(
                f"`{name}` must be 1 to {MAX_ORDER_REFERENCE} printable characters.", reason="bad_parameter"
            )
        return searchable(given)

    return Parameter(name, about, {**TEXT, "minLength": 1, "maxLength": MAX_ORDER_REFERENCE}, read, "", "bad_parameter")


def in_path(
    name: str, about: str, example: str, pattern: re.Pattern[str] | None = None, wrong: tuple[str, str] = ("", "")
) -> Parameter[str]:
    """A part of the path. A value that does not match the pattern is rejected with `wrong`: the reason, and a text."""
    reason, detail = wrong

    def read(given: str) -> str:
        if pattern is not None and not pattern.fullmatch(given):
            raise BadRequest(detail, reason=reason)
        return given

    schema = {**TEXT, "pattern": whole(pattern)} if pattern else TEXT
    return Parameter(name, about, schema, read, "", reason, "path", required=True, example=example)


ACCOUNT: Final = text("account", "The account's name in the settings. Default: all that the token may see.")
REFUND: Final = in_path(
    "refund_id",
    "Amazon's id of the refund; for Flexible Payments, your reference.",
    "S01-5105180-3221187-R022311",
    REFUND_ID,
    ("bad_refund_id", "A refund id must be 1 to 64 letters, digits and hyphens."),
)
CURSOR: Final = text("cursor", "`nextCursor` of the previous page, for the same filters.")
LIMIT: Final = number("limit", "Maximum number of items.", 50, 1, 200)
IF_NONE_MATCH: Final = text("If-None-Match", "An `ETag` that you have, a list of them, or `*`.", place="header")


def check_query(request: Request, parameters: Iterable[Parameter[Any]]) -> None:
    """Raise `BadRequest` for a query parameter that is unknown or given twice."""
    if not request.scope["query_string"]:
        return
    names = sorted(each.name for each in parameters if each.place == "query")
    pairs = request.query_params.multi_items()
    unknown = sorted({name for name, _ in pairs} - set(names))
    if unknown:
        raise BadRequest(unknown_names("parameter", unknown, names), reason="unknown_parameter")
    given = [name for name, _ in pairs]
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise BadRequest(f"Given more than once: {', '.join(twice)}.", reason="repeated_parameter")


def unknown_names(kind: str, unknown: Sequence[str], known: Sequence[str]) -> str:
    """The text for names of a `kind` (parameter, field) that are not known: which, and which are meant or known."""
    shown = [re.sub(r"[^A-Za-z0-9_-]", "?", name)[:40] for name in unknown[:5]]
    near = [match for name in shown for match in difflib.get_close_matches(name, known, n=1)]
    fix = (
        f"Did you mean {near[0]}?"
        if near
        else f"Known {kind}s: {', '.join(known)}."
        if known
        else "This operation has none."
    )
    return f"Unknown {kind}: {', '.join(shown)}. {fix}"
