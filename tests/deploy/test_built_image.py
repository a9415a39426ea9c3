"""The image, built from the Dockerfile and run, without a container engine. It takes a minute, and 4 GiB of disk."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.commands.test_cli import free_port
from tests.deploy.engine import IMAGE, Engine, Unavailable, engine
from tests.deploy.tools import PROJECT
from tests.kit.outside import outside

VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
REVISION = "0123456789abcdef0123456789abcdef01234567"

pytestmark = [
    pytest.mark.skipif(not outside("IMAGE"), reason="set RECEIVER_TEST_IMAGE=1 to build and run the image"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The image, built once; skipped with the reason where it cannot be built."""
    try:
        with engine(tmp_path_factory.mktemp("image")) as made:
            made.build(VERSION=VERSION, REVISION=REVISION)
            yield made
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_it_says_what_it_is_and_how_it_is_run(image: Engine) -> None:
    """Its metadata: the user, the entry point, the health check, the volume, and no address of a package index."""
    told: dict[str, Any] = json.loads(image.buildah("inspect", "--type", "image", IMAGE))["Docker"]
    config = told["config"]
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("10001:10001", ["receiver"], ["serve"])
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "receiver.commands.healthcheck"]
    assert (list(config["Volumes"]), list(config["ExposedPorts"])) == (["/data"], ["8000/tcp"])
    assert config["StopSignal"] == "SIGTERM"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.revision"] == REVISION
    assert "://" not in json.dumps([config["Env"], told["history"]])
    assert image.run("sh", "-c", "! test -s /etc/pip.conf").stdout == ""


def test_it_runs_as_nobody_in_particular(image: Engine) -> None:
    """It can write its data, but none of the image's files."""
    script = "id -u && receiver --version && touch /data/x && ! touch /opt/receiver/x 2>/dev/null && ls -ld /data"
    user, version, folder = image.run("sh", "-c", script).stdout.splitlines()
    assert (user, version) == ("10001", f"amazon-pay-refund-receiver {VERSION}")
    assert folder.startswith("drwx------")


def test_the_demo_runs_in_it(image: Engine) -> None:
    """With its own Valkey, which the image contains."""
    report = json.loads(image.run("receiver", "demo", "--json").stdout)
    assert report["problems"] == []
    assert report["ok"] is True


SERVICE = """
cd /data
python -c '
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
key = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
open("amazon-pay.pem", "wb").write(key)'
receiver init --merchant-id A2ZABCDEFGHIJ --region na --public-key-id SANDBOX-AG3EXAMPLE
export RECEIVER_CONFIG=/data/receiver.toml RECEIVER_HTTP__PORT=$1
python -m receiver.commands.healthcheck && exit 1
receiver serve 2> log & service=$!
for i in $(seq 150); do
    python -m receiver.commands.healthcheck /readyz > /dev/null 2>&1 && ready=yes && break
    sleep 0.2
done
[ -n "$ready" ] || { cat log; exit 1; }
receiver backup refunds.rdb
kill $service
wait $service && echo "it ended well"
"""


def test_a_first_installation_runs_in_it(image: Engine) -> None:
    """Settings, the service, its health check, a backup and an orderly stop."""
    ran = image.run("sh", "-c", SERVICE, "sh", str(free_port()))
    assert "no answer to /healthz" in ran.stdout
    assert "refunds.rdb: " in ran.stdout
    assert ran.stdout.splitlines()[-1] == "it ended well"
