"""The wheel: it contains every file of the package, and runs without the project's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from receiver.http.openapi import document
from tests.commands.test_cli import free_port
from tests.deploy.tools import PROJECT
from tests.kit.accounts import merchant_key_pem
from tests.kit.outside import outside
from tests.kit.processes import environment

PACKAGE = PROJECT / "receiver"
BOUND = 300.0
"""Seconds for an installation."""
ACCOUNT = ("--merchant-id", "A2ZABCDEFGHIJ", "--region", "na", "--public-key-id", "SANDBOX-AG3EXAMPLE")

built = pytest.mark.skipif(not outside("WHEEL"), reason="set RECEIVER_TEST_WHEEL to the wheel: .ci/run builds it")


def files() -> set[str]:
    """Every file of the package, by its path in the project."""
    found = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(PROJECT).as_posix() for path in found}


def test_every_file_of_the_package_is_declared() -> None:
    """Lua scripts, pages and the browser's files are included only if a pattern names them."""
    patterns = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["receiver"]
    declared = {path.relative_to(PROJECT).as_posix() for pattern in patterns for path in PACKAGE.glob(pattern)}
    others = {name for name in files() if not name.endswith(".py")}
    assert len(others) > 40
    assert others <= declared
    assert [path for path in PACKAGE.rglob("*.py") if not (path.parent / "__init__.py").is_file()] == []


@built
def test_the_wheel_contains_every_file() -> None:
    """It contains nothing else except its metadata, and a package index can show its description."""
    with zipfile.ZipFile(outside("WHEEL")) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        (metadata,) = (wheel.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert {name for name in names if ".dist-info/" not in name} == files()
    assert "Description-Content-Type: text/markdown" in metadata
    assert "Requires-Python: >=3.11" in metadata


class Venv:
    """An environment with the wheel and its dependencies, and a folder outside the project."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "venv" / "bin"

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        """Start a program of the environment."""
        program, *arguments = words
        return subprocess.Popen(
            [self.bin / program, *arguments],
            cwd=self.folder,
            env=environment({**variables, "PYTHONPATH": ""}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **variables: str) -> str:
        """What a program of the environment prints; it must succeed."""
        process = self.start(*words, **variables)
        said, complaint = process.communicate(timeout=BOUND)
        assert process.returncode == 0, f"{words}\n{said}{complaint}"
        return said

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The service runs, ready."""
        service = self.start("receiver", "serve", "--config", "receiver.toml", RECEIVER_HTTP__PORT=str(free_port()))
        assert service.stderr is not None
        try:
            said = []
            for line in service.stderr:
                said.append(line)
                if '"serve.ready"' in line:
                    break
            else:
                pytest.fail("".join(said))
            yield
        finally:
            service.terminate()
            service.communicate(timeout=BOUND)


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """Made by the commands that a user runs."""
    made = Venv(tmp_path_factory.mktemp("wheel"))
    wheel = f"{Path(outside('WHEEL')).absolute()}[embedded]"
    for command in ([sys.executable, "-m", "venv", "venv"], [str(made.bin / "pip"), "install", "-q", wheel]):
        subprocess.run(command, cwd=made.folder, check=True, timeout=BOUND)
    (made.folder / "amazon-pay.pem").write_bytes(merchant_key_pem())
    return made


@built
@pytest.mark.timeout(600)
def test_an_installation_begins_with_the_wheel_alone(venv: Venv) -> None:
    """From the settings to a backup and back, by the commands alone."""
    where = venv.run("python", "-c", "import receiver; print(receiver.__file__)")
    assert Path(where.strip()).is_relative_to(venv.folder)
    assert venv.run("amazon-pay-refund-receiver", "--version") == venv.run("receiver", "--version")
    assert json.loads(venv.run("receiver", "openapi")) == json.loads(json.dumps(document()))
    venv.run("receiver", "init", *ACCOUNT)
    with venv.serving():
        venv.run("receiver", "backup", "refunds.rdb", "--config", "receiver.toml")
    os.rename(venv.folder / "receiver-data", venv.folder / "old")
    venv.run("receiver", "restore", "refunds.rdb", "--config", "receiver.toml")
    with venv.serving():
        assert (venv.folder / "receiver-data" / "appendonlydir").is_dir()


@built
@pytest.mark.timeout(600)
def test_the_demo_runs_with_the_wheel_alone(venv: Venv) -> None:
    """The dashboard's pages and the scripts of Redis are found."""
    assert json.loads(venv.run("receiver", "demo", "--json"))["problems"] == []


IMPORT_ALL = """
import importlib, pkgutil, receiver
for module in pkgutil.walk_packages(receiver.__path__, "receiver."):
    if module.name != "receiver.__main__":
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name.partition(".")[0] != "opentelemetry":
                raise
"""


@built
@pytest.mark.timeout(600)
def test_every_module_finds_what_it_imports(venv: Venv) -> None:
    """In the declared dependencies, except for modules that an extra brings."""
    venv.run("python", "-c", IMPORT_ALL)
