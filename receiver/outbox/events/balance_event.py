"""Pure. A balance event: many refunds of an account are declined as AmazonRejected, so its balance may be negative; or
the last of them has been dealt with.

It is in the same stream as refund events, as flat texts. It does not concern a single refund. Subscribers with the
formats of Slack, Teams, PagerDuty and Alertmanager get it if they get declines. Webhooks and clients of the feed are
programs that expect refunds: they get it only if they ask for its type; `*` means refund events only.

| field | always | value |
|---|---|---|
| id | yes | `evt_` and 32 hex digits; the same for the same event, so drop ids that you have seen |
| type | yes | amazonpay.balance.suspected, amazonpay.balance.resolved |
| time | yes | when it was written, RFC 3339 with milliseconds |
| reasonCode | yes | AmazonRejected |
| suspectedEventId | yes | the id of the alarm: of this event, or of the one that is resolved |
| refundIds | no | of `suspected`: the declined refunds so far, separated by spaces |
| sums | no | their sum in each currency, separated by commas: `42.00 USD,10.00 EUR` |
| unknownAmounts | no | how many of them have an unknown amount |
| since | no | of `suspected`: when the first of them was recorded, RFC 3339 with milliseconds |
| region | no | the account's: na, eu or jp |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from receiver.ledger.money import Money
from receiver.ledger.money import sums as sums_of
from receiver.ledger.refund import REFUND_ID, Reason, Refund
from receiver.ledger.schema import Account, Json, MoneyJson, Rfc3339, money_json, tidy
from receiver.ledger.timestamps import format_rfc3339, parse_time
from receiver.outbox.events.advice import REPAY, Action, Advice, AdviceJson, advice_json
from receiver.outbox.events.envelope import (
    AnEvent,
    CloudEventJson,
    derived_id,
    enveloped,
    of_entry,
    region_in,
    to_entry,
)


class BalanceEventType(StrEnum):
    """The types of balance events."""

    SUSPECTED = "amazonpay.balance.suspected"
    """Three refunds were declined as AmazonRejected within an hour. Once for each wave (`ledger/declines/wave.py`)."""
    RESOLVED = "amazonpay.balance.resolved"
    """The last open case of the wave was closed."""


class BalanceEvent(AnEvent, frozen=True, kw_only=True):
    """A wave of declines with one cause."""

    type: BalanceEventType
    alarm: str
    """The id of the `suspected` event."""
    refund_ids: tuple[str, ...] = ()
    sums: tuple[Money, ...] = ()
    unknown_amounts: int = 0
    since: int = 0
    """ms."""
    region: str = ""


REISSUE = Action(
    "reissue_all",
    "Then reissue the refunds, all at once: receiver refund retry --reason AmazonRejected --since 3d",
)


def suspected(account: str, refunds: Sequence[Refund], since: int, at: int) -> BalanceEvent:
    """The alarm for these refunds; times are in ms. Its id comes from account, type and refunds."""
    names = tuple(sorted(refund.refund_id for refund in refunds))
    id_ = derived_id(account, BalanceEventType.SUSPECTED, *names)
    amounts = [refund.amount for refund in refunds]
    return BalanceEvent(
        id=id_,
        type=BalanceEventType.SUSPECTED,
        account=account,
        at=at,
        alarm=id_,
        refund_ids=names,
        sums=sums_of(amounts),
        unknown_amounts=amounts.count(None),
        since=since,
        region=refunds[0].region,
    )


def resolved(account: str, alarm: str, at: int, region: str = "") -> BalanceEvent:
    """The end of an alarm; `at` is in ms."""
    id_ = derived_id(account, BalanceEventType.RESOLVED, alarm)
    return BalanceEvent(id=id_, type=BalanceEventType.RESOLVED, account=account, at=at, alarm=alarm, region=region)


def advice_of(event: BalanceEvent) -> Advice:
    """What happened, and what to do."""
    if event.type is BalanceEventType.RESOLVED:
        return Advice("The refunds that Amazon rejected have all been dealt with: no case of them is open.", ())
    return Advice(
        f"Amazon rejected {len(event.refund_ids)} refunds within an hour ({sums_text(event)}). The likely cause is a "
        "negative balance of the merchant account: until it is repaid, Amazon declines further refunds too.",
        (REPAY, REISSUE),
    )


def sums_text(event: BalanceEvent) -> str:
    """`42.00 USD, 10.00 EUR, 1 of unknown amount`."""
    unknown = [f"{event.unknown_amounts} of unknown amount"] if event.unknown_amounts else []
    return ", ".join([*map(str, event.sums), *unknown])


def balance_fields(event: BalanceEvent) -> dict[str, str]:
    """The event as flat texts (see the table above)."""
    fields = {
        "reasonCode": Reason.AMAZON_REJECTED.value,
        "suspectedEventId": event.alarm,
        "refundIds": " ".join(event.refund_ids),
        "sums": ",".join(map(str, event.sums)),
        "unknownAmounts": str(event.unknown_amounts or ""),
        "since": format_rfc3339(event.since) if event.since else "",
        "region": event.region,
    }
    return to_entry(event, fields)


def read_balance_event(account: str, fields: Mapping[str, str]) -> BalanceEvent:
    """The event of a stream entry made by `balance_fields`. `Kind.read` turns its exceptions into `Malformed`."""
    names = tuple(fields.get("refundIds", "").split())
    if not all(REFUND_ID.fullmatch(name) for name in names):
        raise ValueError("refundIds")
    return BalanceEvent(
        **of_entry(BalanceEventType, account, fields),
        alarm=fields["suspectedEventId"],
        refund_ids=names,
        sums=tuple(Money.parse(*text.split(" ")) for text in filter(None, fields.get("sums", "").split(","))),
        unknown_amounts=int(fields.get("unknownAmounts", "0")),
        since=parse_time(fields["since"]) if "since" in fields else 0,
        region=region_in(fields),
    )


class BalanceJson(Json, kw_only=True):
    """Many declines with one likely cause: a negative balance."""

    account: Account
    reason_code: str
    suspected_event_id: Annotated[
        str,
        msgspec.Meta(description="The alarm: this event, or the one that is resolved."),
    ]
    count: Annotated[
        int | None, msgspec.Meta(description="How many refunds were declined so far; null if resolved.")
    ] = None
    sums: Annotated[list[MoneyJson], msgspec.Meta(description="Their sum in each currency.")]
    unknown_amounts: Annotated[int, msgspec.Meta(description="How many have an unknown amount.")] = 0
    refund_ids: list[str]
    since: Annotated[Rfc3339 | None, msgspec.Meta(description="When the first of them was recorded.")] = None
    advice: AdviceJson | None = None


class BalanceEventJson(CloudEventJson, kw_only=True):
    """A negative balance is suspected, or all declines of its wave were dealt with: CloudEvents 1.0 (JSON format)."""

    TYPES: ClassVar = {
        BalanceEventType.SUSPECTED: "Many refunds were declined as AmazonRejected within an hour: the balance of the "
        "merchant account may be negative.",
        BalanceEventType.RESOLVED: "All refunds declined for a suspected negative balance have been dealt with.",
    }
    subject: Annotated[str, msgspec.Meta(description="The account's name.")]
    data: BalanceJson


def balance_cloud_event(event: BalanceEvent) -> BalanceEventJson:
    """The event as CloudEvents 1.0."""
    data = BalanceJson(
        account=tidy(event.account),
        reason_code=Reason.AMAZON_REJECTED.value,
        suspected_event_id=tidy(event.alarm),
        count=len(event.refund_ids) or None,
        sums=[shown for money in event.sums if (shown := money_json(money))],
        unknown_amounts=event.unknown_amounts,
        refund_ids=[tidy(name) for name in event.refund_ids],
        since=format_rfc3339(event.since) if event.since else None,
        advice=advice_json(advice_of(event)) if event.type is BalanceEventType.SUSPECTED else None,
    )
    return enveloped(BalanceEventJson, event, event.account, data)
