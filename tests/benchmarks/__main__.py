"""`python -m tests.benchmarks WHAT [--seconds S] [--rounds N]`: each prints ratios of one run."""

from __future__ import annotations

import argparse

from tests.benchmarks import holding, ingest, lanes, outgoing

COMMANDS = {
    "believed": ingest.believed,
    "refused": ingest.refused,
    "latency": ingest.latency,
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
    chosen = parser.parse_args()
    for name in COMMANDS if chosen.what == "all" else (chosen.what,):
        print(f"== {name}", flush=True)
        COMMANDS[name](chosen.seconds, chosen.rounds)


if __name__ == "__main__":
    main()
