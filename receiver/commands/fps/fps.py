"""Command. `receiver fps`: the refund of Amazon Flexible Payments, which Amazon retired on 1 June 2015."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from receiver.amazon.fps import calls
from receiver.amazon.fps.signing import SignatureMethod
from receiver.client.api import target
from receiver.client.calls import until_answered
from receiver.commands.client.options import DEFAULT_URL, Account, Insecure, ServiceCall, TokenFile, Url, ending, reach
from receiver.commands.fps import direct
from receiver.commands.fps.direct import ACCESS_KEY_ID, ENDPOINT, SECRET, SECRET_FILE
from receiver.commands.refund.create import DECLINED, UNANSWERED, show
from receiver.errors import BadRequest, Malformed
from receiver.ledger.money import Money
from receiver.ledger.schema import money_json

DIRECTLY = "Direct calls, without the service"

HELP = """\
LEGACY: refund all or part of a Flexible Payments transaction. Amazon retired the service in 2015.

The service makes and records the refund (it needs the table accounts.fps in its settings, and a token with the scope \
refund). With --endpoint, this command calls FPS directly, and the service does not record the refund.

Repeating the command with the same REFERENCE never refunds twice."""
EPILOG = f"""\
Pass the token in RECEIVER_TOKEN or a file. With --endpoint, pass the access key in {ACCESS_KEY_ID} and {SECRET}, or \
the secret in a file. Other users of the machine can see the command line.

Exit codes: 0 the refund was made; it may still be pending, see its state · 1 refused · 2 wrong usage or \
configuration · 3 no answer, or an unclear one: repeat the command with the same REFERENCE · {UNANSWERED} FPS has not \
answered yet, the service keeps trying · {DECLINED} the refund was made, but FPS already declined it."""

app = typer.Typer(no_args_is_help=True)


@app.command(help=HELP, epilog=EPILOG)
def refund(
    transaction_id: Annotated[
        str, typer.Argument(metavar="TRANSACTION_ID", help="FPS's id of the transaction to refund.")
    ],
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE",
            help="Your id for this refund, never used before: at most 64 letters, digits and dashes. "
            "It identifies the refund from now on.",
        ),
    ],
    amount: Annotated[str | None, typer.Option(help="For example 14.00. Default: the remaining amount.")] = None,
    currency: Annotated[str, typer.Option(help="FPS supports USD only.")] = calls.CURRENCY,
    description: Annotated[str, typer.Option(help="A note for the merchant, at most 160 characters.")] = "",
    policy: Annotated[
        calls.Policy | None,
        typer.Option(help="What to refund, for marketplaces. FPS's default: MasterTxnOnly."),
    ] = None,
    wait: Annotated[int, typer.Option(metavar="SECONDS", min=0, help="Time to wait for FPS's answer.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of a table.")] = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    account: Account = "",
    insecure: Insecure = False,
    endpoint: Annotated[
        str,
        typer.Option(
            "--endpoint",
            envvar=ENDPOINT,
            metavar="URL",
            help="Address of FPS, for example http://127.0.0.1:9100/fps/. Plain http only to this machine.",
            rich_help_panel=DIRECTLY,
        ),
    ] = "",
    api_version: Annotated[
        calls.Version | None,
        typer.Option(
            help="2008-05-01 (the default) sends REFERENCE as RefundTransactionReference, later versions as "
            "CallerReference.",
            rich_help_panel=DIRECTLY,
        ),
    ] = None,
    signature_method: Annotated[
        SignatureMethod | None, typer.Option(help="Signature method. Default: HmacSHA256.", rich_help_panel=DIRECTLY)
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            "--secret-file",
            envvar=SECRET_FILE,
            help=f"File with the secret access key. Default: {SECRET}.",
            rich_help_panel=DIRECTLY,
        ),
    ] = None,
) -> None:
    """Refund a transaction of the retired Flexible Payments."""
    order = _order(transaction_id, reference, amount, currency, description, policy)
    if endpoint:
        version, method = api_version or calls.Version.V2008_05_01, signature_method or SignatureMethod.HMAC_SHA256
        direct.run(endpoint, order, version=version, method=method, secret_file=secret_file, as_json=as_json)
        return
    if api_version or signature_method:
        raise typer.BadParameter("--api-version and --signature-method need --endpoint.")
    with ending():
        _by_service(reach(as_json, url, token_file, account, insecure), order, wait)


def _by_service(call: ServiceCall, order: calls.FpsRefundRequest, wait: int) -> None:
    wanted = {
        "transactionId": order.transaction_id,
        "refundTransactionReference": order.reference,
        "refundAmount": money_json(order.amount),
        "description": order.description,
        "marketplaceRefundPolicy": str(order.policy),
        "account": call.account,
    }
    body = {name: value for name, value in wanted.items() if value}
    show(call, call.run(lambda api: until_answered(api, target("fps", "refunds"), body, wait=wait)))


def _order(
    transaction_id: str,
    reference: str,
    amount: str | None,
    currency: str,
    description: str,
    policy: calls.Policy | None,
) -> calls.FpsRefundRequest:
    """The values to send. An empty amount, as from an unset shell variable, is an error, not the remaining amount."""
    try:
        money = None if amount is None else Money.parse(amount, currency)
        return calls.FpsRefundRequest(transaction_id, reference, money, description, policy or "")
    except (BadRequest, Malformed) as error:
        raise typer.BadParameter(error.detail) from None
