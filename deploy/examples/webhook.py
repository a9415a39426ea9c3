"""A webhook that believes only what the receiver has signed, and handles each event once.

    WEBHOOK_SECRET=whsec_… python deploy/examples/webhook.py 3000

Listens on 127.0.0.1; port 0 is any free one. Needs Python alone. While a secret changes, give both, with a space
between. deploy/alerting.md has the rules.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

TOLERANCE = 300
"""Seconds that a delivery may be old, or ahead of this machine's clock."""
LARGEST = 64 * 1024
Event = dict[str, Any]


class Forged(Exception):
    """Not signed with a secret of ours, or too old."""


def verified(headers: Mapping[str, str], body: bytes, secrets: list[str], now: float) -> Event:
    """The event, if it is signed with one of the secrets (`whsec_…`). Raises `Forged`."""
    try:
        message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        signed = [base64.b64decode(each[3:]) for each in headers["webhook-signature"].split(" ") if each[:3] == "v1,"]
        age = abs(now - int(timestamp))
    except (KeyError, ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise Forged(f"no signature: {error}") from error
    if age > TOLERANCE:
        raise Forged(f"signed {age:.0f} s away from now")
    text = f"{message_id}.{timestamp}.".encode() + body
    for secret in secrets:
        right = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), text, hashlib.sha256)
        if any(hmac.compare_digest(right, each) for each in signed):
            event: Event = json.loads(body)
            return event
    raise Forged("no signature is right")


def handle(event: Event) -> None:
    """Your effect. Raise if it could not be done: the receiver sends the event again."""
    data = event["data"]
    amount = data.get("refundAmount") or {}
    reason = (data.get("statusDetails") or {}).get("reasonCode") or ""
    words = (event["type"], event["subject"], amount.get("amount"), amount.get("currencyCode"), reason)
    print(*(word for word in words if word), flush=True)


class Once:
    """Calls `handle` once for each event. Here it remembers in memory: in your service, let a unique key in the
    database do it, written in the transaction of the effect."""

    def __init__(self, handle: Callable[[Event], None]) -> None:
        self._handle, self._done, self._lock = handle, set[str](), Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if event["id"] not in self._done:
                self._handle(event)
                self._done.add(event["id"])


def server(port: int, secrets: list[str], handle: Callable[[Event], None]) -> ThreadingHTTPServer:
    """Takes deliveries on every path: 204 when handled, 401 if not ours, 500 if it shall come again."""
    once = Once(handle)

    class Hook(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if not 0 < length <= LARGEST:
                return self.answer(413)
            try:
                once(verified(self.headers, self.rfile.read(length), secrets, time.time()))
            except Forged as error:
                print(f"refused: {error}", file=sys.stderr, flush=True)
                return self.answer(401)
            except Exception as error:
                print(f"not handled, it comes again: {error!r}", file=sys.stderr, flush=True)
                return self.answer(500)
            return self.answer(204)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Only what `handle` says."""

    return ThreadingHTTPServer(("127.0.0.1", port), Hook)


def main(handle: Callable[[Event], None] = handle) -> None:
    """`webhook.py PORT`."""
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal() or not os.environ.get("WEBHOOK_SECRET"):
        sys.exit(f"usage: WEBHOOK_SECRET=whsec_… {os.path.basename(sys.argv[0])} PORT")
    hook = server(int(sys.argv[1]), os.environ["WEBHOOK_SECRET"].split(), handle)
    try:
        print(f"http://127.0.0.1:{hook.server_port}/hooks", flush=True)
        hook.serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
