"""Edge: Redis. The version of the data's format: newer data is left untouched, older data is migrated.

The number is stored under `refunds:format`. If it is missing, the data is older than this number, or empty: version 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType

import structlog

from receiver.errors import ConfigurationError, StoreUnavailable
from receiver.store.account import AccountStores
from receiver.store.redis.base import RedisRepository
from receiver.store.redis.damage import WrongType
from receiver.store.redis.keys import FORMAT, RESTORED

log = structlog.get_logger()

VERSION = 2
"""The format that this program writes. Raise it, and add a step to `STEPS`, whenever older programs would misread a
change."""
FIRST = 1
RETRY, LOOK_EVERY = 0.5, 30.0
UNKNOWN = "format_unknown"
_migrating: ContextVar[bool] = ContextVar("settling", default=False)

Step = Callable[[AccountStores], Awaitable[None]]


async def _cases(_: AccountStores) -> None:
    """Version 2 has cases of declined refunds, and revisions by a person, which version 1 cannot read.

    `OpenCases.adopt` writes the cases of older declines, for each account that is configured now or later.
    """


STEPS: Mapping[int, Step] = MappingProxyType({1: _cases})
"""Version → the step that brings data of that version to the next. A step may run several times, also concurrently in
several processes and on data that is migrated already: then it must change nothing."""


class DataVersion(RedisRepository):
    """The format version of all accounts' data, and catching up after a restore."""

    def __init__(self, accounts: AccountStores) -> None:
        super().__init__(accounts.connection)
        self._all = accounts
        self._format_problem = UNKNOWN

    def hold_writes(self) -> None:
        """Refuse all writes until the format is known.

        Until then writes raise `StoreUnavailable`: with the reason why Redis did not return the format, or with
        `store_format_unknown` for a format that this program does not know.
        """
        self._writes.held = lambda: "" if _migrating.get() else self._format_problem

    async def version(self) -> int | None:
        """The stored version; None if there is none. Raises `ConfigurationError` if it is not a number."""
        return _number(await self._read("GET", FORMAT))

    async def ensure(self, version: int = VERSION, steps: Mapping[int, Step] = STEPS) -> None:
        """Write the version on the first start, migrate older data, and catch up after a restore.

        Raises `ConfigurationError` for data of a newer version, and `StoreUnavailable`.
        """
        token = _migrating.set(True)
        try:
            found = stored = await self.version()
            while found != version:
                if found is None:
                    found = _number(await self._run("format", [FORMAT], ["", FIRST]))
                elif found > version:
                    raise ConfigurationError([too_new(found, version)])
                else:
                    if stored is not None:
                        log.info("store.migrating", version=found, to=found + 1)
                    await steps[found](self._all)
                    found = _number(await self._run("format", [FORMAT], [found, found + 1]))
            await self._catch_up()
            self._format_problem = ""
        except StoreUnavailable as error:
            if self._format_problem:
                self._format_problem = error.reason.removeprefix("store_")
            raise
        except ConfigurationError:
            self._format_problem = UNKNOWN
            raise
        finally:
            _migrating.reset(token)

    async def mark_restored(self) -> None:
        """Tell all receivers that the data was restored from a backup. Raises `StoreUnavailable`."""
        await self._write("SET", RESTORED, secrets.token_hex(8), "GET")

    async def _catch_up(self) -> None:
        mark: bytes | None = await self._read("GET", RESTORED)
        for account in self.accounts:
            # A key of the wrong type delays only its own account; it is tried again.
            with contextlib.suppress(WrongType):
                await self._all.of(account).cases.adopt()
                if mark is not None:
                    await self._all.of(account).restored.catch_up(mark)

    async def keep_current(self) -> None:
        """Check the format as soon as Redis is available, and again regularly: Redis may be emptied, restored or
        migrated.

        Runs until cancelled. Raises `ConfigurationError`, after which all writes are refused.
        """
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self.ensure()
            await asyncio.sleep(RETRY if self._format_problem else LOOK_EVERY)


def too_new(found: int, version: int = VERSION) -> str:
    """The message for data that a newer program has written."""
    return (
        f"the store: its data has format {found}, and this version of the receiver knows formats up to {version}. "
        "Start the newer version again, or restore a backup from before it."
    )


def _number(raw: bytes | None) -> int | None:
    if raw is None:
        return None
    text = raw.decode(errors="replace")
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10):
        raise ConfigurationError([f"the store: {FORMAT} is not a number. Does another program write to this Redis?"])
    return int(text)
