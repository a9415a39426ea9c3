"""The operators' guide names files that are there, and all that are there."""

from __future__ import annotations

import re

from tests.deploy.tools import DEPLOY

TEXT = (DEPLOY / "README.md").read_text()


def test_links_lead_somewhere_and_no_file_is_forgotten() -> None:
    """Every link, and every entry of the folder by its name."""
    links = {link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")}
    assert links
    assert [link for link in links if not (DEPLOY / link).exists()] == []
    ours = {path.name for path in DEPLOY.iterdir()} - {"README.md", "secrets", "__pycache__"}
    assert [name for name in sorted(ours) if name not in TEXT] == []


def test_alerts_that_are_named_exist() -> None:
    """In the guide, and in each other's runbooks."""
    alerts = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    there = set(re.findall(r"- alert: (\w+)", alerts))
    named = {name for text in (TEXT, alerts) for name in re.findall(r"\bReceiver[A-Z]\w+", text)}
    assert named == there
