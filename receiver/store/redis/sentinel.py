"""Edge: Redis. The master that Sentinels know of: they are asked at every new connection, which follows a failover.

While Sentinels elect a new master there is none: connecting fails, and with it whatever was to be sent. A connection to
a master that has become a replica is closed at its first refusal of a write.
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
    """The client of a master. Closing it closes the connections to its Sentinels as well."""

    guards: Sentinel

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close everything."""
        await super().aclose(close_connection_pool)
        await self.guards.aclose()


def master_of(address: RedisAddress, **how: Any) -> MasterOf:
    """A client of the master of now; `how` are arguments of the client library for every connection."""
    options: dict[str, Any] = {**how, **address.tls_options}
    guards: Any = Sentinel(  # type: ignore[no-untyped-call]
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
    """How the Sentinels of an address are."""

    silent: tuple[str, ...]
    """Those that do not answer, or do not know the master."""
    total: int
    quorum: bool
    """Whether one that answers says that there are enough of them for a failover."""


async def ask_guards(client: MasterOf, master: str) -> Guards:
    """Ask every Sentinel whether a failover could be decided on: `SENTINEL CKQUORUM`."""

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
