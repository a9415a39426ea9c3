"""Command. Asking on while the service is away: what commands that run for long share."""

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
    """The service may go away later, not at first: a first call that fails is a wrong address, more likely than not.

    What is to be known goes to `say`.
    """

    def __init__(self, say: Callable[[list[str]], None]) -> None:
        self._say = say
        self._met = False

    async def __call__(self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `ask` returns, however often it has to be asked. Raises `ReceiverError` for what waiting cannot mend."""
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
                    self._say(["The service answers again."])
                self._met = True
                return answer
