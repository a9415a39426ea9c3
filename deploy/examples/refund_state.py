"""What became of a refund: waits until Amazon has settled it, and says whether Amazon has processed it.

    RECEIVER_TOKEN=… python deploy/examples/refund_state.py S01-5105180-3221187-R022311

Needs Python alone; RECEIVER_URL is the service, by default http://127.0.0.1:8000. Exit code 0: Refunded (Amazon
has processed it; up to 9 working days can pass before the buyer has the money);
1: declined; 2: not final within PATIENCE seconds, 120 unless set; 3: the service does not know it; 4: people have to
look, since Amazon contradicts itself; 5: anything else, such as no answer, a wrong token or a missing argument: the
state is not known; 130: ended by Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

URL = os.environ.get("RECEIVER_URL", "http://127.0.0.1:8000")
TRANSIENT = (429, 502, 503, 504)
NO_ANSWER = (OSError, HTTPException, ValueError)


def refund(refund_id: str, wait: int) -> dict[str, Any] | None:
    """The refund, as soon as it is final, or as it stands after `wait` seconds; None if it is not known."""
    request = urllib.request.Request(  # noqa: S310 - the address is yours
        f"{URL}/v1/refunds/{quote(refund_id)}?wait={wait}",
        headers={"Authorization": f"Bearer {os.environ['RECEIVER_TOKEN']}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=wait + 10) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        if error.code == 404 and json.load(error)["reason"] == "no_such_refund":
            return None
        raise


def final(refund_id: str) -> dict[str, Any] | None:
    """The refund, final if that comes within PATIENCE seconds. A service that restarts meanwhile is asked again."""
    deadline = time.monotonic() + float(os.environ.get("PATIENCE", "120"))
    while True:
        left = deadline - time.monotonic()
        try:
            found = refund(refund_id, int(max(0, min(25, left))))
            if left <= 0 or (found and found["final"]):
                return found
        except urllib.error.HTTPError as error:
            if error.code not in TRANSIENT or left <= 0:
                raise
            time.sleep(float(error.headers.get("Retry-After") or 1))
        except NO_ANSWER:
            if left <= 0:
                raise
            time.sleep(1)


def main() -> int:
    """`refund_state.py REFUND_ID`."""
    if len(sys.argv) != 2 or not os.environ.get("RECEIVER_TOKEN"):
        print("usage: RECEIVER_TOKEN=… refund_state.py REFUND_ID", file=sys.stderr)
        return 5
    try:
        return show(final(sys.argv[1]))
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # also an answer of another service: 1 would mean that the refund was declined
        print("no answer:", error if isinstance(error, NO_ANSWER) else repr(error), file=sys.stderr)
        return 5


def show(found: dict[str, Any] | None) -> int:
    """Print the refund. The exit code says what became of it."""
    if found is None:
        print("not known: it was never notified; POST /v1/refunds/ID/refresh takes it in")
        return 3
    status, amount = found["statusDetails"], found["refundAmount"] or {}
    print(status["state"], amount.get("amount", "?"), amount.get("currencyCode", ""), status["reasonCode"] or "")
    for action in (found["advice"] or {}).get("actions", ()):
        print("-", action["text"])
    if found["conflict"]:
        return 4
    return {"Refunded": 0, "Declined": 1}.get(status["state"], 2)


if __name__ == "__main__":
    sys.exit(main())
