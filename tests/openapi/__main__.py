"""Schemathesis over the whole API for as long as you like: `python -m tests.openapi --examples 1000`.

What follows is given to schemathesis, such as `--include-operation-id createRefund`. Ends with its exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import structlog

from tests.kit.valkey import start_valkey, stop_valkey
from tests.openapi.stage import SEED, house, schemathesis


async def run(examples: int, seed: int, more: list[str]) -> int:
    """The exit code."""
    folder = Path(tempfile.mkdtemp(prefix="ro-"))
    process, url = start_valkey(folder)
    try:
        async with house(url, folder) as place:
            code, said = await schemathesis(place, folder, examples, *more, seed=seed)
            print(said)
            return code
    finally:
        stop_valkey(process)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200, help="at most, of each operation")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen, rest = parser.parse_known_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    sys.exit(asyncio.run(run(chosen.examples, chosen.seed, rest)))
