"""A plain Valkey for tests: real, on a Unix socket in a directory of the test, without persistence unless asked for."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from receiver.store.embedded.program import find_program

BOUND = 20.0
"""Seconds in which a Valkey is up, or down."""


def start_valkey(directory: Path, *args: str) -> tuple[subprocess.Popen[bytes], str]:
    """Starts a Valkey that keeps its files in `directory` and returns it, answering, with its `unix://` URL.

    `args` are more of Valkey's own options, such as `"--appendonly", "yes"`. End it with `stop_valkey`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "valkey.sock"
    settings = ["--port", "0", "--dir", str(directory), "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    command = [str(find_program().path), *settings, "--set-proc-title", "no", *args]
    with (directory / "valkey.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    deadline = time.monotonic() + BOUND
    while not _answers(path):
        if process.poll() is not None or time.monotonic() > deadline:
            stop_valkey(process)
            raise RuntimeError(f"Valkey does not start in {directory}: {(directory / 'valkey.log').read_text()[-500:]}")
        time.sleep(0.01)
    return process, f"unix://{quote(str(path))}"


def stop_valkey(process: subprocess.Popen[bytes]) -> None:
    """Ends the server at once, and returns when it is gone."""
    process.kill()
    process.wait(BOUND)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(1.0)
        try:
            line.connect(str(path))
            line.sendall(b"PING\r\n")
            return line.recv(16).startswith(b"+PONG")
        except OSError:
            return False
