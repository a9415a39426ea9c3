"""Pure. An event: one change of a refund, published once, with a deterministic id.

`to_fields` makes the entry in the stream `{account}:events`: flat texts, a public contract for every service that reads
the stream. A field without a value is omitted. Readers ignore unknown fields.

| field | always | value |
|---|---|---|
| id | yes | `evt_` and 32 hex digits; the same for the same change, so drop ids that you have seen |
| type | yes | amazonpay.refund.initiated, .refunded, .declined, .stuck, .conflict, .resolved, .reopened |
| time | yes | when the service learned of it, RFC 3339 with milliseconds |
| refundId | yes | Amazon's id of the refund |
| state | yes | RefundInitiated, Refunded, Declined, or another word of Amazon's |
| revision | yes | counts our writes to the refund from 1, a restore adds 1,000; an older event has a smaller one |
| source | yes | notification, poll, refresh, create |
| firstSeenAt, changedAt | yes | RFC 3339 with milliseconds |
| reasonCode, reasonDescription | no | why it was declined |
| chargeId | no | Amazon's id of the charge |
| amount, currencyCode | no | both or neither: `14.00`, `USD` |
| softDescriptor, releaseEnvironment, orderReference, refundType | no | texts |
| region | no | the account's: na, eu or jp |
| retryable | no | of a declined refund: `yes` or `no`, if the charge was read in time and there is no conflict |
| retryOf, retryRoot, retriedBy | no | the refund repeated, the first of its chain of retries, the repetition |
| retryRefused | no | Amazon's answer to the last attempt to repeat it, as JSON: number, ms, code, status, id, text |
| creationTimestamp, lastUpdatedTimestamp | no | Amazon's, basic form `20190714T155300Z` |
| issuedBy | no | the name of the token with which the refund was requested here |
| issuedByUser | no | the person who requested it with that token, if a signing-in proxy named one |
| conflict | no | `true` if Amazon has reported two different final states |
| backfill | no | `true` if Amazon settled the refund over 7 days before it was first seen here |
| wasStuck | no | `true` if `stuck` was published for the refund, by this event or before |
| resolution | no | `open` or `closed`: the case of a declined refund |
| resolutionAt, resolutionHow | no | since when, and how a closed one was closed |
| resolutionBy, resolutionUser, resolutionNote | no | the token and person that closed or reopened it, and why |
| resolutionRefundId | no | the refund with which the buyer was paid |
| finals | no | each final state seen, `State@ms`, separated by spaces |
| unreadFields | no | the fields that Amazon sent and that could not be read, separated by spaces |
| suspectedEventId | no | of a wave of declines: the id of its amazonpay.balance.suspected |
| traceparent | no | W3C Trace Context of the request that caused this event |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from receiver.errors import Malformed
from receiver.exchange import passed_on
from receiver.ledger.lifecycle import Change, EventType, PendingEvent
from receiver.ledger.money import Money
from receiver.ledger.order_reference import whole_reference
from receiver.ledger.refund import FIELD_NAMES, REFUND_ID, How, Refund, Resolution, RetryRefused, Source
from receiver.ledger.schema import DESCRIPTION_LIMIT, MAX_TEXT, known_time, tidy
from receiver.ledger.timestamps import format_rfc3339, parse_time
from receiver.outbox.events.advice import Advice, advice_of
from receiver.outbox.events.envelope import EVENT_ID, AnEvent, derived_id, region_in, to_entry

SAME = 512
"""Events cached in parsed and in rendered form: all subscribers get the same ones at about the same time."""
REPEATABLE = frozenset({EventType.CONFLICT, EventType.RESOLVED, EventType.REOPENED})
"""Types that can happen several times for one refund."""
COUNT = re.compile(r"[0-9]{1,15}")
FINALS = re.compile(r"(?:[A-Za-z]{1,32}@-?[0-9]{1,15})(?: [A-Za-z]{1,32}@-?[0-9]{1,15}){0,31}")
STATE = re.compile(r".{1,256}", re.DOTALL)
TIMES = range(-62_135_596_800_000, 253_402_300_800_000)
"""The years 1 to 9999 in ms: the range of RFC 3339."""


class Event(AnEvent, frozen=True, kw_only=True):
    """A change of a refund, and the refund as it was then. `at`: when the service learned of it, ms."""

    type: EventType
    refund: Refund
    advice: Advice | None = None
    traceparent: str = ""
    """The traceparent of the request that caused this; empty for none."""
    alarm: str = ""
    """The id of the event `amazonpay.balance.suspected` of its wave of declines; empty for none."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The result of recording an observation, and the events written with it."""

    change: Change
    events: tuple[Event, ...] = ()


def event_id(account: str, refund_id: str, event_type: EventType, state: str = "", updated_at: int = 0) -> str:
    """`evt_` and 32 hex digits of the SHA-256 over account, refund and type, one a line.

    For the types in `REPEATABLE`, `state` and `updated_at` (ms) follow; every other type ignores them. The revision
    is left out: it restarts in an emptied store, and subscribers would drop a decline as a duplicate.
    """
    parts = [account, refund_id, event_type.value]
    if event_type in REPEATABLE:
        parts += [state, str(updated_at)]
    return derived_id(*parts)


def event_of(pending: PendingEvent, refund: Refund, at: int, traceparent: str = "", alarm: str = "") -> Event:
    """The full form of a pending event; `at` is in ms. Only STUCK is kept of `emitted`."""
    stuck = (EventType.STUCK.value,) if EventType.STUCK in refund.emitted else ()
    shown = msgspec.structs.replace(refund, emitted=stuck, charge_read=False)
    return Event(
        id=event_id(refund.account, refund.refund_id, pending.type, pending.state, pending.updated_at),
        type=pending.type,
        account=refund.account,
        at=at,
        refund=shown,
        advice=advice_of(shown, pending.type),
        traceparent=traceparent,
        alarm=alarm,
    )


def to_fields(event: Event) -> dict[str, str]:
    """The event as flat texts (see the table above). Advice is omitted: type, reason and finals determine it."""
    refund = event.refund
    fields = {
        "refundId": refund.refund_id,
        "state": tidy(refund.state),
        "reasonCode": tidy(refund.reason_code),
        "reasonDescription": tidy(refund.reason_description, DESCRIPTION_LIMIT),
        "lastUpdatedTimestamp": known_time(refund.updated_at) or "",
        "chargeId": tidy(refund.charge_id),
        "amount": refund.amount.text if refund.amount else "",
        "currencyCode": refund.amount.currency_code if refund.amount else "",
        "softDescriptor": tidy(refund.soft_descriptor),
        "creationTimestamp": known_time(refund.created_at) or "",
        "releaseEnvironment": tidy(refund.environment),
        "orderReference": whole_reference(refund.order_reference) or "",
        "refundType": tidy(refund.refund_type),
        "region": refund.region,
        "retryable": "" if refund.conflict else refund.retryable,
        "retryOf": refund.retry_of,
        "retryRoot": refund.retry_root,
        "retriedBy": refund.retried_by,
        "retryRefused": msgspec.json.encode(refund.retry_refused).decode() if refund.retry_refused else "",
        "issuedBy": refund.issued_by,
        "issuedByUser": refund.issued_by_user,
        **_resolution_fields(refund.resolution),
        "conflict": "true" if refund.conflict else "",
        "backfill": "true" if refund.backfill else "",
        "wasStuck": "true" if EventType.STUCK in refund.emitted else "",
        "finals": " ".join(refund.finals),
        "unreadFields": " ".join(refund.unread),
        "revision": str(refund.revision),
        "source": refund.source.value,
        "firstSeenAt": format_rfc3339(refund.first_seen_at),
        "changedAt": format_rfc3339(refund.changed_at),
        "traceparent": event.traceparent,
        "suspectedEventId": event.alarm,
    }
    return to_entry(event, fields)


def from_fields(account: str, fields: Mapping[str, str]) -> Event:
    """The event of a stream entry made by `to_fields`. Raises `Malformed` (`bad_event`) only."""
    return _from_items(account, tuple(fields.items()))


@lru_cache(SAME)
def _from_items(account: str, items: tuple[tuple[str, str], ...]) -> Event:
    fields = dict(items)
    try:
        event_type = EventType(fields.get("type", ""))
        refund = _refund(account, fields)
        at = parse_time(fields.get("time"))
    except (Malformed, ValueError) as error:
        raise Malformed("The entry in the stream of events cannot be read.", reason="bad_event") from error
    return Event(
        id=_matched(EVENT_ID, fields, "id"),
        type=event_type,
        account=account,
        at=at,
        refund=refund,
        advice=advice_of(refund, event_type),
        traceparent=passed_on(fields.get("traceparent", "")),
        alarm=alarm if EVENT_ID.fullmatch(alarm := fields.get("suspectedEventId", "")) else "",
    )


def _refund(account: str, fields: Mapping[str, str]) -> Refund:
    return Refund(
        account=account,
        refund_id=_matched(REFUND_ID, fields, "refundId"),
        state=_matched(STATE, fields, "state"),
        revision=int(_matched(COUNT, fields, "revision")),
        updated_at=parse_time(fields["lastUpdatedTimestamp"]) if "lastUpdatedTimestamp" in fields else 0,
        first_seen_at=parse_time(fields.get("firstSeenAt")),
        changed_at=parse_time(fields.get("changedAt")),
        source=Source(fields.get("source", "")),
        charge_id=fields.get("chargeId", ""),
        amount=_money(fields),
        reason_code=fields.get("reasonCode", ""),
        reason_description=fields.get("reasonDescription", ""),
        soft_descriptor=fields.get("softDescriptor", ""),
        created_at=parse_time(fields["creationTimestamp"]) if "creationTimestamp" in fields else 0,
        environment=fields.get("releaseEnvironment", ""),
        order_reference=fields.get("orderReference", ""),
        refund_type=fields.get("refundType", ""),
        region=region_in(fields),
        retryable=fields.get("retryable", ""),
        retry_of=fields.get("retryOf", ""),
        retry_root=fields.get("retryRoot", ""),
        retried_by=fields.get("retriedBy", ""),
        retry_refused=_refused(fields.get("retryRefused", "")),
        issued_by=fields.get("issuedBy", ""),
        issued_by_user=fields.get("issuedByUser", ""),
        resolution=_resolution(fields),
        conflict=fields.get("conflict") == "true",
        backfill=fields.get("backfill") == "true",
        emitted=(EventType.STUCK.value,) if fields.get("wasStuck") == "true" else (),
        finals=_finals(fields),
        unread=tuple(name for name in fields.get("unreadFields", "").split(" ") if name in FIELD_NAMES),
    )


def _resolution_fields(case: Resolution | None) -> dict[str, str]:
    if case is None:
        return {}
    return {
        "resolution": "open" if case.is_open else "closed",
        "resolutionAt": format_rfc3339(case.at),
        "resolutionHow": case.how or "",
        "resolutionBy": tidy(case.by),
        "resolutionUser": tidy(case.user),
        "resolutionNote": tidy(case.note, MAX_TEXT),
        "resolutionRefundId": tidy(case.refund_id),
    }


def _resolution(fields: Mapping[str, str]) -> Resolution | None:
    if "resolution" not in fields:
        return None
    how = fields.get("resolutionHow", "")
    return Resolution(
        at=parse_time(fields.get("resolutionAt")),
        how=How(how) if how else None,
        by=fields.get("resolutionBy", ""),
        user=fields.get("resolutionUser", ""),
        note=fields.get("resolutionNote", ""),
        refund_id=fields.get("resolutionRefundId", ""),
    )


def _refused(text: str) -> RetryRefused | None:
    try:
        return msgspec.json.decode(text, type=RetryRefused) if text else None
    except msgspec.MsgspecError as error:
        raise Malformed("The field retryRefused of an event is garbled.", reason="bad_event") from error


def _money(fields: Mapping[str, str]) -> Money | None:
    if "amount" not in fields and "currencyCode" not in fields:
        return None
    return Money.parse(fields.get("amount"), fields.get("currencyCode"))


def _finals(fields: Mapping[str, str]) -> tuple[str, ...]:
    finals = tuple(_matched(FINALS, fields, "finals").split(" ")) if "finals" in fields else ()
    if any(int(final.rpartition("@")[2]) not in TIMES for final in finals):
        raise Malformed("The time of a final state is invalid.", reason="bad_event")
    return finals


def _matched(pattern: re.Pattern[str], fields: Mapping[str, str], name: str) -> str:
    value = fields.get(name, "")
    if not pattern.fullmatch(value):
        raise Malformed(f"The field {name} of an event is missing or malformed.", reason="bad_event")
    return value
