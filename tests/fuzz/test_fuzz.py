"""Runs the corpus against every target and, if atheris is installed, some thousand more inputs.

`python -m tests.fuzz --seconds 600` runs longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz.names import NAMES
from tests.fuzz.targets import TARGETS, seeds
from tests.kit.processes import PROJECT


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_breaks_nothing(name: str) -> None:
    """Also what once broke something."""
    for path in seeds(name):
        TARGETS[name](path.read_bytes())


@pytest.mark.skipif(find_spec("atheris") is None, reason="pip install '.[fuzz]': atheris, which has wheels for Linux")
def test_two_thousand_inputs_break_nothing(tmp_path: Path) -> None:
    """For each target. The fuzzer must really have tried them."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--runs", "2000"],
        cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    assert ended.stdout.count("nothing found. number_of_executed_units: 2000;") == len(NAMES), ended.stdout


def test_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without atheris it names the extra that has it."""
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["fuzz", "xml"])
    assert command.main() == 2
    assert ".[fuzz]" in capsys.readouterr().out
