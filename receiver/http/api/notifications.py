"""HTTP. `/v1/notifications…`: notifications that are proven and not understood, as Amazon sent them. Scope `admin`.

Accounts of one merchant keep a copy each; here it is one. What may be for several merchants is shown only to tokens
that see all of their accounts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final, TypedDict

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from receiver.errors import BadRequest, NotFound
from receiver.http.api.auth import Tokens
from receiver.http.api.lookup import admin
from receiver.http.api.params import Params
from receiver.http.api.reads import Endpoint
from receiver.http.api.respond import json_answer
from receiver.ledger.notification import UNASSIGNED
from receiver.ledger.schema import Rfc3339
from receiver.ledger.timestamps import format_rfc3339
from receiver.store import Store
from receiver.store.refunds.notifications import MOST_KEPT, Kept

LIMIT: Final = 50
NOTIFICATION_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:-[0-9a-f]{8})?")


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

    def __init__(self, store: Store, tokens: Tokens, configured: Iterable[str]) -> None:
        self._store, self._tokens, self._configured = store, tokens, frozenset(configured)

    async def many(self, request: Request) -> Response:
        """`GET /v1/notifications?account=&limit=`: newest first. A list to be worked off: it has no pages."""
        caller = admin(self._tokens, request)
        params = Params(request, ("account", "limit"))
        accounts = caller.seen(params.opaque("account") or None)
        limit = params.number("limit", LIMIT, 1, MOST_KEPT)
        lists = await asyncio.gather(
            *(self._store.notifications.latest(account, limit + 1) for account in [*accounts, UNASSIGNED])
        )
        found = {(kept.id, kept.details.digest): kept for kept in self._visible(lists, accounts, caller.accounts)}
        newest = sorted(found.values(), key=lambda kept: (-kept.details.received_at, kept.id))
        body: UnrecognizedListJson = {
            "notifications": [unrecognized_json(kept) for kept in newest[:limit]],
            "more": len(newest) > limit,
        }
        return json_answer(body)

    async def one(self, request: Request) -> Response:
        """`GET /v1/notifications/{id}?account=`: one, with its message."""
        caller = admin(self._tokens, request)
        accounts = caller.seen(Params(request, ("account",)).opaque("account") or None)
        id_ = _notification_id(request)
        answers = await asyncio.gather(
            *(self._store.notifications.get(account, id_) for account in [*accounts, UNASSIGNED])
        )
        lists = [[] if answer is None else [answer[0]] for answer in answers]
        visible = self._visible(lists, accounts, caller.accounts)
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


def notification_routes(api: NotificationApi, in_turn: Callable[[Endpoint], Endpoint]) -> list[BaseRoute]:
    """What Amazon said and nobody here understood."""
    return [
        Route("/v1/notifications", in_turn(api.many), methods=["GET"]),
        Route("/v1/notifications/{notification_id}", api.one, methods=["GET"]),
    ]


def _notification_id(request: Request) -> str:
    id_: Any = request.path_params["notification_id"]
    if not NOTIFICATION_ID.fullmatch(id_):
        raise BadRequest(
            "The id of a notification is its MessageId, as `receiver notification list` shows it.",
            reason="bad_notification_id",
        )
    return str(id_)
