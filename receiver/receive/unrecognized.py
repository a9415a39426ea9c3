"""Verb. A proven message that is not understood → stored for a person; a hint for each refund in it; its dispute."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from hashlib import sha256
from typing import cast

import structlog

from receiver.amazon.account import Account, Environment
from receiver.amazon.notification import Notice
from receiver.amazon.sns.envelope import Envelope
from receiver.amazon.unrecognized import Contents
from receiver.ledger.dispute import signed
from receiver.ledger.notification import UNASSIGNED, Hint, HintResult, UnrecognizedNotification
from receiver.ledger.refund import Source
from receiver.store import Store

log = structlog.get_logger()

FEW = 20
"""Refunds in one message that are looked up with the priority of other notifications."""
MOST_SHOWN = 100
"""Refund ids stored beside the message; the message has all of them."""
ENVIRONMENTS = {"S": Environment.SANDBOX, "P": Environment.LIVE}
"""The first letter of an id → its environment."""


def may_be_for(candidates: Sequence[Account], envelope: Envelope, contents: Contents) -> Sequence[Account]:
    """The accounts that a message without a readable merchant id may be for, among those that accept its topic.

    Merchants named in the text come first, then the merchant whose id ends the topic's name (true of every publicly
    seen topic of a merchant).
    """
    named = [account for account in candidates if account.merchant_id in contents.words]
    by_topic = [account for account in candidates if envelope.topic_arn.endswith(account.merchant_id)]
    return named or by_topic or candidates


async def keep(
    store: Store,
    accounts: Sequence[Account],
    envelope: Envelope,
    contents: Contents,
    problem: str,
    now: int,
    traceparent: str,
) -> tuple[HintResult, ...]:
    """Write everything. Returns one result for each place where the message is stored.

    Every account of one merchant stores it. A message that may be for several merchants is stored outside all accounts,
    so that no merchant can read another's.
    """
    names = [account.name for account in accounts]
    several = len({account.merchant_id for account in accounts}) > 1
    kept = UnrecognizedNotification(
        digest=sha256(envelope.signed_text).hexdigest(),
        message_id=envelope.message_id,
        topic_arn=envelope.topic_arn,
        sent_at=envelope.timestamp,
        received_at=now,
        problem=problem,
        accounts=tuple(names),
        refund_ids=contents.refund_ids[:MOST_SHOWN],
        refund_count=len(contents.refund_ids),
        size=len(envelope.message),
        subject=envelope.subject or "",
    )
    log.error(
        "notification.unrecognized",
        topic=envelope.topic_arn,
        message_id=envelope.message_id,
        accounts=names,
        problem=problem,
        refund_ids=contents.refund_ids[:10],
        fix="Read it with `receiver notification show`, and report it: a newer version may understand it.",
    )
    hints = [] if contents.is_sample else _hints(accounts, contents, envelope, now, traceparent)
    writes = [store.of(name).schedule.hint(hint) for name, hint in hints]
    if contents.dispute:
        # A charge permission belongs to one merchant: in another merchant's account it matches no refund.
        dispute = signed(contents.dispute, envelope.message_id, envelope.timestamp)
        writes += [
            store.of(name).disputes.record(dispute, message_id=envelope.message_id, digest=kept.digest)
            for name in names
        ]
    others = len(writes)
    writes += [
        store.of(name).notifications.keep(kept, envelope.message) for name in ([UNASSIGNED] if several else names)
    ]
    return tuple((await all_of(writes))[others:])


def _hints(
    accounts: Sequence[Account], contents: Contents, envelope: Envelope, now: int, traceparent: str
) -> list[tuple[str, Hint]]:
    """Hints without the message's id: its deduplication mark is for one refund, and these can be many."""
    found = []
    for refund_id in contents.refund_ids:
        hint = Hint(
            refund_id=refund_id,
            at=now,
            source=Source.NOTIFICATION,
            sent_at=envelope.timestamp,
            patient=len(contents.refund_ids) > FEW,
            traceparent=traceparent,
        )
        fitting = [account for account in accounts if account.environment is ENVIRONMENTS.get(refund_id[0])]
        found += [(account.name, hint) for account in fitting or accounts]
    return found


async def all_of(writes: list[Coroutine[object, object, HintResult]]) -> list[HintResult]:
    """Wait until every write has ended, then raise the first error: no write runs on after the answer is sent."""
    if len(writes) == 1:
        return [await writes[0]]
    found = await asyncio.gather(*writes, return_exceptions=True)
    for answer in found:
        if isinstance(answer, BaseException):
            raise answer
    return cast("list[HintResult]", found)


def environment_of(notice: Notice) -> Environment | None:
    """The environment from the first letter of the id (S: sandbox, P: live) and, in the XML generation, from its field.

    The ids of test messages are invented: a real one from the sandbox named P01-0000000-0000000-000000.
    """
    object_id = notice.dispute.charge_permission_id if notice.dispute else notice.object_id
    said = ENVIRONMENTS.get("" if notice.is_sample else object_id[:1])
    return said or next((found for found in Environment if found == notice.release_environment.lower()), None)
