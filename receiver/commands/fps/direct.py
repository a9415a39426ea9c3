"""Command. `receiver fps refund --endpoint`: sends the signed request from this process, without the service and its
ledger."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import typer
from rich.text import Text

from receiver.amazon.clock import HostClocks
from receiver.amazon.fps import calls
from receiver.amazon.fps.signing import Credentials
from receiver.commands.client.options import ending, read_secret_file
from receiver.commands.console import Fields, emit_fields, emit_json, moment, now_ms, say
from receiver.commands.refund.create import DECLINED
from receiver.commands.refund.views import STYLES
from receiver.commands.setup import transport
from receiver.errors import (
    AmazonError,
    AmazonRefused,
    AmazonRefusesUs,
    AmazonThrottled,
    BadRequest,
    ConfigurationError,
    TransportError,
)
from receiver.exchange import Request, Response, never_sent
from receiver.ledger.refund import State
from receiver.ledger.schema import amazon_time, money_json
from receiver.transport.addresses import is_loopback

ACCESS_KEY_ID, SECRET, SECRET_FILE, ENDPOINT = (
    "FPS_ACCESS_KEY_ID",
    "FPS_SECRET_ACCESS_KEY",
    "FPS_SECRET_FILE",
    "FPS_ENDPOINT",
)
TIMEOUT = 30.0
REFUSED, UNDECIDED = 1, 3

# The API reference: references are kept for seven days, and DuplicateRequest is for a *different* request.
AGAIN = (
    "It is not known whether anything was refunded. Repeat the command with the same REFERENCE and values: within "
    "seven days FPS treats that as the same refund. After that, check the account first."
)
NO_LEDGER = "Called directly: the service does not record or track this refund. Omit --endpoint to use the service."


def run(
    endpoint: str,
    order: calls.FpsRefundRequest,
    *,
    version: str,
    method: str,
    secret_file: Path | None,
    as_json: bool,
) -> None:
    """Send the order, and print the answer. If there is none, or a decline, ends the command with the exit code for
    it."""
    with _explaining():
        url = _endpoint(endpoint)
        credentials = _credentials(secret_file)
        say([NO_LEDGER])
        answer = _ask(url, credentials, order, version=version, method=method)
        emit_json(msgspec.json.encode(as_dict(answer))) if as_json else emit_fields(_fields(answer))
        if answer.observation.state == State.DECLINED:
            raise typer.Exit(DECLINED)


def _ask(
    url: str, credentials: Credentials, order: calls.FpsRefundRequest, *, version: str, method: str
) -> calls.FpsAnswer:
    """Dated by the host's clock: a request refused for its date is repeated once, at once."""
    clocks, host = HostClocks(), urlsplit(url).netloc.lower()
    for repeats in (True, False):
        dated = clocks.date_for(host, now_ms())
        response = asyncio.run(_send(calls.refund(url, credentials, order, dated, version=version, method=method)))
        try:
            return calls.read_refund(response, order, now_ms())
        except AmazonRefusesUs:
            if not (repeats and clocks.refused(host, response, now_ms(), dated=dated)):
                raise
    raise AssertionError


def as_dict(answer: calls.FpsAnswer) -> dict[str, Any]:
    """The answer as JSON: a refund in Amazon Pay's spelling, then FPS's own words."""
    seen = answer.observation
    return {
        "refundId": seen.refund_id,
        "chargeId": seen.charge_id,
        "refundAmount": money_json(seen.amount),
        "statusDetails": {
            "state": str(seen.state),
            "reasonCode": None,
            "reasonDescription": seen.reason_description or None,
            "lastUpdatedTimestamp": amazon_time(seen.updated_at),
        },
        "fps": {
            "refundTransactionReference": seen.refund_id,
            "transactionId": answer.transaction_id,
            "transactionStatus": answer.transaction_status,
            "requestId": answer.amazon_request_id or None,
        },
    }


def _fields(answer: calls.FpsAnswer) -> Fields:
    seen = answer.observation
    return [
        ("Refund", seen.refund_id),
        ("State", Text(str(seen.state), STYLES.get(seen.state, "yellow"))),
        ("FPS's word", answer.transaction_status),
        ("Pending for", seen.reason_description or None),
        ("Amount", str(seen.amount) if seen.amount else "the whole remaining amount"),
        ("Transaction", answer.transaction_id),
        ("Request id", answer.amazon_request_id or None),
        ("As of", moment(amazon_time(seen.updated_at))),
    ]


def _credentials(secret_file: Path | None) -> Credentials:
    """The access key. Raises `ConfigurationError`, which never holds any of the secret."""
    access_key_id = os.environ.get(ACCESS_KEY_ID, "").strip()
    if secret_file is not None:
        secret = read_secret_file(secret_file, "--secret-file")
    else:
        secret = os.environ.get(SECRET, "").strip()
    problems = [] if access_key_id else [f"No access key id. Set {ACCESS_KEY_ID}."]
    if not secret:
        problems.append(f"No secret access key. Set {SECRET} or use --secret-file.")
    if problems:
        raise ConfigurationError(problems)
    try:
        return Credentials(access_key_id, secret)
    except BadRequest as error:
        raise ConfigurationError([error.detail]) from None


def _endpoint(url: str) -> str:
    """The address. Raises `ConfigurationError`, also for plain http to another machine.

    The signed request can be replayed by anyone who sees it.
    """
    try:
        checked = calls.check_address(url)
    except BadRequest as error:
        raise ConfigurationError([f"--endpoint: {error.detail}"]) from None
    parts = urlsplit(checked)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigurationError(["--endpoint: plain http would expose the signed request. Use https."])
    return checked


async def _send(request: Request) -> Response:
    async with transport() as web:
        return await web.send(request, timeout=TIMEOUT)


@contextmanager
def _explaining() -> Iterator[None]:
    """Print what FPS's refusal, or no answer, means."""
    with ending():
        try:
            yield
        except (AmazonRefused, AmazonRefusesUs) as error:
            word = error.reason_code or error.reason
            # Without a code of FPS's it is a page of something on the way, which may hide FPS's answer.
            say([f"{error.detail} [{word}]{_request_id(error)}", *([] if error.reason_code else [AGAIN])])
            raise typer.Exit(REFUSED if error.reason_code else UNDECIDED) from None
        except AmazonThrottled as error:
            say([f"{error.detail} Nothing was refunded. Try again later.{_request_id(error)}"])
            raise typer.Exit(UNDECIDED) from None
        except AmazonError as error:
            say([f"{error.detail} [{error.reason}]{_request_id(error)}", AGAIN])
            raise typer.Exit(UNDECIDED) from None
        except TransportError as error:
            advice = "Nothing was sent. Check --endpoint." if never_sent(error.reason) else AGAIN
            say([f"{error.detail} [{error.reason}]", advice])
            raise typer.Exit(UNDECIDED) from None


def _request_id(error: AmazonError) -> str:
    return f" Amazon's request id: {error.amazon_request_id}." if error.amazon_request_id else ""
