"""Fields that cannot be read: no field of Amazon's silences a decline. Over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from receiver.ledger.notification import Hint
from receiver.ledger.refund import FIELD_NAMES, Source
from receiver.ledger.schema import refund_json
from receiver.simulator.odd_fields import ODD_FIELDS
from receiver.simulator.outcomes import Outcome
from tests.kit.processes import until
from tests.service.stage import Amazon, Hook, account, running

FIELD_OF = {
    "reason_with_a_blank": "reasonCode",
    "long_reason": "reasonCode",
    "description_object": "reasonDescription",
    "time_with_an_offset": "lastUpdatedTimestamp",
    "impossible_date": "lastUpdatedTimestamp",
    "exponent_amount": "refundAmount",
    "no_currency": "refundAmount",
    "long_charge_id": "chargeId",
    "descriptor_number": "softDescriptor",
    "environment_list": "releaseEnvironment",
    "long_order_reference": "orderReference",
}


@pytest.fixture
async def shop() -> AsyncIterator[Amazon]:
    """Amazon Pay of one merchant, in the sandbox of North America."""
    async with Amazon() as found:
        yield found


@pytest.fixture
async def audit() -> AsyncIterator[Hook]:
    """A subscriber to everything."""
    async with Hook("audit").listening() as found:
        yield found


async def test_a_decline_is_told_whatever_field_of_it_cannot_be_read(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """Recorded, pushed with null for that field, logged without the value, and counted."""
    poll = ["every 1d"]
    async with running(valkey_url, [account(shop, tmp_path, poll=poll)], [audit]) as stage:
        shop.post_to = f"{stage.url}/ipn"
        ids: dict[str | None, str] = {}
        with capture_logs() as logs:
            for kind in (*ODD_FIELDS, None):
                refund_id = shop.start_refund("14.00", "USD", Outcome.DECLINED_AT_ONCE)
                ids[kind] = refund_id
                charge_id = shop.refunds[refund_id].order.charge_id
                for about in (refund_id, charge_id):
                    shop.fault_injection.add("odd_field", refund_id=about, kind=kind or "", times=None)
            await until(lambda: len(audit.posts) == len(ids), "every decline is pushed")
        assert audit.told == sorted((refund_id, "declined") for refund_id in ids.values())
        for kind, refund_id in ids.items():
            known = await stage.service.store.of("us").refunds.get(refund_id)
            assert known is not None
            unread = [FIELD_OF[kind]] if kind else sorted({*FIELD_OF.values()} - {"orderReference"})
            assert refund_json(known).unread_fields == unread
            assert all(not getattr(known, FIELD_NAMES[name]) for name in unread)
            noted = [each for each in logs if each["event"] == "amazon.field_unread"]
            assert {each["log_level"] for each in noted} == {"error"}
            assert "AAAA" not in str(noted)
        assert stage.counted("amazon_fields_unread", call="get_refund", field="reasonCode") >= 3
        assert stage.counted("amazon_fields_unread", call="get_charge", field="merchantReferenceId") >= 1


async def test_what_can_be_read_later_fills_what_was_null(
    shop: Amazon, audit: Hook, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """A refresh after Amazon's answers, or this service, have become better."""
    async with running(valkey_url, [account(shop, tmp_path, poll=["every 1d"])], [audit]) as stage:
        shop.post_to = f"{stage.url}/ipn"
        shop.fault_injection.add("odd_field", place="get_refund", times=None)
        refund_id = shop.start_refund("14.00", "USD", Outcome.DECLINED_AT_ONCE)
        await until(lambda: len(audit.posts) == 1, "the decline is pushed")
        shop.fault_injection.clear()
        store = stage.service.store
        await store.of("us").schedule.hint(Hint(refund_id=refund_id, at=store.now(), source=Source.REFRESH))

        async def filled() -> bool:
            known = await stage.service.store.of("us").refunds.get(refund_id)
            return known is not None and not known.unread

        await until(filled, "every field is known")
        known = await stage.service.store.of("us").refunds.get(refund_id)
        assert known is not None
        assert (str(known.amount), known.reason_code, bool(known.updated_at)) == ("14.00 USD", "AmazonRejected", True)
        assert known.charge_id
