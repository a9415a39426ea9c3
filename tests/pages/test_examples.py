"""The programs in deploy/examples as they stand, as processes: in Python, and in Node where it is there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from receiver.outbox.events.event import Event
from receiver.outbox.formats.cloudevents import render_body
from tests.commands.kit import REFUND, Server, _Lines
from tests.http.kit import READER
from tests.kit.configuration import SECRET
from tests.kit.processes import until
from tests.outbox.examples import an_event
from tests.pages.kit import DEPLOY

OTHER = "whsec_" + "b3RoZXI=" * 4
EXAMPLES = DEPLOY / "examples"
Start = Callable[..., "Program"]


class Program:
    """An example at work."""

    def __init__(self, name: str, *args: str, **environment: str) -> None:
        language = {".py": sys.executable, ".mjs": shutil.which("node")}[Path(name).suffix]
        if language is None:
            pytest.skip(f"install Node 18 or newer: {name} needs it")
        self.process = subprocess.Popen(
            [language, str(EXAMPLES / name), *args],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out, self.err = _Lines(self.process.stdout), _Lines(self.process.stderr)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.out.close()
        self.err.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start an example; it is ended with the test."""
    started: list[Program] = []

    def start(name: str, *args: str, **environment: str) -> Program:
        started.append(Program(name, *args, **environment))
        return started[-1]

    yield start
    for each in started:
        each.end()


def sent(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The answer to a delivery."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/cloudevents+json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def signed(body: bytes, event_id: str, secret: str = SECRET, ago: float = 0) -> dict[str, str]:
    """The headers, by the library of the standard."""
    at = datetime.now(UTC) - timedelta(seconds=ago)
    signature = Webhook(secret).sign(event_id, at, body.decode())
    return {"webhook-id": event_id, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def told(event: Event, secret: str = SECRET, ago: float = 0) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a delivery."""
    body = render_body(event)
    return body, signed(body, event.id, secret, ago)


@pytest.mark.parametrize("name", ["webhook.py", "webhook.mjs"])
def test_a_webhook_believes_what_is_signed_and_handles_it_once(start: Start, name: str) -> None:
    """With either of two secrets; nothing that is forged, altered, old or unsigned; a repetition is acknowledged."""
    hook = start(name, "0", WEBHOOK_SECRET=f"{SECRET} {OTHER}")
    url = hook.out.next()
    assert url is not None
    first, second = an_event(refund_id="S01-1-1-R1"), an_event(refund_id="S01-1-1-R2")
    body, headers = told(first)
    nobodys = "whsec_" + "bm9ib2R5" * 4
    for wrong_body, wrong_headers in (
        told(first, nobodys),
        told(first, ago=3600),
        told(first, ago=-3600),
        (body.replace(b"14.00", b"99.00"), headers),
        (body, {**headers, "webhook-id": "evt_other"}),
        (body, {**headers, "webhook-signature": "v1,"}),
        (body, {**headers, "webhook-signature": "v2," + headers["webhook-signature"][3:]}),
        (body, {**headers, "webhook-timestamp": "soon"}),
        (body, {}),
    ):
        assert sent(url, wrong_body, wrong_headers) == 401, wrong_headers
    assert sent(url, b"x" * 70_000, signed(b"x" * 70_000, "evt_long")) == 413
    for event, secret in ((first, SECRET), (first, SECRET), (second, OTHER)):
        assert sent(url, *told(event, secret)) == 204
    assert hook.out.next() == "amazonpay.refund.declined S01-1-1-R1 14.00 USD AmazonRejected"
    assert hook.out.next() == "amazonpay.refund.declined S01-1-1-R2 14.00 USD AmazonRejected"


@pytest.mark.parametrize("name", ["webhook.py", "webhook.mjs"])
def test_what_a_webhook_could_not_handle_comes_again(start: Start, name: str) -> None:
    """500, and it is not taken for done."""
    hook = start(name, "0", WEBHOOK_SECRET=SECRET)
    url = hook.out.next()
    assert url is not None
    body = json.dumps({"id": "evt_odd", "type": "amazonpay.refund.declined"}).encode()
    for _ in range(2):
        assert sent(url, body, signed(body, "evt_odd")) == 500
        assert "it comes again" in (hook.err.next() or "")


class Mailbox:
    """A mail server that defers the first mails and accepts all later ones."""

    def __init__(self, refuses: int) -> None:
        self.refuses, self.port = refuses, 0
        self.mails: list[EmailMessage] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Mailbox]:
        listener = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        async with listener:
            yield self

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example\r\n")
        while line := await reader.readline():
            word = line[:4].upper().strip()
            if word == b"DATA":
                writer.write(b"354 go on\r\n")
                raw = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                mail = message_from_bytes(raw, policy=policy.default)
                assert isinstance(mail, EmailMessage)
                self.mails.append(mail)
            if word == b"MAIL" and self.refuses:
                self.refuses -= 1
                writer.write(b"451 later\r\n")
            else:
                writer.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
        writer.close()


async def test_the_mail_bridge_mails_each_event_once(start: Start) -> None:
    """What people need is in it; while the mail server does not take it, the delivery is a 500."""
    async with Mailbox(refuses=1).open() as mailbox:
        people = {"MAIL_FROM": "refunds@shop.example", "MAIL_TO": "finance@shop.example"}
        bridge = start("mail_bridge.py", "0", WEBHOOK_SECRET=SECRET, SMTP=f"smtp://127.0.0.1:{mailbox.port}", **people)
        url = await asyncio.to_thread(bridge.out.next)
        assert url is not None
        event = an_event()
        codes = [await asyncio.to_thread(sent, url, *told(event)) for _ in range(3)]
        assert codes == [500, 204, 204]
    (mail,) = mailbox.mails
    assert mail["To"] == "finance@shop.example"
    assert mail["Subject"] == f"Amazon Pay refund declined {event.refund.refund_id} 14.00 USD"
    text = mail.get_content()
    assert "Reason: AmazonRejected" in text
    assert "1. Look at the balance of the merchant account in Seller Central" in text


@pytest.fixture(scope="module")
def running(valkey_url: str) -> Iterator[Server]:
    """A service for the tests of this file."""
    server = Server(valkey_url)
    yield server
    server.close()


@pytest.fixture
def service(running: Server) -> Server:
    """A service with an empty store."""
    running.empty()
    return running


def access(service: Server, **more: str) -> dict[str, Any]:
    return {"RECEIVER_URL": service.url, "RECEIVER_TOKEN": READER, **more}


@pytest.mark.parametrize("name", ["refund_state.py", "refund_state.mjs"])
def test_the_state_of_a_refund_is_waited_for(service: Server, start: Start, name: str) -> None:
    """Also across a restart of the service; the exit code tells the final state."""
    service.seen()
    waits = start(name, REFUND, **access(service, PATIENCE="60"))
    service.stop()
    service.start()
    service.seen(state="Declined", reason="AmazonRejected")
    assert waits.process.wait(30) == 1
    lines = waits.out.rest()
    assert lines[0] == "Declined 14.00 USD AmazonRejected"
    assert lines[1].startswith("- Look at the balance of the merchant account")
    service.seen("S01-fine", "Refunded")
    service.seen("S01-pending")
    service.seen("S01-both", "Refunded")
    service.seen("S01-both", "Declined", reason="AmazonRejected")
    started = {
        each: start(name, each, **access(service, PATIENCE="0"))
        for each in ("S01-fine", "S01-pending", "S01-unknown", "S01-both")
    }
    codes = {each: program.process.wait(30) for each, program in started.items()}
    assert codes == {"S01-fine": 0, "S01-pending": 2, "S01-unknown": 3, "S01-both": 4}


@pytest.mark.parametrize("name", ["refund_state.py", "refund_state.mjs"])
def test_a_refund_whose_state_is_not_heard_of_is_not_taken_for_declined(
    service: Server, start: Start, name: str
) -> None:
    """Without a service, with a token that it refuses, with an answer of another service, and wrongly called, the exit
    code is a different one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    nothing = start(name, REFUND, **access(service, PATIENCE="0", RECEIVER_URL=url))
    refused = start(name, REFUND, **access(service, RECEIVER_TOKEN="another"))
    other = start(name, "../../openapi.json?x=", **access(service, PATIENCE="0"))
    wrong = [start(name, **access(service)), start(name, REFUND, **access(service, RECEIVER_TOKEN=""))]
    assert [each.process.wait(30) for each in (nothing, refused, other, *wrong)] == [5] * 5
    assert [(each.err.next() or "").startswith("no answer: ") for each in (nothing, refused)] == [True, True]
    assert [(each.err.next() or "").startswith("usage: ") for each in wrong] == [True, True]


def test_ctrl_c_ends_an_example_without_a_traceback(
    service: Server, start: Start, tmp_path: Path, valkey_url: str
) -> None:
    """While it waits for news."""
    service.seen()
    place = tmp_path / "cursor.txt"
    programs = [
        start("refund_state.py", REFUND, **access(service)),
        start("follow_feed.py", str(place), **access(service)),
        start("consume_stream.py", "us", "test", REDIS_URL=valkey_url),
        start("webhook.py", "0", WEBHOOK_SECRET=SECRET),
    ]
    follower, consumer, hook = programs[1:]
    assert all(each.out.next() for each in (follower, consumer, hook))
    for each in programs:
        each.process.send_signal(signal.SIGINT)
    assert [each.process.wait(30) for each in programs] == [130] * 4
    assert not any(each.err.rest() for each in programs)


@pytest.mark.parametrize("name", ["refund_state.py", "refund_state.mjs"])
def test_an_answer_that_breaks_off_is_asked_for_again(start: Start, name: str) -> None:
    """Half an answer is none."""
    body = b'{"final":true,"conflict":false,"refundAmount":null,"advice":null,"statusDetails":{"state":"Refunded"'
    body += b',"reasonCode":null}}'
    line = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    head = line + b"content-length: %d\r\n\r\n" % len(body)
    chunked = line + b"transfer-encoding: chunked\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        waits = start(name, REFUND, RECEIVER_URL=url, RECEIVER_TOKEN=READER)
        for part in (head + body[:20], chunked + b"40\r\n" + body[:20], head + body):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(part)
        assert waits.process.wait(30) == 0
    assert waits.out.rest()[0].split() == ["Refunded", "?"]


@pytest.mark.parametrize("name", ["follow_feed.py", "follow_feed.mjs"])
def test_the_feed_is_followed_over_every_end(service: Server, start: Start, name: str, tmp_path: Path) -> None:
    """Nothing twice and nothing left out when it, or the service, is started again; a loss is said."""
    place = str(tmp_path / "cursor.txt")
    service.seen("S01-1", "Refunded")
    follower = start(name, place, **access(service))
    assert "S01-1" in (follower.out.next() or "")
    service.seen("S01-2", "Declined", reason="AmazonRejected")
    assert "amazonpay.refund.declined S01-2 14.00 USD" in (follower.out.next() or "")
    service.stop()
    service.start()
    before = Path(place).read_text()
    service.seen("S01-3", "Refunded")
    assert "S01-3" in (follower.out.next() or "")
    service.run(until(lambda: Path(place).read_text() != before, "the cursor is written"))
    kept = Path(place).read_text()
    service.seen("S01-4", "Refunded")
    assert "S01-4" in (follower.out.next() or "")
    follower.end()
    Path(place).write_text(kept)
    again = start(name, place, **access(service))
    assert "S01-4" in (again.out.next() or "")
    service.empty()
    service.seen("S01-5", "Refunded")
    assert "events were lost" in again.err.until("lost")
    assert "S01-5" in (again.out.next() or "")
