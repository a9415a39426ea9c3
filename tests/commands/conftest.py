"""A running service, and commands run against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import structlog
from typer.testing import CliRunner

from receiver.commands.cli import app
from tests.commands.kit import Process, Server
from tests.http.kit import ADMIN, READER

Run = Callable[..., "Ran"]


class Ran:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


@pytest.fixture(scope="module")
def running_server(valkey_url: str) -> Iterator[Server]:
    """One service for the tests of a file. It must not outlive them: it writes to the store that others empty.

    Its log is kept out of the output of the commands that run beside it.
    """
    structlog.configure(logger_factory=structlog.testing.ReturnLoggerFactory())
    server = Server(valkey_url)
    yield server
    server.close()
    structlog.reset_defaults()


@pytest.fixture
def server(running_server: Server) -> Server:
    """The service, with an empty store."""
    running_server.empty()
    return running_server


def run_command(*args: str, input: str | None = None, **environment: str) -> Ran:  # noqa: A002
    """The command in this process, on pipes, at 80 columns."""
    result = CliRunner().invoke(app, args, input=input, env={"COLUMNS": "80", **environment})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def run(server: Server) -> Run:
    """Run a command with the reader's token against the service; `token`, `input` and variables can be given."""

    def ran(*args: str, token: str = READER, input: str | None = None, **more: str) -> Ran:  # noqa: A002
        return run_command(*args, input=input, **{"RECEIVER_URL": server.url, "RECEIVER_TOKEN": token, **more})

    return ran


@pytest.fixture
def admin(run: Run) -> Run:
    """The same with the admin's token."""
    return lambda *args, **more: run(*args, token=ADMIN, **more)


@pytest.fixture
def start(server: Server) -> Iterator[Callable[..., Process]]:
    """Start a command as a process; it is ended with the test."""
    started: list[Process] = []

    def start(*args: str) -> Process:
        started.append(Process(*args, RECEIVER_URL=server.url, RECEIVER_TOKEN=READER))
        return started[-1]

    yield start
    for process in started:
        process.end()
