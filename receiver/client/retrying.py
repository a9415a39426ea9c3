"""Edge: time. Repeats calls while the service is unavailable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from receiver.client.api import Api
from receiver.client.errors import may_pass
from receiver.errors import ReceiverError

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds."""
TRIES, PAUSE, MOST_PAUSE = 5, 2.0, 60.0
"""Limits of `repeated`, which gives up in the end. The pause, in seconds, doubles."""

P = ParamSpec("P")
T = TypeVar("T")
Notify = Callable[[ReceiverError | None, float], None]
"""Called with the error and the seconds until the next attempt; with None once the service is back."""


class RetryingCaller:
    """Repeats calls for as long as it takes. If the service has never answered, the first failure raises: its address
    is probably wrong."""

    def __init__(self, api: Api, notify: Notify) -> None:
        self._api, self._notify = api, notify

    async def __call__(self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `ask`, repeated until it succeeds. Raises a `ReceiverError` that waiting cannot fix."""
        pause, away = FIRST_PAUSE, False
        while True:
            try:
                answer = await ask(*args, **kwargs)
            except ReceiverError as error:
                if not (self._api.met and may_pass(error)):
                    raise
                seconds = min(max(pause, error.retry_after or 0), LONGEST_PAUSE)
                self._notify(error, seconds)
                await asyncio.sleep(seconds)
                pause, away = min(pause * 2, LONGEST_PAUSE), True
            else:
                if away:
                    self._notify(None, 0)
                return answer


async def repeated(ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `ask`, which is repeated a few times if it fails and may succeed later. Raises its error."""
    for tried in range(TRIES - 1):
        try:
            return await ask(*args, **kwargs)
        except ReceiverError as error:
            if not may_pass(error):
                raise
            await asyncio.sleep(min(max(PAUSE * 2**tried, error.retry_after or 0), MOST_PAUSE))
    return await ask(*args, **kwargs)
