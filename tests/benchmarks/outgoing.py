"""Events: delivered per second, and how long from a notification of a decline to the webhook."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import ExitStack
from itertools import count
from statistics import median
from time import perf_counter

import uvloop

from receiver.ledger.lifecycle import Details
from receiver.ledger.refund import Source
from receiver.store import Store
from receiver.store.redis.pipeline import connect
from receiver.track.record import Recorder
from tests.benchmarks import load, mail
from tests.benchmarks.machine import Listening, baseline, configuration, cores, free_port, receiver, started, valkey
from tests.benchmarks.plain import NOTHING, plain, text
from tests.kit.accounts import make_account
from tests.kit.processes import until
from tests.store.makers import SECRET

LANES = 8
FACTS: Details = {"charge_read": True, "retryable": "no"}
DELIVERY = '[delivery]\nallow_http = true\nallow_networks = ["127.0.0.0/8"]\nrate = 1000'
RAISED = "[accounts.throttle]\n" + "\n".join(f"{call} = [1000, 1000]" for call in ("get_refund", "get_charge"))


def subscriber(name: str, port: int) -> str:
    """A subscriber of this machine, as a table of the configuration."""
    return f'[[subscribers]]\nname = "{name}"\nurl = "http://127.0.0.1:{port}/{name}"\nsecret = "{SECRET}"'


def deliveries(seconds: float, rounds: int) -> None:
    """Events delivered per second by one core, against a loop of aiohttp that posts the same bodies."""
    uvloop.run(_deliveries(seconds, rounds))


async def _deliveries(seconds: float, rounds: int) -> None:
    measured, rest = cores()
    times: list[float] = []
    sample = b""

    def took(_: bytes, body: bytes) -> bytes:
        nonlocal sample
        times.append(perf_counter())
        sample = body
        return NOTHING

    with ExitStack() as stack:
        url, folder = stack.enter_context(valkey(rest))
        async with plain(took) as port:
            queues = [subscriber(f"lane-{number}", port) for number in range(LANES)]
            web = free_port()
            config = configuration(folder, url, web, mail.signer(mail.now()), *queues, DELIVERY)
            serve = receiver("serve", "--no-worker", "--config", str(config))
            stack.enter_context(started(serve, web, folder / "service.log", rest))
            os.sched_setaffinity(0, rest)
            store = Store(connect(url))
            await store.start()
            await until(lambda: _written(store), "the subscribers are written")
            numbers, rows, costs = count(), list[float](), list[float]()
            each = int(700 * seconds / LANES)
            for number in range(rounds + 1):
                await _commit(store, numbers, each)
                times.clear()
                work = await asyncio.create_subprocess_exec(
                    *("taskset", "-c", ",".join(map(str, measured))),
                    *receiver("work", "--config", str(config)),
                    stderr=asyncio.subprocess.DEVNULL,
                )
                cost = await _cost(Listening(web, work.pid), times, each * LANES)
                ours = len(times) / (times[-1] - times[0])
                work.terminate()
                await work.wait()
                times.clear()
                (folder / "body").write_bytes(sample)
                post = baseline("post", str(port), str(folder / "body"), str(seconds))
                bare = await asyncio.create_subprocess_exec("taskset", "-c", ",".join(map(str, measured)), *post)
                bare_cost = await _cost(Listening(port, bare.pid), times, each * LANES // 2)
                await bare.wait()
                loop = len(times) / (times[-1] - times[0])
                if number:  # the first is for warming up
                    rows.append(ours / loop)
                    costs.append(cost / bare_cost)
                    print(
                        f"round {number}: {ours:.0f}/s at {cost:.0f} µs, a bare loop {loop:.0f}/s at {bare_cost:.0f} µs"
                        f" = {rows[-1]:.2f}, CPU {costs[-1]:.1f}",
                        flush=True,
                    )
            print(f"deliveries: {median(rows):.2f} × a bare loop of aiohttp, CPU {median(costs):.1f} of its (medians)")
            await store.close()


async def _cost(of: Listening, times: list[float], count: int) -> float:
    """CPU for each delivery from the first one to this many, µs."""
    await until(lambda: bool(times), "something is delivered", 30)
    before, first = of.cpu(), len(times)
    await until(lambda: len(times) >= count, "everything is delivered", 120)
    return (of.cpu() - before) / (len(times) - first) * 1e6


async def _written(store: Store) -> bool:
    return len((await store.of("us").subscribers.read()).subscribers) > 0


async def _commit(store: Store, numbers: count[int], much: int) -> None:
    recorder, account = Recorder(store, lambda: 0.0), make_account()

    async def one() -> None:
        seen_now = mail.found("Declined", next(numbers), "AmazonRejected")
        await recorder.record(account, seen_now, source=Source.POLL, details=FACTS)

    for start in range(0, much, 32):
        await asyncio.gather(*(one() for _ in range(min(32, much - start))))


def alert(seconds: float, rounds: int, rate: float = 50.0) -> None:
    """From a notification of a decline to the webhook, at 50 a second: p50 and p99."""
    uvloop.run(_alert(seconds * 2, rounds, rate))


async def _alert(seconds: float, rounds: int, rate: float) -> None:
    measured, rest = cores()
    arrived: dict[str, float] = {}

    def amazon(head: bytes, _: bytes) -> bytes:
        path = head.split(b" ", 2)[1].decode()
        named = path.rpartition("/")[2]
        return text(json.dumps(_charge(named) if "/charges/" in path else _declined(named)).encode())

    def hook(_: bytes, body: bytes) -> bytes:
        event = json.loads(body)
        if event["type"].endswith(".declined"):
            arrived.setdefault(event["data"]["refundId"], perf_counter())
        return NOTHING

    with ExitStack() as stack:
        url, folder = stack.enter_context(valkey(rest))
        async with plain(amazon) as shop, plain(hook) as port:
            at = mail.now()
            web = free_port()
            sns = mail.signer(at)
            more = (RAISED, subscriber("alerts", port), DELIVERY)
            config = configuration(folder, url, web, sns, *more, endpoint=f"http://127.0.0.1:{shop}")
            run = receiver("serve", "--config", str(config))
            stack.enter_context(started(run, web, folder / "service.log", measured))
            os.sched_setaffinity(0, rest)
            found = []
            for turn in range(rounds + 1):
                many = int(seconds * rate)
                posts = mail.sign_many(at, turn * many, many)
                began: dict[str, float] = {}
                due = iter(posts)
                first = perf_counter() + 0.05
                ids = [mail.refund_id(number) for number in range(turn * many, (turn + 1) * many)]
                began = {refund_id: first + number / rate for number, refund_id in enumerate(ids)}
                await asyncio.sleep(max(first - perf_counter(), 0))
                await load.opened(web, due, seconds, rate)
                await until(lambda ids=ids: all(each in arrived for each in ids), "all webhooks", 60)
                took = sorted((arrived[each] - began[each]) * 1000 for each in ids)
                p50, p99 = took[len(took) // 2], took[int(0.99 * len(took))]
                if turn:  # the first is for warming up
                    found.append((p50, p99))
                    print(f"round {turn} at {rate:.0f}/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True)
            p50, p99 = (median(pair[part] for pair in found) for part in (0, 1))
            print(f"notification of a decline to webhook: p50 {p50:.1f} ms, p99 {p99:.1f} ms (medians)")


def _declined(refund_id: str) -> dict[str, object]:
    return {
        "refundId": refund_id,
        "chargeId": mail.charge_of(refund_id),
        "refundAmount": {"amount": "14.00", "currencyCode": "USD"},
        "creationTimestamp": "20250901T120000Z",
        "statusDetails": {
            "state": "Declined",
            "reasonCode": "AmazonRejected",
            "reasonDescription": None,
            "lastUpdatedTimestamp": "20250901T120100Z",
        },
        "releaseEnvironment": "Sandbox",
    }


def _charge(charge_id: str) -> dict[str, object]:
    return {
        "chargeId": charge_id,
        "chargeAmount": {"amount": "14.00", "currencyCode": "USD"},
        "captureAmount": {"amount": "14.00", "currencyCode": "USD"},
        "refundedAmount": {"amount": "0.00", "currencyCode": "USD"},
        "merchantMetadata": {"merchantReferenceId": "order-1"},
        "statusDetails": {"state": "Captured", "lastUpdatedTimestamp": "20250901T110000Z"},
        "releaseEnvironment": "Sandbox",
    }
