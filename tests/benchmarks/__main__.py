"""`python -m tests.benchmarks WHAT [--seconds S] [--rounds N]`: each prints ratios of one run.

`load --chart FILE.svg` draws what it found as well; `memory --refunds N` compares so many against 1,000.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import holding, ingest, lanes, offered, outgoing

COMMANDS: dict[str, Callable[..., None]] = {
    "believed": ingest.believed,
    "refused": ingest.refused,
    "latency": ingest.latency,
    "load": offered.offered,
    "goodput": offered.goodput,
    "reads": holding.reads,
    "alert": outgoing.alert,
    "deliveries": outgoing.deliveries,
    "isolation": lanes.isolation,
    "memory": holding.memory,
    "resident": holding.resident,
    "start": holding.start,
}


def main() -> None:
    """Run one."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("what", choices=[*COMMANDS, "all"])
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of all that is compared")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="load: draw it there too")
    parser.add_argument("--refunds", type=int, help="memory: so many against 1,000 (default 200,000)")
    chosen = parser.parse_args()
    for option, of in (("chart", "load"), ("refunds", "memory")):
        if getattr(chosen, option) is not None and chosen.what not in (of, "all"):
            parser.error(f"--{option} is an option of {of}")
    if chosen.refunds is not None and chosen.refunds < 1:
        parser.error("--refunds is at least 1")
    if chosen.chart is not None and not chosen.chart.parent.is_dir():
        parser.error(f"--chart: there is no folder {chosen.chart.parent}")
    more = {"load": {"chart": chosen.chart}, "memory": {"refunds": chosen.refunds}}
    mine = os.sched_getaffinity(0)
    for name in COMMANDS if chosen.what == "all" else (chosen.what,):
        print(f"== {name}", flush=True)
        options = {key: value for key, value in more.get(name, {}).items() if value is not None}
        os.sched_setaffinity(0, mine)
        COMMANDS[name](chosen.seconds, chosen.rounds, **options)


if __name__ == "__main__":
    main()
