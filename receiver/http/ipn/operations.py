"""HTTP. `POST /ipn` and `/ipn/{account}` as operations, and their routes."""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from receiver.http.api.operations import Answer, Body, Operation
from receiver.http.api.params import Parameter, Schema, in_path
from receiver.http.ipn.endpoint import Ipn

ACCOUNT_IN_PATH: Final = in_path("account", "The account's name in the settings.", "us")
NOTIFICATION: Final[Schema] = {
    "type": "string",
    "contentMediaType": "application/json",
    "description": "The Amazon SNS message, byte for byte as received. Any Content-Type is accepted.",
}
TO_SNS: Final = {
    400: "Malformed: SNS does not retry. No body; the reason is in the log and in receiver_notifications_total.",
    403: "Not proven to come from Amazon Pay: SNS does not retry. No body.",
    413: "Longer than any notification: SNS does not retry. No body.",
    415: "Encoded: SNS does not retry. No body.",
    500: "Internal error: SNS retries. No body.",
    501: "A transfer coding other than chunked: SNS retries. No body.",
    503: "A temporary problem of the service, a topic or merchant that is not configured, or the port is "
    "http.admin_port: SNS retries. No body.",
}


def _operation(path: str, id_: str, about: str, *parameters: Parameter[str]) -> Operation:
    return Operation(
        "POST",
        path,
        id=id_,
        tag="notifications",
        summary="Receive a notification from Amazon Pay",
        about=f"{about} Needs no token: its signature authenticates it. A trailing slash in the path is ignored.",
        parameters=parameters,
        body=Body(NOTIFICATION, media_type="text/plain"),
        answers=(
            Answer(
                200,
                about="Saved: no retry needed. Also for a notification that is proven but not understood: it is kept "
                "(`/v1/notifications`). No body.",
            ),
        ),
        bare=TO_SNS,
        problem=None,
    )


OPERATIONS: Final = (
    _operation("/ipn", "receiveNotification", "For all accounts that match its topic and merchant."),
    _operation("/ipn/{account}", "receiveNotificationOfAccount", "For one account.", ACCOUNT_IN_PATH),
)


def ipn_routes(ipn: Ipn) -> list[Route]:
    """Notification routes, with and without a trailing slash: SNS does not follow redirects."""
    return [Route(path, ipn) for each in OPERATIONS for path in (each.path, f"{each.path}/")]
