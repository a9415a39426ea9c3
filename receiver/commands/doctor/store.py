"""Edge: Redis. The store: a configured Redis or the embedded one, and then its contents."""

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
from receiver.store.embedded.program import find_program
from receiver.store.maintenance.probe import examine
from receiver.store.redis.address import CLUSTER, SENTINEL, RedisAddress, read_address
from receiver.store.redis.client import link

ANSWER, CONNECT = 3.0, 2.0
"""The longest time in seconds for an answer and for a connection; less if the settings say so."""
LITTLE, TOO_LITTLE = 1024**3, 100 * 1024**2
"""Bytes of free disk. Valkey rewrites its file beside the old one, and exits when the disk is full."""
REACHABLE, DATA_DIR = "redis.reachable", "embedded.data_dir"

FIXES = {
    "store_unreachable": "Start it, and check redis.url (host, port, TLS: rediss://).",
    "store_timeout": "It accepts connections but does not answer in time. Check its load and the firewall.",
    "store_not_authenticated": "Set redis.password or password_file, and the user name in redis.url.",
    "store_not_permitted": "Allow the user all commands on the keys refunds:* and the channel refunds:wake.",
    "store_tls_untrusted": "Add the CA of its certificate to redis.url: ?ssl_ca_certs=/etc/receiver/ca.pem.",
    "store_tls_wrong_host": "Use the host name of its certificate in redis.url, or get a certificate for this name.",
    "store_tls_expired": "Renew its certificate. Check this machine's clock too.",
    "store_tls_failed": "It does not use TLS, shares no TLS version with us, or requires a client certificate "
    "(?ssl_certfile=…&ssl_keyfile=…). redis:// is without TLS, rediss:// is with TLS.",
    "store_loading": "It is loading its data. Wait.",
    "store_master_down": "No Sentinel names a master. One is being elected, or redis.url is wrong (hosts, master "
    "name, sentinel_password; with TLS ssl_ca_certs and certified host names).",
    "store_cluster_down": "Check CLUSTER INFO and CLUSTER NODES.",
}


async def check_store(site: Site) -> list[Finding]:
    """The store: whether it is reachable and durable, and what in it needs attention."""
    if site.redis_address:
        return await _check_redis(site, site.redis_address, site.redis_address.without_secrets)
    files = DataDir(site.settings.data_dir.resolve())
    findings = await asyncio.to_thread(check_folder, files)
    if any(each.reason == "data_dir_unusable" for each in findings):
        return findings
    if not files.socket.exists():
        return [*findings, skip("embedded.valkey", "not_running", "Valkey is not running; `receiver serve` starts it")]
    findings += await _check_redis(site, read_address(files.url), "the embedded Valkey")
    if findings[-1].reason == "store_unreachable" and not _lives(read_pid(files.pid_file)):
        findings[-1] = skip("embedded.valkey", "not_running", "Valkey is not running; `receiver serve` starts it")
    elif not files.intact():
        fix = "Stop the service, restore the folder from a backup, and start it again."
        gone = f"{files.path} was removed while Valkey was running: notifications are no longer acknowledged"
        findings.append(fail(DATA_DIR, "data_dir_gone", gone, fix))
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
        fix = FIXES.get(error.reason, "Check its log.")
        return [fail(REACHABLE, error.reason, f"{name}: {word}. Notifications get 503", fix)]
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
    """Whether the embedded store's folder is usable and its disk has room. Creates nothing and takes no lock."""
    try:
        program = ok("embedded.program", str(find_program()))
    except ConfigurationError as error:
        return [fail("embedded.valkey", "not_installed", " ".join(error.problems), "See the finding.")]
    path = files.path
    there = next(folder for folder in (path, *path.parents) if os.path.exists(folder))
    if not there.is_dir() or not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        found = f"{there} is not a writable directory"
        fix = "Set data_dir to another one, run doctor as the service's user, or set redis.url."
        return [program, fail(DATA_DIR, "data_dir_unusable", found, fix)]
    if there == path and (trouble := files.open_to_others()):
        refused = f"{path} {trouble}: the service refuses to start"
        return [program, fail(DATA_DIR, "data_dir_open", refused, f"Run: chmod go-w {path}"), _room(path)]
    found = f"{path} is writable" if there == path else f"{path} does not exist yet, but can be created"
    return [program, ok(DATA_DIR, found), _room(there)]


def _room(path: Path) -> Finding:
    check, free = "embedded.disk", shutil.disk_usage(path).free
    found = f"{free / 2**30:.1f} GiB free" if free >= 2**30 else f"{free / 2**20:.0f} MiB free"
    fix = "Free space, or move data_dir to a larger disk."
    if free < TOO_LITTLE:
        return fail(check, "disk_full", f"{found}: Valkey exits if a write fails", fix)
    return warn(check, "disk_filling", found, fix) if free < LITTLE else ok(check, found)


def _owner(files: DataDir) -> Finding:
    owner, server = read_pid(files.path / "owner.lock"), read_pid(files.pid_file)
    if _lives(owner):
        return ok("embedded.valkey", f"Valkey runs (process {server}), supervised by process {owner}")
    found = f"Valkey runs (process {server}), but its service was killed and nothing supervises it"
    return warn("embedded.valkey", "orphan", found, "Start the service: it takes over the running Valkey.")


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
