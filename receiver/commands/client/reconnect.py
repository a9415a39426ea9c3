"""Command. Retries while the service is away, for long-running commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from receiver.commands.client.api import explain, may_pass
from receiver.errors import ReceiverError

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

P = ParamSpec("P")
T = TypeVar("T")


class RetryingCaller:
    """Retries calls while the service is away. A first call that fails raises: its address is probably wrong.

    `say` gets the messages for the user.
    """

    def __init__(self, say: Callable[[list[str]], None]) -> None:
        self._say = say
        self._met = False

    async def __call__(self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `ask`, retried until it succeeds. Raises a `ReceiverError` that waiting cannot fix."""
        pause, away = FIRST_PAUSE, False
        while True:
            try:
                answer = await ask(*args, **kwargs)
            except ReceiverError as error:
                if not (self._met and may_pass(error)):
                    raise
                seconds = min(max(pause, error.retry_after or 0), LONGEST_PAUSE)
                self._say([f"{explain(error)[0]} Trying again in {seconds:g} s."])
                await asyncio.sleep(seconds)
                pause, away = min(pause * 2, LONGEST_PAUSE), True
            else:
                if away:
                    self._say(["The service is back."])
                self._met = True
                return answer
