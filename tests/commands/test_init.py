"""`receiver init`: the service starts with the files that it writes, and nothing is overwritten."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest

from receiver.settings import load
from tests.commands.conftest import run_command
from tests.commands.test_cli import free_port
from tests.kit.accounts import merchant_key_pem
from tests.kit.forks import FORKS
from tests.kit.processes import Desk, environment

FLAGS = ("--merchant-id", "A2ZABCDEFGHIJ", "--region", "eu", "--public-key-id", "SANDBOX-AG3EXAMPLE")
WEBHOOK = "https://finance.example/hooks"
BOUND = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the private key."""
    (tmp_path / "amazon-pay.pem").write_bytes(merchant_key_pem())
    (tmp_path / "amazon-pay.pem").chmod(0o600)
    return tmp_path


def made(folder: Path) -> set[str]:
    """The files beside the key."""
    return {path.name for path in folder.iterdir()} - {"amazon-pay.pem"}


async def test_the_service_starts_with_what_is_written(place: Desk) -> None:
    """Without a warning about the configuration. The new token is accepted."""
    (place.folder / "amazon-pay.pem").write_bytes(merchant_key_pem())
    (place.folder / "amazon-pay.pem").chmod(0o600)
    written = await place.run("init", *FLAGS)
    assert (written.process.returncode, written.complaint) == (0, "")
    assert "https://<your host>/ipn/eu-sandbox" in written.said
    port = {"RECEIVER_HTTP__PORT": str(free_port())}
    service = await place.start("serve", "--config", "receiver.toml", env=port)
    url = (await service.line("serve.ready"))["address"]
    token = {"RECEIVER_URL": url, "RECEIVER_TOKEN_FILE": "receiver.token"}
    listed, examined = await asyncio.gather(
        place.run("subscriber", "list", env=token),
        place.run("doctor", "--config", "receiver.toml", "--offline", env=token | port),
    )
    assert (listed.process.returncode, listed.complaint) == (0, "receiver: There are no subscribers yet.\n")
    lines = [line for line in examined.said.splitlines() if line[6:].startswith("configuration.")]
    assert len(lines) >= 3
    assert [line for line in lines if not line.startswith("ok ")] == []
    assert await service.stop() == 0


def test_the_files_say_what_was_given(folder: Path) -> None:
    """The topic follows from the region, the name from region and environment. Only the owner can read the secrets."""
    ran = run_command("init", str(folder / "receiver.toml"), *FLAGS, "--webhook", WEBHOOK)
    assert (ran.code, ran.err) == (0, "")
    assert made(folder) == {"receiver.toml", "receiver.token", "webhook.secret"}
    modes = {name: (folder / name).stat().st_mode & 0o777 for name in made(folder)}
    assert modes == {"receiver.toml": 0o644, "receiver.token": 0o600, "webhook.secret": 0o600}
    settings = load(folder / "receiver.toml", {})
    (account,), (token,), (subscriber,) = settings.accounts, settings.tokens, settings.subscribers
    assert (account.name, account.region, account.environment) == ("eu-sandbox", "eu", "sandbox")
    assert account.topic_arns == ("arn:aws:sns:eu-west-1:291180941288:*",)
    assert account.private_key_file == folder / "amazon-pay.pem"
    assert token.sha256 == sha256((folder / "receiver.token").read_text().strip().encode()).hexdigest()
    assert sorted(token.scopes) == ["admin", "read", "refund"]
    assert subscriber.fields["url"] == WEBHOOK
    assert settings.redis.url is None


def test_region_and_environment_are_known_in_any_letter_case(folder: Path) -> None:
    """The name and the topic follow from them as from the usual spelling."""
    words = ["EU" if each == "eu" else each for each in FLAGS]
    ran = run_command("init", str(folder / "receiver.toml"), *words, "--environment", "Sandbox")
    assert (ran.code, ran.err) == (0, "")
    (account,) = load(folder / "receiver.toml", {}).accounts
    assert (account.name, account.topic_arns) == ("eu-sandbox", ("arn:aws:sns:eu-west-1:291180941288:*",))


def test_an_address_with_a_password_is_kept_from_others(folder: Path) -> None:
    """The settings may hold a secret then."""
    address = "redis://:hush@127.0.0.1:6379/0"
    assert run_command("init", str(folder / "receiver.toml"), *FLAGS, "--redis-url", address).code == 0
    assert (folder / "receiver.toml").stat().st_mode & 0o777 == 0o600
    assert tomllib.loads((folder / "receiver.toml").read_text())["redis"] == {"url": address}


@pytest.mark.parametrize("there", ["receiver.toml", "receiver.token", "webhook.secret"])
def test_nothing_is_overwritten(folder: Path, there: str) -> None:
    """If one of the files exists, none is written. A broken link counts too."""
    (folder / there).symlink_to(folder / "nothing")
    ran = run_command("init", str(folder / "receiver.toml"), *FLAGS, "--webhook", WEBHOOK)
    assert (ran.code, ran.out) == (2, "")
    assert f"{there}: exists already" in ran.err
    assert made(folder) == {there}
    assert not (folder / "nothing").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], ["--merchant-id: is missing", "--region: is missing", "--public-key-id: is missing"]),
        ([*FLAGS, "--merchant-id", "B2"], ["--merchant-id: must match"]),
        ([*FLAGS, "--environment", "live"], ["--environment: is live, but public_key_id begins with SANDBOX-"]),
        ([*FLAGS, "--private-key-file", "none.pem"], ["--private-key-file: names a file that cannot be read"]),
        ([*FLAGS, "--name", "EU"], ["--name: "]),
        ([*FLAGS, "--webhook", "ftp://x"], ["--webhook: "]),
        ([*FLAGS, "--redis-url", "localhost:6379"], ["--redis-url: "]),
    ],
)
def test_wrong_options_write_nothing(folder: Path, words: list[str], says: list[str]) -> None:
    """Every problem at once, by the name of the option; exit code 2."""
    ran = run_command("init", str(folder / "receiver.toml"), *words)
    assert (ran.code, ran.out) == (2, "")
    assert [text for text in says if text not in ran.err] == []
    assert made(folder) == set()


def test_questions_are_asked_again_until_the_answers_are_right(folder: Path) -> None:
    """On a terminal. What follows from other answers is offered: the environment, the file and the name."""
    keyboard, terminal = pty.openpty()
    asked = subprocess.Popen(
        [*FORKS.command(), "init", "--region", "jp"],
        cwd=folder,
        env=environment({}),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(keyboard, b"B2\nSANDBOX-AG3EXAMPLE\n\n\n\nA2ZABCDEFGHIJ\n")
    said, complaint = asked.communicate(timeout=BOUND)
    os.close(keyboard)
    os.close(terminal)
    assert asked.returncode == 0, said + complaint
    assert "merchant_id: must match" in complaint
    (account,) = load(folder / "receiver.toml", {}).accounts
    assert (account.merchant_id, account.name, account.environment) == ("A2ZABCDEFGHIJ", "jp-sandbox", "sandbox")
    assert account.topic_arns == ("arn:aws:sns:us-west-2:291180941288:*",)
