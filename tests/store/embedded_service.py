"""A service with an embedded store, as a process that tests may kill: `embedded_service.py DIRECTORY PREFIX`.

Prints one line of JSON when the store answers, then every key as soon as its write is acknowledged; stops in order when
its standard input ends. With an empty prefix it writes nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import structlog
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError

from receiver.store.embedded.store import EmbeddedStore


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def write(url: str, prefix: str) -> None:
    client = Redis.from_url(url, socket_timeout=None)  # with one, redis-py loses cancellations before Python 3.12
    number = 0
    while True:
        key = f"{prefix}{number}"
        try:
            await client.set(key, number)
        except (RedisError, OSError):
            await asyncio.sleep(0.01)
        else:
            tell(key)
            number += 1


async def main(directory: str, prefix: str) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, over.set)
    store = EmbeddedStore(Path(directory))
    url = await store.start()
    tell(json.dumps({"pid": store.pid, "owner": store.owner, "url": url}))
    writers = [asyncio.create_task(write(url, f"{prefix}:{n}:")) for n in range(4)] if prefix else []
    await over.wait()
    for writer in writers:
        writer.cancel()
    if writers:
        await asyncio.wait(writers)
    await store.stop()
    tell("stopped")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
