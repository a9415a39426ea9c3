"""Command. `receiver serve` and `receiver work`: run the service until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import structlog

from receiver.amazon.sns.signature import self_test
from receiver.commands.serve.reload import reloading
from receiver.commands.serve.traces import traced
from receiver.commands.signals import at_signal
from receiver.errors import ConfigurationError
from receiver.http.app import split_by_port
from receiver.http.middleware import Application
from receiver.http.server import server
from receiver.runtime.serving import Server, serving_all
from receiver.service import Service
from receiver.settings import Settings

log = structlog.get_logger()


async def serve(settings: Settings, config: Path | None, *, workers: bool = True) -> None:
    """HTTP, and workers unless disabled, until a signal ends it. Raises `ConfigurationError`."""
    self_test()
    listeners = listen(settings)
    hung_up = asyncio.Event()
    stopped = at_signal(hung_up.set)
    try:
        async with (
            traced(os.environ),
            running(Service(settings, workers=workers), stopped) as service,
            serving_all(servers(service.app(), settings, listeners)) as addresses,
            reloading(service, config, hung_up),
        ):
            log.info("serve.ready", **addressed(addresses), accounts=[account.name for account in service.accounts])
            await until_stopped(service, stopped)
            log.info("serve.stopping")
    except Stopped:
        log.info("serve.stopped_before_ready")
    finally:
        close(listeners)


async def work(settings: Settings, config: Path | None) -> None:
    """Workers only, until a signal ends it."""
    hung_up = asyncio.Event()
    stopped = at_signal(hung_up.set)
    try:
        async with (
            traced(os.environ),
            running(Service(settings), stopped) as service,
            reloading(service, config, hung_up),
        ):
            log.info("work.ready", accounts=[account.name for account in service.accounts])
            await stopped.wait()
            log.info("work.stopping")
    except Stopped:
        log.info("work.stopped_before_ready")


class Stopped(Exception):
    """A signal came before the service had started."""


@contextlib.asynccontextmanager
async def running(service: Service, stopped: asyncio.Event) -> AsyncIterator[Service]:
    """The started service; stopped at the end. A signal is not delayed by a store that hangs or loads for long.

    Raises what `Service.start` raises, or `Stopped`.
    """
    try:
        starting = asyncio.create_task(service.start(), name="start")
        signalled = asyncio.create_task(stopped.wait(), name="signal")
        try:
            await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            signalled.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
        if starting.cancelled():
            raise Stopped
        starting.result()
        _spare_the_collector()
        yield service
    finally:
        await service.stop()


async def until_stopped(service: Service, stopped: asyncio.Event) -> None:
    """Wait for the signal; then answer 503 to every notification that waits for a certificate.

    The servers wait for every answer before they end, and a fetch may take `wait_timeout` seconds.
    """
    await stopped.wait()
    service.certificates.stop_fetching()


def _spare_the_collector() -> None:
    """Objects created at start stay alive: scanning them in every collection takes a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def listen(settings: Settings) -> list[socket.socket]:
    """The socket of each of `http.listeners`; opened before anything starts, so that a port in use is a clear error.

    Raises `ConfigurationError`.
    """
    taken: list[socket.socket] = []
    try:
        for (host, port), prefix in zip(settings.http.listeners, ("", "admin_"), strict=False):
            taken.append(_take(host, port, f"http.{prefix}host and http.{prefix}port"))
    except ConfigurationError:
        close(taken)
        raise
    return taken


def close(listeners: Sequence[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def servers(
    app: Application, settings: Settings, listeners: Sequence[socket.socket]
) -> list[tuple[Server, socket.socket]]:
    """The server of each socket; with one socket, it serves everything."""
    apps = split_by_port(app) if len(listeners) > 1 else (app,)
    return [(server(each, settings.http), listener) for each, listener in zip(apps, listeners, strict=True)]


def addressed(addresses: Sequence[str]) -> dict[str, str]:
    """The base addresses as the log names them."""
    return dict(zip(("address", "admin_address"), addresses, strict=False))


def _take(host: str, port: int, settings: str) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        why = error.strerror or "unknown host"
        raise ConfigurationError([f"http: cannot listen on {host}:{port} ({why}). Set {settings}."]) from error
    return listener
