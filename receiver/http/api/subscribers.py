"""HTTP. `/v1/subscribers…`: the subscribers that receive refund events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from starlette.responses import Response

from receiver.errors import Conflict, NotFound
from receiver.http.api.bodies import check_fields, only_account, possible_accounts, read_object
from receiver.http.api.lookup import all_subscribers, change_subscriber, find_subscriber
from receiver.http.api.operations import NO_ACCOUNT, SEVERAL, Answer, Body, Call, Reasons, subscriber_operation
from receiver.http.api.params import ACCOUNT, Schema, in_path
from receiver.http.api.schema import (
    AddedSubscriberJson,
    ChangedSubscriberJson,
    SubscriberJson,
    SubscriberListJson,
    SubscriberWithStatsJson,
)
from receiver.http.api.subscriber_bodies import (
    ADD,
    CHANGE,
    ROTATE,
    read_fields,
    read_new,
    read_new_secret,
    read_old_valid,
    stats_json,
    subscriber_json,
)
from receiver.http.respond import json_answer
from receiver.ledger.audit import Action, AuditEntry
from receiver.ledger.schema import extended
from receiver.outbox.subscribers.changes import NEW, changed, rotated
from receiver.outbox.subscribers.equal import is_equal
from receiver.outbox.subscribers.subscriber import Subscriber, pause, resume
from receiver.outbox.subscribers.url import UrlPolicy
from receiver.store import Store

NAME: Final = in_path("name", "The subscriber's name.", "finance")
ONE: Final[tuple[Reasons, ...]] = ({404: ("no_such_subscriber",)}, SEVERAL)


def _to(operation: str) -> dict[str, Schema]:
    """Links the answer's subscriber to the operation's parameters."""
    parameters = {"name": "$response.body#/name", "query.account": "$response.body#/account"}
    return {operation: {"operationId": operation, "parameters": parameters}}


class SubscriberApi:
    """The handlers. `new_secret` makes a random signing secret, `now` is ms since the epoch, UTC.

    `most`: the maximum number of subscribers of an account, checked when one is added.
    """

    def __init__(
        self, store: Store, rules: UrlPolicy, now: Callable[[], int], new_secret: Callable[[], str], most: int
    ) -> None:
        self._store, self._rules = store, rules
        self._now, self._new_secret, self._most = now, new_secret, most

    @subscriber_operation(
        "GET",
        "/v1/subscribers",
        id="listSubscribers",
        summary="List subscribers",
        parameters=(ACCOUNT,),
    )
    async def many(self, call: Call) -> SubscriberListJson:
        """All subscribers of the accounts that the token may see, or of `?account=`."""
        accounts = call.accounts
        found = await all_subscribers(self._store, accounts)
        return SubscriberListJson(
            subscribers=[subscriber_json(account, subscriber) for account, subscriber in found],
            unreadable=["/".join(each) for each in await self._unreadable(accounts)],
        )

    @subscriber_operation(
        "POST",
        "/v1/subscribers",
        id="addSubscriber",
        summary="Add a subscriber",
        about="If the format signs and no secret is given, one is generated and shown only in this answer. An account "
        "has at most `delivery.max_subscribers` of them (100 by default).",
        body=Body(ADD),
        answers=(
            Answer(200, SubscriberJson, about="There is an equal one. Its secret is not shown again."),
            Answer(
                201,
                AddedSubscriberJson,
                headers={"Location": "URL of the subscriber."},
                links={**_to("getSubscriber"), **_to("pauseSubscriber"), **_to("removeSubscriber")},
            ),
        ),
        reasons=(
            {
                400: ("bad_parameter", "bad_subscriber", "bad_start"),
                409: ("account_needed", "subscriber_exists", "too_many_subscribers"),
            },
            NO_ACCOUNT,
        ),
    )
    async def add(self, call: Call) -> Response:
        """201, or 200 if the account has an equal subscriber. A generated secret is shown only in a 201.

        `start` is `now`, `beginning` or a time: from there the subscriber receives the events still in the stream.
        """
        fields = read_fields(await read_object(call.request))
        account = only_account(possible_accounts(call.caller, fields.pop("account", None)))
        subscriber, start, brought, made = read_new(fields, self._rules, self._now(), self._new_secret)
        entry = AuditEntry(action=Action.SUBSCRIBER_ADD, actor=call.actor, subscriber=subscriber.name)
        subscribers = self._store.of(account).subscribers
        try:
            after = await subscribers.add(subscriber, start, most=self._most, audit=entry)
        except Conflict:
            stored = (await subscribers.read()).subscribers.get(subscriber.name)
            if stored is None or not is_equal(stored, subscriber, with_secrets=brought):
                raise
            return json_answer(subscriber_json(account, stored))
        body = extended(AddedSubscriberJson, subscriber_json(account, subscriber), **made, events_after=after)
        return json_answer(body, 201, Location=f"/v1/subscribers/{subscriber.name}?account={account}")

    @subscriber_operation(
        "GET",
        "/v1/subscribers/{name}",
        id="getSubscriber",
        summary="A subscriber and its delivery health",
        parameters=(NAME, ACCOUNT),
        reasons=ONE,
    )
    async def one(self, call: Call) -> SubscriberWithStatsJson:
        """With `stats`: waiting and dead deliveries, and the last errors."""
        account, subscriber = await self._named(call)
        name, deliveries = subscriber.name, self._store.of(account).deliveries
        sizes, health = await asyncio.gather(deliveries.queue_sizes(name), deliveries.health(name))
        stats = stats_json(sizes, health)
        return extended(SubscriberWithStatsJson, subscriber_json(account, subscriber), stats=stats)

    @subscriber_operation(
        "PATCH",
        "/v1/subscribers/{name}",
        id="changeSubscriber",
        summary="Change fields of a subscriber",
        about="If the scheme, host or port of the `url` changes, the same change must include the subscriber's "
        "credentials: `secret` of a cloudevents subscriber, `routingKey`, `authorization` (null removes it). Otherwise "
        "the answer is 400 credential_needed, and nothing is changed. A generated secret is shown only in this answer.",
        parameters=(NAME, ACCOUNT),
        body=Body(CHANGE),
        reasons=({400: ("bad_subscriber", "credential_needed"), 409: ("configured",)}, *ONE),
    )
    async def change(self, call: Call) -> ChangedSubscriberJson:
        """Changes the fields in the body; null restores the default."""
        wanted = read_fields(await read_object(call.request))
        made = {"secret": self._new_secret()} if wanted.get("secret") == NEW else {}

        def change(found: Subscriber) -> Subscriber:
            not_configured(found, "change it")
            return changed(found, {**wanted, **made}, self._rules)

        return await self._change(call, Action.SUBSCRIBER_CHANGE, change, made, fields=tuple(sorted(wanted)))

    @subscriber_operation(
        "DELETE",
        "/v1/subscribers/{name}",
        id="removeSubscriber",
        summary="Remove a subscriber and its deliveries",
        parameters=(NAME, ACCOUNT),
        answers=(Answer(204),),
        reasons=({409: ("configured",)}, *ONE),
    )
    async def remove(self, call: Call) -> Response:
        """Also removes one whose record is damaged."""
        try:
            account, subscriber = await self._named(call)
            not_configured(subscriber, "remove it")
        except NotFound:
            damaged = [each for each in await self._unreadable(call.accounts) if each[1] == call[NAME]]
            if len(damaged) != 1:
                raise
            account = damaged[0][0]
        entry = AuditEntry(action=Action.SUBSCRIBER_REMOVE, actor=call.actor, subscriber=call[NAME])
        await self._store.of(account).subscribers.remove(call[NAME], entry)
        return Response(status_code=204)

    @subscriber_operation(
        "POST",
        "/v1/subscribers/{name}/rotate",
        id="rotateSecret",
        summary="Rotate a subscriber's secret; the previous ones continue to sign for a while",
        parameters=(NAME, ACCOUNT),
        body=Body(ROTATE, required=False),
        reasons=(
            {
                400: ("unknown_field", "bad_parameter", "bad_secret"),
                409: ("configured", "not_signed", "secret_exists", "too_many_secrets"),
            },
            *ONE,
        ),
    )
    async def rotate(self, call: Call) -> ChangedSubscriberJson:
        """Sets a given or generated secret; a generated one is shown once."""
        fields = await read_object(call.request, needed=False)
        check_fields(fields, ("secret", "oldValidFor"))
        old_valid = read_old_valid(fields.get("oldValidFor"))
        made = {} if "secret" in fields else {"secret": self._new_secret()}
        secret = read_new_secret(fields["secret"]) if "secret" in fields else made["secret"]

        def change(found: Subscriber) -> Subscriber:
            not_configured(found, "put the new secret before the old one in its `secrets`")
            return rotated(found, secret, self._now(), old_valid)

        return await self._change(call, Action.SUBSCRIBER_ROTATE, change, made)

    @subscriber_operation(
        "POST",
        "/v1/subscribers/{name}/pause",
        id="pauseSubscriber",
        summary="Pause a subscriber: its deliveries wait until it is resumed",
        parameters=(NAME, ACCOUNT),
        reasons=ONE,
    )
    async def pause(self, call: Call) -> SubscriberJson:
        now = self._now()
        return await self._change(call, Action.SUBSCRIBER_PAUSE, lambda found: pause(found, "operator", now))

    @subscriber_operation(
        "POST",
        "/v1/subscribers/{name}/resume",
        id="resumeSubscriber",
        summary="Resume a subscriber: waiting deliveries are sent at its rate",
        parameters=(NAME, ACCOUNT),
        reasons=ONE,
    )
    async def resume(self, call: Call) -> SubscriberJson:
        """Also resumes one that was paused after a 410."""
        return await self._change(call, Action.SUBSCRIBER_RESUME, lambda found: resume(found, self._now()))

    async def _change(
        self,
        call: Call,
        action: Action,
        change: Callable[[Subscriber], Subscriber],
        made: Mapping[str, str] = MappingProxyType({}),
        fields: tuple[str, ...] = (),
    ) -> ChangedSubscriberJson:
        entry = AuditEntry(action=action, actor=call.actor, subscriber=call[NAME], fields=fields)
        account, after = await change_subscriber(self._store, call.accounts, call[NAME], change, entry)
        return extended(ChangedSubscriberJson, subscriber_json(account, after), **made)

    async def _named(self, call: Call) -> tuple[str, Subscriber]:
        return await find_subscriber(self._store, call.accounts, call[NAME])

    async def _unreadable(self, accounts: Sequence[str]) -> list[tuple[str, str]]:
        """(account, name) of subscribers whose records are damaged."""
        lists = await asyncio.gather(*(self._store.of(account).subscribers.read() for account in accounts))
        return [(account, name) for account, each in zip(accounts, lists, strict=True) for name in each.unreadable]


def not_configured(subscriber: Subscriber, what: str) -> None:
    """Raise `Conflict` (`configured`) for a subscriber that the configuration would restore unchanged."""
    if subscriber.origin == "config":
        raise Conflict(
            "The subscriber comes from the configuration, which would restore it at the next start or reload: "
            f"{what} there.",
            reason="configured",
        )
