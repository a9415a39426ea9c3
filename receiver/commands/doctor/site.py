"""Edge: an installation. The context of every check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from receiver.amazon.account import Account
from receiver.client.api import Send
from receiver.settings import Settings
from receiver.store.redis.address import RedisAddress


@dataclass(frozen=True, slots=True)
class Site:
    """The valid settings, the objects built from them, and the connections to the outside."""

    settings: Settings
    accounts: tuple[Account, ...]
    send: Send
    system_clock: Callable[[], int]
    """This machine's clock, ms since the epoch, UTC."""
    config: Path | None = None
    """The settings' file."""
    offline: bool = False
    """Contact nothing on the Internet."""
    url: str = ""
    """The address of the running service; empty: from the settings."""
    token: str = field(default="", repr=False)
    """A bearer token for it."""
    insecure: bool = False
    """Send the token over plain http to another machine."""

    whole_store: bool = False
    """Read every record of the store, however long it takes."""

    @property
    def redis_address(self) -> RedisAddress | None:
        """None for the embedded store."""
        return self.settings.redis.address


def seconds(value: float) -> str:
    """`1.5 ms`, `12 s`, `3 min`, `5 h`, `2 days`."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if abs(value) >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.1f} s" if abs(value) >= 1 else f"{value * 1000:.1f} ms"
