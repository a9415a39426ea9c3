"""Pure. Whether a Redis is fit for a service that must not lose acknowledged notifications.

Each judge is a function of the vitals. To add one, put it into `JUDGES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from receiver.commands.doctor.clocks import judge_clock
from receiver.commands.doctor.finding import Finding, fail, ok, skip, warn
from receiver.store.maintenance.probe import Examined, RedisProbe
from receiver.store.redis.address import CLUSTER
from receiver.store.redis.sentinel import Guards

FULL, FILLING = 0.95, 0.80
"""Shares of maxmemory."""
SLOW_PING, SLOW_WRITE = (0.02, 0.25), (0.05, 0.5)
"""The slowest acceptable median and 99th percentile, in seconds. They are far below SNS's 15 s, to leave room for
bursts."""
LONGEST_SKEW = 300.0
"""Seconds, as in the settings' default of ingest.max_future."""
OLDEST_REDIS, OLDEST_VALKEY = (7, 0), (7, 2)

WRITE_FIXES = {
    "full": "Raise maxmemory, or remove other data.",
    "read_only": "Point redis.url at the primary, not at a replica.",
    "not_persisting": "Check its log and disk: it cannot save, and refuses writes until it can.",
    "not_permitted": "Allow the user all commands on the keys refunds:* and the channel refunds:wake.",
    "replicas_missing": "Check its replicas (min-replicas-to-write).",
}


def judge_redis(vitals: RedisProbe, wait_replicas: int, kind: str = "") -> list[Finding]:
    """Every judge's findings; `wait_replicas` is `redis.wait_replicas`, `kind` is that of the address: empty for a
    single Redis, or `SENTINEL` or `CLUSTER`."""
    found = [finding for judge in JUDGES for finding in judge(vitals)]
    if kind != CLUSTER:
        found += judge_mode(vitals)
    return [*found, *judge_replicas(vitals, wait_replicas, fails_over=bool(kind))]


def judge_examined(examined: Examined, wait_replicas: int, kind: str) -> list[Finding]:
    """The findings of every node, of the Sentinels, and of the cluster as a whole."""
    found: list[Finding] = []
    if examined.guards is not None:
        found.append(judge_guards(examined.guards))
    if kind == CLUSTER:
        found.append(judge_cluster(examined))
    for name, vitals in examined.nodes.items():
        if isinstance(vitals, str):
            accounts = ", ".join(examined.accounts[name]) or "no account, but what all share"
            text = f"{name} ({accounts}): {vitals.replace('_', ' ')}. Notifications for these get 503"
            found.append(fail("redis.node", f"store_{vitals}", text, "Start it, or let its replica take over.", name))
        else:
            found += [replace(each, subject=name or each.subject) for each in judge_redis(vitals, wait_replicas, kind)]
    return found


def judge_guards(guards: Guards) -> Finding:
    """Whether enough Sentinels answer for a failover."""
    check, there = "redis.sentinels", guards.total - len(guards.silent)
    silent = f"; no answer from {', '.join(guards.silent)}" if guards.silent else ""
    found = f"{there} of {guards.total} Sentinels answer{silent}"
    if not guards.quorum:
        found += ". Too few for a failover" if there else ""
        fix = "Start Sentinels: at least three, on three machines. Check their quorum and redis.url."
        return fail(check, "no_quorum", found, fix)
    fix = "Start it, or remove it from redis.url. If Sentinels have a password, set sentinel_password."
    return warn(check, "sentinel_silent", found, fix) if guards.silent else ok(check, f"{found}, and can fail over")


def judge_cluster(examined: Examined) -> Finding:
    """Whether every slot has a master, and which nodes hold our keys."""
    homes = "; ".join(f"{name}: {', '.join(accounts) or 'shared keys'}" for name, accounts in examined.accounts.items())
    if examined.unserved:
        found = f"{examined.unserved} slots have no master ({homes})"
        return warn("redis.cluster", "slots_unserved", found, "Check CLUSTER INFO; start the nodes that are down.")
    return ok("redis.cluster", f"every slot has a master ({homes})")


def judge_version(vitals: RedisProbe) -> Iterable[Finding]:
    """Redis 7.0 or Valkey 7.2: the scripts use commands of these."""
    check = "redis.version"
    valkey = vitals.info.get("valkey_version")
    name, text, least = (
        ("Valkey", valkey, OLDEST_VALKEY) if valkey else ("Redis", vitals.info.get("redis_version", ""), OLDEST_REDIS)
    )
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts[:2]):
        yield skip(check, "not_told", "its version is unknown", "Use Redis 7.0, Valkey 7.2 or newer.")
    elif (int(parts[0]), int(parts[1])) < least:
        fix = "Use Redis 7.0, Valkey 7.2 or newer."
        yield fail(check, "too_old", f"{name} {text} is too old: it lacks commands that the service uses", fix)
    else:
        yield ok(check, f"{name} {text}")


def judge_mode(vitals: RedisProbe) -> Iterable[Finding]:
    """A single node of a cluster lacks most keys."""
    if vitals.info.get("redis_mode") == "cluster":
        found = "this is one node of a Redis Cluster; keys on other nodes are unreachable"
        fix = "Set redis.url to redis+cluster://host:port,host:port."
        yield fail("redis.role", "cluster", found, fix)


def judge_role(vitals: RedisProbe) -> Iterable[Finding]:
    """A replica refuses writes, or loses them."""
    if vitals.info.get("role") not in ("slave", "replica"):
        return
    only_reads = vitals.info.get("slave_read_only", "1") == "1"
    found = "this is a replica: " + ("it refuses every write" if only_reads else "writes to it are lost")
    yield fail("redis.role", "replica", found, WRITE_FIXES["read_only"])


def judge_durability(vitals: RedisProbe) -> Iterable[Finding]:
    """Acknowledged data must be on disk: an append-only file, synced before each answer."""
    check, info = "redis.durability", vitals.info
    if not info:
        return
    if info.get("aof_enabled", "0") != "1":
        found = "no append-only file: a crash of Redis loses acknowledged notifications"
        fix = "Set appendonly yes and appendfsync always (CONFIG SET, and in its configuration file)."
        yield fail(check, "appendonly_no", found, fix)
        return
    if info.get("aof_last_write_status", "ok") != "ok":
        yield fail(
            check,
            "aof_failing",
            "the last write to the append-only file failed",
            "Check its disk: it may be full or failing.",
        )
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        fix = "Check its disk and memory. The file grows until a rewrite succeeds."
        yield warn(check, "aof_rewrite_failing", "the last rewrite of the append-only file failed", fix)
    if info.get("loading") == "1":
        yield warn(check, "loading", "it is still loading its data", "Wait.")
    yield _fsync(vitals)


def _fsync(vitals: RedisProbe) -> Finding:
    check, policy = "redis.appendfsync", vitals.config.get("appendfsync", "")
    if not policy:
        word = vitals.refused.get("config", "unknown").replace("_", " ")
        found = f"CONFIG GET is refused ({word}), so appendfsync is unknown"
        return skip(check, "config_forbidden", found, "Make sure that appendfsync is always.")
    if policy != "always":
        lost = "up to a second" if policy == "everysec" else "up to half a minute"
        found = f"appendfsync is {policy}: if its machine crashes, {lost} of acknowledged notifications are lost"
        return warn(check, f"appendfsync_{policy}", found, "Set appendfsync always.")
    if vitals.config.get("no-appendfsync-on-rewrite") == "yes":
        found = "appendfsync is always, but not during rewrites of the file"
        return warn(check, "no_appendfsync_on_rewrite", found, "Set no-appendfsync-on-rewrite no.")
    return ok(check, "every write is on disk before it is confirmed")


def judge_memory(vitals: RedisProbe) -> Iterable[Finding]:
    """Redis must evict nothing and have free memory."""
    policy, most, used = (
        vitals.info.get("maxmemory_policy", ""),
        number(vitals, "maxmemory"),
        number(vitals, "used_memory"),
    )
    fix = "Set maxmemory-policy noeviction."
    if not policy:
        yield skip("redis.eviction", "not_told", "its eviction policy is unknown", "Make sure that it is noeviction.")
    elif policy == "noeviction":
        yield ok("redis.eviction", "noeviction")
    elif most:
        found = f"maxmemory-policy is {policy}: when memory runs out, Redis deletes refunds"
        yield fail("redis.eviction", "evicts", found, fix)
    else:
        found = f"maxmemory-policy is {policy}; nothing is evicted as long as maxmemory is not set"
        yield warn("redis.eviction", "would_evict", found, fix)
    if most:
        share = used / most
        found = f"{share:.0%} of {most / 2**20:.0f} MiB used"
        if share < FILLING:
            yield ok("redis.memory", found)
        elif share < FULL:
            yield warn("redis.memory", "filling", found, WRITE_FIXES["full"])
        else:
            yield fail("redis.memory", "full", f"{found}: writes will soon be refused", WRITE_FIXES["full"])


def judge_replicas(vitals: RedisProbe, wanted: int, *, fails_over: bool = False) -> Iterable[Finding]:
    """As many replicas as each write waits for, and one more if Redis fails over."""
    if wanted and (word := vitals.refused.get("wait")):
        found = f"WAIT is refused ({word.replace('_', ' ')}), and redis.wait_replicas is {wanted}: every write fails"
        yield fail("redis.replicas", "wait_forbidden", found, "Allow the user WAIT, or set redis.wait_replicas to 0.")
        return
    if not vitals.info:
        return
    check, there = "redis.replicas", number(vitals, "connected_slaves")
    online = sum("state=online" in vitals.info.get(f"slave{index}", "") for index in range(there))
    found = f"{there} connected, each write waits for {wanted}"
    if there < wanted:
        found = f"{there} of the {wanted} replicas that redis.wait_replicas wants: every write fails"
        yield fail(check, "replicas_missing", found, "Start the replicas, or lower redis.wait_replicas.")
    elif online < wanted:
        found = f"{online} of {there} replicas are in sync, and each write waits for {wanted}: every write fails"
        yield fail(check, "replicas_syncing", found, "Wait until they have loaded the data; look at their logs.")
    elif fails_over and not there:
        yield warn(check, "no_replica", "it has no replica to fail over to", "Start a replica.")
    elif fails_over and not wanted:
        lost = f"{found}: a failover loses the last acknowledged writes"
        yield warn(check, "not_waited_for", lost, "Set redis.wait_replicas to 1, with two replicas.")
    elif fails_over and there == wanted:
        fix = "Start another replica."
        yield warn(check, "no_spare", f"{found}: after a failover there is one less, and every write fails", fix)
    elif there or wanted:
        yield ok(check, found)


def judge_latency(vitals: RedisProbe) -> Iterable[Finding]:
    """The latency of answers and of synced writes."""
    if vitals.pings:
        found = f"{len(vitals.pings)} pings: {spread(vitals.pings)}"
        fix = "Check for slow commands by other clients (SLOWLOG), a busy machine, or a distant network."
        slow = is_slow(vitals.pings, SLOW_PING)
        yield warn("redis.latency", "slow", found, fix) if slow else ok("redis.latency", found)
    if word := vitals.refused.get("write"):
        fix = WRITE_FIXES.get(word, "Check its log.")
        yield fail("redis.write", f"write_{word}", f"a write is refused: {word.replace('_', ' ')}", fix)
    elif vitals.writes:
        found = f"{len(vitals.writes)} writes: {spread(vitals.writes)}"
        fix = "Use a disk that syncs faster (a local SSD), not shared with others."
        slow = is_slow(vitals.writes, SLOW_WRITE)
        yield warn("redis.write", "slow", found, fix) if slow else ok("redis.write", found)


def judge_time(vitals: RedisProbe) -> Iterable[Finding]:
    """All processes use Redis's clock, but notifications are checked against this machine's clock."""
    if vitals.ahead is not None:
        yield judge_clock("clock.redis", vitals.ahead, LONGEST_SKEW, "Redis's")


def judge_channel(vitals: RedisProbe) -> Iterable[Finding]:
    """Since Redis 7, a new user has no access to channels. Processes use one to wake each other."""
    if word := vitals.refused.get("channel"):
        found = (
            f"PUBLISH to refunds:wake is refused ({word.replace('_', ' ')}): other processes and feeds notice writes "
            "up to a second late"
        )
        yield warn("redis.channel", "channel_forbidden", found, "Allow the user the channel: &refunds:wake.")


def judge_refusals(vitals: RedisProbe) -> Iterable[Finding]:
    """What could not be checked."""
    if word := vitals.refused.get("info"):
        found = f"INFO is refused ({word.replace('_', ' ')}): durability, memory, role and replicas are unknown"
        fix = (
            "Allow this user INFO, or check yourself: appendonly yes, appendfsync always, maxmemory-policy noeviction."
        )
        yield skip("redis.info", "info_forbidden", found, fix)


JUDGES: tuple[Callable[[RedisProbe], Iterable[Finding]], ...] = (
    judge_refusals,
    judge_version,
    judge_role,
    judge_durability,
    judge_memory,
    judge_latency,
    judge_time,
    judge_channel,
)


def number(vitals: RedisProbe, name: str) -> int:
    """A number from `INFO`; 0 if it is missing."""
    text = vitals.info.get(name, "")
    return int(text) if text.isdecimal() else 0


def is_slow(samples: tuple[float, ...], most: tuple[float, float]) -> bool:
    """Whether the median or the 99th percentile exceeds its limit."""
    return percentile(samples, 0.5) > most[0] or percentile(samples, 0.99) > most[1]


def spread(samples: tuple[float, ...]) -> str:
    """`half within 0.1 ms, 99 % within 0.4 ms`."""
    half, nearly_all = (percentile(samples, share) * 1000 for share in (0.5, 0.99))
    return f"half within {half:.1f} ms, 99 % within {nearly_all:.1f} ms"


def percentile(samples: tuple[float, ...], share: float) -> float:
    """The smallest sample that `share` of them do not exceed."""
    return sorted(samples)[math.ceil(len(samples) * share) - 1]
