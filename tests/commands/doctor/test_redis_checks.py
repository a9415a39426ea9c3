"""What the doctor reports about a real Valkey with wrong settings. Each finding is caused for real."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.commands.doctor.finding import Finding, Status
from receiver.commands.doctor.redis import judge_examined, judge_guards, judge_redis, percentile
from receiver.commands.doctor.store import check_store
from receiver.store.maintenance.probe import Examined, RedisProbe
from receiver.store.redis.address import read_address
from receiver.store.redis.pipeline import connect
from receiver.store.redis.sentinel import Guards
from tests.commands.doctor.kit import only, silence, site, system_clock, words
from tests.kit.valkey import start_valkey, stop_valkey

RIGHT = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "maxmemory": "0"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="rd-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """A Valkey whose settings these tests change."""
    process, url = start_valkey(folder, "--appendonly", "yes", "--appendfsync", "always")
    yield url
    stop_valkey(process)


@pytest.fixture
async def valkey(url: str) -> AsyncIterator[Any]:
    """A client of it; the settings are right again."""
    client: Any = connect(url)
    await configure(client, RIGHT)
    await client.flushall()
    yield client
    await configure(client, RIGHT)
    await client.execute_command("REPLICAOF", "NO", "ONE")
    await client.aclose()


async def configure(client: Any, values: dict[str, str]) -> None:
    for name, value in values.items():
        await client.config_set(name, value)


async def examine(url: str, **more: Any) -> list[Finding]:
    redis = {"url": url, **more.pop("redis", {})}
    found = await check_store(site(redis=redis, **more))
    # How fast a busy machine is says nothing about the code.
    return [each for each in found if each.reason != "slow"]


async def test_a_right_one_is_right(url: str, valkey: Any) -> None:
    """Nothing is left behind in it."""
    found = await examine(url)
    assert words(found) == {"subscribers.lane": "not_written_yet"}
    assert only(found, "redis.version").found.startswith("Valkey ")
    assert "50 pings" in only(found, "redis.latency").found
    assert "20 writes" in only(found, "redis.write").found
    assert await valkey.keys() == []


async def test_a_user_who_may_not_use_the_channel_or_wait(url: str, valkey: Any) -> None:
    """Redis 7 gives a new user no channel: processes wake each other later. Without WAIT every write fails."""
    port_less = url.removeprefix("unix://")
    await valkey.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", "~refunds:*", "+@all", "-wait")
    found = await examine(f"unix://app:pw@{port_less}")
    assert words(found) == {"redis.channel": "channel_forbidden", "subscribers.lane": "not_written_yet"}
    assert only(found, "redis.channel").status is Status.WARN
    assert "&refunds:wake" in only(found, "redis.channel").fix
    waits = await examine(f"unix://app:pw@{port_less}", redis={"wait_replicas": 1})
    assert (only(waits, "redis.replicas").status, only(waits, "redis.replicas").reason) == (
        Status.FAIL,
        "wait_forbidden",
    )
    await valkey.execute_command("ACL", "SETUSER", "app", "+wait", "&refunds:*")
    right = await examine(f"unix://app:pw@{port_less}")
    assert words(right) == {"subscribers.lane": "not_written_yet"}


@pytest.mark.parametrize(
    ("values", "check", "reason", "status", "fix"),
    [
        ({"appendonly": "no"}, "redis.durability", "appendonly_no", Status.FAIL, "appendonly yes"),
        ({"appendfsync": "everysec"}, "redis.appendfsync", "appendfsync_everysec", Status.WARN, "appendfsync always"),
        ({"appendfsync": "no"}, "redis.appendfsync", "appendfsync_no", Status.WARN, "appendfsync always"),
        (
            {"no-appendfsync-on-rewrite": "yes"},
            "redis.appendfsync",
            "no_appendfsync_on_rewrite",
            Status.WARN,
            "no-appendfsync-on-rewrite no",
        ),
        ({"maxmemory-policy": "allkeys-lru"}, "redis.eviction", "would_evict", Status.WARN, "noeviction"),
        (
            {"maxmemory-policy": "volatile-lru", "maxmemory": "1gb"},
            "redis.eviction",
            "evicts",
            Status.FAIL,
            "noeviction",
        ),
    ],
)
async def test_a_wrong_setting_is_told_with_the_fix(
    url: str, valkey: Any, values: dict[str, str], check: str, reason: str, status: Status, fix: str
) -> None:
    """Nothing else is complained of."""
    before = {name: (await valkey.config_get(name))[name] for name in values}
    await configure(valkey, values)
    try:
        found = await examine(url)
    finally:
        await configure(valkey, before)
    assert words(found) == {check: reason, "subscribers.lane": "not_written_yet"}
    wrong = only(found, check)
    assert wrong.status is status
    assert fix in wrong.fix


@pytest.mark.parametrize(("share", "status"), [(3.0, Status.OK), (1.12, Status.WARN), (1.01, Status.FAIL)])
async def test_memory_that_fills_is_told(url: str, valkey: Any, share: float, status: Status) -> None:
    """Before Redis refuses every write."""
    await valkey.setrange("ballast", 30_000_000, "x")
    used = int((await valkey.info("memory"))["used_memory"])
    await valkey.config_set("maxmemory", int(used * share))
    found = only(await examine(url), "redis.memory")
    assert found.status is status


async def test_a_full_one_refuses_the_write(url: str, valkey: Any) -> None:
    """As it would refuse a notification's."""
    await valkey.config_set("maxmemory", "1")
    found = only(await examine(url), "redis.write")
    assert (found.status, found.reason) == (Status.FAIL, "write_full")
    assert "maxmemory" in found.fix


async def test_a_replica_is_no_primary(url: str, valkey: Any) -> None:
    """It is read-only."""
    await valkey.execute_command("REPLICAOF", "127.0.0.1", "1")
    found = await examine(url)
    assert words(found)["redis.role"] == "replica"
    assert words(found)["redis.write"] == "write_read_only"
    assert "primary" in only(found, "redis.role").fix


async def test_replicas_that_are_waited_for_must_be_there(url: str, valkey: Any) -> None:
    """Else every write fails."""
    found = only(await examine(url, redis={"wait_replicas": 1}), "redis.replicas")
    assert (found.status, found.reason) == (Status.FAIL, "replicas_missing")
    assert "0 of the 1" in found.found


async def test_what_is_forbidden_is_skipped_with_the_reason(url: str, valkey: Any) -> None:
    """A managed Redis hides CONFIG, a careful operator INFO."""
    await valkey.execute_command(
        "ACL", "SETUSER", "narrow", "on", ">pw", "~refunds:*", "&refunds:*", "+@all", "-@admin", "-info", "-config"
    )
    try:
        with_user = url.replace("unix://", "unix://narrow:pw@")
        found = await examine(with_user)
    finally:
        await valkey.execute_command("ACL", "DELUSER", "narrow")
    told = words(found)
    assert told["redis.info"] == "info_forbidden"
    assert told["redis.version"] == "not_told"
    assert not [each for each in found if each.status is Status.FAIL]
    assert "appendfsync always" in only(found, "redis.info").fix


async def test_config_alone_may_be_forbidden(url: str, valkey: Any) -> None:
    """INFO has the rest."""
    await valkey.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "&*", "+@all", "-config")
    try:
        found = await examine(url.replace("unix://", "unix://narrow:pw@"))
    finally:
        await valkey.execute_command("ACL", "DELUSER", "narrow")
    assert words(found) == {"redis.appendfsync": "config_forbidden", "subscribers.lane": "not_written_yet"}
    assert "not permitted" in only(found, "redis.appendfsync").found


async def test_a_wrong_password_is_told(url: str, valkey: Any) -> None:
    """And not repeated."""
    [found] = await examine(url.replace("unix://", "unix://default:hunter2@").replace("default", "nobody"))
    assert (found.status, found.reason) == (Status.FAIL, "store_not_authenticated")
    assert "hunter2" not in repr(found)


async def test_one_that_is_not_there_is_told() -> None:
    """With the address, and without its password."""
    [found] = await examine("redis://:hunter2@127.0.0.1:1/0")
    assert (found.check, found.reason) == ("redis.reachable", "store_unreachable")
    assert "redis://127.0.0.1:1/0" in found.found
    assert "hunter2" not in repr(found)


async def test_one_that_hangs_is_given_up() -> None:
    """Within the settings' time-out."""
    async with silence() as port, asyncio.timeout(5):
        [found] = await examine(f"redis://127.0.0.1:{port}", redis={"timeout": "300ms"})
    assert (found.status, found.reason) == (Status.FAIL, "store_timeout")


@pytest.mark.parametrize(
    ("ahead", "status"),
    [(0, Status.OK), (20_000, Status.WARN), (-20_000, Status.WARN), (400_000, Status.FAIL), (-400_000, Status.FAIL)],
)
async def test_a_clock_that_is_off_is_told(url: str, valkey: Any, ahead: int, status: Status) -> None:
    """This machine's, against Redis's."""
    found = only(await examine(url, system_clock=lambda: system_clock() + ahead), "clock.redis")
    assert found.status is status
    assert not ahead or str(abs(ahead) // 1000) in found.found


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"redis_version": "6.2.14"}, "too_old"),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.0"}, "too_old"),
        ({"redis_version": "7.0.0"}, ""),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, ""),
        ({}, "not_told"),
        ({"redis_version": "unstable"}, "not_told"),
    ],
)
def test_the_version_is_new_enough(info: dict[str, str], reason: str) -> None:
    """Redis 7.0, Valkey 7.2. Older ones are not available here, so their answers are imitated."""
    assert only(judge_redis(vitals(**info), 0), "redis.version").reason == reason


@pytest.mark.parametrize(
    ("info", "check", "reason"),
    [
        ({"aof_enabled": "1", "aof_last_write_status": "err"}, "redis.durability", "aof_failing"),
        ({"aof_enabled": "1", "aof_last_bgrewrite_status": "err"}, "redis.durability", "aof_rewrite_failing"),
        ({"redis_mode": "cluster"}, "redis.role", "cluster"),
    ],
)
def test_what_only_a_broken_disk_or_a_cluster_says(info: dict[str, str], check: str, reason: str) -> None:
    """Judged by the text of INFO."""
    assert reason in {each.reason for each in judge_redis(vitals(**info), 0) if each.check == check}


REPLICA = "ip=10.0.0.2,port=6379,state=online,offset=1,lag=0"


@pytest.mark.parametrize(
    ("replicas", "wanted", "kind", "reason"),
    [
        ([], 0, "", None),
        ([REPLICA], 0, "", ""),
        ([REPLICA], 1, "", ""),
        ([], 1, "", "replicas_missing"),
        ([REPLICA.replace("online", "wait_bgsave")], 1, "", "replicas_syncing"),
        ([], 0, "sentinel", "no_replica"),
        ([REPLICA], 0, "sentinel", "not_waited_for"),
        ([REPLICA], 1, "cluster", "no_spare"),
        ([REPLICA] * 2, 1, "cluster", ""),
    ],
)
def test_replicas_are_judged(replicas: list[str], wanted: int, kind: str, reason: str | None) -> None:
    """Against the number that each write waits for. With failover, one more is needed."""
    told = {f"slave{index}": text for index, text in enumerate(replicas)}
    found = judge_redis(vitals(connected_slaves=str(len(replicas)), **told), wanted, kind)
    assert [each.reason for each in found if each.check == "redis.replicas"] == ([] if reason is None else [reason])


@pytest.mark.parametrize(
    ("guards", "status", "reason"),
    [
        (Guards((), 3, True), Status.OK, ""),
        (Guards(("s3:26379",), 3, True), Status.WARN, "sentinel_silent"),
        (Guards(("s2:26379", "s3:26379"), 3, False), Status.FAIL, "no_quorum"),
    ],
)
def test_sentinels_are_judged(guards: Guards, status: Status, reason: str) -> None:
    """By whether they could decide on a failover; those that are silent are named."""
    found = judge_guards(guards)
    assert (found.status, found.reason) == (status, reason)
    assert all(name in found.found for name in guards.silent)


@pytest.mark.parametrize(("unserved", "reason"), [(0, ""), (5461, "slots_unserved")])
def test_a_cluster_is_judged(unserved: int, reason: str) -> None:
    """Slots that no node serves; every node for itself, and one that does not answer."""
    nodes: dict[str, RedisProbe | str] = {"n1:6379": vitals(redis_mode="cluster"), "n2:6379": "timeout"}
    examined = Examined(nodes, {"n1:6379": ("us",), "n2:6379": ("eu", "jp")}, unserved=unserved)
    found = judge_examined(examined, 0, "cluster")
    assert only(found, "redis.cluster").reason == reason
    assert (only(found, "redis.node").subject, only(found, "redis.node").reason) == ("n2:6379", "store_timeout")
    assert "eu, jp" in only(found, "redis.node").found
    assert "redis.role" not in words(found)


def test_slowness_is_told() -> None:
    """One answer that stalls, or all of them."""
    slow = RedisProbe({}, {}, (0.001,) * 49 + (0.3,), (0.06,) * 20, None)
    found = judge_redis(slow, 0)
    assert words(found)["redis.latency"] == words(found)["redis.write"] == "slow"
    assert percentile((1.0, 2.0, 3.0, 4.0), 0.5) == 2.0


def vitals(**info: str) -> RedisProbe:
    return RedisProbe(info, {"appendfsync": "always"}, (), (), None)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://user:pw@cache.example:7000/2", "redis://cache.example:7000/2"),
        ("rediss://:pw@[::1]", "rediss://[::1]:6379/0"),
        ("unix://user:pw@/run/r.sock", "/run/r.sock"),
        ("redis+sentinel://user:pw@s1,s2:7/main?sentinel_password=pw", "redis+sentinel://s1:26379,s2:7/main/0"),
        ("rediss+cluster://:pw@n1,n2", "rediss+cluster://n1:6379,n2:6379"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, text: str) -> None:
    """User names as well: they may be half of a secret."""
    assert read_address(url).without_secrets == text


async def test_the_embedded_folder_without_a_server(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    found = await check_store(site(data_dir=str(tmp_path / "new")))
    assert words(found) == {"embedded.valkey": "not_running"}
    assert "can be created" in only(found, "embedded.data_dir").found
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    [program, unusable] = await check_store(site(data_dir=str(tmp_path / "file")))
    assert (program.check, program.status) == ("embedded.program", Status.OK)
    assert re.fullmatch(r"Valkey [0-9.]+ \(/.*/valkey-server\)", program.found)
    assert (unusable.status, unusable.reason) == (Status.FAIL, "data_dir_unusable")


async def test_a_key_of_a_foreign_type_is_named_with_what_to_do(url: str, valkey: Any) -> None:
    """Without reading the whole store: every key whose name is known."""
    await valkey.sadd("refunds:{us}:due", "not ours")
    found = [each for each in await examine(url) if each.check == "store.keys"]
    assert [(each.status, each.reason, each.subject) for each in found] == [
        (Status.FAIL, "store_wrong_type", "refunds:{us}:due")
    ]
    assert "is a set, but should be a zset" in found[0].found
    assert found[0].fix.startswith("receiver repair 'refunds:{us}:due'")


async def test_the_whole_store_is_read_on_request(url: str, valkey: Any) -> None:
    """Each damaged record is a finding; what money depends on is not set aside before a person has compared."""
    await valkey.hset("refunds:{us}:refund:S01-1", "revision", "many")
    await valkey.hset("refunds:{us}:charge:C", "S01-1", "much")
    await valkey.set("refunds:{us}:nobody", "knows")
    assert not [each for each in await examine(url) if each.check == "store.records"]
    found = await examine(url, whole_store=True)
    records = {each.subject: each.fix for each in found if each.check == "store.records"}
    assert sorted(records) == ["refunds:{us}:charge:C", "refunds:{us}:refund:S01-1"]
    assert "Seller Central" in records["refunds:{us}:charge:C"]
    assert records["refunds:{us}:refund:S01-1"].startswith("receiver repair")
    assert only(found, "store.unknown_keys").status is Status.WARN
