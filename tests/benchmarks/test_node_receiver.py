"""Baseline N: it is left out where it is not installed, and a receiver that verifies nothing does not pass for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.benchmarks import mail
from tests.benchmarks.machine import baseline, cores, free_port, started
from tests.benchmarks.node_receiver import FOLDER, check_that_it_verifies, missing, node_receiver


def install(folder: Path, versions: dict[str, str]) -> None:
    """Packages that are nothing but their versions."""
    for name, version in versions.items():
        (folder / "node_modules" / name).mkdir(parents=True, exist_ok=True)
        (folder / "node_modules" / name / "package.json").write_text(json.dumps({"version": version}))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """A package that is not there, and one of another version, which would be another baseline."""
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    assert set(wanted) == {"express", "ioredis", "sns-validator"}
    shutil.copy(FOLDER / "package.json", tmp_path)
    assert missing(tmp_path) == f"express {wanted['express']} is not installed"
    install(tmp_path, {**wanted, "sns-validator": "0.0.1"})
    assert missing(tmp_path) == f"sns-validator is installed in version 0.0.1, not {wanted['sns-validator']}"
    install(tmp_path, wanted)
    assert missing(tmp_path) == ""


def test_without_node_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names Node, not just a missing package."""
    monkeypatch.setenv("PATH", "")
    assert missing() == "node is not installed"


def test_a_receiver_that_believes_everything_is_no_baseline(valkey_url: str, tmp_path: Path) -> None:
    """R answers 200 to a forged notification too."""
    port = free_port()
    run = baseline("set", str(port), valkey_url)
    with started(run, port, tmp_path / "log", cores()[1]), pytest.raises(SystemExit) as found:
        check_that_it_verifies(port, valkey_url, mail.signer(mail.now()))
    assert str(found.value) == "N does not verify: a forged notification got {200}, not 403."


@pytest.mark.skipif(bool(missing()), reason=f"N cannot run: {missing()}")
def test_it_verifies(valkey_url: str, tmp_path: Path) -> None:
    """It starts only if it accepts genuine messages, with both of SNS's hashes, and refuses forged ones."""
    with node_receiver(valkey_url, tmp_path, cores()[1], mail.signer(mail.now())) as found:
        assert found.port > 0
