"""HTTP. Limits how much work starts in one turn of the loop.

The loop handles everything that is ready before it looks at its sockets again. A hundred notifications judged in one
turn delay a 503, a pipeline to Redis and every timer by the sum of their times.
"""

from __future__ import annotations

import asyncio
from collections import deque

from receiver.runtime.loop import running_loop


class PerTickLimit:
    """Admits `most` per turn of the loop, and the rest in later turns: first come, first served."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._armed = False

    def entered(self) -> bool:
        """Takes a place of this turn, if there is one and nothing waits for it."""
        if self._left and not self._waiting:
            self._left -= 1
            self._arm()
            return True
        return False

    async def enter(self) -> None:
        """Returns once there is room. A cancelled caller takes no place."""
        if self.entered():
            return
        admitted = running_loop().create_future()
        self._waiting.append(admitted)
        await admitted

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._armed, self._left = False, self._most
        while self._left and self._waiting:
            admitted = self._waiting.popleft()
            if not admitted.done():
                admitted.set_result(None)
                self._left -= 1
        if self._left < self._most:
            self._arm()
