"""Baseline N: a simple receiver with express, sns-validator and ioredis; see `node/receiver.js`.

It is left out if Node or the packages are missing; nothing is downloaded here. This installs them, in the versions of
`node/package.json` (git ignores the folder):

    npm install --no-package-lock --ignore-scripts --prefix tests/benchmarks/node
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import uvloop
from redis import Redis

from tests.benchmarks import load, mail
from tests.benchmarks.machine import Listening, free_port, started
from tests.kit.sns import REFUND_ID, SnsSigner

FOLDER = Path(__file__).with_name("node")
INSTALL = "npm install --no-package-lock --ignore-scripts --prefix tests/benchmarks/node"
CHECKED = 10**8 + 1
"""The number of the refund that the check writes."""


def missing(folder: Path = FOLDER) -> str:
    """What N lacks, as text; empty if it can run."""
    if shutil.which("node") is None:
        return "node is not installed"
    for name, version in json.loads((folder / "package.json").read_text())["dependencies"].items():
        try:
            found = json.loads((folder / "node_modules" / name / "package.json").read_text())["version"]
        except FileNotFoundError:
            return f"{name} {version} is not installed"
        if found != version:
            return f"{name} is installed in version {found}, not {version}"
    return ""


@contextmanager
def node_receiver(url: str, folder: Path, core: Collection[int], sns: SnsSigner) -> Iterator[Listening]:
    """N on this store and core. `folder` takes the certificate and the log.

    Raises `SystemExit` unless it believes a true notification, writes it, and refuses a forged one.
    """
    certificate = folder / "node.pem"
    certificate.write_bytes(sns.pem)
    port = free_port()
    run: Sequence[str] = (
        *("env", "NODE_ENV=production", "node", str(FOLDER / "receiver.js")),
        *(str(port), unquote(urlsplit(url).path), sns.url, str(certificate)),
    )
    with started(run, port, folder / "node.log", core) as process:
        check_that_it_verifies(port, url, sns)
        yield Listening(port, process.pid)


def check_that_it_verifies(port: int, url: str, sns: SnsSigner) -> None:
    """Check that it does verify, as a baseline must. Raises `SystemExit` with the wrong answer."""
    at, true = mail.now(), mail.refund_id(CHECKED)
    tried = {
        "a forged notification": (mail.wrong_signature(sns, at, CHECKED), 403, REFUND_ID),
        "a true one, signed with SHA-1": (mail.post(sns, at, 1, CHECKED), 200, true),
        "a true one, signed with SHA-256": (mail.post(sns, at, 2, CHECKED), 200, true),
    }
    with Redis.from_url(url) as client:
        for what, (whole, expected, refund_id) in tried.items():
            key = f"baseline:{refund_id}"
            client.delete(key)
            found = set(uvloop.run(load.closed(port, iter([whole]), 0.01, lines=1)).statuses)
            if found != {expected}:
                raise SystemExit(f"N does not verify: {what} got {found}, not {expected}.")
            if (client.get(key) is not None) != (expected == 200):
                raise SystemExit(f"N does not do its work: {what} got {expected}, and the store says otherwise.")


def ran_by(folder: Path = FOLDER) -> str:
    """The packages of N and their versions."""
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    return ", ".join(f"{name} {version}" for name, version in wanted.items())
