"""The systemd unit: valid, locked in, and with settings that the service knows."""

from __future__ import annotations

import re
from pathlib import Path

from receiver.settings import load
from receiver.store.redis.address import read_address
from tests.deploy.tools import DEPLOY, run, tool
from tests.kit.accounts import merchant_key_pem
from tests.store.makers import SECRET

UNIT = DEPLOY / "systemd" / "receiver.service"
ENVIRONMENT = DEPLOY / "systemd" / "receiver.env.example"
STOP = 10
"""Seconds in which the service stops."""


def values(key: str) -> list[str]:
    """All values of a key, in order."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def installed(folder: Path) -> Path:
    """The unit unchanged, except for a program that exists here."""
    path = folder / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/receiver/bin/receiver", "/bin/true"))
    return path


def test_systemd_accepts_the_unit_and_finds_it_locked_in(tmp_path: Path) -> None:
    """`systemd-analyze verify` says nothing; the exposure is at most 2.0 of 10."""
    analyze = tool("systemd-analyze")
    assert run(analyze, "verify", "--man=no", installed(tmp_path)) == ""
    run(analyze, "security", "--offline=yes", "--threshold=20", installed(tmp_path))


def test_a_stop_is_orderly() -> None:
    """The signal does not reach the embedded Valkey, and no process is killed before its time."""
    assert values("KillMode") == ["mixed"]
    assert int(values("TimeoutStopSec")[0]) > STOP
    assert values("RestartPreventExitStatus") == ["2"]
    assert values("ExecReload") == ["/bin/kill -HUP $MAINPID"]


def test_the_service_accepts_the_settings_of_the_unit(tmp_path: Path) -> None:
    """The example receiver.toml with its secrets among the credentials, and every line of the example environment."""
    credentials = dict(value.split(":") for value in values("# LoadCredential") + values("LoadCredential"))
    assert all(Path(path).parent == Path("/etc/receiver/secrets") for path in credentials.values())
    for name, text in zip(
        ("amazon-pay.pem", "finance.secret", "redis-password"),
        (merchant_key_pem().decode(), SECRET, "hush"),
        strict=True,
    ):
        assert name in credentials
        (tmp_path / name).write_text(text)
    lines = re.findall(r"^(?:# )?(RECEIVER_\w+)=(.*)$", ENVIRONMENT.read_text(), re.MULTILINE)
    environ = dict(value.split("=", 1) for value in values("Environment")) | dict(lines)
    assert environ.pop("RECEIVER_CONFIG") == "/etc/receiver/receiver.toml"
    assert environ["RECEIVER_DATA_DIR"] == f"/var/lib/{values('StateDirectory')[0]}"
    place = f"/run/credentials/{UNIT.name}"
    environ = {key: value.replace(place, str(tmp_path)) for key, value in environ.items()}
    text = (DEPLOY / "receiver.toml").read_text()
    (tmp_path / "receiver.toml").write_text(text)
    settings = load(tmp_path / "receiver.toml", environ)
    assert settings.redis.address == read_address("redis://:hush@127.0.0.1:6379/0")
    assert settings.log.format == "json"
