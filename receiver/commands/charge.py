"""Command. `receiver charge`: what is refunded, pending and left of a charge."""

from __future__ import annotations

from typing import Annotated

import typer

from receiver.commands.client.options import ServiceCall, api_command, of_form
from receiver.commands.console import Fields, clean, emit, emit_fields, moment, now_ms, say
from receiver.commands.refund.views import emit_disputes, emit_list
from receiver.ledger.refund import REFUND_ID
from receiver.ledger.request_shape import ChargeJson
from receiver.ledger.schema import MoneyJson

app = typer.Typer(no_args_is_help=True)


checked_charge = of_form(REFUND_ID, "a charge id is 1 to 64 letters, digits and hyphens.")


@api_command(app)
def show(
    call: ServiceCall,
    charge_id: Annotated[str, typer.Argument(metavar="ID", callback=checked_charge, help="Amazon's id of the charge.")],
) -> None:
    """Show a charge: what Amazon and the service know as refunded, what is pending and reserved, and what is left.

    `Left` is what `receiver refund create ID --full` refunds. `With allowance` is the most that one more refund may
    have: Amazon lets merchants refund 15 % or 75 USD, GBP or EUR (8,400 JPY) over the captured amount, whichever is
    less. An amount that is not certain is shown as unknown.

    The service asks Amazon, unless it did within the last minute. If Amazon does not answer in time, it shows what is
    known, and says so.
    """
    call.show(call.ask("GET", "charges", charge_id), ChargeJson, _emit)


def _emit(charge: ChargeJson) -> None:
    emit_fields(_fields(charge))
    emit_disputes(charge.disputes)
    if charge.refunds:
        emit("")
        emit_list(charge.refunds, now=now_ms())
    for each in charge.reservations:
        emit(clean(f"Request {each.refund_request_id}: {_money(each.refund_amount)}, {each.state}"))
    if charge.unreadable:
        say([f"Without a readable record: {', '.join(charge.unreadable)}"])
    if charge.refresh_error:
        say([f"Amazon did not describe the charge just now [{charge.refresh_error}]. This is what is known."])


def _fields(charge: ChargeJson) -> Fields:
    account, known = charge.account, charge.known
    count = "unknown" if charge.refund_count is None else str(charge.refund_count)
    conflict = known.in_conflict
    return [
        ("Charge", charge.charge_id),
        ("State", charge.state or "unknown"),
        ("Captured", _money(charge.capture_amount)),
        ("Refunded", f"{_money(charge.refunded_amount)} according to Amazon, {_money(known.refunded)} known here"),
        ("Pending", _money(known.pending)),
        ("Reserved", _money(known.reserved)),
        ("In conflict", None if conflict and not conflict.amount.strip("0.") else _money(conflict)),
        ("Left", _money(charge.refundable)),
        ("With allowance", _money(charge.refundable_with_allowance)),
        ("Prevented by", ", ".join(charge.refundable_reasons) or None),
        ("Refunds", f"{count} of {charge.most_refunds}"),
        ("Order", charge.order_reference),
        ("Account", f"{account} ({charge.release_environment})" if charge.release_environment else account),
        ("As of", moment(charge.charge_read_at) or "never described by Amazon"),
        ("Could not be read", ", ".join(charge.unread_fields) or None),
    ]


def _money(money: MoneyJson | None) -> str:
    return str(money or "unknown")
