"""HTTP. `/v1/notifications…`: notifications that are proven but not understood, as Amazon sent them.

Accounts of one merchant keep a copy each; here it appears once. A notification that may concern several merchants is
shown only to tokens that see all of their accounts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Final

from starlette.responses import Response

from receiver.errors import NotFound
from receiver.http.api.operations import ADMIN, Answer, Call, Operation
from receiver.http.api.params import ACCOUNT, in_path, number
from receiver.http.api.respond import json_answer
from receiver.http.api.schema import UnrecognizedJson, UnrecognizedListJson, UnrecognizedMessageJson
from receiver.ledger.notification import UNASSIGNED
from receiver.ledger.schema import extended
from receiver.ledger.timestamps import format_rfc3339
from receiver.store import Store
from receiver.store.refunds.notifications import MOST_KEPT, Kept

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

    @Operation(
        "GET",
        "/v1/notifications",
        id="listNotifications",
        tag="operation",
        summary="Notifications that are proven but not understood, newest first",
        about=f"Each account keeps its last {MOST_KEPT:,} for 30 days. Amazon has been asked about every refund that "
        "they name.",
        scopes=ADMIN,
        parameters=(ACCOUNT, LIMIT),
        answers=(Answer(200, UnrecognizedListJson),),
        in_turn=True,
    )
    async def many(self, call: Call) -> Response:
        """A work list, so it has no pages."""
        accounts, limit = call.accounts, call[LIMIT]
        lists = await asyncio.gather(
            *(self._store.of(account).notifications.latest(limit + 1) for account in [*accounts, UNASSIGNED])
        )
        found = {(kept.id, kept.details.digest): kept for kept in self._visible(lists, accounts, call.caller.accounts)}
        newest = sorted(found.values(), key=lambda kept: (-kept.details.received_at, kept.id))
        body = UnrecognizedListJson(
            notifications=[unrecognized_json(kept) for kept in newest[:limit]],
            more=len(newest) > limit,
        )
        return json_answer(body)

    @Operation(
        "GET",
        "/v1/notifications/{notification_id}",
        id="getNotification",
        tag="operation",
        summary="One such notification, with its message",
        scopes=ADMIN,
        parameters=(NOTIFICATION, ACCOUNT),
        answers=(Answer(200, UnrecognizedMessageJson),),
        reasons=({404: ("no_such_notification",)},),
    )
    async def one(self, call: Call) -> Response:
        accounts, id_ = call.accounts, call[NOTIFICATION]
        answers = await asyncio.gather(
            *(self._store.of(account).notifications.get(id_) for account in [*accounts, UNASSIGNED])
        )
        lists = [[] if answer is None else [answer[0]] for answer in answers]
        visible = self._visible(lists, accounts, call.caller.accounts)
        found = next((answer for answer in answers if answer is not None and answer[0] in visible), None)
        if found is None:
            raise NotFound("Notification not found, or not visible to the token.", reason="no_such_notification")
        return json_answer(extended(UnrecognizedMessageJson, unrecognized_json(found[0]), message=found[1]))

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
