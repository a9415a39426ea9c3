"""HTTP. `/v1/audit`: who did what, newest first."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from msgspec import Meta

from receiver.errors import BadRequest
from receiver.http.api.listing import newest_of, read_cursor, write_cursor
from receiver.http.api.operations import Call, admin_operation
from receiver.http.api.params import ACCOUNT, CURSOR, LIMIT, Parameter, moment, word
from receiver.http.api.schema import NextCursor
from receiver.http.forwarded import MOST_USER
from receiver.ledger.audit import Action, AuditEntry, AuditQuery
from receiver.ledger.refund import Refund
from receiver.ledger.schema import Account, Json, Rfc3339
from receiver.ledger.timestamps import format_rfc3339
from receiver.store import Store
from receiver.store.audit import Audited, AuditPage, StreamId

MOST_EXAMINED: Final = 5_000
"""Entries that one request may scan."""
SINCE: Final = moment("since", "Write the + of an offset as %2B.", "Done at or after this time.")
UNTIL: Final = moment("until", "Write the + of an offset as %2B.", "Done before this time.")
REFUND: Final = word(
    "refund", "Id of a refund, or of a refund request: also what was done to the request of the refund."
)


def _actor(given: str) -> str:
    if not (1 <= len(given) <= MOST_USER and given.isprintable()):
        raise BadRequest(f"`actor` must be 1 to {MOST_USER} printable characters.", reason="bad_parameter")
    return given


ACTOR: Final = Parameter(
    "actor",
    "The name of a token, or of a person as the signing-in proxy names them.",
    {"type": "string", "minLength": 1, "maxLength": MOST_USER},
    _actor,
    "",
    "bad_parameter",
)


class AuditEntryJson(Json, kw_only=True):
    """One act, and who did it. It never holds a secret, or the body of a request."""

    id: Annotated[str, Meta(description="Unique in its account, and in the order of the acts.")]
    account: Account
    time: Rfc3339
    action: Annotated[str, Meta(description="What was done. The set is open.", examples=[*Action])]
    token: Annotated[str, Meta(description="The name of the token.")]
    user: Annotated[
        str | None, Meta(description="The person with that token, if a signing-in proxy named one (http.user_header).")
    ] = None
    outcome: Annotated[
        str,
        Meta(
            description="accepted: it is saved and will be done. done. issued, not_issued: how a request was settled. "
            "For refund.close: how, as in `resolution`."
        ),
    ]
    refund_id: str | None = None
    refund_request_id: str | None = None
    charge_id: str | None = None
    subscriber: str | None = None
    job_id: Annotated[str | None, Meta(description="A job that reissues many refunds.")] = None
    event_id: str | None = None
    fields: Annotated[list[str], Meta(description="Names of the fields that were given for a subscriber.")]
    count: Annotated[int | None, Meta(description="How many events or refunds were selected.")] = None
    request_id: Annotated[str | None, Meta(description="X-Request-Id of the request, as in the service's log.")] = None


class AuditListJson(Json, kw_only=True):
    """Acts, newest first."""

    entries: list[AuditEntryJson]
    unreadable: Annotated[list[str], Meta(description="Entries that are damaged, as account/id.")]
    next_cursor: NextCursor = None
    scan_cut: Annotated[bool, Meta(description="Whether the scan limit ended the page: continue with nextCursor.")]


class AuditApi:
    def __init__(self, store: Store) -> None:
        self._store = store

    @admin_operation(
        "GET",
        "/v1/audit",
        id="listAudit",
        summary="Who did what, newest first",
        about="Every refund that was requested, reissued, refreshed, closed or reopened, every refund request that was "
        "repeated or settled, every job, and every change of a subscriber, with the token and the person. An entry is "
        "written in the same step as what it records, once, and is never changed. Repeating a call that changes "
        "nothing adds none; nor does a refused call, which is only in the log.",
        parameters=(ACCOUNT, SINCE, UNTIL, REFUND, ACTOR, CURSOR, LIMIT),
        reasons=({400: ("bad_cursor",)},),
        in_turn=True,
    )
    async def many(self, call: Call) -> AuditListJson:
        accounts, limit = call.accounts, call[LIMIT]
        query = AuditQuery(call[SINCE], call[UNTIL], call[REFUND], call[ACTOR])
        below = _read_place(read_cursor(call[CURSOR], query, accounts))
        pages = await asyncio.gather(*(self._page(each, query, below, limit, len(accounts)) for each in accounts))
        ends = [(page.end, account) for page, account in zip(pages, accounts, strict=True) if page.end is not None]
        found = (each for page in pages for each in page.entries)
        shown, following = newest_of(ends, found, lambda each: each.place, limit)
        return AuditListJson(
            entries=[audit_json(each, each.entry) for each in shown if each.entry is not None],
            unreadable=[f"{each.account}/{_text(each.id)}" for each in shown if each.entry is None],
            next_cursor=write_cursor(f"{_text(following[0])} {following[1]}", query, accounts) if following else None,
            scan_cut=following is not None and len(shown) < limit,
        )

    async def _page(
        self, account: str, query: AuditQuery, below: tuple[StreamId, str] | None, limit: int, accounts: int
    ) -> AuditPage:
        store = self._store.of(account)
        ids = frozenset({query.refund} if query.refund else ())
        refund = await store.refunds.get_or_id(query.refund) if query.refund else None
        if isinstance(refund, Refund):
            owners = await store.requests.refund_owner(refund.charge_id)
            ids |= {owners[query.refund]} if query.refund in owners else frozenset()
        return await store.audit.page(query, ids, below, limit, MOST_EXAMINED // accounts)


def audit_json(audited: Audited, entry: AuditEntry) -> AuditEntryJson:
    """An entry, with its id and its account."""
    actor = entry.actor
    return AuditEntryJson(
        id=_text(audited.id),
        account=audited.account,
        time=format_rfc3339(audited.id[0]),
        action=entry.action,
        token=actor.token,
        user=actor.user or None,
        outcome=entry.outcome,
        refund_id=entry.refund_id or None,
        refund_request_id=entry.refund_request_id or None,
        charge_id=entry.charge_id or None,
        subscriber=entry.subscriber or None,
        job_id=entry.job or None,
        event_id=entry.event_id or None,
        fields=[*entry.fields],
        count=entry.count or None,
        request_id=actor.http_request_id or None,
    )


def _text(stream_id: StreamId) -> str:
    return f"{stream_id[0]}-{stream_id[1]}"


def _read_place(text: str) -> tuple[StreamId, str] | None:
    """The place in a cursor of ours; None for the first page."""
    if not text:
        return None
    stream_id, _, account = text.partition(" ")
    ms, _, number = stream_id.partition("-")
    return (int(ms), int(number)), account
