"""Handles every refund event of one account, straight from Redis, with a consumer group.

    REDIS_URL=redis://localhost:6379/0 python deploy/examples/consume_stream.py us bookkeeping

Start as many copies as you like: each event goes to one of them. An event is acknowledged after it was handled, so a
copy that dies loses none: another takes it over. It can then be handled twice: let your effect go by the event's `id`.
Needs redis-py alone. deploy/events.md has the fields.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import redis
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TooSlow

CLAIM_AFTER_MS = int(os.environ.get("CLAIM_AFTER_MS", "60000"))
"""An event that was taken so long ago, and not acknowledged, is taken over. Longer than handling `BATCH` ever takes."""
BATCH = 10
BLOCK_MS = 1000
"""Less than the socket's timeout, 5 s by default."""

Fields = dict[str, str]


def handle(fields: Fields) -> None:
    """Your effect. Raise if it could not be done: the event comes again after `CLAIM_AFTER_MS`."""
    if not fields["type"].startswith("amazonpay.refund.") or "state" not in fields:
        return  # no change of a refund: about disputes, deliveries, or differences from Amazon's reports
    amount = f"{fields.get('amount', '?')} {fields.get('currencyCode', '')}"
    print(fields["id"], fields["type"], fields["refundId"], amount, fields.get("reasonCode", ""), flush=True)


class Consumer:
    """One copy. `group` is the service that it belongs to, `name` is its own."""

    def __init__(self, client: redis.Redis, account: str, group: str, name: str) -> None:
        self._client: Any = client
        self._stream, self._group, self._name = f"refunds:{{{account}}}:events", group, name

    def run(self, handle: Callable[[Fields], None]) -> None:
        """Handle events, for ever."""
        while True:
            try:
                for entry_id, fields in [*self._abandoned(), *self._fresh()]:
                    self._handled(entry_id, fields, handle)
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                # The first start; or the store was emptied, and the group with it: all events since are still to do.
                self._create_group()
            except (Unreachable, TooSlow) as error:
                print(f"Redis: {error}. Trying again.", file=sys.stderr, flush=True)
                time.sleep(1)

    def _create_group(self) -> None:
        try:
            self._client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _fresh(self) -> Iterator[tuple[str, Fields]]:
        answer = self._client.xreadgroup(self._group, self._name, {self._stream: ">"}, count=BATCH, block=BLOCK_MS)
        for _, entries in answer.items() if isinstance(answer, dict) else answer or ():
            yield from entries

    def _abandoned(self) -> Iterator[tuple[str, Fields]]:
        """Entries that a consumer, this one included, has read but not acknowledged."""
        _, entries, lost = self._client.xautoclaim(
            self._stream, self._group, self._name, min_idle_time=CLAIM_AFTER_MS, count=BATCH
        )
        for entry_id in lost:
            print(f"{entry_id} was trimmed before it was handled.", file=sys.stderr, flush=True)
        yield from entries

    def _handled(self, entry_id: str, fields: Fields, handle: Callable[[Fields], None]) -> None:
        try:
            handle(fields)
        except Exception:
            traceback.print_exc()
            return
        self._client.xack(self._stream, self._group, entry_id)


def main() -> None:
    """`consume_stream.py ACCOUNT GROUP`."""
    if len(sys.argv) != 3 or not os.environ.get("REDIS_URL"):
        sys.exit("usage: REDIS_URL=redis://… consume_stream.py ACCOUNT GROUP")
    account, group = sys.argv[1:]
    client = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    try:
        Consumer(client, account, group, f"{socket.gethostname()}-{os.getpid()}").run(handle)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
