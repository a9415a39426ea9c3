"""What a new user does with nothing but the README, after the install: in well under three minutes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from receiver.commands.simulate import EXAMPLE
from receiver.http.feed.reader import TYPES
from receiver.ledger.lifecycle import EventType
from tests.kit.forks import FORKS
from tests.kit.processes import PROJECT, environment, short_folder
from tests.openapi.conform import event_faults
from tests.pages.kit import PAGES
from tests.pages.shop import free_port
from tests.store.embedded_kit import kill_servers

ANNOUNCED = 180.0
TRY, CONNECT = (
    [block.text for page in PAGES if page.name == name for block in page.blocks if word in block.mark + block.text]
    for name, word in (("deploy/try.md", "test_walk"), ("deploy/connect.md", "simulator.txt"))
)


class Terminals:
    """Shells of a user in the folder of a clone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shells: list[Process] = []

    async def open(self, text: str) -> Process:
        """Type this in a new one."""
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-ec", text),
            cwd=self.folder,
            env=environment({"TMPDIR": str(self.folder), "COLUMNS": "300"}),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self.shells.append(shell)
        return shell

    async def close(self) -> None:
        for shell in self.shells:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            await shell.communicate()


@pytest.fixture
async def terminals() -> AsyncIterator[Terminals]:
    """In a folder that looks like a clone with its virtual environment; nothing outlives the test."""
    folder = short_folder()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "deploy").symlink_to(PROJECT / "deploy")
    for name, words in {"receiver": shlex.join(FORKS.command()), "python": sys.executable}.items():
        (folder / ".venv" / "bin" / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / ".venv" / "bin" / name).chmod(0o755)
    (folder / ".venv" / "bin" / "activate").write_text(f'export PATH="{folder}/.venv/bin:$PATH"\n')
    found = Terminals(folder)
    yield found
    await found.close()
    kill_servers(folder)
    shutil.rmtree(folder, ignore_errors=True)


async def line_with(shell: Process, text: str) -> str:
    """The next line with this text."""
    assert shell.stdout is not None
    passed = []
    async with asyncio.timeout(ANNOUNCED):
        while raw := await shell.stdout.readline():
            passed.append(raw.decode())
            if text in passed[-1]:
                return passed[-1].strip()
    raise AssertionError(f"{text!r} never came; there was\n{''.join(passed)}")


async def dashboard(url: str, token: str) -> str:
    """The overview after signing in."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as web:
        async with web.get(f"{url}/sign-in") as answer:
            found = re.search(r'name="csrf" value="([^"]+)"', await answer.text())
            assert found is not None
        form = {"token": token, "csrf": unescape(found[1]), "next": "/"}
        async with web.post(f"{url}/sign-in", data=form) as answer:
            assert answer.status == 200
            return await answer.text()


async def events(url: str, token: str) -> list[dict[str, Any]]:
    """Everything that the feed has, of every type that can be asked for."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as web:
        query = {"after": "beginning", "limit": "500", "type": ",".join({*TYPES.values()} - {EventType.TEST})}
        async with web.get(f"{url}/v1/events", params=query) as answer:
            return list((await answer.json())["events"])


async def test_the_walk(terminals: Terminals) -> None:
    """From `receiver demo --keep` to a decline on the dashboard and in a webhook of one's own. Every event is as its
    schema says."""
    if not shutil.which("curl"):
        pytest.skip("install curl")
    began = time.monotonic()
    demo, hook, subscribe = TRY
    first = await terminals.open(demo)
    export = await line_with(first, "export RECEIVER_URL=")
    curl = await line_with(first, "/simulator/refunds")
    port = str(free_port())
    second = await terminals.open(hook.replace("3000", port))
    assert port in await line_with(second, "http://")
    third = await terminals.open(f"{export}\n{subscribe.replace('3000', port)}")
    said = (await third.communicate())[0].decode()
    assert third.returncode == 0, said
    fourth = await terminals.open(curl)
    said = (await fourth.communicate())[0].decode()
    assert fourth.returncode == 0, said
    told = await line_with(second, "amazonpay.refund.declined")
    assert re.fullmatch(r"amazonpay\.refund\.declined S01-\d{7}-\d{7}-R\d{6} 9\.50 USD AmazonRejected", told)
    url, token = re.findall(r"RECEIVER_(?:URL|TOKEN)=(\S+)", export)
    page = await dashboard(url, token)
    assert told.split()[1] in page
    assert "9.50" in page
    kept = await events(url, token)
    assert {each["type"] for each in kept} > {
        f"amazonpay.refund.{word}" for word in ("refunded", "declined", "conflict")
    }
    assert [fault for each in kept for fault in event_faults(json.dumps(each))] == []
    assert time.monotonic() - began < ANNOUNCED


async def test_the_way_without_an_account(terminals: Terminals) -> None:
    """The blocks, pasted unchanged into one terminal: simulator, settings, token, service; then a refund is
    declined."""
    if not shutil.which("curl"):
        pytest.skip("install curl")
    paste = "\n".join([". .venv/bin/activate", *CONNECT])
    amazon, service = free_port(), free_port()
    swaps = {
        "receiver simulate": f"receiver simulate --port {amazon} --delay 0.2 --post-to {{url}}/ipn/us-sandbox",
        "http://127.0.0.1:8000": "{url}",
    }
    for example, real in swaps.items():
        paste = paste.replace(example, real.format(url=f"http://127.0.0.1:{service}"))
    then = (
        f"curl -sf -H 'content-type: application/json' -d '{EXAMPLE}' http://127.0.0.1:{amazon}/simulator/refunds\n"
        f"until receiver refund list --url http://127.0.0.1:{service} | grep DECLINED; do sleep 0.1; done\n"
    )
    terminal = await terminals.open(f"export RECEIVER_HTTP__PORT={service}\n{paste}\n{then}")
    assert re.search(r"S01-\d{7}-\d{7}-R\d{6} +12\.01 USD +DECLINED", await line_with(terminal, "DECLINED"))
    text = (terminals.folder / "receiver.toml").read_text()
    assert 'name = "us-sandbox"' in text
    assert (terminals.folder / "me.token").read_text().strip() not in text


SECRETS = """
receiver.toml me.token webhook.secret finance.secret mail.secret fps.secret amazon-pay.pem publicKey.pub slack-webhook
teams-webhook pd-key am-auth redis-password authtoken simulator.txt receiver.log cursor.txt receiver-data/valkey.sock
receiver-simulator/sns-private-key.pem deploy/secrets/amazon-pay.pem
"""
"""What the pages have a user put into the clone."""


def test_what_a_walk_leaves_in_the_clone_is_not_committed_by_accident() -> None:
    """Every file with a secret that the pages name, and the files that the commands write."""
    if not shutil.which("git") or not (PROJECT / ".git").exists():
        pytest.skip("needs a clone, and git")
    ask = ["git", "-c", "core.excludesFile=", "check-ignore", "--no-index", *SECRETS.split()]
    found = subprocess.run(ask, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert found.stdout.split() == SECRETS.split()
    text = "\n".join(page.text for page in PAGES)
    named = set(re.findall(r"(?:--[a-z-]+-file|_file =|> ) ?\"?([a-z][a-z.-]+)\b", text)) - {
        "backup.tar",
        "openapi.json",
    }
    assert named <= {*SECRETS.split()}


def test_the_account_has_one_name_in_all_that_a_new_user_reads() -> None:
    """A notification posted to any other name is answered 503."""
    texts = {page.name: page.text for page in PAGES} | {"receiver.toml": (PROJECT / "deploy/receiver.toml").read_text()}
    named = {name: set(re.findall(r"/ipn/([a-z][a-z-]*)", texts[name])) for name in ("README.md", "deploy/README.md")}
    assert set().union(*named.values()) == {"us-sandbox"}
    assert set(re.findall(r"`?https://[^/ ]+/ipn/([a-z-]+)", texts["deploy/connect.md"])) == {"us-sandbox"}
    for name in ("deploy/connect.md", "receiver.toml"):
        assert re.search(r'\[\[accounts\]\]\nname = "us-sandbox"', texts[name])
