"""Edge: Redis. Looks for keys of a foreign type and damaged records, and sets them aside.

The keys whose names are known beforehand are looked at every few seconds. `inspect` reads every key that there is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import structlog

from receiver.errors import StoreUnavailable
from receiver.store.maintenance.records import Records
from receiver.store.redis.cluster import Cluster
from receiver.store.redis.damage import Foreign, RecordUnreadable, WrongType
from receiver.store.redis.keys import (
    CERTIFICATES,
    FORMAT,
    PREFIX,
    PROBE,
    RESTORED,
    SEALS,
    Keys,
    Name,
    read_name,
    standing_keys,
)

log = structlog.get_logger()

MONEY = frozenset({"charge", "taken", "requests", "fps", "issuing", "fps_issuing", "reserved", "unclear"})
"""Kinds of keys that say what was refunded, or is being: without them something could be refunded a second time."""
CHECK_EVERY = 5.0
"""Seconds between two looks at the keys whose names are known."""
STEP = 500


class Inspection(Records):
    """Says what is damaged. `Damage` remembers it, and logs it."""

    _client: Any
    _names: dict[str, list[str]]

    async def check_keys(self) -> list[Foreign]:
        """The foreign keys among those whose names are known beforehand, and those that were met. Raises
        `StoreUnavailable` where Redis does not answer."""
        known = [CERTIFICATES, SEALS, FORMAT, RESTORED, PROBE]
        for account in self.accounts:
            with contextlib.suppress(WrongType):
                self._names[account] = (await self.subscriber_list(account)).names
            known += standing_keys(account, self._names.get(account, ()))
        await self._compare(dict.fromkeys([*known, *(each.key for each in self.damage.foreign)]))
        return self.damage.foreign

    async def keep_checking_keys(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self.check_keys()
            await asyncio.sleep(CHECK_EVERY)

    async def _compare(self, keys: Iterable[str]) -> list[str]:
        """The keys that are there and hold what they should; of the others it is told."""
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
        """Read every key of the store, so that `damage` has all that is wrong. Returns the keys that nobody knows."""
        unknown = []
        async for keys in self._all_keys():
            unknown += [key for key in keys if read_name(key) is None]
            for key in await self._compare(keys):
                name = read_name(key)
                if name is not None and name.account:
                    # What raises has told `damage` of it.
                    with contextlib.suppress(WrongType, RecordUnreadable):
                        await self.read_record(key, name)
        return unknown

    async def _all_keys(self) -> AsyncIterator[list[str]]:
        for ask in await self._nodes():
            cursor = 0
            while True:
                told, found = await ask("SCAN", cursor, "MATCH", f"{PREFIX}*", "COUNT", STEP)
                cursor = int(told)
                yield [key.decode(errors="backslashreplace") for key in found]
                if not cursor:
                    break

    async def _nodes(self) -> list[Any]:
        if not isinstance(self._client, Cluster):
            return [self._read]
        places = await self._client.masters_of(self.accounts)
        return [self._client.client(place).execute_command for place in places]

    async def repair(self, key: str, part: str = "") -> str:
        """Set a key, or one part of it, aside. Returns where it is kept; empty where it is not there.

        Raises `ValueError` for a key that is none of ours. A refund is asked about again, and its revision goes on from
        where its history ends.
        """
        name = read_name(key)
        if name is None:
            raise ValueError(f"{key} is no key of the receiver.")
        if part:
            moved = await self.set_aside(key, part, "set aside by hand")
            if moved and name.kind == "subscribers":
                # What is being written with the list of before is decided again.
                await self._write("HINCRBY", key, ":version", 1)
            return aside_of(name) if moved else ""
        target = _replaced(name, self.now())
        if not await self._run("replace", [key, target], [], without=(name.kind,)):
            return ""
        if name.kind == "refund":
            await self.restore_refund(name.account, name.of, target)
        self.damage.right_again([key])
        return target


def aside_of(name: Name) -> str:
    """Where parts of this key are kept."""
    return Keys(name.account)("aside", name.kind, *((name.of,) if name.of else ()))


def _replaced(name: Name, now: int) -> str:
    parts = [str(now), name.kind, *([name.of] if name.of else [])]
    return Keys(name.account)("replaced", *parts) if name.account else f"{PREFIX}replaced:{':'.join(parts)}"
