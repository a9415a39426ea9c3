"""HTTP. The cursor of a list: where it was left, for which question. Opaque to clients, refused if altered."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from hashlib import sha256

from receiver.errors import BadRequest
from receiver.ledger.query import Query

CHECK_BYTES = 9


def write_cursor(place: str, query: Query, accounts: Sequence[str]) -> str:
    """The place (in the store's form) with a check that binds it to the filters and accounts; URL-safe text."""
    raw = place.encode()
    return base64.urlsafe_b64encode(_check(raw, query, accounts) + raw).decode().rstrip("=")


def read_cursor(text: str, query: Query, accounts: Sequence[str]) -> str:
    """The place that a page gave; empty for no cursor. Raises `BadRequest` for any other text, or other filters."""
    if not text:
        return ""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        place = raw[CHECK_BYTES:].decode("ascii")
    except (ValueError, binascii.Error):
        place = ""
    if not place or text != write_cursor(place, query, accounts):
        raise BadRequest(
            "`cursor` is not one that a page of this list, with these filters, gave. Leave it out to start again.",
            reason="bad_cursor",
        )
    return place


def _check(place: bytes, query: Query, accounts: Sequence[str]) -> bytes:
    return sha256(place + repr((query, tuple(accounts))).encode()).digest()[:CHECK_BYTES]
