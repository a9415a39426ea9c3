"""Edge: an installation. The checks of `receiver doctor`: each is a function of the site that returns findings.

    configuration · keys · certificates    this machine
    amazon                                 Amazon, asked for a refund and a dispute that do not exist
    redis · store · backlog · content      the store: its health, its contents, and damaged records
    service                                the running service
    finding · site · clocks                shared by the checks

To add one, write the function and put it into `CHECKS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from receiver.commands.doctor.amazon import check_amazon
from receiver.commands.doctor.certificates import check_hosts, check_pinned
from receiver.commands.doctor.configuration import check_configuration
from receiver.commands.doctor.finding import Finding, Report, fail, report, skip
from receiver.commands.doctor.keys import check_crypto, check_keys
from receiver.commands.doctor.service import check_service
from receiver.commands.doctor.site import Site
from receiver.commands.doctor.store import check_store


@dataclass(frozen=True, slots=True)
class Check:
    """A group of checks that run in order. Groups run concurrently."""

    name: str
    ask: Callable[[Site], Awaitable[list[Finding]]]
    bound: float
    """Seconds after which the group is cancelled."""


WHOLE_STORE = 3_600.0
"""The time limit in seconds if every record of the store is read."""
CHECKS = (
    Check("configuration", check_configuration, 5),
    Check("keys", check_keys, 5),
    Check("store", check_store, 15),
    Check("amazon", check_amazon, 12),
    Check("certificates.pinned", check_pinned, 5),
    Check("certificates.host", check_hosts, 10),
    Check("service", check_service, 10),
)


async def examine(site: Site, checks: tuple[Check, ...] = CHECKS) -> Report:
    """All findings. A check that hangs or fails becomes a finding and does not stop the others."""
    crypto = asyncio.create_task(check_crypto())
    found = await asyncio.gather(*(_bounded(check, site) for check in checks))
    return report([*await crypto, *(finding for findings in found for finding in findings)])


async def examine_nothing(problems: tuple[str, ...]) -> Report:
    """The findings if the settings are wrong: their problems, and whether this machine can verify signatures."""
    fix = "Fix the setting and run it again."
    wrong = [fail("configuration.settings", "configuration", problem, fix) for problem in problems]
    left_out = [skip(check.name, "configuration", "skipped: fix the settings first") for check in CHECKS[1:]]
    return report([*wrong, *await check_crypto(), *left_out])


async def _bounded(check: Check, site: Site) -> list[Finding]:
    asking = asyncio.ensure_future(check.ask(site))
    # `asyncio.timeout` would wait for a task that swallows its cancellation, as redis-py's do on Python 3.11.
    bound = WHOLE_STORE if site.whole_store and check.name == "store" else check.bound
    await asyncio.wait({asking}, timeout=bound)
    if not asking.done():
        asking.cancel()
        found = f"not done after {bound:g} s"
        return [fail(check.name, "timeout", found, "Something hangs there. Check it and run doctor again.")]
    try:
        return asking.result()
    except Exception as error:
        found = f"the check itself failed ({type(error).__name__})"
        return [fail(check.name, "check_failed", found, "This is a bug in doctor: please report it.")]
