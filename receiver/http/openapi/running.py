"""HTTP. Operations for Amazon and for those who run the service, described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from receiver.http.api.notifications import LIMIT as NOTIFICATION_LIMIT
from receiver.http.api.notifications import NOTIFICATION_ID, UnrecognizedListJson, UnrecognizedMessageJson
from receiver.http.api.schema import AliveJson, DiagnosticsJson, ReadinessJson
from receiver.http.openapi.bodies import whole
from receiver.http.openapi.refunds import ONE_ACCOUNT, TEXT, number
from receiver.http.openapi.subscribers import ADMIN
from receiver.http.openapi.vocabulary import ACCOUNT as OF_ACCOUNT
from receiver.http.openapi.vocabulary import JSON, LISTED, QUERY, STORE, Answer, Body, Operation, Parameter, Schema
from receiver.runtime.metrics import CONTENT_TYPE
from receiver.store.refunds.notifications import MOST_KEPT

ACCOUNT: Final = Parameter("account", "Our name of the account.", TEXT, place="path", required=True, example="us")
NOTIFICATION: Final[Schema] = {
    "type": "string",
    "contentMediaType": "application/json",
    "description": "The message of Amazon SNS, byte for byte as it came. Any Content-Type is taken.",
}
FORM: Final[Schema] = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "string", "pattern": "^[A-Za-z]{1,32}$"},
        "operation": {"type": "string", "pattern": "^[A-Za-z]{0,32}$"},
        "transactionId": {"type": "string"},
        "referenceId": {"type": "string", "description": "Of a refund: the reference that was ordered here."},
    },
    "additionalProperties": {"type": "string"},
    "description": "The fields of a status notification, as FPS or Simple Pay named them; their case does not count.",
    "examples": [{"status": "SUCCESS", "operation": "REFUND", "referenceId": "order-4711-refund-1"}],
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
TO_FPS: Final = {
    **{status: TO_SNS[status] for status in (413, 415, 500)},
    400: "Garbled. No body.",
    404: "There is no such account, or it has no Flexible Payments. No body.",
    503: "There is no order under this reference yet, or the service has trouble of its own. No body.",
}


def notification(id_: str, about: str, *parameters: Parameter) -> Operation:
    """Where Amazon SNS posts to."""
    return Operation(
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


OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("/ipn", "post"): notification("receiveNotification", "For all accounts that its topic and merchant fit."),
    ("/ipn/{account}", "post"): notification("receiveNotificationOfAccount", "For one account.", ACCOUNT),
    ("/fps/{account}", "post"): Operation(
        id="receiveFpsNotification",
        tag="notifications",
        summary="Take a status notification of Flexible Payments, which Amazon retired in 2015",
        about="Nothing proves such a form any more: it only makes a refund that was ordered here due now.",
        parameters=(ACCOUNT,),
        body=Body(FORM, media_type="application/x-www-form-urlencoded"),
        answers=(Answer(200, about="Noted, or not about a refund. No body."),),
        bare=TO_FPS,
        problem=None,
    ),
    ("/v1/notifications", "get"): Operation(
        id="listNotifications",
        tag="operation",
        summary="Notifications that are proven and not understood, newest first",
        about=f"The last {MOST_KEPT:,} of each account are kept, for 30 days. Amazon was asked about every refund that "
        "they name.",
        scopes=ADMIN,
        parameters=(ONE_ACCOUNT, number("limit", "How many.", NOTIFICATION_LIMIT, 1, MOST_KEPT)),
        answers=(Answer(200, {JSON: UnrecognizedListJson}),),
        reasons=(LISTED, {400: ("bad_parameter",)}, OF_ACCOUNT, QUERY, STORE),
    ),
    ("/v1/notifications/{notification_id}", "get"): Operation(
        id="getNotification",
        tag="operation",
        summary="One of them, with its message",
        scopes=ADMIN,
        parameters=(
            Parameter(
                "notification_id",
                "`notificationId` of the list.",
                {**TEXT, "pattern": whole(NOTIFICATION_ID)},
                place="path",
                required=True,
                example="17bf00c4-8bf8-5f70-9f25-51097f9450e5",
            ),
            ONE_ACCOUNT,
        ),
        answers=(Answer(200, {JSON: UnrecognizedMessageJson}),),
        reasons=({400: ("bad_notification_id",), 404: ("no_such_notification",)}, OF_ACCOUNT, QUERY, STORE),
    ),
    ("/v1/diagnostics", "get"): Operation(
        id="getDiagnostics",
        tag="operation",
        summary="What only the running process knows, since its start",
        scopes=ADMIN,
        answers=(Answer(200, {JSON: DiagnosticsJson}),),
        reasons=(QUERY,),
    ),
    ("/healthz", "get"): Operation(
        id="isAlive",
        tag="operation",
        summary="Whether the process answers",
        about="Needs no token: let it be reached from inside only.",
        answers=(Answer(200, {JSON: AliveJson}),),
    ),
    ("/readyz", "get"): Operation(
        id="isReady",
        tag="operation",
        summary="Whether it can work, and what is wrong",
        about="Needs no token: let it be reached from inside only.",
        answers=(Answer(200, {JSON: ReadinessJson}), Answer(503, {JSON: ReadinessJson}, "It cannot.")),
    ),
    ("/metrics", "get"): Operation(
        id="getMetrics",
        tag="operation",
        summary="Counters and gauges for Prometheus",
        about="Needs no token: let it be reached from inside only.",
        answers=(Answer(200, {CONTENT_TYPE: TEXT}),),
    ),
    ("/openapi.json", "get"): Operation(
        id="getDescription",
        tag="operation",
        summary="This description",
        parameters=(Parameter("If-None-Match", "An `ETag` that you have; a list, or `*`.", TEXT, place="header"),),
        answers=(
            Answer(200, {JSON: {"type": "object"}}, headers={"ETag": "Of this version."}),
            Answer(304, headers={"ETag": "Of this version."}),
        ),
    ),
}
