"""Command. `receiver refund create` and `retry`: they move money, at most once however often they run."""

from __future__ import annotations

import re
import secrets
from typing import Annotated

import typer

from receiver.client.api import decode, target
from receiver.client.calls import PENDING, REPLAYED, until_answered
from receiver.commands.client.options import ServiceCall, api_command, checked_id, read_since
from receiver.commands.console import emit_json, say
from receiver.commands.refund.jobs import read_max_total, reissue_many
from receiver.commands.refund.views import emit_refund
from receiver.errors import ConfigurationError
from receiver.exchange import Response
from receiver.http.api.schema import PendingJson
from receiver.ledger.refund import State
from receiver.ledger.refund_request import REFUSES_US
from receiver.outbox.formats.cloudevents import AdvisedRefundJson

app = typer.Typer()

EPILOG = (
    "Exit codes: 4 Amazon has not answered yet, repeat the command with the same key · 5 the refund was made, but "
    "Amazon already declined it. Of retry for many: 4 the job is paused · 5 some refunds were not reissued."
)
UNANSWERED = 4
"""The exit code while Amazon has not answered."""
DECLINED = 5
"""The exit code if Amazon has already declined the refund: a script must not mistake that for money paid."""

Besides = Annotated[
    list[str] | None,
    typer.Option(
        "--besides",
        metavar="ID",
        help="Another refund or refund request on this charge that you know of: issue this one too. Repeatable. "
        "The errors same_amount_refunded and charge_in_conflict name the ids.",
    ),
]


# Otherwise a negative amount would be "no such option".
@api_command(app, more_epilog=EPILOG, context={"ignore_unknown_options": True})
def create(
    call: ServiceCall,
    charge: Annotated[str, typer.Argument(metavar="CHARGE", help="Amazon's id of the captured charge.")],
    amount: Annotated[
        str | None, typer.Argument(metavar="AMOUNT", help="For example 14.00; no decimals for JPY.")
    ] = None,
    currency: Annotated[
        str | None, typer.Argument(metavar="CURRENCY", help="The charge's currency, for example USD.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="In place of AMOUNT and CURRENCY: all that is left of the captured amount. The service determines it "
            "once for each key; `receiver charge show CHARGE` shows it.",
        ),
    ] = False,
    soft_descriptor: Annotated[
        str, typer.Option("--soft-descriptor", help="Text on the buyer's statement, at most 16 characters.")
    ] = "",
    reference: Annotated[str, typer.Option("--reference", help="Your order number. Default: the charge's.")] = "",
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            help="Idempotency key: repeating the command with the same key never refunds twice. "
            "Default: a new key, printed before anything is sent.",
        ),
    ] = None,
    besides: Besides = None,
    wait: Annotated[int, typer.Option(metavar="SECONDS", min=0, help="Time to wait for Amazon's answer.")] = 30,
) -> None:
    """Refund a charge, in full or in part.

    Amazon allows refunds of up to 15 % or 75 USD, GBP or EUR (8,400 JPY) over the captured amount, whichever is less.
    If there is no answer, run it again with the same key.
    """
    _no_options(charge, amount, currency)
    if full == (amount is not None) or (amount is None) != (currency is None):
        raise typer.BadParameter("give either AMOUNT and CURRENCY, or --full.")
    key = _key(key)
    say([f"Key: {key}"])
    wanted = {
        "chargeId": charge,
        "refundAmount": {"amount": amount, "currencyCode": currency.upper()} if currency is not None else None,
        "full": full,
        "softDescriptor": soft_descriptor,
        "orderReference": reference,
        "account": call.account,
        "besides": besides or [],
    }
    body = {name: value for name, value in wanted.items() if value}
    show(
        call,
        call.run(lambda api: until_answered(api, target("refunds"), body, key=key, wait=wait)),
        "Nothing new was made: this key has made the refund before. For another refund use another --key.",
    )


def _no_options(*arguments: str | None) -> None:
    """Raise `typer.BadParameter` for an argument that is an unknown option, or a negative amount."""
    for text in arguments:
        if text and re.match(r"-\.?[0-9]", text):
            raise typer.BadParameter(f"AMOUNT must be greater than zero, and is {text}.")
        if text and text.startswith("-"):
            raise typer.BadParameter(f"No such option: {text}")


def _key(given: str | None) -> str:
    """The caller's key, or a random one. An empty key is an error: a shell makes it from an unset variable."""
    if given is None:
        return f"cli-{secrets.token_hex(12)}"
    if not given or given != given.strip():
        raise typer.BadParameter("--key is empty, or begins or ends with a space. Is your variable set?")
    return given


@api_command(app, more_epilog=EPILOG)
def retry(
    call: ServiceCall,
    refund_id: Annotated[
        str | None, typer.Argument(metavar="ID", callback=checked_id, help="Amazon's id of one declined refund.")
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="CODE", help="Many: whose last decline has this reason, such as AmazonRejected.")
    ] = "",
    since: Annotated[
        str, typer.Option(metavar="TIME", callback=read_since, help="Many: declined since: 3d, 2026-01-31 (UTC).")
    ] = "",
    max_total: Annotated[
        str, typer.Option("--max-total", metavar="AMOUNT", help='Many: no more than this in total: "5000.00 USD".')
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Many: only show what would be reissued.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Many: do not ask for confirmation.")] = False,
    besides: Besides = None,
    wait: Annotated[int, typer.Option(metavar="SECONDS", min=0, help="Time to wait for Amazon's answer.")] = 30,
) -> None:
    """Reissue one refund that Amazon declined, or many. Each is reissued at most once, however often this runs.

    With an ID: that refund. The retry is a new refund with a new id. If Amazon declines it too, retry that one.

    With --reason or --since: the declined refunds whose case is open, for example after a negative balance is repaid.
    Shows which ones and which are left out, asks, and then starts a job in the service and follows it. If the command
    is stopped, the job goes on; run the command again to follow it. The first ten go alone: the others follow once
    Amazon has refunded one of them.
    """
    many = reason or since or max_total or dry_run or yes
    if refund_id is None:
        if not (reason or since):
            raise ConfigurationError(["Name one refund by its ID, or many by --reason, --since or both."])
        selection = {
            "reason": reason,
            "since": since,
            "maxTotal": read_max_total(max_total),
        }
        if besides:
            raise ConfigurationError(["--besides is for one refund: name it by its ID."])
        kept = {name: value for name, value in selection.items() if value}
        reissue_many(call, kept, dry_run=dry_run, yes=yes)
        return
    if many:
        raise ConfigurationError(["--reason, --since, --max-total, --dry-run and --yes are for many refunds: omit ID."])
    path = target("refunds", refund_id, "retry", account=call.account)
    body = {"besides": besides} if besides else None
    show(
        call,
        call.run(lambda api: until_answered(api, path, body, wait=wait)),
        f"Nothing new was made: {refund_id} was reissued before, as the refund shown here.",
    )


def show(call: ServiceCall, answer: Response, when_repeated: str = "") -> None:
    """Print the refund, or that there is no answer yet. A decline and no answer have their own exit codes.

    `when_repeated` is printed if an earlier call made the refund.
    """
    if answer.status == PENDING:
        pending = decode(answer, PendingJson)
        said = pending.detail if pending.reason == REFUSES_US else "Amazon has not answered yet."
        say([f"{said} The service keeps trying. Repeat the command to see the result."])
        if call.json:
            emit_json(answer.body)
        raise typer.Exit(UNANSWERED)
    refund = call.show(answer, AdvisedRefundJson, emit_refund)
    if when_repeated and answer.headers.get(REPLAYED) == "true":
        say([when_repeated])
    if refund.status_details.state == State.DECLINED:
        raise typer.Exit(DECLINED)
