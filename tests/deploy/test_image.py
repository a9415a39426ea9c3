"""The image: what it installs, what it copies, and its health check. No container engine runs here."""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread

import pytest
from packaging.requirements import Requirement

from receiver.commands import healthcheck
from tests.deploy.tools import DEPLOY, PROJECT, run, tool

DOCKERFILE = (PROJECT / "Dockerfile").read_text()
PINNED = [DEPLOY / "requirements.txt", DEPLOY / "build-requirements.txt"]


def pins(text: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Name → the requirement and its hashes."""
    joined = re.sub(r"#.*", "", text).replace("\\\n", " ")
    found = {}
    for line in filter(None, map(str.strip, joined.splitlines())):
        words = re.split(r"\s+--hash=", line)
        requirement = Requirement(words[0])
        found[requirement.name] = (requirement, words[1:])
    return found


def version(requirement: Requirement) -> str:
    (only,) = requirement.specifier
    assert only.operator == "=="
    return only.version


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.name)
def test_every_requirement_is_pinned_by_version_and_hash(path: object) -> None:
    """And the file names no address: the builder chooses the source of packages."""
    text = path.read_text()  # type: ignore[attr-defined]
    assert not re.search(r"https?://|file://|--(extra-)?index|--find-links|^-[if] ", text, re.MULTILINE)
    found = pins(text)
    assert found
    for requirement, hashes in found.values():
        assert version(requirement)
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes)


def test_the_pinned_versions_are_those_that_the_project_admits() -> None:
    """Everything that pyproject.toml names, in its range, with the extra `embedded`; the build backend too."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["embedded"]]
    for path, named in zip(PINNED, (wanted, project["build-system"]["requires"]), strict=True):
        found = pins(path.read_text())
        for requirement in map(Requirement, named):
            assert requirement.name in found, f"{requirement.name}: make {path.name} again, its comment says how"
            assert requirement.specifier.contains(version(found[requirement.name][0])), requirement


def test_what_the_pinned_packages_need_is_pinned_too() -> None:
    """As far as this environment has the same versions: `pip install --require-hashes` refuses a file with a gap."""
    found = pins(PINNED[0].read_text())
    looked_at = 0
    for requirement, _ in found.values():
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        if metadata.version(requirement.name) != version(requirement):
            continue
        for needed in map(Requirement, metadata.requires(requirement.name) or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                looked_at += 1
                assert needed.name.lower().replace("_", "-") in found, f"{requirement.name} needs {needed.name}"
    if not looked_at:
        pytest.skip("no package here has the pinned version: make deploy/requirements.txt again")


def test_what_the_image_copies_is_there_and_nothing_else_is_sent() -> None:
    """`.dockerignore` is a list of what is sent; each COPY names a part of it."""
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = set()
    for words in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = words.split()
        copied |= set(sources)
    assert copied == sent
    assert all((PROJECT / name).exists() for name in copied)
    for secret in ("receiver.toml", "deploy/secrets/amazon-pay.pem", ".git/config"):
        assert not any(fnmatch(secret, name) or secret.startswith(f"{name}/") for name in sent)


def test_the_image_runs_as_nobody_in_particular_and_says_what_it_is() -> None:
    """The last stage: a number as user (Kubernetes cannot prove a name), no shell around the process."""
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["receiver"\]$', last, re.MULTILINE)
    for label in ("title", "description", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in last
    assert "pip install" not in last
    version_of_project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG VERSION={version_of_project}" in last


def test_hadolint_has_nothing_to_say() -> None:
    """The linter for Dockerfiles."""
    run(tool("hadolint"), PROJECT / "Dockerfile")


def test_the_health_check_asks_where_the_service_listens(tmp_path: Path) -> None:
    """On the port of the settings, of the environment before the file; and it says what is wrong."""
    command = json.loads(re.search(r"HEALTHCHECK.*?\n\s*CMD (\[.*?\])\n", DOCKERFILE, re.DOTALL)[1])  # type: ignore[index]
    assert command == ["python", "-m", healthcheck.__name__]
    config = tmp_path / "receiver.toml"

    class Well(BaseHTTPRequestHandler):
        """Is alive, and not ready."""

        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Well) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        config.write_text(f"\ufeff[http]\nhost = '0.0.0.0'\nport = {server.server_port}\nadmin_port = 1\n")
        at = {"RECEIVER_CONFIG": str(config)}
        assert healthcheck.main([], at) is None
        assert healthcheck.main([], {"RECEIVER_HTTP__PORT": str(server.server_port)}) is None
        assert "answers 503" in str(healthcheck.main(["/readyz"], at))
        assert "no answer" in str(healthcheck.main([], {**at, "RECEIVER_HTTP__PORT": "1"}))
        assert "no answer" in str(healthcheck.main([], {"RECEIVER_CONFIG": str(tmp_path / "none.toml")}))
        server.shutdown()
    assert healthcheck.address({}) == ("127.0.0.1", 8000)
    assert healthcheck.address({"RECEIVER_HTTP__HOST": "::"}) == ("::1", 8000)
    assert healthcheck.address({"RECEIVER_HTTP__HOST": "10.0.0.7"}) == ("10.0.0.7", 8000)
