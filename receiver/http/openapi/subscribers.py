"""HTTP. Operations on subscribers, what they are owed, and the feed of events, described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from receiver.http.api.deliveries import CURSOR, LIMIT, MOST, STREAM_ID
from receiver.http.api.params import WORD
from receiver.http.api.schema import (
    AddedSubscriberJson,
    ChangedSubscriberJson,
    DeliveryListJson,
    EventPageJson,
    RedriveJson,
    SubscriberJson,
    SubscriberListJson,
    SubscriberWithStatsJson,
    TestedJson,
    TestPendingJson,
)
from receiver.http.feed.feed import LIMIT as EVENTS_LIMIT
from receiver.http.feed.feed import LONGEST_WAIT
from receiver.http.feed.feed import MOST as MOST_EVENTS
from receiver.http.feed.reader import EVENT_STREAM, TYPES
from receiver.http.openapi.bodies import ADD_SUBSCRIBER, CHANGE_SUBSCRIBER, REDRIVE, ROTATE, whole
from receiver.http.openapi.refunds import ONE_ACCOUNT, READ, TEXT, number
from receiver.http.openapi.vocabulary import (
    ACCOUNT,
    JSON,
    LISTED,
    OBJECT,
    QUERY,
    SEVERAL,
    STORE,
    Answer,
    Body,
    Operation,
    Parameter,
    Reasons,
    Schema,
)
from receiver.settings.sections import Scope

ADMIN: Final = (Scope.ADMIN,)
NAME: Final = Parameter("name", "The subscriber's name.", TEXT, place="path", required=True, example="finance")
ONE: Final[tuple[Reasons, ...]] = ({404: ("no_such_subscriber",)}, SEVERAL, QUERY, STORE)
STREAM: Final[Schema] = {
    "type": "string",
    "description": "Server-sent events. `event` is the type of the event whose CloudEvent is `data`, or cursor (where "
    "you are), reset (events may be lost), bye (the server ends). The `id` of each is a cursor.",
}

EVENT_TYPE: Final = "|".join(map(re.escape, TYPES))
PLACE: Final[Schema] = {
    "anyOf": [{"enum": ["beginning", "now"]}, {"type": "string", "description": "A cursor that the feed gave."}]
}


def listed(pattern: str) -> Schema:
    """Words that match the pattern, separated by commas. Empty: all."""
    return {"type": "string", "pattern": f"^(?:(?:{pattern})(?:,(?:{pattern}))*)?$"}


def subscriber(operation: str) -> dict[str, Schema]:
    """That the answer's subscriber is what the operation is about."""
    parameters = {"name": "$response.body#/name", "query.account": "$response.body#/account"}
    return {operation: {"operationId": operation, "parameters": parameters}}


OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("/v1/subscribers", "get"): Operation(
        id="listSubscribers",
        tag="subscribers",
        summary="Who is told about refunds",
        scopes=ADMIN,
        parameters=(ONE_ACCOUNT,),
        answers=(Answer(200, {JSON: SubscriberListJson}),),
        reasons=(ACCOUNT, QUERY, STORE),
    ),
    ("/v1/subscribers", "post"): Operation(
        id="addSubscriber",
        tag="subscribers",
        summary="Add a subscriber",
        about="Where the format signs and no secret is given, one is made and shown in this answer, and never again. "
        "An account has at most `delivery.max_subscribers` of them (100 by default).",
        scopes=ADMIN,
        body=Body(ADD_SUBSCRIBER),
        answers=(
            Answer(
                201,
                {JSON: AddedSubscriberJson},
                headers={"Location": "Where the subscriber is."},
                links={
                    **subscriber("getSubscriber"),
                    **subscriber("pauseSubscriber"),
                    **subscriber("removeSubscriber"),
                },
            ),
        ),
        reasons=(
            {
                400: ("bad_parameter", "bad_subscriber", "bad_start"),
                409: ("account_needed", "subscriber_exists", "too_many_subscribers"),
            },
            ACCOUNT,
            OBJECT,
            QUERY,
            STORE,
        ),
    ),
    ("/v1/subscribers/{name}", "get"): Operation(
        id="getSubscriber",
        tag="subscribers",
        summary="A subscriber, and how it fares",
        scopes=ADMIN,
        parameters=(NAME, ONE_ACCOUNT),
        answers=(Answer(200, {JSON: SubscriberWithStatsJson}),),
        reasons=ONE,
    ),
    ("/v1/subscribers/{name}", "patch"): Operation(
        id="changeSubscriber",
        tag="subscribers",
        summary="Change fields of a subscriber",
        scopes=ADMIN,
        parameters=(NAME, ONE_ACCOUNT),
        about="Where the `url` gets another scheme, host or port, the credentials that the subscriber has must be in "
        "the same change: `secret` of a cloudevents subscriber, `routingKey`, `authorization` (null: none any more). "
        "Else it is 400 credential_needed, and nothing is changed. A secret that was made is in this answer, and never "
        "again.",
        body=Body(CHANGE_SUBSCRIBER),
        answers=(Answer(200, {JSON: ChangedSubscriberJson}),),
        reasons=({400: ("bad_subscriber", "credential_needed"), 409: ("configured",)}, OBJECT, *ONE),
    ),
    ("/v1/subscribers/{name}", "delete"): Operation(
        id="removeSubscriber",
        tag="subscribers",
        summary="Remove a subscriber, with everything it was owed",
        scopes=ADMIN,
        parameters=(NAME, ONE_ACCOUNT),
        answers=(Answer(204),),
        reasons=({409: ("configured",)}, *ONE),
    ),
    ("/v1/subscribers/{name}/rotate", "post"): Operation(
        id="rotateSecret",
        tag="subscribers",
        summary="Give a subscriber another secret; the ones of before go on signing for a while",
        scopes=ADMIN,
        parameters=(NAME, ONE_ACCOUNT),
        body=Body(ROTATE, required=False),
        answers=(Answer(200, {JSON: ChangedSubscriberJson}),),
        reasons=(
            {
                400: ("unknown_field", "bad_parameter", "bad_secret"),
                409: ("configured", "not_signed", "secret_exists", "too_many_secrets"),
            },
            OBJECT,
            *ONE,
        ),
    ),
    ("/v1/subscribers/{name}/pause", "post"): Operation(
        id="pauseSubscriber",
        tag="subscribers",
        summary="Send a subscriber nothing until it is resumed; what it is owed waits",
        scopes=ADMIN,
        parameters=(NAME, ONE_ACCOUNT),
        answers=(Answer(200, {JSON: SubscriberJson}),),
        reasons=ONE,
    ),
    ("/v1/subscribers/{name}/resume", "post"): Operation(
        id="resumeSubscriber",
        tag="subscribers",
        summary="Send a subscriber what has waited, at its rate",
        scopes=ADMIN,
        parameters=(NAME, ONE_ACCOUNT),
        answers=(Answer(200, {JSON: SubscriberJson}),),
        reasons=ONE,
    ),
    ("/v1/subscribers/{name}/test", "post"): Operation(
        id="testSubscriber",
        tag="subscribers",
        summary="Send a subscriber one test event, also while it is paused",
        about="Answers when the subscriber has, within 30 seconds.",
        scopes=ADMIN,
        parameters=(NAME, ONE_ACCOUNT),
        answers=(
            Answer(200, {JSON: TestedJson}, "It was sent; `delivered` says whether it was taken."),
            Answer(202, {JSON: TestPendingJson}, "Nobody has sent it yet."),
        ),
        reasons=ONE,
    ),
    ("/v1/subscribers/{name}/deliveries", "get"): Operation(
        id="listDeliveries",
        tag="subscribers",
        summary="What a subscriber is owed, or what was given up",
        scopes=ADMIN,
        parameters=(
            NAME,
            ONE_ACCOUNT,
            Parameter("state", "Which.", {"type": "string", "enum": ["waiting", "dead"], "default": "dead"}),
            Parameter(
                "cursor",
                "`nextCursor` of the page before, for the same state.",
                {"type": "string", "pattern": whole(STREAM_ID, CURSOR)},
            ),
            number("limit", "How many.", LIMIT, 1, MOST),
        ),
        answers=(Answer(200, {JSON: DeliveryListJson}),),
        reasons=(LISTED, {400: ("bad_parameter", "bad_cursor")}, *ONE),
    ),
    ("/v1/subscribers/{name}/redrive", "post"): Operation(
        id="redrive",
        tag="subscribers",
        summary="Send events to a subscriber again, with the same webhook-id",
        scopes=ADMIN,
        parameters=(NAME, ONE_ACCOUNT),
        body=Body(REDRIVE),
        answers=(
            Answer(200, {JSON: RedriveJson}, "A dry run: nothing was changed."),
            Answer(202, {JSON: RedriveJson}, "They wait to be sent."),
        ),
        reasons=({400: ("bad_redrive",)}, OBJECT, *ONE),
    ),
    ("/v1/events", "get"): Operation(
        id="followEvents",
        tag="events",
        summary="Every event: server-sent events that resume exactly, or JSON pages with long polling",
        about="A stream for who accepts `text/event-stream`, else a page. A stream has no `limit` and `wait`.",
        scopes=READ,
        parameters=(
            ONE_ACCOUNT,
            Parameter(
                "type",
                "Types, separated by commas, whole or without amazonpay.refund.",
                listed(EVENT_TYPE),
            ),
            Parameter("reason", "Reason codes, separated by commas.", listed(WORD.pattern), example="AmazonRejected"),
            Parameter("after", "Where to begin. Left out: now.", PLACE, example="beginning"),
            number("limit", "Of a page: how many.", EVENTS_LIMIT, 1, MOST_EVENTS),
            number("wait", "Of a page: seconds to wait for an event.", 0, 0, LONGEST_WAIT),
            Parameter(
                "Last-Event-ID", "Of a stream: the cursor to go on from; goes before `after`.", TEXT, place="header"
            ),
        ),
        answers=(Answer(200, {JSON: EventPageJson, EVENT_STREAM: STREAM}, headers={"Vary": "Accept."}),),
        reasons=(LISTED, {400: ("bad_parameter", "bad_cursor"), 503: ("feed_full",)}, ACCOUNT, QUERY, STORE),
    ),
}
