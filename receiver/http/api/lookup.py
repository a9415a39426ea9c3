"""HTTP. Finds the one refund, charge, request or subscriber that a path names, in the accounts that the token may see.

If several accounts have it, the answer is 409 with their names. Otherwise the result would depend on which account was
searched first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from receiver.amazon.ids import no_such_refund
from receiver.errors import Conflict, NotFound
from receiver.ledger.audit import AuditEntry
from receiver.ledger.declines.job import Job
from receiver.ledger.dispute import Dispute, permission_of
from receiver.ledger.refund import Refund, Revision
from receiver.ledger.refund_request import RefundRequestRecord
from receiver.ledger.retryability import KnownCharge
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.store import Store

T = TypeVar("T")


async def _in_each(accounts: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> list[T]:
    """The answer of each account, asked together. One account needs no task."""
    if len(accounts) == 1:
        return [await ask(accounts[0])]
    return await asyncio.gather(*map(ask, accounts))


async def find_refunds(store: Store, accounts: Sequence[str], refund_id: str) -> list[Refund]:
    """The refund, once for each account that knows it."""
    answers = await _in_each(accounts, lambda account: store.of(account).refunds.get(refund_id))
    return [refund for refund in answers if refund is not None]


def the_refund(found: Sequence[Refund], refund_id: str) -> Refund:
    """The only refund found with this id. Raises `NotFound`, `Conflict`."""

    def missing() -> NotFound:
        return NotFound(no_such_refund(refund_id), reason="no_such_refund")

    return _the_one([(refund.account, refund) for refund in found], "know this refund", missing)[1]


async def find_charges(store: Store, accounts: Sequence[str], charge_id: str) -> list[tuple[str, KnownCharge]]:
    """What is known of the charge, with its account, for each account that knows anything."""
    answers = await _in_each(accounts, lambda account: store.of(account).charges.known(charge_id))
    return [(account, each) for account, each in zip(accounts, answers, strict=True) if _knows(each, charge_id)]


def _knows(known: KnownCharge, charge_id: str) -> bool:
    is_disputed = any(each.charge_id == charge_id for each in known.disputes)
    return bool(known.entries or known.charge or is_disputed or not known.readable)


def the_charge(found: Sequence[tuple[str, KnownCharge]]) -> tuple[str, KnownCharge]:
    """The only one found, with its account. Raises `NotFound`, `Conflict`."""
    return _the_one(found, "know this charge", lambda: NotFound("Charge not found.", reason="no_such_charge"))


async def find_history(store: Store, refund: Refund) -> tuple[list[Revision], list[Dispute]]:
    """Its revisions, oldest first, and the disputes that concern its charge."""
    own = store.of(refund.account)
    revisions, disputes = await asyncio.gather(
        own.refunds.history(refund.refund_id),
        own.disputes.of_permission(permission_of(refund.charge_id or refund.refund_id)),
    )
    return revisions, [each for each in disputes if each.concerns(refund.charge_id)]


async def find_request(
    store: Store, accounts: Sequence[str], refund_request_id: str
) -> tuple[str, RefundRequestRecord]:
    """The request, with its account. Raises `NotFound`, `Conflict`."""
    answers = await _in_each(accounts, lambda account: store.of(account).requests.get(refund_request_id))
    found = [(account, record) for account, record in zip(accounts, answers, strict=True) if record is not None]
    text = "Refund request not found, or not visible to the token."
    return _the_one(found, "know this request", lambda: NotFound(text, reason="no_such_request"))


async def find_job(store: Store, accounts: Sequence[str], job_id: str) -> Job:
    """The job. Raises `NotFound`, `Conflict`."""
    answers = await _in_each(accounts, lambda account: store.of(account).jobs.get(job_id))
    text = "Job not found. Jobs are kept for 30 days after their end."
    found = [(job.account, job) for job in answers if job is not None]
    return _the_one(found, "know this job", lambda: NotFound(text, reason="no_such_job"))[1]


async def all_subscribers(store: Store, accounts: Sequence[str]) -> list[tuple[str, Subscriber]]:
    """(account, subscriber), by account and name."""
    lists = await _in_each(accounts, lambda account: store.of(account).subscribers.readable())
    return [(account, each) for account, found in zip(accounts, lists, strict=True) for each in found]


async def find_subscriber(store: Store, accounts: Sequence[str], name: str) -> tuple[str, Subscriber]:
    """The subscriber, with its account. Raises `NotFound`, `Conflict`."""
    found = [each for each in await all_subscribers(store, accounts) if each[1].name == name]
    return _the_one(found, "have a subscriber with this name", _no_such_subscriber)


def _no_such_subscriber() -> NotFound:
    return NotFound("Subscriber not found, or not visible to the token.", reason="no_such_subscriber")


async def change_subscriber(
    store: Store, accounts: Sequence[str], name: str, change: Callable[[Subscriber], Subscriber], audit: AuditEntry
) -> tuple[str, Subscriber]:
    """The changed subscriber, with its account. `audit` is written with the change.

    Raises `NotFound`, `Conflict`, and what `change` raises.
    """
    account, _ = await find_subscriber(store, accounts, name)
    updated = await store.of(account).subscribers.update(name, lambda stored, _: change(stored), audit=audit)
    if updated is None:
        raise _no_such_subscriber()
    return account, updated.after


def _the_one(found: Sequence[tuple[str, T]], what: str, missing: Callable[[], NotFound]) -> tuple[str, T]:
    if not found:
        raise missing()
    if len(found) > 1:
        names = ", ".join(account for account, _ in found)
        raise Conflict(f"Several accounts {what}: {names}. Add ?account=.", reason="several_accounts")
    return found[0]
