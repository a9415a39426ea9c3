"""Command. The demo's temporary folder, removed with the Valkey that runs in it, even if the demo is killed."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

CLEAN_UP = 'read -r _; kill -KILL "$(cat "$1/store/valkey.pid")"; rm -rf "$1"'
"""Runs when its standard input ends, that is when the demo ends. After an orderly end there is no pid file."""


@contextlib.asynccontextmanager
async def temporary_folder() -> AsyncIterator[Path]:
    """A new folder. After `kill -9` the demo cannot clean up itself, so a shell in another session does it."""
    folder = Path(tempfile.mkdtemp(prefix="receiver-demo-"))
    cleaner = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", CLEAN_UP, "sh", folder, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
    )
    try:
        yield folder
    finally:
        if cleaner.stdin is not None:
            cleaner.stdin.close()
        await cleaner.wait()
