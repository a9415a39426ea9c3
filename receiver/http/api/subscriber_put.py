"""HTTP. `PUT /v1/subscribers/{name}`: creates a subscriber, or makes an existing one equal to the body."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

from msgspec import Meta
from starlette.responses import Response

from receiver.errors import BadRequest, Conflict
from receiver.http.api.bodies import object_schema, only_account, read_object
from receiver.http.api.operations import Answer, Body, Call, subscriber_operation
from receiver.http.api.params import ACCOUNT, flag
from receiver.http.api.schema import ChangedSubscriberJson
from receiver.http.api.subscriber_bodies import ADD, HUMP, NewSubscriber, read_fields, read_new, subscriber_json
from receiver.http.api.subscribers import NAME, SubscriberApi, not_configured
from receiver.http.respond import json_answer
from receiver.ledger.audit import Action, Actor, AuditEntry
from receiver.ledger.schema import extended
from receiver.outbox.subscribers.equal import FieldChangeJson, differences, made_equal
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.store.deliveries.subscribers import SubscriberRepository, too_many

DRY_RUN: Final = flag("dryRun", "Only report what would change.")
PUT: Final = object_schema(
    "The subscriber. What is left out has its default, but for a signing secret: without one, the subscriber keeps its "
    "secrets, and a new subscriber gets a generated one. The allowed fields depend on the format.",
    (),
    {
        **{field: schema for field, schema in ADD["properties"].items() if field != "account"},
        "name": {
            **ADD["properties"]["name"],
            "description": "May be omitted; otherwise it must be the name in the path.",
        },
    },
    {"url": "https://finance.example/hooks", "types": ["amazonpay.refund.declined"]},
)


class Made(StrEnum):
    """What the call has done with the subscriber."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


class PutSubscriberJson(ChangedSubscriberJson, kw_only=True):
    """A subscriber as it now is, or with `dryRun` as it would be."""

    outcome: Annotated[str, Meta(extra_json_schema={"enum": [*Made]})]
    changes: Annotated[
        list[FieldChangeJson],
        Meta(description="The fields that differ from those before, without secrets. Empty for a new subscriber."),
    ]


class _Result(NamedTuple):
    outcome: Made
    subscriber: Subscriber
    changes: list[FieldChangeJson]


class SubscriberPutApi(SubscriberApi):
    @subscriber_operation(
        "PUT",
        "/v1/subscribers/{name}",
        id="putSubscriber",
        summary="Create a subscriber, or make it equal to this one",
        about="Can be repeated: if nothing differs, nothing is changed. A subscriber that is there keeps its waiting "
        "events, its pause and, if no secret is given, its secrets. `start` matters only for a new one. If the url "
        "moves to another scheme, host or port, `secret` must be given too. A generated secret is shown only in this "
        "answer.",
        parameters=(NAME, ACCOUNT, DRY_RUN),
        body=Body(PUT),
        answers=(
            Answer(200, PutSubscriberJson, about="The subscriber existed before, or this is a dry run."),
            Answer(201, PutSubscriberJson, about="Created.", headers={"Location": "URL of the subscriber."}),
        ),
        reasons=(
            {
                400: ("bad_subscriber", "bad_start", "credential_needed"),
                409: ("account_needed", "configured", "subscriber_exists", "too_many_subscribers"),
            },
        ),
    )
    async def put(self, call: Call) -> Response:
        """201 if it is new, otherwise 200. A token that sees several accounts must name one in the query."""
        fields = read_fields(await read_object(call.request))
        account = only_account(call.accounts, "`?account=`")
        if fields.setdefault("name", call[NAME]) != call[NAME]:
            raise BadRequest("name: differs from the one in the path; leave it out.", reason="bad_subscriber")
        new = read_new(fields, self._rules, self._now(), self._new_secret)
        subscribers, by = self._store.of(account).subscribers, None if call[DRY_RUN] else call.actor
        result = await self._make(subscribers, new, by)
        body = extended(
            PutSubscriberJson,
            subscriber_json(account, result.subscriber),
            **(new.made if result.subscriber.secrets == new.subscriber.secrets and not call[DRY_RUN] else {}),
            outcome=result.outcome,
            changes=result.changes,
        )
        if result.outcome is not Made.CREATED or call[DRY_RUN]:
            return json_answer(body)
        return json_answer(body, 201, Location=f"/v1/subscribers/{new.subscriber.name}?account={account}")

    async def _make(self, subscribers: SubscriberRepository, new: NewSubscriber, by: Actor | None) -> _Result:
        """Create the subscriber or make it equal, and try again if another change comes first. Without `by`, only
        report what would be done."""
        given = new.subscriber
        while True:
            found = await subscribers.read()
            stored = found.subscribers.get(given.name)
            if stored is not None:
                not_configured(stored, "change it")
                after = made_equal(stored, given, with_secrets=new.brought)
                changes = differences(stored, after)
                result = _Result(Made.CHANGED if changes else Made.UNCHANGED, after, changes)
                entry = _entry(Action.SUBSCRIBER_CHANGE, given, by, changes)
                if by is None or not changes or await subscribers.change(stored, after, audit=entry):
                    return result
            elif by is None and len(found.names) >= self._most:
                raise too_many(self._most)
            elif by is None or await self._added(subscribers, new, _entry(Action.SUBSCRIBER_ADD, given, by)):
                return _Result(Made.CREATED, given, [])

    async def _added(self, subscribers: SubscriberRepository, new: NewSubscriber, entry: AuditEntry | None) -> bool:
        """False if another caller added one of this name first."""
        try:
            await subscribers.add(new.subscriber, new.start, most=self._most, audit=entry)
        except Conflict as error:
            if error.reason != "subscriber_exists" or new.subscriber.name in (await subscribers.read()).unreadable:
                raise
            return False
        return True


def _entry(
    action: Action, subscriber: Subscriber, by: Actor | None, changes: Sequence[FieldChangeJson] = ()
) -> AuditEntry | None:
    fields = tuple(sorted(HUMP.sub("_", each.field).lower() for each in changes))
    return None if by is None else AuditEntry(action=action, actor=by, subscriber=subscriber.name, fields=fields)
