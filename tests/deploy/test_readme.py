"""The operators' guide names all files that are there. That links lead somewhere, tests/pages looks at."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.deploy.tools import DEPLOY, PROJECT

TEXT = (DEPLOY / "README.md").read_text()


def test_no_file_is_forgotten() -> None:
    """Every entry of the folder by its name."""
    ours = {path.name for path in DEPLOY.iterdir()} - {"README.md", "secrets", "__pycache__"}
    assert [name for name in sorted(ours) if name not in TEXT] == []


def test_alerts_that_are_named_exist() -> None:
    """In the guide, and in each other's runbooks."""
    alerts = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    there = set(re.findall(r"- alert: (\w+)", alerts))
    named = {name for text in (TEXT, alerts) for name in re.findall(r"\bReceiver[A-Z]\w+", text)}
    assert named == there


@pytest.mark.parametrize(("version", "code"), [((3, 8, 20), 1), ((3, 10, 19), 1), ((3, 11, 0), 0), ((4, 0, 0), 0)])
def test_the_first_command_says_at_once_that_python_is_too_old(version: tuple[int, int, int], code: int) -> None:
    """One line, and nothing is installed."""
    (install, *_) = re.findall(r"^python3 .*receiver demo$", (PROJECT / "README.md").read_text(), re.MULTILINE)
    program, option, check = shlex.split(install.partition(" && ")[0])
    assert (program, option) == ("python3", "-c")
    pretended = f"import sys; sys.version_info = {version}; exec({check!r})"
    ran = subprocess.run([sys.executable, "-S", "-c", pretended], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert ran.stderr.splitlines() == (["Python 3.11 or newer is needed"] if code else [])
