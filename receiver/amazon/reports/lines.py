"""Pure. The lines of a file, in the encoding in which Amazon, Seller Central or a spreadsheet wrote it.

UTF-16 is recognised by its byte order mark, or by the zero bytes of its first characters. Otherwise each line is read
as UTF-8, or as cp932 (Japanese Windows), or as cp1252 if it is neither. In cp932, no second byte of a character is a
separator, a quotation mark or the end of a line, so lines can be split first:
https://www.unicode.org/Public/MAPPINGS/VENDORS/MICSFT/WINDOWS/CP932.TXT
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import NamedTuple

LONGEST_LINE = 65_536
"""Bytes. A longer line is no row of a report; it is not kept in memory."""
SNIFFED = 64
"""Bytes at the beginning of a file from which UTF-16 is recognised."""


class Line(NamedTuple):
    """One line, without its end. `text` is None if it is too long."""

    number: int
    """From 1."""
    text: str | None
    is_ended: bool = True
    """Whether an end of a line follows. If not, the file may have been cut off."""


def lines(chunks: Iterable[bytes]) -> Iterator[Line]:
    """The lines of a file that is given in pieces of any size. Lines end in LF, CR LF or CR."""
    number, rest, too_long = 0, b"", False
    for chunk in _utf8(chunks):
        *whole, rest = _split(rest + chunk)
        for raw in whole:
            number += 1
            yield _line(number, raw, too_long)
            too_long = False
        if len(rest) > LONGEST_LINE:
            rest, too_long = rest[-1:], True
    if rest or too_long:
        yield _line(number + 1, rest, too_long)


def _split(data: bytes) -> list[bytes]:
    """The lines with their ends, and the unfinished last one. A CR at the end of the data may be half a CR LF."""
    parts = data.splitlines(keepends=True)
    if not parts or parts[-1].endswith(b"\n"):
        parts.append(b"")
    return parts


def _line(number: int, raw: bytes, too_long: bool) -> Line:
    text = raw.rstrip(b"\r\n")
    return Line(number, None if too_long or len(text) > LONGEST_LINE else _text(text), len(text) < len(raw))


def _text(raw: bytes) -> str:
    for encoding in ("utf-8", "cp932"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("cp1252", "replace")


def _utf8(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The file's bytes, with UTF-16 converted to UTF-8. Byte order marks are removed."""
    source, first = iter(chunks), b""
    while len(first) < SNIFFED and (chunk := next(source, None)) is not None:
        first += chunk
    encoding = _utf16(first)
    if not encoding:
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from source
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield decoder.decode(first).removeprefix("\ufeff").encode("utf-8", "replace")
    for chunk in source:
        yield decoder.decode(chunk).encode("utf-8", "replace")
    yield decoder.decode(b"", True).encode("utf-8", "replace")


def _utf16(first: bytes) -> str:
    """The name of the encoding if the file is UTF-16, otherwise empty."""
    even, odd = first[0:SNIFFED:2], first[1:SNIFFED:2]
    if first.startswith(codecs.BOM_UTF16_LE) or odd.count(0) > len(odd) * 0.9:
        return "utf-16-le" if even.count(0) < len(even) else ""
    if first.startswith(codecs.BOM_UTF16_BE) or even.count(0) > len(even) * 0.9:
        return "utf-16-be" if odd.count(0) < len(odd) else ""
    return ""
