"""What the service is measured against: the least that a Starlette application can do with the same request."""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import count
from pathlib import Path
from time import perf_counter

import aiohttp
import uvicorn
import uvloop
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


async def bare(request: Request) -> Response:
    """B: read the body, answer 200."""
    await request.body()
    return PlainTextResponse("")


def one_set(url: str) -> Starlette:
    """R: read the body, SET it under a new key, answer 200."""
    client, numbers = Redis.from_url(url), count()

    async def keep(request: Request) -> Response:
        await client.set(f"baseline:{next(numbers)}", await request.body(), px=60_000)
        return PlainTextResponse("")

    return Starlette(routes=[Route("/{path:path}", keep, methods=["GET", "POST"])])


async def post(port: str, body: bytes, seconds: float, lines: int = 64) -> None:
    """A loop that posts, and nothing else."""
    end = perf_counter() + seconds
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=lines)) as session:

        async def line() -> None:
            while perf_counter() < end:
                async with session.post(f"http://127.0.0.1:{port}/lane", data=body) as answer:
                    await answer.read()

        await asyncio.gather(*(line() for _ in range(lines)))


def main() -> None:
    """`python -m tests.benchmarks.baselines bare|set PORT [REDIS_URL]`, or `post PORT FILE SECONDS`."""
    kind, port, *rest = sys.argv[1:]
    if kind == "post":
        uvloop.run(post(port, Path(rest[0]).read_bytes(), float(rest[1])))
        return
    app = (
        one_set(rest[0]) if kind == "set" else Starlette(routes=[Route("/{path:path}", bare, methods=["GET", "POST"])])
    )
    uvicorn.run(app, host="127.0.0.1", port=int(port), access_log=False, log_level="warning", server_header=False)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
