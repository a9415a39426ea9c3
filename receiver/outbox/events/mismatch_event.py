"""Pure. A mismatch event: a report of Amazon's contradicts what is known here about a refund.

It is in the same stream as refund events, as flat texts. It is not a change of a refund, so only subscribers that ask
for its type by name get it; `*` does not include it. The feed has it too.

| field | always | value |
|---|---|---|
| id | yes | `evt_` and 32 hex digits; the same for the same finding, so drop ids that you have seen |
| type | yes | amazonpay.refund.mismatch |
| time | yes | when it was found, RFC 3339 with milliseconds |
| finding | yes | unknown_here, state_differs, amount_differs, settled_but_declined, not_settled or not_in_report |
| refundId | yes | Amazon's id of the refund |
| here | no | what is known here: `Declined`, `14.00 USD`; none if the refund is not known |
| there | no | what the report has; none if it has nothing |
| report, line | no | the report's name and the line in it |
| amount, currencyCode | no | both or neither: the refund's amount, `14.00`, `USD` |
| backfill | no | `true` if an unknown refund is over 7 days old |
| region | no | the account's: na, eu or jp |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import msgspec

from receiver.ledger.age import BACKFILL_AFTER
from receiver.ledger.money import Money
from receiver.ledger.reconciliation.finding import Finding, FindingKind
from receiver.ledger.reconciliation.rows import RefundRow, SettlementRow
from receiver.ledger.schema import Account, Json, MoneyJson, Rfc3339, money_json, tidy
from receiver.ledger.timestamps import format_rfc3339, parse_time
from receiver.outbox.events.advice import Action, Advice, AdviceJson, advice_json
from receiver.outbox.events.envelope import (
    AnEvent,
    CloudEventJson,
    derived_id,
    enveloped,
    of_entry,
    region_in,
    to_entry,
)


class MismatchEventType(StrEnum):
    """The types of mismatch events."""

    MISMATCH = "amazonpay.refund.mismatch"
    """A difference between a report and what is known here: once for each finding."""


class MismatchEvent(AnEvent, frozen=True, kw_only=True):
    """A finding, when it was first found."""

    type: MismatchEventType
    finding: Finding
    amount: Money | None = None
    """The refund's amount, if it is known."""
    backfill: bool = False
    """The finding is that a refund is unknown, and it is over 7 days old: page no one for it."""
    region: str = ""


REFRESH = Action(
    "refresh_refund",
    "Ask Amazon about the refund again (POST /v1/refunds/{refundId}/refresh, or `receiver refund refresh`): Get Refund "
    "decides.",
)
CHECK_ISSUER = Action(
    "check_issuer",
    "If you don't know who made the refund, look it up in Seller Central: it was made there, or by another program.",
)
CHECK_NOTIFICATIONS = Action(
    "check_notifications",
    "Check that Seller Central sends notifications to this service: `receiver doctor`.",
)
CHECK_SETTLEMENT = Action(
    "check_settlement",
    "Look for the refund in the settlement reports in Seller Central, and ask Amazon Pay's merchant support.",
)
DO_NOT_REISSUE = Action(
    "do_not_refund_again",
    "Do not refund the buyer again before Amazon has explained it: the money may have been returned.",
)
CHECK_REPORT = Action(
    "check_report",
    "Check that the report is complete, and of this account: a filter or a shorter period leaves refunds out.",
)
CHECK_BOOKS = Action("check_books", "Correct the amount in your books; Get Refund and the settlement decide.")

SUMMARIES: Mapping[FindingKind, tuple[str, tuple[Action, ...]]] = MappingProxyType(
    {
        FindingKind.UNKNOWN_HERE: (
            "Amazon's report has a refund that was not known here: its notification was lost, or it is older than this "
            "installation. The service looks it up now.",
            (CHECK_ISSUER, CHECK_NOTIFICATIONS),
        ),
        FindingKind.STATE_DIFFERS: (
            "Amazon's report has another state of the refund than the one known here. The service asks Amazon again.",
            (REFRESH, CHECK_NOTIFICATIONS),
        ),
        FindingKind.AMOUNT_DIFFERS: (
            "Amazon's report has another amount of the refund than the one known here.",
            (REFRESH, CHECK_BOOKS),
        ),
        FindingKind.SETTLED_BUT_DECLINED: (
            "Amazon took the money for a refund that is Declined here. The service asks Amazon again.",
            (DO_NOT_REISSUE, REFRESH, CHECK_SETTLEMENT),
        ),
        FindingKind.NOT_SETTLED: (
            "The refund is Refunded, but it is in none of the settlements in which it should be.",
            (REFRESH, CHECK_SETTLEMENT),
        ),
        FindingKind.NOT_IN_REPORT: (
            "The refund is known here, but Amazon's report of refunds of that time does not have it.",
            (CHECK_REPORT, REFRESH),
        ),
    }
)
"""What each kind means, and what to do about it."""


def mismatch_event(
    account: str,
    finding: Finding,
    at: int,
    *,
    before: Finding | None = None,
    amount: Money | None = None,
    region: str = "",
) -> MismatchEvent:
    """The event for a new finding; `at` is in ms. Its id comes from account, type and the finding's content.

    `before` is the previous finding. It can be the same one if that was closed meanwhile; the event then gets a new id.
    """
    row = finding.row
    told = row.posted_at if isinstance(row, SettlementRow) else row.updated_at or row.created_at if row else 0
    is_old = finding.kind is FindingKind.UNKNOWN_HERE and 0 < told < at - BACKFILL_AFTER
    type_ = MismatchEventType.MISMATCH
    return MismatchEvent(
        id=derived_id(account, type_.value, finding.digest, *([str(before.since)] if before else [])),
        type=type_,
        account=account,
        at=at,
        finding=finding,
        amount=amount or (row.amount if row else None),
        backfill=is_old,
        region=region,
    )


def advice_of(kind: FindingKind) -> Advice:
    """What a finding means, and what to do."""
    return Advice(*SUMMARIES[kind])


def mismatch_fields(event: MismatchEvent) -> dict[str, str]:
    """The event as flat texts (see the table above)."""
    finding = event.finding
    fields = {
        "finding": finding.kind.value,
        "refundId": tidy(finding.refund_id),
        "here": tidy(finding.here),
        "there": tidy(finding.there),
        "report": tidy(finding.source),
        "line": str(finding.row.line) if finding.row and finding.row.line else "",
        "amount": event.amount.text if event.amount else "",
        "currencyCode": event.amount.currency_code if event.amount else "",
        "backfill": "true" if event.backfill else "",
        "region": event.region,
    }
    return to_entry(event, fields)


def read_mismatch_event(account: str, fields: Mapping[str, str]) -> MismatchEvent:
    """The event of a stream entry made by `mismatch_fields`. `Kind.read` turns its exceptions into `Malformed`."""
    refund_id, line = fields["refundId"], int(fields.get("line", "0"))
    at = parse_time(fields["time"])
    finding = Finding(
        kind=FindingKind(fields["finding"]),
        refund_id=refund_id,
        here=fields.get("here", ""),
        there=fields.get("there", ""),
        since=at,
        source=fields.get("report", ""),
        row=RefundRow(refund_id=refund_id, state="", line=line) if line else None,
    )
    return MismatchEvent(
        **of_entry(MismatchEventType, account, fields),
        finding=finding,
        amount=Money.parse(fields.get("amount"), fields.get("currencyCode")) if "amount" in fields else None,
        backfill=fields.get("backfill") == "true",
        region=region_in(fields),
    )


class FindingJson(Json, kw_only=True):
    """A difference between Amazon's reports and what is known here."""

    account: Account
    finding: Annotated[
        str,
        msgspec.Meta(description="What differs; there may be new words.", extra_json_schema={"enum": [*FindingKind]}),
    ]
    refund_id: str
    here: Annotated[str | None, msgspec.Meta(description="What is known here; null if the refund is not known.")]
    there: Annotated[str | None, msgspec.Meta(description="What the report has; null if it has nothing.")]
    report: Annotated[str | None, msgspec.Meta(description="The report's name, if a row of it differs.")]
    line: Annotated[int | None, msgspec.Meta(description="The line in the report.")]
    advice: AdviceJson | None
    since: Annotated[Rfc3339 | None, msgspec.Meta(description="When it was found.")] = None


class MismatchJson(FindingJson, kw_only=True):
    """A finding, as it is pushed."""

    amount: Annotated[MoneyJson | None, msgspec.Meta(description="The refund's amount, if it is known.")]
    backfill: Annotated[
        bool, msgspec.Meta(description="The refund was not known here and is over 7 days old: page no one for it.")
    ]


class MismatchEventJson(CloudEventJson, kw_only=True):
    """A difference between a report and what is known here: CloudEvents 1.0 (JSON event format)."""

    TYPES: ClassVar = {
        MismatchEventType.MISMATCH: "Amazon's report says something else about a refund than what is known here; sent "
        "once for each finding.",
    }
    subject: Annotated[str, msgspec.Meta(description="The refund's id.")]
    data: MismatchJson
    backfill: Literal[True] | msgspec.UnsetType = msgspec.UNSET


def finding_json(account: str, finding: Finding) -> FindingJson:
    """A finding as the API gives it."""
    return FindingJson(
        account=tidy(account),
        finding=finding.kind.value,
        refund_id=tidy(finding.refund_id),
        here=tidy(finding.here) or None,
        there=tidy(finding.there) or None,
        report=tidy(finding.source) or None,
        line=(finding.row.line if finding.row else 0) or None,
        advice=advice_json(advice_of(finding.kind)),
        since=format_rfc3339(finding.since) if finding.since else None,
    )


def mismatch_cloud_event(event: MismatchEvent) -> MismatchEventJson:
    """The event as CloudEvents 1.0."""
    data = MismatchJson(
        **msgspec.structs.asdict(finding_json(event.account, event.finding)),
        amount=money_json(event.amount),
        backfill=event.backfill,
    )
    more = True if event.backfill else msgspec.UNSET
    return enveloped(MismatchEventJson, event, event.finding.refund_id, data, backfill=more)
