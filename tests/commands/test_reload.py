"""SIGHUP: which settings a running service applies, and what it logs about the others."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from receiver.settings import check
from receiver.settings.reloading import reloaded
from tests.kit.accounts import MERCHANT, TOPIC, merchant_key_pem
from tests.kit.processes import PROJECT, Command, Desk, desk, until
from tests.store.makers import SECRET

OLD, NEW, ADMIN = "old-token", "new-token", "admin-token"


@pytest.fixture
async def place() -> AsyncIterator[Desk]:
    """Where the service is started."""
    async with desk() as found:
        yield found


def write(folder: Path, *tables: str, token: str = OLD, port: int = 0) -> Path:
    """Settings of an account, with two tokens."""
    (folder / "key.pem").write_bytes(merchant_key_pem())
    config = folder / "receiver.toml"
    tokens = [
        f'[[tokens]]\nname = "{name}"\nsha256 = "{sha256(value.encode()).hexdigest()}"\nscopes = ["{scope}"]\n'
        for name, value, scope in (("reader", token, "read"), ("admin", ADMIN, "admin"))
    ]
    account = (
        f'[[accounts]]\nname = "us"\nmerchant_id = "{MERCHANT}"\nregion = "na"\nenvironment = "sandbox"\n'
        f'public_key_id = "TESTKEY"\nprivate_key_file = "key.pem"\ntopic_arns = ["{TOPIC}"]\n'
    )
    config.write_text("\n".join([f'data_dir = "data"\n[http]\nport = {port}\n', account, *tokens, *tables]), "utf-8")
    return config


def subscriber(name: str, url: str) -> str:
    return f'[[subscribers]]\nname = "{name}"\nurl = "{url}"\nsecret = "{SECRET}"\n'


async def ask(url: str, path: str, token: str) -> tuple[int, Any]:
    """The answer, over a new connection."""
    headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
    async with aiohttp.ClientSession() as web, web.get(f"{url}{path}", headers=headers) as answer:
        return answer.status, await (answer.json() if "json" in answer.content_type else answer.text())


async def hang_up(command: Command, event: str) -> dict[str, Any]:
    """Send SIGHUP; the line of the log that follows."""
    before = len(command.logged(event))
    command.process.send_signal(signal.SIGHUP)
    lines: list[dict[str, Any]] = await until(lambda: command.logged(event)[before:], event)
    return lines[0]


async def subscribers(url: str) -> dict[str, tuple[str, bool]]:
    """Each subscriber's address, and whether the settings no longer name it."""
    _, body = await ask(url, "/v1/subscribers", ADMIN)
    return {each["name"]: (each["url"], each["undeclaredAt"] is not None) for each in body["subscribers"]}


async def test_a_service_takes_over_tokens_and_subscribers(place: Desk) -> None:
    """The old token ends. Settings that need a restart are named. Invalid settings change nothing, and the service
    handles later signals."""
    one, two, three = (f"https://{name}.example/" for name in ("one", "two", "three"))
    config = write(place.folder, subscriber("one", one), subscriber("two", two))
    command = await place.serve(config)
    url = (await command.line("serve.ready"))["address"]
    write(place.folder, subscriber("two", three), token=NEW, port=8123)
    line = await hang_up(command, "settings.reloaded")
    assert (line["callers"], line["subscribers"]) == (["reader", "admin"], 1)
    assert (await command.line("settings.need_restart"))["settings"] == ["http.port"]
    assert [(await ask(url, "/v1/refunds", token))[0] for token in (OLD, NEW)] == [401, 200]
    expected = {"one": (one, True), "two": (three, False)}
    await until(lambda: _is(url, expected), "the subscribers are those of the settings")

    config.write_text("[[accounts", "utf-8")
    line = await hang_up(command, "settings.not_reloaded")
    assert (line["level"], "is not TOML" in line["problems"][0]) == ("error", True)
    assert (await ask(url, "/v1/refunds", NEW))[0] == 200
    _, metrics = await ask(url, "/metrics", NEW)
    assert 'receiver_settings_reloads_total{outcome="failed"} 1.0' in metrics
    assert 'receiver_settings_reloads_total{outcome="ok"} 1.0' in metrics
    write(place.folder, token=OLD)
    await hang_up(command, "settings.reloaded")
    assert [(await ask(url, "/v1/refunds", token))[0] for token in (OLD, NEW)] == [200, 401]
    assert SECRET not in command.complaint
    assert await command.stop() == 0


async def _is(url: str, expected: dict[str, tuple[str, bool]]) -> bool:
    return await subscribers(url) == expected


TERMINAL = """
import asyncio, fcntl, sys, termios
from receiver.commands.signals import at_signal
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
async def main():
    stopped = at_signal(lambda: print("reload", file=sys.stderr, flush=True))
    print("ready", file=sys.stderr, flush=True)
    await stopped.wait()
asyncio.run(main())
"""


def test_a_service_whose_terminal_is_closed_ends() -> None:
    """Otherwise it would continue unnoticed. While the terminal is open, the signal reloads the settings."""
    keyboard, terminal = pty.openpty()
    command = (sys.executable, "-c", TERMINAL)
    with subprocess.Popen(
        command, stdin=terminal, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=PROJECT
    ) as process:
        try:
            os.close(terminal)
            assert process.stderr is not None
            assert process.stderr.readline() == "ready\n"
            process.send_signal(signal.SIGHUP)
            assert process.stderr.readline() == "reload\n"
            os.close(keyboard)
            assert process.wait(20) == 0
        finally:
            process.kill()


def tree(**changes: Any) -> dict[str, Any]:
    account = {"name": "us", "merchant_id": MERCHANT, "region": "na", "environment": "sandbox", "topic_arns": [TOPIC]}
    account |= {"public_key_id": "TESTKEY", "private_key": merchant_key_pem().decode(), **changes.pop("account", {})}
    return {"accounts": [account, *changes.pop("more", [])], **changes}


SUBSCRIBER = {"name": "one", "url": "https://one.example/", "secret": SECRET}


@pytest.mark.parametrize(
    ("changes", "restart"),
    [
        ({}, ()),
        ({"subscribers": [SUBSCRIBER]}, ()),
        ({"account": {"public_key_id": "SANDBOX-OTHER", "auth_token": "hunter2"}}, ()),
        ({"account": {"topic_arns": [TOPIC, "arn:aws:sns:us-east-1:291180941288:*"]}}, ("accounts.topic_arns",)),
        ({"redis": {"url": "redis://other"}, "data_dir": "/x"}, ("data_dir", "redis.url")),
        ({"delivery": {"rate": 3}, "log": {"level": "debug"}}, ("delivery.rate", "log.level")),
        ({"account": {"name": "eu"}}, ("accounts",)),
        ({"account": {"environment": "live"}, "subscribers": [SUBSCRIBER]}, ("accounts", "subscribers")),
    ],
)
def test_what_needs_a_restart_is_named(changes: dict[str, Any], restart: tuple[str, ...]) -> None:
    """Everything but tokens, subscribers and the secrets of accounts; subscribers where the accounts are others."""
    running, found = check(tree(), Path("/")), check(tree(**changes), Path("/"))
    change = reloaded(running, found)
    assert change.need_restart == restart
    taken = change.settings.accounts[0]
    assert taken.name == "us"
    if "accounts" not in restart:
        assert taken.public_key_id == found.accounts[0].public_key_id
        assert change.settings.subscribers == found.subscribers
    assert reloaded(change.settings, found).need_restart == restart
