"""Edge: standard error. One line for each event: JSON, or text on a terminal. Standard output is left to commands.

Secrets are kept out twice: no secret is logged on purpose, and values whose names suggest a secret are redacted.
Untrusted input can neither forge a line nor send escape sequences to a terminal: unprintable characters are escaped in
both formats. In text, tracebacks follow below their line, indented.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import stat
import sys
import traceback
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import Any, TextIO, cast

import msgspec
import structlog
from structlog.types import EventDict, ExcInfo, Processor, WrappedLogger

from receiver.runtime.printable import visible, visible_json

SENSITIVE = re.compile(
    r"authorization|secret|token|private_?key|signature|password|passwd|cookie|credential", re.IGNORECASE
)
HARMLESS = frozenset({"token_name", "signature_version"})
PLAIN = frozenset({int, float, bool, type(None)})
"""Values that contain nothing to shorten or redact."""
BLACKENED = "[redacted]"
URL_PASSWORD = re.compile(r"(\w+://)[^\s/@]*@")
PATIENCE = 1.0
"""Seconds that a line waits for a slow reader of the log. Later lines do not wait until it reads again."""
MOST_SELECTED = 1024
"""`select` only accepts numbers below this (FD_SETSIZE)."""
LONGEST_TEXT = 2_000
"""Characters of one value, so that no single line floods the log; tracebacks are exempt."""
QUOTED = re.compile(r"""[\s="']""")
"""A text that contains one of these is quoted in a text line."""
BELOW = frozenset({"stack", "exception"})
"""Values that the text form writes below the line."""
INDENT = "    "


def configure(*, level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:  # noqa: A002
    """Set up logging for the process: `level` is debug, info, warning or error; `format` is auto, json or text.

    Libraries that use the standard module (uvicorn, asyncio) log in the same format. Call it once, at start.
    """
    out = stream or sys.stderr
    text = format == "text" or (format == "auto" and out.isatty())
    raw = None if text else getattr(out, "buffer", None)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *_shared(),
            *_rendering(text, out),
            *([] if raw else [_as_text]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_logger_factory(out, raw),
        cache_logger_on_first_use=True,
    )
    _configure_standard(text, out, number)


class _Leaky:
    """A stream that never raises and rarely blocks: what cannot be written is lost. A full disk, or a pipe without a
    reader, must neither turn a saved notification into a 500 nor end the supervision of the store. A stalled reader
    must not stop the whole service: lines are lost until it reads again."""

    def __init__(self, stream: Any) -> None:
        self._write, self._flush = stream.write, stream.flush
        self._pipe = _pipe_of(stream)
        self._stuck = False

    def write(self, line: Any) -> None:
        if self._pipe is not None:
            patience = 0.0 if self._stuck else PATIENCE
            self._stuck = not select.select([], [self._pipe], [], patience)[1]
        if not self._stuck:
            with contextlib.suppress(OSError):
                self._write(line)

    def flush(self) -> None:
        if not self._stuck:
            with contextlib.suppress(OSError):
                self._flush()


def _pipe_of(stream: Any) -> int | None:
    """The descriptor of a stream that can block its writer; None for a file."""
    try:
        number: int = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return None if stat.S_ISREG(os.fstat(number).st_mode) or number >= MOST_SELECTED else number


def _logger_factory(out: TextIO, raw: Any) -> Callable[..., Any]:
    leaky: Any = _Leaky(raw or out)
    return structlog.BytesLoggerFactory(leaky) if raw else structlog.PrintLoggerFactory(leaky)


def _shared() -> list[Processor]:
    return [structlog.processors.add_log_level, structlog.processors.TimeStamper("iso", utc=True), redact]


def _rendering(text: bool, out: TextIO) -> list[Processor]:
    if text:
        return [_printable, structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=_write_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=to_json)]


def _configure_standard(text: bool, out: TextIO, number: int) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, structlog.stdlib.add_logger_name, *_shared()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(text, out), _as_text],
    )
    handler = logging.StreamHandler(cast(TextIO, _Leaky(out)))
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))


def _as_text(_: WrappedLogger, __: str, line: Any) -> str:
    return line.decode() if isinstance(line, bytes) else str(line)


class _Shown:
    """A value of a text line as it is written: the renderer writes the `repr` of anything that is not text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
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


def _write_traceback(out: TextIO, exc_info: ExcInfo) -> None:
    """Write the traceback and its causes as indented lines below the event's line."""
    whole = traceback.TracebackException(*exc_info)
    left = [whole]
    while left:
        each = left.pop()
        each.__class__ = _Traceback
        left += [one for one in (each.__cause__, each.__context__, *(each.exceptions or ())) if one]
    out.write("\n" + _indented("".join(whole.format()).rstrip("\n")))


def to_json(event: EventDict, default: Callable[[Any], Any] = repr) -> bytes:
    """The line as JSON. Any value can be written: what JSON cannot express becomes its `repr`."""
    try:
        line = msgspec.json.encode(event, enc_hook=default)
    except (UnicodeEncodeError, TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        line = msgspec.json.encode({_encodable(key): _encodable(value) for key, value in event.items()})
    # msgspec escapes the other control characters. Almost every line is plain ASCII, and each notification has one.
    return line if line.isascii() and b"\x7f" not in line else visible_json(line.decode()).encode()


def _encodable(value: Any) -> str:
    """The value as text that UTF-8 can encode: surrogates are escaped."""
    text = value if isinstance(value, str) else repr(value)
    return text.encode("utf-8", "backslashreplace").decode()


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Redact values with names that suggest a secret, passwords in addresses, and all bytes; shorten long values."""
    for key, value in event.items():
        if key != "exc_info" and (type(value) not in PLAIN or _is_sensitive(key)):
            event[key] = _clean(key, value)
    return event


@lru_cache(1024)
def _is_sensitive(key: str) -> bool:
    return SENSITIVE.search(key) is not None and key not in HARMLESS


def _clean(key: str, value: Any) -> Any:
    if _is_sensitive(key):
        return BLACKENED
    if isinstance(value, str):
        if "@" in value:
            value = URL_PASSWORD.sub(rf"\1{BLACKENED}@", value)
        return value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]}…"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {str(name): _clean(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean("", inner) for inner in value]
    return value
