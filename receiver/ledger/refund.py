"""Pure. A refund as we know it, and a refund as Amazon just described it.

Field names are Amazon's. Times are integers: milliseconds since the Unix epoch, UTC. An amount is a decimal with a
currency, never a float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from receiver.errors import Unreadable

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


EXPONENTS = {"JPY": 0, "KRW": 0, "CLP": 0, "VND": 0, "BHD": 3, "KWD": 3, "JOD": 3, "OMR": 3, "TND": 3}
"""ISO 4217 minor units, where they are not 2."""

AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,4})?")
CURRENCY = re.compile(r"[A-Z]{3}")


class Money(msgspec.Struct, frozen=True):
    """An amount in major units with its ISO 4217 currency."""

    amount: Decimal
    currency_code: str

    @classmethod
    def parse(cls, amount: object, currency_code: object) -> Money:
        """Read Amazon's `{amount, currencyCode}`; the amount is a text or an integer, never a float.

        Raises `Unreadable` if it is not a plain non-negative decimal with a three-letter currency.
        """
        text = str(amount) if isinstance(amount, str | int | Decimal) and not isinstance(amount, bool) else ""
        if not AMOUNT.fullmatch(text):
            raise Unreadable("An amount is a plain decimal such as 14.00.", reason="bad_amount")
        if not isinstance(currency_code, str) or not CURRENCY.fullmatch(currency_code):
            raise Unreadable("A currency is three capital letters (ISO 4217).", reason="bad_currency")
        try:
            return cls(Decimal(text), currency_code)
        except InvalidOperation as error:  # pragma: no cover - the pattern admits only decimals
            raise Unreadable("An amount is a plain decimal such as 14.00.", reason="bad_amount") from error

    @classmethod
    def of_minor(cls, minor_units: int, currency_code: str) -> Money:
        """So many cents (yen for JPY)."""
        return cls(Decimal(minor_units).scaleb(-EXPONENTS.get(currency_code, 2)), currency_code)

    @property
    def exponent(self) -> int:
        """How many decimals the currency has."""
        return EXPONENTS.get(self.currency_code, 2)

    @property
    def minor_units(self) -> int:
        """The amount in the smallest unit (cents; yen for JPY), rounded down."""
        return int(self.amount.scaleb(self.exponent))

    def __str__(self) -> str:
        return f"{self.text} {self.currency_code}"

    @property
    def text(self) -> str:
        """The amount with as many decimals as the currency has, as Amazon wants it: no decimals in JPY."""
        places = max(self.exponent, -int(self.amount.normalize().as_tuple().exponent))
        return f"{self.amount:.{places}f}"


NO_MARKS = str.maketrans("", "", "-:")
TIMESTAMP = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)T(\d\d):?(\d\d):?(\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)


def parse_time(text: object) -> int:
    """Read Amazon's timestamp, basic (`20190714T155300Z`) or extended with a fraction, into milliseconds UTC.

    Raises `Unreadable` if it is neither.
    """
    match = TIMESTAMP.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Unreadable("A timestamp is like 20190714T155300Z.", reason="bad_timestamp")
    *parts, fraction = match.groups()
    year, month, day, hour, minute, second = map(int, parts)
    try:
        whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise Unreadable("A timestamp names a day that does not exist.", reason="bad_timestamp") from error
    return int(whole.timestamp()) * 1000 + int((fraction or "0").ljust(3, "0")[:3])


def format_basic(ms: int) -> str:
    """Amazon's own form, whole seconds: `20190714T155300Z`."""
    return datetime.fromtimestamp(ms // 1000, UTC).replace(tzinfo=None).isoformat().translate(NO_MARKS) + "Z"


def format_rfc3339(ms: int) -> str:
    """Our own times: RFC 3339 with milliseconds, `2019-07-14T15:53:00.000Z`."""
    return datetime.fromtimestamp(ms // 1000, UTC).replace(tzinfo=None).isoformat() + f".{ms % 1000:03d}Z"


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
