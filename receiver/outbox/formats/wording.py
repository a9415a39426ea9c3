"""Pure. The text of an event for people: which refund, how much, why, what to do, where to look.

All texts are printable and bounded (`ledger.schema.tidy`). They are not escaped: each format does that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from urllib.parse import quote

from receiver.ledger.dispute import Reminder, minute
from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import Money
from receiver.ledger.refund import Reason, Refund
from receiver.ledger.resolution import describe
from receiver.ledger.schema import DESCRIPTION_LIMIT, MAX_TEXT, known_time, tidy
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.events.advice import region_of
from receiver.outbox.events.balance_event import BalanceEvent, BalanceEventType, sums_text
from receiver.outbox.events.balance_event import advice_of as balance_advice
from receiver.outbox.events.dispute_event import DisputeEvent
from receiver.outbox.events.dispute_event import advice_of as dispute_advice
from receiver.outbox.events.event import Event
from receiver.outbox.events.mismatch_event import MismatchEvent
from receiver.outbox.events.operator_event import OperatorEvent
from receiver.outbox.subscribers.filters import OF_CASES
from receiver.outbox.subscribers.subscriber import Subscriber

WORDS = {
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


def title(events: Sequence[Event]) -> str:
    """`Refund declined: 14.00 USD`, `5 refunds declined`, `7 refund events: 5 declined, 2 stuck`."""
    if len(events) == 1:
        kind = events[0].type
        return f"{TITLES.get(kind, f'Refund {WORDS[kind]}')}: {amount(events[0].refund)}"
    kinds = Counter(event.type for event in events)
    if len(kinds) == 1:
        return f"{len(events)} refunds {WORDS[events[0].type]}"
    counts = ", ".join(f"{kinds[kind]} {word}" for kind, word in WORDS.items() if kinds[kind])
    return f"{len(events)} refund events: {counts}"


def amount(refund: Refund) -> str:
    """`14.00 USD`, or a text for an unknown amount."""
    return str(refund.amount) if refund.amount else "amount unknown"


def summary(event: Event) -> str:
    """What happened, in a sentence or two."""
    if event.type in OF_CASES and event.refund.resolution is not None:
        return describe(event.refund.resolution)
    return event.advice.summary if event.advice else WITHOUT_ADVICE.get(event.type, "Look at the refund.")


def actions(event: Event) -> list[str]:
    """The advised actions, the first choice first."""
    return [action.text for action in event.advice.actions] if event.advice else []


def sentence(event: Event) -> str:
    """One line for a message list or an incident: enough to decide whether it is urgent."""
    refund = event.refund
    reason = f" ({tidy(refund.reason_code)})" if tidy(refund.reason_code) else ""
    which = f"{title([event])}{reason}, refund {tidy(refund.refund_id)}, account {tidy(event.account)}"
    return f"{which}. {summary(event)}"


def details(event: Event) -> dict[str, str]:
    """The refund's known fields, by display name."""
    refund = event.refund
    known = {
        "Refund": tidy(refund.refund_id),
        "Amount": amount(refund),
        "Reason": tidy(refund.reason_code),
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
    return {name: text for name, text in known.items() if text}


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


def different_advice(events: Sequence[Event]) -> list[Event]:
    """The first event with each different advice, in the order of the events."""
    different = {summary(event): event for event in reversed(events) if event.advice}
    return list(reversed(different.values()))


def operator_texts(events: Sequence[OperatorEvent]) -> Counter[tuple[str, str]]:
    """How often each operator event is there: which subscriber and what it is about, and its text."""
    return Counter(
        (f"Subscriber {each.subscriber} of {each.account}: {each.type.value.removeprefix('receiver.')}", each.text)
        for each in events
    )


def links(event: Event, subscriber: Subscriber, *, many: bool = False) -> dict[str, str]:
    """Links: to the refund in this service (to the service, for several), if its address is known, and to Seller
    Central."""
    url, name = (subscriber.public_url, "This service") if many else (refund_url(event, subscriber), "Refund")
    return {
        **({name: url} if url else {}),
        "Seller Central": subscriber.seller_central or SELLER_CENTRAL[region_of(event.refund)],
    }


def balance_title(event: BalanceEvent) -> str:
    """`Negative balance suspected: 3 refunds declined, 42.00 USD`."""
    if event.type is BalanceEventType.RESOLVED:
        return "Negative balance: all declined refunds are dealt with"
    return f"Negative balance suspected: {len(event.refund_ids)} refunds declined, {sums_text(event)}"


def balance_sentence(event: BalanceEvent) -> str:
    """One line for a message list or an incident."""
    return f"{balance_title(event)}, account {tidy(event.account)}. {balance_advice(event).summary}"


def balance_details(event: BalanceEvent) -> dict[str, str]:
    """The event's known fields, by display name."""
    known = {
        "Refunds": ", ".join(map(tidy, event.refund_ids)),
        "Sum": sums_text(event),
        "Reason": Reason.AMAZON_REJECTED.value,
        "Account": tidy(event.account),
        "Since": format_rfc3339(event.since) if event.since else "",
    }
    return {name: text for name, text in known.items() if text}


def balance_links(event: BalanceEvent, subscriber: Subscriber) -> dict[str, str]:
    """Links: to the open declines in this service, if its address is known, and to Seller Central."""
    base, account = subscriber.public_url.rstrip("/"), quote(tidy(event.account), safe="")
    return {
        **({"Declined refunds": f"{base}/refunds?reason=AmazonRejected&account={account}"} if base else {}),
        "Seller Central": subscriber.seller_central or SELLER_CENTRAL[event.region or "na"],
    }


def dispute_title(events: Sequence[DisputeEvent]) -> str:
    """`Dispute to answer by 2025-10-20 08:53 UTC: 400.00 USD`, `3 disputes to answer`."""
    if len(events) > 1:
        return f"{len(events)} disputes to answer"
    (event,) = events
    last = " within a day," if event.reminder is Reminder.DAY_BEFORE else ""
    amount_ = str(event.dispute.amount) if event.dispute.amount else "amount unknown"
    return f"Dispute to answer{last} by {minute(event.dispute.deadline)}: {amount_}"


def dispute_sentence(event: DisputeEvent) -> str:
    """One line for a message list or an incident."""
    which = f"dispute {tidy(event.dispute.dispute_id)}, account {tidy(event.account)}"
    return f"{dispute_title([event])}, {which}. {dispute_advice(event).summary}"


def dispute_details(event: DisputeEvent) -> dict[str, str]:
    """The dispute's known fields, by display name."""
    dispute = event.dispute
    known = {
        "Dispute": tidy(dispute.dispute_id),
        "Amount": str(dispute.amount or ""),
        "Filed for": tidy(dispute.reason),
        "Answer by": minute(dispute.deadline),
        "Reason": tidy(dispute.reason_code),
        "Charge": tidy(dispute.charge_id),
        "Charge permission": tidy(dispute.charge_permission_id),
        "Account": tidy(event.account),
    }
    return {name: text for name, text in known.items() if text}


def dispute_links(event: DisputeEvent, subscriber: Subscriber) -> dict[str, str]:
    """Links: to the refunds of the charge in this service, if both are known, and to Seller Central."""
    charge_id, account = (quote(tidy(text), safe="") for text in (event.dispute.charge_id, event.account))
    base = subscriber.public_url.rstrip("/") if charge_id else ""
    amount_ = event.dispute.amount
    region = event.region or ("jp" if amount_ and amount_.currency_code == "JPY" else "na")
    return {
        **({"Refunds of the charge": f"{base}/refunds?charge={charge_id}&account={account}"} if base else {}),
        "Seller Central": subscriber.seller_central or SELLER_CENTRAL[region],
    }


def mismatch_title(events: Sequence[MismatchEvent]) -> str:
    """`Reconciliation: state differs`, `Reconciliation: 3 differences`."""
    if len(events) > 1:
        return f"Reconciliation: {len(events)} differences"
    return f"Reconciliation: {events[0].finding.kind.value.replace('_', ' ')}"


def mismatch_sentence(event: MismatchEvent) -> str:
    """One line for a message list or an incident."""
    finding = event.finding
    facts = f"here {tidy(finding.here) or 'unknown'}, in the report {tidy(finding.there) or 'missing'}"
    return f"{mismatch_title([event])}, refund {tidy(finding.refund_id)}, account {tidy(event.account)}: {facts}"


def mismatch_details(event: MismatchEvent) -> dict[str, str]:
    """The finding's known fields, by display name."""
    finding = event.finding
    line = f", line {finding.row.line}" if finding.row and finding.row.line else ""
    known = {
        "Refund": tidy(finding.refund_id),
        "Here": tidy(finding.here),
        "In the report": tidy(finding.there),
        "Amount": str(event.amount or ""),
        "Report": f"{tidy(finding.source)}{line}" if finding.source else "",
        "Account": tidy(event.account),
    }
    return {name: text for name, text in known.items() if text}


def mismatch_links(event: MismatchEvent, subscriber: Subscriber) -> dict[str, str]:
    """Links: to the findings in this service, if its address is known, and to Seller Central."""
    base, account = subscriber.public_url.rstrip("/"), quote(tidy(event.account), safe="")
    return {
        **({"Findings": f"{base}/findings?account={account}"} if base else {}),
        "Seller Central": subscriber.seller_central or SELLER_CENTRAL[event.region or "na"],
    }


def refund_url(event: Event, subscriber: Subscriber) -> str:
    """The refund's page in this service; empty if `public_url` is not set."""
    if not subscriber.public_url:
        return ""
    refund_id, account = (quote(tidy(text), safe="") for text in (event.refund.refund_id, event.account))
    return f"{subscriber.public_url.rstrip('/')}/refunds/{refund_id}?account={account}"


def _totals(refunds: Sequence[Refund]) -> list[str]:
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for refund in refunds:
        if refund.amount:
            totals[refund.amount.currency_code] += refund.amount.amount
    unknown = sum(not refund.amount for refund in refunds)
    amounts = [str(Money(total, currency)) for currency, total in totals.items()]
    return [*amounts, f"{unknown} of unknown amount"] if unknown else amounts
