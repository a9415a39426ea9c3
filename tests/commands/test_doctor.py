"""`receiver doctor` as a process: what it prints where, its exit codes, and that it ends in time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from typing import Any

import pytest

from receiver.commands.doctor.checks import CHECKS, Check, examine
from receiver.commands.doctor.doctor import show
from receiver.commands.doctor.finding import Finding, Status, ok, report
from receiver.commands.doctor.site import Site
from receiver.simulator.app import Simulator
from tests.commands.doctor.kit import silence, site, words
from tests.kit.accounts import merchant_key_pem
from tests.kit.processes import Command, Desk, desk, environment, short_folder
from tests.kit.shared import keys
from tests.kit.valkey import start_valkey, stop_valkey

TOKEN = "token-of-the-test-7f3a"
FIELDS = {"check", "subject", "status", "reason", "found", "fix", "mend"}
BOUND = 20.0


@pytest.fixture
async def place() -> AsyncIterator[Desk]:
    """Where commands are started."""
    async with desk() as found:
        yield found


@pytest.fixture
def durable() -> Iterator[str]:
    """A Valkey that keeps what it confirms."""
    folder = short_folder()
    process, url = start_valkey(folder, "--appendonly", "yes", "--appendfsync", "always")
    yield url
    stop_valkey(process)
    shutil.rmtree(folder, ignore_errors=True)


def settings(url: str, **account: str) -> dict[str, str]:
    """One account, one token, this Redis, and no service."""
    token = {"name": "ops", "sha256": sha256(TOKEN.encode()).hexdigest(), "scopes": ["read", "admin"]}
    fields = {
        "merchant_id": "A2ZABCDEFGHIJ",
        "region": "na",
        "public_key_id": "SANDBOX-AG3EXAMPLE",
        "private_key": merchant_key_pem().decode(),
        "topic_arns": "arn:aws:sns:us-east-1:291180941288:*",
        **account,
    }
    return {
        **{f"RECEIVER_ACCOUNT__{name.upper()}": value for name, value in fields.items()},
        "RECEIVER_REDIS__URL": url,
        "RECEIVER_HTTP__PORT": "0",
        "RECEIVER_TOKENS": json.dumps([token]),
    }


def read(command: Command) -> tuple[dict[str, Any], dict[str, str]]:
    """The JSON object, checked for its form, and its findings that are not ok."""
    [line] = command.said.splitlines()
    told = json.loads(line)
    assert set(told) == {"version", "status", "counts", "findings"}
    assert set(told["counts"]) == {"ok", "skip", "warn", "fail"}
    assert sum(told["counts"].values()) == len(told["findings"])
    for each in told["findings"]:
        assert set(each) == FIELDS
        assert all(isinstance(value, str) for value in each.values())
        assert each["check"]
        assert each["found"]
        assert (each["status"] == "ok") is (not each["reason"])
        assert each["fix"] or each["status"] in ("ok", "skip"), each
        assert each["mend"] == each["fix"], "the old name goes on working"
    return told, {each["check"]: each["reason"] for each in told["findings"] if each["reason"]}


async def test_a_right_installation_offline(place: Desk, durable: str) -> None:
    """Exit code 0; one object on standard output, nothing else anywhere."""
    command = await place.run("doctor", "--offline", "--json", env=settings(durable))
    told, wrong = read(command)
    assert (command.process.returncode, command.complaint) == (0, "")
    assert told["status"] in ("ok", "warn")
    wrong = {check: reason for check, reason in wrong.items() if reason != "slow"}
    assert wrong == {
        "amazon.key": "offline",
        "certificates.host": "offline",
        "service.running": "no_address",
        "subscribers.lane": "not_written_yet",
    }


async def test_the_lines_for_people(place: Desk, durable: str) -> None:
    """Each begins with its status; the fix is below; no colours outside a terminal; exit code 1."""
    async with Simulator(keys=keys(), throttle={}) as amazon:
        env = settings(durable, endpoint=amazon.base_url, public_key_id=amazon.public_key_id)
        command = await place.run("doctor", env=env, bound=BOUND)
    assert (command.process.returncode, command.complaint) == (1, "")
    assert "\x1b" not in command.said
    *lines, empty, last = command.said.splitlines()
    assert empty == ""
    assert last.endswith(" skipped.")
    assert all(line.startswith(("ok ", "warn ", "fail ", "skip ", "      → ")) for line in lines)
    at = next(number for number, line in enumerate(lines) if line.startswith("fail  amazon.key"))
    assert "private_key_file does not belong to public_key_id" in lines[at + 1]


async def test_settings_that_cannot_work(place: Desk) -> None:
    """All problems, as at the start, and no secret; the rest is skipped."""
    env = settings("mysql://:hunter2@h", private_key="hunter2", region="us")
    command = await place.run("doctor", "--json", env=env)
    told, wrong = read(command)
    assert command.process.returncode == 1
    problems = [each["found"] for each in told["findings"] if each["check"] == "configuration.settings"]
    assert [problem.split(":")[0] for problem in problems] == [
        "redis.url",
        "accounts[0].region",
        "accounts[0].private_key_file",
    ]
    assert set(wrong) == {"configuration.settings", *(check.name for check in CHECKS[1:])}
    assert "hunter2" not in command.said + command.complaint


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--url", "ftp://x"), "--url"),
        (("--url", "http://refunds.example"), "--insecure"),
        (("--token-file", "missing"), "--token-file"),
    ],
)
async def test_options_that_cannot_be_used(place: Desk, arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2, before anything is looked at."""
    command = await place.run("doctor", *arguments, env=settings("redis://127.0.0.1:1"))
    assert (command.process.returncode, command.said) == (2, "")
    assert says in command.complaint


async def test_it_ends_in_time_whatever_hangs(place: Desk) -> None:
    """A Redis, an Amazon and a service that take connections and never answer."""
    async with silence() as port:
        address = f"http://127.0.0.1:{port}"
        began = time.monotonic()
        env = settings(f"redis://127.0.0.1:{port}", endpoint=address)
        command = await place.run("doctor", "--json", "--url", address, env=env, bound=60)
        took = time.monotonic() - began
    _, wrong = read(command)
    assert command.process.returncode == 1
    assert (wrong["redis.reachable"], wrong["amazon.reachable"], wrong["service.running"]) == (
        "store_timeout",
        "timeout",
        "timeout",
    )
    assert took < BOUND


async def test_a_thread_that_never_ends_does_not_keep_the_process() -> None:
    """As one that waits for a name server: Python waits for such threads at the end."""
    program = (
        "import sys, threading\n"
        "from receiver.commands.doctor.doctor import end_soon\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "print('report')\n"
        "end_soon(1)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE)
    try:
        async with asyncio.timeout(BOUND):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert (process.returncode, said) == (1, b"report\n")


async def test_nobody_reads_the_report(place: Desk, durable: str) -> None:
    """No traceback, and the exit code of the other commands."""
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "receiver", "doctor", "--offline"),
        cwd=place.folder,
        env=environment(settings(durable)),
        stdout=writing,
        stderr=PIPE,
    )
    os.close(writing)
    _, complaint = await process.communicate()
    assert (process.returncode, complaint) == (141, b"")


async def test_a_check_that_hangs_or_breaks_hinders_no_other() -> None:
    """Each is a finding itself, even if it does not let itself be cancelled."""
    released = asyncio.Event()

    async def hangs(_: Site) -> list[Finding]:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return []

    async def breaks(_: Site) -> list[Finding]:
        raise ZeroDivisionError("hunter2")

    async def works(_: Site) -> list[Finding]:
        return [ok("works", "it does")]

    found = await examine(site(), (Check("a", hangs, 0.05), Check("b", breaks, 1), Check("c", works, 1)))
    released.set()
    assert words(found.findings) == {"a": "timeout", "b": "check_failed"}
    assert ok("works", "it does") in found.findings
    assert "hunter2" not in repr(found)
    assert (found.status, found.exit_code) == (Status.FAIL, 1)


def test_warnings_are_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0; what came from outside cannot steer the terminal."""
    found = report([Finding("a.b", Status.WARN, "odd \x1b[31m name", "look", "odd", "us")])
    assert (found.status, found.exit_code) == (Status.WARN, 0)
    assert report([]).status is Status.OK
    show(found, as_json=False)
    said = capsys.readouterr().out
    assert "us: odd \\x1b[31m name" in said
    assert "\x1b" not in said
    assert "0 ok, 1 warnings, 0 failed, 0 skipped." in said
