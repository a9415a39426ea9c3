"""Edge: Redis. Probes a Redis: its settings, its latency, and whether confirmed writes are durable."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from receiver.errors import StoreUnavailable
from receiver.store.redis.address import RedisAddress, address_text
from receiver.store.redis.client import link
from receiver.store.redis.cluster import SLOTS, Cluster
from receiver.store.redis.errors import error_code
from receiver.store.redis.keys import PREFIX, PROBE, WAKE
from receiver.store.redis.sentinel import Guards, MasterOf, ask_guards

PINGS, WRITES = 50, 20
PATIENCE = 2.0
"""Seconds after which no more samples of a kind are taken."""
PROBE_LIVES = 10_000
"""ms after which the probe's key expires if it is not removed."""
WRITE = "return redis.call('SET', KEYS[1], 'probe', 'PX', ARGV[1])"
"""A write in the way the service writes: by a script."""
SETTINGS = ("appendfsync", "no-appendfsync-on-rewrite")
"""Settings that only `CONFIG GET` returns."""


Ask = Callable[..., Awaitable[Any]]
"""Sends one command, given word by word."""


@dataclass(frozen=True, slots=True)
class RedisProbe:
    """The findings for one node. A part that Redis refused to return is empty, and `refused` has its error code."""

    info: Mapping[str, str]
    """The fields of `INFO`."""
    config: Mapping[str, str]
    """Those of `SETTINGS` that `CONFIG GET` returned."""
    pings: tuple[float, ...]
    """Seconds for each `PING`."""
    writes: tuple[float, ...]
    """Seconds for each write. Redis answers once the write is as durable as configured."""
    ahead: float | None
    """Seconds by which this machine's clock is ahead of `TIME`."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """`info`, `config`, `time`, `channel`, `wait` or `write` → the error code."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The findings for one address."""

    nodes: Mapping[str, RedisProbe | str]
    """The findings for each node with our data, or the error code if it does not answer. A single node has the name
    ''."""
    accounts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The accounts on each node of a cluster."""
    guards: Guards | None = None
    """The Sentinels, if there are any."""
    unserved: int = 0
    """Slots of a cluster that no node serves."""


async def examine(
    address: RedisAddress,
    accounts: Sequence[str],
    *,
    timeout: float,
    connect_timeout: float,
    system_clock: Callable[[], int],
) -> Examined:
    """Probe the Redis at `address`. Time-outs are seconds for each answer; `system_clock` is this machine's clock (ms).

    Writes one key on each node, `refunds:doctor:…`, and removes it. Raises `StoreUnavailable` (`store_…`) if no node
    answers.
    """
    client = link(address, timeout=timeout, connect_timeout=connect_timeout)
    try:
        if isinstance(client, Cluster):
            return await _cluster(client, accounts, system_clock)
        guards = await ask_guards(client, address.master) if isinstance(client, MasterOf) else None
        vitals = await _node(client.execute_command, system_clock, PREFIX)
        if isinstance(vitals, str):
            raise StoreUnavailable(f"Redis: {vitals}.", reason=f"store_{vitals}")
        return Examined({"": vitals}, guards=guards)
    finally:
        await client.aclose()


async def _cluster(cluster: Cluster, accounts: Sequence[str], system_clock: Callable[[], int]) -> Examined:
    masters = await cluster.masters_of(accounts)
    found = await asyncio.gather(
        *(
            _node(cluster.client(place).execute_command, system_clock, f"{PREFIX}{{{there[0] if there else PROBE}}}:")
            for place, there in masters.items()
        )
    )
    names = [address_text(*place) for place in masters]
    homes = {name: tuple(there) for name, there in zip(names, masters.values(), strict=True)}
    return Examined(dict(zip(names, found, strict=True)), homes, unserved=SLOTS - cluster.served)


async def _node(ask: Ask, system_clock: Callable[[], int], prefix: str) -> RedisProbe | str:
    try:
        return await _read(ask, system_clock, prefix)
    except (RedisError, OSError, TimeoutError) as error:
        return error_code(error)


async def _read(ask: Ask, system_clock: Callable[[], int], prefix: str) -> RedisProbe:
    refused: dict[str, str] = {}
    await ask("PING")
    pings = await _samples(ask, PINGS, ("PING",))
    info = await _config_of(ask, refused, "info", "INFO")
    config = await _config_of(ask, refused, "config", "CONFIG GET", *SETTINGS)
    ahead = await _ahead(ask, refused, system_clock)
    # An empty message names no account, so it wakes no worker.
    await _asked(ask, refused, "channel", "PUBLISH", WAKE, "")
    await _asked(ask, refused, "wait", "WAIT", 0, 1)
    writes: tuple[float, ...] = ()
    key = f"{prefix}doctor:{secrets.token_hex(8)}"
    try:
        writes = await _samples(ask, WRITES, ("EVAL", WRITE, 1, key, PROBE_LIVES))
        await ask("DEL", key)
    except RedisError as error:
        if error_code(error) in ("timeout", "unreachable"):
            raise
        refused["write"] = error_code(error)
    return RedisProbe(info, config, pings, writes, ahead, refused)


async def _samples(ask: Ask, count: int, command: tuple[str | int, ...]) -> tuple[float, ...]:
    """Seconds for each of at most `count` answers."""
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < count and (at := time.perf_counter()) - began < PATIENCE:
        await ask(*command)
        found.append(time.perf_counter() - at)
    return tuple(found)


async def _asked(ask: Ask, refused: dict[str, str], part: str, *command: str | int) -> Any:
    """The answer; None if Redis refuses it, with the error code in `refused`."""
    try:
        return await ask(*command)
    except RedisError as error:
        if error_code(error) in ("timeout", "unreachable"):
            raise
        refused[part] = error_code(error)
        return None


async def _config_of(ask: Ask, refused: dict[str, str], part: str, *command: str) -> dict[str, str]:
    """The answer as texts by name; empty if Redis refuses it."""
    answer = await _asked(ask, refused, part, *command)
    return {_text(name): _text(value) for name, value in dict(answer or {}).items()}


async def _ahead(ask: Ask, refused: dict[str, str], system_clock: Callable[[], int]) -> float | None:
    before = system_clock()
    answer = await _asked(ask, refused, "time", "TIME")
    if answer is None:
        return None
    seconds, micros = answer
    return (before + system_clock()) / 2000 - (int(seconds) + int(micros) / 1e6)


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={text}" for name, text in value.items())
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
