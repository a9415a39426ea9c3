"""Pure. A refund as recorded here, and an observation: a refund as Amazon just described it.

Field names are Amazon's. Times are integers: milliseconds since the Unix epoch, UTC. An amount is a decimal with a
currency, never a float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from receiver.ledger.money import Money

REFUND_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
"""No document gives a pattern for ids; this one is safe in paths and keys. Example: S01-5105180-3221187-R022311."""

AMAZON_REFUND_ID = re.compile(r"[A-Z][0-9]{2}-[0-9]{7}-[0-9]{7}-(?:R?[0-9]{6}|Ref)")
"""The form of every real refund id seen: the charge permission's id, then R and six digits. Test messages of the XML
generation omit the R, or end in `-Ref`."""


class State(StrEnum):
    """`statusDetails.state` of a refund. Other states are kept as text and never treated as final."""

    INITIATED = "RefundInitiated"
    REFUNDED = "Refunded"
    DECLINED = "Declined"


ALIASES = {"Pending": State.INITIATED, "Completed": State.REFUNDED}
"""Older words for states, used in the refund page's prose and the XML generation."""

UNKNOWN_STATE = "Unknown"
"""Our state for a refund that Amazon just made without a readable state. Amazon never sends it."""

FINAL = frozenset({State.REFUNDED, State.DECLINED})


def state_of(word: str) -> str:
    """The state for Amazon's word, in any letter case; an unknown word is kept unchanged."""
    return _STATES.get(word.lower(), word)


_STATES = {word.lower(): state for word, state in [*((each.value, each) for each in State), *ALIASES.items()]}


class Reason(StrEnum):
    """`statusDetails.reasonCode` of a declined refund. The set is open: other codes are kept as text."""

    AMAZON_REJECTED = "AmazonRejected"
    PROCESSING_FAILURE = "ProcessingFailure"


def reason_of(word: str) -> str:
    """The reason code for a word in any letter case; an unknown word is kept unchanged."""
    return _REASONS.get(word.lower(), word)


REASONS = tuple(each.value for each in Reason)
_REASONS = {each.lower(): each.value for each in Reason}


def is_final(state: str) -> bool:
    """Whether the state is final: Refunded or Declined."""
    return state in FINAL


FPS = "FPS"
"""`refund_type` of a Flexible Payments refund. Amazon Pay's calls do not know these refunds."""


class Source(StrEnum):
    """Why Amazon was asked about a refund."""

    NOTIFICATION = "notification"
    POLL = "poll"
    REFRESH = "refresh"
    CREATE = "create"
    PERSON = "person"
    """A person closed or reopened the case of a declined refund."""


class Unread(NamedTuple):
    """A field that Amazon sent but that could not be read."""

    field: str
    """Its name in Amazon's JSON or XML."""
    reason: str
    """The error, as one word: `not_a_text`, `bad_timestamp`, ... Never the value."""


FIELD_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "chargeId": "charge_id",
        "refundAmount": "amount",
        "softDescriptor": "soft_descriptor",
        "creationTimestamp": "created_at",
        "releaseEnvironment": "environment",
        "reasonCode": "reason_code",
        "reasonDescription": "reason_description",
        "lastUpdatedTimestamp": "updated_at",
        "orderReference": "order_reference",
    }
)
"""Name in the refund's JSON → attribute of `Refund`, for each field that is null if unreadable."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """The refund as Amazon described it at one moment (Get Refund or Create Refund).

    `state` is one of `State` if Amazon's word or alias is known, else Amazon's text.
    """

    refund_id: str
    state: str
    updated_at: int
    """`statusDetails.lastUpdatedTimestamp`, in whole seconds: two changes can share one. 0 if unknown."""
    charge_id: str = ""
    amount: Money | None = None
    reason_code: str = ""
    reason_description: str = ""
    soft_descriptor: str = ""
    created_at: int = 0
    """`creationTimestamp`; 0 if Amazon sent none."""
    environment: str = ""
    """`releaseEnvironment`: Sandbox or Live; empty if Amazon sent none."""
    is_dated: bool = True
    """Whether `updated_at` is Amazon's. If not, it is the time of the answer, and a repeated answer is not newer."""
    unread: tuple[Unread, ...] = ()
    """The unreadable fields of the answer. They are empty here, never guessed."""


class RetryRefused(msgspec.Struct, frozen=True, array_like=True):
    """Amazon's verdict on the last attempt to issue a declined refund again."""

    generation: int
    """The number of that attempt."""
    at: int
    reason_code: str = ""
    status: int = 0
    amazon_request_id: str = ""
    detail: str = ""


class Retryability(msgspec.Struct, frozen=True):
    """Whether a declined refund can be issued again, as known at one moment (`retryability.py`)."""

    value: bool | None
    """None: unknown."""
    reasons: tuple[str, ...] = ()
    """Why not: the stable reasons with which a retry is refused. The first is the one in the error."""
    as_of: int = 0
    """When it was judged, ms."""
    charge_read_at: int = 0
    """When Amazon last described the charge, ms; 0: never."""
    says: str = ""
    """The reasons as text for people."""


class How(StrEnum):
    """How the case of a declined refund was closed."""

    REFUNDED = "refunded"
    """Amazon contradicted itself: the refund is Refunded after all."""
    REISSUED = "reissued"
    """A refund that repeats it is Refunded."""
    REFUNDED_ELSEWHERE = "refunded_elsewhere"
    """A person named another refund of the charge, which is Refunded."""
    COMPENSATED = "compensated"
    """A person paid the buyer another way: store credit, a gift card, a check."""
    NOT_OWED = "not_owed"
    """A person found that the buyer is owed nothing: a claim, a chargeback, an order returned."""
    NOT_TRACKED = "not_tracked"
    """The decline was too old when it was first recorded."""


class Resolution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the case of a declined refund is open, and how it was closed (`resolution.py`)."""

    at: int
    """Since when it is open or closed, ms."""
    how: How | None = None
    """None: it is open."""
    by: str = ""
    """The name of the token of the person who closed or reopened it; empty if it closed by itself."""
    user: str = ""
    """That person, as named by a signing-in proxy."""
    note: str = ""
    refund_id: str = ""
    """The refund with which the buyer was paid."""
    paid: tuple[str, ...] = ()
    """The declined refund or its reissues, as far as they are Refunded now."""

    @property
    def is_open(self) -> bool:
        """Whether the buyer may still be owed the money."""
        return self.how is None


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Our record of one refund. Only `lifecycle.py` derives a new one from an old one."""

    account: str
    refund_id: str
    state: str
    revision: int
    """Counts our writes from 1. Readers can drop records with a smaller revision."""
    updated_at: int
    """Amazon's time of the last change, ms; 0 if unknown."""
    first_seen_at: int
    changed_at: int
    """When the last revision was written; lists are sorted by it."""
    source: Source
    """Why Amazon was asked when it reported the last revision."""
    charge_id: str = ""
    amount: Money | None = None
    reason_code: str = ""
    reason_description: str = ""
    soft_descriptor: str = ""
    created_at: int = 0
    environment: str = ""
    order_reference: str = ""
    refund_type: str = ""
    """`RefundType` of an XML notification: SellerInitiated, AmazonA-ZRefund, Chargeback, ..."""
    charge_read: bool = False
    """Whether the charge was read for this refund. If so, an empty order reference means that there is none."""
    retryable: str = ""
    """For a declined refund, the judgement when its charge was last read: `yes`, `no`, or empty if unknown.
    It is `judged` again before it is shown or sent."""
    retry_of: str = ""
    """The declined refund that this one repeats."""
    retry_root: str = ""
    """For a retry: the first refund in the chain of retries."""
    retried_by: str = ""
    """The refund that repeats this declined one."""
    retry_refused: RetryRefused | None = None
    """Amazon's verdict on the last attempt to repeat this declined refund, if that attempt issued nothing."""
    issued_by: str = ""
    """The name of the token that requested it; empty if it was not requested here."""
    issued_by_user: str = ""
    """The person who requested it with that token, if a proxy named one."""
    conflict: bool = False
    """Amazon reported two different final states."""
    backfill: bool = False
    """It became final long before it was first seen here (`age.py`)."""
    finals: tuple[str, ...] = ()
    """Each final state seen, as `State@updated_at`."""
    emitted: tuple[str, ...] = ()
    """The event types that this refund has had."""
    region: str = ""
    """The account's: na, eu or jp. Empty where an older version wrote the refund."""
    unread: tuple[str, ...] = ()
    """Names (`FIELD_NAMES`) of fields that are empty because Amazon's value could not be read."""
    resolution: Resolution | None = None
    """The case of a declined refund. It is stored with the first refund of the chain of retries only."""
    judged: Retryability | None = None
    """Whether a declined refund can be issued again now. Computed on reading, never stored."""


class Revision(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One line of a refund's history."""

    revision: int
    at: int
    state: str
    updated_at: int
    source: Source
    reason_code: str = ""
    conflict: bool = False
    issued_by: str = ""
    """The name of the token that requested the refund, if known at that time."""
    resolution: Resolution | None = None
    issued_by_user: str = ""
    """The person who requested it with that token, if a proxy named one."""


THEIRS = re.compile(r"az(guarantee|claim|refund|cancel[a-z]*)*|chargeback[a-z]*|buyercancel[a-z]*|cancel[a-z]*bybuyer")
"""Types of refunds started by Amazon, a bank or the buyer, and reason codes of the same name, normalised by `_plain`:
AmazonA-ZRefund, AmazonA-ZGuarantee, AmazonA-ZCancel, Chargeback, BuyerCanceled and variants."""


def is_theirs(word: str) -> bool:
    """Whether a refund type or reason code says that Amazon, a bank or the buyer started it. In any spelling."""
    return THEIRS.fullmatch(_plain(word)) is not None


def is_known_reason(word: str) -> bool:
    """Whether it is a reason code that Amazon documents for refunds, in any letter case."""
    return reason_of(word) in REASONS or is_theirs(word)


def _plain(text: str) -> str:
    """The word in normal form: `AmazonA-ZRefund`, `Amazon A to Z Refund` and `A_TO_Z_REFUND` become `azrefund`."""
    word = re.sub(r"[^a-z]", "", text.casefold()).removeprefix("amazon")
    return f"az{word.removeprefix('atoz')}" if word.startswith("atoz") else word
