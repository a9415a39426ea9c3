"""What commands of pages run against: `receiver simulate`, `receiver serve`, a subscriber, and the files they name."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp

from tests.kit.forks import FORKS
from tests.kit.processes import PROJECT, Desk, desk, environment, until
from tests.kit.sns import SnsSigner
from tests.pages.kit import Block
from tests.service.stage import Hook, Says

TOKEN = "token-of-the-test"
CHARGE, REFUND = "S01-5105180-3221187-C056351", "S01-5105180-3221187-R022311"
"""The ids in the pages. The charge is created with that id; the refund's id is replaced by that of a declined
refund."""
FPS = "14GKSIMULATOR0000000000000000000001"
LONGEST = 60.0
"""Seconds that a block may take."""

ENDLESS = re.compile(
    r"^(?!.*&$)(?:[A-Z_]+=\S+ +)*(?:receiver (?:serve|work|simulate|events|refund watch)\b|curl -N"
    r"|(?:python|node) deploy/examples/(?:webhook|mail|follow|consume)).*"
)
"""Commands that run until they are ended: here they are ended when they have said something."""
PRELUDE = """\
set -euo pipefail
until_it_speaks() {
    local said; said=$(mktemp)
    setsid bash -c "$1" > "$said" 2>&1 & local pid=$!
    for _ in $(seq 600); do
        if [ -s "$said" ]; then
            sleep 0.2; cat "$said"
            kill -0 $pid 2>/dev/null || { wait $pid; return; }
            kill -INT -- -$pid 2>/dev/null || true; sleep 0.1; kill -9 -- -$pid 2>/dev/null || true
            local code=0; wait $pid || code=$?
            [ $code != 2 ] || return 2  # it was about to end, as a wrong call
            return 0
        fi
        kill -0 $pid 2>/dev/null || { echo "ended without a word: $1"; return 1; }
        sleep 0.05
    done
    kill -9 -- -$pid; echo "said nothing: $1"; return 1
}
"""


@dataclass
class Ran:
    """How a block ended."""

    code: int
    said: str


@dataclass
class Shop:
    """Everything runs; `declined` is a refund that Amazon has declined, and that the service knows."""

    place: Desk
    url: str
    hook: Hook
    declined: str
    accounts: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "RECEIVER_URL": self.url,
            "RECEIVER_TOKEN": TOKEN,
            "RECEIVER_HTTP__PORT": "0",
            "PATH": f"{self.place.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(self.place.folder),
        }

    def here(self, text: str) -> str:
        """A page's text, with the addresses and ids of this run instead of the examples'."""
        hook, store = self.hook.url, self.place.folder / "receiver-data"
        swaps = {
            "http://127.0.0.1:8000": self.url,
            "http://127.0.0.1:9100": f"http://127.0.0.1:{self._free}",
            "receiver simulate": f"receiver simulate --port {self._free}",
            REFUND: self.declined,
            "https://finance.example/hooks": hook,
            "https://shop.example/hooks": hook,
            "https://alertmanager.example": hook,
            "subscriber add oncall": f"subscriber add oncall {hook}",
            "redis://localhost:6379/0": f"unix://{store / 'valkey.sock'}",
            "127.0.0.1:3000": f"127.0.0.1:{self._other}",
            "webhook.py 3000": f"webhook.py {self._other}",
        }
        for example, real in swaps.items():
            text = text.replace(example, real)
        return text

    def __post_init__(self) -> None:
        self._free, self._other = free_port(), free_port()
        self._groups: list[int] = []

    def end(self) -> None:
        """End the processes that earlier blocks have left behind."""
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._groups.clear()

    def lay_out(self) -> None:
        """Write the files that pages name again as they were at the start, because a page may have changed them."""
        files(self.place.folder, self.accounts, self.hook.url, self.declined)

    async def run_block(self, block: Block) -> Ran:
        """Run a block: commands, or a program in Python."""
        if block.language == "python":
            (self.place.folder / "block.py").write_text(self.here(block.text), "utf-8")
            return await self.run("python block.py")
        return await self.run(block.text)

    async def run(self, text: str, bound: float = LONGEST) -> Ran:
        """Run a block in bash: every line must succeed. What it leaves behind runs on until `end`."""
        script = PRELUDE + "\n".join(map(ended, joined(self.here(text))))
        said = self.place.folder / "said"
        with said.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", script),
                cwd=self.place.folder,
                env=environment(self.environment),
                stdin=DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._groups.append(process.pid)
        try:
            code = await asyncio.wait_for(process.wait(), bound)
        except TimeoutError:
            code = -1
            os.killpg(process.pid, signal.SIGKILL)
        return Ran(code, said.read_text("utf-8", "replace"))


def joined(text: str) -> list[str]:
    """The commands of a block: lines, a backslash or an open quote going on in the next one."""
    found: list[str] = []
    for line in text.split("\n"):
        if found and (found[-1].endswith("\\") or _open(found[-1])):
            found[-1] += "\n" + line
        else:
            found.append(line)
    return found


def _open(text: str) -> bool:
    return bool(re.sub(r"'[^']*'", "", text).count("'"))


def ended(command: str) -> str:
    """The command, or one that ends it when it has spoken."""
    bare = re.sub(r"\s+#[^'\"]*$", "", command)
    return f"until_it_speaks {shlex.quote(bare)}" if ENDLESS.match(bare) else command


def free_port() -> int:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@asynccontextmanager
async def shop() -> AsyncIterator[Shop]:
    """Open it: the service on its own Valkey, in a separate folder, in which blocks are also run."""
    hook = Hook(then=Says(200, {}, b"ok"))
    async with desk() as place, hook.listening(), aiohttp.ClientSession() as web:
        port = free_port()
        amazon = await place.start(
            *("simulate", "--port", "0", "--delay", "0.2", "--unlimited"),
            *("--post-to", f"http://127.0.0.1:{port}/ipn", "--fps-post-to", f"http://127.0.0.1:{port}/fps/us"),
        )
        told = await until(lambda: "curl" in amazon.said and amazon.said, "what the simulator says")
        simulator = str(told[told.rindex("http://") :].split()[0]).partition("/simulator/")[0]
        accounts = told[told.index("[[accounts]]") : told.index("\n\nStart a refund")]
        accounts = accounts.replace('name = "us-sandbox"', 'name = "us"', 1)
        programs(place.folder)
        files(place.folder, accounts)
        service = await place.start("serve", "--config", "receiver.toml", env={"RECEIVER_HTTP__PORT": str(port)})
        url = (await service.line("serve.ready"))["address"]
        await post(web, f"{simulator}/simulator/charges", amount="100.00", currencyCode="USD", chargeId=CHARGE)
        refund = {"amount": "12.00", "currencyCode": "USD", "outcome": "DeclinedAtOnce"}
        made = await post(web, f"{simulator}/simulator/refunds", **refund)
        found = Shop(place, url, hook, made["refundId"], accounts)

        async def known() -> bool:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with web.get(f"{url}/v1/refunds/{found.declined}", headers=headers) as answer:
                return answer.status == 200 and (await answer.json())["final"]

        await until(known, "the service knows the declined refund")
        try:
            yield found
        finally:
            found.end()


async def post(web: aiohttp.ClientSession, url: str, **fields: str) -> Mapping[str, Any]:
    """Have the simulator do something."""
    async with web.post(url, json=fields) as answer:
        assert answer.status == 201, await answer.text()
        found: Mapping[str, Any] = await answer.json()
        return found


def files(folder: Path, accounts: str, hook: str = "", declined: str = "") -> None:
    """Write the files that the pages assume, in addition to the settings."""
    digest = sha256(TOKEN.encode()).hexdigest()
    token = f'[[tokens]]\nname = "me"\nsha256 = "{digest}"\nscopes = ["read", "refund", "admin"]\n'
    local = '[delivery]\nallow_http = true\nallow_networks = ["127.0.0.0/8"]\n'
    signer = SnsSigner()
    captured = {"message": signer.envelope(), "cert_pem": signer.pem.decode()}
    texts = {
        "receiver.toml": f"{local}\n{token}\n{accounts}\n",
        "captured.json": json.dumps(captured),
        "settlement.csv": f"TransactionType,AmazonTransactionId\nRefund,{declined}\n",
        "slack-webhook": hook,
        "teams-webhook": hook,
        "pd-key": "R" * 32,
        "am-auth": "Bearer of-the-test",
        "subscribers.toml": f'[[subscribers]]\nname = "shop"\nurl = "{hook}"\nrate = 20\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o600)


def programs(folder: Path) -> None:
    """`receiver` and `python` on the path, and the project's examples where pages have them."""
    (folder / "deploy").symlink_to(PROJECT / "deploy")
    (folder / "bin").mkdir()
    for name, words in {
        "receiver": shlex.join(FORKS.command()),
        "python": sys.executable,
        "python3": sys.executable,
    }.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
