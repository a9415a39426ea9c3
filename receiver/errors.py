"""Pure. Every error, in one tree: whose fault it is, which HTTP status answers it, and the reason.

    ReceiverError
    ├── InvalidNotification      the sender is wrong; sending it again will not help      4xx
    │   ├── Malformed            the body is not a message that can be judged             400
    │   ├── VerificationFailed   well formed, but not proven to come from Amazon Pay      403
    │   ├── TooLarge             more bytes than a notification ever has                  413
    │   └── Encoded              compressed or otherwise encoded                          415
    ├── Unavailable              our own trouble; the same request may succeed later      503
    │   ├── StoreUnavailable     Redis is down, slow, full, read-only or damaged (store/redis/damage.py)
    │   ├── CertificateUnavailable   the signing certificate could not be fetched
    │   ├── DatedInFuture        the message is from the future: our clock may be wrong
    │   ├── Unconfigured         a topic or a merchant of Amazon Pay that is not configured
    │   └── Overloaded           more work than can be finished in time
    ├── ApiError                 a request to our own API is wrong                        4xx
    │   ├── BadRequest 400 · Unauthorized 401 · Forbidden 403 · NotFound 404 · Conflict 409
    │   ├── OtherRefunds 409     other refunds of the charge conflict with the new one
    │   └── RefundUnclear 409    it is unknown whether a refund was issued
    ├── AmazonError              Amazon's answer, or the lack of one
    │   ├── AmazonRefused        Amazon refused the refund                                4xx of Amazon
    │   │   └── AmazonNotFound   Amazon does not know the object                          404 of Amazon
    │   ├── AmazonRefusesUs      Amazon refused the request and judged no refund          4xx of Amazon
    │   ├── AmazonThrottled      Amazon asks for fewer requests                           429 of Amazon
    │   └── AmazonOutcomeUnknown time-out, cut, 5xx or garbage: the outcome is unknown
    ├── NothingToAsk             there is nothing left to ask Amazon about this refund
    ├── TransportError           an HTTP exchange did not end in a whole answer
    └── ConfigurationError       the settings cannot work; lists every problem at once

`reason` is a stable, machine-readable word for logs, metrics and `application/problem+json`. The text is for people; it
never holds a secret or a byte of an unverified body.

SNS, and so Amazon Pay, never sends a notification again after a 4xx. `InvalidNotification` is only for what is proven
wrong; whatever may be our own trouble is `Unavailable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType


class ReceiverError(Exception):
    """The base of every error of this project."""

    status = 500
    reason = "internal_error"
    retry_after: int | None = None
    """Seconds after which a repetition may succeed; None: it never will."""
    more: Mapping[str, object] = MappingProxyType({})
    """Additional members of the problem details."""

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
    reason = "refused"


class Malformed(InvalidNotification):
    """The body is not a notification."""

    reason = "unreadable"


class VerificationFailed(InvalidNotification):
    """The notification is not proven to come from Amazon Pay."""

    status = 403
    reason = "not_proven"


class TooLarge(InvalidNotification):
    """The body is larger than a notification ever is."""

    status = 413
    reason = "too_large"


class Encoded(InvalidNotification):
    """The body has a content encoding; SNS sends bodies without one."""

    status = 415
    reason = "encoded"


class Unavailable(ReceiverError):
    """The service cannot do this at present; the same request may succeed later."""

    status = 503
    reason = "unavailable"
    retry_after = 30


class StoreUnavailable(Unavailable):
    """Redis did not confirm the write or the read."""

    reason = "store_unavailable"
    retry_after = 5


class StoreEmptied(StoreUnavailable):
    """Redis lost its data, and the configured subscribers are not written again yet."""

    reason = "store_emptied"


class CertificateUnavailable(Unavailable):
    """The signing certificate could not be fetched, or is not the file that its name promises."""

    reason = "certificate_unavailable"


class DatedInFuture(Unavailable):
    """The notification is dated in the future: this machine's clock may be wrong."""

    reason = "dated_in_future"
    retry_after = 60


class Unconfigured(Unavailable):
    """No account is configured for this topic or merchant of Amazon Pay."""

    reason = "unconfigured"
    retry_after = 600


class Overloaded(Unavailable):
    """There is more work than can be finished in time."""

    reason = "overloaded"
    retry_after = 2


class ApiError(ReceiverError):
    """The request to this service's API is wrong."""

    status = 400
    reason = "rejected"


class BadRequest(ApiError):
    """A parameter or the body is wrong."""

    reason = "bad_request"


class Unauthorized(ApiError):
    """A valid bearer token is required."""

    status = 401
    reason = "unauthorized"


class Forbidden(ApiError):
    """The token may not do this."""

    status = 403
    reason = "forbidden"


class NotFound(ApiError):
    """There is no such thing, or the token may not see it."""

    status = 404
    reason = "not_found"


class Conflict(ApiError):
    """The request contradicts what is already there."""

    status = 409
    reason = "conflict"


class OtherRefunds(Conflict):
    """Other refunds of the charge conflict with this one: `refunds`, as JSON objects."""

    reason = "other_refunds"

    def __init__(self, detail: str, *, reason: str, refunds: Sequence[object]) -> None:
        super().__init__(detail, reason=reason)
        self.more = {"refunds": list(refunds)}


class RefundUnclear(Conflict):
    """It is unknown whether a refund was issued: a person has to look."""

    reason = "refund_unclear"

    def __init__(self, detail: str, *, refund_request_id: str, candidate: str = "") -> None:
        super().__init__(detail)
        self.more = {"refundRequestId": refund_request_id, "candidateRefundId": candidate or None}


class AmazonError(ReceiverError):
    """Amazon's answer was not the one that was asked for."""

    status = 502
    reason = "amazon_error"
    reason_code: str = ""
    """Amazon's own word (`reasonCode`); empty where it gave none."""
    amazon_request_id: str | None = None
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
        amazon_request_id: str | None = None,
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)
        self.reason_code, self.amazon_status, self.amazon_request_id = reason_code, amazon_status, amazon_request_id


class AmazonRefused(AmazonError):
    """Amazon understood the request and refused the refund."""

    status = 422
    reason = "amazon_refused"


class AmazonNotFound(AmazonRefused):
    """Amazon does not know the object."""

    reason = "amazon_not_found"


class AmazonRefusesUs(AmazonError):
    """Amazon, or a proxy, refused our request: its date, signature, headers, key or account.

    Nothing was done, and the refund was not judged. The same request may succeed with a new date.
    """

    reason = "amazon_refuses_us"


class AmazonThrottled(AmazonError):
    """Amazon asks for fewer requests (429)."""

    reason = "amazon_throttled"


class AmazonOutcomeUnknown(AmazonError):
    """No answer, half an answer, a 5xx or garbage: it is unknown what Amazon did."""

    reason = "amazon_unknown"
    refund_id = ""
    """The refund that an answer names although it contradicts the request; empty for none."""


class NothingToAsk(ReceiverError):
    """Amazon is not asked about this refund any more, or another process is about to ask.

    `revision`: the revision of the refund on which this was decided; 0: there was none.
    """

    reason = "not_asked"

    def __init__(self, detail: str, *, revision: int) -> None:
        super().__init__(detail)
        self.revision = revision


class TransportError(ReceiverError):
    """The HTTP exchange did not end in a whole answer. For the values of `reason` see `transport/client.py`."""

    status = 502
    reason = "network"


class ConfigurationError(ReceiverError):
    """The settings cannot work. `problems` holds a sentence for each: the key, what is wrong, the fix."""

    reason = "configuration"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
