"""Edge: Redis. What the parts of the store share."""

from __future__ import annotations

from typing import Any

from receiver.store.clock import Clock
from receiver.store.connection import Command, script
from receiver.store.keys import WAKE, Keys
from receiver.store.topology import Pipelines
from receiver.store.wakes import News, Wakes


class Part:
    """Access to Redis. `now` is the clock that leases, throttles and schedules go by."""

    now: Clock
    wakes: Wakes
    _reads: Pipelines
    _writes: Pipelines

    async def _read(self, *command: str | int) -> Any:
        return await self._reads.call(command)

    async def _run(self, name: str, keys: list[str], args: list[str | int | bytes], *, repeatable: bool = True) -> Any:
        lua = script(name)
        return await self._writes.call(lua.command(keys, args), lua, repeatable=repeatable)

    def _written(self, account: str, news: News = News.CHANGED) -> None:
        """Tell this process and the others. Nothing depends on it."""
        self.wakes.notify(account, news)
        publish: Command = ("PUBLISH", WAKE, self.wakes.word(account, news))
        self._writes.forget(publish)

    @staticmethod
    def _keys(account: str) -> Keys:
        return Keys(account)


def scored(answer: list[Any]) -> list[tuple[bytes, bytes]]:
    """(member, score) pairs of an answer WITHSCORES: flat in RESP2, nested in RESP3."""
    if answer and isinstance(answer[0], list | tuple):
        return [(pair[0], pair[1]) for pair in answer]
    return list(zip(answer[::2], answer[1::2], strict=True))
