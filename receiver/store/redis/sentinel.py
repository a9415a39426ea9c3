"""Edge: Redis. The master behind Sentinels. Every new connection asks them for it, and so follows a failover.

While Sentinels elect a new master, connecting fails, and so do the commands to be sent. When a master becomes a
replica, a connection to it is closed after the first refused write.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from receiver.store.redis.address import RedisAddress, address_text


class MasterOf(Redis):
    """The client for a master. Closing it also closes the connections to its Sentinels."""

    guards: Sentinel

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        await self.guards.aclose()


def master_of(address: RedisAddress, **how: Any) -> MasterOf:
    """A client for the current master; `how` are redis-py's arguments for every connection."""
    options: dict[str, Any] = {**how, **address.tls_options}
    guards: Any = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no types here
        address.hosts,
        sentinel_kwargs={
            **options,
            "username": address.options.get("sentinel_username"),
            "password": address.options.get("sentinel_password"),
        },
    )
    master: MasterOf = guards.master_for(
        address.master,
        redis_class=MasterOf,
        db=address.database,
        **address.sign_in,
        **options,
    )
    master.guards = guards
    return master


@dataclass(frozen=True, slots=True)
class Guards:
    """The state of the Sentinels of an address."""

    silent: tuple[str, ...]
    """Those that do not answer, or do not know the master."""
    total: int
    quorum: bool
    """Whether an answering Sentinel says that there are enough of them for a failover."""


async def ask_guards(client: MasterOf, master: str) -> Guards:
    """Ask every Sentinel whether a failover could be decided: `SENTINEL CKQUORUM`."""

    async def ask(sentinel: Any) -> bool | None:
        try:
            await sentinel.execute_command("SENTINEL", "CKQUORUM", master)
        except (RedisError, OSError, TimeoutError) as error:
            return False if str(error).startswith("NOQUORUM") else None
        return True

    sentinels = client.guards.sentinels
    answers = await asyncio.gather(*(ask(each) for each in sentinels))
    names = [address_text(*(each.connection_pool.connection_kwargs[k] for k in ("host", "port"))) for each in sentinels]
    silent = tuple(name for name, answer in zip(names, answers, strict=True) if answer is None)
    return Guards(silent, len(names), any(answers))
