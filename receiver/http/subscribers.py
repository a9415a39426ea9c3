"""HTTP. `/v1/subscribers…`: who is told about refunds. All of it needs the scope `admin`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import Conflict, NotFound
from receiver.http.api import json_answer
from receiver.http.auth import Caller, Tokens
from receiver.http.bodies import chosen_account, read_object
from receiver.http.params import Params
from receiver.outbox.formats import traits
from receiver.outbox.subscriber import Subscriber, pause, public_json, read_subscriber, resume
from receiver.outbox.target import Rules
from receiver.settings.sections import Scope


class SubscriberStore(Protocol):
    """Where subscribers are kept: `store/`. Every method raises `StoreUnavailable`."""

    async def subscribers(self, account: str) -> list[Subscriber]:
        """By name."""

    async def add_subscriber(self, account: str, subscriber: Subscriber) -> str:
        """Returns the stream id of the last event that it does not get. Raises `Conflict` if the name is taken."""

    async def change_subscriber(self, account: str, before: Subscriber, after: Subscriber) -> bool:
        """Replace one by the other; False if it was changed meanwhile."""

    async def remove_subscriber(self, account: str, name: str) -> bool:
        """With everything it was owed; False if there is none."""


class SubscriberApi:
    """The handlers. `new_secret` makes a signing secret by chance, `now` is ms since the epoch, UTC."""

    def __init__(
        self,
        store: SubscriberStore,
        tokens: Tokens,
        rules: Rules,
        now: Callable[[], int],
        new_secret: Callable[[], str],
    ) -> None:
        self._store, self._tokens, self._rules = store, tokens, rules
        self._now, self._new_secret = now, new_secret

    async def many(self, request: Request) -> Response:
        """`GET /v1/subscribers`: all of the accounts that the token may see, or of `?account=`."""
        accounts = self._caller(request).seen(Params(request, ("account",)).opaque("account") or None)
        found = await self._all(accounts)
        return json_answer({"subscribers": [_shown(account, subscriber) for account, subscriber in found]})

    async def add(self, request: Request) -> Response:
        """`POST /v1/subscribers`: 201, and once only the secret that was made where the request brought none and the
        format signs."""
        caller = self._caller(request)
        Params(request, ())
        fields = await read_object(request)
        account = chosen_account(caller, fields.pop("account", None))
        brought = "secret" in fields or "secrets" in fields
        made = {"secret": self._new_secret()} if traits(fields.get("format")).signed and not brought else {}
        subscriber = read_subscriber({**fields, **made}, self._rules, origin="api", now=self._now())
        after = await self._store.add_subscriber(account, subscriber)
        body = {**_shown(account, subscriber), **made, "eventsAfter": after}
        return json_answer(body, 201, Location=f"/v1/subscribers/{subscriber.name}?account={account}")

    async def one(self, request: Request) -> Response:
        """`GET /v1/subscribers/{name}?account=`."""
        return json_answer(_shown(*await self._named(request)))

    async def remove(self, request: Request) -> Response:
        """`DELETE /v1/subscribers/{name}?account=`: with everything it was owed. 204."""
        account, subscriber = await self._named(request)
        if subscriber.origin == "config":
            raise Conflict(
                "The subscriber comes from the configuration and would return with the next start: remove it there.",
                reason="configured",
            )
        await self._store.remove_subscriber(account, subscriber.name)
        return Response(status_code=204)

    async def pause(self, request: Request) -> Response:
        """`POST /v1/subscribers/{name}/pause?account=`: nothing is sent until it is resumed; what it is owed waits."""
        return await self._change(request, lambda found: pause(found, "operator", self._now()))

    async def resume(self, request: Request) -> Response:
        """`POST /v1/subscribers/{name}/resume?account=`: what has waited is sent, also after a 410."""
        return await self._change(request, lambda found: resume(found, self._now()))

    async def _change(self, request: Request, change: Callable[[Subscriber], Subscriber]) -> Response:
        while True:
            account, before = await self._named(request)
            after = change(before)
            if after == before or await self._store.change_subscriber(account, before, after):
                return json_answer(_shown(account, after))

    def _caller(self, request: Request) -> Caller:
        caller = self._tokens.identify(request)
        caller.need(Scope.ADMIN)
        return caller

    async def _all(self, accounts: Sequence[str]) -> list[tuple[str, Subscriber]]:
        lists = await asyncio.gather(*(self._store.subscribers(account) for account in accounts))
        return [(account, each) for account, found in zip(accounts, lists, strict=True) for each in found]

    async def _named(self, request: Request) -> tuple[str, Subscriber]:
        accounts = self._caller(request).seen(Params(request, ("account",)).opaque("account") or None)
        name = request.path_params["name"]
        found = [each for each in await self._all(accounts) if each[1].name == name]
        if not found:
            raise NotFound("There is no such subscriber, or the token may not see it.", reason="no_such_subscriber")
        if len(found) > 1:
            names = ", ".join(account for account, _ in found)
            raise Conflict(
                f"Several accounts have one of this name: {names}. Add ?account=.", reason="several_accounts"
            )
        return found[0]


def _shown(account: str, subscriber: Subscriber) -> dict[str, Any]:
    return {"account": account, **public_json(subscriber)}
