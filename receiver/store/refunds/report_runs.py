"""Edge: Redis. The run that fetches Amazon's reports: its lease, its request, and the results of the last runs."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from receiver.ledger.reconciliation.report_run import ReportRun, RunResult
from receiver.store.redis.base import AccountRepository

LEASE = 60_000
"""ms. A run keeps its lease while it lives; after a crash, another can begin when the lease ends."""
RUN, COMPLETE, FAILED = "run", "complete", "failed"

T = TypeVar("T")


class ReportRuns(AccountRepository):
    async def lease(self, owner: str, ms: int = LEASE) -> bool:
        """Take or keep the lease; False if another owner holds it. 0 ms gives it up."""
        return bool(await self._script("lease", [owner, ms]))

    async def unfinished(self) -> ReportRun | None:
        return await self._get(RUN, ReportRun)

    async def write(self, run: ReportRun) -> None:
        """Store the request of a run."""
        await self._write("HSET", self.keys("report_run"), RUN, msgspec.json.encode(run))

    async def finish(self, result: RunResult) -> None:
        """Record the end of a run. A complete run is forgotten, a failed one can be continued."""
        await self._write(
            "HSET", self.keys("report_run"), FAILED if result.reason else COMPLETE, msgspec.json.encode(result)
        )
        if not result.reason:
            await self._write("HDEL", self.keys("report_run"), RUN, FAILED)

    async def last_complete(self) -> RunResult | None:
        """How the last complete run ended."""
        return await self._get(COMPLETE, RunResult)

    async def last_failure(self) -> RunResult | None:
        """How the last run since then failed; None if none did."""
        return await self._get(FAILED, RunResult)

    async def _get(self, field: str, kind: type[T]) -> T | None:
        key = self.keys("report_run")
        raw: bytes | None = await self._read("HGET", key, field)
        return self._part(key, field, "unreadable; ignored", msgspec.json.decode, raw, type=kind) if raw else None
