"""Edge: Redis. What is written: its format, subscribers that are behind, refunds that are stuck or unclear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from receiver.amazon.account import Account
from receiver.commands.doctor.finding import Finding, fail, ok, skip, warn
from receiver.commands.doctor.site import Site, plural, seconds
from receiver.errors import ConfigurationError, StoreUnavailable
from receiver.ledger.notification import UNASSIGNED
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.store import Store
from receiver.store.deliveries.queues import BREAKER
from receiver.store.deliveries.subscribers import SubscriberList
from receiver.store.maintenance.data_version import VERSION, too_new

MANY_WAITING = 100
MANY_HINTED = 1_000
MOST_READ = 500
"""Dead events of which the last reason is looked up; more are only counted."""
SUBSCRIBER, REFUNDS, FORMAT = "subscribers.lane", "refunds.pending", "store.format"


async def check_format(store: Store) -> list[Finding]:
    """Whether this program knows the format of what is written."""
    try:
        found = await store.format.version()
    except ConfigurationError as error:
        mend = "Give the receiver a Redis database of its own, or remove the key if it is foreign."
        return [fail(FORMAT, "format_unreadable", " ".join(error.problems), mend)]
    except StoreUnavailable:
        return []
    if found is not None and found > VERSION:
        return [fail(FORMAT, "format_newer", too_new(found), "See there: this version does not start on it.")]
    if found is None:
        return [ok(FORMAT, f"no format is written yet: it counts as 1, and the next start writes {VERSION}")]
    older = f", and the next start brings it to {VERSION}" if found < VERSION else ""
    return [ok(FORMAT, f"format {found}{older}")]


async def check_work(site: Site, store: Store) -> list[Finding]:
    """Each account's subscribers and refunds."""
    try:
        await store.correct_clock()
        found = [finding for account in site.accounts for finding in await _check_account(store, account)]
        return [*found, *(await _unrecognized(store, [*(account.name for account in site.accounts), UNASSIGNED]))]
    except StoreUnavailable as error:
        mend = "Allow the user all commands on the keys refunds:*."
        return [fail("store.content", error.reason, f"what is written cannot be read: {error.detail}", mend)]


async def _unrecognized(store: Store, accounts: Sequence[str]) -> list[Finding]:
    """Notifications that were not understood. Those of `UNASSIGNED` may be for several merchants."""
    mend = "Read them (receiver notification list), and report them: a newer version may understand them."
    found = []
    for account in accounts:
        if count := await store.notifications.count(account):
            text = f"{plural(count, 'notification')} of Amazon Pay in 30 days could not be understood"
            found.append(warn("notifications.understood", "unrecognized", text, mend, account))
    return found


async def _check_account(store: Store, settings: Account) -> list[Finding]:
    account = settings.name
    sizes, subscriber_list = await store.gauges.measure(account), await store.subscribers.read(account)
    findings = _refunds(account, sizes, settings.stuck_after / 1000)
    if not subscriber_list.version:
        found = "nothing is written yet for this account"
        return [*findings, skip(SUBSCRIBER, "not_written_yet", found, "Start `receiver serve`.", account)]
    findings += [
        fail(
            SUBSCRIBER,
            "subscriber_unreadable",
            f"the record of {name} is damaged: it is owed everything, and nothing is sent",
            "Remove it and declare it again.",
            f"{account}/{name}",
        )
        for name in subscriber_list.unreadable
    ]
    return [*findings, *(await _lanes(store, account, subscriber_list, sizes))]


async def _lanes(
    store: Store, account: str, subscriber_list: SubscriberList, sizes: Mapping[str, float]
) -> list[Finding]:
    if not subscriber_list.subscribers and not subscriber_list.unreadable:
        mend = "Declare one in [[subscribers]], or: receiver subscriber add NAME URL."
        return [warn(SUBSCRIBER, "no_subscribers", "nobody is told about declines", mend, account)]
    found = []
    for subscriber in subscriber_list.subscribers.values():
        name = subscriber.name
        found += _lane(account, subscriber, sizes)
        dead = int(sizes.get(f"dead:{name}", 0))
        if subscriber.origin != "config" and subscriber.url.lower().startswith("http://"):
            told = f"{name} is told over plain http: everybody on the way can read and drop its events"
            mend = "Remove it, and add it with an https address."
            found.append(warn("subscribers.url", "plain_http", told, mend, f"{account}/{name}"))
        if dead:
            found.append(await _dead(store, account, name, dead))
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
        mend = f"When it is ready: receiver subscriber resume {subscriber.name}."
        return [warn(SUBSCRIBER, "paused", found, mend, subject)]
    if waiting >= MANY_WAITING:
        found = f"{subscriber.name}: {owed}"
        mend = "Look for delivery.retry in the log, and at the subscriber; is a worker running?"
        return [warn(SUBSCRIBER, "behind", found, mend, subject)]
    if size("failures") >= BREAKER:
        found = f"{subscriber.name} has failed {size('failures')} times in a row: one message at a time is sent; {owed}"
        mend = f"See its last error (receiver subscriber show {subscriber.name}), and mend it."
        return [warn(SUBSCRIBER, "failing", found, mend, subject)]
    return [] if size("dead") else [ok(SUBSCRIBER, f"{subscriber.name}: {owed}", subject)]


async def _dead(store: Store, account: str, name: str, count: int) -> Finding:
    found = f"{name}: {plural(count, 'event')} given up"
    if count <= MOST_READ and (events := await store.deliveries.dead_events(account, name)):
        last = events[-1]
        found += f", the last of refund {last.refund_id} ({last.reason}: {last.last_error or 'no answer'})"
    mend = "Mend the subscriber, then: receiver delivery redrive NAME --all."
    return warn("subscribers.dead", "dead_events", found, mend, f"{account}/{name}")


def _refunds(account: str, sizes: Mapping[str, float], stuck_after: float) -> list[Finding]:
    pending, oldest = int(sizes["pending"]), sizes["oldest_pending_seconds"]
    hinted = int(sizes["hinted"])
    found = []
    if hinted >= MANY_HINTED:
        mend = "Is a worker running (receiver serve, receiver work), and does Amazon answer it?"
        text = f"{hinted} refunds were notified of, and Amazon is not asked yet"
        found.append(warn("refunds.backlog", "backlog", text, mend, account))
    if unclear := int(sizes["requests:unclear"]):
        mend = (
            "See them (receiver refund requests), and send each again (receiver refund repeat). If it stays unclear, "
            "look in Seller Central, then: receiver refund settle-request."
        )
        text = f"{plural(unclear, 'refund request')} of which nobody knows whether Amazon made the refund"
        found.append(warn("refunds.unclear", "unclear", text, mend, account))
    text = f"{plural(pending, 'refund')} pending" + (f", the oldest for {seconds(oldest)}" if pending else "")
    if oldest > stuck_after:
        mend = "See them (receiver refund list --state RefundInitiated), and ask Amazon's support."
        return [*found, warn(REFUNDS, "stuck", text, mend, account)]
    return [*found, ok(REFUNDS, text, account)]
