"""Values for the store's tests."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

from receiver.ledger.money import Money
from receiver.ledger.next_look import DueRefund
from receiver.ledger.notification import Hint
from receiver.ledger.refund import Observation, Refund, Source
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.runtime.rounds import Claim
from receiver.store import Store
from receiver.store.refunds.codec import to_hash
from tests.kit.clock import T0

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def refund_id(number: int = 1) -> str:
    return f"S01-5105180-3221187-R{number:06d}"


def seen(state: str = "RefundInitiated", number: int = 1, reason: str = "", updated_at: int = T0) -> Observation:
    return Observation(
        refund_id=refund_id(number),
        charge_id="S01-5105180-3221187-C056351",
        amount=Money(Decimal("14.00"), "USD"),
        created_at=T0,
        state=state,
        updated_at=updated_at,
        reason_code=reason,
        environment="Sandbox",
    )


def hint(
    number: int = 1, at: int = T0, message: str = "m1", digest: str = "d1", source: Source = Source.NOTIFICATION
) -> Hint:
    return Hint(refund_id=refund_id(number), at=at, source=source, message_id=message, digest=digest, sent_at=at)


def subscriber(name: str = "finance", **more: object) -> Subscriber:
    fields: dict[str, object] = {"url": "http://127.0.0.1:9/hook", "secrets": (Secret(SECRET),), "types": ("*",)}
    return Subscriber(name=name, **{**fields, **more})  # type: ignore[arg-type]


async def claim(
    store: Store, limit: int = 8, lease: int = 30_000, burst: float = 100, per_second: float = 100
) -> Claim[DueRefund]:
    return await store.of("us").schedule.claim(
        "get_refund", lease=lease, burst=burst, per_second=per_second, limit=limit
    )


async def fill(redis: Any, count: int, account: str = "us", reason: str = "AmazonRejected") -> None:
    """Write declined refunds as a commit does, in a fraction of the time. Number n was changed at `T0` + n."""
    pipeline = redis.pipeline(transaction=False)
    for number in range(count):
        made = Refund(
            account=account,
            refund_id=refund_id(number),
            state="Declined",
            reason_code=reason,
            revision=1,
            updated_at=T0,
            first_seen_at=T0,
            changed_at=T0 + number,
            source=Source.POLL,
            amount=Money.parse("14.00", "USD"),
            charge_id="S01-5105180-3221187-C056351",
        )
        fields = to_hash(made)
        pipeline.hset(
            f"refunds:{{{account}}}:refund:{refund_id(number)}",
            mapping=dict(zip(fields[::2], fields[1::2], strict=True)),
        )
        for index in ("state:Declined", f"reason:{reason}"):
            pipeline.zadd(f"refunds:{{{account}}}:{index}", {refund_id(number): T0 + number})
    await pipeline.execute()
