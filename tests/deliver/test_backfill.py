"""Old refunds that are imported: webhooks get each, with a mark, and no person is alerted."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from receiver.ledger.refund import Source
from receiver.outbox.subscribers.secrets import Secret
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.track.record import Recorder
from tests.kit.clock import T0, ManualClock
from tests.service.depot import Depot, depot
from tests.service.stage import Hook
from tests.store.makers import refund_id, seen

DECLINED = ("amazonpay.refund.declined",)
KEY = "R0123456789ABCDEFGHIJKLMNOPQRSTU"
OLD = T0 - 600 * 86_400_000


async def take_in(at: Depot, metrics: Metrics, count: int, first: int = 1, updated_at: int = OLD) -> None:
    """As `receiver refund import` has it: refreshed one by one, and declined long ago."""
    recorder = Recorder(at.store, lambda: 0.0)
    for number in range(first, first + count):
        found = msgspec.structs.replace(seen("Declined", number, "AmazonRejected", updated_at), created_at=updated_at)
        settled = await recorder.record(at.account, found, source=Source.REFRESH)
        metrics.observation(settled, Source.REFRESH, 0, at.store.now())


async def test_importing_old_declines_calls_nobody(store: Store, redis: Any, clock: ManualClock) -> None:
    """Twelve declines of long ago: twelve marked webhooks, nothing owed to the pager, and no count that an alert looks
    at. A decline of today calls as ever."""
    metrics = Metrics()

    def counted(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(f"receiver_{name}_total", labels) or 0.0

    async with depot(store, redis, clock) as at, Hook().listening() as books, Hook().listening() as pager:
        await at.subscribe(books, types=DECLINED)
        paging: dict[str, Any] = {"types": DECLINED, "secrets": (), "format": "pagerduty", "credential": Secret(KEY)}
        await at.subscribe(Hook(name="pager", url=pager.url), **paging)
        await at.subscribe(Hook(name="archive", url=pager.url), **paging, backfill=True)
        await take_in(at, metrics, 12)
        waiting = {name: len(await at.claim(name)) for name in ("pager", "archive")}
        assert waiting == {"pager": 0, "archive": 12}
        for delivery in await at.claim():
            await at.deliverer.deliver([delivery], (await store.of("us").subscribers.read()).subscribers["all"])
        bodies = [json.loads(post.body) for post in books.posts]
        assert len(bodies) == 12
        assert {(each["backfill"], each["data"]["backfill"]) for each in bodies} == {(True, True)}
        assert counted("events_backfill", type=DECLINED[0]) == 12
        assert counted("events", type=DECLINED[0]) == 0
        assert counted("refunds_final", state="Declined", reason="AmazonRejected", found_by="refresh") == 0

        await take_in(at, metrics, 1, first=13, updated_at=clock())
        (owed,) = await at.claim("pager")
        assert refund_id(13) in str(owed)
        assert counted("refunds_final", state="Declined", reason="AmazonRejected", found_by="refresh") == 1
