"""Pure. Reads the head of an answer leniently: the status and header fields of anything that claims to be HTTP/1.

The parser of the HTTP library is strict, and rightly so, because it decides where a body ends. But once a status can be
read there is an answer, whatever is wrong with the fields after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_HEAD = 128 * 1024
"""Bytes of one head: status line and fields together. Servers send a Content-Security-Policy of 30 KB, dozens of
cookies, and trace headers; curl accepts 300 KB, Go's client 10 MB. Nothing beyond this is kept."""

MAX_FIELDS = 1024
"""Fields of one head. Apache's own limit for requests is 100, and proxies add theirs."""

_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])?[ \t]+([1-9][0-9]{2})(?=[ \t\r\n]|\Z)", re.IGNORECASE)
_FIELD = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]{1,256})[ \t]*:[ \t]*([^\r\n]*)")
_END = re.compile(rb"\n\r?\n")


def may_begin(data: bytes | bytearray) -> bool:
    """Whether an answer can begin with these bytes."""
    return b"HTTP/".startswith(bytes(data[:5]).upper())


def end_of(data: bytes | bytearray, start: int = 0) -> int:
    """Where the head ends, after its empty line; -1: not yet. Lines may end without CR, as all parsers accept."""
    found = _END.search(data, start)
    return found.end() if found else -1


def status_of(data: bytes | bytearray) -> int:
    """The status of a complete or partial head; 0 if it has none."""
    found = _STATUS_LINE.match(data)
    return int(found[1]) if found else 0


def fields_of(head: bytes) -> list[tuple[str, str]]:
    """The readable fields, in order; other lines are skipped."""
    fields: list[tuple[str, str]] = []
    for line in head.split(b"\n")[1:]:
        if len(fields) == MAX_FIELDS:
            break
        if found := _FIELD.fullmatch(line.rstrip(b"\r \t")):
            fields.append((found[1].decode("ascii"), found[2].decode("utf-8", "replace").replace("\x00", "")))
    return fields


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The fields by lower-case name; repeated fields are joined."""
    fields: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields
