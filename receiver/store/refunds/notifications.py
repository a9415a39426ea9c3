"""Edge: Redis. Authentic notifications that were not understood, kept for a person to read.

unrecognized             sorted set: id → when it came (ms)
unrecognized:details     hash: id → what is known of it
unrecognized:messages    hash: id → the message, compressed
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import msgspec

from receiver.ledger.notification import HintResult, UnrecognizedNotification
from receiver.store.redis.base import AccountRepository

MOST_KEPT = 1_000
MOST_BYTES = 64 * 1024 * 1024
"""For the compressed messages of one account. Real ones take 1 to 2 KB; those of the maximum size of SNS take 256
KB."""
KEPT_FOR = 30 * 86_400_000
"""ms."""
MOST_TEXT = 1024 * 1024
"""Bytes of a decompressed message; more than any notification has."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept notification. `id` is its `MessageId`, with a suffix if the same id came with different texts."""

    id: str
    details: UnrecognizedNotification


DETAILS = msgspec.json.Decoder(UnrecognizedNotification)


class Notifications(AccountRepository):
    """The notifications of one account, or of `UNASSIGNED`."""

    async def keep(self, kept: UnrecognizedNotification, message: str) -> HintResult:
        """Keep a notification. Durable when this returns; safe to repeat."""
        answer = await self._script(
            "keep_notification",
            [
                kept.message_id,
                kept.received_at,
                kept.digest,
                msgspec.json.encode(kept),
                zlib.compress(message.encode()),
                MOST_KEPT,
                MOST_BYTES,
                KEPT_FOR,
            ],
        )
        return HintResult(answer.decode())

    async def latest(self, limit: int) -> list[Kept]:
        """The latest ones, newest first. Damaged ones are skipped and logged."""
        index, details, _ = self._notification_keys()
        since = self.now() - KEPT_FOR
        ids = await self._read("ZRANGE", index, "+inf", since, "BYSCORE", "REV", "LIMIT", 0, limit)
        if not ids:
            return []
        values = await self._read("HMGET", details, *(each.decode(errors="replace") for each in ids))
        found = zip([each.decode(errors="replace") for each in ids], values, strict=True)
        return [Kept(id_, read) for id_, value in found if (read := self.read_details(details, id_, value)) is not None]

    async def count(self) -> int:
        """How many are kept."""
        index, _, _ = self._notification_keys()
        return int(await self._read("ZCOUNT", index, self.now() - KEPT_FOR, "+inf"))

    async def get(self, id_: str) -> tuple[Kept, str] | None:
        """One notification with its message; None if it is not kept, or damaged."""
        _, details, messages = self._notification_keys()
        read = self.read_details(details, id_, await self._read("HGET", details, id_))
        value: bytes | None = await self._read("HGET", messages, id_)
        message = None if value is None else self._part(messages, id_, "unreadable message", _inflated, value)
        return None if read is None or message is None else (Kept(id_, read), message)

    def _notification_keys(self) -> list[str]:
        return [self.keys("unrecognized"), self.keys("unrecognized", "details"), self.keys("unrecognized", "messages")]

    def read_details(self, key: str, id_: str, value: bytes | None) -> UnrecognizedNotification | None:
        what = "unreadable details of a notification"
        return None if value is None else self._part(key, id_, what, DETAILS.decode, value)


def _inflated(value: bytes) -> str:
    return zlib.decompressobj().decompress(value, MOST_TEXT).decode()
