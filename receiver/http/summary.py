"""HTTP. `GET /v1/summary`: what needs a person, in numbers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from msgspec import Meta

from receiver.http.api.operations import READ, Call, Operation
from receiver.http.api.params import ACCOUNT
from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import sums_of_minor
from receiver.ledger.refund_request import RequestState
from receiver.ledger.schema import Json, MoneyJson, Rfc3339, money_json, tidy
from receiver.ledger.timestamps import format_rfc3339
from receiver.store import Store
from receiver.store.account import AccountStore
from receiver.store.dashboard import MOST_READ
from receiver.store.gauges import AGES
from receiver.store.refunds.cases import OpenCase

MOST_STUCK = 200
"""Pending refunds of an account to look through for stuck ones, the longest unchanged first."""


class CasesJson(Json, kw_only=True):
    """Open cases of declined refunds."""

    count: int
    amounts: Annotated[list[MoneyJson], Meta(description="Their sum in each currency.")]
    unknown_amounts: Annotated[int, Meta(description="Those whose amount Amazon has not reported.")]
    oldest_at: Annotated[Rfc3339 | None, Meta(description="Since when the oldest is open.")] = None


class ReasonCasesJson(CasesJson, kw_only=True):
    """Open cases with one reason."""

    reason_code: str | None = None


class OpenDeclinesJson(CasesJson, kw_only=True):
    """All open cases of declined refunds, and the same for each reason, the most frequent first."""

    reasons: list[ReasonCasesJson]


class PendingCountJson(Json, kw_only=True):
    """Refunds that are not final."""

    count: int
    unchanged_for: Annotated[
        dict[str, int], Meta(description="By age, such as 1d: those that have not changed for that long.")
    ]
    stuck: Annotated[
        int,
        Meta(
            description="Those that have been pending for longer than `accounts.stuck_after`, among the "
            f"{MOST_STUCK} of each account that have not changed for the longest time."
        ),
    ]


class AlertingJson(Json, kw_only=True):
    """Subscribers that do not get their events."""

    paused: int
    failing: int
    unreadable: int
    dead_events: Annotated[int, Meta(description="Events that failed permanently.")]


class SummaryJson(Json, kw_only=True):
    """What needs a person, of all accounts that the token may see."""

    at: Rfc3339
    accounts: list[str]
    open_declines: OpenDeclinesJson
    pending: PendingCountJson
    conflicts: Annotated[
        int, Meta(description=f"Refunds with two final states, among the latest {MOST_READ:,} events of each account.")
    ]
    unclear: Annotated[int, Meta(description="Refund requests whose outcome a person has to find out.")]
    reserved: Annotated[int, Meta(description="Refund requests that Amazon has not answered.")]
    alerting: AlertingJson


class SummaryApi:
    """The handler. `now` is ms since the epoch, UTC."""

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store, self._now = store, now

    @Operation(
        "GET",
        "/v1/summary",
        id="getSummary",
        tag="operation",
        summary="What needs a person, in numbers",
        scopes=READ,
        parameters=(ACCOUNT,),
        in_turn=True,
    )
    async def report(self, call: Call) -> SummaryJson:
        accounts = call.accounts
        stores = [self._store.of(account) for account in accounts]
        cases, sizes, problems, stuck, conflicts = await asyncio.gather(
            asyncio.gather(*(store.cases.all() for store in stores)),
            asyncio.gather(*(store.gauges.measure() for store in stores)),
            asyncio.gather(*(store.gauges.alerting_problems() for store in stores)),
            asyncio.gather(*(_stuck(store) for store in stores)),
            asyncio.gather(*(_conflicts(store) for store in stores)),
        )

        def total(name: str) -> int:
            return int(sum(each.get(name, 0) for each in sizes))

        troubled = [problem for each in problems for problem in each]
        return SummaryJson(
            at=format_rfc3339(self._now()),
            accounts=[*accounts],
            open_declines=open_declines([case for each in cases for case in each]),
            pending=PendingCountJson(
                count=total("pending"),
                unchanged_for={age: total(f"pending_unchanged:{age}") for age in AGES},
                stuck=sum(stuck),
            ),
            conflicts=sum(conflicts),
            unclear=total(f"requests:{RequestState.UNCLEAR}"),
            reserved=total(f"requests:{RequestState.RESERVED}"),
            alerting=AlertingJson(
                paused=sum(each.paused for each in troubled),
                failing=sum(each.failing for each in troubled),
                unreadable=sum(each.unreadable for each in troubled),
                dead_events=sum(each.dead for each in troubled),
            ),
        )


def open_declines(cases: Sequence[OpenCase]) -> OpenDeclinesJson:
    """Number, sums and age of open cases, in all and for each reason."""
    by_reason: dict[str, list[OpenCase]] = defaultdict(list)
    for case in cases:
        by_reason[case.reason].append(case)
    frequent = sorted(by_reason.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return OpenDeclinesJson(
        **_counted(cases),
        reasons=[ReasonCasesJson(reason_code=tidy(reason) or None, **_counted(found)) for reason, found in frequent],
    )


def _counted(cases: Sequence[OpenCase]) -> dict[str, Any]:
    """The fields of `CasesJson`."""
    sums = sums_of_minor((case.minor_units, case.currency) for case in cases)
    return {
        "count": len(cases),
        "amounts": [shown for money in sums if (shown := money_json(money))],
        "unknown_amounts": sum(case.minor_units is None for case in cases),
        "oldest_at": format_rfc3339(min(case.since for case in cases)) if cases else None,
    }


async def _stuck(store: AccountStore) -> int:
    found = await store.refunds.readable(await store.dashboard.pending_longest(MOST_STUCK))
    return sum(EventType.STUCK in refund.emitted for refund in found)


async def _conflicts(store: AccountStore) -> int:
    found = await store.dashboard.contradictions("")
    return sum(refund.conflict for refund in await store.refunds.readable(dict.fromkeys(found.refund_ids)))
