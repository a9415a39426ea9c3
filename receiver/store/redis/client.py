"""Edge: Redis. The client for an address: a single Redis, a master behind Sentinels, or a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from redis.asyncio import Redis

from receiver.store.redis.address import CLUSTER, SENTINEL, RedisAddress
from receiver.store.redis.cluster import Cluster, ClusterGroup, NodeGroup
from receiver.store.redis.pipeline import Pipeline, connect, limits
from receiver.store.redis.sentinel import master_of

Client = Redis | Cluster
Pipelines = Pipeline | ClusterGroup


def link(address: RedisAddress, *, timeout: float = 5.0, connect_timeout: float = 2.0) -> Client:
    """A client for the address; time-outs in seconds. It never retries on its own."""
    how = limits(timeout, connect_timeout)
    if address.kind == SENTINEL:
        return master_of(address, **how)
    if address.kind != CLUSTER:
        return connect(address, timeout=timeout, connect_timeout=connect_timeout)
    options = {**address.sign_in, **address.tls_options, **how}
    return Cluster(address.hosts, lambda host, port: Redis(host=host, port=port, **options))


def pipelines(
    client: Client,
    wait_replicas: int = 0,
    wait_ms: int = 500,
    on_error: Callable[[str], None] = lambda kind: None,
    gone: Callable[[], bool] = lambda: False,
) -> Pipelines:
    """Pipelines that send the commands of one turn of the event loop together."""
    if isinstance(client, Cluster):
        return ClusterGroup(client, lambda node: NodeGroup(node, wait_replicas, wait_ms, on_error, gone), on_error)
    return Pipeline(client, wait_replicas, wait_ms, _leaving(client, on_error), gone)


def _leaving(client: Redis, on_error: Callable[[str], None]) -> Callable[[str], None]:
    """After a refused write, also drop idle connections: another server behind the name may be the master."""
    under_way: set[asyncio.Task[None]] = set()

    def on_failure(kind: str) -> None:
        on_error(kind)
        if kind == "read_only" and not under_way:
            task = asyncio.get_running_loop().create_task(_let_go(client))
            under_way.add(task)
            task.add_done_callback(under_way.discard)

    return on_failure


async def _let_go(client: Redis) -> None:
    await client.connection_pool.disconnect(inuse_connections=False)
