"""Pure. What an answer from Amazon means, before the object in it is read. The HTTP status decides first:

    2xx                                     a JSON object, or AmazonOutcomeUnknown("amazon_unintelligible")
    429                                     AmazonThrottled
    408, 425, 1xx, 3xx, 5xx                 AmazonOutcomeUnknown
    404 that may be Amazon's                AmazonNotFound
    other 4xx with a code of `VERDICTS`     AmazonRefused
    any other 4xx                           AmazonRefusesUs

`reasonCode` comes second: the published lists of codes are incomplete, and unreliable about HTTP statuses. Only
`VERDICTS` concern the refund. Everything else concerns our request, or comes from a proxy in between.

Amazon's answers are bounded like any other input. An answer over a limit is unintelligible, so it is no verdict, and
Amazon is asked again:

    whole answer     64 KiB of body (`transport/client.py`, as are head and time), 16 levels, UTF-8, no content encoding
    single value     32 digits and 32 places; each key once. Beyond that the value is unreadable
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from receiver.amazon.nesting import MAX_DEPTH, too_deep
from receiver.errors import AmazonNotFound, AmazonOutcomeUnknown, AmazonRefused, AmazonRefusesUs, AmazonThrottled
from receiver.exchange import Response
from receiver.ledger.refund_request import KEY_TAKEN
from receiver.ledger.schema import clean

WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A state, a reason code or an environment. It can become part of a Redis key or a metric label."""

NO_SUCH_OBJECT = "ResourceNotFound"
VERDICTS = frozenset(
    {
        *("TransactionAmountExceeded", "TransactionCountExceeded", "CurrencyMismatch"),
        *("InvalidChargeStatus", "InvalidChargePermissionStatus", NO_SUCH_OBJECT, KEY_TAKEN),
    }
)
"""The reason codes that Amazon documents as a verdict on a refund: amount, count, currency, charge, key reused with
other values. The list is closed: no other code ends a request."""
OF_THE_WAY = frozenset({401, 403, 407, 426})
"""Statuses that concern the caller or the network path, whatever the body says."""

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
MAX_RETRY_AFTER = 86_400
"""One day. Amazon documents no `Retry-After`; no value of it may block an account for ever."""

MAX_DIGITS = 32
"""Maximum digits of a number, and places before or after its point."""
NOT_JSON = "it is not JSON"
PLAIN = ("", "identity")
"""Values of Content-Encoding that change nothing. Compressed answers are refused, so a small answer cannot expand."""

JsonObject = dict[str, Any]


def judge(response: Response) -> JsonObject:
    """The JSON object of a 2xx answer. Numbers with a fraction are `Decimal`.

    Raises an `AmazonError` as in the table above. Each carries Amazon's status and request id, and `retry_after`
    (seconds) if Amazon sent one.
    """
    if 200 <= response.status < 300:
        return _object_of(response)
    detail, reason_code, is_bounded = _problem_of(response)
    amazon_request_id, status = request_id_of(response), response.status
    refusal: dict[str, Any] = {
        "reason_code": reason_code,
        "amazon_status": status,
        "amazon_request_id": amazon_request_id,
    }
    wait = retry_after(response.headers)
    if status == 429:
        raise AmazonThrottled(detail, retry_after=wait, **refusal)
    if not 400 <= status < 500 or status in {408, 425}:
        raise AmazonOutcomeUnknown(detail, retry_after=wait, **refusal)
    if status == 404 and is_bounded and (reason_code or amazon_request_id or not response.body):
        raise AmazonNotFound(detail, **refusal)
    if status not in OF_THE_WAY and reason_code in VERDICTS:
        raise AmazonRefused(detail, **refusal)
    raise AmazonRefusesUs(detail, retry_after=wait, **refusal)


def unintelligible(response: Response, what: str) -> NoReturn:
    """Raise `AmazonOutcomeUnknown("amazon_unintelligible")`: the 2xx does not say what happened."""
    raise AmazonOutcomeUnknown(
        f"Amazon's answer cannot be understood: {what}.",
        reason="amazon_unintelligible",
        amazon_status=response.status,
        amazon_request_id=request_id_of(response),
    )


def wrong_object(response: Response, kind: str, amazon_request_id: str | None = None) -> NoReturn:
    """Raise `AmazonOutcomeUnknown("amazon_wrong_<kind>")`: the answer is about another object than was asked for."""
    raise AmazonOutcomeUnknown(
        f"Amazon's answer is about another {kind} than the one that was asked for.",
        reason=f"amazon_wrong_{kind}",
        amazon_status=response.status,
        amazon_request_id=amazon_request_id or request_id_of(response),
    )


def retry_after(headers: Mapping[str, str]) -> int | None:
    """`Retry-After` in seconds, at most a day; None if it is absent or unreadable.

    RFC 9110 10.2.3 allows seconds or a date. A date is compared with the answer's own `Date`, so neither this machine's
    clock nor the time of the call matters.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,10}", text):
        return min(int(text), MAX_RETRY_AFTER)
    try:
        wait = (parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0, min(round(wait), MAX_RETRY_AFTER))


def request_id_of(response: Response) -> str | None:
    """`X-Amz-Pay-Request-Id`, which Amazon's support asks for."""
    text = response.headers.get("x-amz-pay-request-id", "").strip()
    return text if REQUEST_ID.fullmatch(text) else None


def _object_of(response: Response) -> JsonObject:
    parsed, problem = _parse(response)
    if problem:
        unintelligible(response, problem)
    if not isinstance(parsed, dict):
        unintelligible(response, "it is not a JSON object")
    return parsed


def _problem_of(response: Response) -> tuple[str, str, bool]:
    """The message of an answer that is not 2xx, its `reasonCode`, and whether it is within the bounds."""
    parsed, problem = _parse(response)
    said = parsed if isinstance(parsed, dict) else {}
    code, message = said.get("reasonCode"), said.get("message")
    reason_code = code if isinstance(code, str) and WORD.fullmatch(code) else ""
    is_bounded = problem in ("", NOT_JSON)
    words = clean(message) if isinstance(message, str) else "" if is_bounded else f"{problem[0].upper()}{problem[1:]}."
    head = f"Amazon answered {response.status}" + (f" {reason_code}" if reason_code else "")
    return clean(f"{head}: {words}" if words else f"{head}."), reason_code, is_bounded


def _parse(response: Response) -> tuple[object, str]:
    """The JSON value, or None and the error. Never raises.

    A number or byte that cannot be read, or a duplicate key, makes only its own field unreadable, not the whole answer.
    """
    if response.truncated:
        return None, "it is longer than any answer should be"
    text = response.body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if too_deep(text):
        return None, f"it is nested deeper than {MAX_DEPTH} levels"
    try:
        return _DECODER.decode(text), ""
    except (ValueError, RecursionError):
        encoding = clean(response.headers.get("content-encoding", ""), 32).lower()
        return (
            None,
            f"it has the content encoding {encoding}, which was not requested" if encoding not in PLAIN else NOT_JSON,
        )


class NoValue:
    """Placeholder for an unreadable value: NaN, a number out of bounds, or a duplicate key."""

    def __init__(self, text: str) -> None:
        """The text is discarded."""


def _whole(text: str) -> int | NoValue:
    return int(text) if len(text) <= MAX_DIGITS else NoValue(text)


def _decimal(text: str) -> Decimal | NoValue:
    try:
        found = Decimal(text)
    except ArithmeticError:
        return NoValue(text)
    return found if len(text) <= MAX_DIGITS and abs(found.adjusted()) <= MAX_DIGITS else NoValue(text)


def _object(pairs: list[tuple[str, object]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        times = Counter(name for name, _ in pairs)
        found.update({name: NoValue(name) for name, count in times.items() if count > 1})
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole, parse_float=_decimal, parse_constant=NoValue)
