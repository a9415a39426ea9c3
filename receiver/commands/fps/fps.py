"""Command. `receiver fps`: the refund of Amazon Flexible Payments, which Amazon retired on 1 June 2015."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from receiver.amazon.fps import calls
from receiver.amazon.fps.signing import SignatureMethod
from receiver.commands.client.api import target
from receiver.commands.client.options import DEFAULT_URL, Account, Call, Insecure, TokenFile, Url, ending, reach
from receiver.commands.fps import direct
from receiver.commands.fps.direct import ACCESS_KEY_ID, ENDPOINT, SECRET, SECRET_FILE
from receiver.commands.refund.create import DECLINED, UNANSWERED, show, until_answered
from receiver.errors import BadRequest, Malformed
from receiver.ledger.money import Money
from receiver.ledger.schema import money_json

DIRECTLY = "Directly, without the service"

HELP = """\
LEGACY: refund a transaction of Flexible Payments, which Amazon retired in 2015, all or a part of it.

The service makes the refund and keeps it in its ledger (needs the table accounts.fps in its settings, and a token \
with the scope refund). With --endpoint it is called directly from here, and no ledger keeps it.

The same command again is the same refund: it is known by its REFERENCE."""
EPILOG = f"""\
The token comes from RECEIVER_TOKEN or a file; with --endpoint the access key from {ACCESS_KEY_ID} and {SECRET}, or \
for the secret from a file. None of them comes from the command line, where every user of the machine could see it.

Exit codes: 0 there is a refund, also one that is pending: read the state · 1 refused · 2 wrong usage or \
configuration · 3 no answer, or one that does not tell what happened: repeat it with the same REFERENCE · \
{UNANSWERED} the service keeps the order, and FPS has not answered it yet · {DECLINED} there is a refund, and FPS has \
declined it."""

app = typer.Typer(
    help="LEGACY: Amazon Flexible Payments (FPS), the service behind Amazon Simple Pay. Amazon retired it on 1 June "
    "2015 and its addresses answer no more: this runs against `receiver simulate` (endpoint /fps/) or a stand-in of "
    "your own. For refunds of Amazon Pay see `receiver refund`.",
    no_args_is_help=True,
)


@app.callback()
def _group() -> None:
    """Keeps `refund` a subcommand, although it is the only one."""


@app.command(help=HELP, epilog=EPILOG)
def refund(
    transaction_id: Annotated[
        str, typer.Argument(metavar="TRANSACTION_ID", help="FPS's id of the settled transaction to refund.")
    ],
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE",
            help="Your own id of this refund, unique for ever: at most 64 letters, digits and dashes. Under it the "
            "refund is known from then on.",
        ),
    ],
    amount: Annotated[str | None, typer.Option(help="How much, such as 14.00. Default: all that is left.")] = None,
    currency: Annotated[str, typer.Option(help="FPS knew USD only.")] = calls.CURRENCY,
    description: Annotated[str, typer.Option(help="For the merchant's own books; at most 160 characters.")] = "",
    policy: Annotated[
        calls.Policy | None,
        typer.Option(help="For marketplaces: what is refunded. FPS's default: MasterTxnOnly."),
    ] = None,
    wait: Annotated[int, typer.Option(metavar="SECONDS", min=0, help="How long to wait for FPS's answer.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table, one line.")] = False,
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
            help="Address of FPS, such as http://127.0.0.1:9100/fps/. Plain http only to this machine.",
            rich_help_panel=DIRECTLY,
        ),
    ] = "",
    api_version: Annotated[
        calls.Version | None,
        typer.Option(
            help="2008-05-01 (the default) calls REFERENCE RefundTransactionReference, as Amazon's guide does; later "
            "ones CallerReference.",
            rich_help_panel=DIRECTLY,
        ),
    ] = None,
    signature_method: Annotated[
        SignatureMethod | None, typer.Option(help="How to sign. Default: HmacSHA256.", rich_help_panel=DIRECTLY)
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            "--secret-file",
            envvar=SECRET_FILE,
            help=f"File with the secret access key; else {SECRET}.",
            rich_help_panel=DIRECTLY,
        ),
    ] = None,
) -> None:
    """Refund a transaction by the retired Flexible Payments."""
    order = _order(transaction_id, reference, amount, currency, description, policy)
    if endpoint:
        version, method = api_version or calls.Version.V2008_05_01, signature_method or SignatureMethod.HMAC_SHA256
        direct.run(endpoint, order, version=version, method=method, secret_file=secret_file, as_json=as_json)
        return
    if api_version or signature_method:
        raise typer.BadParameter("--api-version and --signature-method go with --endpoint; the service has its own.")
    with ending():
        _by_service(reach(as_json, url, token_file, account, insecure), order, wait)


def _by_service(call: Call, order: calls.FpsRefundRequest, wait: int) -> None:
    wanted = {
        "transactionId": order.transaction_id,
        "refundTransactionReference": order.reference,
        "refundAmount": money_json(order.amount),
        "description": order.description,
        "marketplaceRefundPolicy": str(order.policy),
        "account": call.account,
    }
    body = {name: value for name, value in wanted.items() if value}
    show(call, call.run(lambda api: until_answered(wait, api, target("fps", "refunds"), body, "")))


def _order(
    transaction_id: str,
    reference: str,
    amount: str | None,
    currency: str,
    description: str,
    policy: calls.Policy | None,
) -> calls.FpsRefundRequest:
    """The values to send. An empty amount, as a shell makes of a variable that is not set, is not all that is left."""
    try:
        money = None if amount is None else Money.parse(amount, currency)
        return calls.FpsRefundRequest(transaction_id, reference, money, description, policy or "")
    except (BadRequest, Malformed) as error:
        raise typer.BadParameter(error.detail) from None
