"""Handles every refund event, from the feed over HTTP: for a service that cannot be reached from outside.

    RECEIVER_TOKEN=… python deploy/examples/follow_feed.py cursor.txt

Needs Python alone; RECEIVER_URL is the service, by default http://127.0.0.1:8000. The file keeps how far it got: it
goes on there, however it ended. An event can be handled twice, if it ends between the effect and the file: go by the
event's `id`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

URL = os.environ.get("RECEIVER_URL", "http://127.0.0.1:8000")
WAIT = 25
"""Seconds that one request waits for news."""


def handle(event: dict[str, Any]) -> None:
    """Your effect. Raise if it could not be done: the program ends, and begins with this event again."""
    data = event["data"]
    amount = data["refundAmount"] or {}
    words = (event["id"], event["type"], event["subject"], amount.get("amount"), amount.get("currencyCode"))
    print(*(word for word in words if word), data["statusDetails"]["reasonCode"] or "", flush=True)


def page(after: str) -> dict[str, Any]:
    """The events after a cursor, as soon as there are any."""
    request = urllib.request.Request(  # noqa: S310 - the address is yours
        f"{URL}/v1/events?{urlencode({'after': after, 'wait': WAIT})}",
        headers={"Authorization": f"Bearer {os.environ['RECEIVER_TOKEN']}", "Accept": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WAIT + 10) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found


def keep(place: Path, after: str) -> None:
    """Write the cursor, whole or not at all."""
    fresh = place.with_suffix(".new")
    fresh.write_text(after)
    fresh.replace(place)


def follow(place: Path) -> None:
    """Handle events, for ever."""
    after = place.read_text() if place.exists() else "beginning"
    while True:
        try:
            found = page(after)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 502, 503, 504):
                raise
            time.sleep(float(error.headers.get("Retry-After") or 1))
            continue
        except OSError:
            time.sleep(1)
            continue
        if "reset" in found:
            print(f"events were lost: {found['reset']}. GET /v1/refunds has the states.", file=sys.stderr, flush=True)
        for event in found["events"]:
            handle(event)
        if found["after"] != after:
            after = found["after"]
            keep(place, after)


def main() -> None:
    """`follow_feed.py CURSOR_FILE`."""
    if len(sys.argv) != 2 or not os.environ.get("RECEIVER_TOKEN"):
        sys.exit("usage: RECEIVER_TOKEN=… follow_feed.py CURSOR_FILE")
    try:
        follow(Path(sys.argv[1]))
    except urllib.error.HTTPError as error:
        sys.exit(f"refused: {error}. Is RECEIVER_TOKEN a token of the service, with the scope read?")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
