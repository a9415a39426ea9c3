"""Edge: Redis. The data in the store: its format, subscribers that are behind, stuck refunds, unclear requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from receiver.amazon.account import Account
from receiver.commands.console import plural
from receiver.commands.doctor.finding import Finding, fail, ok, plain_http, skip, warn
from receiver.commands.doctor.reconcile import check_reconciliation
from receiver.commands.doctor.site import Site, seconds
from receiver.errors import ConfigurationError, StoreUnavailable
from receiver.ledger.notification import UNASSIGNED
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.store import Store
from receiver.store.account import AccountStore
from receiver.store.deliveries.queues import BREAKER
from receiver.store.deliveries.subscribers import SubscriberList
from receiver.store.maintenance.data_version import VERSION, too_new
from receiver.store.redis.damage import WrongType

MANY_WAITING = 100
MANY_HINTED = 1_000
MOST_READ = 500
"""Up to this many dead events, the last reason is shown."""
SUBSCRIBER, REFUNDS, FORMAT = "subscribers.lane", "refunds.pending", "store.format"


async def check_format(store: Store) -> list[Finding]:
    """Whether this version can read the store's data format."""
    try:
        found = await store.format.version()
    except ConfigurationError as error:
        fix = "Use a separate Redis database for the receiver, or remove the key if it belongs to another program."
        return [fail(FORMAT, "format_unreadable", " ".join(error.problems), fix)]
    except StoreUnavailable:
        return []
    if found is not None and found > VERSION:
        return [fail(FORMAT, "format_newer", too_new(found), "This version does not start on it. See the finding.")]
    if found is None:
        return [ok(FORMAT, f"no format is recorded yet; the next start writes {VERSION}")]
    older = f"; the next start upgrades it to {VERSION}" if found < VERSION else ""
    return [ok(FORMAT, f"format {found}{older}")]


async def check_work(site: Site, store: Store) -> list[Finding]:
    """Each account's subscribers and refunds."""
    try:
        await store.correct_clock()
        found = [
            finding for account in site.accounts for finding in await _check_account(store.of(account.name), account)
        ]
        names = [*(account.name for account in site.accounts), UNASSIGNED]
        return [*found, *(await _unrecognized(store, names)), *(await _not_configured(store, names))]
    except StoreUnavailable as error:
        fix = "Allow the user all commands on the keys refunds:*."
        return [fail("store.content", error.reason, f"cannot read the store: {error.detail}", fix)]


async def _unrecognized(store: Store, accounts: Sequence[str]) -> list[Finding]:
    """Notifications that were not understood. `UNASSIGNED` ones may be for several merchants."""
    fix = "See receiver notification list, and report them. A newer version may understand them."
    found = []
    for account in accounts:
        if count := await store.of(account).notifications.count():
            text = f"{plural(count, 'notification')} from Amazon Pay in 30 days not understood"
            found.append(warn("notifications.understood", "unrecognized", text, fix, account))
    return found


async def _not_configured(store: Store, configured: Sequence[str]) -> list[Finding]:
    """Accounts with work to do that are not in the settings: they were renamed or taken out."""
    fix = (
        "Put the account back into the settings under this name until that is done, unless another receiver on this "
        "store serves it."
    )
    found = []
    for name in await store.inspection.accounts_with_data():
        if name not in configured and (left := await _work_left(store.of(name))):
            text = f"{name} is not in the settings, and has {', '.join(left)}: nothing is polled, sent or issued for it"
            found.append(warn("accounts.configured", "account_not_configured", text, fix, name))
    return found


async def _work_left(account: AccountStore) -> list[str]:
    try:
        sizes = await account.gauges.measure()
    except WrongType as error:
        return [f"a key of the wrong type ({error.key})"]
    counts = {
        "pending refund": sizes["pending"],
        "open decline": sum(size for name, size in sizes.items() if name.startswith("declines:")),
        "open refund request": sizes["requests:reserved"] + sizes["requests:unclear"],
        "undelivered event": sum(size for name, size in sizes.items() if name.startswith("waiting:")),
    }
    return [plural(int(count), what) for what, count in counts.items() if count]


async def _check_account(store: AccountStore, settings: Account) -> list[Finding]:
    account = settings.name
    sizes, subscriber_list = await store.gauges.measure(), await store.subscribers.read()
    findings = _refunds(account, sizes, settings.stuck_after / 1000)
    findings += await check_reconciliation(store, settings)
    if not subscriber_list.version:
        found = "no data for this account yet"
        return [*findings, skip(SUBSCRIBER, "not_written_yet", found, "Start `receiver serve`.", account)]
    findings += [
        fail(
            SUBSCRIBER,
            "subscriber_unreadable",
            f"the record of {name} is damaged: its events wait, and nothing is sent",
            "Remove the subscriber and declare it again.",
            f"{account}/{name}",
        )
        for name in subscriber_list.unreadable
    ]
    findings += _undeclared(account, subscriber_list.subscribers.values())
    return [*findings, *(await _lanes(store, subscriber_list, sizes))]


def _undeclared(account: str, subscribers: Iterable[Subscriber]) -> list[Finding]:
    """Subscribers that were taken out of the settings. They get events until a person removes them."""
    return [
        warn(
            "subscribers.declared",
            "no_longer_declared",
            f"{each.name} is no longer in the settings, and still gets events",
            f"receiver subscriber remove {each.name}, or put it back into the settings.",
            f"{account}/{each.name}",
        )
        for each in subscribers
        if each.undeclared_at
    ]


async def _lanes(store: AccountStore, subscriber_list: SubscriberList, sizes: Mapping[str, float]) -> list[Finding]:
    if not subscriber_list.subscribers and not subscriber_list.unreadable:
        fix = "Declare one in [[subscribers]], or: receiver subscriber add NAME URL."
        return [warn(SUBSCRIBER, "no_subscribers", "no subscriber receives declines", fix, store.account)]
    found = []
    for subscriber in subscriber_list.subscribers.values():
        name = subscriber.name
        found += _lane(store.account, subscriber, sizes)
        dead = int(sizes.get(f"dead:{name}", 0))
        if subscriber.origin != "config" and subscriber.url.lower().startswith("http://"):
            fix = "Remove it and add it again with an https address."
            found.append(plain_http("subscribers.url", name, fix, f"{store.account}/{name}"))
        if dead:
            found.append(await _dead(store, name, dead))
    return found


def _lane(account: str, subscriber: Subscriber, sizes: Mapping[str, float]) -> list[Finding]:
    def size(word: str) -> int:
        return int(sizes.get(f"{word}:{subscriber.name}", 0))

    subject = f"{account}/{subscriber.name}"
    waiting, oldest = size("waiting"), size("oldest_waiting")
    owed = f"{plural(waiting, 'event')} waiting" + (f", the oldest for {seconds(oldest)}" if oldest else "")
    if subscriber.paused:
        why = subscriber.paused_reason or "unknown"
        found = f"{subscriber.name} is paused ({why}), {owed}"
        fix = f"When it works again: receiver subscriber resume {subscriber.name}."
        return [warn(SUBSCRIBER, "paused", found, fix, subject)]
    if waiting >= MANY_WAITING:
        found = f"{subscriber.name}: {owed}"
        fix = "Check the subscriber, delivery.retry in the log, and that a worker is running."
        return [warn(SUBSCRIBER, "behind", found, fix, subject)]
    if size("failures") >= BREAKER:
        found = f"{subscriber.name} has failed {size('failures')} times in a row; sending one message at a time; {owed}"
        fix = f"See its last error (receiver subscriber show {subscriber.name}) and fix it."
        return [warn(SUBSCRIBER, "failing", found, fix, subject)]
    return [] if size("dead") else [ok(SUBSCRIBER, f"{subscriber.name}: {owed}", subject)]


async def _dead(store: AccountStore, name: str, count: int) -> Finding:
    found = f"{name}: {plural(count, 'event')} failed permanently"
    if count <= MOST_READ and (events := await store.deliveries.dead_events(name)):
        last = events[-1]
        found += f", the last of refund {last.refund_id} ({last.reason}: {last.last_error or 'no answer'})"
    fix = "Fix the subscriber, then: receiver delivery redrive NAME --all."
    return warn("subscribers.dead", "dead_events", found, fix, f"{store.account}/{name}")


def _refunds(account: str, sizes: Mapping[str, float], stuck_after: float) -> list[Finding]:
    pending, oldest = int(sizes["pending"]), sizes["oldest_pending_seconds"]
    hinted = int(sizes["hinted"])
    found = []
    if hinted >= MANY_HINTED:
        fix = "Check that a worker is running (receiver serve, receiver work) and that Amazon answers."
        text = f"{hinted} notified refunds wait to be looked up at Amazon"
        found.append(warn("refunds.backlog", "backlog", text, fix, account))
    if unclear := int(sizes["requests:unclear"]):
        fix = (
            "List them (receiver refund requests) and send each again (receiver refund repeat). If one stays unclear, "
            "check Seller Central, then: receiver refund settle-request."
        )
        text = f"{plural(unclear, 'refund request')} with an unknown outcome at Amazon"
        found.append(warn("refunds.unclear", "unclear", text, fix, account))
    text = f"{plural(pending, 'refund')} pending" + (f", the oldest for {seconds(oldest)}" if pending else "")
    if oldest > stuck_after:
        fix = "List them (receiver refund list --state RefundInitiated) and contact Amazon Pay support."
        return [*found, warn(REFUNDS, "stuck", text, fix, account)]
    return [*found, ok(REFUNDS, text, account)]
