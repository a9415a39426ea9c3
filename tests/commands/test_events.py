"""`receiver events tail` and `forward`: live, across a restart of the service, and with a message about lost events."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import standardwebhooks

from receiver.client import feed
from receiver.client.api import Api
from receiver.client.retrying import RetryingCaller
from receiver.exchange import Request, Response
from receiver.ledger.age import DAY
from receiver.ledger.dispute import Dispute, Reminder
from receiver.ledger.money import Money
from receiver.outbox.events.dispute_event import dispute_event, dispute_fields
from tests.commands.kit import REFUND, Process, Server
from tests.kit.clock import T0

Start = Callable[..., Process]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "S01-5105180-3221187-R000002"


def test_tail_prints_what_happens(server: Server, start: Start) -> None:
    """From now on, a line each, with the account where there are several; 130 at the end, and the cursor."""
    server.seen("S01-old")
    process = start("events", "tail")
    process.err.until("Following events.")
    server.seen()
    assert (process.out.next() or "").endswith(f"{REFUND}    14.00 USD  RefundInitiated")
    server.seen(state="Declined", reason="AmazonRejected")
    line = process.out.next() or ""
    assert line.endswith(f"{REFUND}    14.00 USD  DECLINED AmazonRejected")
    assert len(line) <= 80
    server.seen(OTHER, "Refunded", account="eu")
    assert (process.out.next() or "").endswith("Refunded  eu")
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert process.out.rest() == []
    cursor = process.err.until("To continue from here: --after ").rpartition(" ")[2]
    server.seen(OTHER, "Declined", account="eu")
    again = start("events", "tail", "--after", cursor, "--json")
    event = json.loads(again.out.next() or "")
    assert (event["type"], event["subject"]) == ("amazonpay.refund.conflict", OTHER)


def test_tail_prints_a_dispute_to_answer_where_it_is_asked_for(server: Server, start: Start) -> None:
    """With the deadline, in capitals; the feed without a type has the refunds alone."""
    dispute = Dispute(
        dispute_id="S01-5105180-3221187-B000001",
        charge_permission_id="S01-5105180-3221187",
        amount=Money.parse("400.00", "USD"),
        state="ActionRequired",
        deadline=T0 + 11 * DAY,
    )
    fields = dispute_fields(dispute_event("us", dispute, Reminder.KNOWN, T0))
    flat = [text for pair in fields.items() for text in pair]
    client = server.service.store.connection.client
    server.run(client.execute_command("XADD", "refunds:{us}:events", "*", *flat))
    server.seen()
    refunds = start("events", "tail", "--after", "beginning")
    assert REFUND in (refunds.out.next() or "")
    disputes = start("events", "tail", "--after", "beginning", "--type", "dispute.action_required")
    line = disputes.out.next() or ""
    assert "S01-5105180-3221187-B000001   400.00 USD  ANSWER BY 2025-10-20 08:53" in line
    as_json = start("events", "tail", "--after", "beginning", "--type", "dispute.action_required", "--json")
    assert json.loads(as_json.out.next() or "")["data"]["merchantResponseDeadline"] == "20251020T085320Z"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("command", [("events", "tail"), ("refund", "watch")])
def test_what_is_followed_ends_in_order_at_every_signal(
    server: Server, start: Start, command: tuple[str, str], number: int, code: int
) -> None:
    """No traceback; the exit code is that of a shell, and `events` says where to go on."""
    process = start(*command)
    process.err.until("Following" if command[0] == "events" else "Watching")
    server.seen()
    assert REFUND in (process.out.next() or "")
    process.signal(number)
    assert process.wait() == code
    last = [line.rpartition(" ")[0] for line in process.err.rest() if not line.endswith("(UTC)")]
    assert last == (["receiver: To continue from here: --after"] if command[0] == "events" else [])


def test_tail_filters(server: Server, start: Start) -> None:
    """By type, reason and account, from the beginning."""
    server.seen(state="Refunded")
    server.seen(OTHER, "Declined", reason="ProcessingFailure")
    server.seen("S01-eu", "Declined", reason="AmazonRejected", account="eu")
    server.seen("S01-us", "Declined", reason="AmazonRejected")
    options = ("--type", "declined", "--reason", "AmazonRejected", "--account", "us", "--after", "beginning")
    process = start("events", "tail", *options)
    assert "S01-us" in (process.out.next() or "")
    assert process.err.next() == "receiver: Following events. Press Ctrl-C to stop."


def test_tail_resumes_after_a_restart(server: Server, start: Start) -> None:
    """It says so, and leaves nothing out."""
    process = start("events", "tail")
    process.err.until("Following events.")
    server.seen()
    assert REFUND in (process.out.next() or "")
    server.stop()
    process.err.until("Trying again in 1 s.")
    server.start()
    server.seen(OTHER)
    assert OTHER in (process.out.next() or "")
    process.err.until("The service is back.")


def test_tail_says_what_was_lost(server: Server, start: Start) -> None:
    """The store was emptied under it."""
    process = start("events", "tail")
    process.err.until("Following events.")
    server.empty()
    server.seen()
    process.err.until("the store was emptied")
    assert REFUND in (process.out.next() or "")


@pytest.mark.parametrize(
    ("options", "says", "code"),
    [
        (("tail", "--after", "nonsense"), "[400 bad_cursor]", 1),
        (("tail", "--type", "decline"), "Did you mean declined?", 1),
        (("forward", "--to", "nowhere"), "--to: is not a URL", 2),
        (("forward", "--to", "http://127.0.0.1:1", "--secret", "hush"), "--secret: does not begin with whsec_", 2),
        (("forward",), "Missing option '--to'", 2),
    ],
)
def test_wrong_usage(server: Server, start: Start, options: tuple[str, ...], says: str, code: int) -> None:
    """A sentence, an exit code, no traceback, and never the secret."""
    process = start("events", *options)
    assert process.wait() == code
    told = "\n".join(process.err.rest())
    assert says in told
    assert "Traceback" not in told
    assert "hush" not in told


class Target:
    """A program under development: gives the chosen answers in turn, the last for ever; the requests are kept."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.url = ""


@contextmanager
def target(*statuses: int) -> Iterator[Target]:
    found = Target(*statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status = found.statuses.pop(0) if len(found.statuses) > 1 else found.statuses[0]
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silence."""

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{web.server_address[1]}/hooks"
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


def test_forward_posts_what_webhooks_get(server: Server, start: Start) -> None:
    """Signed with a secret that it prints; a library of the standard verifies it."""
    with target(204) as hook:
        process = start("events", "forward", "--to", hook.url)
        secret = process.err.until("Signed with whsec_").rpartition(" ")[2]
        process.err.until("Forwarding events to http://127.0.0.1:")
        server.seen(state="Declined", reason="AmazonRejected")
        assert process.out.next() == f"declined   {REFUND}  204"
        [(headers, body)] = hook.requests
        event = standardwebhooks.Webhook(secret).verify(body, headers)
        assert (event["type"], event["subject"]) == ("amazonpay.refund.declined", REFUND)
        assert event["id"] == headers["webhook-id"]
        assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
        process.signal(signal.SIGINT)
        assert process.wait() == 130


def test_forward_tries_again_and_passes_over(server: Server, start: Start) -> None:
    """A target that fails is tried three times; the next event is not held up for ever."""
    server.seen(state="Declined", reason="AmazonRejected")
    server.seen(OTHER, "Refunded")
    with target(500, 503, 500, 404, 200) as hook:
        process = start("events", "forward", "--to", hook.url, "--secret", SECRET, "--after", "beginning")
        assert process.out.next() == f"declined   {REFUND}  500  skipped after 3 attempts"
        assert process.out.next() == f"refunded   {OTHER}  200  after 2 attempts"
        assert len({headers["webhook-id"] for headers, _ in hook.requests[:3]}) == 1
        for headers, body in hook.requests:
            standardwebhooks.Webhook(SECRET).verify(body, headers)
        process.signal(signal.SIGINT)
        assert process.wait() == 130
        assert SECRET not in "\n".join(process.err.rest())


def test_forward_as_json(server: Server, start: Start) -> None:
    """Without a listener: the reason replaces the status."""
    server.seen(state="Refunded")
    process = start("events", "forward", "--to", "http://127.0.0.1:1/", "--after", "beginning", "--json")
    told = json.loads(process.out.next() or "")
    assert (told["type"], told["answer"], told["tries"], told["taken"]) == (
        "amazonpay.refund.refunded",
        "connect_failed",
        3,
        False,
    )


async def test_a_service_that_does_not_wait_is_not_asked_in_a_rush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something in between may answer long polls at once."""
    monkeypatch.setattr(feed, "LEAST", 0.05)
    asked = 0

    async def send(request: Request, *, timeout: float, max_body: int) -> Response:
        nonlocal asked
        asked += 1
        return Response(200, {}, b'{"events": [], "after": "us:1-1:1:abcdef", "more": false}')

    async def read() -> None:
        api = Api(send, "http://127.0.0.1", "token")
        steadily = RetryingCaller(api, lambda error, seconds: None)
        async for _ in feed.EventFollower(api, steadily, types=(), reasons=(), after="").pages():
            pass

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.5)
    assert 2 <= asked <= 12
