"""Command. `receiver events forward`: posts events to a program under development, as a subscriber would get them."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from rich.text import Text

from receiver.client.answers import AnyEvent
from receiver.client.api import URL_TEXT, decode_body
from receiver.commands.console import clean, emit_rich, emit_value, now_ms, say
from receiver.errors import ConfigurationError, Malformed, TransportError
from receiver.exchange import Request
from receiver.outbox.formats.cloudevents import CONTENT_TYPE
from receiver.outbox.formats.format import USER_AGENT
from receiver.outbox.formats.standard_webhooks import webhook_headers
from receiver.outbox.subscribers.secrets import format_secret, read_secret

if TYPE_CHECKING:
    from receiver.transport.client import Transport

PAUSES = (1.0, 2.0)
"""Seconds before the second and the third attempt."""
TIMEOUT = 10.0
WRONG = ("bad_url", "bad_header")


def read_target(url: str) -> str:
    """The address to post to. Raises `ConfigurationError`."""
    if not URL_TEXT.fullmatch(url):
        raise ConfigurationError(["--to: is not a URL. Example: http://127.0.0.1:3000/hooks."])
    return url


def signing_key(secret: str) -> bytes:
    """The key in the secret. Without a secret, a new key, which is printed. Raises `ConfigurationError`."""
    if not secret:
        key = secrets.token_bytes(32)
        say([f"Signed with {format_secret(key)}"])
        return key
    try:
        return read_secret(secret)
    except Malformed as error:
        raise ConfigurationError([f"--secret: {error.detail}."]) from error


class Forward:
    """Posts events, one after the other, and prints the answer to each."""

    def __init__(self, web: Transport, url: str, key: bytes, as_json: bool) -> None:
        self._transport, self._url, self._key, self._json = web, url, key, as_json

    async def post(self, body: bytes) -> None:
        """Post one event until it is accepted, at most three times. Raises `TransportError` for an impossible
        address."""
        event = decode_body(body, AnyEvent)
        status, tries = await self._try(event, body), 1
        while not _taken(status) and tries <= len(PAUSES):
            await asyncio.sleep(PAUSES[tries - 1])
            status, tries = await self._try(event, body), tries + 1
        taken = _taken(status)
        if self._json:
            emit_value({"id": event.id, "type": event.type, "answer": status, "tries": tries, "taken": taken})
            return
        after = f"after {tries} attempts"
        word = f"  skipped {after}" if not taken else f"  {after}" if tries > 1 else ""
        kind = event.type.rpartition(".")[2]
        line = Text(f"{clean(kind):<9}  {clean(event.subject):<27}  ")
        emit_rich(line.append(f"{status}{word}", "green" if taken else "bold red"))

    async def _try(self, event: AnyEvent, body: bytes) -> int | str:
        """The status of the answer, or the reason why there is none."""
        signed = webhook_headers([self._key], event.id, now_ms(), body)
        headers = {"content-type": CONTENT_TYPE, "user-agent": USER_AGENT, **signed}
        try:
            answer = await self._transport.send(Request("POST", self._url, headers, body), timeout=TIMEOUT)
        except TransportError as error:
            if error.reason in WRONG:
                raise
            return error.reason
        return answer.status


def _taken(answer: int | str) -> bool:
    return isinstance(answer, int) and 200 <= answer < 300
