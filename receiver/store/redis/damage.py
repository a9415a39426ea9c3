"""Edge: Redis. Logs and counts keys of a wrong type and damaged records that this process ran into."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from receiver.errors import StoreUnavailable
from receiver.store.redis.keys import read_kind, read_name

log = structlog.get_logger()

ESCAPED = re.compile(rb"[^ -\[\]-~]")
ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
LOG_AGAIN = 60.0
"""Seconds after which the same damage is logged again."""
MOST_REMEMBERED = 1_000
LONGEST_PART = 1_000
"""Characters of a part that are shown. A longer one is cut, and cannot be set aside by its name."""


class StoreDamaged(StoreUnavailable):
    """Data that another program, a person or a later version wrote. `part`: which part, if not the whole key."""

    def __init__(self, detail: str, *, key: str, part: str | bytes | None = None, reason: str) -> None:
        super().__init__(detail, reason=reason, retry_after=30)
        self.key, self.part = key, part


class WrongType(StoreDamaged):
    """A key has the wrong type; `part` is the type found, if known."""


class RecordUnreadable(StoreDamaged):
    """A record cannot be read."""


class KeysDamaged(StoreUnavailable):
    """Keys have the wrong type. `keys`: for each key, what it holds and should hold."""

    reason = "store_wrong_type"

    def __init__(self, keys: Mapping[str, str]) -> None:
        super().__init__()
        self.keys = keys


@dataclass(frozen=True, slots=True)
class Foreign:
    """A key that has another type than the catalogue says."""

    key: str
    found: str
    should_be: str
    account: str = ""
    """Empty for a key of the whole store."""


class Damage:
    """The damage that one process ran into. `on_record` gets the kind of key of each logged damaged record."""

    def __init__(self, on_record: Callable[[str], None] = lambda kind: None) -> None:
        self.on_record = on_record
        self.records: dict[tuple[str, str | None], str] = {}
        """(key, part) → what was last found to be wrong."""
        self._foreign: dict[str, Foreign] = {}
        self._logged_at: dict[tuple[str, str], float] = {}

    @property
    def foreign(self) -> list[Foreign]:
        """Keys of a wrong type that are not known to be right again."""
        return list(self._foreign.values())

    def wrong_type(self, key: str, found: str) -> None:
        """A key has the wrong type; `found` is empty if Redis did not say which."""
        name = read_name(key)
        if name is None:
            return
        known = self._foreign.get(key)
        if known is None and len(self._foreign) >= MOST_REMEMBERED:
            self._foreign.pop(next(iter(self._foreign)))
        self._foreign[key] = Foreign(key, found or (known.found if known else ""), name.entry.type, name.account)
        if self._should_log(key, ""):
            log.error(
                "store.wrong_type",
                key=key,
                found=found or None,
                should_be=name.entry.type,
                account=name.account or None,
                fix=fix_of(key),
            )

    def met(self, error: WrongType) -> None:
        """A command failed because a key has the wrong type."""
        self.wrong_type(error.key, escaped(error.part or ""))

    def right_again(self, keys: Iterable[str]) -> None:
        """These keys were checked, and have the right type or do not exist."""
        for key in keys:
            if self._foreign.pop(key, None):
                self._logged_at.pop((key, ""), None)
                log.warning("store.right_type_again", key=key)

    def record(self, key: str, part: str | bytes | None = None, what: str = "") -> None:
        """A record is damaged, or of a later version. `part` is the field or member, which may be empty; None: the key.

        `part` is shown as `escaped` writes it. Values are never included: they may be secrets.
        """
        shown = None if part is None else escaped(part)[:LONGEST_PART]
        if len(self.records) < MOST_REMEMBERED:
            self.records[key, shown] = what
        if self._should_log(key, f"{shown} {what}"):
            self.on_record(read_kind(key))
            log.error("store.record_unreadable", key=key, part=shown, what=what or None, fix=fix_of(key, shown))

    def _should_log(self, key: str, part: str) -> bool:
        now = time.monotonic()
        if now - self._logged_at.get((key, part), -LOG_AGAIN) < LOG_AGAIN:
            return False
        self._logged_at.pop((key, part), None)
        if len(self._logged_at) >= MOST_REMEMBERED:
            del self._logged_at[next(iter(self._logged_at))]
        self._logged_at[key, part] = now
        return True


def escaped(part: str | bytes) -> str:
    """A part of a key as printable ASCII: every other byte, and the backslash, is `\\xNN`. `unescaped` reads it."""
    raw = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
    return ESCAPED.sub(lambda found: b"\\x%02x" % found[0][0], raw).decode("ascii")


def unescaped(text: str) -> bytes:
    """The bytes that `escaped` shows as `text`. Other text stands for itself."""
    return ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), text.encode("utf-8", "surrogateescape"))


def unescaped_key(text: str) -> str:
    """The key that `escaped` shows as `text`."""
    return unescaped(text).decode(errors="replace")


def fix_of(key: str, part: str | None = None) -> str:
    """The shell command that sets a key, or a part of it (as `escaped` writes it), aside."""
    return f"receiver repair {_quoted(escaped(key))}" + ("" if part is None else f" --part {_quoted(part)}")


def _quoted(text: str) -> str:
    """For a shell: an order reference, which a key may end with, may be anything."""
    return "'" + text.replace("'", "\\x27") + "'"


def wrong_type(key: str, should_be: str, found: str = "") -> WrongType:
    """The error for a key of the wrong type."""
    holds = f"a {found}" if found else "another type"
    text = f"The store's key {key} holds {holds}, and should be a {should_be}. Set it aside: {fix_of(key)}."
    return WrongType(text, key=key, part=found, reason="store_wrong_type")


def unreadable(key: str, part: str | bytes | None = None) -> RecordUnreadable:
    """The error for an unreadable record."""
    where = key if part is None else f"{key}, {escaped(part)[:100]!r},"
    text = f"The store's record {where} cannot be read. See `receiver doctor --store`."
    return RecordUnreadable(text, key=key, part=part, reason="store_record_unreadable")
