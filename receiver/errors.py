"""Pure. Everything that can go wrong, in one tree: whose fault it is, which HTTP status answers it, and why.

    ReceiverError
    ├── Refused                  the sender is wrong; asking again will not help          4xx
    │   ├── Unreadable           the body is not a message that we could judge            400
    │   ├── NotProven            readable, but not proven to come from Amazon Pay         403
    │   ├── TooLarge             more bytes than a notification ever has                  413
    │   └── Encoded              compressed or otherwise encoded                          415
    ├── Unavailable              our own trouble; the same request may succeed later      503
    │   ├── StoreUnavailable     Redis is down, slow, full or read-only; or damaged (store/damage.py)
    │   ├── CertificateUnavailable   the signing certificate could not be had
    │   ├── DatedInFuture        the message is from our future: our clock may be wrong
    │   ├── Unconfigured         Amazon Pay's own topic, or a merchant, that nobody configured
    │   └── Overloaded           more work than we can finish in time
    ├── Rejected                 a request to our own API is wrong                        4xx
    │   ├── BadRequest 400 · Unauthorized 401 · Forbidden 403 · NotFound 404 · Conflict 409
    │   ├── OtherRefunds 409     other refunds of the charge stand in the way
    │   └── RefundUnclear 409    whether a refund was issued is not known
    ├── AmazonError              Amazon's answer, or the lack of one
    │   ├── AmazonRefused        Amazon's verdict on the refund: no                       4xx of Amazon
    │   │   └── AmazonNotFound   Amazon does not know the object                          404 of Amazon
    │   ├── AmazonRefusesUs      Amazon refused the request: no word about the refund     4xx of Amazon
    │   ├── AmazonThrottled      Amazon asks us to slow down                              429 of Amazon
    │   └── AmazonUnknown        time-out, cut, 5xx or garbage: the outcome is not known
    ├── NotAsked                 there is nothing more to ask Amazon about this refund
    ├── NotSent                  an HTTP exchange did not end in a whole answer
    └── ConfigurationError       the settings cannot work; lists every problem at once

`reason` is a stable, machine-readable word for logs, metrics and `application/problem+json`. The text is for
people, and never holds a secret or a byte of an unverified body.

To SNS, and so to Amazon Pay, a 4xx means "never send this again": `InvalidNotification` is for what is proven wrong,
everything that may be our own trouble is `Unavailable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType


class ReceiverError(Exception):
    """Something went wrong."""

    status = 500
    title = "Internal Server Error"
    reason = "internal_error"
    retry_after: int | None = None
    """Seconds after which asking again is worthwhile; None where it never is."""
    more: Mapping[str, object] = MappingProxyType({})
    """Members that the problem has beside the usual ones."""

    def __init__(self, detail: str = "", *, reason: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail or self.__doc__ or "")
        self.detail = detail or (self.__doc__ or "").strip()
        if reason is not None:
            self.reason = reason
        if retry_after is not None:
            self.retry_after = retry_after

    def __str__(self) -> str:
        return self.detail


class InvalidNotification(ReceiverError):
    """The sender is wrong, and asking again will not help."""

    status = 400
    title = "Bad Request"
    reason = "refused"


class Malformed(InvalidNotification):
    """The body is not a notification."""

    reason = "unreadable"


class VerificationFailed(InvalidNotification):
    """The notification is not proven to come from Amazon Pay."""

    status = 403
    title = "Forbidden"
    reason = "not_proven"


class TooLarge(InvalidNotification):
    """The body is larger than a notification ever is."""

    status = 413
    title = "Content Too Large"
    reason = "too_large"


class Encoded(InvalidNotification):
    """The body is encoded; SNS sends it as it is."""

    status = 415
    title = "Unsupported Media Type"
    reason = "encoded"


class Unavailable(ReceiverError):
    """The service cannot do this just now; the same request may succeed later."""

    status = 503
    title = "Service Unavailable"
    reason = "unavailable"
    retry_after = 30


class StoreUnavailable(Unavailable):
    """Redis did not confirm the write or the read."""

    reason = "store_unavailable"
    retry_after = 5


class CertificateUnavailable(Unavailable):
    """The certificate that signed the notification could not be had, or is not the one that its name promises."""

    reason = "certificate_unavailable"


class DatedInFuture(Unavailable):
    """The notification is dated in the future: this machine's clock may be wrong."""

    reason = "dated_in_future"
    retry_after = 60


class Unconfigured(Unavailable):
    """The notification is for a topic or a merchant of Amazon Pay that no account is configured for."""

    reason = "unconfigured"
    retry_after = 600


class Overloaded(Unavailable):
    """There is more work than can be finished in time."""

    reason = "overloaded"
    retry_after = 2


class ApiError(ReceiverError):
    """The request to this service's API is wrong."""

    status = 400
    title = "Bad Request"
    reason = "rejected"


class BadRequest(ApiError):
    """A parameter or the body is wrong."""

    reason = "bad_request"


class Unauthorized(ApiError):
    """A valid bearer token is required."""

    status = 401
    title = "Unauthorized"
    reason = "unauthorized"


class Forbidden(ApiError):
    """The token may not do this."""

    status = 403
    title = "Forbidden"
    reason = "forbidden"


class NotFound(ApiError):
    """There is no such thing, or the token may not see it."""

    status = 404
    title = "Not Found"
    reason = "not_found"


class Conflict(ApiError):
    """The request contradicts what is already there."""

    status = 409
    title = "Conflict"
    reason = "conflict"


class OtherRefunds(Conflict):
    """Other refunds of the charge stand in the way of this one: `refunds`, as JSON objects."""

    reason = "other_refunds"

    def __init__(self, detail: str, *, reason: str, refunds: Sequence[Mapping[str, object]]) -> None:
        super().__init__(detail, reason=reason)
        self.more = {"refunds": list(refunds)}


class RefundUnclear(Conflict):
    """Whether a refund was issued is not known: a person has to look."""

    reason = "refund_unclear"

    def __init__(self, detail: str, *, refund_request_id: str, candidate: str = "") -> None:
        super().__init__(detail)
        self.more = {"refundRequestId": refund_request_id, "candidateRefundId": candidate or None}


class AmazonError(ReceiverError):
    """Amazon's answer was not the one that was asked for."""

    status = 502
    title = "Bad Gateway"
    reason = "amazon_error"
    reason_code: str = ""
    """Amazon's own word (`reasonCode`); empty where it gave none."""
    request_id: str | None = None
    """Amazon's `X-Amz-Pay-Request-Id`, to quote to Amazon's support."""
    amazon_status: int | None = None
    """Amazon's HTTP status; None where no answer came."""

    def __init__(
        self,
        detail: str = "",
        *,
        reason: str | None = None,
        retry_after: int | None = None,
        reason_code: str = "",
        amazon_status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)
        self.reason_code = reason_code
        self.amazon_status = amazon_status
        self.request_id = request_id


class AmazonRefused(AmazonError):
    """Amazon understood the request, and refused the refund."""

    status = 422
    title = "Unprocessable Content"
    reason = "amazon_refused"


class AmazonNotFound(AmazonRefused):
    """Amazon does not know the object."""

    reason = "amazon_not_found"


class AmazonRefusesUs(AmazonError):
    """Amazon, or something on the way, refused our request: its date, signature, headers, key or account.

    Nothing was done, and nothing was said about the refund. The same request is worth repeating with a new date.
    """

    reason = "amazon_refuses_us"


class AmazonThrottled(AmazonError):
    """Amazon asks for fewer requests (429)."""

    reason = "amazon_throttled"


class AmazonOutcomeUnknown(AmazonError):
    """No answer, half an answer, a 5xx or garbage: what Amazon did is not known."""

    reason = "amazon_unknown"
    refund_id = ""
    """The refund that an answer names although it contradicts the request; empty for none."""


class NothingToAsk(ReceiverError):
    """Amazon is not asked about this refund any more, or is about to be by somebody else.

    `revision` is that of the refund which this was worked out from; 0: there was none.
    """

    reason = "not_asked"

    def __init__(self, detail: str, *, revision: int) -> None:
        super().__init__(detail)
        self.revision = revision


class TransportError(ReceiverError):
    """The HTTP exchange did not end in a whole answer. `reason` says how: see `transport/client.py`."""

    status = 502
    title = "Bad Gateway"
    reason = "network"


class ConfigurationError(ReceiverError):
    """The settings cannot work. `problems` holds one sentence each: the key, what is wrong, the mend."""

    reason = "configuration"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
