"""HTTP. `/v1/notifications…`: notifications that are proven and not understood, as Amazon sent them.

Accounts of one merchant keep a copy each; here it is one. What may be for several merchants is shown only to tokens
that see all of their accounts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, TypedDict

from msgspec import Meta
from starlette.responses import Response

from receiver.errors import NotFound
from receiver.http.api.operations import ADMIN, Answer, Call, Operation
from receiver.http.api.params import ACCOUNT, in_path, number
from receiver.http.api.respond import json_answer
from receiver.ledger.notification import UNASSIGNED
from receiver.ledger.schema import Rfc3339
from receiver.ledger.timestamps import format_rfc3339
from receiver.store import Store
from receiver.store.refunds.notifications import MOST_KEPT, Kept

NOTIFICATION_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:-[0-9a-f]{8})?")
NOTIFICATION: Final = in_path(
    "notification_id",
    "`notificationId` of the list.",
    "17bf00c4-8bf8-5f70-9f25-51097f9450e5",
    NOTIFICATION_ID,
    (
        "bad_notification_id",
        "The id of a notification is its MessageId, as `receiver notification list` shows it.",
    ),
)
LIMIT: Final = number("limit", "How many.", 50, 1, MOST_KEPT)


class UnrecognizedJson(TypedDict):
    """A notification of Amazon Pay that this version does not understand."""

    notificationId: Annotated[
        str, Meta(description="SNS MessageId; with a suffix where the same one came with two texts.")
    ]
    accounts: Annotated[list[str], Meta(description="The accounts that it may be for.")]
    topicArn: str
    sentAt: Annotated[Rfc3339, Meta(description="The signed time.")]
    receivedAt: Rfc3339
    problem: Annotated[str, Meta(description="What was not understood, for people.")]
    refundIds: Annotated[
        list[str],
        Meta(description="The first refunds that it names. Amazon was asked about all, unless it is a test message."),
    ]
    refundCount: Annotated[int, Meta(description="How many refunds it names.")]
    size: Annotated[int, Meta(description="Characters of the message.")]
    subject: str | None


class UnrecognizedListJson(TypedDict):
    """Those that are kept, newest first."""

    notifications: list[UnrecognizedJson]
    more: Annotated[bool, Meta(description="Whether more are kept: give a greater limit.")]


class UnrecognizedMessageJson(UnrecognizedJson):
    """One of them, with its message."""

    message: Annotated[str, Meta(description="Exactly as Amazon signed it.")]


class NotificationApi:
    """The handlers. `configured` are all accounts."""

    def __init__(self, store: Store, configured: Iterable[str]) -> None:
        self._store, self._configured = store, frozenset(configured)

    @Operation(
        "GET",
        "/v1/notifications",
        id="listNotifications",
        tag="operation",
        summary="Notifications that are proven and not understood, newest first",
        about=f"The last {MOST_KEPT:,} of each account are kept, for 30 days. Amazon was asked about every refund that "
        "they name.",
        scopes=ADMIN,
        parameters=(ACCOUNT, LIMIT),
        answers=(Answer(200, UnrecognizedListJson),),
        in_turn=True,
    )
    async def many(self, call: Call) -> Response:
        """A list to be worked off: it has no pages."""
        accounts, limit = call.accounts, call[LIMIT]
        lists = await asyncio.gather(
            *(self._store.notifications.latest(account, limit + 1) for account in [*accounts, UNASSIGNED])
        )
        found = {(kept.id, kept.details.digest): kept for kept in self._visible(lists, accounts, call.caller.accounts)}
        newest = sorted(found.values(), key=lambda kept: (-kept.details.received_at, kept.id))
        body: UnrecognizedListJson = {
            "notifications": [unrecognized_json(kept) for kept in newest[:limit]],
            "more": len(newest) > limit,
        }
        return json_answer(body)

    @Operation(
        "GET",
        "/v1/notifications/{notification_id}",
        id="getNotification",
        tag="operation",
        summary="One of them, with its message",
        scopes=ADMIN,
        parameters=(NOTIFICATION, ACCOUNT),
        answers=(Answer(200, UnrecognizedMessageJson),),
        reasons=({404: ("no_such_notification",)},),
    )
    async def one(self, call: Call) -> Response:
        """One, with its message."""
        accounts, id_ = call.accounts, call[NOTIFICATION]
        answers = await asyncio.gather(
            *(self._store.notifications.get(account, id_) for account in [*accounts, UNASSIGNED])
        )
        lists = [[] if answer is None else [answer[0]] for answer in answers]
        visible = self._visible(lists, accounts, call.caller.accounts)
        found = next((answer for answer in answers if answer is not None and answer[0] in visible), None)
        if found is None:
            raise NotFound("No such notification is kept, or the token may not see it.", reason="no_such_notification")
        body: UnrecognizedMessageJson = {**unrecognized_json(found[0]), "message": found[1]}
        return json_answer(body)

    def _visible(self, lists: Sequence[Sequence[Kept]], asked: Sequence[str], seen: Sequence[str]) -> list[Kept]:
        """All that these accounts keep, and of what is kept apart that which is for them and for no one else."""
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
    """Without the message."""
    details = kept.details
    return {
        "notificationId": kept.id,
        "accounts": list(details.accounts),
        "topicArn": details.topic_arn,
        "sentAt": format_rfc3339(details.sent_at),
        "receivedAt": format_rfc3339(details.received_at),
        "problem": details.problem,
        "refundIds": list(details.refund_ids),
        "refundCount": details.refund_count,
        "size": details.size,
        "subject": details.subject or None,
    }
