"""Edge: the web. Reads an answer from its bytes, and isolates it from what follows.

    interim answers (1xx)             a few are skipped; a flood is refused
    a head that the parser refuses    its status and readable fields are kept
    bytes after the answer            ignored, and the connection is not used again: they belong to no request

RFC 9110, 15.2: a client must be able to parse one or more 1xx before the final answer. Each costs as much as an answer:
two hundred kilobytes of `100 Continue` would block the whole process for a second. RFC 9112, 6.3: a 204 ends with its
head, whatever its framing fields say. Some servers send the last chunk of an empty body with it.
"""

from __future__ import annotations

from typing import BinaryIO, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from receiver.exchange import Response
from receiver.transport.head import MAX_FIELDS, MAX_HEAD, end_of, fields_of, joined, may_begin, status_of

MOST_INTERIM = 16
"""Interim answers to one request."""
SLICE = 4096
"""Bytes of a body that are parsed before checking whether it has ended."""
NO_BODY: Final = frozenset({204, 304})


class BadAnswer(Exception):
    """An answer that violates HTTP or exceeds a limit. If its status could be read, it has one."""


class Answer:
    """Reads the answers of one connection, one after the other. Its parser is `httptools`, which calls the methods
    `on_…`."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        # What servers do wrong without harm: control characters in values, lines without CR, blanks after chunk sizes.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def begin(self, *, has_body: bool, max_body: int, into: BinaryIO | None) -> None:
        """Expect another answer. At most `max_body` bytes of its body are kept; the body of a 200 is written `into` a
        file, if one is given."""
        self._has_body, self._left, self._into = has_body, max_body, into
        self._head, self._interim = bytearray(), 0
        self._fields: list[tuple[str, str]] = []
        self._piece = bytearray()
        """The bytes of the body that the parser has found since the last `_take`."""
        self._fruitless = 0
        """How many bytes came since the last byte of the body: its framing only."""
        self._until_closed = False
        self.status = 0
        """0 until the head is read."""
        self._headers: dict[str, str] = {}
        self._body, self._truncated = bytearray(), False
        self.ended = False
        self.keeps_alive = False
        """Whether the connection can be used again."""

    def response(self, note: str = "") -> Response:
        """The answer as read so far. With a note, it was cut off."""
        return Response(self.status, self._headers, bytes(self._body), self._truncated or bool(note), note)

    def feed(self, data: bytes) -> None:
        """Read more bytes. Raises `BadAnswer`, or what the file raises."""
        if self.status:
            self._more_body(data)
        else:
            self._more_head(data)

    def closed(self) -> None:
        """No more bytes will come. This ends a body without a length."""
        self.ended |= self._until_closed

    def on_message_begin(self) -> None:
        if self.ended:
            self.keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer, or another answer
        value = value.rstrip(b" \t")
        if b"\x00" in value or len(self._fields) == MAX_FIELDS:
            raise ValueError
        self._fields.append((name.decode("ascii"), value.decode("utf-8", "replace")))

    def on_headers_complete(self) -> None:
        if self.status:
            return
        self.status, self._headers = self._parser.get_status_code(), joined(self._fields)
        coding = self._headers.get("transfer-encoding", "").lower()
        is_chunked = coding.rpartition(",")[2].strip() == "chunked"
        self.keeps_alive = self._parser.should_keep_alive()
        self._until_closed = "content-length" not in self._headers and not is_chunked
        if not self._has_body or (self.status in NO_BODY and coding):
            self.ended, self.keeps_alive = True, False

    def on_body(self, data: bytes) -> None:
        if not self.ended:
            self._piece += data

    def on_message_complete(self) -> None:
        self.ended = True

    def _more_head(self, data: bytes) -> None:
        searched = max(len(self._head) - 2, 0)
        self._head += data if self._head else data.lstrip(b"\r\n")
        while self._head:
            if not may_begin(self._head):
                raise BadAnswer("the answer is not HTTP")
            end = end_of(self._head, searched)
            if end < 0 and len(self._head) <= MAX_HEAD:
                return
            head, searched = bytes(self._head[: end if end > 0 else None]), 0
            del self._head[: len(head)]
            status = status_of(head)
            if status == 101 or not 100 <= status < 200:
                self._final(head, status, whole=0 < end <= MAX_HEAD)
                self._more_body(bytes(self._head))
                return
            self._interim += 1
            if self._interim > MOST_INTERIM or end < 0:
                raise BadAnswer("too many interim answers")

    def _final(self, head: bytes, status: int, *, whole: bool) -> None:
        problem = "" if whole else f"its head is longer than {MAX_HEAD} bytes"
        try:
            if whole:
                self._parser.feed_data(head)
        except HttpParserUpgrade:
            self.ended, self.keeps_alive = True, False
        except HttpParserError:
            problem = "its head violates HTTP"
        if problem and not status:
            raise BadAnswer("the answer is not HTTP")
        if problem:
            self.status, self._headers = status, joined(fields_of(head[:MAX_HEAD]))
            raise BadAnswer(problem)

    def _more_body(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE):
            if self.ended:
                self.keeps_alive = False
                return
            slice_ = data[start : start + SLICE]
            self._fruitless += len(slice_)
            try:
                self._parser.feed_data(slice_)
            except (HttpParserError, HttpParserUpgrade):
                self.keeps_alive = False
                if not self.ended:
                    raise BadAnswer("the body of the answer violates HTTP") from None
            finally:
                self._take()
            if self._fruitless > MAX_HEAD and not self.ended:
                raise BadAnswer("the body of the answer violates HTTP")

    def _take(self) -> None:
        """Keep what the parser has found of the body, up to the limit."""
        if not self._piece:
            return
        self._fruitless = 0
        if len(self._piece) > self._left:
            self._truncated = self.ended = True
            self.keeps_alive = False
            del self._piece[self._left :]
        self._left -= len(self._piece)
        if self._into is not None and self.status == 200:
            self._into.write(self._piece)
        else:
            self._body += self._piece
        self._piece.clear()
