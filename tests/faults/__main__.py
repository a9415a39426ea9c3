"""Random plans of faults for as long as you like: `python -m tests.faults --minutes 5`.

Each plan breaks several commands of one path. The seed is printed first; `--seed` repeats the same plans. Ends with
exit code 1 at the first plan after which something is lost, done twice or stuck, and says which.
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

from tests.faults.proxy import Fault
from tests.faults.stage import PATHS, House, house, walk
from tests.valkey import start_valkey, stop_valkey

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


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--every", action="store_true", help="instead, every fault at every command, once")
    parser.add_argument("--verbose", action="store_true", help="with the service's log")
    chosen = parser.parse_args()
    if not chosen.verbose:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    seed = random.SystemRandom().randrange(2**32) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    return asyncio.run(run(chosen.minutes, seed, every=chosen.every))


if __name__ == "__main__":
    sys.exit(main())
