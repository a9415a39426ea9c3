"""HTTP. What a part of a reconciliation is sent and answered as."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from receiver.errors import BadRequest, Malformed
from receiver.http.api.schema import NextCursor
from receiver.ledger.money import Money
from receiver.ledger.reconciliation.rows import RefundRow, SettlementRow
from receiver.ledger.reconciliation.run import BATCH
from receiver.ledger.refund import AMAZON_REFUND_ID
from receiver.ledger.schema import Json
from receiver.outbox.events.mismatch_event import FindingJson

LATEST: Final = 253_402_300_799_999
"""ms: the end of the year 9999, the last time that can be formatted."""
MOST_PERIODS: Final = 1_000

Ms = Annotated[int, Meta(ge=0, le=LATEST)]
Text = Annotated[str, Meta(max_length=200)]
Line = Annotated[int, Meta(ge=0, le=10**12)]
Id = Annotated[str, Meta(pattern=f"^(?:{AMAZON_REFUND_ID.pattern})$")]


class AmountJson(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An amount, as a caller sends it."""

    amount: str
    currency_code: str


class RefundRowJson(
    msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True, tag="refunds", tag_field="report"
):
    """A row of refund data, as a caller sends it."""

    refund_id: Id
    state: Annotated[str, Meta(min_length=1, max_length=200)]
    reason_code: Text = ""
    amount: AmountJson | None = None
    created_at: Ms = 0
    updated_at: Ms = 0
    line: Line = 0


class SettlementRowJson(
    msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True, tag="settlements", tag_field="report"
):
    """A row of settlement data, as a caller sends it."""

    refund_id: Id
    amount: AmountJson
    settlement_id: Text = ""
    posted_at: Ms = 0
    line: Line = 0


class PeriodJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The time that a report covers."""

    report: Annotated[str, Meta(pattern="^(refunds|settlements)$")]
    start: Ms
    end: Ms


class BatchJson(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A part of a run, as a caller sends it."""

    account: str | None = None
    source: Text = ""
    seller_id: Text = ""
    rows: Annotated[list[RefundRowJson | SettlementRowJson], Meta(max_length=BATCH)] = []
    again: Annotated[list[Id], Meta(max_length=BATCH)] = []
    is_last: bool = False
    periods: Annotated[list[PeriodJson], Meta(max_length=MOST_PERIODS)] = []


class ComparedJson(Json, kw_only=True):
    """What differs in a part of a run."""

    account: str
    findings: Annotated[list[FindingJson], Meta(description="All that differs, known before or not.")]
    again: Annotated[
        list[str],
        Meta(description="Refunds that are settled for less than their amount so far: send them when all rows are."),
    ]


class FindingListJson(Json, kw_only=True):
    """Open findings, by account and kind, the oldest first."""

    findings: list[FindingJson]
    counts: Annotated[dict[str, int], Meta(description="How many are open, by kind, in all these accounts.")]
    next_cursor: NextCursor = None


def read_row(given: RefundRowJson | SettlementRowJson) -> RefundRow | SettlementRow:
    """A row that a caller sent. Raises `BadRequest` (`bad_reconciliation`)."""
    if isinstance(given, SettlementRowJson):
        return SettlementRow(
            refund_id=given.refund_id,
            amount=_money(given.amount),
            settlement_id=given.settlement_id,
            posted_at=given.posted_at,
            line=given.line,
        )
    return RefundRow(
        refund_id=given.refund_id,
        state=given.state,
        amount=_money(given.amount) if given.amount else None,
        created_at=given.created_at,
        updated_at=given.updated_at,
        reason_code=given.reason_code,
        line=given.line,
    )


def _money(given: AmountJson) -> Money:
    try:
        return Money.parse(given.amount, given.currency_code)
    except Malformed as error:
        raise BadRequest(error.detail, reason="bad_reconciliation") from None


def row_json(row: RefundRow | SettlementRow) -> dict[str, Any]:
    """A row in the form that the API reads."""
    fields = msgspec.to_builtins(row)
    if row.amount is not None:
        fields["amount"] = {"amount": row.amount.text, "currencyCode": row.amount.currency_code}
    return dict(fields)
