"""What schemathesis needs in addition to the description: not to wait, and which valid-looking input may be refused.

Its own check `positive_data_acceptance` compares statuses; `good_input_is_taken` compares reasons, each of which is for
something that no JSON Schema can express.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

BEYOND = {
    "listRefunds": {"bad_cursor", "bad_parameter", "unknown_state", "unknown_reason"},
    "listJobs": {"bad_cursor"},
    "followEvents": {"bad_cursor"},
    "listDeliveries": {"bad_cursor"},
    "listFindings": {"bad_cursor"},
    "reconcile": {"bad_reconciliation", "other_merchant", "other_environment", "report_incomplete"},
    "createRefund": {"bad_amount", "bad_soft_descriptor", "bad_order_reference", "currency_mismatch"},
    "retryRefunds": {"unknown_reason"},
    "createFpsRefund": {"bad_amount", "bad_description"},
    "addSubscriber": {"bad_subscriber"},
    "putSubscriber": {"bad_subscriber", "credential_needed"},
    "changeSubscriber": {"bad_subscriber", "credential_needed"},
    "rotateSecret": {"bad_parameter", "bad_secret"},
}
"""Operation → reasons. A cursor is one that was given; amounts have no more places than their currency, and are not
zero; a state or reason is one that a refund has; texts are printable; which fields a subscriber has depends on its
format; credentials are given again where the url moves to another host; a span is at most seven days."""
WITHOUT_WORDS = {"receiveNotification", "receiveNotificationOfAccount", "receiveFpsNotification"}
"""Amazon's notifications: no other sender can make one that is believed."""


KNOWN = {"refund_id": os.environ.get("REFUND", ""), "name": "finance"}
EXAMPLE_CHARGE = "S01-5105180-3221187-C056351"
turns = itertools.count()


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Examples, and every other well-formed case, are about what there is; no test waits for what does not come."""
    if case.meta is not None and case.meta.generation.mode.is_positive:
        usual = next(turns) % 2
        for name in KNOWN.keys() & (case.path_parameters or {}).keys():
            if usual or case.path_parameters[name].startswith("S01-5105180"):
                case.path_parameters[name] = KNOWN[name]
        if isinstance(case.body, dict) and (usual or case.body.get("chargeId") == EXAMPLE_CHARGE):
            case.body.update({"chargeId": os.environ["CHARGE"]} if "chargeId" in case.body else {})
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | str) and str(wait).isdigit() and 0 < int(wait) <= 60:
        case.query["wait"] = 0


@schemathesis.check
def good_input_is_taken(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """What the description allows is not refused as bad input, but for `BEYOND`."""
    operation = case.operation.definition.raw.get("operationId")
    if case.meta is None or not case.meta.generation.mode.is_positive or operation in WITHOUT_WORDS:
        return
    if response.status_code == 400:
        reason = response.json()["reason"]
        assert reason in BEYOND.get(operation, ()), f"{reason}: {response.json()['detail']}"
