"""Verb. Closes open findings that Amazon's answers or later reports have explained."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
import structlog

from receiver.ledger.reconciliation.compare import still_holds
from receiver.ledger.reconciliation.finding import Finding
from receiver.ledger.reconciliation.rows import RefundRow
from receiver.ledger.refund import Refund
from receiver.store.account import AccountStore
from receiver.store.refunds.findings import StoredFinding
from receiver.store.refunds.refunds import CHUNK

log = structlog.get_logger()


async def review(store: AccountStore) -> None:
    """Close the open findings that no longer hold, and forget those closed long ago. Raises `StoreUnavailable`."""
    async for batch in store.findings.every_open():
        ids = [each.finding.refund_id for each in batch if each.finding]
        known, settled = await known_refunds(store, ids), await store.findings.settled(ids)
        reported = await store.findings.reported(ids)
        for stored in batch:
            if (found := stored.finding) is None or (name := found.refund_id) not in known:
                continue
            if not still_holds(found, known[name], settled[name], name in reported):
                await _close(store, stored)
    await store.findings.drop_old()


async def close_if_over(
    store: AccountStore, stored: StoredFinding, known: Refund | None, row: RefundRow | None = None
) -> None:
    """Close an open finding if it no longer holds. `row`: the latest row of refund data about it, which replaces an
    older one."""
    finding = stored.finding
    if finding is None:
        return
    if row and isinstance(finding.row, RefundRow) and row.updated_at >= finding.row.updated_at:
        finding = msgspec.structs.replace(finding, row=row)
    ids = [finding.refund_id]
    settled = (await store.findings.settled(ids))[finding.refund_id]
    is_reported = bool(await store.findings.reported(ids))
    if not still_holds(finding, known, settled, is_reported):
        await _close(store, stored)


async def _close(store: AccountStore, stored: StoredFinding) -> None:
    if stored.finding and await store.findings.close(stored):
        log.info("reconcile.finding_closed", account=store.account, **about(stored.finding))


async def known_refunds(store: AccountStore, refund_ids: Iterable[str]) -> dict[str, Refund | None]:
    """The refunds as they are known here; unreadable ones are left out."""
    ids, found = [*refund_ids], dict[str, Refund | None]()
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        refunds = await asyncio.gather(*map(store.refunds.get_or_id, chunk))
        found |= {name: each for name, each in zip(chunk, refunds, strict=True) if not isinstance(each, str)}
    return found


def about(finding: Finding) -> dict[str, object]:
    """A finding as fields of a log line."""
    row = finding.row
    return {
        "finding": finding.kind.value,
        "refund_id": finding.refund_id,
        "here": finding.here or None,
        "there": finding.there or None,
        "report": finding.source or None,
        "line": (row.line or None) if row else None,
    }
