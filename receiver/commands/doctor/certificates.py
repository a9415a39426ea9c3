"""Edge: the web. Signing certificates: pinned ones, and the hosts that serve the others."""

from __future__ import annotations

import asyncio

from receiver.amazon.account import Account
from receiver.amazon.sns import regions
from receiver.amazon.sns.certificate import SigningCertificate, check_certificate
from receiver.amazon.sns.signature import read_address
from receiver.commands.doctor.amazon import ELSEWHERE, FIXES
from receiver.commands.doctor.finding import Finding, fail, ok, skip, warn
from receiver.commands.doctor.site import Site
from receiver.errors import CertificateUnavailable, ConfigurationError, TransportError, VerificationFailed
from receiver.exchange import Request
from receiver.ledger.age import DAY
from receiver.receive.certificates import CertificateStore

TIMEOUT, CONNECT_TIMEOUT = 6.0, 4.0
SOON = 30
"""Days."""
PINNED, HOST = "certificates.pinned", "certificates.host"


async def check_pinned(site: Site) -> list[Finding]:
    """Whether each pinned certificate is valid by the rules of `/ipn`, and for how long."""
    return [
        _check_pinned(site, account, url, pem)
        for account in site.accounts
        for url, pem in account.signing_certificates.items()
    ]


def _check_pinned(site: Site, account: Account, url: str, pem: bytes) -> Finding:
    file = url.rpartition("/")[2]
    fix = f"Download it again from {url}, or remove the pin: the service then fetches it when needed."
    try:
        store = CertificateStore(
            _no_fetch, site.system_clock, pinned={url: pem}, md5=site.settings.ingest.certificate_md5
        )
    except ConfigurationError as error:
        found = f"{file}: {' '.join(error.problems)} The service does not start."
        return fail(PINNED, "certificate_unusable", found, fix, account.name)
    return _judge_dates(account, url, store.known()[0], site.system_clock(), fix)


def _judge_dates(account: Account, url: str, certificate: SigningCertificate, now: int, fix: str) -> Finding:
    file = url.rpartition("/")[2]
    address = read_address(url)
    days = (certificate.not_after - now) // DAY
    try:
        if address is not None:
            check_certificate(certificate, address[0], url.split(".")[1], now, now)
    except VerificationFailed as error:
        found = f"{file}: {error.detail}" if error.reason != "certificate_dates" else f"{file}: it is not valid today."
        return fail(PINNED, error.reason, f"{found} Notifications signed with it are refused.", fix, account.name)
    if days < SOON:
        found = f"{file}: valid for {days} more days; Amazon will then use another one"
        return warn(PINNED, "certificate_ends_soon", found, "Pin the next one or remove the pins.", account.name)
    return ok(PINNED, f"{file}: valid for {days} more days", account.name)


async def _no_fetch(url: str) -> bytes:
    raise CertificateUnavailable(f"{url} is not fetched by this command.")


async def check_hosts(site: Site) -> list[Finding]:
    """DNS, TCP and TLS to the host of SNS in each region of the accounts' topics. Nothing is fetched."""
    if site.offline:
        return [skip(HOST, "offline", "skipped: --offline")]
    hosts: dict[str, bool] = {}
    for account in site.accounts:
        for topic in account.topics:
            _, partition, _, region, *_ = topic.text.split(":")
            host = regions.host(partition, region)
            hosts[host] = hosts.get(host, True) and bool(account.signing_certificates)
    return list(await asyncio.gather(*(_check_host(site, host, pinned) for host, pinned in hosts.items())))


async def _check_host(site: Site, host: str, pinned: bool) -> Finding:
    try:
        request = Request("HEAD", f"https://{host}/")
        answer = await site.send(request, timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT, max_body=0)
    except TransportError as error:
        found = f"{error.detail} Certificates come from this host"
        fix = FIXES.get(error.reason, ELSEWHERE)
        if pinned:
            return warn(HOST, error.reason, f"{found}. Only pinned ones are trusted.", fix, host)
        return fail(HOST, error.reason, f"{found}. Notifications get 503 until it is reachable.", fix, host)
    return ok(HOST, f"{host}: reachable, TLS is valid (status {answer.status})", host)
