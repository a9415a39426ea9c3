"""Edge: Redis. Finds keys of a wrong type and damaged records, and sets them aside.

Keys with fixed names are checked every few seconds. `inspect` reads every key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import structlog

from receiver.errors import StoreUnavailable
from receiver.store.account import AccountStores
from receiver.store.maintenance.records import Records
from receiver.store.redis.base import RedisRepository
from receiver.store.redis.cluster import Cluster
from receiver.store.redis.damage import Foreign, RecordUnreadable, WrongType, unescaped, unescaped_key
from receiver.store.redis.keys import (
    CERTIFICATES,
    FORMAT,
    LIST,
    PREFIX,
    PROBE,
    RESTORED,
    SEALS,
    Keys,
    Name,
    aside_of,
    read_name,
    standing_keys,
)

log = structlog.get_logger()

MONEY = frozenset({"charge", "taken", "requests", "fps", "issuing", "fps_issuing", "reserved", "unclear"})
"""Kinds of keys that record issued refunds and refunds in progress: without them, a refund could be issued twice."""
CASES = frozenset({"open", "open:details"})
"""Kinds of keys that list the open cases. They can be written again from the refunds."""
CHECK_EVERY = 5.0
"""Seconds between two checks of the keys with fixed names."""
STEP, LONG_STEP = 500, 5_000
"""Keys that Redis looks at in one `SCAN`: where all of them are read, and where hardly any has a name that fits."""


class Inspection(RedisRepository):
    """Reports damage to `Damage`, which remembers and logs it."""

    def __init__(self, accounts: AccountStores) -> None:
        super().__init__(accounts.connection)
        self._all = accounts
        self._names: dict[str, list[str]] = {}

    async def check_keys(self) -> list[Foreign]:
        """Keys of a wrong type, among those with fixed names and those that commands ran into. Raises
        `StoreUnavailable`."""
        known = [CERTIFICATES, SEALS, FORMAT, RESTORED, PROBE]
        for account in self.accounts:
            with contextlib.suppress(WrongType):
                self._names[account] = (await self._all.of(account).subscribers.read()).names
            known += standing_keys(account, self._names.get(account, ()))
        await self._compare(dict.fromkeys([*known, *(each.key for each in self.damage.foreign)]))
        return self.damage.foreign

    async def keep_checking_keys(self) -> None:
        """Check every few seconds, until cancelled."""
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self.check_keys()
            await asyncio.sleep(CHECK_EVERY)

    async def _compare(self, keys: Iterable[str]) -> list[str]:
        """The keys that exist and have the right type; wrong ones are reported to `damage`."""
        names = [(key, name) for key in keys if (name := read_name(key)) is not None]
        types = await asyncio.gather(*(self._read("TYPE", key) for key, _ in names))
        there, right = [], []
        for (key, name), answer in zip(names, types, strict=True):
            found = answer.decode() if isinstance(answer, bytes) else str(answer)
            if found in ("none", name.entry.type) or name.entry.type == "any":
                right.append(key)
            else:
                self.damage.wrong_type(key, found)
            if found == name.entry.type:
                there.append(key)
        self.damage.right_again(right)
        return there

    async def inspect(self) -> list[str]:
        """Read every key of the store, so that `damage` knows all that is wrong. Returns the unknown keys."""
        unknown = []
        async for keys in self._all_keys():
            unknown += [key for key in keys if read_name(key) is None]
            for key in await self._compare(keys):
                name = read_name(key)
                if name is not None and name.account:
                    # The failing read has already reported it to `damage`.
                    with contextlib.suppress(WrongType, RecordUnreadable):
                        await Records(self._all.of(name.account)).read_record(key, name)
        return unknown

    async def accounts_with_data(self) -> list[str]:
        """The accounts that a service has served on this store, whether they are configured or not.

        Redis goes through the names of all keys. Raises `StoreUnavailable`.
        """
        found = [read_name(key) async for keys in self._all_keys(Keys("*")("subscribers"), LONG_STEP) for key in keys]
        return sorted({name.account for name in found if name})

    async def _all_keys(self, pattern: str = f"{PREFIX}*", step: int = STEP) -> AsyncIterator[list[str]]:
        for ask in await self._nodes():
            cursor = 0
            while True:
                position, found = await ask("SCAN", cursor, "MATCH", pattern, "COUNT", step)
                cursor = int(position)
                yield [key.decode(errors="backslashreplace") for key in found]
                if not cursor:
                    break

    async def _nodes(self) -> list[Any]:
        if not isinstance(self.connection.client, Cluster):
            return [self._read]
        places = await self.connection.client.masters_of(self.accounts)
        return [self.connection.client.client(place).execute_command for place in places]

    async def repair(self, key: str, part: str | None = None) -> str:
        """Set a key, or one part of it, aside. Returns where it is kept; empty if it does not exist.

        Both are read as `damage.escaped` writes them. A part of a list is its place.

        Raises `ValueError` for a key that is not one of ours. A refund is fetched again, and its revision continues
        after the last one in its history.
        """
        key = unescaped_key(key)
        name = read_name(key)
        if name is None:
            raise ValueError(f"{key} is not a key of the receiver.")
        if part is not None:
            member = await self._member(key, name, part)
            moved = member is not None and await self.set_aside(key, member, "set aside by hand")
            if moved and name.kind == "subscribers":
                # A commit that uses the list as it was before has to be decided again.
                await self._write("HINCRBY", key, ":version", 1)
            elif moved and name.kind in CASES:
                await self._all.of(name.account).cases.list_again()
            return aside_of(name) if moved else ""
        target = _replaced(name, self.now())
        if not await self._run("replace", [key, target], [], without=(name.kind,)):
            return ""
        if name.kind in CASES:
            await self._all.of(name.account).cases.list_again()
        if name.kind == "refund":
            await Records(self._all.of(name.account)).restore_refund(name.of, target)
        self.damage.right_again([key])
        return target

    async def _member(self, key: str, name: Name, part: str) -> bytes | None:
        """The field or member that `part` names: in a list, by its place."""
        if name.entry.type != LIST:
            return unescaped(part)
        found: bytes | None = await self._read("LINDEX", key, int(part)) if part.isdecimal() else None
        return found


def _replaced(name: Name, now: int) -> str:
    parts = [str(now), name.kind, *([name.of] if name.of else [])]
    return Keys(name.account)("replaced", *parts) if name.account else f"{PREFIX}replaced:{':'.join(parts)}"
