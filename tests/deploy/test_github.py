"""The files for GitHub: the workflow runs the project's checks with as few rights as possible, and the issue forms are
valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.tools import PROJECT

GITHUB = PROJECT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PAGES = sorted(GITHUB.glob("*.md"))
WORKFLOW: dict[Any, Any] = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())
JOBS: dict[str, Any] = WORKFLOW["jobs"]
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]


def test_the_checks_are_those_of_everybody() -> None:
    """On each version of Python that the package names."""
    assert [step["run"] for name, step in STEPS if name == "checks" and "run" in step] == [".ci/run"]
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (PROJECT / "pyproject.toml").read_text())
    assert JOBS["checks"]["strategy"]["matrix"]["python"] == named
    triggers = WORKFLOW[True]  # YAML 1.1 reads `on` so
    assert set(triggers) == {"push", "pull_request"}
    assert all(job["timeout-minutes"] <= 60 for job in JOBS.values())


def test_no_job_has_more_rights_than_it_needs() -> None:
    """By default a job may only read. Only a release may write, and it runs no code of a pull request."""
    assert WORKFLOW["permissions"] == {"contents": "read"}
    rights = {name: job.get("permissions", {}) for name, job in JOBS.items()}
    assert [name for name, given in rights.items() if given.get("contents") == "write"] == ["release"]
    assert JOBS["release"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert set(JOBS["release"]["needs"]) == set(JOBS) - {"release"}
    checkouts = [step for _, step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_actions_are_pinned_by_their_major_version() -> None:
    used = [step["uses"] for _, step in STEPS if "uses" in step]
    assert [each for each in used if not re.fullmatch(r"(actions|docker)/[a-z-]+@v\d+", each)] == []


def test_wheel_and_image_have_a_bill_of_materials_and_a_provenance() -> None:
    (built,) = (step["with"] for _, step in STEPS if step.get("uses", "").startswith("docker/build-push-action"))
    assert (built["sbom"], built["provenance"]) == (True, "mode=max")
    arguments = set(re.findall(r"^ARG (VERSION|REVISION)=", (PROJECT / "Dockerfile").read_text(), re.MULTILINE))
    assert {line.partition("=")[0] for line in built["build-args"].splitlines()} == arguments
    text = (GITHUB / "workflows" / "ci.yml").read_text()
    assert "cyclonedx-py requirements deploy/requirements.txt" in text
    assert "attest-build-provenance" in text


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_is_a_form(path: Path) -> None:
    """By GitHub's schema: https://docs.github.com/communities/using-templates-to-encourage-useful-issues."""
    form = yaml.safe_load(path.read_text())
    assert set(form) == {"name", "description", "labels", "body"}
    ids = [each["id"] for each in form["body"] if each["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    assert any(each.get("validations", {}).get("required") for each in form["body"])
    for each in form["body"]:
        assert each["type"] in ("markdown", "textarea", "input", "dropdown")
        assert ("value" if each["type"] == "markdown" else "label") in each["attributes"]
        assert (each["type"] == "dropdown") == ("options" in each["attributes"])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []
