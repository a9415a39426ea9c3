"""Edge: the web. The running service: whether it is ready, and its diagnostics."""

from __future__ import annotations

import difflib
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from receiver.commands.console import plural
from receiver.commands.doctor.finding import Finding, fail, ok, skip, warn
from receiver.commands.doctor.site import Site, seconds
from receiver.errors import Malformed, TransportError
from receiver.exchange import Request, Response
from receiver.http.api.schema import DiagnosticsJson, ReadinessJson, SightingJson
from receiver.ledger.timestamps import parse_time
from receiver.transport.addresses import is_loopback

TIMEOUT, CONNECT_TIMEOUT, MOST = 4.0, 2.0, 1024 * 1024
RUNNING, READY, DIAGNOSTICS = "service.running", "service.ready", "service.diagnostics"
SOON = 30
"""Days."""
MOST_ACCOUNTS = 5
"""Names of accounts in paths that are shown: strangers can post to any."""

ALERTING = "subscribers_"
"""Checks of `/readyz` about subscribers: the service works, but a subscriber misses events."""
READY_FIXES = {
    "paused": "List them: receiver subscriber list. When one works again: receiver subscriber resume NAME.",
    "failing": "See its last error: receiver subscriber show NAME.",
    "dead_events": "Fix the subscriber, then: receiver delivery redrive NAME --all.",
    "store_restarting": "Check valkey.log in data_dir.",
    "store_data_dir_gone": "Stop the service, restore the folder, and start it again.",
    "not_written_yet": "Check the store: the configured subscribers cannot be written.",
    "workers_failing": "Look for worker.failed in the log.",
    "timeout": "Check the store and the machine's load.",
    "clock_differs": "Set both clocks by NTP: Amazon and subscribers refuse signatures with a wrong time.",
}

T = TypeVar("T")


async def check_service(site: Site) -> list[Finding]:
    """`/readyz`, and with a token of scope admin `/v1/diagnostics`."""
    base = site.url or _own_address(site)
    if not base:
        return [skip(RUNNING, "no_address", "the port is 0, so the address is unknown", "Give --url.")]
    try:
        answer = await _get(site, f"{base}/readyz")
        ready = _read(answer, ReadinessJson)
    except TransportError as error:
        if site.url:
            return [fail(RUNNING, error.reason, f"no service: {error.detail}", "Start the service, or fix --url.")]
        return [skip(RUNNING, "not_running", f"no service answers at {base}", "Start it: receiver serve.")]
    except Malformed:
        fix = "Set --url, or stop the program listening there."
        return [fail(RUNNING, "not_the_service", f"{base} answers, but is not this service", fix)]
    findings = [ok(RUNNING, f"a service answers at {base}"), *_ready(ready)]
    return [*findings, *(await _diagnostics(site, base))]


def _own_address(site: Site) -> str:
    host, port = site.settings.http.listeners[-1]
    if not port:
        return ""
    try:
        address = ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def _safe(base: str) -> bool:
    """Whether a token may be sent there: over TLS or to this machine only."""
    return base.lower().startswith("https://") or is_loopback(urlsplit(base).hostname or "")


async def _get(site: Site, url: str, token: str = "") -> Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return await site.send(
        Request("GET", url, headers), timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT, max_body=MOST
    )


def _read(answer: Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed from error


def _ready(ready: ReadinessJson) -> list[Finding]:
    bad = {name: word for name, word in ready.checks.items() if word != "ok"}
    if not bad:
        return [ok(READY, "it is ready")]
    return [
        (warn if name.startswith(ALERTING) else fail)(
            READY,
            word,
            f"{name}: {word.replace('_', ' ')}",
            READY_FIXES.get(word, "See the store's findings above."),
            name,
        )
        for name, word in bad.items()
    ]


async def _diagnostics(site: Site, base: str) -> list[Finding]:
    if not _safe(base) and not site.insecure:
        fix = "Use --url with https, or --insecure if you trust the network."
        return [skip(DIAGNOSTICS, "plain_http", "the token is not sent over plain http to another machine", fix)]
    if not site.token:
        fix = "Set RECEIVER_TOKEN or --token-file to a token with the scope admin."
        return [
            skip(
                DIAGNOSTICS,
                "no_token",
                "no token, so unconfigured accounts, topics and merchants are unknown",
                fix,
            )
        ]
    try:
        answer = await _get(site, f"{base}/v1/diagnostics", site.token)
        if answer.status in (401, 403):
            fix = "Use a token of this service that has the scope admin."
            return [skip(DIAGNOSTICS, "token_refused", f"the token is refused ({answer.status})", fix)]
        found = _read(answer, DiagnosticsJson)
    except (TransportError, Malformed) as error:
        fix = "It may be another version. Restart it with this one."
        return [warn(DIAGNOSTICS, error.reason, "cannot read its diagnostics", fix)]
    return [ok(DIAGNOSTICS, f"version {found.version}, store: {found.store.kind}"), *_judge(site, found)]


def _judge(site: Site, found: DiagnosticsJson) -> list[Finding]:
    workers = {name: state for name, state in found.workers.items() if state != "running"}
    findings = [
        fail("service.workers", "worker_failing", f"{name}: {state}", READY_FIXES["workers_failing"], name)
        for name, state in workers.items()
    ]
    if not workers:
        findings.append(ok("service.workers", plural(len(found.workers), "task") + ", all running"))
    findings += _unconfigured(site, found)
    findings += [
        warn(
            "service.certificates",
            "certificate_ends_soon",
            f"{each.file} is valid for {each.days_left} more days",
            "If it was fetched, nothing: Amazon will use a new one in time. If it is pinned, pin the next one.",
            each.file,
        )
        for each in found.certificates
        if each.days_left < SOON
    ]
    return findings


def _unconfigured(site: Site, found: DiagnosticsJson) -> list[Finding]:
    seen = [
        *(_account(site, each) for each in found.unconfigured_accounts[:MOST_ACCOUNTS]),
        *(_topic(site, each) for each in found.unconfigured_topics),
        *(_merchant(site, each) for each in found.unconfigured_merchants),
    ]
    none = "no notifications for unconfigured accounts, topics or merchants since its start"
    return seen or [ok("service.unconfigured", none)]


def _account(site: Site, seen: SightingJson) -> Finding:
    names = [account.name for account in site.accounts]
    near = difflib.get_close_matches(seen.name, names, n=1, cutoff=0.0)[0] if names else ""
    fix = (
        f"If Amazon sent them, enter https://<your host>/ipn/{near} in Seller Central: the path ends with the name of "
        f"an account. Configured: {', '.join(names)}."
    )
    found = f"/ipn/{seen.name}: {_how_often(site, seen)}, but no account has this name; answered 503"
    return warn("service.unconfigured", "unconfigured_account", found, fix, seen.name)


def _topic(site: Site, seen: SightingJson) -> Finding:
    where = site.accounts[0].name if len(site.accounts) == 1 else "the one whose refunds it is about"
    fix = f'If it is yours, add "{seen.name}" to topic_arns of the account ({where}), and restart.'
    found = f"{seen.name}: {_how_often(site, seen)}; answered 503, so Amazon resends for a while"
    return warn("service.unconfigured", "unconfigured_topic", found, fix, seen.name)


def _merchant(site: Site, seen: SightingJson) -> Finding:
    fix = f'If it is yours, add a table [[accounts]] with merchant_id = "{seen.name}" and its keys, and restart.'
    found = f"merchant {seen.name}: {_how_often(site, seen)} on an allowed topic; answered 503"
    return warn("service.unconfigured", "unconfigured_merchant", found, fix, seen.name)


def _how_often(site: Site, seen: SightingJson) -> str:
    try:
        ago = max(0.0, (site.system_clock() - parse_time(seen.last_seen)) / 1000)
    except Malformed:
        return plural(seen.count, "notification")
    return f"{plural(seen.count, 'notification')}, the last {seconds(ago)} ago"
