"""Edge: Redis. The base classes of all repositories."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import msgspec

from receiver.errors import Malformed
from receiver.ledger.audit import AuditEntry
from receiver.ledger.resolution import TRACKED_FOR
from receiver.store.redis.client import Pipelines
from receiver.store.redis.clock import Clock
from receiver.store.redis.damage import Damage, RecordUnreadable, WrongType, unreadable
from receiver.store.redis.keys import LIST, STRING, WAKE, Keys, aside_of, read_name, type_of
from receiver.store.redis.scripts import Command, Script, script
from receiver.store.redis.wakeups import ChangeNotifier, News

P = ParamSpec("P")
T = TypeVar("T")
Args = list[str | int | bytes]
"""The arguments of a script, without its keys."""
LAST_TIME = 253_402_300_799_999
"""ms: the end of the year 9999, the last time that can be formatted."""

DAMAGE = (LookupError, ValueError, ArithmeticError, RecursionError, Malformed, msgspec.MsgspecError, zlib.error)
"""What reading a damaged record raises."""


@dataclass(slots=True)
class Connection:
    """What all repositories of one store share."""

    client: Any
    reads: Pipelines
    writes: Pipelines
    now: Clock
    """The clock for leases, throttles and schedules."""
    change_notifier: ChangeNotifier
    damage: Damage = field(default_factory=Damage)
    accounts: Sequence[str] = ()
    """The accounts that this process serves."""
    seen_for: int = 16 * 86_400_000
    """ms for which a notification is remembered: the accepted past and future age, plus one day. Anything older is
    rejected before it is looked up."""
    keep_dead: int = 10_000
    """Dead events kept for each subscriber; the oldest beyond this are dropped."""
    tracked_for: int = TRACKED_FOR
    """ms: a refund that was declined longer ago when it is first seen gets no open case."""
    on_dropped: Callable[[int], None] = lambda count: None
    """Called with the number of dropped dead events."""


class RedisRepository:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.damage = connection.damage

    @property
    def now(self) -> Clock:
        """The clock for leases, throttles and schedules."""
        return self.connection.now

    @property
    def accounts(self) -> Sequence[str]:
        return self.connection.accounts

    @property
    def _reads(self) -> Pipelines:
        return self.connection.reads

    @property
    def _writes(self) -> Pipelines:
        return self.connection.writes

    def _read(self, *command: str | int | bytes) -> Coroutine[Any, Any, Any]:
        return self._called(self._reads, command)

    def _write(self, *command: str | int | bytes) -> Coroutine[Any, Any, Any]:
        return self._called(self._writes, command)

    def _run(
        self,
        name: str,
        keys: list[str],
        args: Args,
        *,
        repeatable: bool = True,
        without: Collection[str] = (),
        reads: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """Run a script. If one of the keys has the wrong type, it writes nothing and raises `WrongType`; but it skips
        such keys of the kinds in `without`."""
        lua = script(name)
        group = self._reads if reads else self._writes
        return self._called(group, lua.command(keys, args, without), lua, repeatable=repeatable)

    async def _called(
        self, group: Pipelines, command: Command, lua: Script | None = None, *, repeatable: bool = True
    ) -> Any:
        try:
            answer = await group.call(command, lua, repeatable=repeatable)
        except WrongType as error:
            self.damage.met(error)
            raise
        except RecordUnreadable as error:
            self.damage.record(error.key, error.part)
            raise
        if lua is not None and isinstance(answer, list) and len(answer) == 3 and answer[0] == b"NOTES":
            _, notes, answer = answer
            for key, part, what in zip(notes[::3], notes[1::3], notes[2::3], strict=True):
                self._record_note(key.decode(), part, what.decode())
        return answer

    def _whole(self, key: str, what: str, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `read` for a key. A damaged one is reported, and raises `RecordUnreadable`."""
        try:
            return read(*args, **kwargs)
        except DAMAGE as error:
            self.damage.record(key, what=what)
            raise unreadable(key) from error

    def _part(
        self, key: str, part: bytes | str, what: str, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        """The result of `read` for a part of a key; None for a damaged one, which is reported."""
        try:
            return read(*args, **kwargs)
        except DAMAGE:
            self.damage.record(key, part, what)
            return None

    def _lines(self, key: str, lines: Iterable[bytes], what: str, read: Callable[[bytes], T]) -> list[T]:
        """The results of `read` for the lines of a list. Damaged ones are reported and left out."""
        found = (self._part(key, str(place), what, read, line) for place, line in enumerate(lines))
        return [each for each in found if each is not None]

    async def _scan(self, key: str, count: int = 500) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """The members of a sorted set with their scores, in batches.

        Unlike pages, a scan returns every member that stays, even if others are removed meanwhile.
        """
        cursor = 0
        while True:
            position, found = await self._read("ZSCAN", key, cursor, "COUNT", count)
            yield scored(found)
            if not (cursor := int(position)):
                break

    async def _members(self, key: str, count: int = 500) -> AsyncIterator[list[str]]:
        """The members that `_scan` finds, as texts, in batches."""
        async for pairs in self._scan(key, count):
            yield self._texts(key, [member for member, _ in pairs])

    async def set_aside(self, key: str, part: bytes | str, what: str) -> bool:
        """Set one field or member aside, with its value or score; False if it does not exist."""
        name = read_name(key)
        if name is None or not name.account:
            return False
        moved = await self._run("set_aside", [key, aside_of(name)], [part])
        if moved:
            # The member of a list is its value, which may be secret.
            self.damage.record(key, None if name.entry.type == LIST else part, what)
        return bool(moved)

    def _texts(self, key: str, members: Iterable[bytes]) -> list[str]:
        """Members or fields as text; others are reported and left out."""
        found = []
        for member in members:
            try:
                found.append(member.decode())
            except UnicodeDecodeError:
                self.damage.record(key, member, "not UTF-8")
        return found

    def _scored(self, key: str, answer: list[Any]) -> list[tuple[str, int]]:
        """(member, score in ms) of an answer WITHSCORES; members that are not text are reported and left out."""
        pairs = [(self._texts(key, [member]), score) for member, score in scored(answer)]
        return [(texts[0], self._millis(key, texts[0], score)) for texts, score in pairs if texts]

    def _millis(self, key: str, member: str, score: bytes | float) -> int:
        """A score as a time; an impossible one is reported, and replaced by the nearest possible time."""
        found = float(score)
        if not 0 <= found <= LAST_TIME:
            self.damage.record(key, member, "its score is not a valid time")
        return int(min(max(found, 1), LAST_TIME)) if found else 0

    def _record_note(self, key: str, part: bytes, what: str) -> None:
        """Handle a note that a script returned with its answer: a skipped key, or a damaged record."""
        if what.startswith("foreign "):
            self.damage.wrong_type(key, what.removeprefix("foreign "))
        else:
            self.damage.record(key, part if part or type_of(key) != STRING else None, what)


class AccountRepository(RedisRepository):
    """Access to the data of one account."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        super().__init__(connection)
        self.keys, self.account = keys, keys.account
        self._announcements: Mapping[News, Command] = {
            news: ("PUBLISH", WAKE, connection.change_notifier.word(self.account, news)) for news in News
        }

    def _script(
        self,
        script_name: str,
        args: Args,
        /,
        *,
        more: Sequence[str] = (),
        repeatable: bool = True,
        without: Collection[str] = (),
        reads: bool = False,
        audit: AuditEntry | None = None,
        **of: str,
    ) -> Coroutine[Any, Any, Any]:
        """Run a script on the keys that it names at its head, and on `more`. `of`: what the keys that vary belong to.

        A script that names the audit trail writes `audit` there.
        """
        lua = script(script_name)
        keys, without = [*lua.names(self.keys, of), *more], (*lua.optional, *without)
        if lua.is_audited:
            act = self._audited(audit)
            args, without = [*args, act], without if act else (*without, "audit")
        return self._run(script_name, keys, args, repeatable=repeatable, without=without, reads=reads)

    @staticmethod
    def _audited(entry: AuditEntry | None) -> bytes:
        """An entry of the audit trail as a script appends it; empty for none, and for what the service does by itself.

        Its random word makes it differ from every other, so that a script that runs twice can tell.
        """
        if entry is None or not entry.actor.token:
            return b""
        return msgspec.json.encode(msgspec.structs.replace(entry, act=secrets.token_hex(8)))

    def _written(self, news: News = News.CHANGED) -> None:
        """Notify workers in this process and in others. Nothing depends on it."""
        self.connection.change_notifier.notify(self.account, news)
        self._writes.forget(self._announcements[news])


def scored(answer: list[Any]) -> list[tuple[bytes, bytes]]:
    """(member, score) pairs of an answer WITHSCORES: flat in RESP2, nested in RESP3."""
    if answer and isinstance(answer[0], list | tuple):
        return [(pair[0], pair[1]) for pair in answer]
    return list(zip(answer[::2], answer[1::2], strict=True))
