"""Edge: standard error. One line for each event: JSON, or text on a terminal. Standard output is left to commands.

Secrets are kept out twice: no secret is logged on purpose, and values whose names suggest a secret are redacted.
Untrusted input can neither forge a line nor send escape sequences to a terminal: unprintable characters are escaped in
both formats. `log_text.py` renders text.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import re
import select
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO, cast

import msgspec
import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from receiver.runtime.log_text import printable, write_traceback
from receiver.runtime.loop import running_loop
from receiver.runtime.printable import visible_json

SENSITIVE = re.compile(
    r"authorization|secret|token|private_?key|signature|password|passwd|cookie|credential", re.IGNORECASE
)
HARMLESS = frozenset({"token_name", "signature_version"})
PLAIN = frozenset({int, float, bool, type(None)})
"""Values that contain nothing to shorten or redact."""
FLAT = PLAIN | {str}
FLAT_OR_TUPLE = FLAT | {tuple}
ENCODER = msgspec.json.Encoder()
BLACKENED = "[redacted]"
URL_PASSWORD = re.compile(r"(\w+://)[^\s/@]*@")
PATIENCE = 1.0
"""Seconds that a line waits for a slow reader of the log. Later lines do not wait until it reads again."""
MOST_SELECTED = 1024
"""`select` only accepts numbers below this (FD_SETSIZE)."""
AT_ONCE = 4096
"""Bytes that a pipe takes without blocking if `select` calls it writable (PIPE_BUF)."""
LEVELS = {"warn": "warning", "exception": "error"}
"""Methods of a logger that are not called as their level."""
LONGEST_TEXT = 2_000
"""Characters of one value, so that no single line floods the log; tracebacks are exempt."""


def configure(*, level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:  # noqa: A002
    """Set up logging for the process: `level` is debug, info, warning or error; `format` is auto, json or text.

    Libraries that use the standard module (uvicorn, asyncio) log in the same format. Call it once, at start.
    """
    out = stream or sys.stderr
    text = format == "text" or (format == "auto" and out.isatty())
    raw = None if text else getattr(out, "buffer", None)
    number = logging.getLevelNamesMapping()[level.upper()]
    rendering: list[Processor] = [_plain_or_line] if raw else [redact, *_rendering(text, out), _as_text]
    filtering = structlog.make_filtering_bound_logger(number)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _stamp, *rendering],
        wrapper_class=type("Logger", (_Direct, filtering), {}) if raw else filtering,
        logger_factory=_logger_factory(out, raw),
        cache_logger_on_first_use=True,
    )
    _configure_standard(text, out, number)


class _Direct(structlog.BoundLoggerBase):
    """structlog's steps from the call to the logger, done in one."""

    def _proxy_to_logger(self, method_name: str, event: str | None = None, **event_kw: Any) -> None:
        line: Any = {**self._context, **event_kw} if self._context else event_kw
        line["event"] = event
        try:
            for process in self._processors:
                line = process(self._logger, method_name, line)
        except structlog.DropEvent:
            return
        self._logger.msg(line)


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
    if raw is None:
        return structlog.PrintLoggerFactory(cast(TextIO, _Leaky(out)))
    lines = _Lines(_Leaky(raw))
    atexit.register(lines.flush)
    return lambda *_: lines


class _Lines:
    """The logger behind structlog. Lines of one turn of the event loop are rendered and written together; without a
    loop, each at once."""

    def __init__(self, out: _Leaky) -> None:
        self._out = out
        self._waiting = deque[bytes | EventDict]()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop that will write the waiting lines."""

    def msg(self, line: bytes | EventDict) -> None:
        """Write this line, or this event as a line, now or at the end of the turn."""
        self._waiting.append(line)
        try:
            loop = running_loop()
        except RuntimeError:
            self.flush()
            return
        if loop is not self._loop:
            self._loop = loop
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write the waiting lines, in pieces that a writable pipe takes without blocking, unless a single line is
        longer."""
        self._loop, piece = None, b""
        with contextlib.suppress(IndexError):  # Threads flush too.
            while True:
                line = self._waiting.popleft()
                if not isinstance(line, bytes):
                    line = _line(line)
                if piece and len(piece) + len(line) > AT_ONCE:
                    self._out.write(piece)
                    piece = b""
                piece += line
        if piece:
            self._out.write(piece)
            self._out.flush()


def _stamp(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Add level and time."""
    event["level"] = LEVELS.get(method, method)
    seconds, millis = divmod(time.time_ns() // 1_000_000, 1000)
    event["timestamp"] = f"{_second(seconds)}.{millis:03d}Z"
    return event


@lru_cache(2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _plain_or_line(logger: WrappedLogger, method: str, event: EventDict) -> EventDict | bytes:
    """An event of plain values with harmless names, unchanged, because such values cannot change before it is rendered;
    any other event as a rendered line."""
    if _is_harmless(tuple(event)) and _is_flat(event):
        return event
    event = structlog.processors.format_exc_info(logger, method, redact(logger, method, event))
    return to_json(event) + b"\n"


def _line(event: EventDict) -> bytes:
    """A plain event as a line. Almost every line has nothing to redact, shorten or escape, so only the line is
    checked."""
    try:
        line = ENCODER.encode(event)
        if len(line) <= LONGEST_TEXT and line.isascii() and b"@" not in line and b"\x7f" not in line:
            return line + b"\n"
    except (msgspec.MsgspecError, ValueError, OverflowError):
        pass
    return to_json(redact(None, "", event)) + b"\n"


@lru_cache(1024)
def _is_harmless(keys: tuple[str, ...]) -> bool:
    return "exc_info" not in keys and not any(map(_is_sensitive, keys))


def _is_flat(event: EventDict) -> bool:
    """Whether all values are numbers, texts, or tuples of them."""
    values = tuple(event.values())
    tuples = _tuples(tuple(map(type, values)))
    if tuples is None:
        return False
    for at in tuples:  # noqa: SIM110 - a generator takes longer than all the rest
        if not FLAT.issuperset(map(type, values[at])):
            return False
    return True


@lru_cache(1024)
def _tuples(types: tuple[type, ...]) -> tuple[int, ...] | None:
    """Where tuples are among values of these types; None if there is anything that cannot be flat."""
    return tuple(at for at, kind in enumerate(types) if kind is tuple) if FLAT_OR_TUPLE.issuperset(types) else None


def _rendering(text: bool, out: TextIO) -> list[Processor]:
    if text:
        return [printable, structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=write_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=to_json)]


def _configure_standard(text: bool, out: TextIO, number: int) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, structlog.stdlib.add_logger_name, _stamp, redact],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(text, out), _as_text],
    )
    handler = logging.StreamHandler(cast(TextIO, _Leaky(out)))
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))


def _as_text(_: WrappedLogger, __: str, line: Any) -> str:
    return line.decode() if isinstance(line, bytes) else str(line)


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
