"""Command. `receiver simulate`: the simulated Amazon Pay alone. Prints settings for the receiver, ready to paste."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import typer

from receiver.commands.signals import at_signal
from receiver.commands.token import quoted
from receiver.errors import ConfigurationError
from receiver.simulator.app import Simulator, system_clock
from receiver.simulator.fps.checks import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from receiver.simulator.keyring import CERTIFICATE, MERCHANT_KEY, load_or_make

KEYS = Path("receiver-simulator")


async def run(
    *,
    post_to: str | None = "http://127.0.0.1:8000/ipn",
    fps_post_to: str = "",
    unlimited: bool = False,
    keys: Path = KEYS,
    say: Callable[[str], object] = typer.echo,
    ended: asyncio.Event | None = None,
    **settings: Any,
) -> None:
    """Run until `ended` is set, or a signal ends it. The other `settings` are those of `Simulator`.

    `fps_post_to` defaults to the host of `post_to`, for the account of the printed configuration. `keys` is the folder
    that keeps the keys from run to run; `unlimited` switches Amazon's throttle off. Raises `ConfigurationError` for
    settings that cannot work, a folder that cannot be used, or an address that is taken.
    """
    try:
        simulator = Simulator(
            keys=load_or_make(keys, system_clock()),
            post_to=post_to,
            throttle={} if unlimited else None,
            **settings,
        )
    except ValueError as error:
        raise ConfigurationError([f"simulate: {error}."]) from error
    simulator.fps_post_to = fps_post_to or (urljoin(post_to, f"/fps/{account_name(simulator)}") if post_to else None)
    end = ended or at_signal()
    try:
        await simulator.start()
        say(greeting(simulator, keys))
        await simulator.serve_until(end)
    except OSError as error:
        address = simulator.base_url.removeprefix("http://")
        raise ConfigurationError([f"simulate: cannot listen on {address} ({error.strerror})."]) from error
    finally:
        await simulator.stop()


def greeting(simulator: Simulator, keys: Path) -> str:
    """The text printed at start: addresses, topic, merchant, and settings for the receiver."""
    return "\n".join(
        (
            f"Amazon Pay simulator ({simulator.environment}, {simulator.region}) on {simulator.base_url}",
            f"  control      {simulator.base_url}/simulator",
            f"  posts to     {simulator.post_to or 'nowhere: notifications are only logged'}",
            f"  certificate  {simulator.certificate_url}",
            f"  topic        {simulator.topic_arn}",
            f"  merchant     {simulator.merchant_id}",
            f"  FPS          {simulator.fps_endpoint} (retired in 2015), posts to {simulator.fps_post_to or 'nowhere'}",
            "",
            "Settings for `receiver serve --config receiver.toml`:",
            "",
            snippet(simulator, keys),
            "",
            "Start a refund that Amazon declines:",
            f"  curl -H 'content-type: application/json' -d '{EXAMPLE}' {simulator.base_url}/simulator/refunds",
            "",
            "Make a charge, for `receiver refund create`:",
            f"  curl -H 'content-type: application/json' -d '{CHARGE}' {simulator.base_url}/simulator/charges",
        )
    )


def account_name(simulator: Simulator) -> str:
    """The name of the account in the printed settings, as in the documents: `us-sandbox`, `eu`."""
    place = {"na": "us"}.get(simulator.region, simulator.region)
    return place if simulator.environment == "live" else f"{place}-{simulator.environment}"


EXAMPLE = '{"amount": "12.01", "currencyCode": "USD"}'
CHARGE = '{"amount": "100.00", "currencyCode": "USD"}'


def snippet(simulator: Simulator, keys: Path) -> str:
    """The `[[accounts]]` table for a receiver that uses this simulator. Paths are absolute."""
    folder = keys.absolute()
    lines = {
        "name": account_name(simulator),
        "merchant_id": simulator.merchant_id,
        "region": simulator.region,
        "environment": simulator.environment,
        "public_key_id": simulator.public_key_id,
        "private_key_file": str(folder / MERCHANT_KEY),
        "endpoint": simulator.base_url,
    }
    fps = {
        "access_key_id": ACCESS_KEY_ID,
        "secret_access_key": SECRET_ACCESS_KEY,
        "endpoint": simulator.fps_endpoint,
    }
    texts = [f"{name} = {quoted(value)}" for name, value in lines.items()]
    return "\n".join(
        (
            "[[accounts]]",
            *texts,
            f"topic_arns = [{quoted(simulator.topic_arn)}]",
            "[accounts.signing_certificates]",
            f"{quoted(simulator.certificate_url)} = {quoted(str(folder / CERTIFICATE))}",
            "[accounts.fps]",
            *(f"{name} = {quoted(value)}" for name, value in fps.items()),
        )
    )
