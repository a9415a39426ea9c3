"""Edge: Redis. Whether the daily comparison with Amazon's reports works."""

from __future__ import annotations

from receiver.amazon.account import Account
from receiver.commands.doctor.finding import Finding, ok, warn
from receiver.ledger.age import DAY
from receiver.ledger.timestamps import format_rfc3339
from receiver.store.account import AccountStore

REPORTS = "amazon.reports"
LATE = 2 * DAY
FIXES = {
    "amazon_refuses_us": "Ask Amazon Pay whether the key may use the Reports API. Until then, compare files.",
    "amazon_report_document": "See deploy/reconcile.md, and allow connections to the host that the message names.",
}


async def check_reconciliation(store: AccountStore, settings: Account) -> list[Finding]:
    """How the last runs ended. Raises `StoreUnavailable`."""
    account = settings.name
    failure, complete = await store.report_runs.last_failure(), await store.report_runs.last_complete()
    if failure:
        text = f"the last comparison with Amazon's reports failed at {format_rfc3339(failure.at)}: {failure.detail}"
        fix = FIXES.get(failure.reason, "It is tried again every hour. Or run it now: receiver reconcile --since 7d")
        return [warn(REPORTS, failure.reason, text, fix, account)]
    if settings.daily is None:
        return []
    if complete is None or complete.at < store.now() - LATE:
        text = f"the last comparison with Amazon's reports was at {format_rfc3339(complete.at)}" if complete else ""
        text = text or "no comparison with Amazon's reports is complete yet"
        fix = "Is a worker running? See reconcile.* in its log."
        return [warn(REPORTS, "late", text, fix, account)]
    if complete.unread:
        text = f"{complete.unread} of Amazon's reports could not be read completely: they prove no refund to be missing"
        fix = "The log has the lines and the reasons: reconcile.line_refused, reconcile.report_refused."
        return [warn(REPORTS, "unread", text, fix, account)]
    return [ok(REPORTS, f"compared with Amazon's reports at {format_rfc3339(complete.at)}", account)]
