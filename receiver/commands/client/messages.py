"""Command. The messages and exit codes of failed calls."""

from __future__ import annotations

from collections.abc import Callable

from receiver.client.errors import ApiProblem
from receiver.client.retrying import Notify
from receiver.errors import ConfigurationError, ReceiverError, TransportError

MOST_DETAIL = 4_000
HINTS = {
    "account_needed": "Give --account NAME.",
    "no_such_route": "--url must be the address of the service, without /v1.",
    "not_the_api": "Check --url.",
    "several_accounts": "Give --account NAME.",
    "token_missing": "Is a proxy stripping the Authorization header?",
    "token_unknown": "Is it a token of this service? Check RECEIVER_TOKEN or --token-file.",
}


def exit_code(error: ReceiverError) -> int:
    """1: refused. 2: wrong usage or configuration. 3: no answer, or a server error."""
    if isinstance(error, ConfigurationError):
        return 2
    if isinstance(error, TransportError):
        return 2 if error.reason in ("bad_url", "bad_header") else 3
    if 300 <= error.status < 400:
        return 2
    return 1 if 400 <= error.status < 500 else 3


def explain(error: ReceiverError) -> list[str]:
    """The message for the user, as lines. Not yet safe for a terminal."""
    if isinstance(error, ConfigurationError):
        return list(error.problems)
    if isinstance(error, TransportError):
        return [f"{error.detail} Is the service running, and is --url right? [{error.reason}]"]
    lines = error.detail[:MOST_DETAIL].splitlines() or ["No reason was given."]
    code = f"{error.status} {error.reason}".strip()
    lines = [f"{lines[0]} [{code}]"] if len(lines) == 1 else [f"Refused. [{code}]", *(f"  {line}" for line in lines)]
    if error.reason in HINTS:
        lines.append(HINTS[error.reason])
    if isinstance(error, ApiProblem) and error.amazon_request_id:
        lines.append(f"For Amazon Pay support: Amazon's request id is {error.amazon_request_id}.")
    if isinstance(error, ApiProblem) and error.http_request_id and error.status >= 500:
        lines.append(f"See request id {error.http_request_id} in the service's log.")
    return lines


def notifier(say: Callable[[list[str]], None]) -> Notify:
    """Says that the service is unavailable, and that it is back."""

    def notify(error: ReceiverError | None, seconds: float) -> None:
        say([f"{explain(error)[0]} Trying again in {seconds:g} s." if error else "The service is back."])

    return notify
