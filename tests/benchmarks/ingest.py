"""Notifications: believed per second, refused per second, and how long an answer takes at half of the most."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from statistics import median

import uvloop

from tests.benchmarks import load, mail
from tests.benchmarks.machine import baseline, configuration, cores, free_port, receiver, resident_mib, started, valkey


@dataclass(frozen=True, slots=True)
class Stand:
    """The service and both baselines, listening."""

    service: int
    bare: int
    set: int
    pid: int
    at: int


@contextmanager
def stand(*more: str) -> Iterator[Stand]:
    """Everything started; the load's own process stays on the other core."""
    measured, rest = cores()
    at = mail.now()
    sns = mail.signer(at)
    ports = [free_port() for _ in range(3)]
    with ExitStack() as stack:
        url, folder = stack.enter_context(valkey(rest))
        config = configuration(folder, url, ports[0], sns, *more)
        run = receiver("serve", "--config", str(config), "--no-worker")
        process = stack.enter_context(started(run, ports[0], folder / "service.log", measured))
        stack.enter_context(started(baseline("bare", str(ports[1])), ports[1], folder / "bare.log", measured))
        stack.enter_context(started(baseline("set", str(ports[2]), url), ports[2], folder / "set.log", measured))
        os.sched_setaffinity(0, rest)
        yield Stand(ports[0], ports[1], ports[2], process.pid, at)


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
    """Believed and durably written notifications, against B and R of the same rounds."""
    with stand() as at:
        guess = 3_000
        print(f"signing {int(guess * seconds * (rounds + 2))} notifications ...", flush=True)
        posts = iter(mail.sign_many(at.at, 0, int(guess * seconds * (rounds + 2))))
        sample = cycle([mail.post(mail.signer(at.at), at.at, 1, 10**9)])
        measured(at.service, posts, seconds / 2)
        rows = []
        for number in range(rounds):
            b, r = measured(at.bare, sample, seconds), measured(at.set, sample, seconds)
            s = measured(at.service, posts, seconds)
            rows.append((s / b, s / r))
            print(f"round {number + 1}: B {b:.0f}/s, R {r:.0f}/s, believed {s:.0f}/s = {s / b:.2f} B, {s / r:.2f} R")
        print(f"believed: {median(row[0] for row in rows):.2f} B, {median(row[1] for row in rows):.2f} R (medians)")
        print(f"resident memory of the service: {resident_mib(at.pid):.0f} MiB")


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
