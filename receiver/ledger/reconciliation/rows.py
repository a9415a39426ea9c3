"""Pure. What one row of a report says about a refund. Times are in ms; 0 if the report has none."""

from __future__ import annotations

import msgspec

from receiver.ledger.money import Money


class RefundRow(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="refunds", tag_field="report"
):
    """A refund in a report of refund data: one that was made or changed in the report's period."""

    refund_id: str
    state: str
    """One of `State` if Amazon's word is known, else Amazon's text."""
    amount: Money | None = None
    created_at: int = 0
    updated_at: int = 0
    reason_code: str = ""
    line: int = 0
    """Where it is in its file."""


class SettlementRow(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="settlements", tag_field="report"
):
    """A refund in a report of settlement data: the money was taken from the merchant's balance."""

    refund_id: str
    amount: Money
    """Without its sign."""
    is_credit: bool = False
    """Whether the amount in the report has no minus sign."""
    settlement_id: str = ""
    posted_at: int = 0
    line: int = 0


Row = RefundRow | SettlementRow


class Period(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The time that a report covers, both ends included."""

    report: str
    """`refunds` or `settlements`."""
    start: int
    end: int
