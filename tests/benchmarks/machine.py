"""Processes on separate cores: the measured process on one, the store and the load on another."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.mail import MERCHANT
from tests.kit.accounts import merchant_key_pem
from tests.kit.sns import TOPIC, SnsSigner
from tests.kit.valkey import start_valkey, stop_valkey

PROJECT = Path(__file__).resolve().parents[2]
TOKEN = "benchmark-token-of-nobody-0000000000"
BOUND = 30.0


@dataclass(frozen=True, slots=True)
class Listening:
    """A measured process and the port that it listens on."""

    port: int
    pid: int

    def cpu(self) -> float:
        """The seconds that it has spent on a processor, in user mode and in the kernel."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def cores() -> tuple[set[int], set[int]]:
    """The core of the measured process, and those of the others; the same core if there is only one."""
    first, *rest = sorted(os.sched_getaffinity(0))
    return {first}, set(rest) or {first}


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


@contextmanager
def started(command: Sequence[str], port: int, log: Path, at: Collection[int]) -> Iterator[subprocess.Popen[bytes]]:
    """A process pinned to these cores, listening; ended afterwards."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            stdout=out,
            stderr=out,
            preexec_fn=lambda: os.sched_setaffinity(0, at),  # noqa: PLW1509 - Linux, before any thread
        )
    try:
        deadline = time.monotonic() + BOUND
        while True:
            with socket.socket() as line:
                if line.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[:4]} does not listen: {log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def valkey(at: set[int]) -> Iterator[tuple[str, Path]]:
    """A durable Valkey: its address, and its folder. Its file is synced for every answer."""
    with TemporaryDirectory(prefix="rb-") as folder:
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, at)
        process, url = start_valkey(Path(folder), "--appendonly", "yes", "--appendfsync", "always")
        os.sched_setaffinity(0, mine)
        try:
            yield url, Path(folder)
        finally:
            stop_valkey(process)


def configuration(
    folder: Path, url: str, port: int, sns: SnsSigner, *more: str, endpoint: str = "", connections: int = 0
) -> Path:
    """A configuration file for production settings: one account, logging and metrics on.

    `connections`: how many the service takes at once, where not as many as by default.
    """
    (folder / "key.pem").write_bytes(merchant_key_pem())
    (folder / "sns.pem").write_bytes(sns.pem)
    path = folder / "receiver.toml"
    path.write_text(
        "\n".join(
            [
                "[redis]",
                f'url = "{url}"',
                "[http]",
                f"port = {port}",
                *([f"connections = {connections}"] if connections else []),
                "[[tokens]]",
                'name = "benchmark"',
                f'sha256 = "{sha256(TOKEN.encode()).hexdigest()}"',
                'scopes = ["read", "admin"]',
                "[[accounts]]",
                'name = "us"',
                f'merchant_id = "{MERCHANT}"',
                'region = "na"',
                'environment = "sandbox"',
                'public_key_id = "SANDBOX-BENCHMARK"',
                f'private_key_file = "{folder / "key.pem"}"',
                f'topic_arns = ["{TOPIC}"]',
                f'signing_certificates = {{ "{sns.url}" = "{folder / "sns.pem"}" }}',
                *([f'endpoint = "{endpoint}"'] if endpoint else []),
                *more,
            ]
        )
    )
    return path


def receiver(*words: str) -> list[str]:
    """A command of the service."""
    return [sys.executable, "-m", "receiver", *words]


def baseline(*words: str) -> list[str]:
    """A command of `baselines.py`."""
    return [sys.executable, "-m", "tests.benchmarks.baselines", *words]


def resident_mib(pid: int) -> float:
    """The resident memory of a process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
