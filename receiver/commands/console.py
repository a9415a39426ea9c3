"""Command. Output of commands: results on standard output, messages on standard error, both safe for a terminal.

A server's text may contain terminal control sequences, so unprintable characters are escaped.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import time_ns

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from receiver.errors import ConfigurationError, Malformed
from receiver.ledger.timestamps import format_rfc3339, parse_time
from receiver.runtime.printable import json_escape, visible, visible_json

UNFOLDED = 1_000
"""Columns for a file or a pipe, where one row stays one line."""
HALF_A_YEAR = 180 * 86_400_000

Fields = Iterable[tuple[str, str | Text | None]]
"""Names and values, for `emit_fields`."""


clean = visible
"""Makes every unprintable character an escape (`\\x1b`), so that it is visible and harmless."""


def clean_json(body: bytes) -> str:
    """JSON with the same meaning, on one line, and with every unprintable character written as JSON's own escape.

    JSON allows no unescaped control characters below 0x20 in texts, so they occur only between values. The body must be
    JSON.
    """
    text = body.decode("utf-8", "replace").translate({9: " ", 10: " ", 13: " "}).strip()
    return visible_json(text)


def emit(text: str) -> None:
    """A result, on standard output, at once. Raises `BrokenPipeError`, and `ConfigurationError` if it cannot be
    written."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        typer.echo(text.encode(encoding, "replace").decode(encoding))
    except BrokenPipeError:
        raise
    except OSError as error:
        silence()
        raise ConfigurationError([f"standard output cannot be written: {error.strerror}."]) from error


def emit_json(body: bytes) -> None:
    """The API's JSON, one line. Characters that the output's encoding lacks are escaped."""
    text = clean_json(body)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = "".join(c if c.isascii() else json_escape(c) for c in text)
    emit(text)


def emit_value(value: object) -> None:
    """A part of an answer as JSON, one line."""
    emit_json(msgspec.json.encode(value))


def say(lines: Iterable[str]) -> None:
    """Messages, on standard error. Errors in writing them are ignored."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with suppress(OSError):
        for line in lines:
            typer.echo(f"receiver: {clean(line)}".encode(encoding, "replace").decode(encoding), err=True)


def silence() -> None:
    """After the reader went away: discards buffered output instead of failing again at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def emit_rich(renderable: RenderableType) -> None:
    """A table: wrapped to the width of a terminal; in a file or a pipe, plain and not wrapped. A text stays one
    line."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    width = None if terminal or os.environ.get("COLUMNS", "").isdigit() else UNFOLDED
    page = Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, emoji=False)
    with page.capture() as captured:
        page.print(renderable, markup=False, soft_wrap=isinstance(renderable, Text))
    emit("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def table(headers: bool = True) -> Table:
    """A table without lines, two spaces between columns."""
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=headers, header_style="bold")


def shown(value: str | Text) -> Text:
    """A text safe for a terminal: unprintable characters are escaped. A `Text` is safe already."""
    return value if isinstance(value, Text) else Text(clean(value))


def emit_fields(fields: Fields) -> None:
    """Lines of name and value. None is omitted, and unprintable characters are escaped."""
    grid = table(headers=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields:
        if value is not None:
            grid.add_row(Text(name, "dim"), shown(value))
    emit_rich(grid)


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """A table whose cells are wrapped as needed. Unprintable characters are escaped."""
    whole = table()
    for column in columns:
        whole.add_column(column, overflow="fold")
    for row in rows:
        whole.add_row(*map(shown, row))
    emit_rich(whole)


def need_terminal() -> None:
    """Raise `ConfigurationError` if there is no terminal on which to ask."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigurationError(["Can't prompt for confirmation here. Re-run with --yes."])


def confirmed(question: str) -> bool:
    """Whether the user answers yes. Raises `ConfigurationError` if there is no terminal on which to ask."""
    need_terminal()
    say([f"{question} [y/N]"])
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def plural(count: int, one: str) -> str:
    """`1 account`, `2 accounts`."""
    return f"{count} {one}{'' if count == 1 else 's'}"


def now_ms() -> int:
    """ms since the epoch, UTC."""
    return time_ns() // 1_000_000


def read_ms(time: str | None) -> int | None:
    """A time of the API in ms; None if it is not a time."""
    try:
        return parse_time(time)
    except Malformed:
        return None


def moment(time: str | None) -> str | None:
    """A time of the API in full: `2025-10-09 08:53:20 UTC`. An unreadable text is returned unchanged."""
    ms = read_ms(time)
    return time if ms is None else f"{format_rfc3339(ms)[:19].replace('T', ' ')} UTC"


def short_moment(time: str, now: int) -> str:
    """In eleven columns: `10-09 08:53`, or `2025-10-09` if it is over half a year from `now` (ms). UTC."""
    ms = read_ms(time)
    if ms is None:
        return clean(time)
    text = format_rfc3339(ms)
    return f"{text[5:10]} {text[11:16]}" if abs(now - ms) < HALF_A_YEAR else text[:10]
