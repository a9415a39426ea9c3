"""Pure. A dispute event: the merchant has to answer a dispute until a deadline.

It is in the same stream as refund events, as flat texts. It does not concern a single refund, so only subscribers that
ask for its type by name get it; `*` means refund events only. The feed has it too.

| field | always | value |
|---|---|---|
| id | yes | `evt_` and 32 hex digits; the same for the same reminder, so drop ids that you have seen |
| type | yes | amazonpay.dispute.action_required |
| time | yes | when it was written, RFC 3339 with milliseconds |
| reminder | yes | `known`: the deadline became known; `day_before`: it is a day away, or less |
| disputeId, chargePermissionId, kind | yes | kind: `chargeback`, `A-to-z claim` or `dispute` |
| state | yes | ActionRequired |
| merchantResponseDeadline | yes | Amazon's, basic form `20251020T085320Z` |
| chargeId | no | without it, any charge of the charge permission may be the disputed one |
| amount, currencyCode | no | both or neither: `400.00`, `USD` |
| reasonCode | no | Amazon's reason for the state, such as MerchantResponseRequired |
| filingReason | no | why the buyer filed it, in Amazon's words |
| creationTimestamp, lastUpdatedTimestamp | no | Amazon's, basic form |
| firstToldAt | no | when Amazon signed the first notification of it, RFC 3339 with milliseconds |
| region | no | the account's: na, eu or jp |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from receiver.ledger.dispute import Dispute, DisputeJson, Reminder, dispute_json, minute
from receiver.ledger.money import Money
from receiver.ledger.schema import Account, amazon_time, extended, known_time, tidy
from receiver.ledger.timestamps import format_rfc3339, parse_time
from receiver.outbox.events.advice import DO_NOT_REFUND_IN_DISPUTE, Action, Advice, AdviceJson, advice_json
from receiver.outbox.events.envelope import (
    AnEvent,
    CloudEventJson,
    derived_id,
    enveloped,
    of_entry,
    region_in,
    to_entry,
)


class DisputeEventType(StrEnum):
    """The types of dispute events."""

    ACTION_REQUIRED = "amazonpay.dispute.action_required"
    """The merchant has to answer: at most two events for each deadline, see `Reminder`."""


class DisputeEvent(AnEvent, frozen=True, kw_only=True):
    """A reminder of a deadline, and the dispute as it was then."""

    type: DisputeEventType
    reminder: Reminder
    dispute: Dispute
    region: str = ""


ANSWER = Action(
    "answer_dispute",
    "Answer the dispute before the deadline, in Seller Central or with Amazon's Dispute API: contest it with evidence, "
    "or accept it.",
)


def dispute_event(account: str, dispute: Dispute, reminder: Reminder, at: int, region: str = "") -> DisputeEvent:
    """The event for a reminder; `at` is in ms. Its id comes from account, dispute, type, deadline and reminder."""
    type_ = DisputeEventType.ACTION_REQUIRED
    id_ = derived_id(account, dispute.dispute_id, type_.value, str(dispute.deadline), reminder.value)
    return DisputeEvent(id=id_, type=type_, account=account, at=at, reminder=reminder, dispute=dispute, region=region)


def advice_of(event: DisputeEvent) -> Advice:
    """What happened, and what to do. Source: `DisputeReasonCode` of Amazon's Java SDK."""
    dispute = event.dispute
    amount = f" of {dispute.amount}" if dispute.amount else ""
    reason = f" ({tidy(dispute.reason)})" if tidy(dispute.reason) else ""
    kind = f"{'an' if dispute.kind.startswith('A') else 'a'} {tidy(dispute.kind)}"
    return Advice(
        f"Amazon waits for your answer to {kind}{amount}{reason} until {minute(dispute.deadline)}. Without one, Amazon "
        "decides for the buyer.",
        (ANSWER, DO_NOT_REFUND_IN_DISPUTE),
    )


def dispute_fields(event: DisputeEvent) -> dict[str, str]:
    """The event as flat texts (see the table above)."""
    dispute = event.dispute
    fields = {
        "reminder": event.reminder.value,
        "disputeId": tidy(dispute.dispute_id),
        "chargePermissionId": tidy(dispute.charge_permission_id),
        "kind": tidy(dispute.kind),
        "state": tidy(dispute.state),
        "merchantResponseDeadline": amazon_time(dispute.deadline),
        "chargeId": tidy(dispute.charge_id),
        "amount": dispute.amount.text if dispute.amount else "",
        "currencyCode": dispute.amount.currency_code if dispute.amount else "",
        "reasonCode": tidy(dispute.reason_code),
        "filingReason": tidy(dispute.reason),
        "creationTimestamp": known_time(dispute.created_at) or "",
        "lastUpdatedTimestamp": known_time(dispute.updated_at) or "",
        "firstToldAt": format_rfc3339(dispute.first_told_at) if dispute.first_told_at else "",
        "region": event.region,
    }
    return to_entry(event, fields)


def read_dispute_event(account: str, fields: Mapping[str, str]) -> DisputeEvent:
    """The event of a stream entry made by `dispute_fields`. `Kind.read` turns its exceptions into `Malformed`."""
    return DisputeEvent(
        **of_entry(DisputeEventType, account, fields),
        reminder=Reminder(fields["reminder"]),
        dispute=_dispute(fields),
        region=region_in(fields),
    )


def _dispute(fields: Mapping[str, str]) -> Dispute:
    times = {name: parse_time(fields[name]) for name in fields if name.endswith("Timestamp")}
    return Dispute(
        dispute_id=fields["disputeId"],
        charge_permission_id=fields["chargePermissionId"],
        kind=fields["kind"],
        state=fields["state"],
        deadline=parse_time(fields["merchantResponseDeadline"]),
        charge_id=fields.get("chargeId", ""),
        amount=Money.parse(fields.get("amount"), fields.get("currencyCode")) if "amount" in fields else None,
        reason_code=fields.get("reasonCode", ""),
        reason=fields.get("filingReason", ""),
        created_at=times.get("creationTimestamp", 0),
        updated_at=times.get("lastUpdatedTimestamp", 0),
        first_told_at=parse_time(fields["firstToldAt"]) if "firstToldAt" in fields else 0,
    )


class DisputeToAnswerJson(DisputeJson, kw_only=True):
    """A dispute that has to be answered."""

    account: Account
    reminder: Annotated[
        str, msgspec.Meta(description="known, then day_before.", extra_json_schema={"enum": [*Reminder]})
    ]
    advice: AdviceJson


class DisputeEventJson(CloudEventJson, kw_only=True):
    """A dispute to answer until `data.merchantResponseDeadline`: CloudEvents 1.0 (JSON event format)."""

    TYPES: ClassVar = {
        DisputeEventType.ACTION_REQUIRED: "You have to answer a dispute; sent once the deadline is known, and again a "
        "day before it.",
    }
    subject: Annotated[str, msgspec.Meta(description="The dispute's id.")]
    data: DisputeToAnswerJson


def dispute_cloud_event(event: DisputeEvent) -> DisputeEventJson:
    """The event as CloudEvents 1.0."""
    advice = advice_json(advice_of(event))
    more = {"account": tidy(event.account), "reminder": event.reminder.value, "advice": advice}
    data = extended(DisputeToAnswerJson, dispute_json(event.dispute), **more)
    return enveloped(DisputeEventJson, event, event.dispute.dispute_id, data)
