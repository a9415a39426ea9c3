"""HTTP. `POST /ipn` and `/ipn/{account}` as operations, and their routes."""

from __future__ import annotations

from typing import Final

from starlette.routing import BaseRoute, Route

from receiver.http.api.operations import Answer, Body, Operation
from receiver.http.api.params import Parameter, Schema, in_path
from receiver.http.ipn.endpoint import Ipn

ACCOUNT_IN_PATH: Final = in_path("account", "Our name of the account.", "us")
NOTIFICATION: Final[Schema] = {
    "type": "string",
    "contentMediaType": "application/json",
    "description": "The message of Amazon SNS, byte for byte as it came. Any Content-Type is taken.",
}
TO_SNS: Final = {
    400: "Unreadable: final to SNS. No body; the reason is in the log and in receiver_notifications_total.",
    403: "Not proven to come from Amazon Pay: final to SNS. No body.",
    413: "Longer than any notification: final to SNS. No body.",
    415: "Encoded: final to SNS. No body.",
    500: "The service has a fault: SNS sends it again. No body.",
    503: "The service's own trouble, a topic or merchant that nobody configured, or the port is http.admin_port: SNS "
    "sends it again. No body.",
}


def _operation(path: str, id_: str, about: str, *parameters: Parameter[str]) -> Operation:
    return Operation(
        "POST",
        path,
        id=id_,
        tag="notifications",
        summary="Take a notification of Amazon Pay",
        about=f"{about} Needs no token: the proof is its signature. A slash at the end of the path changes nothing.",
        parameters=parameters,
        body=Body(NOTIFICATION, media_type="text/plain"),
        answers=(
            Answer(
                200,
                about="Written down: no need to send it again. Also where it is proven and not understood: then it is "
                "kept (`/v1/notifications`). No body.",
            ),
        ),
        bare=TO_SNS,
        problem=None,
    )


OPERATIONS: Final = (
    _operation("/ipn", "receiveNotification", "For all accounts that its topic and merchant fit."),
    _operation("/ipn/{account}", "receiveNotificationOfAccount", "For one account.", ACCOUNT_IN_PATH),
)


def ipn_routes(ipn: Ipn) -> list[BaseRoute]:
    """Notifications. A slash at the end is no reason to lose one: SNS does not follow redirects."""
    return [Route(path, ipn) for each in OPERATIONS for path in (each.path, f"{each.path}/")]
