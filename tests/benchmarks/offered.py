"""Notifications offered at fixed rates, from a tenth of the maximum to one and a half times the maximum.

Requests are sent when they are due, however long earlier answers take, and their times count from then. After a 503,
the connection is not used until `Retry-After` has passed, and the request is not repeated.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median

import uvloop

from tests.benchmarks import load, mail
from tests.benchmarks.chart import Panel, draw
from tests.benchmarks.ingest import Rate, Stand, check, measured, stand

PARTS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5)
"""Of the most that the service takes in a closed loop."""
BEYOND = (1.2, 1.5, 3.0)
"""Of the same; `python -m tests.faults overload` offers ten times as much."""
CROWD = 900
"""Connections of a closed loop; the service takes 1000 by default."""
MOST_LINES = 8_000
"""Connections; so many may rest at once."""


@dataclass(frozen=True, slots=True)
class Row:
    """One rate, or the medians of several rounds at it. Rates are per second, times ms; None where there is nothing."""

    offered: float
    believed: float
    believed_p99: float | None
    shed: float
    shed_p99: float | None
    set: float
    set_p99: float | None


def offered(seconds: float, rounds: int, chart: Path | None = None) -> None:
    """Answers per second and their p99 against what is offered, for the service and for R."""
    _allow_files()
    with stand(connections=MOST_LINES + 100) as at:
        numbers = iter(range(0, 10**9, 10**6))

        def signed(much: float) -> Iterator[bytes]:
            return iter(mail.sign_many(at.at, next(numbers), int(much) + 100))

        measured(at.service, signed(6_000 * seconds / 2), seconds / 2)
        most = measured(at.service, signed(6_000 * seconds), seconds).per_second
        print(f"at most {most:.0f}/s", flush=True)
        turns = []
        for number in range(rounds):
            print(f"round {number + 1} ...", flush=True)
            turns.append([_row(at, signed, seconds, most * part) for part in PARTS])
    rows = [_medians(column) for column in zip(*turns, strict=True)]
    print(table(rows, most))
    if chart:
        note = (
            f"medians of {rounds} rounds of {seconds:g} s; the service on one core, its store and the load on the other"
        )
        chart.write_text(picture(rows, most, note))
        print(f"drawn in {chart}")


def goodput(seconds: float, rounds: int) -> None:
    """What is still believed beyond the limit, relative to the most; and by many connections in a closed loop.

    `busy` is the service's own share of a core: if it is low, the load or the store was the limit.
    """
    _allow_files()
    with stand(connections=MOST_LINES + 100) as at:
        numbers = iter(range(0, 10**9, 10**6))

        def signed(much: float) -> Iterator[bytes]:
            return iter(mail.sign_many(at.at, next(numbers), int(much) + 100))

        def good(run: Callable[[], load.Result], most: Rate) -> tuple[float, float]:
            before = at.service.cpu()
            result = run()
            busy = (at.service.cpu() - before) / result.seconds
            return result.statuses[200] / result.seconds / most.per_second, busy

        measured(at.service, signed(6_000 * seconds / 2), seconds / 2)
        found: dict[str, list[tuple[float, float]]] = {}
        for number in range(rounds):
            most = measured(at.service, signed(6_000 * seconds), seconds)
            runs = {f"{part:g} times": partial(_open, at, most.per_second * part, seconds, signed) for part in BEYOND}
            runs[f"{CROWD} connections"] = partial(_crowd, at, seconds, signed)
            for name, run in runs.items():
                found.setdefault(name, []).append(good(run, most))
            said = ", ".join(f"{name} {each[-1][0]:.2f} (busy {each[-1][1]:.2f})" for name, each in found.items())
            print(f"round {number + 1}: at most {most}; {said}", flush=True)
    medians = (f"{name} {median(rate for rate, _ in values):.2f}" for name, values in found.items())
    print(f"goodput: {', '.join(medians)} (medians)")


def _crowd(at: Stand, seconds: float, signed: Callable[[float], Iterator[bytes]]) -> load.Result:
    return uvloop.run(load.closed(at.service.port, signed(6_000 * seconds), seconds, CROWD))


def _open(at: Stand, rate: float, seconds: float, signed: Callable[[float], Iterator[bytes]]) -> load.Result:
    """An open loop over so many connections that each could rest for 2 s after each answer, and that none is idle for
    so long that it is closed. Raises `SystemExit` unless every answer is 200 or 503."""
    lines = max(64, min(int(2 * rate), MOST_LINES))
    result = uvloop.run(load.opened(at.service.port, signed(rate * seconds), seconds, rate, lines, heed=True))
    if not set(result.statuses) <= {200, 503}:
        raise SystemExit(f"Expected 200 and 503 alone, got {dict(result.statuses)}.")
    return result


def _allow_files() -> None:
    """A connection is a file here, and one in the service, which inherits the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MOST_LINES + 500
    if most != resource.RLIM_INFINITY and most < needed:
        raise SystemExit(f"{needed} open files are needed, and {most} allowed: raise the hard limit of `ulimit -n`.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def _row(at: Stand, signed: Callable[[float], Iterator[bytes]], seconds: float, rate: float) -> Row:
    sample = cycle([mail.post(mail.signer(at.at), at.at, 1, 10**9)])
    # R takes no more than 100 at once, as many as its client of Redis has connections: here what is over 64 waits.
    r = uvloop.run(load.opened(at.set.port, sample, seconds, rate))
    check(r, 200)
    s = _open(at, rate, seconds, signed)
    return Row(
        offered=rate,
        believed=s.statuses[200] / s.seconds,
        believed_p99=_p99(s, 200),
        shed=s.statuses[503] / s.seconds,
        shed_p99=_p99(s, 503),
        set=r.per_second,
        set_p99=_p99(r, 200),
    )


def _p99(result: load.Result, status: int) -> float | None:
    return result.quantile(0.99, status) if result.statuses[status] else None


def _medians(rows: tuple[Row, ...]) -> Row:
    def middle(values: list[float | None]) -> float | None:
        there = [each for each in values if each is not None]
        return median(there) if there else None

    return Row(
        offered=rows[0].offered,
        believed=median(row.believed for row in rows),
        believed_p99=middle([row.believed_p99 for row in rows]),
        shed=median(row.shed for row in rows),
        shed_p99=middle([row.shed_p99 for row in rows]),
        set=median(row.set for row in rows),
        set_p99=middle([row.set_p99 for row in rows]),
    )


def table(rows: list[Row], most: float) -> str:
    """Rates per second, times in ms; the percentage is of the most."""
    lines = ["    %  offered/s | believed/s  p99 ms |  shed/s  p99 ms |     R/s  p99 ms"]
    for row in rows:
        believed, shed, r = (
            f"{rate:{width}.0f} {'-' if p99 is None else f'{p99:.1f}':>7}"
            for rate, p99, width in (
                (row.believed, row.believed_p99, 10),
                (row.shed, row.shed_p99, 7),
                (row.set, row.set_p99, 7),
            )
        )
        lines.append(f"{row.offered / most:5.0%} {row.offered:10.0f} | {believed} | {shed} | {r}")
    return "\n".join(lines)


def picture(rows: list[Row], most: float, note: str) -> str:
    """The same as a chart."""
    rates = {
        "believed and on disk": [(row.offered, row.believed) for row in rows],
        "shed with 503": [(row.offered, row.shed) for row in rows if row.shed_p99 is not None],
        "R: one SET": [(row.offered, row.set) for row in rows],
    }
    times = {
        "believed and on disk": [(row.offered, row.believed_p99) for row in rows],
        "shed with 503": [(row.offered, row.shed_p99) for row in rows],
        "R: one SET": [(row.offered, row.set_p99) for row in rows],
    }
    return draw(
        "Notifications offered, and what becomes of them",
        note,
        "offered, notifications per second",
        [
            Panel("answers per second", rates),
            Panel("p99 of the answer, ms", {name: _there(points) for name, points in times.items()}, log=True),
        ],
        (most, "the most in a closed loop"),
    )


def _there(points: list[tuple[float, float | None]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None]
