"""HTTP. `POST /v1/reconciliations` compares rows of Amazon's reports; `GET /v1/findings` lists what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from receiver.errors import BadRequest
from receiver.http.api.bodies import body_schema, check_fields, only_account, read_object
from receiver.http.api.listing import read_cursor, write_cursor
from receiver.http.api.operations import COMMIT, NO_ACCOUNT, READ, Body, Call, Operation
from receiver.http.api.params import ACCOUNT, CURSOR, choice, number
from receiver.http.finding_schema import BatchJson, ComparedJson, FindingListJson, read_row
from receiver.issue.issuer import Issuer
from receiver.ledger.reconciliation.finding import FindingKind
from receiver.ledger.reconciliation.rows import Period
from receiver.ledger.reconciliation.run import Batch
from receiver.outbox.events.mismatch_event import FindingJson, finding_json
from receiver.settings.sections import Scope
from receiver.store import Store
from receiver.track.reconcile import Reconciler

MOST_BODY: Final = 1024 * 1024


BATCH_SCHEMA: Final = body_schema(
    BatchJson,
    {
        "source": "refunds.csv",
        "rows": [{"report": "refunds", "refundId": "S01-5105180-3221187-R022311", "state": "Refunded"}],
    },
)
KIND: Final = choice("finding", "Only findings of this kind.", [*FindingKind])
LIMIT: Final = number("limit", "Most findings in a page.", 50, 1, 200)


class FindingApi:
    """The handlers. `issuers` by account."""

    def __init__(self, store: Store, issuers: Mapping[str, Issuer]) -> None:
        self._store = store
        self._reconcilers = {name: reconciler_of(issuer) for name, issuer in issuers.items()}

    @Operation(
        "POST",
        "/v1/reconciliations",
        id="reconcile",
        tag="operation",
        summary="Compare rows of Amazon's reports with what is known",
        about="`receiver reconcile` calls this, with up to 500 rows at a time. Each difference is recorded once, with "
        "an event; a refund that is not known is looked up. Every call can be repeated.",
        scopes=(Scope.REFUND, Scope.ADMIN),
        body=Body(BATCH_SCHEMA),
        reasons=(
            {
                400: (
                    *("unknown_field", "bad_reconciliation", "other_merchant", "other_environment"),
                    "report_incomplete",
                ),
                409: ("account_needed",),
            },
            NO_ACCOUNT,
            COMMIT,
        ),
    )
    async def compare(self, call: Call) -> ComparedJson:
        given = _read(await read_object(call.request, most=MOST_BODY))
        account, batch = only_account(call.caller.seen(given.account)), _batch(given)
        compared = await self._reconcilers[account].compare(batch)
        return ComparedJson(
            account=account,
            findings=[finding_json(account, each) for each in compared.findings],
            again=[*compared.again],
        )

    @Operation(
        "GET",
        "/v1/findings",
        id="listFindings",
        tag="operation",
        summary="Differences between Amazon's reports and what is known",
        about="Open findings. A finding closes when Amazon's answer or a later report explains it.",
        scopes=READ,
        parameters=(ACCOUNT, KIND, CURSOR, LIMIT),
        reasons=({400: ("bad_cursor",)},),
        in_turn=True,
    )
    async def many(self, call: Call) -> FindingListJson:
        accounts, kind, limit = call.accounts, call[KIND], call[LIMIT]
        kinds = [FindingKind(kind)] if kind else [*FindingKind]
        places = [(account, each) for account in accounts for each in kinds]
        at, _, after = read_cursor(call[CURSOR], kind, accounts).partition(" ")
        number_, found, following = int(at or 0), list[FindingJson](), ""
        while number_ < len(places) and len(found) < limit:
            account, of = places[number_]
            page, after = await self._store.of(account).findings.page(of, after, limit - len(found))
            found += [finding_json(account, each) for each in page]
            number_ += not after
            following = f"{number_} {after}" if number_ < len(places) else ""
        counts = await asyncio.gather(*(self._store.of(account).findings.counts() for account in accounts))
        return FindingListJson(
            findings=found,
            counts={each.value: sum(of_account[each] for of_account in counts) for each in FindingKind},
            next_cursor=write_cursor(following, kind, accounts) if following else None,
        )


def reconciler_of(issuer: Issuer) -> Reconciler:
    """The comparison for the account of this issuer."""
    client, recorder = issuer.amazon_client, issuer.recorder
    return Reconciler(client.account, client.store, issuer.metrics, recorder.declared)


def _read(fields: Mapping[str, Any]) -> BatchJson:
    check_fields(fields, BATCH_SCHEMA["properties"])
    try:
        return msgspec.convert(fields, BatchJson)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"The body is not a part of a reconciliation: {error}.", reason="bad_reconciliation") from None


def _batch(given: BatchJson) -> Batch:
    return Batch(
        source=given.source,
        seller_id=given.seller_id,
        rows=tuple(read_row(each) for each in given.rows),
        again=tuple(dict.fromkeys(given.again)),
        is_last=given.is_last,
        periods=tuple(Period(report=each.report, start=each.start, end=each.end) for each in given.periods),
    )
