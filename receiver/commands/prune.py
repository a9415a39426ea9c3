"""Command. `receiver prune`: removes old, final refunds from the configured store.

It works on the store and not through the API. Pruning cannot be undone, so it needs access to the installation (a shell
or a timer); no API token can do it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from receiver.commands.console import emit, emit_value, plural, say
from receiver.errors import ConfigurationError, StoreUnavailable
from receiver.ledger.refund import REFUND_ID, State
from receiver.ledger.timestamps import milliseconds, parse_span
from receiver.settings import Settings, StoreSettings
from receiver.store import Store
from receiver.store.account import AccountStore
from receiver.store.audit import KEPT_FOR
from receiver.store.embedded.files import DataDir
from receiver.store.maintenance.pruning import Pruned
from receiver.store.redis.address import RedisAddress, read_address
from receiver.store.redis.client import link

SHORTEST = timedelta(days=30)
BATCH = 100
PAUSE = 0.05
"""Seconds between two batches, so that the service's commands are not delayed."""

WORDS = {
    Pruned.GONE: "not found",
    Pruned.CHANGED: "changed meanwhile",
    Pruned.PENDING: "not final",
    Pruned.CONFLICT: "in conflict: Amazon reported two final states",
    Pruned.OPEN: "declined, with an open case: close it first (`receiver refund close`)",
    Pruned.LEGACY: "of Flexible Payments: kept so that its reference cannot refund twice",
    Pruned.YOUNG: "changed meanwhile",
    Pruned.SCHEDULED: "a poll of Amazon is due",
    Pruned.REQUEST_OPEN: "a refund request is open on its charge",
    Pruned.REQUEST_KEPT: "issued here, and its Idempotency-Key is still remembered (400 days)",
    Pruned.OWED: "an event of it waits for a subscriber",
    Pruned.UNREADABLE: "damaged: look for store.record_unreadable in the log",
}


@dataclass(slots=True)
class Tally:
    """How many refunds of one account were removed, and how many were kept, by reason."""

    account: str
    counts: Counter[Pruned] = field(default_factory=Counter)
    audit_entries: int = 0
    """How many old entries of the audit trail were removed."""

    def fields(self) -> dict[str, object]:
        kept = {str(word): count for word, count in sorted(self.counts.items()) if word is not Pruned.PRUNED}
        pruned = self.counts[Pruned.PRUNED]
        return {"account": self.account, "pruned": pruned, "kept": kept, "auditEntries": self.audit_entries}


async def prune(settings: Settings, older_than: str, refund_id: str, account: str, dry_run: bool, as_json: bool) -> int:
    """Prune by age, or one refund. Returns the exit code: 1 if the one refund was kept, or does not exist.

    Raises `ConfigurationError`, also for a store that no service runs on, and `StoreUnavailable`.
    """
    older_than_ms = read_choice(older_than, refund_id)
    names = [each.name for each in settings.accounts if account in ("", each.name)]
    if not names:
        raise ConfigurationError([f"--account: the settings have no account {account!r}."])
    async with opened(settings) as store:
        try:
            await ready_to_write(store)
            if older_than_ms is None:
                tallies = [await _one(store.of(name), refund_id, remove=not dry_run) for name in names]
            else:
                before = store.now() - older_than_ms
                tallies = [await _old(store.of(name), before, remove=not dry_run) for name in names]
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"{error.detail} Refunds removed so far stay removed. Run it again when the store answers.",
                reason=error.reason,
            ) from error
    _tell(tallies, dry_run, as_json)
    return 1 if refund_id and not any(each.counts[Pruned.PRUNED] for each in tallies) else 0


def read_choice(older_than: str, refund_id: str) -> int | None:
    """The age in ms, None for one refund. Raises `ConfigurationError` unless exactly one of the two is given."""
    if bool(older_than) == bool(refund_id):
        raise ConfigurationError(["Give either --older-than, for example 400d, or --refund."])
    if refund_id:
        if not REFUND_ID.fullmatch(refund_id):
            raise ConfigurationError(["--refund: a refund id is 1 to 64 letters, digits and hyphens."])
        return None
    try:
        span = parse_span(older_than)
    except ValueError as error:
        raise ConfigurationError([f"--older-than: {error}"]) from None
    if span < SHORTEST:
        raise ConfigurationError(
            [
                f"--older-than: {SHORTEST.days}d or more. Amazon repeats notifications for up to 14 days, so a younger "
                "refund would come back and its events would be sent again."
            ]
        )
    return milliseconds(span)


@asynccontextmanager
async def opened(settings: StoreSettings) -> AsyncIterator[Store]:
    """The store of these settings. Raises `ConfigurationError` if it is an embedded one that does not run."""
    redis, address = settings.redis, address_of(settings)
    client = link(address, timeout=redis.timeout.total_seconds(), connect_timeout=redis.connect_timeout.total_seconds())
    store = Store(client, wait_replicas=redis.wait_replicas, wait_timeout=redis.wait_timeout.total_seconds())
    try:
        yield store
    finally:
        await store.close()


async def ready_to_write(store: Store) -> None:
    """As the service does at its start. Raises `ConfigurationError`, `StoreUnavailable`."""
    await store.correct_clock()
    store.format.hold_writes()
    await store.format.ensure()


def address_of(settings: StoreSettings) -> RedisAddress:
    """The store's address. Raises `ConfigurationError` if it is an embedded one that does not run."""
    if settings.redis.address is not None:
        return settings.redis.address
    files = DataDir(settings.data_dir.resolve())
    if not files.socket.exists():
        raise ConfigurationError([f"{files.path}: no Valkey is running there. Start `receiver serve` first."])
    return read_address(files.url)


async def _one(store: AccountStore, refund_id: str, *, remove: bool) -> Tally:
    tally = Tally(store.account)
    tally.counts[await store.pruning.prune(refund_id, before=None, remove=remove)] += 1
    return tally


async def _old(store: AccountStore, before: int, *, remove: bool) -> Tally:
    """Prunes in batches. Refunds that are kept come first in the next batch too, so as many are skipped."""
    tally = Tally(store.account)
    for state in (State.REFUNDED, State.DECLINED):
        stay = 0
        while ids := await store.pruning.old_refunds(state, before, stay, BATCH):
            found = await asyncio.gather(
                *(store.pruning.prune(refund_id, before=before, remove=remove) for refund_id in ids)
            )
            tally.counts.update(found)
            stay += len(ids) - (found.count(Pruned.PRUNED) if remove else 0)
            await asyncio.sleep(PAUSE)
    audit, old = store.audit, min(before, store.now() - KEPT_FOR)
    tally.audit_entries = await (audit.trim(old) if remove else audit.count_before(old))
    return tally


def _tell(tallies: list[Tally], dry_run: bool, as_json: bool) -> None:
    if as_json:
        emit_value({"dryRun": dry_run, "accounts": [tally.fields() for tally in tallies]})
        return
    for tally in tallies:
        done = "would be removed" if dry_run else "removed"
        emit(f"{tally.account}: {plural(tally.counts[Pruned.PRUNED], 'refund')} {done}")
        if tally.audit_entries:
            emit(f"{tally.account}: {tally.audit_entries} old audit entries {done}")
        for word, count in sorted(tally.counts.items()):
            if word is not Pruned.PRUNED:
                emit(f"{tally.account}: {plural(count, 'refund')} kept: {WORDS[word]}")
    if dry_run:
        say(["Nothing was changed."])
