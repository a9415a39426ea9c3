"""Command. `receiver refund requests`, `repeat`, `settle-request`: open refund requests."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from rich.text import Text

from receiver.commands.client.options import ServiceCall, api_command, checked_id, of_form
from receiver.commands.console import Fields, clean, emit_fields, emit_rich, moment, now_ms, say, short_moment
from receiver.errors import ConfigurationError
from receiver.http.api.schema import RequestListJson
from receiver.ledger.audit import Actor
from receiver.ledger.refund_request import OPEN, RequestState
from receiver.ledger.request_shape import RefundRequestJson

app = typer.Typer()

UNANSWERED, STILL_UNCLEAR = 4, 6
"""Exit codes."""
STYLES = {"unclear": "bold red", "refused": "red", "done": "green"}


checked_request_id = of_form(
    re.compile(r"[0-9a-f]{64}"), "a request id is 64 hexadecimal digits, as shown by `receiver refund requests`."
)


def _state(text: str) -> str:
    if text and text.lower() not in OPEN:
        raise typer.BadParameter(f"must be one of {', '.join(OPEN)}.")
    return text.lower()


RequestId = Annotated[str, typer.Argument(metavar="ID", callback=checked_request_id, help="The id of the request.")]


@api_command(app)
def requests(
    call: ServiceCall,
    refund_request_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", callback=checked_request_id, help="Show this request, whatever its state."),
    ] = None,
    state: Annotated[str, typer.Option(callback=_state, help="Only requests in this state: unclear or reserved.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200, metavar="N", help="Show at most this many.")] = 50,
) -> None:
    """List open refund requests: unclear ones first, then the oldest.

    `reserved`: Amazon has not answered yet, and the service keeps trying. `unclear`: Amazon refused the request after
    an attempt with an unknown outcome. Send it again with `repeat`; if it stays unclear, check Seller Central and
    close it with `settle-request`. `candidateRefundId` is the refund that the request may have made. Needs a token
    with the scope refund.
    """
    if refund_request_id:
        call.show(call.ask("GET", "refund-requests", refund_request_id), RefundRequestJson, _emit)
    else:
        call.show(call.ask("GET", "refund-requests", state=state, limit=limit), RequestListJson, _emit_list)


@api_command(app)
def repeat(call: ServiceCall, refund_request_id: RequestId) -> None:
    """Send an unclear request again, before you settle it.

    It uses the same Amazon idempotency key, so Amazon repeats its first answer and never refunds twice. Exit codes:
    4 Amazon has not answered yet, the service keeps trying · 6 the request is still unclear. Needs a token with the
    scope refund; its name is logged.
    """
    answer = call.ask("POST", "refund-requests", refund_request_id, "repeat", wait=30)
    found = call.show(answer, RefundRequestJson, _emit)
    code = {RequestState.RESERVED: UNANSWERED, RequestState.UNCLEAR: STILL_UNCLEAR}.get(RequestState(found.state))
    if code is not None:
        raise typer.Exit(code)


@api_command(app, name="settle-request")
def settle_request(
    call: ServiceCall,
    refund_request_id: RequestId,
    refund_id: Annotated[
        str | None,
        typer.Option(
            "--refund-id",
            metavar="REFUND",
            callback=checked_id,
            help="Amazon made this refund. The service asks Amazon whether charge and amount match.",
        ),
    ] = None,
    not_issued: Annotated[
        bool,
        typer.Option("--not-issued", help="Amazon made no refund. Frees the amount; the request is never sent again."),
    ] = False,
) -> None:
    """Record the outcome of an unclear request, after repeating it and checking Seller Central.

    Also for a request that Amazon keeps refusing as malformed (amazon_refuses_us), which would be retried for ever.

    Use --not-issued only if you are sure: if Amazon did make the refund, the buyer may be paid twice. Needs a token
    with the scope refund; its name is stored with the request.
    """
    if (refund_id is None) != not_issued:
        raise ConfigurationError(["Use either --refund-id REFUND or --not-issued."])
    body = {"notIssued": True} if refund_id is None else {"refundId": refund_id}
    answer = call.ask("POST", "refund-requests", refund_request_id, "settle", body=body)
    call.show(answer, RefundRequestJson, _emit)


def _emit_list(found: RequestListJson) -> None:
    for each in found.requests:
        emit_rich(_line(each))
    if not found.requests:
        say(["There are no open requests."])
    elif found.total > len(found.requests):
        say([f"Showing {len(found.requests)} of {found.total}. Use a higher --limit for more."])


def _line(found: RefundRequestJson) -> Text:
    """One line, and below it the whole id, for copying."""
    line = _state_text(found)
    line.append(f"  {short_moment(found.created_at or '', now_ms())}  {_amount(found)}  {clean(found.charge_id)}")
    line.append(f"  {found.tries} attempts")
    if found.last_error:
        line.append(f"  {clean(found.last_error)}")
    if found.candidate_refund_id:
        line.append(f"  possibly {clean(found.candidate_refund_id)}")
    return line.append(f"\n  {clean(found.refund_request_id)}", "dim")


def _emit(found: RefundRequestJson) -> None:
    amazon = found.amazon
    said = None if amazon is None else f"{amazon.status} {amazon.reason_code or ''}".strip()
    fields: Fields = [
        ("Request", found.refund_request_id),
        ("State", _state_text(found)),
        ("Refund", found.refund_id),
        ("Candidate", found.candidate_refund_id),
        ("Amount", f"{_amount(found)}{' (all that was left)' if found.full else ''}"),
        ("Charge", found.charge_id),
        ("Order", found.order_reference),
        ("Retry of", found.retry_of),
        ("Attempts", f"{found.tries}{', one with an unknown outcome' if found.may_have_reached_amazon else ''}"),
        ("Last error", found.last_error),
        ("Detail", found.detail),
        ("Amazon said", said),
        ("Amazon's id", amazon.request_id if amazon else None),
        ("Issued by", str(Actor(found.issued_by or "", found.issued_by_user or ""))),
        ("Besides", ", ".join(found.besides)),
        ("Settled by", str(Actor(found.settled_by or "", found.settled_by_user or ""))),
        ("Account", found.account),
        ("Created", moment(found.created_at)),
        ("Changed", moment(found.changed_at)),
    ]
    emit_fields(fields)


def _state_text(found: RefundRequestJson) -> Text:
    return Text(clean(found.state), STYLES.get(found.state, "yellow"))


def _amount(found: RefundRequestJson) -> str:
    return clean(str(found.refund_amount or ""))
