"""Command. SIGHUP: a running `receiver serve` or `receiver work` reads its settings again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from receiver.errors import ConfigurationError
from receiver.service import Service
from receiver.settings import load
from receiver.settings.reloading import reloaded

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def reloading(service: Service, config: Path | None, asked: asyncio.Event) -> AsyncIterator[None]:
    """Within the block, the settings are read again whenever `asked` is set."""

    async def keep() -> None:
        while True:
            await asked.wait()
            asked.clear()
            try:
                await reload(service, config)
            except Exception:  # The next signal must find this still at work.
                service.metrics.settings_reloaded("failed")
                log.exception("settings.not_reloaded")

    task = asyncio.create_task(keep(), name="reload")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def reload(service: Service, config: Path | None) -> None:
    """Read the settings again, and take over what can be. Invalid ones change nothing."""
    try:
        found = await asyncio.to_thread(load, config, os.environ)
    except ConfigurationError as error:
        service.metrics.settings_reloaded("failed")
        fix = "The earlier settings stay in use. Fix these and send SIGHUP again."
        log.error("settings.not_reloaded", problems=list(error.problems), fix=fix)
        return
    change = reloaded(service.settings, found)
    service.reload(change.settings)
    service.metrics.settings_reloaded("ok")
    names = [each.name for each in change.settings.tokens]
    log.info("settings.reloaded", callers=names, subscribers=len(change.settings.subscribers))
    if change.need_restart:
        fix = "Restart the service to have these too."
        log.warning("settings.need_restart", settings=list(change.need_restart), fix=fix)
