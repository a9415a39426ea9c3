"""Sentinels and a cluster, of real processes: commands find their node, also while nodes change places."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from receiver.errors import StoreUnavailable
from receiver.ledger.notification import HintResult
from receiver.ledger.refund import Source
from receiver.store import Store
from receiver.store.maintenance.data_version import VERSION
from receiver.store.maintenance.probe import RedisProbe, examine
from receiver.store.maintenance.restored import GAP
from receiver.store.redis.address import read_address
from receiver.store.redis.client import link
from receiver.store.redis.keys import RESTORED
from receiver.store.redis.sentinel import Guards
from receiver.store.redis.wakeups import SILENCE_TIMEOUT, News
from receiver.track.record import Recorder
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.fleet import HOST, MASTER, Server, fleet, node_id
from tests.kit.processes import until
from tests.store.makers import claim, hint, refund_id, seen, subscriber

ACCOUNTS = ("live", "eu", "us")
"""Names whose slots (3558, 6893, 14680) lie on the first, the second and the third of three nodes."""
SLOT = 14680
"""Of `us`."""


@asynccontextmanager
async def store_at(url: str, *, timeout: float = 5.0, **more: Any) -> AsyncIterator[Store]:
    """A store; it waits two seconds for replicas."""
    clock = ManualClock()
    store = Store(link(read_address(url), timeout=timeout, connect_timeout=2.0), clock=clock, wait_timeout=2.0, **more)
    try:
        yield store
    finally:
        await store.close()


def address(servers: Sequence[Server]) -> str:
    """The address of a cluster in the settings; it names only one node."""
    return f"redis+cluster://{HOST}:{servers[0].port}"


async def writes(store: Store, *accounts: str) -> bool:
    """Whether Redis takes writes, for one of these accounts at least."""
    try:
        await store.check_writes(accounts)
    except StoreUnavailable:
        return False
    return True


async def refused(store: Store, account: str) -> str:
    """Why a hint is not taken."""
    with pytest.raises(StoreUnavailable) as caught:
        await store.of(account).schedule.hint(hint(99, message="refused"))
    return caught.value.reason


async def test_every_account_lives_on_its_node_alone() -> None:
    """Commands of one turn go to three nodes; scripts are known to each of them, and learnt again."""
    async with fleet() as found:
        servers = await found.cluster()
        async with store_at(address(servers)) as store:
            await store.format.ensure()
            await store.correct_clock()
            await store.keep_certificates({"aws/x": b"der"})
            for turn in range(2):
                answers = await asyncio.gather(
                    *(store.of(each).schedule.hint(hint(turn, message=f"m{turn}")) for each in ACCOUNTS * 2)
                )
                assert answers == [HintResult.NEW] * 3 + [HintResult.REPEATED] * 3
                await servers[1].client.script_flush()
            for each in ACCOUNTS:
                await store.of(each).subscribers.add(subscriber())
                assert (await store.of(each).gauges.measure())["hinted"] == 2
            assert await store.certificates() == {"aws/x": b"der"}
            assert await store.format.version() == VERSION
            store.connection.accounts = ACCOUNTS
            for each in ACCOUNTS:
                await Recorder(store, lambda: 0.0).record(make_account(each), seen(), source=Source.POLL)
            await store._writes.call(("SET", RESTORED, "restored"))
            await store.format.ensure()
            after = [await store.of(each).refunds.get(refund_id()) for each in ACCOUNTS]
            assert [refund and refund.revision for refund in after] == [1 + GAP] * 3
        for each, server in zip(ACCOUNTS, servers, strict=True):
            keys = {key async for key in server.client.scan_iter() if b"{" in key}
            assert keys
            assert all(b"{" + each.encode() + b"}" in key for key in keys)
        assert key_slot(b"us") == SLOT


async def test_a_slot_that_moves_is_followed() -> None:
    """`ASK` and `MOVED` have not run the command: also a claim, which is never repeated, is sent on, and leases once.
    While the keys of one script lie on both nodes it is a 503."""
    async with fleet() as found:
        servers = await found.cluster()
        old, new = servers[2], servers[0]
        ids = [await node_id(each) for each in servers]
        async with store_at(address(servers)) as store, store_at(address(servers), wait_replicas=1) as waiting:
            for number in range(3):
                await store.of("us").schedule.hint(hint(number, message=f"m{number}"))
            await store.of("us").subscribers.open()
            await new.client.execute_command("CLUSTER SETSLOT", SLOT, "IMPORTING", ids[2])
            await old.client.execute_command("CLUSTER SETSLOT", SLOT, "MIGRATING", ids[0])
            keys = await old.client.execute_command("CLUSTER GETKEYSINSLOT", SLOT, 100)
            await old.client.execute_command("MIGRATE", HOST, new.port, "", 0, 1000, "KEYS", *keys)
            assert await refused(store, "us") == "store_resharding"
            assert (await store.of("us").subscribers.read()).version == 1
            assert await store.of("us").deliveries.take_maintenance_lease(60_000)
            with pytest.raises(StoreUnavailable) as caught:
                await waiting.of("us").deliveries.take_maintenance_lease(60_000)
            assert caught.value.reason == "store_replicas_missing"
            for each in (new, old):
                await each.client.execute_command("CLUSTER SETSLOT", SLOT, "NODE", ids[0])
            assert len((await claim(store, limit=1)).items) == 1
            assert await store.of("us").schedule.hint(hint(4, message="m4")) is HintResult.NEW
            assert (await store.of("us").gauges.measure())["hinted"] == 3
        assert await new.client.zcard("refunds:{us}:due") == 1
        assert await old.client.dbsize() == 0


async def test_a_node_that_is_gone_holds_up_its_accounts_alone() -> None:
    """Dead or hanging; wake-ups between processes find another way."""
    async with fleet() as found:
        servers = await found.cluster()
        async with store_at(address(servers)) as store, store_at(address(servers)) as other:
            assert await writes(store, "eu")
            servers[1].kill()
            assert await refused(store, "eu") in ("store_unreachable", "store_cluster_down")
            assert await store.of("us").schedule.hint(hint()) is HintResult.NEW
            assert await writes(store, *ACCOUNTS)
            assert not await writes(store, "eu")
            for each in (store, other):
                await each.start()
            servers[0].freeze()
            assert await store.of("us").schedule.hint(hint(2, message="m2")) is HintResult.NEW

            async def woken() -> bool:
                began = asyncio.get_running_loop().time()
                with other.of("us").change_signal(News.DUE) as waker:
                    await store.of("us").schedule.hint(hint(3, message=str(began)))
                    await waker.rest(1.0)
                return asyncio.get_running_loop().time() - began < 0.9

            await until(woken, "a write wakes the other process", 2 * SILENCE_TIMEOUT + 10)
            servers[0].thaw()


async def test_a_node_of_a_cluster_fails_over() -> None:
    """What was acknowledged with a replica's confirmation is there, and writes go on by themselves."""
    async with fleet() as found:
        servers = await found.cluster(replicas=1)
        async with store_at(address(servers), wait_replicas=1) as store:
            assert await store.of("live").schedule.hint(hint()) is HintResult.NEW
            assert await refused(store, "us") == "store_replicas_missing"
            servers[0].kill()
            assert not await writes(store, "live")
            async with store_at(f"redis+cluster://{HOST}:{servers[1].port}") as plain:
                await until(lambda: writes(plain, "live"), "the replica is master")
                assert (await plain.of("live").gauges.measure())["hinted"] == 1

            async def found_out() -> bool:
                return await refused(store, "live") == "store_replicas_missing"

            await until(found_out, "the new master is asked")


async def test_a_failover_by_sentinels_is_followed() -> None:
    """Also with two of three Sentinels; the doctor reports the missing one."""
    async with fleet() as found:
        master, _ = await found.replicated(2)
        url = await found.sentinels(master)
        async with store_at(url, wait_replicas=1) as store, store_at(url) as reading:
            assert await store.of("us").schedule.hint(hint()) is HintResult.NEW
            found.servers[-1].kill()
            examined = await examine(
                read_address(url), ["us"], timeout=1.0, connect_timeout=0.5, system_clock=store.now
            )
            assert examined.guards == Guards((f"{HOST}:{found.servers[-1].port}",), 3, True)
            assert isinstance(told := examined.nodes[""], RedisProbe)
            assert "state=online" in told.info["slave1"]
            master.kill()
            assert not await writes(store)
            await until(lambda: writes(store), "there is a master again")
            assert (await reading.of("us").gauges.measure())["hinted"] == 1
            assert await store.of("us").schedule.hint(hint(2, message="m2")) is HintResult.NEW


async def test_a_master_that_is_demoted_is_left() -> None:
    """On request, with every server alive: the old one goes on as a replica, and refuses writes."""
    async with fleet() as found:
        master, [replica] = await found.replicated(1)
        url = await found.sentinels(master, 1, 1)
        async with store_at(url) as store:
            assert await store.of("us").schedule.hint(hint()) is HintResult.NEW

            async def agreed() -> bool:
                with suppress(ResponseError):
                    return bool(await found.servers[-1].client.execute_command("SENTINEL FAILOVER", MASTER))
                return False

            await until(agreed, "the Sentinel has seen that the replica is good")

            async def demoted() -> bool:
                with suppress(StoreUnavailable):
                    await store.of("us").schedule.hint(hint(2, message="m2"))
                return await master.role() == "slave"

            await until(demoted, "the old master is a replica")
            await until(lambda: writes(store), "the new one is found")
            assert await store.of("us").schedule.hint(hint(3, message="m3")) is HintResult.NEW
            await until(replica.answers, "it does on a new connection: at its promotion it has closed all others")
            assert await replica.client.zscore("refunds:{us}:hinted", refund_id(3))


async def test_sentinels_that_want_a_password() -> None:
    """The server's password is before the hosts, that of the Sentinels is an option; a wrong one is reported as
    such."""
    async with fleet() as found:
        master = await found.start("--requirepass", "of-server")
        await master.client.aclose()
        config = (
            f"requirepass of-sentinel\nsentinel monitor {MASTER} {HOST} {master.port} 1\n"
            f"sentinel auth-pass {MASTER} of-server\n"
        )
        guard = await found.start(config=config)
        hosts = f"{HOST}:{guard.port}/{MASTER}"
        async with store_at(f"redis+sentinel://:of-server@{hosts}/2?sentinel_password=of-sentinel") as store:
            await until(lambda: writes(store), "the Sentinel has met the master")
            assert await store.of("us").schedule.hint(hint()) is HintResult.NEW
        async with store_at(f"redis+sentinel://:other@{hosts}?sentinel_password=of-sentinel") as store:
            assert await refused(store, "us") == "store_not_authenticated"
        async with store_at(f"redis+sentinel://:of-server@{hosts}?sentinel_password=other") as store:
            assert await refused(store, "us") == "store_master_down"


async def test_a_master_that_becomes_a_replica_is_let_go() -> None:
    """Behind one name another server may be master by now: the next write goes over a new connection."""
    async with fleet() as found:
        master, [replica] = await found.replicated(1)

        async def connections() -> set[str]:
            return {each["id"] for each in await master.client.client_list(_type="normal")}

        async with store_at(master.url) as store:
            before = await connections()
            await store.of("us").schedule.hint(hint())
            own = await connections() - before
            assert own
            await master.client.replicaof(HOST, replica.port)
            assert await refused(store, "us") == "store_read_only"

            async def gone() -> bool:
                return not own & await connections()

            await until(gone, "the connection is closed")
            await master.client.replicaof("NO", "ONE")
            assert await store.of("us").schedule.hint(hint(2, message="m2")) is HintResult.NEW
