"""Pure. The kinds of events in the stream: which one an entry is, and how it is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from receiver.errors import Malformed
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Source
from receiver.outbox.events.balance_event import BalanceEventType, balance_fields, read_balance_event
from receiver.outbox.events.dispute_event import DisputeEventType, dispute_fields, read_dispute_event
from receiver.outbox.events.envelope import AnEvent
from receiver.outbox.events.event import from_fields, to_fields
from receiver.outbox.events.mismatch_event import MismatchEventType, mismatch_fields, read_mismatch_event
from receiver.outbox.events.operator_event import OperatorType, operator_fields, read_operator_event

Fields = Mapping[str, str]
E_co = TypeVar("E_co", bound=AnEvent, covariant=True)


@dataclass(frozen=True, slots=True)
class Kind(Generic[E_co]):
    """A kind of event."""

    types: type[StrEnum]
    prefix: str
    """The beginning of all its types, including those of later versions."""
    of_fields: Callable[[str, Fields], E_co]
    write: Callable[[Any], dict[str, str]]
    """The fields of its entry."""

    def read(self, account: str, fields: Fields) -> E_co:
        """Reads an entry of the account's stream. Raises `Malformed` (`bad_event`) only."""
        try:
            return self.of_fields(account, fields)
        except (Malformed, ValueError, KeyError, TypeError) as error:
            raise Malformed("The entry in the stream of events cannot be read.", reason="bad_event") from error


REFUND = Kind(EventType, "", from_fields, to_fields)
"""A change of a refund. An entry of no other kind counts as one."""
BALANCE = Kind(BalanceEventType, "amazonpay.balance.", read_balance_event, balance_fields)
DISPUTE = Kind(DisputeEventType, "amazonpay.dispute.", read_dispute_event, dispute_fields)
MISMATCH = Kind(MismatchEventType, MismatchEventType.MISMATCH.value, read_mismatch_event, mismatch_fields)
OPERATOR = Kind(OperatorType, "receiver.", read_operator_event, operator_fields)
NAMED = (BALANCE, DISPUTE, MISMATCH)
"""Kinds about Amazon Pay that are not a change of a refund. A subscriber gets them only by naming their types."""
KINDS = (REFUND, *NAMED, OPERATOR)
"""A new kind is added here, its recipients in `formats/registry.py`, its JSON in `formats/cloudevents.py`, and its text
in each format."""
KNOWN_TYPES = frozenset(word.value for kind in KINDS for word in kind.types)
"""Every type of event that this version knows."""

NEWER = re.compile(r"amazonpay\.[a-z_.]{1,64}")
SOURCES = frozenset(Source)
WORD = re.compile(r"[a-z_]{1,64}")


def kind_of(fields: Fields) -> Kind[AnEvent]:
    """The kind of a stream entry."""
    word = fields.get("type", "")
    return next((kind for kind in KINDS[1:] if word.startswith(kind.prefix)), REFUND)


def read_event(account: str, fields: Fields) -> AnEvent:
    """The event of a stream entry, of any kind. Raises `Malformed` (`bad_event`) only."""
    return kind_of(fields).read(account, fields)


def fields_of(event: AnEvent) -> dict[str, str]:
    """The fields of an event's entry in the stream, for an event of any kind."""
    return next(kind for kind in KINDS if isinstance(event.type, kind.types)).write(event)


def is_newer(fields: Fields) -> bool:
    """Whether a later version wrote the entry: its type or source is unknown here. That version handles it."""
    word = fields.get("type", "")
    if kind_of(fields) is not REFUND:
        return word not in KNOWN_TYPES
    source = fields.get("source", "")
    has_later_source = source not in SOURCES and WORD.fullmatch(source) is not None
    return (word not in KNOWN_TYPES or has_later_source) and NEWER.fullmatch(word) is not None
