"""Pure. A report's lines as a table: the lines before the header, the header, and the rows."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from receiver.amazon.reports.lines import Line

HEAD_WITHIN = 40
"""The header must be in the first lines: settlement reports start with lines about the report."""
DELIMITERS = "\t,;"
TOO_LONG = "the line is too long"
MOST_JOINED = 20
"""The most lines of one row: a quoted text may contain ends of lines."""


class Record(NamedTuple):
    """One row. `problem` says why it cannot be read; empty if it can."""

    line: int
    cells: Sequence[str]
    problem: str = ""
    is_ended: bool = True
    """Whether the last line of the row has an end."""


def plain(name: str) -> str:
    """A column's name in normal form: `Amazon Transaction Id` becomes `amazontransactionid`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def columns(line: str) -> tuple[str, list[str]]:
    """The delimiter that a header has, and its columns in normal form."""
    delimiter = max(DELIMITERS, key=line.count)
    try:
        return delimiter, [plain(name) for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return delimiter, []


def records(lines: Iterable[Line], delimiter: str) -> Iterator[Record]:
    """The rows below a header. Empty rows are skipped. An unclosed quotation mark makes only its own line
    unreadable."""
    source, waiting = iter(lines), deque[Line]()
    while line := (waiting.popleft() if waiting else next(source, None)):
        if line.text is None:
            yield Record(line.number, (), TOO_LONG)
            continue
        texts, is_ended = [line.text], line.is_ended
        while (cells := _cells(texts, delimiter)) is None:
            following = _following(source, waiting, len(texts))
            if following is None or following.text is None:
                break
            texts.append(following.text)
            is_ended = following.is_ended
        if cells is None:
            yield Record(line.number, (), "a quotation mark is not closed, or text follows it")
            continue
        for _ in texts[1:]:
            waiting.popleft()
        if any(cells):
            yield Record(line.number, cells, is_ended=is_ended)


def _following(source: Iterator[Line], waiting: deque[Line], place: int) -> Line | None:
    """The line `place` lines below the current one, which stays in `waiting`; None if a row cannot go so far."""
    if place > MOST_JOINED:
        return None
    if len(waiting) < place and (line := next(source, None)) is not None:
        waiting.append(line)
    return waiting[place - 1] if len(waiting) >= place else None


def _cells(texts: Sequence[str], delimiter: str) -> list[str] | None:
    """The cells of one row, without spaces around them; None if it is incomplete or no row."""
    try:
        rows = list(csv.reader([f"{text}\n" for text in texts], delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return [cell.strip() for cell in rows[0]] if len(rows) == 1 else [] if not rows else None
