"""Pure. The text of an event for people: which refund, how much, why, what to do, where to look.

All texts are printable and bounded (`ledger.schema.tidy`). They are not escaped: each format does that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from receiver.ledger.dispute import Reminder, minute
from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import Money
from receiver.ledger.refund import Reason, Refund
from receiver.ledger.resolution import describe
from receiver.ledger.schema import DESCRIPTION_LIMIT, MAX_TEXT, known_time, tidy
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.events.advice import Action, region_of
from receiver.outbox.events.balance_event import BalanceEvent, BalanceEventType, sums_text
from receiver.outbox.events.balance_event import advice_of as balance_advice
from receiver.outbox.events.dispute_event import DisputeEvent
from receiver.outbox.events.dispute_event import advice_of as dispute_advice
from receiver.outbox.events.envelope import AnEvent, filled
from receiver.outbox.events.event import Event
from receiver.outbox.events.mismatch_event import MismatchEvent
from receiver.outbox.events.mismatch_event import advice_of as mismatch_advice
from receiver.outbox.events.operator_event import OperatorEvent
from receiver.outbox.subscribers.filters import OF_CASES
from receiver.outbox.subscribers.subscriber import Subscriber

WORDS: Mapping[StrEnum, str] = {
    EventType.INITIATED: "initiated",
    EventType.REFUNDED: "completed",
    EventType.DECLINED: "declined",
    EventType.STUCK: "stuck",
    EventType.CONFLICT: "in conflict",
    EventType.RESOLVED: "resolved",
    EventType.REOPENED: "reopened",
    EventType.TEST: "tested",
}
"""`5 refunds declined`."""
TITLES = {
    EventType.CONFLICT: "Conflicting states",
    EventType.RESOLVED: "Declined refund resolved",
    EventType.REOPENED: "Declined refund reopened",
    EventType.TEST: "Test alert",
}
"""Titles of single events. Other titles are made from `WORDS`: `Refund declined`."""
WITHOUT_ADVICE = {
    EventType.INITIATED: "Amazon has accepted this refund, and has not decided yet.",
    EventType.REFUNDED: "Amazon has processed this refund. It can take up to 9 working days to reach the buyer.",
    EventType.TEST: "This is a test: nothing has happened to any refund.",
}
SELLER_CENTRAL = {
    "na": "https://sellercentral.amazon.com",
    "eu": "https://sellercentral-europe.amazon.com",
    "jp": "https://sellercentral.amazon.co.jp",
}
"""Region → address. `seller_central` of a subscriber or of the settings takes precedence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """One event in words."""

    title: str
    sentence: str
    """One line for a message list or an incident: enough to decide whether it is urgent."""
    summary: str
    """What happened, in a sentence or two."""
    actions: tuple[Action, ...]
    """The advised actions, the first choice first."""
    details: dict[str, str]
    """What is known, by display name."""
    links: dict[str, str]
    """To its page in this service, if the address is known, and to Seller Central."""


def worded(event: AnEvent, subscriber: Subscriber) -> Wording:
    """The event in words. Operator events have their own: `operator_texts`."""
    return WORDED[type(event)](event, subscriber)


def heading(events: Sequence[AnEvent]) -> str:
    """The title of several: `5 refunds declined`, `7 refund events: 5 declined, 2 stuck`, `3 disputes to answer`."""
    if isinstance(events[0], DisputeEvent):
        return f"{len(events)} disputes to answer"
    if isinstance(events[0], MismatchEvent):
        return f"Reconciliation: {len(events)} differences"
    kinds = Counter(event.type for event in events)
    if len(kinds) == 1:
        return f"{len(events)} refunds {WORDS[events[0].type]}"
    counts = ", ".join(f"{kinds[kind]} {word}" for kind, word in WORDS.items() if kinds[kind])
    return f"{len(events)} refund events: {counts}"


def amount(known: Money | None) -> str:
    """`14.00 USD`, or a text for an unknown amount."""
    return str(known) if known else "amount unknown"


def sums(events: Sequence[Event]) -> list[str]:
    """Lines such as `3 declined (AmazonRejected): 42.00 USD, 10.00 EUR`, one for each type and reason, the most
    frequent first."""
    found: dict[tuple[EventType, str], list[Refund]] = defaultdict(list)
    for event in events:
        found[event.type, tidy(event.refund.reason_code)].append(event.refund)
    return [
        f"{len(refunds)} {WORDS[kind]}{f' ({reason})' if reason else ''}: {', '.join(_totals(refunds))}"
        for (kind, reason), refunds in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def different_advice(events: Sequence[Event], subscriber: Subscriber) -> list[Wording]:
    """The first event with each different advice, in the order of the events."""
    advised = [worded(event, subscriber) for event in reversed(events) if event.advice]
    return list(reversed({each.summary: each for each in advised}.values()))


def operator_texts(events: Sequence[OperatorEvent]) -> Counter[tuple[str, str]]:
    """How often each operator event is there: which subscriber and what it is about, and its text."""
    return Counter(
        (f"Subscriber {each.subscriber} of {each.account}: {each.type.value.removeprefix('receiver.')}", each.text)
        for each in events
    )


def links_of_many(events: Sequence[Event], subscriber: Subscriber) -> dict[str, str]:
    """The links of a message about several refunds: to this service and to Seller Central."""
    service = {"This service": subscriber.public_url} if subscriber.public_url else {}
    return {**service, **_links(events[0], subscriber, region_of(events[0].refund))}


def _refund(event: Event, subscriber: Subscriber) -> Wording:
    """`Refund declined: 14.00 USD`."""
    refund = event.refund
    refund_id, reason = tidy(refund.refund_id), tidy(refund.reason_code)
    title = f"{TITLES.get(event.type, f'Refund {WORDS[event.type]}')}: {amount(refund.amount)}"
    summary = event.advice.summary if event.advice else WITHOUT_ADVICE.get(event.type, "Look at the refund.")
    if event.type in OF_CASES and refund.resolution is not None:
        summary = describe(refund.resolution)
    details = {
        "Refund": refund_id,
        "Amount": amount(refund.amount),
        "Reason": reason,
        "Amazon says": tidy(refund.reason_description, DESCRIPTION_LIMIT),
        "Order": tidy(refund.order_reference),
        "Charge": tidy(refund.charge_id),
        "Account": tidy(event.account),
        "Could not be read": ", ".join(refund.unread),
        "Environment": tidy(refund.environment),
        "Retry of": tidy(refund.retry_of),
        "Note": tidy(refund.resolution.note, MAX_TEXT) if refund.resolution else "",
        "Changed": known_time(refund.updated_at) or "",
    }
    because = f" ({reason})" if reason else ""
    return Wording(
        title=title,
        sentence=f"{title}{because}, refund {refund_id}, account {tidy(event.account)}. {summary}",
        summary=summary,
        actions=event.advice.actions if event.advice else (),
        details=filled(details),
        links=_links(event, subscriber, region_of(refund), "Refund", f"refunds/{quote(refund_id, safe='')}?"),
    )


def _balance(event: BalanceEvent, subscriber: Subscriber) -> Wording:
    """`Negative balance suspected: 3 refunds declined, 42.00 USD`."""
    advice = balance_advice(event)
    title = f"Negative balance suspected: {len(event.refund_ids)} refunds declined, {sums_text(event)}"
    if event.type is BalanceEventType.RESOLVED:
        title = "Negative balance: all declined refunds are dealt with"
    details = {
        "Refunds": ", ".join(map(tidy, event.refund_ids)),
        "Sum": sums_text(event),
        "Reason": Reason.AMAZON_REJECTED.value,
        "Account": tidy(event.account),
        "Since": format_rfc3339(event.since) if event.since else "",
    }
    return Wording(
        title=title,
        sentence=f"{title}, account {tidy(event.account)}. {advice.summary}",
        summary=advice.summary,
        actions=advice.actions,
        details=filled(details),
        links=_links(event, subscriber, event.region or "na", "Declined refunds", "refunds?reason=AmazonRejected&"),
    )


def _dispute(event: DisputeEvent, subscriber: Subscriber) -> Wording:
    """`Dispute to answer by 2025-10-20 08:53 UTC: 400.00 USD`."""
    dispute, advice = event.dispute, dispute_advice(event)
    last = " within a day," if event.reminder is Reminder.DAY_BEFORE else ""
    title = f"Dispute to answer{last} by {minute(dispute.deadline)}: {amount(dispute.amount)}"
    details = {
        "Dispute": tidy(dispute.dispute_id),
        "Amount": str(dispute.amount or ""),
        "Filed for": tidy(dispute.reason),
        "Answer by": minute(dispute.deadline),
        "Reason": tidy(dispute.reason_code),
        "Charge": tidy(dispute.charge_id),
        "Charge permission": tidy(dispute.charge_permission_id),
        "Account": tidy(event.account),
    }
    region = event.region or ("jp" if dispute.amount and dispute.amount.currency_code == "JPY" else "na")
    charge_id = quote(tidy(dispute.charge_id), safe="")
    path = f"refunds?charge={charge_id}&" if charge_id else ""
    return Wording(
        title=title,
        sentence=f"{title}, dispute {tidy(dispute.dispute_id)}, account {tidy(event.account)}. {advice.summary}",
        summary=advice.summary,
        actions=advice.actions,
        details=filled(details),
        links=_links(event, subscriber, region, "Refunds of the charge", path),
    )


def _mismatch(event: MismatchEvent, subscriber: Subscriber) -> Wording:
    """`Reconciliation: state differs`."""
    finding, advice = event.finding, mismatch_advice(event.finding.kind)
    refund_id, here, there = tidy(finding.refund_id), tidy(finding.here), tidy(finding.there)
    title = f"Reconciliation: {finding.kind.value.replace('_', ' ')}"
    facts = f"here {here or 'unknown'}, in the report {there or 'missing'}"
    line = f", line {finding.row.line}" if finding.row and finding.row.line else ""
    details = {
        "Refund": refund_id,
        "Here": here,
        "In the report": there,
        "Amount": str(event.amount or ""),
        "Report": f"{tidy(finding.source)}{line}" if finding.source else "",
        "Account": tidy(event.account),
    }
    return Wording(
        title=title,
        sentence=f"{title}, refund {refund_id}, account {tidy(event.account)}: {facts}",
        summary=advice.summary,
        actions=advice.actions,
        details=filled(details),
        links=_links(event, subscriber, event.region or "na", "Findings", "findings?"),
    )


WORDED: Mapping[type[AnEvent], Callable[[Any, Subscriber], Wording]] = {
    Event: _refund,
    BalanceEvent: _balance,
    DisputeEvent: _dispute,
    MismatchEvent: _mismatch,
}


def _links(event: AnEvent, subscriber: Subscriber, region: str, page: str = "", path: str = "") -> dict[str, str]:
    """`path`: of the page in this service, with the beginning of its query; empty for none."""
    base, account = subscriber.public_url.rstrip("/"), quote(tidy(event.account), safe="")
    return {
        **({page: f"{base}/{path}account={account}"} if base and path else {}),
        "Seller Central": subscriber.seller_central or SELLER_CENTRAL[region],
    }


def _totals(refunds: Sequence[Refund]) -> list[str]:
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for refund in refunds:
        if refund.amount:
            totals[refund.amount.currency_code] += refund.amount.amount
    unknown = sum(not refund.amount for refund in refunds)
    amounts = [str(Money(total, currency)) for currency, total in totals.items()]
    return [*amounts, f"{unknown} of unknown amount"] if unknown else amounts
