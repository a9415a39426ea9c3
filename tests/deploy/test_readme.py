"""The operators' guide names all files that are there. That links lead somewhere, tests/pages looks at."""

from __future__ import annotations

import re

from tests.deploy.tools import DEPLOY

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
