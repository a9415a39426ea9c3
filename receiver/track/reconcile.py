"""Verb. Rows of Amazon's reports → findings: compare with the ledger, record each difference once, ask Amazon again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
import structlog

from receiver.amazon.account import Account, Environment
from receiver.errors import BadRequest, StoreUnavailable
from receiver.ledger.age import DAY
from receiver.ledger.notification import Hint
from receiver.ledger.reconciliation.compare import (
    KINDS_OF_REFUND_ROW,
    KINDS_OF_SETTLEMENT,
    compare_refund,
    compare_settlement,
    is_same,
    is_short,
    not_in_report,
    not_settled,
    past,
    with_row,
)
from receiver.ledger.reconciliation.finding import Finding, FindingKind
from receiver.ledger.reconciliation.rows import Period, RefundRow, SettlementRow
from receiver.ledger.reconciliation.run import Batch, Compared
from receiver.ledger.refund import Refund, Source, State
from receiver.outbox.events.mismatch_event import mismatch_event
from receiver.runtime.metrics import Metrics
from receiver.store.account import AccountStore
from receiver.store.deliveries.subscribers import SubscriberList
from receiver.store.redis.keys import STATES
from receiver.store.refunds.findings import Opened, StoredFinding
from receiver.store.refunds.refunds import MOST_COLLISIONS
from receiver.track.record import owed
from receiver.track.review import about, close_if_over, known_refunds, review

log = structlog.get_logger()

FEW = 10
"""This many refunds may be missing in the reports, even if fewer are present."""
RUN = DAY // 2
"""ms: reports that were read within this time count as read by the same run. A run takes less time; daily runs are
further apart."""
REFUNDS = "refunds"
NO_ROWS: Mapping[str, RefundRow] = MappingProxyType({})
ASKED = frozenset({FindingKind.UNKNOWN_HERE, FindingKind.STATE_DIFFERS, FindingKind.SETTLED_BUT_DECLINED})
"""The findings that an answer of Amazon's can explain."""


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Compares reports with one account's refunds. `declared`: see `Recorder`."""

    account: Account
    store: AccountStore
    metrics: Metrics
    declared: bool = False

    async def compare(self, batch: Batch) -> Compared:
        """Compare a part of a run, and record what differs. Safe to repeat.

        Raises `BadRequest` (`other_merchant`, `other_environment`; with the last part `report_incomplete`),
        `StoreUnavailable`.
        """
        self._check_account(batch)
        found = await self._refunds([row for row in batch.rows if isinstance(row, RefundRow)], batch.source)
        rows = [row for row in batch.rows if isinstance(row, SettlementRow)]
        of_settlements, again = await self._settlements(rows, batch)
        found += of_settlements
        if batch.is_last:
            new = past(batch.periods, self.store.now())
            periods, read = [*await self.store.findings.periods(), *new], sorted({each.report for each in new})
            for report in read:
                await self._check_whole(report, new, periods)
            await self.store.findings.add_periods(new)
            for report in read:
                found += await self._missing(report, periods)
            await review(self.store)
        return Compared(findings=tuple(found), again=tuple(again))

    def _check_account(self, batch: Batch) -> None:
        """The same merchant has ids of both environments: sandbox ids begin with S, live ones with P."""
        name = self.account.name
        if batch.seller_id and batch.seller_id.upper() != self.account.merchant_id.upper():
            raise BadRequest(
                f"The report is of the merchant {batch.seller_id}, not of the account {name}. Name the account that it "
                "belongs to.",
                reason="other_merchant",
            )
        foreign = "P" if self.account.environment is Environment.SANDBOX else "S"
        other = next((row.refund_id for row in batch.rows if row.refund_id.startswith(foreign)), "")
        if other:
            raise BadRequest(
                f"The report has the refund {other}, but the account {name} is {self.account.environment.value}. Name "
                "the account that the report belongs to.",
                reason="other_environment",
            )

    async def _refunds(self, rows: Sequence[RefundRow], source: str) -> list[Finding]:
        latest = {row.refund_id: row for row in sorted(rows, key=lambda row: row.updated_at)}
        known = await known_refunds(self.store, latest)
        await self.store.findings.mark_reported(latest)
        found = [each for name in known for each in compare_refund(latest[name], known[name])]
        return await self._recorded(found, known, KINDS_OF_REFUND_ROW, source, latest)

    async def _settlements(self, rows: Sequence[SettlementRow], batch: Batch) -> tuple[list[Finding], list[str]]:
        """The findings, and the refunds whose settlements are too small so far. Refunds in `again` are judged now."""
        ids = [*dict.fromkeys([*(row.refund_id for row in rows), *batch.again])]
        settled, known = await self.store.findings.settled(ids), await known_refunds(self.store, ids)
        for row in rows:
            settled[row.refund_id] = with_row(settled[row.refund_id], row)
        await self.store.findings.mark_settled({row.refund_id: settled[row.refund_id] for row in rows})
        again = [name for name in known if name not in batch.again and is_short(settled[name], known[name])]
        judged = {name: refund for name, refund in known.items() if settled[name] and name not in again}
        found = [each for name in judged for each in compare_settlement(settled[name], judged[name])]
        return await self._recorded(found, judged, KINDS_OF_SETTLEMENT, batch.source), again

    async def _recorded(
        self,
        found: Sequence[Finding],
        known: Mapping[str, Refund | None],
        kinds: Sequence[FindingKind],
        source: str,
        rows: Mapping[str, RefundRow] = NO_ROWS,
    ) -> list[Finding]:
        """The findings, with the time when each was first found. New findings are recorded; open findings that the same
        rows disprove are closed. `rows` are those of refund data."""
        now = self.store.now()
        by_name = {each.name: msgspec.structs.replace(each, source=source, since=now) for each in found}
        names = dict.fromkeys([*by_name, *(f"{kind} {name}" for name in known for kind in kinds)])
        stored = await self.store.findings.stored([*names])
        for name, held in stored.items():
            if name not in by_name and held.finding and not held.finding.closed_at:
                refund_id = held.finding.refund_id
                await close_if_over(self.store, held, known[refund_id], rows.get(refund_id))
        if not by_name:
            return []
        subscriber_list = await self.store.subscribers.read()
        shown = await asyncio.gather(
            *(
                self._record(each, stored[name], known[each.refund_id], subscriber_list)
                for name, each in by_name.items()
            )
        )
        await asyncio.gather(*(self._ask_again(each.refund_id) for each in shown if each.kind in ASKED))
        return shown

    async def _record(
        self, finding: Finding, stored: StoredFinding, known: Refund | None, subscriber_list: SubscriberList
    ) -> Finding:
        """The finding as it is recorded: the same difference keeps the time when it was first found."""
        for _ in range(MOST_COLLISIONS):
            if (held := stored.finding) and not held.closed_at and is_same(held, finding):
                return held
            if self.declared and not subscriber_list.version:
                raise StoreUnavailable("The subscribers are being written again.", reason="store_emptied")
            region = self.account.endpoint.region.value
            amount = known.amount if known else None
            now = self.store.now()
            event = mismatch_event(self.account.name, finding, now, before=held, amount=amount, region=region)
            to_send = owed(event, subscriber_list)
            if await self.store.findings.record(finding, stored, to_send, subscriber_list.version) is Opened.OK:
                self.metrics.mismatch_event()
                log.warning("reconcile.finding", account=self.account.name, **about(finding))
                return finding
            stored = (await self.store.findings.stored([finding.name]))[finding.name]
            subscriber_list = await self.store.subscribers.read()
        raise StoreUnavailable("Others kept writing the same finding.", reason="store_collision")

    async def _ask_again(self, refund_id: str) -> None:
        hint = Hint(refund_id=refund_id, at=self.store.now(), source=Source.REFRESH, patient=True)
        await self.store.schedule.hint(hint)

    async def _missing(self, report: str, periods: Sequence[Period]) -> list[Finding]:
        """Refunds that are known here, and that the reports read so far should have, but do not."""
        since, found = min(each.start for each in periods if each.report == report) - DAY, list[Finding]()
        async for ids in self._changed_since(report, since):
            known = await self._absent(report, ids)
            found += await self._recorded(self._lacking(report, known, periods), known, (), "")
        return found

    async def _check_whole(self, report: str, new: Sequence[Period], periods: Sequence[Period]) -> None:
        """Raise `BadRequest` (`report_incomplete`) if more refunds are missing in new reports than are present."""
        findings, has, lacks = self.store.findings, 0, 0
        before = DAY if report == REFUNDS else DAY + self.account.settled_within
        async for ids in self._changed_since(report, min(each.start for each in new if each.report == report) - before):
            is_refunds = report == REFUNDS
            read = findings.reported(ids, self.store.now() - RUN) if is_refunds else findings.are_settled(ids)
            has += len(await read)
            lacking = self._lacking(report, await self._absent(report, ids), periods)
            stored = await findings.stored([each.name for each in lacking])
            lacks += sum(1 for each in stored.values() if not each.finding or each.finding.closed_at)
        if lacks > max(has, FEW):
            raise BadRequest(
                f"The reports lack {lacks} refunds of their time that are known here, and have only {has}: they are "
                "incomplete, or of another account. What they have was compared; no refund counts as missing in them.",
                reason="report_incomplete",
            )

    async def _changed_since(self, report: str, since: int) -> AsyncIterator[list[str]]:
        """The refunds that can be missing in a report, in batches."""
        for state in STATES if report == REFUNDS else (State.REFUNDED.value,):
            async for ids in self.store.findings.changed_since(state, since):
                yield ids

    async def _absent(self, report: str, ids: Sequence[str]) -> dict[str, Refund | None]:
        """Those of the refunds that are in no report."""
        findings = self.store.findings
        present = await (findings.reported(ids) if report == REFUNDS else findings.are_settled(ids))
        return await known_refunds(self.store, [each for each in ids if each not in present])

    def _lacking(self, report: str, known: Mapping[str, Refund | None], periods: Sequence[Period]) -> list[Finding]:
        covered, now = [each for each in periods if each.report == report], self.store.now()
        found = [
            not_in_report(each, covered)
            if report == REFUNDS
            else not_settled(each, covered, self.account.settled_within, now)
            for each in known.values()
            if each is not None
        ]
        return [each for each in found if each is not None]
