"""Pure. The Refund call of Amazon Flexible Payments (FPS), the service behind Amazon Simple Pay, retired 1 June 2015.

Amazon's hosts no longer answer. This module supports systems built on FPS: the request as in its guide, the answer, and
the notification that follows (`amazon/fps/notification.py`), mapped to the same states as Amazon Pay refunds.

A refund is identified by the merchant's own reference. The parameter's name depends on `Version`: the guide's example
and the WSDL of 2008-05-01 call it RefundTransactionReference, the API reference and the WSDLs from 2008-09-17 on call
it CallerReference. Amazon's own client libraries of both versions confirm this.

What an answer means: `amazon/fps/answers.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

from receiver.amazon.answers import WORD, unintelligible, wrong_object
from receiver.amazon.fps.answers import judged, name, request_id_of, text
from receiver.amazon.fps.signing import Credentials, SignatureMethod, signed_url
from receiver.errors import BadRequest
from receiver.exchange import Request, Response
from receiver.ledger.money import Money
from receiver.ledger.refund import REFUND_ID, Observation, State, Unread
from receiver.ledger.schema import clean
from receiver.ledger.timestamps import format_rfc3339

HOSTS = {"live": "https://fps.amazonaws.com/", "sandbox": "https://fps.sandbox.amazonaws.com/"}
"""The former FPS endpoints, by environment."""

TRANSACTION_ID = re.compile(r"[A-Za-z0-9-]{1,35}")
"""At most 35 characters (API reference). Real: 14GK6F2QU755ODS27SGHEURLKPG72Z54KMF."""
MAX_DESCRIPTION = 160
CURRENCY = "USD"
"""The only currency of FPS."""

STATES = {
    "pending": State.INITIATED,
    "reserved": State.INITIATED,
    "success": State.REFUNDED,
    "failure": State.DECLINED,
    "cancelled": State.DECLINED,
}
"""TransactionStatus → state of a refund. Its letter case differs between answers and notifications."""

Chosen = TypeVar("Chosen", bound=StrEnum)


class Version(StrEnum):
    """API versions, named by the date of their WSDL."""

    V2008_05_01 = "2008-05-01"
    V2008_09_17 = "2008-09-17"
    V2010_08_28 = "2010-08-28"

    @property
    def reference_name(self) -> str:
        """The name of the refund reference in this version."""
        return "RefundTransactionReference" if self is Version.V2008_05_01 else "CallerReference"

    @property
    def description_name(self) -> str:
        """The name of the refund description in this version."""
        return "TransactionDescription" if self is Version.V2008_05_01 else "CallerDescription"


class Policy(StrEnum):
    """MarketplaceRefundPolicy: whether to refund the transaction, the marketplace's fee, or both."""

    MASTER = "MasterTxnOnly"
    MARKETPLACE = "MarketplaceTxnOnly"
    BOTH = "MasterAndMarketplaceTxn"


@dataclass(frozen=True, slots=True)
class FpsRefundRequest:
    """The values of one refund. Raises `BadRequest`, naming the value that FPS or the ledger would reject."""

    transaction_id: str
    reference: str
    """The merchant's own reference, unique for ever. It is the refund's id in the ledger, so it has at most 64 letters,
    digits and dashes. FPS accepted 128 bytes, and forgot them after seven days."""
    amount: Money | None = None
    """None: the whole remaining amount. FPS refunded no more than the original amount."""
    description: str = ""
    policy: str = ""
    """One of `Policy`; empty: Amazon's default, MasterTxnOnly."""

    def __post_init__(self) -> None:
        if not TRANSACTION_ID.fullmatch(self.transaction_id):
            _bad("TransactionId", "transaction_id", "has at most 35 letters, digits and dashes")
        if not REFUND_ID.fullmatch(self.reference):
            _bad("RefundTransactionReference", "reference", "has at most 64 letters, digits and dashes")
        if self.amount is not None:
            _check_amount(self.amount)
        if len(self.description) > MAX_DESCRIPTION or not self.description.isprintable():
            _bad("The description", "description", f"has at most {MAX_DESCRIPTION} printable characters")
        if self.policy not in ("", *Policy):
            _bad("MarketplaceRefundPolicy", "policy", f"is one of {', '.join(Policy)}")


@dataclass(frozen=True, slots=True)
class FpsAnswer:
    """FPS's answer about a refund. `transaction_status` is its own word; `observation.state` is the mapped state."""

    transaction_id: str
    """As returned by FPS: that of the original transaction (API reference). Empty if unreadable."""
    transaction_status: str
    amazon_request_id: str
    """The id that Amazon's support asked for; empty if FPS sent none."""
    observation: Observation


def refund(
    url: str,
    credentials: Credentials,
    order: FpsRefundRequest,
    now: int,
    *,
    version: str = Version.V2008_05_01,
    method: str = SignatureMethod.HMAC_SHA256,
) -> Request:
    """The signed Refund, at `now` (ms UTC). `url` is one of `HOSTS`, or a custom address without a query.

    The request is an order to move money, valid as long as its timestamp (about 15 minutes): keep its URL secret.
    Raises `BadRequest` for an address, version or signature method that cannot be used.
    """
    chosen = _member(Version, version, "Version", "version")
    parameters = {
        "Action": "Refund",
        "Timestamp": f"{format_rfc3339(now)[:19]}Z",
        "TransactionId": order.transaction_id,
        "Version": chosen.value,
        chosen.reference_name: order.reference,
    }
    if order.amount is not None:
        parameters["RefundAmount.CurrencyCode"] = order.amount.currency_code
        parameters["RefundAmount.Value"] = order.amount.text
    if order.description:
        parameters[chosen.description_name] = order.description
    if order.policy:
        parameters["MarketplaceRefundPolicy"] = str(order.policy)
    signing = _member(SignatureMethod, method, "SignatureMethod", "signature_method")
    return Request("GET", signed_url(check_address(url), parameters, credentials, signing))


def check_address(url: str) -> str:
    """The address, if it can be signed and sent unchanged; raises `BadRequest` otherwise."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", url) or re.search(r"[?#@\\]", url):
        _bad("The endpoint", "endpoint", "is an http or https address without user, query or fragment")
    return url


def read_refund(response: Response, order: FpsRefundRequest, now: int, *, environment: str = "") -> FpsAnswer:
    """The answer to the Refund of this order. `environment` is `Live`, `Sandbox`, or empty if unknown.

    FPS sends no time, so the observation is dated `now` (ms). Raises `AmazonOutcomeUnknown`, `AmazonThrottled` or
    `AmazonRefused` as in `answers.py`; an answer about another reference is
    `AmazonOutcomeUnknown("amazon_wrong_refund")`. After an attempt with an unknown outcome, a refusal does not prove
    that nothing was refunded: DuplicateRequest may refer to that attempt.
    """
    root = judged(response)
    if name(root) != "RefundResponse":
        unintelligible(response, "it is no RefundResponse")
    result = root.findall("{*}RefundResult")
    if len(result) != 1:
        unintelligible(response, "it has not one RefundResult")
    reference = text(response, result[0], "RefundTransactionReference", REFUND_ID, order.reference)
    if reference != order.reference:
        wrong_object(response, "refund", request_id_of(root))
    status = text(response, result[0], "TransactionStatus", WORD)
    ids = [(each.text or "").strip() for each in result[0].findall("{*}TransactionId")]
    is_read = len(ids) == 1 and bool(TRANSACTION_ID.fullmatch(ids[0]))
    observation = Observation(
        refund_id=reference,
        state=state_of(status),
        updated_at=now,
        charge_id=order.transaction_id,
        amount=order.amount,
        reason_description=clean(result[0].findtext("{*}PendingReason") or ""),
        environment=environment,
        is_dated=False,
        unread=() if is_read else (Unread("TransactionId", "bad_id"),),
    )
    return FpsAnswer(ids[0] if is_read else "", status, request_id_of(root), observation)


def state_of(status: str) -> str:
    """The refund state for a TransactionStatus, in any letter case; an unknown word is kept unchanged."""
    return STATES.get(status.lower(), status)


def _bad(what: str, word: str, why: str) -> NoReturn:
    raise BadRequest(f"{what} {why}.", reason=f"bad_{word}")


def _check_amount(amount: Money) -> None:
    if amount.currency_code != CURRENCY:
        _bad("RefundAmount.CurrencyCode", "currency", f"is {CURRENCY}")
    if not (amount.amount.is_finite() and amount.amount > 0 and amount.minor_units == amount.amount.scaleb(2)):
        _bad("RefundAmount.Value", "amount", "is a decimal over zero with at most two places")


def _member(kind: type[Chosen], value: str, what: str, word: str) -> Chosen:
    try:
        return kind(value)
    except ValueError:
        _bad(what, word, f"is one of {', '.join(kind)}")
