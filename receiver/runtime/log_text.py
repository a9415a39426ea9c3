"""Edge: a terminal. A log line as text. Unprintable characters are escaped; a traceback follows below its line,
indented."""

from __future__ import annotations

import re
import traceback
from collections.abc import Generator
from typing import Any, TextIO

from structlog.types import EventDict, ExcInfo, WrappedLogger

from receiver.runtime.printable import visible

QUOTED = re.compile(r"""[\s="']""")
"""A text that contains one of these is quoted in a text line."""
BELOW = frozenset({"stack", "exception"})
"""Values that the text form writes below the line."""
INDENT = "    "


class _Shown:
    """A value of a text line as it is written: the renderer writes the `repr` of anything that is not text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape unprintable characters in keys and values, and quote values that could be taken for several."""
    return {_word(key): value if key == "exc_info" else _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: Any) -> Any:
    if key in ("event", "level", "timestamp", "logger", "logger_name"):
        return visible(str(value))
    return _indented(str(value)) if key in BELOW else _Shown(_word(value))


def _word(value: Any) -> str:
    """A printable text without spaces as it is; otherwise its `repr`, which escapes like `visible`."""
    if isinstance(value, str) and value.isprintable() and not QUOTED.search(value):
        return value
    return visible(repr(value))


def _indented(text: str) -> str:
    return "\n".join(INDENT + visible(line) for line in text.split("\n"))


class _Traceback(traceback.TracebackException):
    """A traceback whose messages are one line each: line ends within a message are escaped."""

    def format_exception_only(self, **options: Any) -> Generator[str, None, None]:
        for line in super().format_exception_only(**options):
            yield visible(line.removesuffix("\n")) + "\n"


def write_traceback(out: TextIO, exc_info: ExcInfo) -> None:
    """Write the traceback and its causes as indented lines below the event's line."""
    whole = traceback.TracebackException(*exc_info)
    left = [whole]
    while left:
        each = left.pop()
        each.__class__ = _Traceback
        left += [one for one in (each.__cause__, each.__context__, *(each.exceptions or ())) if one]
    out.write("\n" + _indented("".join(whole.format()).rstrip("\n")))
