"""Command. `receiver refund close` and `reopen`: a person ends the case of a declined refund, or undoes that."""

from __future__ import annotations

from typing import Annotated

import typer

from receiver.commands.client.options import RefundId, ServiceCall, api_command, checked_id
from receiver.commands.refund.views import emit_refund
from receiver.errors import ConfigurationError
from receiver.ledger.refund import How
from receiver.outbox.formats.cloudevents import AdvisedRefundJson

app = typer.Typer()

EPILOG = "Needs a token with the scope refund. The refund keeps the token's name, the person, and the note."


@api_command(app, more_epilog=EPILOG)
def close(
    call: ServiceCall,
    refund_id: RefundId,
    refunded_elsewhere: Annotated[
        str | None,
        typer.Option(
            metavar="REFUND",
            callback=checked_id,
            help="This refund of the same charge paid the buyer. It must be Refunded.",
        ),
    ] = None,
    compensated: Annotated[
        str | None,
        typer.Option(metavar="NOTE", help="The buyer was paid another way: store credit, a gift card, a check."),
    ] = None,
    not_owed: Annotated[
        str | None,
        typer.Option(metavar="NOTE", help="The buyer is owed nothing: a claim, a chargeback, a returned order."),
    ] = None,
    note: Annotated[str, typer.Option(help="With --refunded-elsewhere: why.")] = "",
) -> None:
    """Close the case of a declined refund, once the buyer was paid or is owed nothing.

    A case closes automatically when Amazon reports the refund or one of its reissues as Refunded. Closing it again in
    the same way changes nothing. A refund whose case is closed is not reissued.
    """
    given = {
        How.REFUNDED_ELSEWHERE: refunded_elsewhere,
        How.COMPENSATED: compensated,
        How.NOT_OWED: not_owed,
    }
    chosen = [(how, value) for how, value in given.items() if value is not None]
    if len(chosen) != 1 or (note and refunded_elsewhere is None):
        raise ConfigurationError(
            ["Use one of --refunded-elsewhere REFUND [--note TEXT], --compensated NOTE or --not-owed NOTE."]
        )
    ((how, value),) = chosen
    body = {"how": how.value, "note": value}
    if how is How.REFUNDED_ELSEWHERE:
        body = {"how": how.value, "refundId": value} | ({"note": note} if note else {})
    answer = call.ask("POST", "refunds", refund_id, "close", body=body)
    call.show(answer, AdvisedRefundJson, emit_refund)


@api_command(app, more_epilog=EPILOG)
def reopen(call: ServiceCall, refund_id: RefundId) -> None:
    """Reopen the case of a declined refund that a person has closed."""
    call.show(call.ask("POST", "refunds", refund_id, "reopen"), AdvisedRefundJson, emit_refund)
