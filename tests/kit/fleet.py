"""Several Valkeys of one test: replicas, Sentinels, the nodes of a cluster. Real processes on free ports."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from receiver.store.embedded.program import find_program
from tests.kit.processes import short_folder, until

HOST = "127.0.0.1"
MASTER = "refunds"
"""The name by which Sentinels know the master."""


def free_port() -> int:
    """A free port."""
    with socket.socket() as line:
        line.bind((HOST, 0))
        return int(line.getsockname()[1])


def launch(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """A process whose words go to a file."""
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@dataclass(slots=True)
class Server:
    """One process. Stopping it in the middle (`freeze`) leaves its connections open, as a hang does."""

    port: int
    process: subprocess.Popen[bytes]
    client: Any
    """A plain client, to look behind the receiver's back."""

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait(10)

    def freeze(self) -> None:
        """It answers no more."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self.process.send_signal(signal.SIGCONT)

    @property
    def url(self) -> str:
        """Its plain address."""
        return f"redis://{HOST}:{self.port}"

    async def answers(self) -> bool:
        """Whether it does."""
        try:
            return bool(await self.client.ping())
        except AuthenticationError:
            return True
        except (RedisError, OSError):
            return False

    async def role(self) -> str:
        """`master` or `slave`; empty where it does not answer."""
        try:
            return str((await self.client.role())[0].decode())
        except (RedisError, OSError):
            return ""

    async def online(self, count: int) -> bool:
        """Whether this many replicas follow it and have acknowledged a write."""
        await self.client.set("online", 1)
        return bool(await self.client.wait(count, 100) >= count)


@dataclass(slots=True)
class Fleet:
    """The processes of one test, each in its own folder."""

    folder: Path
    servers: list[Server] = field(default_factory=list)

    async def start(self, *args: str, config: str | None = None) -> Server:
        """Start one. With `config` it is a Sentinel."""
        port = free_port()
        folder = self.folder / str(port)
        folder.mkdir()
        command = [str(find_program().path)]
        if config is not None:
            (folder / "sentinel.conf").write_text(config)
            command += [str(folder / "sentinel.conf"), "--sentinel"]
        else:
            command += ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", *args]
        command += ["--port", str(port), "--bind", HOST, "--dir", str(folder), "--set-proc-title", "no"]
        process = launch(command, folder)
        client = Redis(host=HOST, port=port, socket_timeout=5, retry=Retry(NoBackoff(), 0))
        server = Server(port, process, client)
        self.servers.append(server)
        await until(server.answers, f"Valkey answers on {port}")
        return server

    async def replicated(self, replicas: int) -> tuple[Server, list[Server]]:
        """A master and replicas that have caught up."""
        master = await self.start()
        found = [await self.start("--replicaof", f"{HOST} {master.port}") for _ in range(replicas)]
        await until(lambda: master.online(replicas), "the replicas have caught up")
        return master, found

    async def sentinels(self, master: Server, count: int = 3, quorum: int = 2) -> str:
        """Sentinels that know each other and the master's replicas. Returns the receiver's address for them."""
        config = (
            f"sentinel monitor {MASTER} {HOST} {master.port} {quorum}\n"
            f"sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n"
        )
        found = [await self.start(config=config) for _ in range(count)]
        replicas = (await master.client.info("replication"))["connected_slaves"]

        async def acquainted() -> bool:
            states = [await each.client.sentinel_master(MASTER) for each in found]
            return all((s["num-other-sentinels"], s["num-slaves"]) == (count - 1, replicas) for s in states)

        await until(acquainted, "the Sentinels know each other")
        return f"redis+sentinel://{','.join(f'{HOST}:{each.port}' for each in found)}/{MASTER}"

    async def cluster(self, masters: int = 3, *, replicas: int = 0, patience: int = 1000) -> list[Server]:
        """Masters that share the slots in equal parts, in order; then the replicas, one for each of the first."""
        args = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(patience))
        more = ("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0")
        found = [await self.start(*args, *more, "--cluster-port", str(free_port())) for _ in range(masters + replicas)]
        for index, each in enumerate(found):
            bus = (await each.client.config_get("cluster-port"))["cluster-port"]
            await each.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            if each is not found[0]:
                await found[0].client.execute_command("CLUSTER", "MEET", HOST, each.port, bus)
        for index, each in enumerate(found[:masters]):
            low, high = (16384 * at // masters for at in (index, index + 1))
            await each.client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
        await until(lambda: agree(found), "the nodes know each other")
        for master, replica in zip(found, found[masters:], strict=False):
            await replica.client.execute_command("CLUSTER", "REPLICATE", await node_id(master))
            await until(lambda master=master: master.client.wait(1, 100), "the replica has caught up")
        return found

    async def stop(self) -> None:
        """End all of them, at once."""
        for each in self.servers:
            each.process.kill()
            await each.client.aclose()
        for each in self.servers:
            await asyncio.to_thread(each.process.wait, 10)


async def node_id(server: Server) -> str:
    """Of a node of a cluster."""
    return str((await server.client.execute_command("CLUSTER", "MYID")).decode())


async def agree(servers: Sequence[Server]) -> bool:
    """Whether every node of the cluster says that all is well, and knows all of the others."""
    texts = [(await each.client.execute_command("CLUSTER", "INFO")) for each in servers]
    wanted = ("cluster_state:ok", "cluster_slots_assigned:16384", f"cluster_known_nodes:{len(servers)}")
    decoded = [text.decode() if isinstance(text, bytes) else str(text) for text in texts]
    return all(word in text for text in decoded for word in wanted)


@asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    """Room for processes; in the end none is left, and no file."""
    folder = short_folder()
    found = Fleet(folder)
    try:
        yield found
    finally:
        await found.stop()
        shutil.rmtree(folder, ignore_errors=True)
