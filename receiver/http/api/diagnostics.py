"""HTTP. `/v1/diagnostics` and `/v1/notifications…`: what only the running process knows, and the notifications that are
proven but not understood, as Amazon sent them. For operators.

Accounts of one merchant keep a copy of a notification each; here it appears once. A notification that may concern
several merchants is shown only to tokens that see all of their accounts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from receiver.errors import NotFound
from receiver.http.api.auth import Caller
from receiver.http.api.operations import Call, admin_operation
from receiver.http.api.params import ACCOUNT, in_path, number
from receiver.http.api.schema import (
    CertificateJson,
    DiagnosticsJson,
    SightingJson,
    StoreJson,
    UnrecognizedJson,
    UnrecognizedListJson,
    UnrecognizedMessageJson,
)
from receiver.ledger.age import DAY
from receiver.ledger.notification import UNASSIGNED
from receiver.ledger.schema import extended
from receiver.ledger.timestamps import format_rfc3339
from receiver.receive.certificates import CertificateStore
from receiver.receive.receiver import Receiver
from receiver.receive.unconfigured import UnconfiguredNames
from receiver.runtime.version import package_version
from receiver.store import Store
from receiver.store.refunds.notifications import MOST_KEPT, Kept


@dataclass(frozen=True, slots=True)
class DiagnosticsSource:
    """The data to report. `store` is `embedded` or `redis`; `workers` gives each task's state: running, failing or
    ended."""

    store: Literal["embedded", "redis"]
    receiver: Receiver
    certificates: CertificateStore
    workers: Callable[[], Mapping[str, str]]


class DiagnosticsApi:
    """The handler. `now` is ms since the epoch, UTC."""

    def __init__(self, inside: DiagnosticsSource, now: Callable[[], int]) -> None:
        self._inside, self._now = inside, now

    @admin_operation(
        "GET",
        "/v1/diagnostics",
        id="getDiagnostics",
        summary="What this process has recorded since its start",
        store=False,
    )
    async def report(self, call: Call) -> DiagnosticsJson:
        """Omits the workers of accounts that the token may not see. Unconfigured topics and merchants belong to no
        account."""
        inside, now = self._inside, self._now()
        return DiagnosticsJson(
            version=package_version(),
            time=format_rfc3339(now),
            store=StoreJson(kind=inside.store),
            workers={name: state for name, state in inside.workers().items() if _may_see(call.caller, name)},
            unconfigured_accounts=tuple(unconfigured(inside.receiver.unconfigured_accounts)),
            unconfigured_topics=unconfigured(inside.receiver.unconfigured_topics),
            unconfigured_merchants=unconfigured(inside.receiver.unconfigured_merchants),
            certificates=[
                CertificateJson(
                    file=each.name,
                    not_after=format_rfc3339(each.not_after),
                    days_left=(each.not_after - now) // DAY,
                )
                for each in inside.certificates.known()
            ],
        )


def unconfigured(names: UnconfiguredNames) -> list[SightingJson]:
    found = sorted(names.listed().items(), key=lambda pair: -pair[1].count)
    return [SightingJson(name=name, count=each.count, last_seen=format_rfc3339(each.last_seen)) for name, each in found]


def _may_see(caller: Caller, worker: str) -> bool:
    """A worker of one account is named like `track:us`; any other name is shared by all accounts."""
    _, _, account = worker.partition(":")
    return not account or account in caller.accounts


NOTIFICATION_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:-[0-9a-f]{8})?")
NOTIFICATION: Final = in_path(
    "notification_id",
    "`notificationId` from the list.",
    "17bf00c4-8bf8-5f70-9f25-51097f9450e5",
    NOTIFICATION_ID,
    (
        "bad_notification_id",
        "A notification's id is its MessageId, as shown by `receiver notification list`.",
    ),
)
LIMIT: Final = number("limit", "Maximum number of items.", 50, 1, MOST_KEPT)


class NotificationApi:
    """The handlers. `configured` are all accounts."""

    def __init__(self, store: Store, configured: Iterable[str]) -> None:
        self._store, self._configured = store, frozenset(configured)

    @admin_operation(
        "GET",
        "/v1/notifications",
        id="listNotifications",
        summary="Notifications that are proven but not understood, newest first",
        about=f"Each account keeps its last {MOST_KEPT:,} for 30 days. Amazon has been asked about every refund that "
        "they name.",
        parameters=(ACCOUNT, LIMIT),
        in_turn=True,
    )
    async def many(self, call: Call) -> UnrecognizedListJson:
        """A work list, so it has no pages."""
        accounts, limit = call.accounts, call[LIMIT]
        lists = await asyncio.gather(
            *(self._store.of(account).notifications.latest(limit + 1) for account in [*accounts, UNASSIGNED])
        )
        found = {(kept.id, kept.details.digest): kept for kept in self._visible(lists, accounts, call.caller.accounts)}
        newest = sorted(found.values(), key=lambda kept: (-kept.details.received_at, kept.id))
        return UnrecognizedListJson(
            notifications=[unrecognized_json(kept) for kept in newest[:limit]],
            more=len(newest) > limit,
        )

    @admin_operation(
        "GET",
        "/v1/notifications/{notification_id}",
        id="getNotification",
        summary="One such notification, with its message",
        parameters=(NOTIFICATION, ACCOUNT),
        reasons=({404: ("no_such_notification",)},),
    )
    async def one(self, call: Call) -> UnrecognizedMessageJson:
        accounts, id_ = call.accounts, call[NOTIFICATION]
        answers = await asyncio.gather(
            *(self._store.of(account).notifications.get(id_) for account in [*accounts, UNASSIGNED])
        )
        lists = [[] if answer is None else [answer[0]] for answer in answers]
        visible = self._visible(lists, accounts, call.caller.accounts)
        found = next((answer for answer in answers if answer is not None and answer[0] in visible), None)
        if found is None:
            raise NotFound("Notification not found, or not visible to the token.", reason="no_such_notification")
        return extended(UnrecognizedMessageJson, unrecognized_json(found[0]), message=found[1])

    def _visible(self, lists: Sequence[Sequence[Kept]], asked: Sequence[str], seen: Sequence[str]) -> list[Kept]:
        """All notifications of these accounts. Of those kept separately, only those whose accounts the token sees."""
        *own, apart = lists
        all_seen = self._configured <= set(seen)
        fitting = [
            kept
            for kept in apart
            if not set(asked).isdisjoint(kept.details.accounts)
            and (all_seen or set(kept.details.accounts) <= set(seen))
        ]
        return [*(kept for each in own for kept in each), *fitting]


def unrecognized_json(kept: Kept) -> UnrecognizedJson:
    """A notification without its message."""
    details = kept.details
    return UnrecognizedJson(
        notification_id=kept.id,
        accounts=list(details.accounts),
        topic_arn=details.topic_arn,
        sent_at=format_rfc3339(details.sent_at),
        received_at=format_rfc3339(details.received_at),
        problem=details.problem,
        refund_ids=list(details.refund_ids),
        refund_count=details.refund_count,
        size=details.size,
        subject=details.subject or None,
    )
