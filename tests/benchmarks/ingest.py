"""Notifications: believed per second, refused per second, and how long an answer takes at half of the most."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median

import uvloop

from tests.benchmarks import load, mail
from tests.benchmarks.machine import baseline, configuration, cores, free_port, receiver, resident_mib, started, valkey
from tests.benchmarks.node_receiver import INSTALL, missing, node_receiver, ran_by


@dataclass(frozen=True, slots=True)
class Stand:
    """The service and both baselines, listening. `core` is theirs; `url` and `folder` are the store's; `at` is ms."""

    service: int
    bare: int
    set: int
    pid: int
    at: int
    core: Collection[int]
    url: str
    folder: Path


@contextmanager
def stand(*more: str, connections: int = 0) -> Iterator[Stand]:
    """Everything started; the load's own process stays on the other core. `connections`: see `configuration`."""
    measured, rest = cores()
    at = mail.now()
    sns = mail.signer(at)
    ports = [free_port() for _ in range(3)]
    with ExitStack() as stack:
        url, folder = stack.enter_context(valkey(rest))
        config = configuration(folder, url, ports[0], sns, *more, connections=connections)
        run = receiver("serve", "--config", str(config), "--no-worker")
        process = stack.enter_context(started(run, ports[0], folder / "service.log", measured))
        stack.enter_context(started(baseline("bare", str(ports[1])), ports[1], folder / "bare.log", measured))
        stack.enter_context(started(baseline("set", str(ports[2]), url), ports[2], folder / "set.log", measured))
        os.sched_setaffinity(0, rest)
        yield Stand(ports[0], ports[1], ports[2], process.pid, at, measured, url, folder)


def measured(port: int, requests: Iterator[bytes], seconds: float, expected: int = 200) -> float:
    """Answers per second in a closed loop. Raises `SystemExit` unless every answer has the status."""
    result = uvloop.run(load.closed(port, requests, seconds))
    check(result, expected)
    return result.per_second


def check(result: load.Result, expected: int) -> None:
    """A benchmark of errors measures nothing."""
    if set(result.statuses) != {expected}:
        raise SystemExit(f"Expected {expected} alone, got {dict(result.statuses)}.")


def believed(seconds: float, rounds: int) -> None:
    """Believed and durably written notifications, against B, R and, where it is installed, N of the same rounds."""
    with stand() as at, ExitStack() as stack:
        sns, node = mail.signer(at.at), None
        if lacking := missing():
            print(f"N is left out: {lacking}. This installs it: {INSTALL}", flush=True)
        else:
            node = stack.enter_context(node_receiver(at.url, at.folder, at.core, sns))
            print(f"N is {ran_by()}; it believes what is true and refuses what is forged", flush=True)
        guess = 3_000
        print(f"signing {int(guess * seconds * (rounds + 2))} notifications ...", flush=True)
        posts = iter(mail.sign_many(at.at, 0, int(guess * seconds * (rounds + 2))))
        sample = cycle([mail.post(sns, at.at, 1, 10**9)])
        # N keeps nothing but the certificate: these need not be distinct for ever.
        distinct = cycle(mail.sign_many(at.at, 2 * 10**8, 2_000)) if node else sample
        measured(at.service, posts, seconds / 2)
        if node:
            measured(node, distinct, seconds / 2)
        rows = []
        for number in range(rounds):
            rates = {"B": measured(at.bare, sample, seconds), "R": measured(at.set, sample, seconds)}
            if node:
                rates["N"] = measured(node, distinct, seconds)
            s = measured(at.service, posts, seconds)
            rows.append({name: s / rate for name, rate in rates.items()})
            found = ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items())
            print(f"round {number + 1}: {found}, believed {s:.0f}/s = {_ratios(rows[-1])}", flush=True)
        print(f"believed: {_ratios({name: median(row[name] for row in rows) for name in rows[0]})} (medians)")
        print(f"resident memory of the service: {resident_mib(at.pid):.0f} MiB")


def _ratios(row: dict[str, float]) -> str:
    return ", ".join(f"{ratio:.2f} {name}" for name, ratio in row.items())


def refused(seconds: float, rounds: int) -> None:
    """Refused notifications, against B of the same rounds."""
    with stand() as at:
        sns = mail.signer(at.at)
        topic = cycle([mail.wrong_topic(sns, at.at)])
        forged = cycle([mail.wrong_signature(sns, at.at, number) for number in range(500)])
        sample = cycle([mail.post(sns, at.at, 1, 1)])
        rows = []
        for number in range(rounds):
            b = measured(at.bare, sample, seconds)
            t, f = measured(at.service, topic, seconds, 403), measured(at.service, forged, seconds, 403)
            rows.append((t / b, f / b))
            print(f"round {number + 1}: B {b:.0f}/s, wrong topic {t / b:.2f} B, wrong signature {f / b:.2f} B")
        topics, signatures = median(row[0] for row in rows), median(row[1] for row in rows)
        print(f"refused: wrong topic {topics:.2f} B, wrong signature {signatures:.2f} B (medians)")


def latency(seconds: float, rounds: int) -> None:
    """The answer's time in an open loop at half of the most, against R's at the same rate."""
    with stand() as at:
        most_posts = iter(mail.sign_many(at.at, 0, int(3_000 * seconds)))
        rate = measured(at.service, most_posts, seconds) / 2
        posts = iter(mail.sign_many(at.at, 10**8, int(rate * seconds * rounds) + 100))
        sample = cycle([mail.post(mail.signer(at.at), at.at, 1, 10**9)])
        rows = []
        for number in range(rounds):
            r = uvloop.run(load.opened(at.set, sample, seconds, rate))
            s = uvloop.run(load.opened(at.service, posts, seconds, rate))
            check(r, 200)
            check(s, 200)
            rows.append(s.quantile(0.99) / r.quantile(0.99))
            print(
                f"round {number + 1} at {rate:.0f}/s: p50 {s.quantile(0.5):.2f} ms, p99 {s.quantile(0.99):.2f} ms; "
                f"R p50 {r.quantile(0.5):.2f} ms, p99 {r.quantile(0.99):.2f} ms"
            )
        print(f"p99 of the answer at half of the most: {median(rows):.2f} × R's")
