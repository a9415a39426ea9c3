"""Edge: Redis. A Redis Cluster: which node serves which slot, and one pipeline for each node.

Each node has its own pipelines, so that a node that is down or slow only delays its own accounts. A node that replies
`MOVED` or `ASK` has not run the command, so the command is sent on, even if it is a claim. Apart from that, only
`Pipeline` repeats commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from receiver.errors import StoreUnavailable
from receiver.store.redis.address import address_text
from receiver.store.redis.errors import error_code
from receiver.store.redis.keys import PROBE
from receiver.store.redis.pipeline import Pipeline, _Call, key_of, wait_marker_key
from receiver.store.redis.scripts import Command, Script

log = structlog.get_logger()

Place = tuple[str, int]
"""Host and port of a node."""

SLOTS = 16_384
MOST_MOVES = 8
"""How often one command follows `MOVED` and `ASK`."""
DOUBT_EVERY = 0.2
"""Seconds between two refreshes of the slot map while something is wrong."""
LOOK_TIMEOUT = 1.0
"""Seconds to wait for one node's slot map before asking another node."""
DOUBTS = (RedisConnectionError, RedisTimeoutError, ClusterDownError, ReadOnlyError, OSError, TimeoutError)
"""After these errors the slot map may be outdated."""


class Cluster:
    """The nodes of the cluster and the slots they serve. `connect` makes a plain client for one node."""

    def __init__(self, seeds: tuple[Place, ...], connect: Callable[[str, int], Redis]) -> None:
        self._seeds, self._connect = seeds, connect
        self._clients: dict[Place, Redis] = {}
        self._slots: dict[int, Place] = {}
        self._order = list(seeds)
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._trouble = "unreachable"

    def client(self, place: Place) -> Redis:
        if place not in self._clients:
            self._clients[place] = self._connect(*place)
        return self._clients[place]

    @property
    def served(self) -> int:
        """How many slots are known to have a master."""
        return len(self._slots)

    def knows(self, key: str) -> Place | None:
        """The master known to serve the slot of this key."""
        return self._slots.get(key_slot(key.encode()))

    async def look_for(self, key: str) -> str:
        """Refresh the slot map, together with other callers. Returns an error code if no node serves the key's slot."""
        self.doubt()
        if self._looking is not None:
            await asyncio.wait({self._looking})
        return "" if self.knows(key) else self._trouble

    def moved(self, slot: int, place: Place) -> None:
        """A node reported that a slot has moved: others have probably moved too."""
        self._slots[slot] = place
        self.doubt()

    def doubt(self) -> None:
        """Refresh the slot map soon, because something went wrong."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_soon())

    async def _look_soon(self) -> None:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._looked_at + DOUBT_EVERY - clock()))
        for place in tuple(self._order):
            try:
                async with asyncio.timeout(LOOK_TIMEOUT):
                    answer = await self.client(place).execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]  # redis-py has no types here
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("store.node_silent", node=address_text(*place), error=type(error).__name__)
                self._trouble = error_code(error)
            else:
                self._take(place, answer)
                break
            finally:
                # Ask another node first next time: this node's view may be old, or that of a partition.
                if place in self._order:
                    self._order.append(self._order.pop(self._order.index(place)))
        self._looked_at = clock()

    def _take(self, replied: Place, answer: list[Any]) -> None:
        """Reads `CLUSTER SLOTS`: first slot, last slot, master, replicas. An empty host means the node itself."""
        slots: dict[int, Place] = {}
        nodes: dict[Place, None] = {}
        for first, last, *found in answer:
            places = [(_text(node[0]) or replied[0], int(node[1])) for node in found]
            slots.update(dict.fromkeys(range(int(first), int(last) + 1), places[0]))
            nodes.update(dict.fromkeys(places))
        if not slots:
            return
        if set(slots.values()) != set(self._slots.values()):
            masters = sorted(address_text(*place) for place in set(slots.values()))
            log.info("store.cluster_masters", masters=masters, slots=len(slots))
        self._slots = slots
        self._order = list(dict.fromkeys([*(p for p in self._order if p in nodes or p in self._seeds), *nodes]))

    async def masters_of(self, accounts: Iterable[str]) -> dict[Place, list[str]]:
        """The nodes with our data, and the accounts on each; an empty list for a node with only keys of the whole
        store.

        Raises `StoreUnavailable` if the node of an account is not known.
        """
        found: dict[Place, list[str]] = {}
        for key, accounts_of in ((PROBE, []), *((account, [account]) for account in accounts)):
            place = self.knows(key)
            if place is None:
                kind = await self.look_for(key)
                place = self.knows(key)
            if place is None:
                raise StoreUnavailable(f"Redis: {kind}.", reason=f"store_{kind}")
            found.setdefault(place, []).extend(accounts_of)
        return found

    def pubsub(self, **how: Any) -> Any:
        """Subscribe at some node; messages reach all nodes. The next call uses another node."""
        place = self._order[0]
        self._order.append(self._order.pop(0))
        return self.client(place).pubsub(**how)

    async def aclose(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        for client in self._clients.values():
            await client.aclose()


class NodeGroup(Pipeline):
    """The pipelines of one node. Commands for other nodes are handed to `elsewhere`."""

    elsewhere: Callable[[_Call, Exception], bool] = staticmethod(lambda call, error: False)

    def take(self, call: _Call) -> None:
        """Send a command that another node did not run."""
        self._waiting.append(call)
        self._schedule()

    async def ask(self, call: _Call) -> None:
        """Send a command to this node although its slot is still being moved here."""
        commands: list[Command] = [("ASKING",), call.command]
        if self.wait_replicas:
            commands += [
                ("ASKING",),
                ("SET", wait_marker_key(call.command), 1, "GET"),
                ("WAIT", self.wait_replicas, self.wait_ms),
            ]
        try:
            async with self.client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                _, *answers = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            self._fail_all([call], error)
            return
        if self.wait_replicas:
            answers = self._confirmed([answers[0], *answers[-2:]])
        await self._judge([call], answers)

    def _fail(self, call: _Call, error: Exception) -> None:
        if not self.elsewhere(call, error):
            super()._fail(call, error)


class ClusterGroup:
    """The interface of `Pipeline`, with one group for each node, made by `make`."""

    def __init__(
        self, cluster: Cluster, make: Callable[[Redis], NodeGroup], on_error: Callable[[str], None] = lambda kind: None
    ) -> None:
        self._cluster, self._make, self._on_error = cluster, make, on_error
        self._groups: dict[Place, NodeGroup] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self.held: Callable[[], str] = lambda: ""

    async def call(self, command: Command, script: Script | None = None, *, repeatable: bool = True) -> Any:
        """See `Pipeline.call`."""
        kind, key = self.held(), key_of(command)
        if not kind and not self._cluster.knows(key):
            kind = await self._cluster.look_for(key)
        place = self._cluster.knows(key)
        if kind or place is None:
            kind = kind or "cluster_down"
            self._on_error(kind)
            raise StoreUnavailable(f"Redis: {kind}.", reason=f"store_{kind}")
        return await self._at(place).call(command, script, repeatable=repeatable)

    def forget(self, command: Command) -> None:
        """See `Pipeline.forget`."""
        if place := self._cluster.knows(key_of(command)):
            self._at(place).forget(command)

    def _at(self, place: Place) -> NodeGroup:
        if place not in self._groups:
            group = self._make(self._cluster.client(place))
            group.elsewhere = partial(self._elsewhere, place)
            self._groups[place] = group
        return self._groups[place]

    def _elsewhere(self, place: Place, call: _Call, error: Exception) -> bool:
        """Whether the call was sent on to another node."""
        if isinstance(error, DOUBTS):
            self._cluster.doubt()
        if not isinstance(error, AskError) or call.moves >= MOST_MOVES:
            return False
        call.moves += 1
        target = (error.host or place[0], error.port)
        if isinstance(error, MovedError):
            self._cluster.moved(error.slot_id, target)
            self._at(target).take(call)
        else:
            task = asyncio.get_running_loop().create_task(self._at(target).ask(call))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return True

    async def close(self) -> None:
        while self._asking:
            await asyncio.wait(self._asking)
        for group in tuple(self._groups.values()):
            await group.close()


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
