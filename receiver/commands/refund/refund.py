"""Command. `receiver refund`: the refunds of a running service, through its HTTP API."""

from __future__ import annotations

from typing import Annotated

import typer

from receiver.client.answers import History
from receiver.client.api import Api, convert
from receiver.client.calls import refund_pages, until_final
from receiver.commands.client.options import RefundId, ServiceCall, api_command, checked_id, read_since
from receiver.commands.console import clean, emit, emit_json, now_ms, plural, say
from receiver.commands.refund import cases, create, export, importing, jobs, requests
from receiver.commands.refund.views import ChangePrinter, emit_history, emit_list, emit_refund
from receiver.commands.refund.watch import ChangeWatcher
from receiver.http.api.schema import RefreshJson
from receiver.outbox.formats.cloudevents import AdvisedRefundJson

LONGEST_WAIT = 24 * 3600

app = typer.Typer(no_args_is_help=True)


@api_command(app)
def get(
    call: ServiceCall,
    refund_id: RefundId,
    wait: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=LONGEST_WAIT,
            help="Wait at most this long until the refund is found and final (Refunded or Declined).",
        ),
    ] = 0,
) -> None:
    """Show one refund.

    The exit code says whether the refund was found, not its state: it is 0 for a declined or pending refund too, also
    after --wait. Read the state, or `.statusDetails.state` and `.final` with --json.
    """
    refund = call.show(call.run(lambda api: until_final(api, refund_id, wait)), AdvisedRefundJson, emit_refund)
    if wait and not refund.final:
        say([f"Not final after {wait} s."])


@api_command(
    app,
    name="list",
    more_epilog="--json prints one object per page. For one line per refund: "
    "`receiver refund list --all --json | jq -c '.refunds[]'`.",
)
def list_some(
    call: ServiceCall,
    state: Annotated[
        str, typer.Option(help="RefundInitiated, Refunded, Declined, or another of Amazon's states.")
    ] = "",
    reason: Annotated[
        str, typer.Option(help="AmazonRejected, ProcessingFailure, or another of Amazon's reason codes.")
    ] = "",
    charge: Annotated[str, typer.Option(metavar="ID", help="Only refunds of this charge.")] = "",
    order: Annotated[
        str, typer.Option(metavar="NUMBER", help="Only refunds of this order: merchantReferenceId of the charge.")
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            callback=read_since,
            help="Only refunds changed since: 2h, 7d, 2026-01-31 (UTC), 2026-01-31T12:00:00Z.",
        ),
    ] = "",
    is_open: Annotated[
        bool, typer.Option("--open", help="Only declined refunds whose case is open: the buyer may be owed the money.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most this many.")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="Show all, ignoring --limit.")] = False,
) -> None:
    """List refunds, latest change first. All filters must match. Times are UTC."""
    filters = {
        "state": state,
        "reason": reason,
        "charge": charge,
        "order": order,
        "since": since,
        "open": "true" if is_open else "",
    }
    call.run(lambda api: _list(api, call.json, filters, None if everything else limit))


async def _list(api: Api, as_json: bool, filters: dict[str, str], limit: int | None) -> None:
    shown, with_order = 0, False
    accounts: set[str] = set()
    async for answer, page in refund_pages(api, filters, limit):
        refunds = [convert(refund, AdvisedRefundJson) for refund in page.refunds]
        if as_json:
            emit_json(answer.body)
        elif refunds:
            accounts |= {refund.account for refund in refunds}
            with_order |= any(refund.order_reference for refund in refunds)
            emit_list(refunds, now=now_ms(), first=not shown, with_order=with_order, with_account=len(accounts) > 1)
        shown += len(refunds)
    if not shown:
        say(["No refund matches." if any(filters.values()) else "There are no refunds yet."])
    elif limit is not None and page.next_cursor:
        say([f"Showing {plural(shown, 'refund')}. Use --all or a higher --limit for more."])


@api_command(app)
def history(call: ServiceCall, refund_id: RefundId) -> None:
    """Show every revision of a refund, oldest first, and what triggered it.

    `Changed` is when the service recorded it. `Amazon's time` is Amazon's lastUpdatedTimestamp, with its day only if
    that differs. Both are UTC.
    """
    call.show(call.ask("GET", "refunds", refund_id, "history"), History, emit_history)


@api_command(app)
def refresh(call: ServiceCall, refund_id: RefundId) -> None:
    """Ask Amazon about a refund now. Returns once the request is saved; `watch` shows the result.

    Also works for a refund that the service does not know yet. Needs a token with the scope refund or admin.
    """

    def show(noted: RefreshJson) -> None:
        emit(f"Amazon will be asked about {clean(noted.refund_id)} (account {clean(noted.account)}).")

    call.show(call.ask("POST", "refunds", refund_id, "refresh"), RefreshJson, show)


@api_command(app)
def watch(
    call: ServiceCall,
    refund_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", callback=checked_id, help="Amazon's id of one refund. Default: all refunds."),
    ] = None,
) -> None:
    """Print every change of a refund, or of all refunds, as it happens. Times are UTC.

    With an ID: its changes so far and from now on, until the refund is final. The exit code is then 0, even if it was
    declined. Waits for a refund that is not known yet. Without an ID: all changes from now on, until Ctrl-C.

    If the service becomes unavailable, the command retries at least every 30 seconds and misses nothing. It ends with
    exit code 3 only if the first call fails. `--json` prints one line per change: the refund as of that change.
    """
    screen = ChangePrinter(call.json)
    if refund_id is None:
        call.run(lambda api: ChangeWatcher(api, screen.show, say).every())
    else:
        call.run(lambda api: ChangeWatcher(api, screen.show, say).one(refund_id))


for module in (create, cases, jobs, requests, export, importing):
    app.add_typer(module.app)
