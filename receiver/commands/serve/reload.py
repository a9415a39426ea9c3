"""Command. SIGHUP: a running `receiver serve` or `receiver work` reads its settings again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog

from receiver.errors import ConfigurationError
from receiver.service import Service
from receiver.settings import Settings, load
from receiver.settings.reloading import Reloaded, reloaded

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def reloading(
    service: Service, config: Path | None, asked: asyncio.Event, *, logs: bool = True
) -> AsyncIterator[None]:
    """Within the block, the settings are read again whenever `asked` is set. `logs`: whether this process logs it."""

    async def reload() -> None:
        """Read the settings, and apply those that need no restart. Invalid settings change nothing."""
        found = await read_again(service.settings, config)
        if logs:
            log_reload(found)
        if isinstance(found, Reloaded):
            service.reload(found.settings)
        service.metrics.settings_reloaded("ok" if isinstance(found, Reloaded) else "failed")

    async with at_each(asked, reload):
        yield


@contextlib.asynccontextmanager
async def at_each(asked: asyncio.Event, act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Within the block, `act` is called whenever `asked` is set, also if it failed before."""

    async def keep() -> None:
        while True:
            await asked.wait()
            asked.clear()
            try:
                await act()
            except Exception:
                log.exception("settings.not_reloaded")

    task = asyncio.create_task(keep(), name="reload")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def read_again(running: Settings, config: Path | None) -> Reloaded | ConfigurationError:
    """What the current settings would change, or why they are invalid."""
    try:
        return reloaded(running, await asyncio.to_thread(load, config, os.environ))
    except ConfigurationError as error:
        return error


def log_reload(found: Reloaded | ConfigurationError) -> None:
    """Log what was applied, what needs a restart, or every problem."""
    if isinstance(found, ConfigurationError):
        fix = "The earlier settings stay in use. Fix these and send SIGHUP again."
        log.error("settings.not_reloaded", problems=list(found.problems), fix=fix)
        return
    names = [each.name for each in found.settings.tokens]
    log.info("settings.reloaded", callers=names, subscribers=len(found.settings.subscribers))
    if found.need_restart:
        fix = "Restart the service to have these too."
        log.warning("settings.need_restart", settings=list(found.need_restart), fix=fix)
