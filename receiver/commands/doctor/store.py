"""Edge: Redis. The store: a configured Redis or the embedded one, then what is written in it."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from receiver.commands.doctor.backlog import check_format, check_work
from receiver.commands.doctor.content import check_keys_of_store, check_whole_store
from receiver.commands.doctor.finding import Finding, fail, ok, skip, warn
from receiver.commands.doctor.redis import judge_examined
from receiver.commands.doctor.site import Site
from receiver.errors import ConfigurationError, StoreUnavailable
from receiver.store import Store
from receiver.store.embedded.files import DataDir, read_pid
from receiver.store.embedded.process import find_binary
from receiver.store.maintenance.probe import examine
from receiver.store.redis.address import CLUSTER, SENTINEL, RedisAddress, read_address
from receiver.store.redis.client import link

ANSWER, CONNECT = 3.0, 2.0
"""Seconds that an answer, and a connection, may take at most; less where the settings say less."""
LITTLE, TOO_LITTLE = 1024**3, 100 * 1024**2
"""Bytes of free disk. Valkey rewrites its file beside the old one, and exits when the disk is full."""
REACHABLE, DATA_DIR = "redis.reachable", "embedded.data_dir"

MENDS = {
    "store_unreachable": "Start it, and look at redis.url (host, port, TLS: rediss://).",
    "store_timeout": "It accepts and does not answer in time: look at its load, or at the firewall between.",
    "store_not_authenticated": "Set redis.password or password_file (and the user's name in redis.url).",
    "store_not_permitted": "Allow the user all commands on the keys refunds:* and the channel refunds:wake.",
    "store_tls_untrusted": "Name the authority of its certificate in redis.url: ?ssl_ca_certs=/etc/receiver/ca.pem.",
    "store_tls_wrong_host": "Write its host in redis.url as its certificate names it, or have it certified for this.",
    "store_tls_expired": "Give it a new certificate; look at this machine's clock as well.",
    "store_tls_failed": "No TLS is spoken there, or no version of it that both know, or it wants a certificate of ours "
    "(?ssl_certfile=…&ssl_keyfile=…). Without TLS redis.url begins with redis://, with it with rediss://.",
    "store_loading": "It loads its data. Wait.",
    "store_master_down": "No Sentinel names a master: one is being elected, or look at redis.url (hosts, the master's "
    "name, sentinel_password; over TLS ssl_ca_certs, and their names as certified).",
    "store_cluster_down": "Look at CLUSTER INFO and CLUSTER NODES.",
}


async def check_store(site: Site) -> list[Finding]:
    """Where the state is kept, and whether it is kept; of what is in it, what somebody should look at."""
    if site.redis_address:
        return await _check_redis(site, site.redis_address, site.redis_address.shown)
    files = DataDir(site.settings.data_dir.resolve())
    findings = await asyncio.to_thread(check_folder, files)
    if any(each.reason == "data_dir_unusable" for each in findings):
        return findings
    if not files.socket.exists():
        return [*findings, skip("embedded.valkey", "not_running", "no Valkey is running: `receiver serve` starts it")]
    findings += await _check_redis(site, read_address(files.url), "the embedded Valkey")
    if findings[-1].reason == "store_unreachable" and not _lives(read_pid(files.pid_file)):
        findings[-1] = skip("embedded.valkey", "not_running", "no Valkey is running: `receiver serve` starts it")
    elif not files.intact():
        mend = "Stop the service, restore the folder from a backup, and start again."
        gone = f"{files.path} was removed under the running Valkey: nothing is acknowledged any more"
        findings.append(fail(DATA_DIR, "data_dir_gone", gone, mend))
    else:
        findings.append(_owner(files))
    return findings


async def _check_redis(site: Site, address: RedisAddress, name: str) -> list[Finding]:
    redis = site.settings.redis
    timeout = min(ANSWER, redis.timeout.total_seconds())
    connect_timeout = min(CONNECT, redis.connect_timeout.total_seconds())
    kind = address.kind if address.kind in (SENTINEL, CLUSTER) else ""
    try:
        names = [account.name for account in site.accounts]
        vitals = await examine(
            address, names, timeout=timeout, connect_timeout=connect_timeout, system_clock=site.system_clock
        )
    except StoreUnavailable as error:
        word = error.reason.removeprefix("store_").replace("_", " ")
        mend = MENDS.get(error.reason, "Look at its log.")
        return [fail(REACHABLE, error.reason, f"{name}: {word}. Notifications get 503", mend)]
    findings = [
        ok(REACHABLE, f"{name} answers"),
        *judge_examined(vitals, redis.wait_replicas if site.redis_address else 0, kind),
    ]
    store = Store(link(address, timeout=timeout, connect_timeout=connect_timeout))
    try:
        store.connection.accounts = names
        findings += [*await check_format(store), *await check_work(site, store)]
        findings += await (check_whole_store if site.whole_store else check_keys_of_store)(store)
    finally:
        await store.close()
    return findings


def check_folder(files: DataDir) -> list[Finding]:
    """The folder of the embedded store can be used, and there is room. Nothing is made and no lock is taken."""
    try:
        find_binary()
    except ConfigurationError as error:
        return [fail("embedded.valkey", "not_installed", " ".join(error.problems), "See there.")]
    path = files.path
    there = next(folder for folder in (path, *path.parents) if os.path.exists(folder))
    if not there.is_dir() or not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        found = f"{there} is not a directory that this user may write to"
        mend = "Name one in data_dir, run this as the service's user, or set redis.url."
        return [fail(DATA_DIR, "data_dir_unusable", found, mend)]
    if there == path and (trouble := files.open_to_others()):
        refused = f"{path} {trouble}: the service refuses to start"
        return [fail(DATA_DIR, "data_dir_open", refused, f"Run: chmod go-w {path}"), _room(path)]
    found = f"{path} can be written" if there == path else f"{path} is not there yet; it can be made"
    return [ok(DATA_DIR, found), _room(there)]


def _room(path: Path) -> Finding:
    check, free = "embedded.disk", shutil.disk_usage(path).free
    found = f"{free / 2**30:.1f} GiB free" if free >= 2**30 else f"{free / 2**20:.0f} MiB free"
    mend = "Make room, or move data_dir to a larger disk."
    if free < TOO_LITTLE:
        return fail(check, "disk_full", f"{found}: Valkey ends when a write fails", mend)
    return warn(check, "disk_filling", found, mend) if free < LITTLE else ok(check, found)


def _owner(files: DataDir) -> Finding:
    owner, server = read_pid(files.path / "owner.lock"), read_pid(files.pid_file)
    if _lives(owner):
        return ok("embedded.valkey", f"Valkey runs (process {server}), supervised by process {owner}")
    found = f"Valkey runs (process {server}), and no service supervises it: one was killed"
    return warn("embedded.valkey", "orphan", found, "Start the service: it takes the running Valkey over.")


def _lives(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
