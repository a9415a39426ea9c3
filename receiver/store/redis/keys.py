"""Edge: Redis. The catalogue of all keys: their names, types, contents, and what removes them.

Keys are named only here. `Keys` rejects a kind that is not in `CATALOGUE`, and every script checks the types of its
keys against it before its first write (`store/redis/prelude.lua`). The keys of one account share a hash tag, and so a
slot of a Redis Cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from receiver.amazon.throttle import Call
from receiver.ledger.reconciliation.finding import FindingKind
from receiver.ledger.refund import Reason

PREFIX = "refunds:"
WAKE = f"{PREFIX}wake"
"""The channel on which a process publishes the name of an account that it has just written to."""


class KeyScope(StrEnum):
    """What a key belongs to. Every key belongs to an account too, except those of the whole store."""

    STORE = "store"
    ACCOUNT = "account"
    SUBSCRIBER = "subscriber"
    REFUND = "refund"
    CHARGE = "charge"
    CHARGE_PERMISSION = "charge permission"
    REQUEST = "request"
    INDEX = "index"
    """One key for each value that refunds can be looked up by."""
    JOB = "job"
    CALL = "call"
    """One of Amazon's operations."""
    MESSAGE = "message"
    TEST = "test"
    ASIDE = "aside"
    """A key whose damaged parts are kept here."""


@dataclass(frozen=True, slots=True)
class Kind:
    type: str
    """As in Redis's `TYPE`; `any` for a key that was set aside because of its type."""
    scope: KeyScope
    holds: str
    removed_with: str
    """What removes it; `never` if it stays."""


HASH, ZSET, LIST, STRING, STREAM, ANY = "hash", "zset", "list", "string", "stream", "any"
_REFUND, _SUBSCRIBER = "its refund, by pruning", "its subscriber"
_UNRECOGNIZED = "its age: 30 days after the last one"
_CLOSED = "its age: 30 days after it was closed"
_JOB = "its age: 30 days after the job's end"
_ISSUED = "its age: 400 days after the last change; never while it is open"

CATALOGUE: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        # Refunds
        "refund": Kind(HASH, KeyScope.REFUND, "the refund's current state", _REFUND),
        "history": Kind(LIST, KeyScope.REFUND, "its revisions, a line each", _REFUND),
        "trail": Kind(
            LIST, KeyScope.REFUND, "its timeline, for display only", f"{_REFUND}, or 400 days after its start"
        ),
        "state": Kind(ZSET, KeyScope.INDEX, "refunds in a state, by last change", "never"),
        "reason": Kind(ZSET, KeyScope.INDEX, "declined refunds with a reason code, by last change", "its last refund"),
        "order": Kind(ZSET, KeyScope.INDEX, "refunds of an order reference, by last change", "its last refund"),
        "open": Kind(ZSET, KeyScope.ACCOUNT, "open declined refunds, by last change", "its last refund"),
        "open:details": Kind(HASH, KeyScope.ACCOUNT, "since when each is open, its amount and reason", _REFUND),
        "cases": Kind(STRING, KeyScope.ACCOUNT, "set once the declines of older versions have cases", "never"),
        "closes": Kind(HASH, KeyScope.ACCOUNT, "refund → the declined refund that a person closed with it", "never"),
        "rejected": Kind(ZSET, KeyScope.ACCOUNT, "AmazonRejected refund → when that was recorded", "its age: an hour"),
        "wave": Kind(HASH, KeyScope.ACCOUNT, "the last AmazonRejected decline, and the alarm of its wave", "never"),
        "wave:cases": Kind(HASH, KeyScope.ACCOUNT, "first refund of an open case → the alarm of its wave", "its case"),
        # Reconciliation with Amazon's reports
        "findings": Kind(ZSET, KeyScope.INDEX, "open findings of a kind: refund → since when", "its last finding"),
        "findings:details": Kind(HASH, KeyScope.ACCOUNT, "finding → what differs", _CLOSED),
        "findings:closed": Kind(ZSET, KeyScope.ACCOUNT, "finding → when it was closed", _CLOSED),
        "reported": Kind(HASH, KeyScope.ACCOUNT, "refund → when a report that has it was last read", _REFUND),
        "settled": Kind(HASH, KeyScope.ACCOUNT, "refund → the rows of settlements about it", _REFUND),
        "reports": Kind(HASH, KeyScope.ACCOUNT, "`<report> <start> <end>` → when it was read", "never"),
        # When to ask Amazon
        "due": Kind(ZSET, KeyScope.ACCOUNT, "refund → when to ask Amazon next", "its last refund"),
        "hinted": Kind(ZSET, KeyScope.ACCOUNT, "refund → since when to ask Amazon at once", "its last refund"),
        "refreshed": Kind(ZSET, KeyScope.ACCOUNT, "refund → since when a refresh is requested", "its last refund"),
        "second_looks": Kind(
            ZSET, KeyScope.ACCOUNT, "final refund → when to ask Amazon about it again", "its last refund"
        ),
        "hints": Kind(HASH, KeyScope.ACCOUNT, "refund → the hint that made it due", "its last refund"),
        "seen": Kind(STRING, KeyScope.MESSAGE, "the digest of an accepted notification", "its age: 16 days"),
        "throttle": Kind(HASH, KeyScope.CALL, "tokens for one of Amazon's operations", "never"),
        "unrecognized": Kind(ZSET, KeyScope.ACCOUNT, "notifications not understood, by when they came", _UNRECOGNIZED),
        "unrecognized:details": Kind(HASH, KeyScope.ACCOUNT, "what is known of each of them", _UNRECOGNIZED),
        "unrecognized:messages": Kind(HASH, KeyScope.ACCOUNT, "their messages, compressed", _UNRECOGNIZED),
        "report_run": Kind(
            HASH, KeyScope.ACCOUNT, "the run that fetches reports, and how the last ones ended", "never"
        ),
        "reconciling": Kind(STRING, KeyScope.ACCOUNT, "the lease of that run", "its age: a minute"),
        # Events and their delivery
        "subscribers": Kind(HASH, KeyScope.ACCOUNT, "name → the subscriber; `:version` of the list", "never"),
        "events": Kind(STREAM, KeyScope.ACCOUNT, "the events; a public contract", "trimming, entry by entry"),
        "epoch": Kind(
            STRING, KeyScope.ACCOUNT, "a random word, new after the store was emptied; part of feed positions", "never"
        ),
        "backfill": Kind(HASH, KeyScope.ACCOUNT, "subscriber → its unfinished backfill", "its last entry"),
        "told": Kind(LIST, KeyScope.ACCOUNT, "operator events that are not in the stream yet", "its last entry"),
        "upkeep": Kind(
            STRING, KeyScope.ACCOUNT, "the lease of the process that does the maintenance", "its age: a minute"
        ),
        "lane": Kind(ZSET, KeyScope.SUBSCRIBER, "stream id → when to send", _SUBSCRIBER),
        "owed": Kind(ZSET, KeyScope.SUBSCRIBER, "the stream ids that must not be trimmed", _SUBSCRIBER),
        "attempts": Kind(HASH, KeyScope.SUBSCRIBER, "stream id → its delivery attempts", _SUBSCRIBER),
        "copies": Kind(HASH, KeyScope.SUBSCRIBER, "stream id → an event that the stream may not have", _SUBSCRIBER),
        "dead": Kind(HASH, KeyScope.SUBSCRIBER, "stream id → a dead event", _SUBSCRIBER),
        "deaths": Kind(ZSET, KeyScope.SUBSCRIBER, "the stream ids of `dead`, in order", _SUBSCRIBER),
        "health": Kind(HASH, KeyScope.SUBSCRIBER, "failures in a row, rate, last success and error", _SUBSCRIBER),
        "tested": Kind(STRING, KeyScope.TEST, "the result of a subscriber test", "its age: 2 minutes"),
        # Refunds that we issue
        "charge": Kind(HASH, KeyScope.CHARGE, "refund or reservation → amount and state", "never"),
        "charges": Kind(
            STRING, KeyScope.CHARGE, "a charge as Amazon last described it", "its age: an hour; 400 days for advice"
        ),
        "disputes": Kind(HASH, KeyScope.CHARGE_PERMISSION, "dispute → what Amazon has reported about it", "never"),
        "disputes_asked": Kind(
            STRING, KeyScope.CHARGE_PERMISSION, "its disputes were made due by hand lately", "its age: a minute"
        ),
        "disputes_due": Kind(ZSET, KeyScope.ACCOUNT, "dispute → when to ask Amazon next", "its last dispute"),
        "disputes_to_answer": Kind(
            ZSET, KeyScope.ACCOUNT, "dispute → until when the merchant has to answer it", "its last dispute"
        ),
        "taken": Kind(HASH, KeyScope.CHARGE, "refund → the request that made it", "its last refund"),
        "requests": Kind(HASH, KeyScope.REQUEST, "a refund request: the order and its progress", _ISSUED),
        "issuing": Kind(ZSET, KeyScope.ACCOUNT, "refund request → when to try", "its last request"),
        "reserved": Kind(
            ZSET, KeyScope.ACCOUNT, "open refund requests, by the time of their state", "its last request"
        ),
        "unclear": Kind(
            ZSET, KeyScope.ACCOUNT, "unclear refund requests, by the time of their state", "its last request"
        ),
        "fps": Kind(HASH, KeyScope.REQUEST, "a Flexible Payments refund: the order and its progress", "never"),
        "fps_issuing": Kind(ZSET, KeyScope.ACCOUNT, "reference → when to try", "its last order"),
        # Who did what
        "audit": Kind(
            STREAM, KeyScope.ACCOUNT, "the acts of people and programs", "its age, by pruning: 400 days at least"
        ),
        # Jobs that reissue many refunds
        "job": Kind(HASH, KeyScope.JOB, "its selection, state and counts", _JOB),
        "job_todo": Kind(HASH, KeyScope.JOB, "its refunds that have no outcome yet", "its last refund"),
        "job_outcomes": Kind(LIST, KeyScope.JOB, "the outcomes of its refunds, in order", _JOB),
        "jobs": Kind(ZSET, KeyScope.ACCOUNT, "running job → when to work on it", "its last job"),
        "job_list": Kind(ZSET, KeyScope.ACCOUNT, "the jobs, by when they were created", "its job, when it is listed"),
        "current_job": Kind(STRING, KeyScope.ACCOUNT, "the unfinished job", "its job"),
        # The store itself
        "restored": Kind(STRING, KeyScope.ACCOUNT, "the restore that the account has caught up with", "never"),
        "probe": Kind(STRING, KeyScope.ACCOUNT, "always empty: the key for writes that change nothing", "never there"),
        "pulse": Kind(STRING, KeyScope.ACCOUNT, "the write that `WAIT` waits for", "its age: a day"),
        "doctor": Kind(STRING, KeyScope.TEST, "a sample write of `receiver doctor`", "its age: 10 seconds"),
        "aside": Kind(HASH, KeyScope.ASIDE, "damaged parts of a key, kept", "never: by hand"),
        "replaced": Kind(ANY, KeyScope.ASIDE, "a whole key that `receiver repair` has set aside", "never: by hand"),
    }
)
"""The keys of an account: `refunds:{<account>}:<kind>`, followed by what they belong to."""

STORE_KEYS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "certificates": Kind(HASH, KeyScope.STORE, "`<partition>/<file hash>` → DER that verified a message", "never"),
        "certificate_seals": Kind(HASH, KeyScope.STORE, "`<partition>/<file hash>#<seal key>` → its seal", "never"),
        "format": Kind(STRING, KeyScope.STORE, "the version of the data's format", "never"),
        "restored": Kind(STRING, KeyScope.STORE, "a text that identifies the last restore", "never"),
        "probe": Kind(STRING, KeyScope.STORE, "always empty: the key for writes that change nothing", "never there"),
        "doctor": Kind(STRING, KeyScope.TEST, "a sample write of `receiver doctor`", "its age: 10 seconds"),
        "replaced": Kind(ANY, KeyScope.ASIDE, "a whole key that `receiver repair` has set aside", "never: by hand"),
    }
)
"""The keys of the whole store: `refunds:<kind>`."""

ALONE = frozenset({KeyScope.STORE, KeyScope.ACCOUNT})
"""Scopes with exactly one key of each kind."""

ACCOUNT_KEY = re.compile(r"refunds:\{([^{}]+)\}:([^:]+)(?::(.*))?", re.DOTALL)
STORE_KEY = re.compile(r"refunds:([^:{}]+)(?::(.*))?", re.DOTALL)

OTHER = "other"
STATES = ("RefundInitiated", "Refunded", "Declined", OTHER)
"""The state indexes. Unknown states of Amazon share one index, so that listing all refunds reads a fixed number of
keys."""


class Keys:
    """The keys of one account. Those that never vary are formatted once."""

    def __init__(self, account: str) -> None:
        self.account, self.prefix = account, f"{PREFIX}{{{account}}}:"
        self._of_kind = {kind: f"{self.prefix}{kind}" for kind in CATALOGUE}

    def __call__(self, kind: str, *parts: str) -> str:
        """`refunds:{us}:refund:S01-…` for `("refund", "S01-…")`. Raises `KeyError` for an unknown kind."""
        key = self._of_kind[kind]
        return ":".join((key, *parts)) if parts else key

    def state(self, state: str) -> str:
        """The index of refunds in this state, by last change."""
        return self("state", index_of(state))

    def of_subscriber(self, name: str) -> list[str]:
        """All keys that belong to one subscriber, in the order of `SUBSCRIBER_KINDS`."""
        return [self(kind, name) for kind in SUBSCRIBER_KINDS]


def index_of(state: str) -> str:
    """The name of the index of refunds in this state."""
    return state if state in STATES else OTHER


@dataclass(frozen=True, slots=True)
class Name:
    """The parsed name of a key. `account` is empty for keys of the whole store."""

    account: str
    kind: str
    of: str
    """What it belongs to: a refund's id, a subscriber's name, …; empty if there is only one key of the kind."""
    entry: Kind


@lru_cache(4_096)
def read_name(key: str) -> Name | None:
    """Parse a key's name; None if it is not in the catalogue."""
    if found := ACCOUNT_KEY.fullmatch(key):
        account, kind, of = found.groups()
        if f"{kind}:{of}" in CATALOGUE:
            kind, of = f"{kind}:{of}", None
        entry = CATALOGUE.get(kind)
    elif found := STORE_KEY.fullmatch(key):
        account, kind, of = "", *found.groups()
        entry = STORE_KEYS.get(kind)
    else:
        return None
    if entry is None or (of is None) != (entry.scope in ALONE):
        return None
    return Name(account, kind, of or "", entry)


def aside_of(name: Name) -> str:
    """The key that keeps the parts of this key that were set aside."""
    return Keys(name.account)("aside", name.kind, *((name.of,) if name.of else ()))


def read_kind(key: str) -> str:
    """The kind of a key; empty if it is not in the catalogue."""
    found = read_name(key)
    return found.kind if found else ""


def type_of(key: str) -> str:
    """The type that a key should have. Raises `KeyError` if it is not in the catalogue."""
    return kind_and_type(key)[1]


def kind_and_type(key: str) -> tuple[str, str]:
    """The kind of a key, and the type that it should have. Raises `KeyError` if it is not in the catalogue.

    Every script needs it of all its keys. Those of an account are read without parsing their whole names.
    """
    rest = key.partition("}:")[2]
    if (entry := CATALOGUE.get(kind := rest)) or (entry := CATALOGUE.get(kind := rest.partition(":")[0])):
        return kind, entry.type
    found = read_name(key)
    if found is None:
        raise KeyError(f"{key} is not in the catalogue of keys.")
    return found.kind, found.entry.type


def _store_key(kind: str) -> str:
    STORE_KEYS[kind]
    return f"{PREFIX}{kind}"


CERTIFICATES, SEALS = map(_store_key, ("certificates", "certificate_seals"))
FORMAT, RESTORED, PROBE = map(_store_key, ("format", "restored", "probe"))
SUBSCRIBER_KINDS = tuple(kind for kind, entry in CATALOGUE.items() if entry.scope is KeyScope.SUBSCRIBER)
"""The kinds with one key for each subscriber."""


def standing_keys(account: str, subscribers: Iterable[str]) -> list[str]:
    """The keys of an account with fixed names. Those of single refunds and charges are too many."""
    keys = Keys(account)
    return [
        *(keys(kind) for kind, entry in CATALOGUE.items() if entry.scope is KeyScope.ACCOUNT),
        *(keys.state(state) for state in STATES),
        *(keys("reason", reason) for reason in Reason),
        *(keys("findings", kind) for kind in FindingKind),
        *(keys("throttle", call) for call in Call),
        *(key for name in subscribers for key in keys.of_subscriber(name)),
    ]
