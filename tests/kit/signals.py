"""Signals as in a terminal, for tests that run under `nohup` or in the background of a script."""

from __future__ import annotations

import signal
from types import FrameType


def as_in_a_terminal() -> None:
    """Let processes that tests start react to SIGINT and SIGHUP, if this one was started with them ignored.

    A signal that is ignored stays so in every child; one that is caught has its default again. This process goes on
    ignoring them.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    """What is caught and has no effect."""
