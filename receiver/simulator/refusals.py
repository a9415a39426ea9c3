"""Pure. How Amazon, or an intermediary, refuses a request: the table behind the trick `refuse`.

`date` to `tls` refuse the request itself and say nothing about a refund; `amount` to `charge` are verdicts on a refund.
With `place`, `access` is a key without the right to one call: `{"trick": "refuse", "kind": "access", "place":
"get_dispute", "times": null}`.
"""

from __future__ import annotations

from enum import StrEnum

from receiver.simulator.faults import Fault


class Refusal(StrEnum):
    DATE = "date"
    HEADER = "header"
    SIGNATURE = "signature"
    KEY = "key"
    ACCESS = "access"
    HOLD = "hold"
    FIELD = "field"
    VALUE = "value"
    CONFLICT = "conflict"
    PAGE = "page"
    PROXY = "proxy"
    TLS = "tls"
    AMOUNT = "amount"
    COUNT = "count"
    CHARGE = "charge"


TABLE = {
    Refusal.DATE: (400, "InvalidHeaderValue", "The value provided for x-amz-pay-date should not be in future"),
    Refusal.HEADER: (400, "MissingHeader", "The header x-amz-pay-region is missing."),
    Refusal.SIGNATURE: (401, "InvalidRequestSignature", "Unable to verify signature."),
    Refusal.KEY: (401, "InvalidAuthentication", "Unknown public key id."),
    Refusal.ACCESS: (401, "UnauthorizedAccess", "The key has no access to this operation."),
    Refusal.HOLD: (403, "InvalidAccountStatus", "The merchant account is on hold."),
    Refusal.FIELD: (400, "UnrecognizedField", "A field of the body is not known."),
    Refusal.VALUE: (400, "InvalidParameterValue", "The value provided for 'softDescriptor' is invalid."),
    Refusal.CONFLICT: (409, "RequestNotSupported", "The request cannot be accepted at the moment."),
    Refusal.PAGE: (403, "", "Forbidden by the firewall"),
    Refusal.PROXY: (407, "", "Proxy Authentication Required"),
    Refusal.TLS: (426, "", "Upgrade Required"),
    Refusal.AMOUNT: (422, "TransactionAmountExceeded", "The amount is more than can be refunded."),
    Refusal.COUNT: (422, "TransactionCountExceeded", "The charge has been refunded ten times."),
    Refusal.CHARGE: (422, "InvalidChargeStatus", "The charge is not captured."),
}
"""Status, reason code and text. Without a code it is an HTML page, which is not Amazon's."""


def refusal_of(kind: str) -> Fault:
    """The fault for this kind of refusal; without a kind, the date is refused."""
    chosen = Refusal(kind or Refusal.DATE)
    status, code, message = TABLE[chosen]
    page = b"" if code else f"<html><title>{message}</title><h1>{message}</h1></html>".encode()
    return Fault(status, code, message, f"refuse_{chosen}", page=page)
