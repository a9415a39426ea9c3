"""HTTP. The subscriber that a path names, among the accounts that the token may see."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.requests import Request

from receiver.errors import Conflict, NotFound
from receiver.http.api.auth import Caller, Tokens
from receiver.http.api.params import Params
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.settings.sections import Scope
from receiver.store import Store


def admin(tokens: Tokens, request: Request) -> Caller:
    """Who calls, if he may manage subscribers. Raises `Unauthorized`, `Forbidden`."""
    caller = tokens.identify(request)
    caller.need(Scope.ADMIN)
    return caller


async def all_of(store: Store, accounts: Sequence[str]) -> list[tuple[str, Subscriber]]:
    """(account, subscriber), by account and name."""
    lists = await asyncio.gather(*(store.subscribers.readable(account) for account in accounts))
    return [(account, each) for account, found in zip(accounts, lists, strict=True) for each in found]


async def named(store: Store, caller: Caller, request: Request, params: Params) -> tuple[str, Subscriber]:
    """The one that `{name}` and `?account=` mean. Raises `NotFound`, or `Conflict` where several accounts have one."""
    found = [
        each
        for each in await all_of(store, caller.seen(params.opaque("account") or None))
        if each[1].name == request.path_params["name"]
    ]
    if not found:
        raise NotFound("There is no such subscriber, or the token may not see it.", reason="no_such_subscriber")
    if len(found) > 1:
        names = ", ".join(account for account, _ in found)
        raise Conflict(f"Several accounts have one of this name: {names}. Add ?account=.", reason="several_accounts")
    return found[0]


def not_configured(subscriber: Subscriber, what: str) -> None:
    """Raise `Conflict` (`configured`) for one that the configuration would bring back as it was."""
    if subscriber.origin == "config":
        raise Conflict(
            f"The subscriber comes from the configuration and would return with the next start: {what} there.",
            reason="configured",
        )
