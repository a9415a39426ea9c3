"""Notifications: believed per second, refused per second, and how long an answer takes at half of the most."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import NamedTuple

import uvloop

from tests.benchmarks import load, mail
from tests.benchmarks.machine import (
    Listening,
    baseline,
    configuration,
    cores,
    free_port,
    receiver,
    resident_mib,
    started,
    valkey,
)
from tests.benchmarks.node_receiver import INSTALL, missing, node_receiver, ran_by


@dataclass(frozen=True, slots=True)
class Stand:
    """The service and both baselines, listening. `core` is theirs; `url` and `folder` are the store's; `at` is ms."""

    service: Listening
    bare: Listening
    set: Listening
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
        commands = {"service": run, "bare": baseline("bare", str(ports[1])), "set": baseline("set", str(ports[2]), url)}
        service, bare, one_set = [
            Listening(port, stack.enter_context(started(command, port, folder / f"{name}.log", measured)).pid)
            for port, (name, command) in zip(ports, commands.items(), strict=True)
        ]
        os.sched_setaffinity(0, rest)
        yield Stand(service, bare, one_set, at, measured, url, folder)


class Ratio(NamedTuple):
    """How two rates compare: answers per second, and CPU per answer."""

    rate: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Rate:
    """The result of one measurement. CPU is that of the answering process: on a shared machine it varies less than a
    rate."""

    per_second: float
    micros: float
    """CPU per answer, µs, user and system."""

    def against(self, other: Rate) -> Ratio:
        """This rate relative to another."""
        return Ratio(self.per_second / other.per_second, self.micros / other.micros)

    def __str__(self) -> str:
        return f"{self.per_second:.0f}/s at {self.micros:.0f} µs"


def measured(of: Listening, requests: Iterator[bytes], seconds: float, expected: int = 200) -> Rate:
    """Answers in a closed loop. Raises `SystemExit` unless every answer has the status."""
    before = of.cpu()
    result = uvloop.run(load.closed(of.port, requests, seconds))
    check(result, expected)
    return Rate(result.per_second, (of.cpu() - before) / len(result.times) * 1e6)


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
        first = measured(at.service, iter(mail.sign_many(at.at, 10**8, int(5_000 * seconds / 2))), seconds / 2)
        needed = int(first.per_second * 1.5 * seconds * rounds)
        print(f"signing {needed} notifications ...", flush=True)
        posts = iter(mail.sign_many(at.at, 0, needed))
        sample = cycle([mail.post(sns, at.at, 1, 10**9)])
        # N keeps nothing but the certificate: these need not be distinct for ever.
        distinct = cycle(mail.sign_many(at.at, 2 * 10**8, 2_000)) if node else sample
        if node:
            measured(node, distinct, seconds / 2)
        rows = []
        for number in range(rounds):
            rates = {"B": measured(at.bare, sample, seconds), "R": measured(at.set, sample, seconds)}
            if node:
                rates["N"] = measured(node, distinct, seconds)
            s = measured(at.service, posts, seconds)
            rows.append({name: s.against(rate) for name, rate in rates.items()})
            found = ", ".join(f"{name} {rate}" for name, rate in rates.items())
            print(f"round {number + 1}: {found}, believed {s} = {ratios(rows[-1:])}", flush=True)
        print(f"believed: {ratios(rows)} (medians)")
        print(f"resident memory of the service: {resident_mib(at.service.pid):.0f} MiB")


def ratios(rows: Sequence[Mapping[str, Ratio]]) -> str:
    """The median of each ratio; CPU only where it says something about our own work."""
    rates = ", ".join(f"{median(row[name].rate for row in rows):.2f} {name}" for name in rows[0])
    return f"{rates}, CPU {median(row['B'].cpu for row in rows):.2f} of B's"


def refused(seconds: float, rounds: int) -> None:
    """Refused notifications, against B of the same rounds."""
    with stand() as at:
        sns = mail.signer(at.at)
        topic = cycle([mail.wrong_topic(sns, at.at)])
        forged = cycle([mail.wrong_signature(sns, at.at, number) for number in range(500)])
        sample = cycle([mail.post(sns, at.at, 1, 1)])
        kinds = {"wrong topic": topic, "wrong signature": forged}
        rows: dict[str, list[dict[str, Ratio]]] = {name: [] for name in kinds}
        for number in range(rounds):
            b, said = measured(at.bare, sample, seconds), []
            for name, posts in kinds.items():
                found = measured(at.service, posts, seconds, 403)
                rows[name].append({"B": found.against(b)})
                said.append(f"{name} {found} = {ratios(rows[name][-1:])}")
            print(f"round {number + 1}: B {b}, {', '.join(said)}", flush=True)
        for name, each in rows.items():
            print(f"refused: {name} {ratios(each)} (medians)")


def latency(seconds: float, rounds: int) -> None:
    """The answer's time in an open loop at half of the most, against R's at the same rate."""
    with stand() as at:
        most_posts = iter(mail.sign_many(at.at, 0, int(6_000 * seconds)))
        rate = measured(at.service, most_posts, seconds).per_second / 2
        posts = iter(mail.sign_many(at.at, 10**8, int(rate * seconds * rounds) + 100))
        sample = cycle([mail.post(mail.signer(at.at), at.at, 1, 10**9)])
        rows = []
        for number in range(rounds):
            r = uvloop.run(load.opened(at.set.port, sample, seconds, rate))
            s = uvloop.run(load.opened(at.service.port, posts, seconds, rate))
            check(r, 200)
            check(s, 200)
            rows.append(s.quantile(0.99) / r.quantile(0.99))
            print(
                f"round {number + 1} at {rate:.0f}/s: p50 {s.quantile(0.5):.2f} ms, p99 {s.quantile(0.99):.2f} ms; "
                f"R p50 {r.quantile(0.5):.2f} ms, p99 {r.quantile(0.99):.2f} ms"
            )
        print(f"p99 of the answer at half of the most: {median(rows):.2f} × R's")
