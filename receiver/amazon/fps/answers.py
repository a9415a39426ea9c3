"""Pure. What an answer from Flexible Payments means, before the refund in it is read.

The first row that applies decides:

    408, 425, 1xx, 3xx, 5xx                          AmazonOutcomeUnknown
    429                                              AmazonThrottled
    4xx without a list of errors of FPS              AmazonRefusesUs
    2xx without XML of FPS                           AmazonOutcomeUnknown("amazon_unintelligible")
    a list of errors, one of them in `UNDECIDED`     AmazonOutcomeUnknown
    a list of errors, all of them in `VERDICTS`      AmazonRefused, with the first code
    any other list of errors                         AmazonRefusesUs, with the first code that is no verdict
    RefundResponse                                   an `FpsAnswer`
"""

from __future__ import annotations

import re
from typing import NoReturn
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from receiver.amazon.answers import PLAIN, REQUEST_ID, WORD, retry_after, unintelligible
from receiver.amazon.nesting import MAX_DEPTH
from receiver.errors import AmazonOutcomeUnknown, AmazonRefused, AmazonRefusesUs, AmazonThrottled
from receiver.exchange import Response
from receiver.ledger.schema import clean

UNDECIDED = frozenset({"ConcurrentModification", "InternalError", "InternalFailure", "ServiceUnavailable"})
"""Errors that FPS calls retriable and that do not say what happened to the request."""

VERDICTS = frozenset(
    {
        *("RefundAmountExceeded", "TransactionFullyRefundedAlready", "TransactionTypeNotRefundable"),
        *("InvalidTransactionId", "InvalidTransactionState", "OriginalTransactionFailed"),
        *("OriginalTransactionIncomplete", "DuplicateRequest"),
    }
)
"""Errors about the refund: its amount, its transaction, its reference reused with other values. The list is closed:
every other error is about our request, and the refund was not made."""

UNKNOWN_STATUSES = frozenset({408, 425})


def judged(response: Response) -> Element:
    """The XML of an answer that is not an error; raises as in the module's table."""
    status = response.status
    undecided = not 200 <= status < 300 and (not 400 <= status < 500 or status in UNKNOWN_STATUSES)
    if undecided or status == 429:
        error_of = AmazonOutcomeUnknown if undecided else AmazonThrottled
        raise error_of(f"Amazon answered {status}.", retry_after=retry_after(response.headers), amazon_status=status)
    refused = 400 <= status < 500
    root = _parse(response) if not refused else _parse_refusal(response)
    codes = [(_code(error), error) for error in root.findall("{*}Errors/{*}Error")]
    if not codes:
        if refused and name(root) != "RefundResponse":
            _not_of_fps(response)
        if refused:
            unintelligible(response, "it is a refusal with the answer to a Refund")
        return root
    code, error = min(codes, key=_weight)
    if not code and not refused:
        unintelligible(response, "it names no error")
    detail = clean(f"Amazon answered {status} {code}: {error.findtext('{*}Message') or ''}").removesuffix(":")
    amazon_request_id = request_id_of(root) or None
    if code in UNDECIDED:
        raise AmazonOutcomeUnknown(detail, reason_code=code, amazon_status=status, amazon_request_id=amazon_request_id)
    kind = AmazonRefused if code in VERDICTS else AmazonRefusesUs
    raise kind(detail, reason_code=code, amazon_status=status, amazon_request_id=amazon_request_id)


def _weight(pair: tuple[str, Element]) -> int:
    """The decisive one of several errors: an undecided one first, then one that is no verdict."""
    code = pair[0]
    return 0 if code in UNDECIDED else 1 if not code else 2 if code not in VERDICTS else 3


def _parse_refusal(response: Response) -> Element:
    """The XML of a 4xx. A proxy's error page is not an answer from FPS."""
    try:
        return _parse(response)
    except AmazonOutcomeUnknown:
        _not_of_fps(response)


def _not_of_fps(response: Response) -> NoReturn:
    raise AmazonRefusesUs(
        f"The answer {response.status} is not of Flexible Payments: something on the way refuses the request.",
        amazon_status=response.status,
    )


def _parse(response: Response) -> Element:
    if response.truncated:
        unintelligible(response, "it is longer than any answer should be")
    try:
        root: Element = fromstring(response.body, forbid_dtd=True)
    except (ParseError, ValueError, LookupError):
        encoding = clean(response.headers.get("content-encoding", ""), 32).lower()
        coded = f"it has the content encoding {encoding}, which was not requested"
        unintelligible(response, "it is not plain XML" if encoding in PLAIN else coded)
    if _too_deep(root):
        unintelligible(response, f"it is nested deeper than {MAX_DEPTH} levels")
    return root


def _too_deep(root: Element) -> bool:
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for element in level for child in element]
    return bool(level)


def name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _code(error: Element) -> str:
    code = (error.findtext("{*}Code") or "").strip()
    return code if WORD.fullmatch(code) else ""


def request_id_of(root: Element) -> str:
    """`ResponseMetadata/RequestId` of an answer, `RequestID` of a list of errors."""
    found = root.findtext("{*}ResponseMetadata/{*}RequestId") or root.findtext("{*}RequestID") or ""
    return found.strip() if REQUEST_ID.fullmatch(found.strip()) else ""


def text(response: Response, parent: Element, name: str, form: re.Pattern[str], default: str = "") -> str:
    """The text of the only child of this name; the default if there is none. Anything else is unintelligible."""
    found = parent.findall(f"{{*}}{name}")
    text = (found[0].text or "").strip() if len(found) == 1 and len(found[0]) == 0 else ""
    if not found and default:
        return default
    if not form.fullmatch(text):
        unintelligible(response, f"its {name} is missing or garbled")
    return text
