"""Verb. Confirms a subscription of SNS, for which Amazon Pay's merchants normally have no need."""

from __future__ import annotations

from receiver.errors import TransportError
from receiver.exchange import Request
from receiver.transport.client import Transport


async def confirm(transport: Transport, url: str) -> None:
    """Visit the address that confirms a subscription. Raises `TransportError` unless SNS confirms it."""
    answer = await transport.send(Request("GET", url), timeout=5.0)
    if answer.status != 200:
        raise TransportError(f"SNS answered {answer.status}.", reason="not_confirmed")
