"""What schemathesis is told beside the description: not to wait, and which good-looking input may be refused.

Its own check `positive_data_acceptance` goes by statuses; `good_input_is_taken` goes by reasons, each of which is for
something that no JSON Schema can say.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

BEYOND = {
    "listRefunds": {"bad_cursor", "bad_parameter"},
    "followEvents": {"bad_cursor"},
    "listDeliveries": {"bad_cursor"},
    "createRefund": {"bad_amount", "bad_soft_descriptor", "bad_order_reference", "currency_mismatch"},
    "createFpsRefund": {"bad_amount", "bad_description"},
    "addSubscriber": {"bad_subscriber"},
    "changeSubscriber": {"bad_subscriber"},
    "rotateSecret": {"bad_parameter", "bad_secret"},
}
"""Operation → reasons. A cursor is one that was given; amounts have no more places than their currency, and are not
zero; texts are printable; which fields a subscriber has depends on its format; a span is at most seven days."""
WITHOUT_WORDS = {"receiveNotification", "receiveNotificationOfAccount", "receiveFpsNotification"}
"""Amazon's notifications: nobody else makes one that is believed."""


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Nobody waits for what does not come."""
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | str) and str(wait).isdigit() and 0 < int(wait) <= 60:
        case.query["wait"] = 0


@schemathesis.check
def good_input_is_taken(ctx: CheckContext, response: Response, case: Case) -> None:
    """What the description allows is not refused as bad input, but for `BEYOND`."""
    operation = case.operation.definition.raw.get("operationId")
    if case.meta is None or not case.meta.generation.mode.is_positive or operation in WITHOUT_WORDS:
        return
    if response.status_code == 400:
        reason = response.json()["reason"]
        assert reason in BEYOND.get(operation, ()), f"{reason}: {response.json()['detail']}"
