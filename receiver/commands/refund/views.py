"""Command. How refunds look on a terminal: in lists, alone, and as they change. Made to fit 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from receiver.client.answers import AnyEvent, History
from receiver.client.api import convert, decode_body
from receiver.commands.console import (
    Fields,
    clean,
    emit,
    emit_fields,
    emit_json,
    emit_rich,
    emit_value,
    moment,
    say,
    short_moment,
    shown,
    table,
)
from receiver.commands.refund.watch import Change
from receiver.ledger.audit import Actor
from receiver.ledger.dispute import DisputeJson
from receiver.ledger.history import RevisionJson
from receiver.ledger.refund import Source, State
from receiver.ledger.schema import RefundJson
from receiver.outbox.events.balance_event import BalanceEventType, BalanceJson
from receiver.outbox.events.dispute_event import DisputeToAnswerJson
from receiver.outbox.events.kinds import BALANCE, DISPUTE
from receiver.outbox.events.mismatch_event import MismatchEventType, MismatchJson
from receiver.outbox.formats.cloudevents import AdvisedRefundJson

STYLES = {State.DECLINED.value: "bold red", State.REFUNDED.value: "green", State.INITIATED.value: "yellow"}
MARKED = frozenset({"stuck", "resolved", "reopened"})
"""The last words of event types that the state of the refund does not express."""


class ChangePrinter:
    """Prints one line per change, and the day when it changes."""

    def __init__(self, as_json: bool) -> None:
        self._json, self._day = as_json, ""
        self._accounts: set[str] = set()

    def show(self, change: Change) -> None:
        """Print it. Raises `ApiProblem` if it is no refund."""
        refund = convert(change, AdvisedRefundJson)
        if self._json:
            emit_value(change)
        else:
            self._line(refund, refund.changed_at)

    def show_event(self, body: bytes) -> None:
        """Print an event. Raises `ApiProblem` if it is none."""
        event = decode_body(body, AnyEvent)
        if self._json:
            emit_json(body)
        elif event.type.startswith(BALANCE.prefix):
            self._balance(convert(event.data, BalanceJson), event)
        elif event.type.startswith(DISPUTE.prefix):
            self._dispute(convert(event.data, DisputeToAnswerJson), event.time)
        elif event.type == MismatchEventType.MISMATCH:
            self._mismatch(convert(event.data, MismatchJson), event.time)
        else:
            refund = convert(event.data, AdvisedRefundJson)
            kind = event.type.rpartition(".")[2]
            self._line(refund, event.time, kind if kind in MARKED else "")

    def _balance(self, found: BalanceJson, event: AnyEvent) -> None:
        money = ", ".join(map(str, found.sums))
        is_over = event.type == BalanceEventType.RESOLVED
        words = Text("BALANCE resolved", "green") if is_over else Text("BALANCE SUSPECTED", "bold red")
        about = f"{found.count} refunds" if found.count else found.suspected_event_id[:27]
        self._emit(found.account, event.time, about, money, words)

    def _dispute(self, dispute: DisputeToAnswerJson, time: str) -> None:
        money = str(dispute.amount or "")
        words = Text(f"ANSWER BY {moment(dispute.merchant_response_deadline)}", "bold red")
        self._emit(dispute.account, time, dispute.dispute_id, money, words)

    def _mismatch(self, found: MismatchJson, time: str) -> None:
        words = Text(found.finding.replace("_", " ").upper(), "bold red")
        here = f"{clean(found.here or 'unknown')} here, {clean(found.there or 'nothing')} in the report"
        self._emit(found.account, time, found.refund_id, "", words.append(f" ({here})", "not bold"))

    def _line(self, refund: AdvisedRefundJson, time: str, more: str = "") -> None:
        words = state_text(refund).append(f" {more.upper()}" if more else "", "bold magenta")
        self._emit(refund.account, time, refund.refund_id, str(refund.refund_amount or ""), words)

    def _emit(self, account: str, time: str, id_: str, money: str, words: Text) -> None:
        day, _, clock = (moment(time) or "").removesuffix(" UTC").partition(" ")
        if day != self._day:
            self._day = day
            say([f"{day} (UTC)"])
        self._accounts.add(account)
        named = f"  {clean(account)}" if len(self._accounts) > 1 else ""
        line = Text(f"{clean(clock)}  {clean(id_):<27}  {clean(money):>11}  ")
        emit_rich(line.append_text(words).append(named, "dim"))


def emit_list(
    refunds: Sequence[RefundJson], *, now: int, first: bool = True, with_order: bool = False, with_account: bool = False
) -> None:
    """A table of refunds. With `first` false, it continues an earlier one; `now` is in ms."""
    rows = table(headers=first)
    rows.add_column("Changed UTC", no_wrap=True, min_width=11)
    rows.add_column("Refund", no_wrap=True, min_width=27, overflow="fold")
    rows.add_column("Amount", no_wrap=True, min_width=9, justify="right", overflow="fold")
    rows.add_column("State", min_width=15, overflow="fold")
    more = {"Order": with_order, "Account": with_account}
    for name in (name for name, wanted in more.items() if wanted):
        rows.add_column(name, overflow="fold")
    for each in refunds:
        amount = str(each.refund_amount or "")
        cells: list[str | Text] = [short_moment(each.changed_at, now), each.refund_id, amount, state_text(each)]
        last = {"Order": each.order_reference or "", "Account": each.account}
        rows.add_row(*map(shown, [*cells, *(last[name] for name, wanted in more.items() if wanted)]))
    emit_rich(rows)


def emit_refund(refund: AdvisedRefundJson) -> None:
    """Everything about one refund, as names and values."""
    status, account = refund.status_details, refund.account
    rows: Fields = [
        ("Refund", refund.refund_id),
        ("State", state_text(refund)),
        ("Description", status.reason_description),
        ("Amount", str(refund.refund_amount) if refund.refund_amount else None),
        ("Charge", refund.charge_id),
        ("Order", refund.order_reference),
        ("Retry of", refund.retry_of),
        ("Retried by", refund.retried_by),
        ("Retry refused", _retry_refused(refund)),
        ("Can be reissued", _retryable(refund)),
        ("Case", case_text(refund)),
        ("Issued by", str(Actor(refund.issued_by or "", refund.issued_by_user or ""))),
        ("Type", refund.refund_type),
        ("Descriptor", refund.soft_descriptor),
        ("Account", f"{account} ({refund.release_environment})" if refund.release_environment else account),
        ("Created", moment(refund.creation_timestamp)),
        ("Amazon's time", moment(status.last_updated_timestamp)),
        ("First seen", moment(refund.first_seen_at)),
        ("Changed", moment(refund.changed_at)),
        ("Source", f"{refund.source}, revision {refund.revision}"),
        ("Could not be read", ", ".join(refund.unread_fields) or None),
        *_advice(refund),
    ]
    emit_fields(rows)


def case_text(refund: AdvisedRefundJson | RevisionJson) -> str | None:
    """Whether its case is open; if not, how, by whom and why it was closed."""
    case = refund.resolution
    if case is None:
        return None
    details = (case.how, case.refund_id, f"by {case.user or case.by}" if case.user or case.by else None, case.note)
    known = ", ".join(text for text in details if text)
    return f"{case.state} since {moment(case.at)}{f' ({known})' if known else ''}"


def _retryable(refund: AdvisedRefundJson) -> str | None:
    """Whether it can be issued again, why not, and as of when."""
    if refund.as_of is None:
        return None
    word = "not known" if refund.retryable is None else "yes" if refund.retryable else "no"
    reasons = f" ({', '.join(refund.retryable_reasons)})" if refund.retryable_reasons else ""
    return f"{word}{reasons}, as of {moment(refund.as_of)}"


def emit_disputes(disputes: Sequence[DisputeJson]) -> None:
    """A line for each dispute about the charge."""
    for each in disputes:
        money = str(each.amount or "")
        state = ", ".join(filter(None, (each.state, each.resolution)))
        answer = f"answer by {moment(each.merchant_response_deadline)}" if each.merchant_response_deadline else ""
        blocks = "blocks refunds" if each.blocks_refunds else ""
        facts = ", ".join(filter(None, (money, each.reason, state, answer, blocks, moment(each.first_told_at))))
        standing = "open" if each.open else "ended"
        emit(clean(f"Dispute {each.dispute_id}: {each.kind}, {standing}{f' ({facts})' if facts else ''}"))


def _retry_refused(refund: AdvisedRefundJson) -> str | None:
    """The last attempt to reissue it, if Amazon refused that."""
    refused = refund.retry_refused
    if refused is None:
        return None
    why = refused.detail or refused.reason_code or "no reason given"
    return f"{moment(refused.at)}, attempt {refused.generation}: {why}"


def _advice(refund: AdvisedRefundJson) -> Fields:
    """The advice: what happened and what to do, best choice first."""
    if refund.advice is None:
        return []
    steps = [("", f"{number}. {each.text}") for number, each in enumerate(refund.advice.actions, 1)]
    return [("Advice", refund.advice.summary), *steps]


def state_text(refund: RefundJson | RevisionJson) -> Text:
    """State and reason. A decline is in capitals, so that it is noticed without colours too."""
    state = refund.status_details.state
    word = state.upper() if state == State.DECLINED else state
    text = Text(clean(word), STYLES.get(state, "yellow"))
    if refund.status_details.reason_code:
        text.append(f" {clean(refund.status_details.reason_code)}")
    if refund.conflict:
        text.append(" CONFLICT", "bold magenta")
    return text


def emit_history(found: History) -> None:
    """A table of the revisions, in their order, and the disputes. Amazon's time shows its day only if it differs."""
    rows = table()
    rows.add_column("Rev", no_wrap=True, justify="right")
    for name in ("Changed UTC", "Amazon's time", "Source"):
        rows.add_column(name, no_wrap=True, overflow="fold")
    rows.add_column("State", overflow="fold")
    for each in (convert(revision, RevisionJson) for revision in found.revisions):
        changed, updated = (
            moment(text) or "" for text in (each.changed_at, each.status_details.last_updated_timestamp)
        )
        updated = updated.removeprefix(changed[:11])
        cells = (str(each.revision), changed.removesuffix(" UTC"), updated.removesuffix(" UTC"), each.source)
        rows.add_row(*map(shown, cells), state_text(each))
        if each.source == Source.PERSON and (case := case_text(each)):
            rows.add_row("", "", "", "", shown(case))
    emit_rich(rows)
    emit_disputes(found.disputes)
