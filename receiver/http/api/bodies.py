"""HTTP. Request bodies of the API: reading them, the parts of their schemas, and the account that they name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect, Request

from receiver.errors import BadRequest, Conflict, Malformed
from receiver.http.api.auth import Caller
from receiver.http.api.params import REFUND, Schema, unknown_names, whole
from receiver.ledger.money import AMOUNT, WRITTEN_CURRENCY, Money
from receiver.ledger.timestamps import parse_any_time

MOST_BODY = 64 * 1024
READ_TIMEOUT = 10.0

ACCOUNT_FIELD: Final[Schema] = {
    "type": ["string", "null"],
    "description": "The account's name in the settings. Required if the token sees several.",
}
CURRENCY_FIELD: Final[Schema] = {
    "type": "string",
    "pattern": whole(WRITTEN_CURRENCY),
    "description": "ISO 4217. In any letter case.",
}
REFUND_FIELD: Final = REFUND.schema


def object_schema(about: str, required: tuple[str, ...], properties: Mapping[str, Schema], example: object) -> Schema:
    """An object with exactly these fields."""
    return {
        "type": "object",
        "description": about,
        "required": list(required),
        "properties": dict(properties),
        "additionalProperties": False,
        "examples": [example],
    }


def body_schema(kind: type, example: object) -> Schema:
    """The schema of a body that is decoded as this type, with the parts that it refers to in their places."""
    (whole_schema,), parts = msgspec.json.schema_components([kind], ref_template="{name}")

    def inside(schema: Any) -> Any:
        if isinstance(schema, list):
            return [inside(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        kept = {key: inside(each) for key, each in schema.items() if key not in ("$ref", "discriminator", "title")}
        return {**inside(parts[schema["$ref"]]), **kept} if "$ref" in schema else kept

    return {**inside(whole_schema), "examples": [example]}


def money_schema(currency: Schema, about: str) -> Schema:
    return {
        "type": "object",
        "description": about,
        "required": ["amount", "currencyCode"],
        "properties": {
            "amount": {
                "type": "string",
                "pattern": whole(AMOUNT),
                "description": "Decimal, greater than zero, with no more decimal places than the currency has. A JSON "
                "number without an exponent is accepted too, with its exact digits.",
            },
            "currencyCode": currency,
        },
        "additionalProperties": False,
    }


def read_money(value: object, absent: str = "", *, field: str = "refundAmount") -> Money:
    """An amount in a field. Raises `BadRequest`; `absent` says in the error when it may be omitted."""
    if not isinstance(value, Mapping) or set(value) != {"amount", "currencyCode"}:
        example = '{"amount": "14.00", "currencyCode": "USD"}'
        raise BadRequest(f"`{field}` must be an object such as {example}{absent}.", reason="bad_amount")
    try:
        return Money.written(value["amount"], value["currencyCode"])
    except Malformed as error:
        raise BadRequest(f"`{field}`: {error.detail}", reason=error.reason) from None


def read_time(value: object, field: str, reason: str) -> int:
    """A time (ms) in a field. Raises `BadRequest`."""
    try:
        return max(parse_any_time(value if isinstance(value, str) else ""), 1)
    except Malformed:
        raise BadRequest(f"`{field}` must be a time such as 2026-01-31T12:00:00Z.", reason=reason) from None


def possible_accounts(caller: Caller, named: object) -> Sequence[str]:
    """The accounts that the field `account` may mean. Raises `BadRequest`, `NotFound`."""
    if named is not None and not isinstance(named, str):
        raise BadRequest("`account` must be the name of an account.", reason="bad_parameter")
    return caller.seen(named)


def only_account(accounts: Sequence[str], where: str = "`account`") -> str:
    """The one account that is possible. Raises `Conflict` (`account_needed`) if it must be named; `where` says how."""
    if len(accounts) != 1:
        raise Conflict(f"Specify {where}: one of {', '.join(accounts)}.", reason="account_needed")
    return accounts[0]


async def read_whole(request: Request, what: str, most: int, timeout: float) -> bytes:
    """The body of a request, at most `most` bytes, within `timeout` seconds. `what` names it in error texts.

    Raises `BadRequest`.
    """
    raw = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > most:
                    raise BadRequest(f"The {what} is longer than {most} bytes.", reason="too_large")
    except (TimeoutError, ClientDisconnect):
        raise BadRequest(f"The {what} did not arrive in time.", reason="body_timeout") from None
    return bytes(raw)


async def read_object(request: Request, *, needed: bool = True, most: int = MOST_BODY) -> dict[str, Any]:
    """The body as a JSON object; an absent one is empty if none is needed. Raises `BadRequest`."""
    raw = await read_whole(request, "body", most, READ_TIMEOUT)
    if not raw and not needed:
        return {}
    try:
        value = json.loads(
            raw.decode(), parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_without_duplicates
        )
    except (ValueError, ArithmeticError, RecursionError):
        raise BadRequest("The body is not JSON in UTF-8.", reason="not_json") from None
    if not isinstance(value, Mapping):
        raise BadRequest("The body is not a JSON object.", reason="not_json")
    return dict(value)


def check_fields(fields: Mapping[str, Any], known: Iterable[str], more: str = "") -> None:
    """Raise `BadRequest` (`unknown_field`) that names the fields that are not known; `more` follows in its text."""
    names = [*known]
    unknown = [name for name in fields if name not in names]
    if unknown:
        said = f"{unknown_names('field', unknown, names)} {more}".strip()
        raise BadRequest(said, reason="unknown_field")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Otherwise two parsers of one body could read two different amounts (RFC 8259, 4)."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadRequest("The body contains the same key twice.", reason="duplicate_key")
    return found


def _refuse(name: str) -> None:
    raise ValueError(name)
