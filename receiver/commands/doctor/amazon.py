"""Edge: the web. Whether Amazon answers, accepts our key, lets it ask about disputes, and agrees with our clock."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from email.utils import parsedate_to_datetime

from receiver.amazon.account import Account
from receiver.amazon.answers import judge
from receiver.amazon.calls import get_dispute, get_refund
from receiver.amazon.clock import OF_THE_DATE, HostClocks
from receiver.amazon.signing import diagnose
from receiver.commands.doctor.clocks import FIX as SET_CLOCK
from receiver.commands.doctor.clocks import judge_clock
from receiver.commands.doctor.finding import Finding, Status, fail, ok, skip, warn
from receiver.commands.doctor.keys import PROBES
from receiver.commands.doctor.site import Site
from receiver.errors import AmazonError, AmazonNotFound, AmazonRefusesUs, AmazonThrottled, TransportError
from receiver.exchange import Request, Response
from receiver.track.amazon_client import REDATED, host_of

TIMEOUT, CONNECT_TIMEOUT = 6.0, 4.0
KEY, REACH, DISPUTES, CLOCK = "amazon.key", "amazon.reachable", "amazon.disputes", "clock.amazon"
OF_THE_KEY = frozenset(
    {
        *("InvalidAuthentication", "InvalidRequestSignature", "InvalidAuthorizationToken", "UnauthorizedAccess"),
        *("InvalidAccountStatus", "InvalidHeaderValue", "MissingHeader", "MissingHeaderValue"),
    }
)
"""Amazon's reason codes about the caller, observed with status 400 and 401."""

FIXES = {
    "dns_failed": "Check this machine's DNS.",
    "connect_failed": "Allow connections to that host on port 443. Proxy settings of the environment are not used.",
    "tls_failed": "Check the system's trust store (SSL_CERT_FILE) and clock, and proxies that intercept TLS.",
    "timeout": "Check the firewall: packets seem to be dropped.",
}
OF_THE_WAY = {
    407: "A proxy requires a login. Allow direct connections to Amazon on port 443.",
    426: "Amazon or a proxy requires a newer TLS version. Check proxies that intercept TLS.",
}
MOST_AHEAD = 1.5
"""Seconds. A host two seconds behind refuses requests dated by this machine; `Date` is precise to half a second."""
ELSEWHERE = "Check the network between this machine and the host."


async def check_amazon(site: Site) -> list[Finding]:
    """Asks Amazon for a refund and a dispute that do not exist, once per account, only at that account's address."""
    if site.offline:
        return [skip(KEY, "offline", "skipped: --offline")]
    found = await asyncio.gather(*(_check_account(site, account) for account in site.accounts))
    return [finding for findings in found for finding in findings]


async def _check_account(site: Site, account: Account) -> list[Finding]:
    request = get_refund(account.endpoint, PROBES[account.environment])
    try:
        signed, answer, before = await _asked(site, account, request)
    except TransportError as error:
        ours = " Is `endpoint` right?" if account.endpoint.override else ""
        fix = FIXES.get(error.reason, ELSEWHERE) + ours
        return [
            fail(REACH, error.reason, f"Amazon is unreachable: {error.detail}", fix, account.name),
            skip(KEY, "not_reached", "unknown: Amazon is unreachable", subject=account.name),
        ]
    middle = (before + site.system_clock()) / 2000
    found = [_judge(account, signed, answer), _clock(site, account, answer, middle)]
    return [*found, *([await _check_disputes(site, account)] if found[0].status is Status.OK else [])]


async def _check_disputes(site: Site, account: Account) -> Finding:
    request = get_dispute(account.endpoint, PROBES[account.environment].replace("-R", "-B"))
    try:
        _, answer, _ = await _asked(site, account, request)
        judge(answer)
    except AmazonNotFound:
        pass
    except AmazonRefusesUs as error:
        found = f"Amazon does not let the key use Get Dispute: {error.detail}"
        fix = (
            "A dispute then counts as open from its notification on, and blocks refunds of its charge. Let the key "
            "use the Dispute API, or check disputes in Seller Central."
        )
        return warn(DISPUTES, "no_right", found, fix, account.name)
    except (AmazonError, TransportError) as error:
        return skip(DISPUTES, error.reason, f"unknown: {error.detail}", subject=account.name)
    return ok(DISPUTES, "the key may use Get Dispute", account.name)


async def _asked(site: Site, account: Account, request: Request) -> tuple[Request, Response, int]:
    """The last request, its answer, and when it was sent (ms). It is dated by Amazon's clock, as in the service."""
    clocks, host = HostClocks(), host_of(request)
    for repeats in reversed(range(REDATED + 1)):
        before, dated = site.system_clock(), clocks.date_for(host, site.system_clock())
        signed = await asyncio.to_thread(account.signer.sign, request, dated)
        answer = await site.send(signed, timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT)
        try:
            judge(answer)
        except AmazonRefusesUs:
            if repeats and clocks.refused(host, answer, site.system_clock(), dated=dated):
                continue
        except AmazonError:
            pass
        break
    return signed, answer, before


def _judge(account: Account, signed: Request, answer: Response) -> Finding:
    host = account.endpoint.host
    try:
        judge(answer)
    except AmazonNotFound:
        return _accepted(account, f"{host} answers and accepts the key {account.signer.public_key_id}")
    except AmazonThrottled:
        return _accepted(account, f"{host} answers 429 (throttled), so it accepts the key")
    except AmazonRefusesUs as error:
        return _refused(account, signed, error)
    except AmazonError as error:
        fix = "If this persists, check Amazon Pay's status page and `endpoint`."
        return warn(KEY, error.reason, f"{host}: {error.detail}", fix, account.name)
    return _accepted(account, f"{host} answers and accepts the key")


def _accepted(account: Account, found: str) -> Finding:
    """Amazon finds the merchant by the key: the configured id is not a part of any call."""
    return ok(
        KEY, f"{found}. merchant_id is not checked: the first notification shows whether it is right", account.name
    )


def _refused(account: Account, signed: Request, error: AmazonRefusesUs) -> Finding:
    quoted = f" (request id {error.amazon_request_id})" if error.amazon_request_id else ""
    if error.amazon_status in OF_THE_WAY:
        found = f"a proxy stops requests to Amazon: {error.detail}{quoted}"
        return fail(KEY, "way_refused", found, OF_THE_WAY[error.amazon_status], account.name)
    if error.reason_code == "InvalidHeaderValue" and OF_THE_DATE.search(error.detail):
        return fail(KEY, "date_refused", f"Amazon refuses the date: {error.detail}{quoted}", SET_CLOCK, account.name)
    if error.amazon_status not in (401, 403) and error.reason_code not in OF_THE_KEY:
        fix = "If refunds are found anyway, ignore this. Otherwise give Amazon Pay support the request id."
        return warn(
            KEY,
            "amazon_refuses_us",
            f"an answer that does not say whether the key is right: {error.detail}{quoted}",
            fix,
            account.name,
        )
    fix = diagnose(error.detail, signed, account.signer.algorithm) or (
        "Compare public_key_id, region and environment with Seller Central (Integration Central); "
        "private_key_file must belong to that public key."
    )
    return fail(KEY, "key_refused", f"Amazon refuses the key: {error.detail}{quoted}", fix, account.name)


def _clock(site: Site, account: Account, answer: Response, middle: float) -> Finding:
    """`middle` is our time (s) in the middle of the exchange. `Date` has whole seconds: half of one is added."""
    try:
        theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp() + 0.5
    except (ValueError, TypeError, OverflowError):
        return skip(CLOCK, "no_date", "Amazon's answer has no Date", subject=account.name)
    most = min(site.settings.ingest.max_future, timedelta(minutes=5)).total_seconds()
    return judge_clock(CLOCK, middle - theirs, most, "Amazon's", account.name, most_ahead=MOST_AHEAD)
