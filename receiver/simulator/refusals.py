"""Pure. How Amazon, or an intermediary, refuses a request: the table behind the trick `refuse`.

`date` to `tls` refuse the request itself and say nothing about a refund; `amount` to `charge` are verdicts on a refund.
With `place`, `access` is a key without the right to one call: `{"trick": "refuse", "kind": "access", "place":
"get_dispute", "times": null}`.
"""

from __future__ import annotations

from receiver.simulator.faults import Fault

REFUSALS = {
    "date": (400, "InvalidHeaderValue", "The value provided for x-amz-pay-date should not be in future"),
    "header": (400, "MissingHeader", "The header x-amz-pay-region is missing."),
    "signature": (401, "InvalidRequestSignature", "Unable to verify signature."),
    "key": (401, "InvalidAuthentication", "Unknown public key id."),
    "access": (401, "UnauthorizedAccess", "The key has no access to this operation."),
    "hold": (403, "InvalidAccountStatus", "The merchant account is on hold."),
    "field": (400, "UnrecognizedField", "A field of the body is not known."),
    "value": (400, "InvalidParameterValue", "The value provided for 'softDescriptor' is invalid."),
    "conflict": (409, "RequestNotSupported", "The request cannot be accepted at the moment."),
    "page": (403, "", "Forbidden by the firewall"),
    "proxy": (407, "", "Proxy Authentication Required"),
    "tls": (426, "", "Upgrade Required"),
    "amount": (422, "TransactionAmountExceeded", "The amount is more than can be refunded."),
    "count": (422, "TransactionCountExceeded", "The charge has been refunded ten times."),
    "charge": (422, "InvalidChargeStatus", "The charge is not captured."),
}
"""Status, reason code and text. Without a code it is an HTML page, which is not Amazon's."""


def refusal_of(kind: str) -> Fault:
    """The fault for this kind of refusal; without a kind, the date is refused."""
    status, code, message = REFUSALS[kind or "date"]
    page = b"" if code else f"<html><title>{message}</title><h1>{message}</h1></html>".encode()
    return Fault(status, code, message, f"refuse_{kind or 'date'}", page=page)
