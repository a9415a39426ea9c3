"""The real command on its own Valkey, killed, stopped and doubled: what was acknowledged is never lost."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from receiver.store.redis.keys import Keys
from tests.kit.processes import Desk, until
from tests.service.crash_kit import TOKEN, Load, World
from tests.store.embedded_kit import client, lives, servers

LANE_WIDTH = 8
"""Deliveries under way at once to one subscriber: so many may be repeated after each `kill -9`."""
LEASE = 22.0
"""Seconds until the claims of a killed worker expire: the timeout of its requests and 20 s."""


async def looked_after(url: str) -> set[str]:
    """The refunds that a store knows of or means to ask about, read behind the service's back."""
    keys = Keys("us")
    async with client(url) as redis:
        # In this order: meanwhile a worker takes one out of the first two when it writes the third.
        meant = {*await redis.zrange(keys("hinted"), 0, -1), *await redis.zrange(keys("due"), 0, -1)}
        return meant | {key.rpartition(":")[2] async for key in redis.scan_iter(match=keys("refund", "*"), count=1000)}


async def test_kill_9_in_the_middle_of_load_loses_nothing_acknowledged(place: Desk, around: World) -> None:
    """First the server alone, whose Valkey the next one adopts, then both: every refund ends in its true state, and
    every final event arrives. What the subscriber had taken, but not answered, comes again under the same id."""
    config = around.configure(place.folder)
    first = await around.at(await place.serve(config))
    valkey = (await first.line("store.started"))["pid"]
    async with Load(around, 300).running() as load:
        await until(lambda: len(load.acknowledged) >= 100, "100 acknowledged")
        async with in_flight(around):
            await first.kill()
        acknowledged = set(load.acknowledged)
        assert lives(valkey)
        assert acknowledged <= await looked_after(first.logged("store.started")[0]["url"])

        second = await around.at(await place.serve(config))
        attached = await second.line("store.attached")
        assert (attached["pid"], attached["owner"]) == (valkey, True)
        await until(lambda: len(load.acknowledged) >= 200, "200 acknowledged")
        async with in_flight(around):
            os.kill(valkey, signal.SIGKILL)
            await second.kill()
        assert not second.logged("store.restarted")
        await until(lambda: not servers(place.folder), "both are gone")

        third = await around.at(await place.serve(config))
        assert (await third.line("store.started"))["owner"]
    assert load.answers[200] == len(load.acknowledged) == 300
    assert load.answers[0] > 0
    assert set(load.answers) <= {0, 200, 503}

    await until(around.settled, "every refund is known, every final event told", 2 * LEASE)
    assert all(len(ids) == 1 for ids in around.ids().values())
    assert 2 <= around.repeats() <= 2 * LANE_WIDTH
    assert await third.stop() == 0
    assert servers(place.folder) == []


@asynccontextmanager
async def in_flight(around: World) -> AsyncIterator[None]:
    """Something is delivered and not yet answered."""
    around.answers.clear()
    await until(lambda: around.unanswered, "a delivery")
    yield
    around.answers.set()


async def test_sigterm_answers_what_is_in_flight(place: Desk, around: World) -> None:
    """A notification that is half here is taken to its end, idle connections are closed, and the exit code is 0, within
    the time that Docker gives; what was answered last is there after the next start."""
    config = around.configure(place.folder)
    first = await around.at(await place.serve(config))
    await until(lambda: ready(around), "ready")  # leaves an idle connection behind
    refund_id = around.refund()
    body = around.body(refund_id)
    address = urlsplit(around.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST /ipn HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    writer.write(head.encode())
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).startswith(b"HTTP/1.1 100 ")
    writer.write(body[:100])
    stopping = asyncio.create_task(first.stop())
    await first.line("serve.stopping")
    await until(lambda: refused(address.port or 0), "the port is closed")
    writer.write(body[100:])
    answer = await asyncio.wait_for(reader.read(), 30)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert await stopping == 0
    assert servers(place.folder) == []
    assert first.logged("store.stopped")
    writer.close()

    second = await around.at(await place.serve(config))
    await until(around.settled, "the refund is known")
    assert set(await around.known()) == {refund_id}
    assert await second.stop(signal.SIGINT) == 0


async def refused(port: int) -> bool:
    """Whether the listener is gone."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_sigterm_does_not_wait_for_those_who_wait(place: Desk, around: World) -> None:
    """Who asked to wait for a final state is answered with the state of now."""
    first = await around.at(await place.serve(around.configure(place.folder)))
    refund_id = around.refund("Pending")
    assert (await around.post(around.body(refund_id)))[0] == 200
    await until(around.known, "the refund is known")
    address = urlsplit(around.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"GET /v1/refunds/{refund_id}?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    writer.write(head.encode())
    await until(lambda: ready(around), "what was sent later is answered, so this was read")
    assert await first.stop() == 0
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["statusDetails"]["state"] == "RefundInitiated"


async def test_a_taken_port_is_a_clear_error(place: Desk, around: World) -> None:
    """Exit code 2, one sentence that names the address and the settings, and nothing was started."""
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with taken:
        port = taken.sockets[0].getsockname()[1]
        command = await place.run("serve", "--config", around.configure(place.folder, port=port))
    assert command.process.returncode == 2
    assert command.complaint == (
        f"receiver: http: cannot listen on 127.0.0.1:{port} (Address already in use). Set http.host and http.port.\n"
    )
    assert not (place.folder / "data").exists()


async def test_two_services_on_one_directory_share_one_store(place: Desk, around: World) -> None:
    """Both accept notifications, and each knows those of the other. The second continues when the first, which started
    Valkey, stops."""
    config = around.configure(place.folder)
    one, two = await asyncio.gather(place.serve(config), place.serve(config))
    urls = [(await each.line("serve.ready"))["address"] for each in (one, two)]
    assert len(servers(place.folder)) == 1
    around.url = urls[0]
    for url in urls * 5:
        assert (await around.post(around.body(around.refund()), url))[0] == 200
    await until(around.settled, "everything is known")
    assert await around.known(urls[1]) == around.truth()
    owner, guest = (one, two) if one.logged("store.started") else (two, one)
    assert guest.logged("store.attached")

    assert await owner.stop() == 0
    await around.at(guest)
    await until(lambda: ready(around), "ready again")
    async with Load(around, 5).running():
        pass
    await until(around.settled, "everything is known")
    assert len(around.truth()) == 15
    assert around.repeats() == 0
    assert await guest.stop() == 0
    assert servers(place.folder) == []


async def ready(around: World) -> bool:
    """Whether the service says that it can work."""
    return (await around.get("/readyz"))[0] == 200


async def test_work_does_what_serve_leaves(place: Desk, around: World) -> None:
    """Without workers notifications are only written down; `receiver work` on the same directory does the rest, and
    `serve` outlives it."""
    config = around.configure(place.folder)
    serving = await around.at(await place.serve(config, "--no-worker"))
    async with Load(around, 10).running() as load:
        pass
    url = serving.logged("store.started")[0]["url"]
    async with client(url) as redis:
        assert set(await redis.zrange(Keys("us")("hinted"), 0, -1)) == load.acknowledged
    assert not around.amazon.calls
    assert await around.known() == {}

    working = await place.start("work", "--config", config)
    assert not (await working.line("store.attached"))["owner"]
    await until(around.settled, "everything is known")
    assert working.logged("refund.changed")
    assert working.logged("delivery.delivered")
    assert await working.stop() == 0
    assert (await around.get("/readyz"))[0] == 200
    assert not serving.logged("refund.changed")
    assert await serving.stop() == 0
    assert servers(place.folder) == []


async def test_valkey_killed_alone_is_mended(place: Desk, around: World) -> None:
    """Meanwhile the service is not ready and answers 503 with Retry-After; nothing acknowledged is lost, and everything
    resumes by itself."""
    command = await around.at(await place.serve(around.configure(place.folder)))
    store = await command.line("store.started")
    seen: list[int] = []
    looking = asyncio.create_task(watch_readiness(around, seen))
    async with Load(around, 200).running() as load:
        await until(lambda: len(load.acknowledged) >= 80, "80 acknowledged")
        os.kill(store["pid"], signal.SIGKILL)
        await command.line("store.restarted")
    await until(lambda: seen[-1] == 200, "ready again")
    looking.cancel()
    assert set(seen) == {200, 503}
    assert set(load.answers) == {200, 503}
    assert load.retry_after
    assert all(seconds.isdigit() for seconds in load.retry_after)
    assert load.acknowledged <= await looked_after(store["url"])
    last = around.refund()
    assert (await around.post(around.body(last)))[0] == 200
    await until(lambda: (last, "amazonpay.refund.declined") in around.told(), "a new one goes its way")
    assert all(len(ids) == 1 for ids in around.ids().values())
    assert [line["exit_status"] for line in command.logged("store.died")] == [-signal.SIGKILL]
    assert await command.stop() == 0


async def watch_readiness(around: World, seen: list[int]) -> None:
    """Notes every answer of `/readyz`, until cancelled."""
    while True:
        seen.append((await around.get("/readyz"))[0])


async def test_a_signal_while_the_store_is_not_there_yet_ends_the_start(place: Desk, around: World) -> None:
    """Here another service's Valkey hangs; exit code 0, at once."""
    config = around.configure(place.folder)
    owner = await place.serve(config)
    valkey = (await owner.line("store.started"))["pid"]
    os.kill(valkey, signal.SIGSTOP)
    guest = await place.start("serve", "--config", config)
    await until(lambda: catches(guest.process.pid, signal.SIGTERM), "the signal is caught")
    assert await guest.stop() == 0
    assert [line["event"] for line in guest.lines] == ["serve.stopped_before_ready"]
    os.kill(valkey, signal.SIGCONT)
    assert await owner.stop() == 0
    assert servers(place.folder) == []


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    caught = re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)
