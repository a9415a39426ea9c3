"""HTTP. `/v1/subscribers…`: who is told about refunds. All of it needs the scope `admin`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import BadRequest, Malformed, NotFound
from receiver.http.api.auth import Tokens
from receiver.http.api.bodies import chosen_account, read_object
from receiver.http.api.lookup import admin, all_of, named, not_configured
from receiver.http.api.params import Params, read_time
from receiver.http.api.respond import json_answer
from receiver.http.api.schema import (
    AddedSubscriberJson,
    ChangedSubscriberJson,
    MadeSecretJson,
    StatsJson,
    SubscriberJson,
    SubscriberListJson,
    SubscriberWithStatsJson,
)
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.subscribers.changes import NEW, OLD_VALID, OLD_VALID_MOST, changed, rotated
from receiver.outbox.subscribers.formats import format_spec
from receiver.outbox.subscribers.secrets import read_secret
from receiver.outbox.subscribers.subscriber import Subscriber, pause, public_json, read_subscriber, resume
from receiver.outbox.subscribers.url import UrlPolicy
from receiver.settings.durations import milliseconds, parse_duration
from receiver.store import Store
from receiver.store.deliveries.queues import Health

CLOCKS_APART = 300_000
"""ms by which the clock of a client may be ahead of ours."""
HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


class SubscriberApi:
    """The handlers. `new_secret` makes a signing secret by chance, `now` is ms since the epoch, UTC.

    `most`: how many subscribers an account may have when one is added.
    """

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        rules: UrlPolicy,
        now: Callable[[], int],
        new_secret: Callable[[], str],
        most: int,
    ) -> None:
        self._store, self._tokens, self._rules = store, tokens, rules
        self._now, self._new_secret, self._most = now, new_secret, most

    async def many(self, request: Request) -> Response:
        """`GET /v1/subscribers`: all of the accounts that the token may see, or of `?account=`."""
        caller = admin(self._tokens, request)
        accounts = caller.seen(Params(request, ("account",)).opaque("account") or None)
        found = await all_of(self._store, accounts)
        body: SubscriberListJson = {
            "subscribers": [_shown(account, subscriber) for account, subscriber in found],
            "unreadable": ["/".join(each) for each in await self._unreadable(accounts)],
        }
        return json_answer(body)

    async def add(self, request: Request) -> Response:
        """`POST /v1/subscribers`: 201, and once only the secret that was made where the request brought none and the
        format signs.

        `start` is `now`, `beginning` or a time: from when on it is owed what the stream of events still holds.
        """
        caller = admin(self._tokens, request)
        Params(request, ())
        fields = _fields(await read_object(request))
        account = chosen_account(caller, fields.pop("account", None))
        start = read_start(fields.pop("start", None), self._now())
        brought = "secret" in fields or "secrets" in fields
        made: MadeSecretJson = (
            {"secret": self._new_secret()} if format_spec(fields.get("format")).signed and not brought else {}
        )
        subscriber = read_subscriber({**fields, **made}, self._rules, origin="api", now=self._now())
        after = await self._store.add_subscriber(account, subscriber, start, most=self._most)
        body: AddedSubscriberJson = {**_shown(account, subscriber), **made, "eventsAfter": after}
        return json_answer(body, 201, Location=f"/v1/subscribers/{subscriber.name}?account={account}")

    async def one(self, request: Request) -> Response:
        """`GET /v1/subscribers/{name}?account=`, with `stats`: what waits, what is dead, and how it fares."""
        account, subscriber = await self._named(request)
        sizes, health = await asyncio.gather(
            self._store.queue_sizes(account, subscriber.name), self._store.health(account, subscriber.name)
        )
        body: SubscriberWithStatsJson = {**_shown(account, subscriber), "stats": _stats(sizes, health)}
        return json_answer(body)

    async def remove(self, request: Request) -> Response:
        """`DELETE /v1/subscribers/{name}?account=`: with everything it was owed. 204."""
        try:
            account, subscriber = await self._named(request)
            not_configured(subscriber, "remove it")
        except NotFound:
            accounts = admin(self._tokens, request).seen(request.query_params.get("account"))
            damaged = [each for each in await self._unreadable(accounts) if each[1] == request.path_params["name"]]
            if len(damaged) != 1:
                raise
            account = damaged[0][0]
        await self._store.remove_subscriber(account, request.path_params["name"])
        return Response(status_code=204)

    async def _unreadable(self, accounts: Sequence[str]) -> list[tuple[str, str]]:
        """(account, name) of those whose records are damaged."""
        rosters = await asyncio.gather(*(self._store.subscriber_list(account) for account in accounts))
        return [(account, name) for account, each in zip(accounts, rosters, strict=True) for name in each.unreadable]

    async def change(self, request: Request) -> Response:
        """`PATCH /v1/subscribers/{name}?account=`: the fields that the body names; null is the default again.

        A `url` with another scheme, host or port needs the credentials as well. A made secret is shown once.
        """
        wanted = _fields(await self._body(request))
        made: MadeSecretJson = {"secret": self._new_secret()} if wanted.get("secret") == NEW else {}

        def change(found: Subscriber) -> Subscriber:
            not_configured(found, "change it")
            return changed(found, {**wanted, **made}, self._rules)

        return await self._change(request, change, made)

    async def rotate(self, request: Request) -> Response:
        """`POST /v1/subscribers/{name}/rotate?account=`: another secret, given or made; a made one is shown once.

        The ones of before go on signing for `oldValidFor`, 24 hours by default, at most 7 days.
        """
        fields = await self._body(request, needed=False)
        unknown = sorted(set(fields) - {"secret", "oldValidFor"})
        if unknown:
            raise BadRequest(
                f"Not a field here: {ascii(unknown[0])[:50]}. Known: secret, oldValidFor.", reason="unknown_field"
            )
        old_valid = _old_valid(fields.get("oldValidFor"))
        made: MadeSecretJson = {} if "secret" in fields else {"secret": self._new_secret()}
        secret = _secret(fields["secret"]) if "secret" in fields else made["secret"]

        def change(found: Subscriber) -> Subscriber:
            not_configured(found, "put the new secret before the old one in its `secrets`")
            return rotated(found, secret, self._now(), old_valid)

        return await self._change(request, change, made)

    async def pause(self, request: Request) -> Response:
        """`POST /v1/subscribers/{name}/pause?account=`: nothing is sent until it is resumed; what it is owed waits."""
        return await self._change(request, lambda found: pause(found, "operator", self._now()))

    async def resume(self, request: Request) -> Response:
        """`POST /v1/subscribers/{name}/resume?account=`: what has waited is sent at its rate, also after a 410."""
        return await self._change(request, lambda found: resume(found, self._now()))

    async def _body(self, request: Request, *, needed: bool = True) -> dict[str, Any]:
        """The body, once the caller is known to be allowed; an absent one is empty where none is needed."""
        admin(self._tokens, request)
        return await read_object(request, needed=needed)

    async def _change(
        self, request: Request, change: Callable[[Subscriber], Subscriber], made: MadeSecretJson | None = None
    ) -> Response:
        while True:
            account, before = await self._named(request)
            after = change(before)  # Anew each time: what another change has made of it meanwhile is judged too.
            if after == before or await self._store.change_subscriber(account, before, after):
                body: ChangedSubscriberJson = {**_shown(account, after), **(made or {})}
                return json_answer(body)

    async def _named(self, request: Request) -> tuple[str, Subscriber]:
        caller = admin(self._tokens, request)
        return await named(self._store, caller, request, Params(request, ("account",)))


def read_start(given: object, now: int) -> int | None:
    """From when on (ms) a new subscriber is told; None: from now on. Raises `BadRequest` (`bad_start`)."""
    if given in (None, "now"):
        return None
    if given == "beginning":
        return 0
    try:
        start = max(read_time(given if isinstance(given, str) else ""), 0)
    except ValueError:
        raise BadRequest(
            "`start` is now, beginning, or a time such as 2026-01-31T12:00:00Z.", reason="bad_start"
        ) from None
    if start > now + CLOCKS_APART:
        raise BadRequest(
            "`start` lies in the future. A new subscriber is owed events from now on at the latest: leave it out.",
            reason="bad_start",
        )
    return start


def _fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """`minAmount` as `min_amount`: JSON has one custom, settings another. A decimal number is one of JSON's."""
    plain = {HUMP.sub("_", key).lower(): value for key, value in body.items()}
    if len(plain) < len(body):
        raise BadRequest("The body names a field twice, in two spellings. Keep one.", reason="duplicate_key")
    if isinstance(plain.get("rate"), Decimal):
        plain["rate"] = float(plain["rate"])
    return plain


def _secret(given: object) -> str:
    try:
        if not isinstance(given, str):
            raise Malformed("is not a text.")
        read_secret(given)
    except Malformed as error:
        raise BadRequest(f"secret: {error.detail}", reason="bad_secret") from None
    return given


def _old_valid(given: object) -> int:
    if given is None:
        return OLD_VALID
    try:
        span = milliseconds(parse_duration(given))
    except ValueError:
        span = -1
    if not 0 <= span <= OLD_VALID_MOST:
        raise BadRequest("`oldValidFor` is a span from 0s to 7d, such as 24h.", reason="bad_parameter")
    return span


def _stats(sizes: tuple[int, int, int], health: Health) -> StatsJson:
    waiting, dead, oldest = sizes
    return {
        "waiting": waiting,
        "oldestWaiting": format_rfc3339(oldest) if oldest else None,
        "dead": dead,
        "delivered": health.delivered,
        "lastSuccess": format_rfc3339(health.success_at) if health.success_at else None,
        "lastError": health.error or None,
        "lastErrorAt": format_rfc3339(health.error_at) if health.error_at else None,
        "failuresInARow": health.streak,
        "breaker": "open" if health.probing else "closed",
    }


def _shown(account: str, subscriber: Subscriber) -> SubscriberJson:
    return {"account": account, **public_json(subscriber)}
