"""Command. `receiver reconcile --since`: fetches Amazon's reports through its API, and compares them.

It works with the settings and the store of the service, not through its API: it calls Amazon with the account's key.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from receiver.commands.console import say
from receiver.commands.prune import opened, ready_to_write
from receiver.commands.setup import quiet, transport
from receiver.errors import ConfigurationError
from receiver.ledger.reconciliation.finding import Finding
from receiver.ledger.reconciliation.report_run import LONGEST, RunResult
from receiver.ledger.timestamps import milliseconds, parse_span
from receiver.settings import Settings

SHORTEST = timedelta(hours=1)


def read_since(since: str) -> int:
    """The span in ms. Raises `ConfigurationError`."""
    try:
        span = milliseconds(parse_span(since))
    except ValueError as error:
        raise ConfigurationError([f"--since: {error}"]) from None
    if not milliseconds(SHORTEST) <= span <= LONGEST:
        raise ConfigurationError(["--since: 1h to 90d. Amazon keeps reports for 90 days."])
    return span


async def fetch_and_compare(
    settings: Settings, account: str, span: int, show: Callable[[str, Finding], None]
) -> list[RunResult]:
    """Fetch and compare the reports of this account, or of all. `show` gets each difference with its account.

    Raises `ConfigurationError`, and what `ReportReconciliation.run` raises.
    """
    from receiver.runtime.metrics import Metrics
    from receiver.service import system_clock
    from receiver.track.amazon_client import AmazonClient
    from receiver.track.report_run import report_reconciliation

    accounts = [each for each in settings.build_accounts() if account in ("", each.name)]
    if not accounts:
        raise ConfigurationError([f"--account: the settings have no account {account!r}."])
    quiet()
    metrics, timeout, results = Metrics(), settings.track.request_timeout.total_seconds(), list[RunResult]()
    async with transport(allow_networks=settings.delivery.allow_networks) as web, opened(settings) as store:
        await ready_to_write(store)
        for each in accounts:
            name = each.name
            client = AmazonClient(each, store.of(name), web.send, metrics, system_clock, timeout)
            reconciliation = report_reconciliation(client, web.send, metrics, declared=True)
            unfinished = await reconciliation.runs.unfinished()
            if unfinished and unfinished.report_id:
                say([f"{name}: there is an unfinished run; it is continued if it covers the time."])
            say(
                [f"{name}: fetching Amazon's reports. This can take minutes, and can be interrupted and started again."]
            )
            results.append(await reconciliation.run(span, partial(show, name)))
    return results
