"""Command. How `receiver subscriber` shows a subscriber."""

from __future__ import annotations

from rich.text import Text

from receiver.client.answers import AnySubscriber
from receiver.commands.console import Fields, clean, emit, emit_fields, emit_table, moment
from receiver.http.api.schema import StatsJson, SubscriberJson, SubscriberListJson
from receiver.outbox.subscribers.fields import ALL, KNOWN_TYPES, OTHER_TYPES

TYPE_PREFIX = "amazonpay.refund."
SHORT_TYPES = [each.removeprefix(TYPE_PREFIX).removeprefix("amazonpay.") for each in (*KNOWN_TYPES, *OTHER_TYPES)]


def emit_list(found: SubscriberListJson) -> None:
    if not found.subscribers:
        return
    rows = [(each.name, each.account, _state(each), _wants(each), each.url) for each in found.subscribers]
    emit_table(("Name", "Account", "State", "Wants", "Address"), rows)


def emit_subscriber(subscriber: AnySubscriber) -> None:
    """Everything about one subscriber, with its secret if the answer has one."""
    fields: Fields = [
        ("Subscriber", subscriber.name),
        ("Account", subscriber.account),
        ("Format", subscriber.format),
        ("Address", subscriber.url),
        ("Wants", _wants(subscriber)),
        ("Rate", f"{subscriber.rate:g} a second" if subscriber.rate else None),
        ("At once", str(subscriber.concurrency) if subscriber.concurrency else None),
        ("Old refunds", None if subscriber.backfill is None else "sent" if subscriber.backfill else "skipped"),
        ("State", _state(subscriber)),
        ("Paused at", moment(subscriber.paused_at)),
        ("Created", moment(subscriber.created_at)),
        ("Comes from", "the configuration" if subscriber.origin == "config" else subscriber.origin),
        ("No longer in the settings", subscriber.undeclared_at and f"since {moment(subscriber.undeclared_at)}"),
        *(
            ("Fingerprint", each.fingerprint + (f", until {moment(each.expires_at)}" if each.expires_at else ""))
            for each in subscriber.secrets
        ),
        *([("Fingerprint", f"{kept.fingerprint} ({kept.field})")] if (kept := subscriber.credential) else []),
        *(_stats(subscriber.stats) if subscriber.stats else ()),
    ]
    emit_fields(fields)
    if subscriber.secret is not None:
        emit(f"\nThe signing secret for the subscriber (shown only once):\n\n{clean(subscriber.secret)}")


def _stats(stats: StatsJson) -> Fields:
    since = f", the oldest since {moment(stats.oldest_waiting)}" if stats.oldest_waiting else ""
    failing = f"{stats.failures_in_a_row} in a row; sending one at a time" if stats.breaker == "open" else None
    return [
        ("Waiting", f"{stats.waiting}{since}"),
        ("Dead", Text(str(stats.dead), "bold red" if stats.dead else "")),
        ("Delivered", str(stats.delivered)),
        ("Last success", moment(stats.last_success)),
        ("Last error", stats.last_error and f"{stats.last_error} ({moment(stats.last_error_at)})"),
        ("Failures", failing),
    ]


def _wants(subscriber: SubscriberJson) -> str:
    types = ", ".join("all" if each == ALL else each.removeprefix(TYPE_PREFIX) for each in subscriber.types)
    amounts = [f"from {amount}" for amount in subscriber.min_amount or ()]
    only = ", ".join([*(subscriber.reasons or ()), *amounts])
    return f"{types} ({only})" if only else types


def _state(subscriber: SubscriberJson) -> Text:
    if not subscriber.paused:
        return Text("active", "green")
    why = f" ({clean(subscriber.paused_reason)})" if subscriber.paused_reason else ""
    return Text(f"PAUSED{why}", "bold red")
