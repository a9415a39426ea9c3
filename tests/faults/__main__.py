"""Random plans of faults for as long as you like: `python -m tests.faults --minutes 5`.

Each plan breaks several commands of one path. The seed is printed first; `--seed` repeats the same plans. Ends with
exit code 1 at the first plan after which something is lost, done twice or stuck, and says which. `kill` ends whole
processes instead, `overload` offers ten times what the machine takes, and `attacks` runs attacks by strangers and other
merchants.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import structlog

from tests.faults import attacks, overload
from tests.faults import kill as kills
from tests.faults.proxy import Fault
from tests.faults.stage import PATHS, House, house, walk
from tests.kit.valkey import start_valkey, stop_valkey

LONGEST = 60
"""Commands within which faults are drawn; a path has 10 to 40."""
MOST_FAULTS = 6


def drawn(chance: random.Random) -> dict[int, Fault]:
    """A plan."""
    numbers = chance.sample(range(1, LONGEST), chance.randint(1, MOST_FAULTS))
    return {number: chance.choice(list(Fault)) for number in sorted(numbers)}


async def everywhere(place: House, path: str, fault: Fault) -> int:
    """One fault at each command of the path in turn. Returns how often it happened."""
    number = fired = 0
    while True:
        number += 1
        proxy = await walk(place, path, {number: fault})
        fired += proxy.fired
        if number >= proxy.seen:
            print(f"{path}: {fault} at each of {number} commands", flush=True)
            return fired


async def run(minutes: float, seed: int, *, every: bool = False) -> int:
    """The exit code."""
    chance, walked, fired = random.Random(seed), Counter[str](), 0
    folder = Path(tempfile.mkdtemp(prefix="rf-"))
    process, url = start_valkey(folder)
    end = time.monotonic() + minutes * 60
    try:
        async with house(url, folder) as place:
            for path in PATHS:
                clean = await walk(place, path, {})
                print(f"{path}: {clean.seen} commands")
                for fault in Fault if every else ():
                    fired += await everywhere(place, path, fault)
            while time.monotonic() < end and not every:
                path, plan = chance.choice(PATHS), drawn(chance)
                fired += (await walk(place, path, plan)).fired
                walked[path] += 1
    except AssertionError as error:
        print(f"seed {seed}, plan {walked.total() + 1}: {error}")
        return 1
    finally:
        stop_valkey(process)
        shutil.rmtree(folder, ignore_errors=True)
    plans = "every fault at every command" if every else f"{walked.total()} plans"
    print(f"{plans}, {fired} faults: nothing lost, nothing twice, nothing stuck. {dict(walked)}")
    return 0


async def kill(cycles: int, seed: int, *, external: bool) -> int:
    """The exit code."""
    report = await kills.run(kills.drawn(cycles, seed), seed, external=external)
    print(report)
    for name in ("lost", "untold", "renamed", "tracebacks"):
        for each in getattr(report, name)[:20]:
            print(f"{name}: {each}")
    return 0 if report.good else 1


async def attack(seconds: float, names: list[str]) -> int:
    """The exit code."""
    good = True
    async for outcome in attacks.run(seconds, names):
        print(outcome, flush=True)
        good = good and outcome.holds
    return 0 if good else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    found.add_argument("--minutes", type=float, default=5.0)
    found.add_argument("--seed", type=int, default=None)
    found.add_argument("--every", action="store_true", help="instead, every fault at every command, once")
    found.add_argument("--verbose", action="store_true", help="with the service's log")
    others = found.add_subparsers(dest="what", title="instead")
    killing = others.add_parser("kill", help="kill -9 of server, worker, Redis or all under load")
    killing.add_argument("--cycles", type=int, default=100)
    killing.add_argument("--seed", type=int, default=argparse.SUPPRESS)
    killing.add_argument("--external", action="store_true", help="a Redis of its own instead of the embedded one")
    flooding = others.add_parser("overload", help="ten times what the machine takes, in an open loop")
    flooding.add_argument("--seconds", type=float, default=30.0)
    attacking = others.add_parser("attacks", help="attack after attack, while refunds are declined")
    attacking.add_argument("--seconds", type=float, default=60.0, help="of each")
    attacking.add_argument("--only", nargs="+", choices=sorted(attacks.NAMES), default=[], metavar="NAME")
    return found


def main() -> int:
    """Run what was chosen."""
    chosen = parser().parse_args()
    if not chosen.verbose:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    if chosen.what == "overload":
        outcome = overload.run(chosen.seconds)
        print(outcome)
        return 0 if outcome.good else 1
    if chosen.what == "attacks":
        return asyncio.run(attack(chosen.seconds, chosen.only))
    seed = random.SystemRandom().randrange(2**32) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    if chosen.what == "kill":
        return asyncio.run(kill(chosen.cycles, seed, external=chosen.external))
    return asyncio.run(run(chosen.minutes, seed, every=chosen.every))


if __name__ == "__main__":
    sys.exit(main())
