"""HTTP. `POST /v1/refunds/{id}/close` and `/reopen`: a person ends the case of a declined refund, or undoes that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from receiver.errors import BadRequest
from receiver.http.api.auth import actor_of
from receiver.http.api.bodies import REFUND_FIELD, check_fields, object_schema, read_object
from receiver.http.api.lookup import find_refunds, the_refund
from receiver.http.api.operations import AMAZON, COMMIT, ISSUE, Answer, Body, Call, Operation
from receiver.http.api.params import ACCOUNT, REFUND, Schema
from receiver.http.api.refunds import ONE
from receiver.http.problems import RefundProblemJson
from receiver.issue.cases import Closing
from receiver.issue.issuer import Issuer
from receiver.ledger.audit import Actor
from receiver.ledger.order_reference import UNKEPT
from receiver.ledger.refund import REFUND_ID, How, Refund
from receiver.ledger.resolution import BY_PERSON
from receiver.ledger.schema import MAX_TEXT, RefundJson, refund_json, tidy
from receiver.store import Store
from receiver.track.current import current_refunds

HOW: Final = sorted(BY_PERSON)
FIELDS: Final = ("how", "refundId", "note")
NOTE: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_TEXT,
    "pattern": r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
    "description": "For people who read the case later. No control characters.",
}
CLOSE: Final[Schema] = {
    "description": "How the case of a declined refund ended.",
    "oneOf": [
        object_schema(
            "Another refund of the charge paid the buyer.",
            ("how", "refundId"),
            {
                "how": {"const": How.REFUNDED_ELSEWHERE.value},
                "refundId": {
                    **REFUND_FIELD,
                    "description": "That refund: Refunded, and used for no other case.",
                },
                "note": NOTE,
            },
            {"how": "refunded_elsewhere", "refundId": "S01-5105180-3221187-R022312"},
        ),
        object_schema(
            "The buyer was paid another way (compensated: store credit, a gift card, a check), or is owed nothing "
            "(not_owed: after a claim, a chargeback or a returned order).",
            ("how", "note"),
            {"how": {"type": "string", "enum": [How.COMPENSATED.value, How.NOT_OWED.value]}, "note": NOTE},
            {"how": "compensated", "note": "Gift card of 14.00 USD, sent on 29 November."},
        ),
    ],
}


class CaseApi:
    def __init__(self, store: Store, issuers: Mapping[str, Issuer]) -> None:
        self._store, self._issuers = store, issuers

    @Operation(
        "POST",
        "/v1/refunds/{refund_id}/close",
        id="closeRefund",
        tag="refunds",
        summary="Close the case of a declined refund",
        about="A case closes automatically once Amazon reports the refund or one of its reissues as Refunded. Use this "
        "if the buyer was paid another way, or is owed nothing. Repeating it changes nothing. A refund whose case is "
        "closed is not reissued.",
        scopes=ISSUE,
        parameters=(REFUND, ACCOUNT),
        body=Body(CLOSE),
        answers=(Answer(200, RefundJson, "The first refund of the chain of reissues, which has the case."),),
        problem=RefundProblemJson,
        reasons=(
            {
                400: ("unknown_field", "bad_how", "bad_note"),
                409: (
                    *("not_declined", "already_closed", "being_reissued"),
                    *("other_charge", "not_refunded", "already_used"),
                ),
                422: ("amazon_refused", "amazon_not_found"),
                502: (AMAZON,),
            },
            *ONE,
            COMMIT,
        ),
    )
    async def close(self, call: Call) -> RefundJson:
        closing = read_closing(await read_object(call.request), actor_of(call.request, call.caller))
        refund = the_refund(await find_refunds(self._store, call.accounts, call[REFUND]), call[REFUND])
        return await self._answer(await self._issuers[refund.account].cases.close(refund.refund_id, closing))

    @Operation(
        "POST",
        "/v1/refunds/{refund_id}/reopen",
        id="reopenRefund",
        tag="refunds",
        summary="Reopen a case that a person closed",
        about="An open case stays as it is.",
        scopes=ISSUE,
        parameters=(REFUND, ACCOUNT),
        answers=(Answer(200, RefundJson, "The first refund of the chain of reissues, which has the case."),),
        reasons=(
            {409: ("not_declined", "already_paid")},
            *ONE,
            COMMIT,
        ),
    )
    async def reopen(self, call: Call) -> RefundJson:
        refund = the_refund(await find_refunds(self._store, call.accounts, call[REFUND]), call[REFUND])
        actor = actor_of(call.request, call.caller)
        return await self._answer(await self._issuers[refund.account].cases.reopen(refund.refund_id, actor))

    async def _answer(self, refund: Refund) -> RefundJson:
        (current,) = await current_refunds(self._store.of(refund.account), [refund])
        return refund_json(current)


def read_closing(fields: Mapping[str, Any], actor: Actor) -> Closing:
    """How a person closes a case. Raises `BadRequest`."""
    check_fields(fields, FIELDS)
    return Closing(_how(fields), actor, _note(fields), _refund_id(fields))


def _how(fields: Mapping[str, Any]) -> How:
    value = fields.get("how")
    if value not in HOW:
        raise BadRequest(f"`how` must be one of {', '.join(HOW)}.", reason="bad_how")
    return How(value)


def _note(fields: Mapping[str, Any]) -> str:
    value = fields.get("note")
    if value is None and fields.get("how") == How.REFUNDED_ELSEWHERE:
        return ""
    if not isinstance(value, str) or len(value) > MAX_TEXT or not tidy(value) or UNKEPT.search(value):
        raise BadRequest(
            f"`note` must be a text of 1 to {MAX_TEXT} printable characters that says how the case ended.",
            reason="bad_note",
        )
    # Stored as it is shown: without characters that reverse, hide or break the text.
    return tidy(value, MAX_TEXT)


def _refund_id(fields: Mapping[str, Any]) -> str:
    value = fields.get("refundId", "")
    if fields.get("how") != How.REFUNDED_ELSEWHERE:
        if value:
            raise BadRequest("`refundId` is only for refunded_elsewhere.", reason="bad_refund_id")
        return ""
    if not isinstance(value, str) or not REFUND_ID.fullmatch(value):
        raise BadRequest(
            "`refundId` must be the id of the refund that paid the buyer, such as S01-5105180-3221187-R022311.",
            reason="bad_refund_id",
        )
    return value
