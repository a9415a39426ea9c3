"""State: reads per second, memory for each refund, many against few, and how soon the service is ready."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from itertools import cycle
from multiprocessing import get_context
from random import Random
from statistics import median
from time import perf_counter
from typing import Any

import uvloop

from receiver.ledger.lifecycle import Details
from receiver.ledger.query import Query
from receiver.ledger.refund import Source
from receiver.store import Store
from receiver.store.redis.pipeline import connect
from receiver.track.record import Recorder
from tests.benchmarks import load, mail
from tests.benchmarks.ingest import measured, ratios, stand
from tests.benchmarks.machine import (
    PROJECT,
    TOKEN,
    Listening,
    configuration,
    cores,
    free_port,
    receiver,
    resident_mib,
    started,
    valkey,
)
from tests.kit.accounts import make_account
from tests.kit.processes import until

FACTS: Details = {"charge_read": True, "retryable": "no"}
AUTHORIZED = f"Authorization: Bearer {TOKEN}"
FEW = 1_000
"""What many refunds are compared against."""
REWRITE = 300.0
"""Seconds within which the store rewrites its file."""


async def fill(store: Store, first: int, much: int, at_once: int = 64) -> None:
    """This many refunds, from RefundInitiated to Refunded, recorded in the way in which Amazon's answers are."""
    recorder, account = Recorder(store, lambda: 0.5), make_account()

    async def one(number: int) -> None:
        for state in ("RefundInitiated", "Refunded"):
            await recorder.record(account, mail.found(state, number), source=Source.POLL, details=FACTS)

    for start in range(first, first + much, at_once):
        await asyncio.gather(*(one(number) for number in range(start, min(start + at_once, first + much))))


def reads(seconds: float, rounds: int) -> None:
    """`GET /v1/refunds/{id}` per second, against B."""
    with stand() as at:
        uvloop.run(_filled(at.url, 0, 1_000))
        chosen = [
            load.request(f"/v1/refunds/{mail.refund_id(number)}", b"", AUTHORIZED, method="GET")
            for number in range(1_000)
        ]
        bare = cycle([load.request("/x", b"", AUTHORIZED, method="GET")])
        rows = []
        for number in range(rounds):
            b, s = measured(at.bare, bare, seconds), measured(at.service, cycle(chosen), seconds)
            rows.append({"B": s.against(b)})
            print(f"round {number + 1}: B {b}, reads {s} = {ratios(rows[-1:])}", flush=True)
        print(f"reads: {ratios(rows)} (medians)")


async def _filled(url: str, first: int, much: int, at_once: int = 64) -> None:
    store = Store(connect(url))
    await store.start()
    await fill(store, first, much, at_once)
    await store.close()


def _fill_part(url: str, first: int, much: int) -> int:
    uvloop.run(_filled(url, first, much, at_once=512))
    return much


async def _set(url: str, name: str, value: str) -> None:
    client = connect(url)
    await client.config_set(name, value)
    await client.aclose()


def fill_fast(url: str, refunds: int) -> None:
    """Like `fill`, with a process for each core and a sync each second. Prints its progress after each tenth."""
    step, done, began = -(-refunds // 20), 0, perf_counter()
    uvloop.run(_set(url, "appendfsync", "everysec"))
    firsts = range(0, refunds, step)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("fork")) as pool:
        parts = [pool.submit(_fill_part, url, first, min(step, refunds - first)) for first in firsts]
        try:
            for number, part in enumerate(as_completed(parts), 1):
                done += part.result()
                if number % 2 == 0 or done == refunds:
                    print(f"{done} refunds after {perf_counter() - began:.0f} s", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    uvloop.run(_set(url, "appendfsync", "always"))
    print(f"filled at {refunds * 2 / (perf_counter() - began):.0f} revisions a second, by all cores", flush=True)


def memory(seconds: float, rounds: int, refunds: int = 200_000) -> None:
    """Bytes in the store for each final refund, with its history and its two events; then a store with many against one
    with few."""
    del seconds
    _, rest = cores()
    with ExitStack() as stack:
        url, _ = stack.enter_context(valkey(rest))
        few_url, _ = stack.enter_context(valkey(rest))
        uvloop.run(_filled(few_url, 0, FEW))
        uvloop.run(_filled(url, 0, 0))
        empty = uvloop.run(_quiet(url))["used_memory"]
        fill_fast(url, refunds)
        found = uvloop.run(_quiet(url))
        per_refund = (found["used_memory"] - empty) / refunds
        name = "Valkey" if found.get("server_name") == "valkey" else "Redis"
        version = found.get("valkey_version", found["redis_version"])
        print(f"{per_refund:.0f} bytes for each refund: {refunds} refunds, {name} {version}", flush=True)
        uvloop.run(_compared(url, few_url, refunds, rounds))


async def _quiet(url: str) -> dict[str, Any]:
    """The store's own figures, once it is not rewriting its file."""
    client = connect(url)

    async def written() -> bool:
        found = await client.info("persistence")
        return not found["aof_rewrite_in_progress"] and not found["aof_rewrite_scheduled"]

    await until(written, "the store's file is written anew", REWRITE)
    found: dict[str, Any] = await client.info()
    await client.aclose()
    return found


async def _compared(url: str, few_url: str, refunds: int, rounds: int) -> None:
    store, few = Store(connect(url)), Store(connect(few_url))
    await store.start()
    await few.start()
    of_few = _questions(FEW)
    for what, ask in _questions(refunds).items():
        ratios = []
        for _ in range(rounds):
            ratios.append(await _timed(store, ask) / await _timed(few, of_few[what]))
        print(f"{what}: {median(ratios):.2f} × the time with {FEW:,} refunds (median)", flush=True)
    await store.close()
    await few.close()


def _questions(refunds: int) -> dict[str, Any]:
    random = Random(1)

    async def read(store: Store) -> None:
        await store.of("us").refunds.get(mail.refund_id(random.randrange(refunds)))

    async def page(store: Store) -> None:
        await store.of("us").refunds.page(Query())

    async def claim(store: Store) -> None:
        await store.of("us").schedule.claim("get_refund", lease=1, burst=1e6, per_second=1e6, limit=8)

    return {"a refund read": read, "a page of the list": page, "a claim": claim}


async def _timed(store: Store, ask: Any) -> float:
    for _ in range(50):
        await ask(store)
    took = []
    for _ in range(300):
        began = perf_counter()
        await ask(store)
        took.append(perf_counter() - began)
    return median(took)


def resident(seconds: float, rounds: int, notifications: int = 100_000) -> None:
    """Resident memory of `serve` without its store, after 100,000 notifications."""
    del seconds
    with stand() as at:
        step = notifications // 10
        print(f"at the start: {resident_mib(at.service.pid):.0f} MiB")
        for part in range(10):
            posts = iter(mail.sign_many(at.at, part * step, step))
            uvloop.run(load.closed(at.service.port, posts, 3_600))
            if part in (0, 4, 9):
                print(f"after {(part + 1) * step} notifications: {resident_mib(at.service.pid):.0f} MiB", flush=True)
    del rounds


def start(seconds: float, rounds: int) -> None:
    """From the command to `/readyz`, on an empty store; and `receiver --help`."""
    del seconds
    measured_on, rest = cores()
    took, cpu = list[float](), list[float]()
    for number in range(rounds + 1):
        with ExitStack() as stack:
            url, folder = stack.enter_context(valkey(rest))
            web = free_port()
            config = configuration(folder, url, web, mail.signer(mail.now()))
            began = time.monotonic()
            run = receiver("serve", "--config", str(config))
            service = stack.enter_context(started(run, web, folder / "service.log", measured_on))
            os.sched_setaffinity(0, rest)
            while not _ready(web):
                time.sleep(0.005)
            if number:
                took.append(time.monotonic() - began)
                cpu.append(Listening(web, service.pid).cpu())
    print(f"ready after {median(took):.2f} s, {median(cpu):.2f} s of CPU (medians)")
    helped = [_help() for _ in range(rounds + 1)][1:]
    print(f"receiver --help: {median(helped):.2f} s of CPU (median)")


def _help() -> float:
    """Seconds of CPU for `receiver --help`."""
    before = os.times()
    subprocess.run(receiver("--help"), cwd=PROJECT, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _ready(port: int) -> bool:
    ask = iter([load.request("/readyz", b"", method="GET")])
    return set(uvloop.run(load.closed(port, ask, 0.01, lines=1)).statuses) == {200}
