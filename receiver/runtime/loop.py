"""Edge: asyncio. The running loop, found without a system call: in Python 3.11, `asyncio.get_running_loop` asks the
kernel for the process's id each time, which takes longer than making a future."""

from __future__ import annotations

import asyncio
import os
import threading


class _Latest(threading.local):
    loop: asyncio.AbstractEventLoop | None = None
    """The loop that ran in this thread last."""


_latest = _Latest()


def running_loop() -> asyncio.AbstractEventLoop:
    """The loop that runs in this thread. Raises `RuntimeError` if there is none."""
    loop = _latest.loop
    if loop is None or not loop.is_running():
        loop = _latest.loop = asyncio.get_running_loop()
    return loop


def _forget() -> None:
    """For the child of a fork: the parent's loop does not run there."""
    _latest.loop = None


os.register_at_fork(after_in_child=_forget)
