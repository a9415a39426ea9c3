"""`receiver refund watch`, and how commands end as processes: by Ctrl-C, by a reader that goes away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from receiver.client.api import Api
from receiver.commands.refund.watch import ChangeWatcher
from receiver.exchange import Request, Response
from tests.commands.kit import REFUND, REPOSITORY, Process, Server
from tests.commands.test_client import against, answer, refund
from tests.http.kit import READER
from tests.kit.webserver import serving

Start = Callable[..., Process]


def test_one_refund_until_it_is_final(server: Server, start: Start) -> None:
    """What happened before, then what happens; it ends by itself, with exit code 0 also for a decline."""
    server.seen()
    process = start("refund", "watch", REFUND)
    assert (process.out.next() or "").endswith(f"{REFUND}    14.00 USD  RefundInitiated")
    server.seen(state="Declined", reason="ProcessingFailure")
    last = process.out.next() or ""
    assert last.endswith(f"{REFUND}    14.00 USD  DECLINED ProcessingFailure")
    assert len(last) <= 80
    assert process.wait() == 0
    assert process.out.rest() == []


def test_one_refund_with_all_its_history_as_json(server: Server, start: Start) -> None:
    """A line for every revision, each a refund as the API gives it; the last is the API's own."""
    server.seen()
    server.seen(state="Declined", reason="AmazonRejected", description="No.")
    process = start("refund", "watch", REFUND, "--json")
    lines = [json.loads(line) for line in process.out.rest()]
    assert process.wait() == 0
    assert [line["revision"] for line in lines] == [1, 2]
    assert [line["statusDetails"]["state"] for line in lines] == ["RefundInitiated", "Declined"]
    assert [line["statusDetails"]["reasonDescription"] for line in lines] == [None, "No."]
    assert [line["final"] for line in lines] == [False, True]
    assert lines[0].keys() == lines[1].keys()


def test_one_refund_that_nobody_knows_yet_is_waited_for(server: Server, start: Start) -> None:
    """It says so, once."""
    process = start("refund", "watch", REFUND)
    process.err.until("The service does not know this refund")
    server.seen(state="Refunded")
    assert "Refunded" in (process.out.next() or "")
    assert process.wait() == 0


def test_every_refund_until_ctrl_c(server: Server, start: Start) -> None:
    """Only what is new, every change of it, and 130 without a traceback at the end."""
    server.seen("S01-old")
    process = start("refund", "watch")
    process.err.until("Watching all refunds.")
    server.seen("S01-new")
    assert "S01-new" in (process.out.next() or "")
    server.seen("S01-old", "Refunded")
    line = process.out.next() or ""
    assert "S01-old" in line
    assert line.endswith("Refunded")
    server.seen("S01-eu", account="eu")
    assert (process.out.next() or "").endswith("  eu")
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert process.out.rest() == []
    assert "Traceback" not in "\n".join(process.err.rest())


def test_a_restart_of_the_service_loses_no_change(running_server: Server, server: Server, start: Start) -> None:
    """What happened during an outage is shown afterwards, with the steps in between."""
    server.seen("S01-1")
    process = start("refund", "watch", "--json")
    process.err.until("Watching all refunds.")
    server.stop()
    try:
        process.err.until("Trying again in")
        server.run(server.service.start())
        server.seen("S01-1", "Declined", reason="AmazonRejected")
        server.seen("S01-2")
        server.seen("S01-2", "Refunded")
        server.run(server.service.stop())
    finally:
        server.start()
    process.err.until("The service is back.")
    lines = [json.loads(process.out.next() or "") for _ in range(3)]
    assert [(line["refundId"], line["revision"]) for line in lines] == [("S01-1", 2), ("S01-2", 1), ("S01-2", 2)]
    process.signal(signal.SIGINT)
    assert process.wait() == 130


def test_a_service_that_never_answered_is_not_waited_for(start: Start) -> None:
    """The address is wrong, more likely than not."""
    process = start("refund", "watch", "--url", "http://127.0.0.1:9")
    assert process.wait() == 3
    assert "no connection" in (process.err.next() or "")


async def test_a_refusal_ends_the_watch() -> None:
    """A service that is away comes back; a token that is no longer valid does not by waiting."""
    page = answer("200 OK", '{"refunds": []}')
    refused = answer("401 Unauthorized", '{"detail": "Who?", "reason": "token_unknown"}', "application/problem+json")
    answers = [page, page, answer("502 Bad Gateway", "", "text/html", "Retry-After: 0"), page, refused]

    async def says(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))

    async with serving(says) as web:
        ran = await against(web, "refund", "watch")
    assert (ran.code, ran.out, answers) == (1, "", [])
    told = ran.err.splitlines()
    assert told[0] == "receiver: Watching all refunds. Press Ctrl-C to stop."
    assert told[1].endswith("[502 not_the_api] Trying again in 1 s.")
    assert told[2] == "receiver: The service is back."
    assert told[3] == "receiver: Who? [401 token_unknown]"


async def test_an_emptied_store_and_late_writes() -> None:
    """Revisions that begin again are new; a change that is listed late is shown, and none is shown twice."""

    def one(refund_id: str, revision: int, second: int) -> str:
        return json.dumps(refund(refundId=refund_id, account="us", revision=revision, changedAt=at(second)))

    def at(second: int) -> str:
        return f"2025-10-09T08:53:{second:02d}.000Z"

    def page(*refunds: str) -> bytes:
        return f'{{"refunds": [{",".join(refunds)}]}}'.encode()

    revisions = f"[{one('a', 1, 1)},{one('a', 2, 21)},{one('a', 3, 22)}]"
    answers = [
        page(one("b", 2, 20)),
        page(one("b", 2, 20)),
        page(one("a", 3, 22), one("b", 2, 20)),
        f'{{"refundId": "a", "account": "us", "revisions": {revisions}}}'.encode(),
        page(one("b", 1, 30), one("a", 3, 22), one("late", 1, 19)),
        page(one("b", 1, 30), one("a", 3, 22), one("late", 1, 19)),
    ]
    shown: list[tuple[str, int]] = []

    async def send(request: Request, *, timeout: float, max_body: int) -> Response:
        if not answers:
            raise asyncio.CancelledError
        return Response(200, {}, answers.pop(0))

    watch = ChangeWatcher(
        Api(send, "http://127.0.0.1", READER),
        lambda change: shown.append((change["refundId"], change["revision"])),
        lambda lines: None,
        every=0,
    )
    with pytest.raises(asyncio.CancelledError):
        await watch.every()
    assert shown == [("a", 2), ("a", 3), ("late", 1), ("b", 1)]


def test_a_reader_that_goes_away_is_quiet(server: Server) -> None:
    """As with any other tool: no traceback, no message, and the exit code of a shell for SIGPIPE."""
    server.seen()
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "receiver", "refund", "list"],
            cwd=REPOSITORY,
            env={**os.environ, "RECEIVER_URL": server.url, "RECEIVER_TOKEN": READER},
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_a_full_disk_is_told(server: Server) -> None:
    """Results that could not be written are no success."""
    server.seen()
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "receiver", "refund", "get", REFUND],
            cwd=REPOSITORY,
            env={**os.environ, "RECEIVER_URL": server.url, "RECEIVER_TOKEN": READER},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    told = b"receiver: standard output cannot be written: No space left on device.\n"
    assert (ran.returncode, ran.stderr) == (2, told)
