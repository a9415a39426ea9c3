"""What a sender can do with a connection, and that none of it costs memory, time or a genuine notification."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from receiver.errors import VerificationFailed
from receiver.http import protocol
from receiver.http.ipn.endpoint import PER_TURN, Ipn
from receiver.ledger.notification import NotificationOutcome, PostedNotification, Receipt
from receiver.runtime.metrics import Metrics
from receiver.settings import Settings
from receiver.settings.sections import IngestSettings
from receiver.store import Store
from tests.http.kit import Answer, Service, everything, real_receiver, running, serving, settings, until
from tests.kit.sns import SnsSigner

HEAD = b"POST /ipn HTTP/1.1\r\nHost: x\r\n"
LIMIT = 16 * 1024


class Judge:
    """A receiver that accepts every body, or answers as the test says."""

    waiting = 0

    def __init__(self, does: Callable[[], Any] | None = None) -> None:
        self.bodies: list[bytes] = []
        self.does = does

    async def receive(self, posted: PostedNotification) -> Receipt:
        """Count and believe."""
        self.bodies.append(posted.body)
        if self.does is not None:
            await self.does()
        return Receipt(NotificationOutcome.NOTED, age=0, signature_version=1)


def limited(**ingest: Any) -> Settings:
    """Settings with small limits."""
    chosen = settings()
    values = {"max_body": LIMIT, **ingest}
    return chosen.model_copy(update={"ingest": chosen.ingest.model_copy(update=values)})


def status_of(said: bytes) -> int:
    """The status of the only answer."""
    assert said.count(b"HTTP/1.1 ") == 1, said
    return int(said.split(b" ", 2)[1])


async def talk(service: Service, *pieces: bytes) -> bytes:
    """Send the pieces, and read everything until the server closes."""
    reader, writer = await service.connect()
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await everything(reader)
    finally:
        writer.close()


async def test_the_largest_body_passes_and_one_byte_more_does_not(store: Store) -> None:
    """Said by Content-Length or not said, the limit is the same."""
    judge = Judge()

    async def chunks(size: int) -> Any:
        for at in range(0, size, 4096):
            yield bytes(min(4096, size - at))

    async with running(limited(), store, judge) as service:
        for body in (bytes(LIMIT), chunks(LIMIT)):
            assert (await service.call("POST", "/ipn", body=body)).status == 200
        for body in (bytes(LIMIT + 1), chunks(LIMIT + 1)):
            answer = await service.call("POST", "/ipn", body=body)
            assert (answer.status, answer.body) == (413, b"")
        assert [len(body) for body in judge.bodies] == [LIMIT, LIMIT]
        assert service.counted("refused", "too_large") == 2


async def test_a_length_over_the_limit_is_refused_before_the_body(store: Store) -> None:
    """Nothing of it is waited for."""
    async with running(limited(), store, Judge()) as service:
        reader, writer = await service.connect()
        writer.write(HEAD + b"Content-Length: 99999999\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        assert status_of(head) == 413
        assert b"connection: close" in head.lower()
        writer.close()
        huge = await talk(service, HEAD + b"Content-Length: " + b"9" * 300 + b"\r\n\r\n")
        assert huge == b"" or status_of(huge) in (400, 413)


async def test_an_early_answer_reaches_a_sender_that_goes_on_sending(store: Store) -> None:
    """Closing at once would reset the connection, and the 413 would be lost: what comes is read for a while."""
    async with running(limited(), store, Judge()) as service:
        reader, writer = await service.connect()
        writer.write(HEAD + b"Content-Length: 500000\r\n\r\n")
        await until(lambda: service.counted("refused", "too_large") == 1)
        for _ in range(10):
            writer.write(bytes(50_000))
            await writer.drain()
            await asyncio.sleep(0)
        assert status_of(await everything(reader)) == 413
        writer.close()


async def test_an_endless_chunked_body_is_cut_off(store: Store) -> None:
    """413 at the limit, and the connection ends however long the sender goes on."""
    async with running(limited(), store, Judge()) as service:
        reader, writer = await service.connect()
        heard = asyncio.ensure_future(everything(reader))
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        try:
            async with asyncio.timeout(30):
                while not heard.done():
                    writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
                    await writer.drain()
                    sent += 4096
                    await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert status_of(await heard) == 413
        assert sent < 64 * 1024 * 1024
        writer.close()


async def test_a_slow_body_gets_no_answer(store: Store) -> None:
    """The connection just ends: 408 would tell SNS never to send it again."""
    async with running(limited(body_timeout=timedelta(seconds=0.3)), store, Judge()) as service:
        reader, writer = await service.connect()
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n")
        heard = asyncio.ensure_future(everything(reader))
        while not heard.done():
            writer.write(b"x")
            await asyncio.wait({heard}, timeout=0.05)
        assert await heard == b""
        assert service.counted("dropped", "body_timeout") == 1
        writer.close()


async def test_a_length_that_promises_too_much_gets_no_answer(store: Store) -> None:
    """Waiting for bytes that never come ends like a slow body."""
    judge = Judge()
    async with running(limited(body_timeout=timedelta(seconds=0.3)), store, judge) as service:
        assert await talk(service, HEAD + b"Content-Length: 50\r\n\r\n", b"only this") == b""
        assert judge.bodies == []


async def test_a_length_that_promises_too_little_cuts_the_body(store: Store) -> None:
    """The rest is taken for a second request, which it is not: 400, and the connection ends."""
    judge = Judge()
    async with running(limited(), store, judge) as service:
        said = await talk(service, HEAD + b"Content-Length: 4\r\n\r\nbodyGARBAGE \x00\r\n\r\n")
        assert judge.bodies in ([], [b"body"])
        assert b" 400 " in said


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: -4\r\n",
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"No colon here\r\n",
        b"X: " + b"y" * 40_000 + b"\r\n",
        b"".join(b"X-%d: y\r\n" % number for number in range(9_000)),
    ],
)
async def test_heads_that_nobody_honest_sends_are_refused(store: Store, head: bytes) -> None:
    """Ambiguous lengths (request smuggling), unknown encodings, endless heads: 400, and nothing gets in."""
    judge = Judge()
    async with running(limited(body_timeout=timedelta(seconds=0.3)), store, judge) as service:
        said = await talk(service, HEAD + head + b"\r\nbody")
        assert said == b"" or status_of(said) == 400
        assert judge.bodies == []


async def test_a_head_that_never_ends_is_dropped(store: Store) -> None:
    """A connection that says nothing, or half a head, is closed after the head's time."""
    chosen = limited()
    brisk = chosen.model_copy(
        update={"http": chosen.http.model_copy(update={"header_timeout": timedelta(seconds=0.3)})}
    )
    async with running(brisk, store, Judge()) as service:
        assert await talk(service, b"") == b""
        assert await talk(service, HEAD) == b""
        # Also where a first request on the same connection was answered.
        whole = HEAD + b"Content-Length: 4\r\n\r\nbody"
        assert status_of(await talk(service, whole, HEAD)) == 200


async def test_a_header_without_an_end_is_cut_long_before_its_time(store: Store) -> None:
    """The parser keeps it to itself and would grow with it: the connection is gone after some hundred KiB."""
    async with running(limited(), store, Judge()) as service:
        _, writer = await service.connect()
        sent = 0
        writer.write(HEAD + b"X-Endless: ")
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(30):
                while sent < 64 * 1024 * 1024:
                    writer.write(b"a" * 65536)
                    await writer.drain()
                    sent += 65536
        writer.close()
        assert sent < 16 * 1024 * 1024


async def test_a_sender_that_leaves_is_noted(store: Store) -> None:
    """Half a body and gone: no one to answer, nothing written, one count."""
    judge = Judge()
    async with running(limited(), store, judge) as service:
        with capture_logs() as lines:
            _, writer = await service.connect()
            writer.write(HEAD + b"Content-Length: 100\r\n\r\nhalf")
            await writer.drain()
            writer.close()
            await until(lambda: service.counted("dropped", "disconnected") == 1)
        assert judge.bodies == []
        assert [line["event"] for line in lines if line["event"].startswith("ipn")] == ["ipn.dropped"]


async def test_more_at_once_than_allowed_is_503(store: Store) -> None:
    """The next one is asked to come again in two seconds; the one under way is answered."""
    gate = asyncio.Event()
    judge = Judge(gate.wait)
    async with running(limited(concurrency=1), store, judge) as service:
        first = asyncio.ensure_future(service.call("POST", "/ipn", body=b"1"))
        await until(lambda: len(judge.bodies) == 1)
        second = await service.call("POST", "/ipn", body=b"2")
        assert (second.status, second.headers["Retry-After"], second.body) == (503, "2", b"")
        gate.set()
        assert (await first).status == 200
        assert (await service.call("POST", "/ipn", body=b"3")).status == 200
        assert service.counted("unavailable", "overloaded") == 1


async def test_a_connection_whose_request_was_shed_rests(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its 503 comes at once; what it sends next is read later, and is not lost. All others are served meanwhile."""
    monkeypatch.setattr(protocol, "REST_SECONDS", 0.5)
    gate, loop = asyncio.Event(), asyncio.get_running_loop()
    judge = Judge(gate.wait)
    whole = HEAD + b"Content-Length: 4\r\n\r\n"
    async with running(limited(concurrency=1), store, judge) as service:
        first = asyncio.ensure_future(service.call("POST", "/ipn", body=b"1"))
        await until(lambda: len(judge.bodies) == 1)
        reader, writer = await service.connect()
        writer.write(whole + b"shed")
        assert status_of(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)) == 503
        rests_from = loop.time()
        gate.set()
        assert (await first).status == 200
        writer.write(whole + b"next")
        assert (await service.call("POST", "/ipn", body=b"other")).status == 200
        assert judge.bodies == [b"1", b"other"]
        assert status_of(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)) == 200
        assert loop.time() - rests_from >= 0.4
        assert judge.bodies[-1] == b"next"
        writer.write(whole + b"last")
        assert status_of(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)) == 200
        writer.close()


async def test_a_crowd_waits_unread(store: Store) -> None:
    """While more than half of the places are taken, a connection that has carried a notification is not read. A new
    connection finds the other half. What waits is not lost."""
    gate = asyncio.Event()

    async def slow() -> None:
        if judge.bodies[-1] == b"slow":
            await gate.wait()

    judge, whole = Judge(slow), HEAD + b"Content-Length: 4\r\n\r\n"
    async with running(limited(concurrency=4), store, judge) as service:
        crowd = [await service.connect() for _ in range(3)]
        for _, writer in crowd:
            writer.write(whole + b"slow")
        await until(lambda: len(judge.bodies) == 3)
        reader, writer = await service.connect()
        writer.write(whole + b"fast")
        assert status_of(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)) == 200
        writer.write(whole + b"next")
        for _ in range(3):
            assert (await service.call("POST", "/ipn", body=b"other", headers={"Connection": "close"})).status == 200
        assert judge.bodies[3:] == [b"fast", b"other", b"other", b"other"]
        gate.set()
        assert status_of(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)) == 200
        assert judge.bodies[-1] == b"next"
        for one, _ in crowd:
            assert status_of(await asyncio.wait_for(one.readuntil(b"\r\n\r\n"), 30)) == 200
        for _, line in [*crowd, (reader, writer)]:
            line.close()


async def test_who_leaves_while_its_connection_waits_unread_leaves_nothing(store: Store) -> None:
    """It is gone when the others are answered."""
    gate = asyncio.Event()
    judge = Judge(gate.wait)
    whole = HEAD + b"Content-Length: 4\r\n\r\n"
    async with running(limited(concurrency=4), store, judge) as service:
        crowd = [await service.connect() for _ in range(4)]
        for _, writer in crowd:
            writer.write(whole + b"slow" + whole[:20])
        await until(lambda: len(judge.bodies) == 4)
        crowd[0][1].transport.abort()
        gate.set()
        for reader, _ in crowd[1:]:
            assert status_of(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)) == 200
        for _, writer in crowd[1:]:
            writer.close()
        assert (await service.call("POST", "/ipn", body=b"last")).status == 200


async def test_who_leaves_while_its_connection_rests_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender hangs up, or the server ends: the connection is gone with its rest."""
    monkeypatch.setattr(protocol, "REST_SECONDS", 0.2)
    judge = Judge(asyncio.Event().wait)
    async with running(limited(concurrency=1, answer_timeout=timedelta(seconds=1)), store, judge) as service:
        first = asyncio.ensure_future(service.call("POST", "/ipn", body=b"1"))
        await until(lambda: len(judge.bodies) == 1)
        for _ in range(5):
            reader, writer = await service.connect()
            writer.write(HEAD + b"Content-Length: 4\r\n\r\nshed")
            assert status_of(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)) == 503
            writer.close()
        assert (await first).status == 503


async def test_the_head_has_16_kib(store: Store) -> None:
    """All headers together, however they are divided."""
    async with running(limited(), store, Judge()) as service:
        for size, status in ((15_900, 200), (16_500, 400)):
            for count in (1, 10):
                part = size // count - 3
                heads = b"".join(b"X-%d: %s\r\n" % (number, b"y" * part) for number in range(count))
                end = b"Content-Length: 4\r\nConnection: close\r\n\r\nbody"
                assert status_of(await talk(service, HEAD + heads + end)) == status


async def test_slow_bodies_take_no_places(store: Store) -> None:
    """A hundred slow senders keep no other out: a place is taken only by a body that is whole."""
    async with running(limited(concurrency=1), store, Judge()) as service:
        idle = [await service.connect() for _ in range(100)]
        for _, writer in idle:
            writer.write(HEAD + b"Content-Length: 100\r\n\r\nx")
        assert (await service.call("POST", "/ipn", body=b"genuine")).status == 200
        for _, writer in idle:
            writer.close()


async def test_bodies_held_at_once_are_bounded(store: Store) -> None:
    """Over the bound a body is refused for now; when the others have gone there is room again."""
    async with running(limited(max_buffered=20_000), store, Judge()) as service:
        reader, writer = await service.connect()
        writer.write(HEAD + b"Content-Length: 16000\r\n\r\n" + bytes(15_000))
        await writer.drain()
        for _ in range(500):
            answer = await service.call("POST", "/ipn", body=bytes(10_000))
            if answer.status != 200:
                break
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        writer.write(bytes(1_000))
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)
        writer.close()
        assert (await service.call("POST", "/ipn", body=bytes(10_000))).status == 200


@pytest.mark.parametrize("amazon", ["192.0.2.1", "198.51.100.1"])
async def test_the_client_that_holds_the_most_gives_way(amazon: str) -> None:
    """A stranger's large body fills the room, unfinished. It ends with 503, and Amazon's is read: also where both have
    one address."""
    trusted = {"http": settings().http.model_copy(update={"trusted_proxies": (ip_network("127.0.0.0/8"),)})}
    chosen = limited(max_buffered=60_000, max_body=64 * 1024).model_copy(update=trusted)
    metrics = Metrics()
    ipn = Ipn(Judge(), chosen.ingest, metrics)
    async with serving(ipn, chosen, metrics) as service:
        reader, writer = await service.connect()
        writer.write(HEAD + b"X-Forwarded-For: 198.51.100.1\r\nContent-Length: 60000\r\n\r\n" + bytes(55_000))
        await until(lambda: ipn._held.total == 55_000)
        answer = await service.call("POST", "/ipn", body=bytes(10_000), headers={"X-Forwarded-For": amazon})
        assert answer.status == 200
        assert status_of(await everything(reader)) == 503
        assert service.counted("unavailable", "overloaded") == 1
        assert ipn._held.total == 0
        writer.close()


async def test_an_answer_that_takes_too_long_is_503(store: Store) -> None:
    """SNS hangs up after 15 seconds; better to say 503 before."""
    judge = Judge(asyncio.Event().wait)
    async with running(limited(answer_timeout=timedelta(seconds=0.2)), store, judge) as service:
        answer = await service.call("POST", "/ipn", body=b"x")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert service.counted("unavailable", "answer_timeout") == 1


async def test_a_fault_of_ours_is_500_with_nothing_of_it_outside(store: Store) -> None:
    """The traceback is in the log, the body is not, and SNS is asked to come again."""

    async def broken() -> None:
        raise KeyError("inner-detail")

    async with running(limited(), store, Judge(broken)) as service:
        with capture_logs() as lines:
            answer = await service.call("POST", "/ipn", body=b"hunter2")
        assert (answer.status, answer.headers["Retry-After"], answer.body) == (500, "60", b"")
        assert [line["event"] for line in lines if line.get("exc_info")] == ["ipn.failed"]
        assert "hunter2" not in repr(lines)


async def test_one_connection_carries_many_notifications(store: Store) -> None:
    """SNS keeps its connections: a refusal of a body that was read does not end one, an answer before the body does."""
    answers = []
    judge = Judge()

    async def judged() -> None:
        if judge.bodies[-1] == b"fake":
            raise VerificationFailed()

    judge.does = judged
    async with running(limited(), store, judge) as service:
        reader, writer = await service.connect()
        for body, extra in ((b"body", b""), (b"fake", b""), (b"body", b""), (b"body", b"Content-Encoding: x\r\n")):
            writer.write(HEAD + extra + b"Content-Length: 4\r\n\r\n" + body)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            answers.append((int(head.split(b" ")[1]), b"connection: close" in head.lower()))
        writer.close()
    assert answers == [(200, False), (403, False), (200, False), (415, True)]


async def test_a_server_that_cannot_drop_answers_503(store: Store) -> None:
    """Under another server than ours a slow body is 503 instead, which SNS sends again."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(message: Any) -> None:
        sent.append(message)

    limits = IngestSettings(body_timeout=timedelta(seconds=0.05))
    scope = {"method": "POST", "path": "/ipn", "headers": [], "type": "http"}
    await Ipn(Judge(), limits, Metrics())(scope, receive, send)
    assert sent[0]["status"] == 503


async def asked(ipn: Ipn, body: bytes, headers: list[tuple[bytes, bytes]]) -> Answer:
    """One request without a socket."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await ipn({"type": "http", "method": "POST", "path": "/ipn", "headers": headers}, receive, send)
    return Answer(sent[0]["status"], {}, b"".join(message.get("body", b"") for message in sent))


async def test_many_at_once_are_judged_a_few_in_each_turn() -> None:
    """What is shed is answered in the turn in which it comes: it does not wait until all before it have been judged."""
    done = asyncio.Event()
    judge, order, count = Judge(done.wait), list[tuple[int, int]](), 3 * PER_TURN
    ipn = Ipn(judge, IngestSettings(concurrency=count), Metrics())

    async def one(number: int) -> None:
        answer = await asked(ipn, b"", [])
        order.append((answer.status, len(judge.bodies)))
        if len(order) == 5:
            done.set()

    await asyncio.gather(*(one(number) for number in range(count + 5)))
    assert [judged for status, judged in order if status == 503] == [PER_TURN] * 5
    assert [status for status, _ in order].count(200) == count == len(judge.bodies)


NAMES = st.sampled_from([b"content-encoding", b"content-length", b"x-amz-sns-message-type", b"x-amz-sns-rawdelivery"])


@pytest.fixture
def ipn(sns: SnsSigner) -> Ipn:
    """The endpoint with the real receiver behind it. No body here is signed, so there is no store to write to."""
    return Ipn(real_receiver(sns, cast(Store, None)), IngestSettings(), Metrics())


@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300) | st.text().map(str.encode), st.lists(st.tuples(NAMES, st.binary(max_size=30))))
async def test_no_body_and_no_header_makes_a_500(ipn: Ipn, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever comes in, the answer is one of the table's, and empty."""
    answer = await asked(ipn, body, headers)
    assert answer.status in (400, 403, 413, 415, 503)
    assert answer.body == b""
