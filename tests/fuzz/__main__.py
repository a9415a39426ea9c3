"""`python -m tests.fuzz [TARGET …] [--seconds N | --runs N] [--keep DIRECTORY]`: coverage-guided fuzzing by atheris.

Without a target, all of them run one after the other. If an input breaks a target, the exit code is 1, and the input is
saved and printed with the traceback. Put it into the target's corpus when the bug is fixed. `--keep` keeps the inputs
that covered new code.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.names import CORPUS, NAMES

WORDS = CORPUS.with_name("words.dict")
LONGEST = 4096
"""Bytes of one input."""
UNIT_TIMEOUT = 5
"""Seconds for one input: more is a finding, since a stranger could ask for it."""
MEMORY = 1024
"""MiB; more is a finding too."""
STATS = ("stat::number_of_executed_units", "stat::average_exec_per_sec", "stat::peak_rss_mb")


def fuzz(name: str, until: str, folder: Path, keep: Path) -> bool:
    """Fuzz one target in a child of this process, which libFuzzer ends. Returns whether nothing was found."""
    said = folder / f"{name}.log"
    child = os.fork()
    if child == 0:
        with said.open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        atheris, targets = import_module("atheris"), import_module("tests.fuzz.targets")
        atheris.Setup([name, *options(name, until, folder, keep)], targets.TARGETS[name])
        atheris.Fuzz()
    _, status = os.waitpid(child, 0)
    text = said.read_text("utf-8", "replace")
    found = os.waitstatus_to_exitcode(status)
    print(f"{name}: nothing found. {summary(text)}" if found == 0 else f"{name}: BROKEN\n{text[-6000:]}", flush=True)
    return found == 0


def options(name: str, until: str, folder: Path, keep: Path) -> list[str]:
    """Options of libFuzzer; `until` is the one that ends the run: https://llvm.org/docs/LibFuzzer.html#options."""
    return [
        until,
        f"-max_len={LONGEST}",
        f"-timeout={UNIT_TIMEOUT}",
        f"-rss_limit_mb={MEMORY}",
        f"-dict={WORDS}",
        f"-artifact_prefix={folder}/{name}-",
        "-print_final_stats=1",
        str(keep),
        str(CORPUS / name),
    ]


def summary(said: str) -> str:
    """How much was tried and covered."""
    stats = [line.removeprefix("stat::") for line in said.splitlines() if line.startswith(STATS)]
    covered = [line.partition("cov:")[2].split("corp:")[0] for line in said.splitlines() if "cov:" in line]
    return "; ".join([" ".join(each.split()) for each in [*stats, *(f"coverage {each}" for each in covered[-1:])]])


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, help="of each target: so many inputs, however long they take")
    parser.add_argument("--keep", type=Path, default=None)
    chosen = parser.parse_args()
    if unknown := set(chosen.target) - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if find_spec("atheris") is None:
        print("atheris is not installed: pip install -e '.[fuzz]'")
        return 2
    with import_module("atheris").instrument_imports(include=["receiver", "defusedxml"]):
        import_module("tests.fuzz.targets")
    until = f"-runs={chosen.runs}" if chosen.runs else f"-max_total_time={chosen.seconds}"
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    good = []
    for name in chosen.target or NAMES:
        keep = (chosen.keep or folder) / name
        keep.mkdir(parents=True, exist_ok=True)
        good.append(fuzz(name, until, folder, keep))
    print(f"{sum(good)} of {len(good)} targets hold; logs in {folder}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
