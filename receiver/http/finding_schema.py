"""HTTP. The bodies of requests and answers of a reconciliation."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from receiver.errors import BadRequest, Malformed
from receiver.http.api.params import whole
from receiver.http.api.schema import NextCursor
from receiver.ledger.money import AMOUNT, CURRENCY, Money
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
Line = Annotated[int, Meta(ge=0, le=10**12, description="In the report.")]
Id = Annotated[str, Meta(pattern=whole(AMAZON_REFUND_ID), examples=["S01-5105180-3221187-R022311"])]


class AmountJson(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An amount, without its sign."""

    amount: Annotated[
        str, Meta(description="Decimal, greater than zero.", extra_json_schema={"pattern": whole(AMOUNT)})
    ]
    currency_code: Annotated[str, Meta(description="ISO 4217.", extra_json_schema={"pattern": whole(CURRENCY)})]


class RefundRowJson(
    msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True, tag="refunds", tag_field="report"
):
    """A row of refund data."""

    refund_id: Id
    state: Annotated[
        Text, Meta(min_length=1, description="RefundInitiated, Refunded, Declined, or another word of Amazon's.")
    ]
    reason_code: Annotated[Text, Meta(description="Amazon's reason code.")] = ""
    amount: AmountJson | None = None
    created_at: Annotated[Ms, Meta(description="When the refund was made, in ms.")] = 0
    updated_at: Annotated[Ms, Meta(description="When its state last changed, in ms.")] = 0
    line: Line = 0


class SettlementRowJson(
    msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True, tag="settlements", tag_field="report"
):
    """A row of settlement data."""

    refund_id: Id
    amount: AmountJson
    is_credit: Annotated[bool, Meta(description="The report has the amount without a minus sign.")] = False
    settlement_id: Annotated[Text, Meta(description="Amazon's id of the settlement.")] = ""
    posted_at: Annotated[Ms, Meta(description="When the settlement took the money, in ms.")] = 0
    line: Line = 0


class PeriodJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The time that a report covers, both ends included, in ms."""

    report: Annotated[str, Meta(pattern="^(refunds|settlements)$", description="The kind of report.")]
    start: Ms
    end: Ms


class BatchJson(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A part of a run over reports. The last one has `isLast` and the `periods`."""

    account: Annotated[str | None, Meta(description="Required if the token sees several.")] = None
    source: Annotated[Text, Meta(description="The report's name. It is shown with each difference.")] = ""
    seller_id: Annotated[
        Text, Meta(description="The merchant id in the report. If given, it must be the account's.")
    ] = ""
    rows: Annotated[list[RefundRowJson | SettlementRowJson], Meta(max_length=BATCH)] = []
    again: Annotated[
        list[Id],
        Meta(
            max_length=BATCH,
            description="The refunds that earlier answers had in `again`, once all rows have been sent.",
        ),
    ] = []
    is_last: Annotated[bool, Meta(description="All rows of all reports have been sent.")] = False
    periods: Annotated[
        list[PeriodJson],
        Meta(
            max_length=MOST_PERIODS,
            description="Only of reports that were read completely: refunds that are missing in them are then found.",
        ),
    ] = []


class ComparedJson(Json, kw_only=True):
    """The differences in a part of a run."""

    account: str
    findings: Annotated[list[FindingJson], Meta(description="All differences, known before or not.")]
    again: Annotated[
        list[str],
        Meta(description="Refunds that are settled for less than their amount so far: send them again after all rows."),
    ]


class FindingListJson(Json, kw_only=True):
    """Open findings, by account and kind, the oldest first."""

    findings: list[FindingJson]
    counts: Annotated[dict[str, int], Meta(description="How many are open, by kind, in all these accounts.")]
    next_cursor: NextCursor = None


def read_row(given: RefundRowJson | SettlementRowJson) -> RefundRow | SettlementRow:
    """A row that a caller sent. Raises `BadRequest` (`bad_reconciliation`)."""
    fields = {**msgspec.structs.asdict(given), "amount": _money(given.amount) if given.amount else None}
    return SettlementRow(**fields) if isinstance(given, SettlementRowJson) else RefundRow(**fields)


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
