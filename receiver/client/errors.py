"""Pure. The errors of a call, in addition to `TransportError` (no whole answer) and `ConfigurationError` (a wrong
address or token)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from receiver.errors import ReceiverError, TransportError

NO_MORE: Mapping[str, Any] = MappingProxyType({})


class ApiProblem(ReceiverError):
    """The service refused or failed: RFC 9457. Branch on `reason`; for one that you do not know, on `status`.

    `detail` says what is wrong, for people. `more` has the other members, such as `refunds` for same_amount_refunded.
    `http_request_id` is in the service's log too; `amazon_request_id` is set where Amazon refused. `retry_after` is in
    seconds.
    """

    more: Mapping[str, Any]

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        reason: str = "",
        http_request_id: str = "",
        amazon_request_id: str = "",
        retry_after: int | None = None,
        more: Mapping[str, Any] = NO_MORE,
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)
        self.status, self.http_request_id, self.amazon_request_id = status, http_request_id, amazon_request_id
        self.more = more


class EventsLost(ReceiverError):
    """Events after the cursor are no longer kept. `accounts`: by account, `trimmed` or `emptied`.

    List the refunds to catch up, and follow again from `beginning`.
    """

    reason = "events_lost"

    def __init__(self, detail: str, accounts: Mapping[str, str]) -> None:
        super().__init__(detail)
        self.accounts = accounts


class ClientClosed(TransportError):
    """The client was closed before the call ended."""

    reason = "client_closed"


def may_pass(error: ReceiverError) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, TransportError):
        return error.reason not in ("bad_url", "bad_header", ClientClosed.reason)
    return isinstance(error, ApiProblem) and (error.status >= 500 or error.status in (408, 429))


def not_the_api() -> ApiProblem:
    """The answer is a success, but not one of this service."""
    return ApiProblem("The answer is not from this service.", status=502, reason="not_the_api")
