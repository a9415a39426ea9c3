"""Pure. A refund as we know it, and a refund as Amazon just described it.

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
"""No document gives a pattern for ids; this keeps them safe in paths and keys. Real: S01-5105180-3221187-R022311."""

AMAZON_REFUND_ID = re.compile(r"[A-Z][0-9]{2}-[0-9]{7}-[0-9]{7}-(?:R?[0-9]{6}|Ref)")
"""The form of every refund id seen so far: that of the charge permission, then R and six digits. Test messages of the
XML generation leave the R out, or end in `-Ref`."""


class State(StrEnum):
    """`statusDetails.state` of a refund. Amazon may send others: they are kept as text, and never taken as final."""

    INITIATED = "RefundInitiated"
    REFUNDED = "Refunded"
    DECLINED = "Declined"


ALIASES = {"Pending": State.INITIATED, "Completed": State.REFUNDED}
"""The refund page's prose, and the XML generation, use these older words."""

UNKNOWN_STATE = "Unknown"
"""The state of a refund that Amazon has just made and whose state it did not tell readably: not a word of Amazon's."""

FINAL = frozenset({State.REFUNDED, State.DECLINED})


def state_of(word: str) -> str:
    """The state that Amazon's word means, in any case of its letters; another word is kept as it is."""
    return _STATES.get(word.lower(), word)


_STATES = {word.lower(): state for word, state in [*((each.value, each) for each in State), *ALIASES.items()]}


class Reason(StrEnum):
    """`statusDetails.reasonCode` of a declined refund. The set is open: others are kept as text."""

    AMAZON_REJECTED = "AmazonRejected"
    PROCESSING_FAILURE = "ProcessingFailure"


def is_final(state: str) -> bool:
    """Whether a refund in this state stays in it: only Refunded and Declined."""
    return state in FINAL


FPS = "FPS"
"""`refund_type` of a refund of Flexible Payments, of which Amazon Pay's calls know nothing."""


class Source(StrEnum):
    """Who made us look."""

    NOTIFICATION = "notification"
    POLL = "poll"
    REFRESH = "refresh"
    CREATE = "create"


class Unread(NamedTuple):
    """A field that Amazon sent and that could not be read."""

    field: str
    """Its name in Amazon's JSON or XML."""
    reason: str
    """What is wrong with it, as one word: `not_a_text`, `bad_timestamp`, ... Never the value."""


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
"""Name in the JSON of a refund → attribute of `Refund`, of each field that can be null because it cannot be read."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What Amazon said a refund is, at one moment (Get Refund or Create Refund).

    `state` is one of `State` where Amazon's word or an alias of it is known, else Amazon's text.
    """

    refund_id: str
    state: str
    updated_at: int
    """`statusDetails.lastUpdatedTimestamp`. Whole seconds: two changes can share one. 0 where it is not known."""
    charge_id: str = ""
    amount: Money | None = None
    reason_code: str = ""
    reason_description: str = ""
    soft_descriptor: str = ""
    created_at: int = 0
    """`creationTimestamp`; 0 where Amazon gave none."""
    environment: str = ""
    """`releaseEnvironment`: Sandbox or Live; empty where Amazon gave none."""
    is_dated: bool = True
    """Whether `updated_at` is Amazon's. Else it is when Amazon answered, and what it says again is not newer."""
    unread: tuple[Unread, ...] = ()
    """The fields of the answer that could not be read: empty here, and never guessed."""


class RetryRefused(msgspec.Struct, frozen=True, array_like=True):
    """Amazon's verdict on the last try to issue a declined refund again."""

    generation: int
    """The number of that try."""
    at: int
    reason_code: str = ""
    status: int = 0
    request_id: str = ""
    detail: str = ""


class Retryability(msgspec.Struct, frozen=True):
    """Whether a declined refund may be issued again, by what was known at one moment (`retryability.py`)."""

    value: bool | None
    """None: that is not known."""
    reasons: tuple[str, ...] = ()
    """Why not, as the stable words with which a retry is refused; the first is the one that it is refused with."""
    as_of: int = 0
    """When it was judged, ms."""
    charge_read_at: int = 0
    """When Amazon last told what the charge is, ms; 0: never."""
    says: str = ""
    """The reasons, for people."""


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """What we know of one refund. Only `lifecycle.py` makes a new one from an old one."""

    account: str
    refund_id: str
    state: str
    revision: int
    """Counts our writes from 1; a reader may drop what has a smaller one."""
    updated_at: int
    """Amazon's time of the last change, ms; 0 where it is not known."""
    first_seen_at: int
    changed_at: int
    """When the last revision was written; lists are sorted by it."""
    source: Source
    """Who made us look when the last revision was found."""
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
    """Whether the charge was read for this refund: an order reference that is still empty is one that there is not."""
    retryable: str = ""
    """Of a declined refund: `yes` or `no`, as it was judged when its charge was read; empty where that is not known.
    What is shown and pushed is `judged` again."""
    retry_of: str = ""
    """The declined refund that this one repeats."""
    retry_root: str = ""
    """Of a retry: the refund that the chain of retries began with."""
    retried_by: str = ""
    """The refund that repeats this declined one."""
    retry_refused: RetryRefused | None = None
    """What Amazon said to the last try to repeat this declined one, if that issued nothing."""
    issued_by: str = ""
    """The name of the token with which it was asked for; empty where it was not asked for here."""
    conflict: bool = False
    """Amazon has told two different final states."""
    backfill: bool = False
    """Amazon settled it long before it was first seen here: an old refund that was taken in (`lifecycle.py`)."""
    finals: tuple[str, ...] = ()
    """Each final state seen, as `State@updated_at`."""
    emitted: tuple[str, ...] = ()
    """The event types that this refund has had."""
    region: str = ""
    """The account's: na, eu or jp. Empty where an older version wrote the refund."""
    unread: tuple[str, ...] = ()
    """Names (`FIELD_NAMES`) of the fields that are empty because what Amazon sent could not be read."""
    judged: Retryability | None = None
    """Whether a declined one may be issued again, as of now. It is worked out when it is read, and never written."""


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
    """The name of the token with which the refund was asked for, as far as that was known then."""


THEIRS = re.compile(r"az(guarantee|claim|refund|cancel[a-z]*)*|chargeback[a-z]*|buyercancel[a-z]*|cancel[a-z]*bybuyer")
"""Types of refunds that Amazon, a bank or the buyer has begun, and reason codes of the same name, as `_plain` writes
them: AmazonA-ZRefund, AmazonA-ZGuarantee, AmazonA-ZCancel, Chargeback, BuyerCanceled, and what is alike."""


def is_theirs(word: str) -> bool:
    """Whether a type of refund, or a reason code, says that Amazon, a bank or the buyer began it. In any spelling."""
    return THEIRS.fullmatch(_plain(word)) is not None


def _plain(text: str) -> str:
    """The word in one spelling: `AmazonA-ZRefund`, `Amazon A to Z Refund` and `A_TO_Z_REFUND` are `azrefund`."""
    word = re.sub(r"[^a-z]", "", text.casefold()).removeprefix("amazon")
    return f"az{word.removeprefix('atoz')}" if word.startswith("atoz") else word
