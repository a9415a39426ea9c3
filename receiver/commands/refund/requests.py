"""Command. `receiver refund requests`, `repeat`, `settle-request`: refunds that were asked for, and are not settled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from receiver.commands.client.api import decode, target
from receiver.commands.client.options import Call, api_command
from receiver.commands.console import clean, emit_fields, emit_json, emit_rich, moment, say, short_moment
from receiver.commands.refund.refund import _now, _refund_id
from receiver.errors import ConfigurationError
from receiver.http.api.schema import RequestListJson
from receiver.ledger.refund_request import OPEN, RequestState
from receiver.ledger.request_shape import RefundRequestJson

UNANSWERED, STILL_UNCLEAR = 4, 6
"""Exit codes."""
STYLES = {"unclear": "bold red", "refused": "red", "done": "green"}


def _request_id(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[0-9a-f]{64}", text):
        raise typer.BadParameter("the id of a request is 64 hexadecimal digits, as `receiver refund requests` shows.")
    return text


def _state(text: str) -> str:
    if text and text not in OPEN:
        raise typer.BadParameter(f"is one of {', '.join(OPEN)}.")
    return text


RequestId = Annotated[str, typer.Argument(metavar="ID", callback=_request_id, help="The id of the request.")]


def requests(
    call: Call,
    request_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", callback=_request_id, help="Show this one, in whatever state it is."),
    ] = None,
    state: Annotated[str, typer.Option(callback=_state, help="Only those that are unclear, or reserved.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200, metavar="N", help="Show so many at most.")] = 50,
) -> None:
    """List refunds that were asked for and are not settled: the unclear ones first, then the oldest.

    `reserved`: Amazon has not answered yet, and the service goes on trying. `unclear`: Amazon refused it after a try
    whose end nobody knows; send it again with `repeat`, then look in Seller Central, and settle it with
    `settle-request`. `candidateRefundId` is the one
    refund that such a request may have made. Needs a token with the scope refund.
    """
    if request_id:
        answer = call.run(lambda api: api.call("GET", target("refund-requests", request_id, account=call.account)))
        emit_json(answer.body) if call.json else emit_fields(_fields(decode(answer, RefundRequestJson)))
        return
    path = target("refund-requests", state=state, limit=limit, account=call.account)
    answer = call.run(lambda api: api.call("GET", path))
    if call.json:
        emit_json(answer.body)
        return
    found = decode(answer, RequestListJson)
    for each in found.requests:
        emit_rich(_line(each))
    if not found.requests:
        say(["No request is open."])
    elif found.total > len(found.requests):
        say([f"There are {found.total}: settle these first, or give a greater --limit."])


def repeat(call: Call, request_id: RequestId) -> None:
    """Send an unclear request once more, before you settle it.

    It goes out under the same key of Amazon's, so that Amazon tells what it did before and never refunds twice. Exit
    code 4: Amazon has not answered yet, and the service tries on; 6: it is still unclear. Needs a token with the scope
    refund, whose name is logged.
    """
    path = target("refund-requests", request_id, "repeat", account=call.account)
    answer = call.run(lambda api: api.call("POST", path, wait=30))
    found = decode(answer, RefundRequestJson)
    emit_json(answer.body) if call.json else emit_fields(_fields(found))
    code = {RequestState.RESERVED: UNANSWERED, RequestState.UNCLEAR: STILL_UNCLEAR}.get(RequestState(found.state))
    if code is not None:
        raise typer.Exit(code)


def settle_request(
    call: Call,
    request_id: RequestId,
    refund_id: Annotated[
        str | None,
        typer.Option(
            "--refund-id",
            metavar="REFUND",
            callback=_refund_id,
            help="Amazon did make it, and this is the refund. Amazon is asked whether charge and amount are the same.",
        ),
    ] = None,
    not_issued: Annotated[
        bool,
        typer.Option(
            "--not-issued", help="Amazon made no refund. The amount is free again; this request is never tried again."
        ),
    ] = False,
) -> None:
    """Settle an unclear request, once it was repeated and you have looked in Seller Central what became of it.

    Also for one that Amazon keeps refusing for its form (amazon_refuses_us), which would be tried for ever.

    Say --not-issued only if you are sure: if the refund was made after all, the buyer may be paid twice. Needs a token
    with the scope refund, whose name is kept with the request.
    """
    if (refund_id is None) != not_issued:
        raise ConfigurationError(["Give either --refund-id REFUND or --not-issued."])
    body = {"notIssued": True} if refund_id is None else {"refundId": refund_id}
    path = target("refund-requests", request_id, "settle", account=call.account)
    answer = call.run(lambda api: api.call("POST", path, body=body))
    emit_json(answer.body) if call.json else emit_fields(_fields(decode(answer, RefundRequestJson)))


def _line(found: RefundRequestJson) -> Text:
    """One line, and the whole id below it: it has to be copied."""
    line = _state_text(found)
    line.append(f"  {short_moment(found.created_at or '', _now())}  {_amount(found)}  {clean(found.charge_id)}")
    line.append(f"  {found.tries} tries")
    if found.last_error:
        line.append(f"  {clean(found.last_error)}")
    if found.candidate_refund_id:
        line.append(f"  perhaps {clean(found.candidate_refund_id)}")
    return line.append(f"\n  {clean(found.refund_request_id)}", "dim")


def _fields(found: RefundRequestJson) -> Sequence[tuple[str, str | Text | None]]:
    amazon = found.amazon
    said = None if amazon is None else f"{amazon.status} {amazon.reason_code or ''}".strip()
    return [
        ("Request", found.refund_request_id),
        ("State", _state_text(found)),
        ("Refund", found.refund_id),
        ("Candidate", found.candidate_refund_id),
        ("MoneyJson", _amount(found)),
        ("Charge", found.charge_id),
        ("Order", found.order_reference),
        ("Retry of", found.retry_of),
        ("Tries", f"{found.tries}{', one of unknown end' if found.may_have_reached_amazon else ''}"),
        ("Last error", found.last_error),
        ("Detail", found.detail),
        ("Amazon said", said),
        ("Amazon's id", amazon.request_id if amazon else None),
        ("Issued by", found.issued_by),
        ("Besides", ", ".join(found.besides)),
        ("Settled by", found.settled_by),
        ("Account", found.account),
        ("Created", moment(found.created_at)),
        ("Changed", moment(found.changed_at)),
    ]


def _state_text(found: RefundRequestJson) -> Text:
    return Text(clean(found.state), STYLES.get(found.state, "yellow"))


def _amount(found: RefundRequestJson) -> str:
    money = found.refund_amount
    return clean(f"{money.amount} {money.currency_code}") if money else ""


def register(app: typer.Typer) -> None:
    """Make these commands of `receiver refund`."""
    api_command(app)(requests)
    api_command(app)(repeat)
    api_command(app, name="settle-request")(settle_request)
