"""Command. The demo's temporary folder, removed with the Valkey that runs in it, even if the demo is killed."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

CLEAN_UP = """
read -r ended
tries=0
until [ -n "$ended" ] || kill -KILL "$(cat "$1/store/valkey.pid")" || [ $tries = 50 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
rm -rf "$1"
"""
"""Runs when the demo ends: it writes a line after an orderly end, and otherwise its pipe is closed. A demo that is
killed early leaves a Valkey that has not written its process id yet."""


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
            with contextlib.suppress(ConnectionError):
                cleaner.stdin.write(b"ended\n")
                await cleaner.stdin.drain()
            cleaner.stdin.close()
        await cleaner.wait()
